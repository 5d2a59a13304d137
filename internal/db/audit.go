package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// AuditRecord is one row of the audit record: who did what to which thing.
type AuditRecord struct {
	Seq      int64
	At       time.Time
	Actor    string
	Addr     string
	Action   string // "manifest.push", "tag.move", …
	Resource string // "repo:tag", "repo@digest", a name
	Detail   string // JSON or empty
}

// AddAudit records an act of actor. Call it in the transaction of the act.
func (t *Tx) AddAudit(ctx context.Context, actor gatehouse.Actor, action, resource, detail string) error {
	return t.AddAudits(ctx, actor, action, detail, resource)
}

// AddAudits records the same act on several things.
func (t *Tx) AddAudits(ctx context.Context, actor gatehouse.Actor, action, detail string, resources ...string) error {
	name := actor.Name
	if actor.Anonymous() {
		name = "anonymous"
	}
	rows := make([][]any, len(resources))
	for i, resource := range resources {
		rows[i] = []any{micros(t.now), name, actor.Addr, action, resource, detail}
	}
	return t.insertRows(ctx, `INSERT INTO audit (at, actor, addr, action, resource, detail) VALUES `, rows)
}

// Audit lists records after seq, in order, at most n.
func (t *Tx) Audit(ctx context.Context, after int64, n int) ([]AuditRecord, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT seq, at, actor, addr, action, resource, detail FROM audit
		WHERE seq > $1 ORDER BY seq LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []AuditRecord
	for rows.Next() {
		var r AuditRecord
		var at int64
		if err := rows.Scan(&r.Seq, &at, &r.Actor, &r.Addr, &r.Action, &r.Resource, &r.Detail); err != nil {
			return nil, unavailable(err)
		}
		r.At = fromMicros(at)
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

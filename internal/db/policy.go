package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Policy is one policy document as its author wrote it.
type Policy struct {
	Name      string // file name, its extension tells the language
	Source    string
	UpdatedBy string
	UpdatedAt time.Time
}

// Policies lists all policy documents by name.
func (t *Tx) Policies(ctx context.Context) ([]Policy, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT name, source, updated_by, updated_at FROM policy ORDER BY name`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Policy
	for rows.Next() {
		var p Policy
		var at int64
		if err := rows.Scan(&p.Name, &p.Source, &p.UpdatedBy, &at); err != nil {
			return nil, unavailable(err)
		}
		p.UpdatedAt = fromMicros(at)
		out = append(out, p)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// PutPolicy adds or replaces a policy document, with its event and audit record.
func (t *Tx) PutPolicy(ctx context.Context, actor gatehouse.Actor, name, source string) error {
	if err := t.take(ctx, turnPolicies); err != nil {
		return err
	}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO policy (name, source, updated_by, updated_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (name) DO UPDATE SET source = excluded.source, updated_by = excluded.updated_by, updated_at = excluded.updated_at`,
		name, source, actor.Name, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return t.policyChanged(ctx, actor, "policy.put", name)
}

// DeletePolicy removes a policy document. CodeNotFound: there is none.
func (t *Tx) DeletePolicy(ctx context.Context, actor gatehouse.Actor, name string) error {
	if err := t.take(ctx, turnPolicies); err != nil {
		return err
	}
	n, err := affected(t.tx.ExecContext(ctx, `DELETE FROM policy WHERE name = $1`, name))
	if err != nil {
		return err
	}
	if n == 0 {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no policy %q", name)
	}
	return t.policyChanged(ctx, actor, "policy.delete", name)
}

func (t *Tx) policyChanged(ctx context.Context, actor gatehouse.Actor, action, name string) error {
	if err := t.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventPolicyChanged, Actor: actor.Name, Payload: []byte(`{}`)}); err != nil {
		return err
	}
	if err := t.tellAll(ctx); err != nil {
		return err
	}
	return t.AddAudit(ctx, actor, action, name, "")
}

// PolicyVersion grows whenever a policy document changes, on any replica, and
// never shrinks: changes take turns, so that their events are in the order of
// their commits.
func (t *Tx) PolicyVersion(ctx context.Context) (int64, error) {
	var seq int64
	err := t.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(seq), 0) FROM event WHERE type = $1`, string(gatehouse.EventPolicyChanged)).Scan(&seq)
	if err != nil {
		return 0, unavailable(err)
	}
	return seq, nil
}

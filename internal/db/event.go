package db

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
)

// AddEvent appends to the outbox. Seq and At are set by the database.
func (t *Tx) AddEvent(ctx context.Context, e gatehouse.Event) error {
	return t.AddEvents(ctx, e)
}

// AddEvents appends to the outbox in the given order.
func (t *Tx) AddEvents(ctx context.Context, list ...gatehouse.Event) error {
	rows := make([][]any, len(list))
	for i, e := range list {
		rows[i] = []any{string(e.Type), micros(t.now), e.Actor, string(e.Repo), e.Tag, dbDigest(e.Digest), string(e.Payload)}
	}
	return t.insertRows(ctx, `INSERT INTO event (type, at, actor, repo, tag, digest, payload) VALUES `, rows)
}

// Events lists what happened after seq, in order, at most n. On SQLite, whose
// writers take turns, nothing can appear behind a seq that has been seen.
func (t *Tx) Events(ctx context.Context, after int64, n int) ([]gatehouse.Event, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT seq, type, at, actor, repo, tag, digest, payload FROM event
		WHERE seq > $1 ORDER BY seq LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []gatehouse.Event
	for rows.Next() {
		var e gatehouse.Event
		var at int64
		var payload string
		if err := rows.Scan(&e.Seq, &e.Type, &at, &e.Actor, &e.Repo, &e.Tag, (*dbDigest)(&e.Digest), &payload); err != nil {
			return nil, unavailable(err)
		}
		e.At, e.Payload = fromMicros(at), []byte(payload)
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

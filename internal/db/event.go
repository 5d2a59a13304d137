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
	t.events = t.events || len(list) > 0
	rows := make([][]any, len(list))
	for i, e := range list {
		rows[i] = []any{string(e.Type), micros(t.now), e.Actor, string(e.Repo), e.Tag, dbDigest(e.Digest), string(e.Payload)}
	}
	return t.insertRows(ctx, `INSERT INTO event (type, at, actor, repo, tag, digest, payload) VALUES `, rows)
}

// Events lists what happened after the event that has the given seq, or from the
// beginning (0), at most n. Whoever asks again with the seq of the last one that
// was returned sees each event once and misses none: nothing can appear behind
// an event that has been seen.
//
// On PostgreSQL, where transactions commit in another order than they draw seq,
// the order is that of transactions, not of seq; and an event appears when every
// transaction that began to write before it has ended, which may be later than
// [DB.Changed] tells: look again after a while. A transaction does not see its
// own. Where the event with the given seq was removed, those after it, and
// perhaps some before, are returned.
func (t *Tx) Events(ctx context.Context, after int64, n int) ([]gatehouse.Event, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT seq, type, at, actor, repo, tag, digest, payload FROM event
		WHERE (txid, seq) > (COALESCE((SELECT last.txid FROM event last WHERE last.seq = $1), 0), $1)`+t.dialect.settled+`
		ORDER BY txid, seq LIMIT $2`, after, n)
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

// Event finds one event. CodeNotFound: there is none with this seq.
func (t *Tx) Event(ctx context.Context, seq int64) (gatehouse.Event, error) {
	e := gatehouse.Event{Seq: seq}
	var at int64
	var payload string
	err := t.tx.QueryRowContext(ctx, `SELECT type, at, actor, repo, tag, digest, payload FROM event WHERE seq = $1`, seq).
		Scan(&e.Type, &at, &e.Actor, &e.Repo, &e.Tag, (*dbDigest)(&e.Digest), &payload)
	if none(err) {
		return e, notFound("", "there is no event %d", seq)
	}
	e.At, e.Payload = fromMicros(at), []byte(payload)
	return e, unavailable(err)
}

// LastEvent is the last one that [Tx.Events] could return now; without any its Seq is 0.
func (t *Tx) LastEvent(ctx context.Context) (gatehouse.Event, error) {
	var seq int64
	err := t.tx.QueryRowContext(ctx, `SELECT seq FROM event WHERE txid >= 0`+t.dialect.settled+` ORDER BY txid DESC, seq DESC LIMIT 1`).Scan(&seq)
	if none(err) {
		return gatehouse.Event{}, nil
	}
	if err != nil {
		return gatehouse.Event{}, unavailable(err)
	}
	return t.Event(ctx, seq)
}

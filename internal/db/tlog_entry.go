package db

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// AddTlogPending adds entries that wait for a place in the tree of a log, and
// tells the sequencers of all replicas when the transaction commits.
func (t *Tx) AddTlogPending(ctx context.Context, id int64, bodies ...[]byte) error {
	rows := make([][]any, len(bodies))
	for i, body := range bodies {
		rows[i] = []any{id, body, micros(t.now)}
	}
	t.jobs = t.jobs || len(rows) > 0
	return t.insertRows(ctx, `INSERT INTO tlog_pending (log_id, body, added_at) VALUES `, rows)
}

// TakeTlogPending takes the n entries that have waited longest out of the queue,
// in the order in which they came. Call it in the transaction that gives them
// their places, after [Tx.OwnTlog].
func (t *Tx) TakeTlogPending(ctx context.Context, id int64, n int) (bodies [][]byte, err error) {
	// By their numbers, not up to the last one: a transaction that drew a lower
	// number may commit between the two readings.
	rows, err := t.tx.QueryContext(ctx, `DELETE FROM tlog_pending WHERE seq IN
		(SELECT seq FROM tlog_pending WHERE log_id = $1 ORDER BY seq LIMIT $2) RETURNING seq, body`, id, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	type pending struct {
		seq  int64
		body []byte
	}
	var all []pending
	for rows.Next() {
		var p pending
		if err := rows.Scan(&p.seq, &p.body); err != nil {
			return nil, unavailable(err)
		}
		all = append(all, p)
	}
	if err := ended(rows); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b pending) int { return cmp.Compare(a.seq, b.seq) })
	for _, p := range all {
		bodies = append(bodies, p.body)
	}
	return bodies, nil
}

// TlogWaiting counts the entries that wait, up to most, and tells since when the
// first of them does; the zero time where none waits.
func (t *Tx) TlogWaiting(ctx context.Context, id int64, most int) (n int, since time.Time, err error) {
	var at int64
	err = t.tx.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(MIN(added_at), 0) FROM
		(SELECT added_at FROM tlog_pending WHERE log_id = $1 ORDER BY seq LIMIT $2) w`, id, most).Scan(&n, &at)
	return n, fromMicros(at), unavailable(err)
}

// TlogEntry is an entry and the hash of its leaf.
type TlogEntry struct{ Hash, Body []byte }

// AddTlogEntries stores entries from the given index on.
func (t *Tx) AddTlogEntries(ctx context.Context, id, from int64, entries []TlogEntry) error {
	rows := make([][]any, len(entries))
	for i, e := range entries {
		rows[i] = []any{id, from + int64(i), e.Hash, e.Body}
	}
	return t.insertRows(ctx, `INSERT INTO tlog_entry (log_id, idx, hash, body) VALUES `, rows)
}

// TlogIndexes finds the places of those leaves that the tree has, by their
// hashes as text.
func (t *Tx) TlogIndexes(ctx context.Context, id int64, hashes [][]byte) (map[string]int64, error) {
	out := make(map[string]int64, len(hashes))
	for len(hashes) > 0 {
		take := min(len(hashes), batchMax)
		size := 1
		for size < take {
			size *= 2
		}
		args, marks := []any{id}, make([]string, size)
		for i := range marks {
			args, marks[i] = append(args, hashes[min(i, take-1)]), fmt.Sprintf("$%d", i+2)
		}
		rows, err := t.tx.QueryContext(ctx, `SELECT hash, idx FROM tlog_entry WHERE log_id = $1 AND hash IN (`+strings.Join(marks, ", ")+`)`, args...)
		if err != nil {
			return nil, unavailable(err)
		}
		for rows.Next() {
			var hash []byte
			var idx int64
			if err := rows.Scan(&hash, &idx); err != nil {
				rows.Close()
				return nil, unavailable(err)
			}
			out[string(hash)] = idx
		}
		if err := ended(rows); err != nil {
			return nil, err
		}
		hashes = hashes[take:]
	}
	return out, nil
}

// TlogEntries reads the bodies of n entries from the given index on; fewer where
// the tree ends.
func (t *Tx) TlogEntries(ctx context.Context, id, from int64, n int) (bodies [][]byte, err error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT body FROM tlog_entry WHERE log_id = $1 AND idx >= $2 AND idx < $3 ORDER BY idx`, id, from, from+int64(n))
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, unavailable(err)
		}
		bodies = append(bodies, body)
	}
	return bodies, ended(rows)
}

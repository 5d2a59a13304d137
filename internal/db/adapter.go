package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// ScanState says where a scan for another registry is in its life.
type ScanState int

const (
	ScanWaits  ScanState = 0
	ScanDone   ScanState = 1
	ScanFailed ScanState = 2 // for good; Error says why
)

// AdapterScan is a scan that another registry has asked for.
type AdapterScan struct {
	ID      string
	State   ScanState
	Request []byte // JSON, without credentials
	// Sealed holds the credentials, encrypted; empty when the scan is over.
	Sealed     []byte
	Error      string
	CreatedAt  time.Time
	FinishedAt time.Time
}

// AddAdapterScan adds a scan that waits. CodeTooMany: waitingMax wait already,
// give or take those that are added in this very moment.
func (t *Tx) AddAdapterScan(ctx context.Context, s AdapterScan, waitingMax int) error {
	var n int
	if err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM adapter_scan WHERE state = 0`).Scan(&n); err != nil {
		return unavailable(err)
	}
	if n >= waitingMax {
		return gatehouse.Errorf(gatehouse.CodeTooMany, "%d scans wait already", n).WithHint("ask again later")
	}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO adapter_scan (id, state, request, sealed, error, created_at, finished_at)
		VALUES ($1, 0, $2, $3, '', $4, 0)`, s.ID, string(s.Request), s.Sealed, micros(t.now))
	return unavailable(err)
}

// AdapterScan finds one. CodeNotFound: there is none, or it has been forgotten.
func (t *Tx) AdapterScan(ctx context.Context, id string) (s AdapterScan, err error) {
	var request string
	var created, finished int64
	err = t.tx.QueryRowContext(ctx, `SELECT id, state, request, sealed, error, created_at, finished_at FROM adapter_scan WHERE id = $1`, id).
		Scan(&s.ID, &s.State, &request, &s.Sealed, &s.Error, &created, &finished)
	if none(err) {
		return s, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no such scan").WithHint("reports are kept for a day; ask for a new scan")
	}
	s.Request, s.CreatedAt, s.FinishedAt = []byte(request), fromMicros(created), fromMicros(finished)
	return s, unavailable(err)
}

// FinishAdapterScan ends a scan that waits: with reports by kind, or failed with
// a reason. The credentials go. One that does not wait any more stays as it is.
func (t *Tx) FinishAdapterScan(ctx context.Context, id, reason string, reports map[string][]byte) error {
	state := ScanDone
	if reason != "" {
		state, reports = ScanFailed, nil
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE adapter_scan SET state = $2, error = $3, finished_at = $4, sealed = $5 WHERE id = $1 AND state = 0`,
		id, int(state), reason, micros(t.now), []byte{}))
	if err != nil || n == 0 {
		return err
	}
	for kind, doc := range reports {
		packed, err := pack(doc)
		if err != nil {
			return err
		}
		if _, err := t.tx.ExecContext(ctx, `INSERT INTO adapter_report (scan_id, kind, doc) VALUES ($1, $2, $3)`, id, kind, packed); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// AdapterReport reads one document of a scan. ok is false where it was not made.
func (t *Tx) AdapterReport(ctx context.Context, id, kind string) (doc []byte, ok bool, err error) {
	var packed []byte
	err = t.tx.QueryRowContext(ctx, `SELECT doc FROM adapter_report WHERE scan_id = $1 AND kind = $2`, id, kind).Scan(&packed)
	if none(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, unavailable(err)
	}
	doc, err = unpack(packed)
	return doc, err == nil, err
}

// ForgetAdapterScans removes scans from before the given time, and the oldest
// beyond rowsMax or while all reports together have more than bytesMax bytes, a
// hundred at most, and tells how many there were.
func (t *Tx) ForgetAdapterScans(ctx context.Context, before time.Time, rowsMax int, bytesMax int64) (int, error) {
	// From the newest on, until there is no more room: only a few reports are large.
	var large int
	err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT SUM(s.size) OVER (ORDER BY s.created_at DESC, s.id DESC) AS total FROM
		(SELECT a.id, a.created_at, COALESCE((SELECT SUM(LENGTH(r.doc)) FROM adapter_report r WHERE r.scan_id = a.id), 0) AS size FROM adapter_scan a) s) sums
		WHERE total <= CAST($1 AS BIGINT)`, bytesMax).Scan(&large)
	if err != nil {
		return 0, unavailable(err)
	}
	rowsMax = min(rowsMax, large)
	rows, err := t.tx.QueryContext(ctx, `SELECT id FROM adapter_scan WHERE created_at < $1 OR id IN
		(SELECT id FROM adapter_scan ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $2) LIMIT $3`, micros(before), rowsMax, forgetPage)
	if err != nil {
		return 0, unavailable(err)
	}
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			rows.Close()
			return 0, unavailable(err)
		}
		ids = append(ids, id)
	}
	if err := ended(rows); err != nil {
		return 0, err
	}
	for _, id := range ids {
		for _, q := range []string{`DELETE FROM adapter_report WHERE scan_id = $1`, `DELETE FROM adapter_scan WHERE id = $1`} {
			if _, err := t.tx.ExecContext(ctx, q, id); err != nil {
				return 0, unavailable(err)
			}
		}
	}
	return len(ids), nil
}

// UseLayers keeps the analyses of layers that belong to no stored image until
// [Tx.LeaveLayers] lets go of them.
func (t *Tx) UseLayers(ctx context.Context, layers []int64) error {
	for _, id := range layers {
		_, err := t.tx.ExecContext(ctx, `INSERT INTO adapter_layer (layer_id, used_at) VALUES ($1, $2)
			ON CONFLICT (layer_id) DO UPDATE SET used_at = excluded.used_at`, id, micros(t.now))
		if err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// LeaveLayers lets go of layers that nobody has used since the given time: the
// next [Tx.ForgetLayers] removes those that no image has.
func (t *Tx) LeaveLayers(ctx context.Context, before time.Time) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM adapter_layer WHERE used_at < $1`, micros(before))
	return unavailable(err)
}

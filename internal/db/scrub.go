package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// ScrubBlob is a stored blob whose bytes are to be hashed again.
type ScrubBlob struct {
	ID     int64
	Digest gatehouse.Digest
	Key    string
	Size   int64
	// Withheld: it was found damaged before.
	Withheld bool
}

// ClaimScrub takes live stored blobs that were last checked before due, the
// oldest first, and withheld ones, all of them at most n, and none that another
// worker has claimed or put off: until then they are the caller's.
func (t *Tx) ClaimScrub(ctx context.Context, due time.Time, lease string, until time.Time, n int) ([]ScrubBlob, error) {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM scrub_claim WHERE until < $1`, micros(t.now)); err != nil {
		return nil, unavailable(err)
	}
	found, err := t.dueBlobs(ctx, due, n)
	if err != nil {
		return nil, err
	}
	var out []ScrubBlob
	for _, b := range found {
		// Of two workers that found the same blob one inserts, the other does not.
		won, err := affected(t.tx.ExecContext(ctx, `INSERT INTO scrub_claim (blob_id, lease, until) VALUES ($1, $2, $3) ON CONFLICT (blob_id) DO NOTHING`, b.ID, lease, micros(until)))
		if err != nil {
			return nil, err
		}
		if won > 0 {
			out = append(out, b)
		}
	}
	return out, nil
}

// dueBlobs finds withheld blobs, which take a quarter of n at most, and live ones
// that were last checked before due.
func (t *Tx) dueBlobs(ctx context.Context, due time.Time, n int) ([]ScrubBlob, error) {
	found, err := t.scrubBlobs(ctx, `b.state = 2 ORDER BY b.id LIMIT $1`, max(1, n/4))
	if err != nil {
		return nil, err
	}
	live, err := t.scrubBlobs(ctx, `b.state = 0 AND b.checked_at < $2 ORDER BY b.checked_at, b.id LIMIT $1`, n-len(found), micros(due))
	return append(found, live...), err
}

// scrubBlobs finds stored blobs that nobody has claimed; args are $1 and on of
// which.
func (t *Tx) scrubBlobs(ctx context.Context, which string, args ...any) ([]ScrubBlob, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT b.id, b.digest, b.storage_key, b.size, CASE WHEN b.state = 2 THEN 1 ELSE 0 END FROM blob b
		WHERE b.storage_key <> '' AND NOT EXISTS (SELECT 1 FROM scrub_claim c WHERE c.blob_id = b.id) AND `+which, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []ScrubBlob
	for rows.Next() {
		var b ScrubBlob
		var withheld int
		if err := rows.Scan(&b.ID, (*dbDigest)(&b.Digest), &b.Key, &b.Size, &withheld); err != nil {
			return nil, unavailable(err)
		}
		b.Withheld = withheld != 0
		out = append(out, b)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// KeepScrub prolongs all claims of a lease. held is the number that remain.
func (t *Tx) KeepScrub(ctx context.Context, lease string, until time.Time) (held int64, err error) {
	return affected(t.tx.ExecContext(ctx, `UPDATE scrub_claim SET until = $2 WHERE lease = $1`, lease, micros(until)))
}

// EndScrub gives all claims of a lease back.
func (t *Tx) EndScrub(ctx context.Context, lease string) error {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM scrub_claim WHERE lease = $1`, lease); err != nil {
		return unavailable(err)
	}
	return nil
}

// PutOffScrub lets nobody claim blobs again before until.
func (t *Tx) PutOffScrub(ctx context.Context, ids []int64, until time.Time) error {
	for _, id := range ids {
		if _, err := t.tx.ExecContext(ctx, `UPDATE scrub_claim SET lease = '', until = $2 WHERE blob_id = $1`, id, micros(until)); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// BlobsChecked notes that the bytes of blobs were hashed and found right.
func (t *Tx) BlobsChecked(ctx context.Context, ids []int64) error {
	for _, id := range ids {
		if _, err := t.tx.ExecContext(ctx, `UPDATE blob SET checked_at = $2 WHERE id = $1 AND state = 0`, id, micros(t.now)); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// ScrubTotals tells how far the checking of stored blobs is.
type ScrubTotals struct {
	Blobs        int64
	Bytes        int64
	CheckedBlobs int64     // since the time asked for
	CheckedBytes int64     // of those
	Oldest       time.Time // zero: there are no stored blobs
	Withheld     int64     // damaged blobs, also inline ones
}

// ScrubTotals sums over live stored blobs: one index from end to end.
func (t *Tx) ScrubTotals(ctx context.Context, since time.Time) (s ScrubTotals, err error) {
	var oldest int64
	err = t.tx.QueryRowContext(ctx, `SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT), CAST(COALESCE(SUM(CASE WHEN checked_at >= $1 THEN 1 ELSE 0 END), 0) AS BIGINT),
		CAST(COALESCE(SUM(CASE WHEN checked_at >= $1 THEN size ELSE 0 END), 0) AS BIGINT), COALESCE(MIN(checked_at), 0),
		(SELECT COUNT(*) FROM blob w WHERE w.state = 2)
		FROM blob WHERE state = 0 AND storage_key <> ''`, micros(since)).
		Scan(&s.Blobs, &s.Bytes, &s.CheckedBlobs, &s.CheckedBytes, &oldest, &s.Withheld)
	if err != nil {
		return ScrubTotals{}, unavailable(err)
	}
	s.Oldest = fromMicros(oldest)
	return s, nil
}

package db

import (
	"context"
	"time"
)

// scanVerdictAt is when the verdict of image i changed last.
const scanVerdictAt = `(CASE WHEN i.matched_at > i.indexed_at THEN i.matched_at ELSE i.indexed_at END)`

// UnattestedScans lists stored images whose verdict has changed since it was
// attested last, behind the given row, at most n.
func (t *Tx) UnattestedScans(ctx context.Context, after int64, n int) ([]Affected, error) {
	return t.affected(ctx, `SELECT i.id, i.digest FROM image i LEFT JOIN attested_scan a ON a.image_id = i.id
		WHERE i.id > $1 AND i.state = 0 AND COALESCE(a.verdict_at, 0) < `+scanVerdictAt+`
		AND EXISTS (SELECT 1 FROM manifest m WHERE m.digest = i.digest) ORDER BY i.id LIMIT $2`, after, n)
}

// NoteAttestedScan notes which verdict of an image has been attested: that of the
// given time, which was read before it was.
func (t *Tx) NoteAttestedScan(ctx context.Context, image int64, verdictAt time.Time) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO attested_scan (image_id, verdict_at) SELECT i.id, $2 FROM image i WHERE i.id = $1
		ON CONFLICT (image_id) DO UPDATE SET verdict_at = excluded.verdict_at`, image, micros(verdictAt))
	return unavailable(err)
}

package db

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// useResolution is how exactly it is known when an image was used last: so much
// less is written.
const useResolution = time.Hour

// NoteUse remembers that a cluster asked for images now: work that is done for
// every image begins with those.
func (t *Tx) NoteUse(ctx context.Context, digests map[gatehouse.Digest]bool) error {
	now := micros(t.now.Truncate(useResolution))
	rows := make([][]any, 0, len(digests))
	for _, d := range slices.Sorted(maps.Keys(digests)) {
		rows = append(rows, []any{dbDigest(d), now})
	}
	return t.insertRowsOr(ctx, `INSERT INTO image_use (digest, used_at) VALUES `, rows,
		` ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at WHERE image_use.used_at < excluded.used_at`)
}

// PruneUse forgets images that were not used since the given time.
func (t *Tx) PruneUse(ctx context.Context, before time.Time) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM image_use WHERE used_at < $1`, micros(before))
	return unavailable(err)
}

// lastUse orders image i among others: those that were used come before those that
// never were, whenever they were pushed (126 years are added to the use).
const lastUse = `COALESCE((SELECT u.used_at + 4000000000000000 FROM image_use u WHERE u.digest = i.digest),
	(SELECT MAX(m.pushed_at) FROM manifest m WHERE m.digest = i.digest), 0)`

// queuePage is how many images one transaction of a long walk over all of them
// looks at: others write in between.
const queuePage = 1000

// imagesUpTo is the last row of the page of images behind after; 0: there is none.
func (t *Tx) imagesUpTo(ctx context.Context, after int64) (last int64, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(id), 0) FROM (SELECT id FROM image WHERE id > $1 ORDER BY id LIMIT $2) page`, after, queuePage).Scan(&last)
	return last, unavailable(err)
}

// QueueReindex puts those of a page of stored images that another indexer than the
// given one analysed on the list of those to index again. after is 0, and then what
// the call before returned, until that is 0 again.
func (t *Tx) QueueReindex(ctx context.Context, indexer string, after int64) (next int64, err error) {
	next, err = t.imagesUpTo(ctx, after)
	if err != nil || next == 0 {
		return 0, err
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO reindex (image_id, used_at) SELECT i.id, `+lastUse+` FROM image i
		WHERE i.id > $1 AND i.id <= $2 AND i.indexer <> $3 AND EXISTS (SELECT 1 FROM manifest m WHERE m.digest = i.digest)
		ON CONFLICT (image_id) DO NOTHING`, after, next, indexer)
	return next, unavailable(err)
}

// ended closes rows and tells whether they came to their end.
func ended(rows *sql.Rows) error {
	err := rows.Err()
	return unavailable(cmp.Or(err, rows.Close()))
}

// NextReindex takes the n images off the list that were used last, with a
// repository that holds each. Those that no repository holds any more are
// dropped.
func (t *Tx) NextReindex(ctx context.Context, n int) ([]Place, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT x.image_id, i.digest, COALESCE((SELECT r.path FROM manifest m JOIN repository r ON r.id = m.repo_id
		WHERE m.digest = i.digest ORDER BY m.id LIMIT 1), '') FROM reindex x JOIN image i ON i.id = x.image_id
		ORDER BY x.used_at DESC, x.image_id DESC LIMIT $1`, n)
	if err != nil {
		return nil, unavailable(err)
	}
	var ids []int64
	var out []Place
	for rows.Next() {
		var id int64
		var p Place
		if err := rows.Scan(&id, (*dbDigest)(&p.Digest), &p.Repo); err != nil {
			rows.Close()
			return nil, unavailable(err)
		}
		ids = append(ids, id)
		if p.Repo != "" {
			out = append(out, p)
		}
	}
	if err := ended(rows); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if _, err := t.tx.ExecContext(ctx, `DELETE FROM reindex WHERE image_id = $1`, id); err != nil {
			return nil, unavailable(err)
		}
	}
	return out, nil
}

// ReindexLeft counts the images that wait to be indexed again.
func (t *Tx) ReindexLeft(ctx context.Context) (n int64, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM reindex`).Scan(&n)
	return n, unavailable(err)
}

// SpoilImage notes that an image could not be indexed again by this indexer and
// will not be: what is known of it stays, and is not complete any more.
func (t *Tx) SpoilImage(ctx context.Context, image int64, indexer string, reasons []string) error {
	doc, err := json.Marshal(reasons)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(ctx, `UPDATE image SET indexer = $2, complete = 0, reasons = $3, indexed_at = $4 WHERE id = $1`,
		image, indexer, string(doc), micros(t.now))
	return unavailable(err)
}

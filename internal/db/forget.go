package db

import (
	"context"
	"time"
)

// forgetPage bounds what one transaction of [Tx.ForgetImages] and
// [Tx.ForgetLayers] removes.
const forgetPage = 100

// ForgetImages removes what is known of images that no repository holds any more
// and that were analysed before the given time, a hundred at most, and tells how
// many there were.
func (t *Tx) ForgetImages(ctx context.Context, before time.Time) (int, error) {
	if err := t.Matching(ctx); err != nil { // sums go by the same rows
		return 0, err
	}
	ids, err := t.numbers(ctx, `SELECT i.id FROM image i WHERE i.indexed_at < $1 AND NOT EXISTS (SELECT 1 FROM manifest m WHERE m.digest = i.digest)
		ORDER BY i.id LIMIT $2`, micros(before), forgetPage)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		for _, q := range []string{
			`DELETE FROM image_layer WHERE image_id = $1`, `DELETE FROM image_hidden WHERE image_id = $1`,
			`DELETE FROM image_finding_state WHERE image_id = $1`, `DELETE FROM image_finding WHERE image_id = $1`,
			`DELETE FROM image_kind WHERE image_id = $1`, `DELETE FROM reindex WHERE image_id = $1`, `DELETE FROM attested_scan WHERE image_id = $1`,
			`DELETE FROM opinion WHERE digest = (SELECT digest FROM image WHERE id = $1)`, `DELETE FROM image WHERE id = $1`,
		} {
			if _, err := t.tx.ExecContext(ctx, q, id); err != nil {
				return 0, unavailable(err)
			}
		}
	}
	return len(ids), nil
}

// ForgetLayers removes the analyses of layers that no image has and that were made
// before the given time, a hundred at most, and tells how many there were ([Tx.UseLayers]
// keeps those of images elsewhere): those of forgotten images, and those of another indexer whose images have been seen again.
// An image that comes to need one in this very moment fails, and is indexed again.
func (t *Tx) ForgetLayers(ctx context.Context, before time.Time) (int, error) {
	if err := t.Matching(ctx); err != nil {
		return 0, err
	}
	ids, err := t.numbers(ctx, `SELECT l.id FROM layer l WHERE l.indexed_at < $1 AND NOT EXISTS (SELECT 1 FROM image_layer il WHERE il.layer_id = l.id)
		AND NOT EXISTS (SELECT 1 FROM adapter_layer a WHERE a.layer_id = l.id) ORDER BY l.id LIMIT $2`, micros(before), forgetPage)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := t.forgetFiles(ctx, id); err != nil {
			return 0, err
		}
		for _, q := range []string{
			`DELETE FROM layer_blob WHERE layer_id = $1`, `DELETE FROM layer_set WHERE layer_id = $1`, `DELETE FROM layer_count WHERE layer_id = $1`,
			`DELETE FROM layer_finding WHERE layer_id = $1`, `DELETE FROM layer_malware WHERE layer_id = $1`,
			`DELETE FROM malware_scan WHERE layer_id = $1`, `DELETE FROM malware_queue WHERE layer_id = $1`, `DELETE FROM layer WHERE id = $1`,
		} {
			if _, err := t.tx.ExecContext(ctx, q, id); err != nil {
				return 0, unavailable(err)
			}
		}
	}
	return len(ids), nil
}

// forgetFiles takes a layer out of the inverted index of files, which has none by
// layer: the inventory knows them.
func (t *Tx) forgetFiles(ctx context.Context, layer int64) error {
	var packed []byte
	if err := t.tx.QueryRowContext(ctx, `SELECT inventory FROM layer WHERE id = $1`, layer).Scan(&packed); err != nil {
		return unavailable(err)
	}
	inv, err := unpackInventory(packed)
	if err != nil {
		return err
	}
	for _, f := range inv.Files {
		if _, err := t.tx.ExecContext(ctx, `DELETE FROM file_digest WHERE digest = $1 AND layer_id = $2`, dbDigest(f.Digest), layer); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// numbers runs a query of one column of numbers.
func (t *Tx) numbers(ctx context.Context, query string, args ...any) (out []int64, err error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			rows.Close()
			return nil, unavailable(err)
		}
		out = append(out, n)
	}
	return out, ended(rows)
}

package db

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// WithholdBlob takes a live blob out of service: it is served no more, unknown
// to who asks before pushing, and a push of its digest takes the row over. done
// is false where the row has changed since it was looked at (key is what its
// storage key was), or is withheld already.
func (t *Tx) WithholdBlob(ctx context.Context, id int64, key string) (done bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE blob SET state = 2, damaged_at = $3 WHERE id = $1 AND storage_key = $2 AND state = 0`, id, key, micros(t.now)))
	if err != nil || n == 0 {
		return false, err
	}
	return true, t.breakBy(ctx, id)
}

// PutBackBlob undoes [Tx.WithholdBlob] for a blob whose bytes have been hashed
// and are right after all. done is as there.
func (t *Tx) PutBackBlob(ctx context.Context, id int64, key string) (done bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE blob SET state = 0, damaged_at = 0, checked_at = $3 WHERE id = $1 AND storage_key = $2 AND state = 2`, id, key, micros(t.now)))
	if err != nil || n == 0 {
		return false, err
	}
	return true, t.breakBy(ctx, id)
}

// The manifests that a blob or a manifest is part of, level by level. Indexes
// of indexes end there: nobody has seen deeper ones.
var (
	brokenByBlob = []string{
		`SELECT manifest_id FROM manifest_blob WHERE blob_id = $1`,
		`SELECT c.parent_id FROM manifest_child c JOIN manifest_blob e ON e.manifest_id = c.child_id WHERE e.blob_id = $1`,
		`SELECT p.parent_id FROM manifest_child p JOIN manifest_child c ON c.parent_id = p.child_id
			JOIN manifest_blob e ON e.manifest_id = c.child_id WHERE e.blob_id = $1`,
	}
	brokenByManifest = []string{
		`SELECT x.id FROM manifest x WHERE x.id = $1`,
		`SELECT c.parent_id FROM manifest_child c WHERE c.child_id = $1`,
		`SELECT p.parent_id FROM manifest_child p JOIN manifest_child c ON c.parent_id = p.child_id WHERE c.child_id = $1`,
	}
)

// breakBy finds out anew which manifests are broken after a blob has changed.
func (t *Tx) breakBy(ctx context.Context, blobID int64) error {
	return t.breakAll(ctx, brokenByBlob, blobID)
}

func (t *Tx) breakAll(ctx context.Context, levels []string, id int64) error {
	for _, level := range levels {
		_, err := t.tx.ExecContext(ctx, `UPDATE manifest SET broken = CASE WHEN damaged_at <> 0
			OR EXISTS (SELECT 1 FROM manifest_blob e JOIN blob b ON b.id = e.blob_id WHERE e.manifest_id = manifest.id AND b.state = 2)
			OR EXISTS (SELECT 1 FROM manifest_child c JOIN manifest k ON k.id = c.child_id WHERE c.parent_id = manifest.id AND k.broken <> 0)
			THEN 1 ELSE 0 END WHERE id IN (`+level+`)`, id)
		if err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// reserveLeast is what must be left of a reservation: who deletes what has run
// out may have begun with it although the row is still there.
const reserveLeast = time.Minute

// ReplaceBlob gives a blob, live or withheld, good bytes under a key of
// [Tx.ReserveKey] instead of its own, which is doomed. done is false where the
// row has changed since, or the reservation has run out.
func (t *Tx) ReplaceBlob(ctx context.Context, b ScrubBlob, key string) (done bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `DELETE FROM upload WHERE storage_key = $1 AND state = 1 AND leased_until > $2`, key, micros(t.now.Add(reserveLeast))))
	if err != nil || n == 0 {
		return false, err
	}
	n, err = affected(t.tx.ExecContext(ctx, `UPDATE blob SET storage_key = $3, inline = NULL, state = 0, damaged_at = 0, checked_at = $4
		WHERE id = $1 AND storage_key = $2 AND state IN (0, 2)`, b.ID, b.Key, key, micros(t.now)))
	if err != nil {
		return false, err
	}
	if n == 0 { // what was copied is not needed
		return false, t.doomKey(ctx, key)
	}
	if err := t.breakBy(ctx, b.ID); err != nil {
		return false, err
	}
	return true, t.doomKey(ctx, b.Key)
}

// ReserveKey names a key under which a copy of b is about to be stored. Unless
// it goes into a blob's row, what lies under it is deleted some time after until.
func (t *Tx) ReserveKey(ctx context.Context, b ScrubBlob, key string, until time.Time) error {
	// A dropped session is what the sweep of uploads deletes, after its lease.
	return t.dropKey(ctx, key, until)
}

// doomKey lets the object under key be deleted, which no row names any more.
func (t *Tx) doomKey(ctx context.Context, key string) error {
	if key == "" {
		return nil
	}
	return t.dropKey(ctx, key, time.Time{})
}

func (t *Tx) dropKey(ctx context.Context, key string, until time.Time) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO upload (id, repo_id, algorithm, storage_key, state, actor, leased_until, created_at, updated_at)
		SELECT $1, MIN(id), '', $2, 1, '', $3, $4, $4 FROM repository`, rand.Text(), key, micros(until), micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// SpareKeys lists storage keys under which the bytes of digest may still lie
// although the blob's row does not name them, at most n. Whoever takes bytes
// from there checks them.
func (t *Tx) SpareKeys(ctx context.Context, digest gatehouse.Digest, n int) ([]string, error) {
	return t.strings(ctx, `SELECT storage_key FROM doomed WHERE digest = $1 ORDER BY storage_key LIMIT $2`, dbDigest(digest), n)
}

// NoteDamagedManifest remembers that a manifest's bytes were found damaged.
// first is false where that is known already, or the manifest is gone.
func (t *Tx) NoteDamagedManifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (first bool, err error) {
	var id int64
	err = t.tx.QueryRowContext(ctx, `UPDATE manifest SET damaged_at = $3 WHERE damaged_at = 0 AND digest = $2
		AND repo_id = (SELECT id FROM repository WHERE path = $1) RETURNING id`, string(repo), dbDigest(digest), micros(t.now)).Scan(&id)
	if none(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	return true, t.breakAll(ctx, brokenByManifest, id)
}

// ManifestDamaged reports whether a manifest is known to be damaged.
func (t *Tx) ManifestDamaged(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (known bool, err error) {
	var at int64
	err = t.tx.QueryRowContext(ctx, `SELECT m.damaged_at FROM repository r JOIN manifest m ON m.repo_id = r.id WHERE r.path = $1 AND m.digest = $2`,
		string(repo), dbDigest(digest)).Scan(&at)
	if none(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	return at != 0, nil
}

// ManifestWhole reports whether a manifest has as many edges as it should.
func (t *Tx) ManifestWhole(ctx context.Context, id int64, blobs, children int) (bool, error) {
	var b, c int
	err := t.tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM manifest_blob e JOIN blob b ON b.id = e.blob_id WHERE e.manifest_id = $1),
		(SELECT COUNT(*) FROM manifest_child e JOIN manifest c ON c.id = e.child_id WHERE e.parent_id = $1)`, id).Scan(&b, &c)
	if err != nil {
		return false, unavailable(err)
	}
	return b == blobs && c == children, nil
}

// RestoreManifest gives the manifest in row id the bytes, columns and edges of
// m, as [Tx.AddManifest] would have stored them.
// CodeNotFound: it has been deleted since it was looked at.
func (t *Tx) RestoreManifest(ctx context.Context, id int64, m NewManifest) error {
	annotations, err := annotationsText(m.Annotations)
	if err != nil {
		return err
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE manifest SET media_type = $2, artifact_type = $3, subject = $4, annotations = $5, size = $6, body = $7, damaged_at = 0
		WHERE id = $1`, id, m.MediaType, m.ArtifactType, dbDigest(m.Subject), annotations, m.Size, m.Body))
	if err != nil {
		return err
	}
	if n == 0 {
		return notFound("MANIFEST_UNKNOWN", "manifest %s is gone", m.Digest)
	}
	for _, q := range []string{`DELETE FROM manifest_blob WHERE manifest_id = $1`, `DELETE FROM manifest_child WHERE parent_id = $1`} {
		if _, err := t.tx.ExecContext(ctx, q, id); err != nil {
			return unavailable(err)
		}
	}
	if err := t.addEdges(ctx, id, m); err != nil {
		return err
	}
	return t.breakAll(ctx, brokenByManifest, id)
}

// ManifestCopies finds the bytes of a manifest in other repositories than the
// given one, at most n of them. Whoever uses them checks them.
func (t *Tx) ManifestCopies(ctx context.Context, digest gatehouse.Digest, notIn int64, n int) (out [][]byte, err error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT body FROM manifest WHERE digest = $1 AND repo_id <> $2 ORDER BY id LIMIT $3`, dbDigest(digest), notIn, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, body)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

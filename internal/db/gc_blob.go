package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Doomed are bytes that no blob names any more.
type Doomed struct {
	StorageKey string
	Digest     gatehouse.Digest
	Size       int64 // bytes
}

// Garbage is a blob that nothing needs.
type Garbage struct {
	ID     int64
	Digest gatehouse.Digest
	Size   int64 // bytes
	Key    string
}

// OwnBlobs takes those of the blobs that nobody else is using right now, so that
// until the transaction ends no link and no manifest can be added to them. gone
// are those that do not exist.
func (t *Tx) OwnBlobs(ctx context.Context, ids []int64) (own, gone []int64, err error) {
	return t.takeRows(ctx, "blob", ids)
}

// OwnManifests is [Tx.OwnBlobs] for manifests: no tag, hold, parent or referrer
// can be added to what is taken.
func (t *Tx) OwnManifests(ctx context.Context, ids []int64) (own, gone []int64, err error) {
	return t.takeRows(ctx, "manifest", ids)
}

func (t *Tx) takeRows(ctx context.Context, table string, ids []int64) (own, gone []int64, err error) {
	taken := make(map[int64]bool, len(ids))
	err = inIDs(ids, 1, func(batch []any, list string) error {
		got, err := t.ids(ctx, `SELECT id FROM `+table+` WHERE id IN (`+list+`) ORDER BY id`+t.dialect.claim, batch...)
		for _, id := range got {
			taken[id] = true
		}
		own = append(own, got...)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var rest []int64
	for _, id := range ids {
		if !taken[id] {
			rest = append(rest, id)
		}
	}
	if t.dialect.claim == "" { // nobody else can be using them
		return own, rest, nil
	}
	there := map[int64]bool{}
	err = inIDs(rest, 1, func(batch []any, list string) error {
		got, err := t.ids(ctx, `SELECT id FROM `+table+` WHERE id IN (`+list+`)`, batch...)
		for _, id := range got {
			there[id] = true
		}
		return err
	})
	for _, id := range rest {
		if !there[id] {
			gone = append(gone, id)
		}
	}
	return own, gone, err
}

// ExpireLinks removes the links to the given blobs, which the transaction owns,
// whose time was over at now.
func (t *Tx) ExpireLinks(ctx context.Context, ids []int64, now time.Time) error {
	return inIDs(ids, 2, func(batch []any, list string) error {
		_, err := t.tx.ExecContext(ctx, `DELETE FROM repo_blob WHERE expires_at IS NOT NULL AND expires_at <= $1 AND blob_id IN (`+list+`)
			AND NOT EXISTS (SELECT 1 FROM manifest_blob e WHERE e.blob_id = repo_blob.blob_id AND e.repo_id = repo_blob.repo_id)`,
			append([]any{micros(now)}, batch...)...)
		if err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// GarbageBlobs finds those of the given blobs, which the transaction owns, that
// no link and no manifest names.
func (t *Tx) GarbageBlobs(ctx context.Context, ids []int64) (out []Garbage, err error) {
	err = inIDs(ids, 1, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT b.id, b.digest, b.size, b.storage_key FROM blob b WHERE b.id IN (`+list+`)
			AND NOT EXISTS (SELECT 1 FROM repo_blob l WHERE l.blob_id = b.id) AND NOT EXISTS (SELECT 1 FROM manifest_blob e WHERE e.blob_id = b.id)`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var g Garbage
			if err := rows.Scan(&g.ID, (*dbDigest)(&g.Digest), &g.Size, &g.Key); err != nil {
				return unavailable(err)
			}
			out = append(out, g)
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
	return out, err
}

// LinksEnd returns, of the given blobs, when the first of their links that end
// by themselves does.
func (t *Tx) LinksEnd(ctx context.Context, ids []int64) (map[int64]time.Time, error) {
	out := map[int64]time.Time{}
	err := inIDs(ids, 1, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT blob_id, MIN(expires_at) FROM repo_blob
			WHERE expires_at IS NOT NULL AND blob_id IN (`+list+`) GROUP BY blob_id`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id, at int64
			if err := rows.Scan(&id, &at); err != nil {
				return unavailable(err)
			}
			out[id] = fromMicros(at)
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
	return out, err
}

// DeleteBlobs removes the rows of garbage; the bytes that lie in storage are
// doomed and can be deleted from due on.
func (t *Tx) DeleteBlobs(ctx context.Context, list []Garbage, due time.Time) error {
	ids, doomed := make([]int64, len(list)), []Doomed(nil)
	for i, g := range list {
		ids[i] = g.ID
		if g.Key != "" {
			doomed = append(doomed, Doomed{StorageKey: g.Key, Digest: g.Digest, Size: g.Size})
		}
	}
	if err := t.Doom(ctx, due, doomed...); err != nil {
		return err
	}
	return inIDs(ids, 1, func(batch []any, list string) error {
		if _, err := t.tx.ExecContext(ctx, `DELETE FROM blob WHERE id IN (`+list+`)`, batch...); err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// Doom hands storage keys that no other row names any more to garbage
// collection, which deletes them from due on.
func (t *Tx) Doom(ctx context.Context, due time.Time, list ...Doomed) error {
	rows := make([][]any, len(list))
	for i, d := range list {
		rows[i] = []any{d.StorageKey, dbDigest(d.Digest), d.Size, micros(due)}
	}
	return t.insertRowsOr(ctx, `INSERT INTO doomed (storage_key, digest, size, due_at) VALUES `, rows, ` ON CONFLICT (storage_key) DO NOTHING`)
}

// DueDoomed lists bytes that can be deleted at now, at most n.
func (t *Tx) DueDoomed(ctx context.Context, now time.Time, n int) ([]Doomed, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT storage_key, digest, size FROM doomed WHERE due_at <= $1 ORDER BY due_at, storage_key LIMIT $2`, micros(now), n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Doomed
	for rows.Next() {
		var d Doomed
		if err := rows.Scan(&d.StorageKey, (*dbDigest)(&d.Digest), &d.Size); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// ForgetDoomed removes the rows of bytes that have been deleted, and returns how
// many there still were and their size: another replica may have been faster.
func (t *Tx) ForgetDoomed(ctx context.Context, list []Doomed) (objects, bytes int64, err error) {
	for len(list) > 0 {
		take := min(len(list), idsMax)
		keys, marks := placeholders(list[:take], func(d Doomed) any { return d.StorageKey })
		var n, size int64
		err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(size), 0) FROM doomed WHERE storage_key IN (`+marks+`)`, keys...).Scan(&n, &size)
		if err != nil {
			return 0, 0, unavailable(err)
		}
		deleted, err := affected(t.tx.ExecContext(ctx, `DELETE FROM doomed WHERE storage_key IN (`+marks+`)`, keys...))
		if err != nil {
			return 0, 0, err
		}
		if deleted == n { // else another replica was at it: it counts them
			objects, bytes = objects+n, bytes+size
		}
		list = list[take:]
	}
	return objects, bytes, nil
}

// BlobLink is the right of a repository to read a blob.
type BlobLink struct {
	Repo   gatehouse.Repo
	RepoID int64
	BlobID int64
	Until  time.Time // zero: as long as a manifest of the repository needs it
}

// BlobLinks lists the links to a blob, that of the given repository first, at
// most n; exists is false where there is no such blob.
func (t *Tx) BlobLinks(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, n int) (out []BlobLink, exists bool, err error) {
	var id int64
	err = t.tx.QueryRowContext(ctx, `SELECT id FROM blob WHERE digest = $1`, dbDigest(digest)).Scan(&id)
	if none(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, unavailable(err)
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT r.path, r.id, COALESCE(l.expires_at, 0) FROM repo_blob l JOIN repository r ON r.id = l.repo_id
		WHERE l.blob_id = $1 ORDER BY CASE WHEN r.path = $2 THEN 0 ELSE 1 END, r.path LIMIT $3`, id, string(repo), n)
	if err != nil {
		return nil, false, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		l := BlobLink{BlobID: id}
		var until int64
		if err := rows.Scan(&l.Repo, &l.RepoID, &until); err != nil {
			return nil, false, unavailable(err)
		}
		l.Until = fromMicros(until)
		out = append(out, l)
	}
	if err := rows.Err(); err != nil {
		return nil, false, unavailable(err)
	}
	return out, true, nil
}

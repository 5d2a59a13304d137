package db

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Blob is one stored blob. Its bytes are Inline where StorageKey is empty.
type Blob struct {
	ID         int64
	Digest     gatehouse.Digest
	Size       int64 // bytes
	StorageKey string
	Inline     []byte
	CreatedAt  time.Time
	// Withheld: the bytes have been found damaged and must not be served.
	Withheld bool
}

// States of a blob's row.
const (
	blobLive     = 0
	blobWithheld = 2
)

// RepoBlob finds a blob that repo holds a link to, live or withheld, in one query.
// CodeNotFound with detail BLOB_UNKNOWN: there is none.
func (t *Tx) RepoBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (b Blob, err error) {
	var created int64
	var state int
	err = t.tx.QueryRowContext(ctx, `SELECT b.id, b.size, b.storage_key, b.inline, b.created_at, b.state
		FROM repository r JOIN blob b ON b.digest = $2 JOIN repo_blob rb ON rb.repo_id = r.id AND rb.blob_id = b.id
		WHERE r.path = $1 AND b.state IN (0, 2)`, string(repo), dbDigest(digest)).
		Scan(&b.ID, &b.Size, &b.StorageKey, &b.Inline, &created, &state)
	if none(err) {
		return Blob{}, blobUnknown(repo, digest)
	}
	if err != nil {
		return Blob{}, unavailable(err)
	}
	b.Digest, b.CreatedAt, b.Withheld = digest, fromMicros(created), state == blobWithheld
	return b, nil
}

// StatBlob is [Tx.RepoBlob] of live blobs, without the bytes: it returns id and
// size. A withheld blob is unknown to it, so that clients push it again. Until a
// transaction that writes ends, the blob cannot be collected.
func (t *Tx) StatBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (HeldBlob, error) {
	return t.statBlob(ctx, repo, digest, t.dialect.shareOf("b"))
}

// OwnBlob is [Tx.StatBlob] for who removes the link: until the transaction ends
// no manifest can come to need the blob. Ask whether one does afterwards.
func (t *Tx) OwnBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (HeldBlob, error) {
	return t.statBlob(ctx, repo, digest, t.dialect.ownOf("b"))
}

func (t *Tx) statBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, lock string) (b HeldBlob, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT b.id, b.size FROM repository r JOIN blob b ON b.digest = $2
		JOIN repo_blob rb ON rb.repo_id = r.id AND rb.blob_id = b.id WHERE r.path = $1 AND b.state = 0`+lock, string(repo), dbDigest(digest)).Scan(&b.ID, &b.Size)
	if none(err) {
		return HeldBlob{}, blobUnknown(repo, digest)
	}
	if err != nil {
		return HeldBlob{}, unavailable(err)
	}
	return b, nil
}

func blobUnknown(repo gatehouse.Repo, digest gatehouse.Digest) error {
	return notFound("BLOB_UNKNOWN", "repository %s holds no blob %s", repo, digest)
}

// BlobRepos names repositories that hold a link to a live blob, at most n.
func (t *Tx) BlobRepos(ctx context.Context, digest gatehouse.Digest, n int) ([]gatehouse.Repo, error) {
	if n <= 0 {
		return nil, nil
	}
	names, err := t.strings(ctx, `SELECT r.path FROM blob b JOIN repo_blob rb ON rb.blob_id = b.id JOIN repository r ON r.id = rb.repo_id
		WHERE b.digest = $1 AND b.state = 0 LIMIT $2`, dbDigest(digest), n)
	out := make([]gatehouse.Repo, len(names))
	for i, name := range names {
		out[i] = gatehouse.Repo(name)
	}
	return out, err
}

// Blob finds a live blob whatever repository holds it. ok is false for none.
func (t *Tx) Blob(ctx context.Context, digest gatehouse.Digest) (b Blob, ok bool, err error) {
	var created int64
	err = t.tx.QueryRowContext(ctx, `SELECT id, size, storage_key, inline, created_at FROM blob WHERE digest = $1 AND state = 0`+t.dialect.share, dbDigest(digest)).
		Scan(&b.ID, &b.Size, &b.StorageKey, &b.Inline, &created)
	if none(err) {
		return Blob{}, false, nil
	}
	if err != nil {
		return Blob{}, false, unavailable(err)
	}
	b.Digest, b.CreatedAt = digest, fromMicros(created)
	return b, true, nil
}

// AddBlob adds a blob whose bytes are durable already. won is false where a
// live blob of that digest exists: its row stays, and the caller drops the key
// that it brought. The row of a withheld blob is taken over with all links to
// it: whatever needs the blob is whole again. Its old key is doomed.
func (t *Tx) AddBlob(ctx context.Context, b Blob) (id int64, won bool, err error) {
	// A nil and an empty body are the same empty blob.
	if b.StorageKey == "" && b.Inline == nil {
		b.Inline = []byte{}
	}
	for range racesMax {
		live, ok, err := t.Blob(ctx, b.Digest)
		if err != nil || ok {
			return live.ID, false, err
		}
		if id, won, err = t.insertBlob(ctx, b); err != nil || won {
			return id, won, err
		}
		// Another transaction added it since: look again.
	}
	return 0, false, raced("blob", b.Digest)
}

// racesMax is how often a row is looked for that others add and remove all the
// time.
const racesMax = 10

func raced(what string, digest gatehouse.Digest) error {
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s %s is being added and removed by others", what, digest).WithHint("try again")
}

func (t *Tx) insertBlob(ctx context.Context, b Blob) (id int64, won bool, err error) {
	err = t.tx.QueryRowContext(ctx, `INSERT INTO blob (digest, size, storage_key, inline, created_at, checked_at) VALUES ($1, $2, $3, $4, $5, $5)
		ON CONFLICT (digest) DO NOTHING RETURNING id`, dbDigest(b.Digest), b.Size, b.StorageKey, b.Inline, micros(t.now)).Scan(&id)
	if none(err) {
		return t.takeBlob(ctx, b)
	}
	if err != nil {
		return 0, false, unavailable(err)
	}
	return id, true, nil
}

// takeBlob gives the row of a withheld blob new bytes. won is false where the
// row is live or gone: another transaction added, took or removed it since.
func (t *Tx) takeBlob(ctx context.Context, b Blob) (id int64, won bool, err error) {
	var old string
	err = t.tx.QueryRowContext(ctx, `SELECT id, storage_key FROM blob WHERE digest = $1 AND state <> 0`+t.dialect.own, dbDigest(b.Digest)).Scan(&id, &old)
	if none(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, unavailable(err)
	}
	_, err = t.tx.ExecContext(ctx, `UPDATE blob SET size = $2, storage_key = $3, inline = $4, created_at = $5, checked_at = $5, damaged_at = 0, state = 0
		WHERE id = $1`, id, b.Size, b.StorageKey, b.Inline, micros(t.now))
	if err != nil {
		return 0, false, unavailable(err)
	}
	if err := t.breakBy(ctx, id); err != nil {
		return 0, false, err
	}
	return id, true, t.doomKey(ctx, old)
}

// LinkBlob lets repo read a blob. pin keeps the link alive until then although
// no manifest needs it, and the blob is reviewed then; a link that a manifest
// holds already stays held.
func (t *Tx) LinkBlob(ctx context.Context, repoID, blobID int64, pin time.Time) error {
	n, err := affected(t.tx.ExecContext(ctx, `INSERT INTO repo_blob (repo_id, blob_id, expires_at) VALUES ($1, $2, $3)
		ON CONFLICT (repo_id, blob_id) DO UPDATE SET expires_at = excluded.expires_at
		WHERE repo_blob.expires_at IS NOT NULL AND repo_blob.expires_at < excluded.expires_at`, repoID, blobID, micros(pin)))
	if err != nil || n == 0 {
		return err
	}
	return t.addTasks(ctx, BlobTask, "linked", pin, blobID)
}

// HeldBlob is a blob that a repository holds.
type HeldBlob struct {
	ID   int64
	Size int64
}

// HeldBlobs finds those of digests that the repository holds a link to. Until
// the transaction ends they cannot be collected.
func (t *Tx) HeldBlobs(ctx context.Context, repoID int64, digests []gatehouse.Digest) (map[gatehouse.Digest]HeldBlob, error) {
	if t.dialect.share != "" {
		// The lock comes first: what it was waited for may have taken the link.
		if err := t.shareBlobs(ctx, digests); err != nil {
			return nil, err
		}
	}
	out := make(map[gatehouse.Digest]HeldBlob, len(digests))
	err := inBatches(digests, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT b.digest, b.id, b.size FROM blob b JOIN repo_blob rb ON rb.blob_id = b.id AND rb.repo_id = $1
			WHERE b.state = 0 AND b.digest IN (`+list+`)`, append([]any{repoID}, batch...)...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var d gatehouse.Digest
			var h HeldBlob
			if err := rows.Scan((*dbDigest)(&d), &h.ID, &h.Size); err != nil {
				return unavailable(err)
			}
			out[d] = h
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
	return out, err
}

// shareBlobs keeps the rows of digests as they are until the transaction ends.
func (t *Tx) shareBlobs(ctx context.Context, digests []gatehouse.Digest) error {
	return inBatchesFrom(1, slices.Sorted(slices.Values(digests)), func(batch []any, list string) error {
		_, err := t.tx.ExecContext(ctx, `SELECT id FROM blob WHERE digest IN (`+list+`) ORDER BY digest`+t.dialect.share, batch...)
		if err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// BlobNeeded finds a manifest of the repository that needs the blob. ok is
// false where none does.
func (t *Tx) BlobNeeded(ctx context.Context, repoID, blobID int64) (by gatehouse.Digest, ok bool, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT m.digest FROM manifest_blob mb JOIN manifest m ON m.id = mb.manifest_id
		WHERE mb.blob_id = $2 AND mb.repo_id = $1 LIMIT 1`, repoID, blobID).Scan((*dbDigest)(&by))
	if none(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, unavailable(err)
	}
	return by, true, nil
}

// UnlinkBlob removes the repository's right to read a blob, which is reviewed.
func (t *Tx) UnlinkBlob(ctx context.Context, repoID, blobID int64) error {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM repo_blob WHERE repo_id = $1 AND blob_id = $2`, repoID, blobID); err != nil {
		return unavailable(err)
	}
	return t.addTasks(ctx, BlobTask, "unlinked", t.now, blobID)
}

// Blobs lists live blobs by row id after the given one, at most n, for checks.
func (t *Tx) Blobs(ctx context.Context, after int64, n int) ([]Blob, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT id, digest, size, storage_key, inline, created_at FROM blob
		WHERE id > $1 AND state = 0 ORDER BY id LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Blob
	for rows.Next() {
		var b Blob
		var created int64
		if err := rows.Scan(&b.ID, (*dbDigest)(&b.Digest), &b.Size, &b.StorageKey, &b.Inline, &created); err != nil {
			return nil, unavailable(err)
		}
		b.CreatedAt = fromMicros(created)
		out = append(out, b)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// KeyNamed reports whether any row, of a blob, an upload, an advisory file or of
// what is to be deleted, names a storage key. A stored key that no row names is
// garbage.
func (t *Tx) KeyNamed(ctx context.Context, key string) (bool, error) {
	var n int
	err := t.tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM blob WHERE storage_key = $1) + (SELECT COUNT(*) FROM upload WHERE storage_key = $1)
		+ (SELECT COUNT(*) FROM advisory_file WHERE storage_key = $1)
		+ (SELECT COUNT(*) FROM doomed WHERE storage_key = $1)`, key).Scan(&n)
	if err != nil {
		return false, unavailable(err)
	}
	return n > 0, nil
}

// batchMax bounds the parameters of one IN list.
const batchMax = 128

// inBatches calls f with digests in batches whose sizes are powers of two, the
// last one filled up by repetition, so that few distinct statements are
// prepared. list holds their placeholders, from $2 on.
func inBatches(digests []gatehouse.Digest, f func(batch []any, list string) error) error {
	return inBatchesFrom(2, digests, f)
}

// inBatchesFrom is inBatches with placeholders from the given one on.
func inBatchesFrom(first int, digests []gatehouse.Digest, f func(batch []any, list string) error) error {
	for len(digests) > 0 {
		take := min(len(digests), batchMax)
		size := 1
		for size < take {
			size *= 2
		}
		batch, marks := make([]any, size), make([]string, size)
		for i := range batch {
			batch[i], marks[i] = dbDigest(digests[min(i, take-1)]), fmt.Sprintf("$%d", i+first)
		}
		if err := f(batch, strings.Join(marks, ", ")); err != nil {
			return err
		}
		digests = digests[take:]
	}
	return nil
}

package db

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// KeyOwner says what a storage key is named for.
type KeyOwner int

const (
	KeyOfUpload KeyOwner = iota + 1 // a session, open or dropped
	KeyOfBlob                       // a blob, live or withheld
	KeyOfDoomed                     // what garbage collection deletes: its bytes may be gone already
	KeyOfFile                       // a file of advisories: it is checked by who reads it
)

// NamedKey is a storage key with the row that names it.
type NamedKey struct {
	Key      string
	Owner    KeyOwner
	ID       int64            // of a blob
	Upload   string           // id of a session
	Digest   gatehouse.Digest // of a blob
	Size     int64            // bytes that must be there; of an upload at least so many
	Withheld bool             // a blob that was found damaged
	Dropped  bool             // a session that has ended: its bytes may be gone already
}

// namers are the queries of everything that names a storage key, each in key
// order. A key moves down this list only (a session becomes a blob), so that
// none is missed although the queries are of different moments.
var namers = []struct {
	owner KeyOwner
	query string
}{
	{KeyOfUpload, `SELECT storage_key, 0, id, NULL, CASE WHEN hash_state IS NULL THEN 0 ELSE size END, state FROM upload
		WHERE storage_key > $1 ORDER BY storage_key LIMIT $2`},
	{KeyOfBlob, `SELECT storage_key, id, '', digest, size, state FROM blob WHERE storage_key > $1 ORDER BY storage_key LIMIT $2`},
	{KeyOfDoomed, `SELECT storage_key, 0, '', digest, 0, 0 FROM doomed WHERE storage_key > $1 ORDER BY storage_key LIMIT $2`},
	{KeyOfFile, `SELECT storage_key, 0, '', NULL, 0, 0 FROM advisory_file WHERE storage_key > $1 ORDER BY storage_key LIMIT $2`},
}

// NamedKeys lists the storage keys that rows name in byte order after the given
// one, at most n, each once.
func (t *Tx) NamedKeys(ctx context.Context, after string, n int) ([]NamedKey, error) {
	var out []NamedKey
	for _, from := range namers {
		rows, err := t.tx.QueryContext(ctx, from.query, after, n)
		if err != nil {
			return nil, unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			k := NamedKey{Owner: from.owner}
			var state int
			if err := rows.Scan(&k.Key, &k.ID, &k.Upload, (*dbDigest)(&k.Digest), &k.Size, &state); err != nil {
				return nil, unavailable(err)
			}
			k.Withheld = k.Owner == KeyOfBlob && state == blobWithheld
			k.Dropped = k.Owner == KeyOfUpload && state != 0
			out = append(out, k)
		}
		if err := rows.Err(); err != nil {
			return nil, unavailable(err)
		}
		rows.Close()
	}
	slices.SortStableFunc(out, func(a, b NamedKey) int { return cmp.Compare(a.Key, b.Key) })
	// Of two rows with one key the later one is where the key has moved to.
	last := out[:0]
	for _, k := range out {
		if len(last) > 0 && last[len(last)-1].Key == k.Key {
			last = last[:len(last)-1]
		}
		last = append(last, k)
	}
	return last[:min(len(last), max(n, 0))], nil
}

// BlobByID finds a blob's row, live or withheld. ok is false for none.
func (t *Tx) BlobByID(ctx context.Context, id int64) (b Blob, ok bool, err error) {
	b.ID = id
	var state int
	err = t.tx.QueryRowContext(ctx, `SELECT digest, size, storage_key, inline, state FROM blob WHERE id = $1`, id).
		Scan((*dbDigest)(&b.Digest), &b.Size, &b.StorageKey, &b.Inline, &state)
	if none(err) {
		return Blob{}, false, nil
	}
	if err != nil {
		return Blob{}, false, unavailable(err)
	}
	b.Withheld = state == blobWithheld
	return b, true, nil
}

// InlineBlobs lists blobs that lie in their rows, live or withheld, by row id
// after the given one, at most n.
func (t *Tx) InlineBlobs(ctx context.Context, after int64, n int) ([]Blob, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT id, digest, size, inline, state FROM blob WHERE id > $1 AND storage_key = '' ORDER BY id LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Blob
	for rows.Next() {
		var b Blob
		var state int
		if err := rows.Scan(&b.ID, (*dbDigest)(&b.Digest), &b.Size, &b.Inline, &state); err != nil {
			return nil, unavailable(err)
		}
		b.Withheld = state == blobWithheld
		out = append(out, b)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// StoredManifest is a manifest with its row, for checks.
type StoredManifest struct {
	gatehouse.Manifest
	ID       int64
	RepoID   int64
	Blobs    int // edges to blobs
	Children int // edges to manifests
}

const storedManifests = `SELECT ` + manifestColumns + `, m.body, m.id, m.repo_id, r.path,
		(SELECT COUNT(*) FROM manifest_blob e JOIN blob b ON b.id = e.blob_id WHERE e.manifest_id = m.id),
		(SELECT COUNT(*) FROM manifest_child e JOIN manifest c ON c.id = e.child_id WHERE e.parent_id = m.id)
		FROM manifest m JOIN repository r ON r.id = m.repo_id `

func scanStored(row interface{ Scan(...any) error }) (m StoredManifest, err error) {
	err = scanManifest(row, &m.Manifest, &m.Body, &m.ID, &m.RepoID, &m.Repo, &m.Blobs, &m.Children)
	return m, err
}

// ManifestsAfter lists manifests of all repositories by row id, at most n.
func (t *Tx) ManifestsAfter(ctx context.Context, after int64, n int) ([]StoredManifest, error) {
	rows, err := t.tx.QueryContext(ctx, storedManifests+`WHERE m.id > $1 ORDER BY m.id LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []StoredManifest
	for rows.Next() {
		m, err := scanStored(rows)
		if err != nil {
			return nil, unavailable(err)
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// StoredManifest is one of [Tx.ManifestsAfter]. ok is false where it is gone.
func (t *Tx) StoredManifest(ctx context.Context, id int64) (m StoredManifest, ok bool, err error) {
	m, err = scanStored(t.tx.QueryRowContext(ctx, storedManifests+`WHERE m.id = $1`, id))
	if none(err) {
		return StoredManifest{}, false, nil
	}
	if err != nil {
		return StoredManifest{}, false, unavailable(err)
	}
	return m, true, nil
}

// OpenUploads lists open sessions whose bytes lie in storage, by id, at most n.
func (t *Tx) OpenUploads(ctx context.Context, after string, n int) ([]Upload, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+uploadColumns+` FROM upload u JOIN repository r ON r.id = u.repo_id
		WHERE u.state = 0 AND u.hash_state IS NOT NULL AND u.id > $1 ORDER BY u.id LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Upload
	for rows.Next() {
		u, err := scanUpload(rows)
		if err != nil {
			return nil, unavailable(err)
		}
		out = append(out, u)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// Contradiction is one thing that rows say against each other, which no
// sequence of changes can leave behind.
type Contradiction struct {
	Message  string
	Dangling bool   // a row refers to one that does not exist
	Repair   string // what Mend would do; empty: nothing can be done here
	mend     string
}

// contradictions yield sentences; mend puts all of them right, where it can be
// done without guessing.
var contradictions = []struct {
	query, repair, mend string
	dangling            bool
}{
	{query: `SELECT 'repository ' || r.path || ' needs a blob in a manifest without a link to it' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id JOIN blob b ON b.id = e.blob_id WHERE NOT EXISTS (SELECT 1 FROM repo_blob l WHERE l.repo_id = m.repo_id AND l.blob_id = e.blob_id)`,
		repair: "add the link", mend: `INSERT INTO repo_blob (repo_id, blob_id) SELECT DISTINCT m.repo_id, e.blob_id FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id JOIN blob b ON b.id = e.blob_id WHERE true ON CONFLICT (repo_id, blob_id) DO NOTHING`},
	{query: `SELECT 'repository ' || r.path || ' needs a blob whose link may expire' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id JOIN repo_blob l ON l.repo_id = m.repo_id AND l.blob_id = e.blob_id WHERE l.expires_at IS NOT NULL`,
		repair: "keep the link", mend: `UPDATE repo_blob SET expires_at = NULL WHERE expires_at IS NOT NULL AND EXISTS (SELECT 1 FROM manifest_blob e
		JOIN manifest m ON m.id = e.manifest_id WHERE m.repo_id = repo_blob.repo_id AND e.blob_id = repo_blob.blob_id)`},
	{query: `SELECT 'repository ' || r.path || ' needs a blob that is being deleted' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id JOIN blob b ON b.id = e.blob_id WHERE b.state NOT IN (0, 2)`},
	{query: `SELECT 'repository ' || r.path || ' lists a child of another repository' FROM manifest_child e JOIN manifest m ON m.id = e.parent_id
		JOIN manifest c ON c.id = e.child_id JOIN repository r ON r.id = m.repo_id WHERE c.repo_id <> m.repo_id`},
	{query: `SELECT 'tag ' || r.path || ':' || t.name || ' points into another repository' FROM tag t JOIN manifest m ON m.id = t.manifest_id
		JOIN repository r ON r.id = t.repo_id WHERE m.repo_id <> t.repo_id`},
	{query: `SELECT 'tag ' || r.path || ':' || t.name || ' is not where its history ends' FROM tag t JOIN manifest m ON m.id = t.manifest_id
		JOIN repository r ON r.id = t.repo_id WHERE NOT EXISTS (SELECT 1 FROM tag_history h WHERE h.repo_id = t.repo_id AND h.name = t.name
		AND h.new_digest = m.digest AND h.id = (SELECT MAX(l.id) FROM tag_history l WHERE l.repo_id = t.repo_id AND l.name = t.name))`},
	{query: `SELECT 'repository ' || r.path || ' needs a blob in a manifest of another repository' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id WHERE e.repo_id <> m.repo_id`},
	{query: `SELECT 'a manifest in ' || r.path || ' is held, but gone' FROM hold h JOIN repository r ON r.id = h.repo_id
		WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.repo_id = h.repo_id AND m.digest = h.digest)`},
	{query: `SELECT 'a link in ' || r.path || ' expires and nobody will look' FROM repo_blob l JOIN repository r ON r.id = l.repo_id
		WHERE l.expires_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM gc_task g WHERE g.kind = 2 AND g.key = l.blob_id)`},
	{query: `SELECT 'storage key ' || d.storage_key || ' is to be deleted and in use' FROM doomed d WHERE EXISTS (SELECT 1 FROM blob b WHERE b.storage_key = d.storage_key)
		OR EXISTS (SELECT 1 FROM upload u WHERE u.storage_key = d.storage_key)`},
	{query: `SELECT 'two blobs share the storage key ' || storage_key FROM blob WHERE storage_key <> '' GROUP BY storage_key HAVING COUNT(*) > 1`},
	{query: `SELECT 'storage key ' || u.storage_key || ' is named by a blob and an upload' FROM upload u JOIN blob b ON b.storage_key = u.storage_key WHERE u.storage_key <> ''`},
	{query: `SELECT 'repository ' || r.path || ' holds a link to a blob that does not exist' FROM repo_blob l JOIN repository r ON r.id = l.repo_id
		WHERE NOT EXISTS (SELECT 1 FROM blob b WHERE b.id = l.blob_id)`, dangling: true,
		repair: "remove the link", mend: `DELETE FROM repo_blob WHERE NOT EXISTS (SELECT 1 FROM blob b WHERE b.id = repo_blob.blob_id)`},
	{query: `SELECT 'a link to a blob belongs to a repository that does not exist' FROM repo_blob l WHERE NOT EXISTS (SELECT 1 FROM repository r WHERE r.id = l.repo_id)`,
		dangling: true, repair: "remove the link", mend: `DELETE FROM repo_blob WHERE NOT EXISTS (SELECT 1 FROM repository r WHERE r.id = repo_blob.repo_id)`},
	{query: `SELECT 'tag ' || r.path || ':' || t.name || ' points at a manifest that does not exist' FROM tag t JOIN repository r ON r.id = t.repo_id
		WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = t.manifest_id)`, dangling: true},
	{query: `SELECT 'a manifest that does not exist needs a blob' FROM manifest_blob e WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = e.manifest_id)`,
		dangling: true, repair: "remove the row", mend: `DELETE FROM manifest_blob WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = manifest_blob.manifest_id)`},
	{query: `SELECT 'a manifest that does not exist lists a child' FROM manifest_child e WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = e.parent_id)`,
		dangling: true, repair: "remove the row", mend: `DELETE FROM manifest_child WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.id = manifest_child.parent_id)`},
}

// contradictionsMax bounds the sentences of one kind that are returned at once.
const contradictionsMax = 100

// Contradictions checks the rows against each other and returns what is wrong,
// at most a hundred of each kind. It reads everything; for checks only.
func (t *Tx) Contradictions(ctx context.Context) ([]Contradiction, error) {
	var out []Contradiction
	for _, c := range contradictions {
		found, err := t.strings(ctx, c.query+` LIMIT $1`, contradictionsMax)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.query, err)
		}
		for _, message := range found {
			out = append(out, Contradiction{Message: message, Dangling: c.dangling, Repair: c.repair, mend: c.mend})
		}
	}
	return out, nil
}

// Mend puts every contradiction of the kind of c right, which must have a Repair.
func (t *Tx) Mend(ctx context.Context, c Contradiction) error {
	if _, err := t.tx.ExecContext(ctx, c.mend); err != nil {
		return unavailable(err)
	}
	return nil
}

// Unannounced lists repositories that hold a manifest whose push left no event.
// It walks the whole outbox for each manifest: for tests.
func (t *Tx) Unannounced(ctx context.Context) ([]string, error) {
	return t.strings(ctx, `SELECT 'manifest in ' || r.path || ' has no pushed event' FROM manifest m JOIN repository r ON r.id = m.repo_id
		WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.type = 'manifest.pushed' AND e.repo = r.path AND e.digest = m.digest)`)
}

// ImagesOfBlob names images that need a blob, "repo:tag" where there is a tag
// (also that of an index which lists the image) and "repo@digest" else, in byte
// order, at most n.
func (t *Tx) ImagesOfBlob(ctx context.Context, id int64, n int) ([]string, error) {
	return t.images(ctx, `SELECT e.manifest_id FROM manifest_blob e WHERE e.blob_id = $1`, id, n)
}

// ImagesOfManifest is [Tx.ImagesOfBlob] of a manifest.
func (t *Tx) ImagesOfManifest(ctx context.Context, id int64, n int) ([]string, error) {
	return t.images(ctx, `SELECT x.id FROM manifest x WHERE x.id = $1`, id, n)
}

func (t *Tx) images(ctx context.Context, manifests string, id int64, n int) ([]string, error) {
	out, err := t.strings(ctx, `SELECT r.path || ':' || t.name AS image FROM tag t JOIN repository r ON r.id = t.repo_id WHERE t.manifest_id IN (`+manifests+`)
		UNION SELECT r.path || ':' || t.name FROM manifest_child c JOIN tag t ON t.manifest_id = c.parent_id JOIN repository r ON r.id = t.repo_id
		WHERE c.child_id IN (`+manifests+`) ORDER BY image LIMIT $2`, id, n)
	if err != nil || len(out) == n {
		return out, err
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT r.path, m.digest FROM manifest m JOIN repository r ON r.id = m.repo_id WHERE m.id IN (`+manifests+`)
		AND NOT EXISTS (SELECT 1 FROM tag t WHERE t.manifest_id = m.id)
		AND NOT EXISTS (SELECT 1 FROM manifest_child c JOIN tag t ON t.manifest_id = c.parent_id WHERE c.child_id = m.id)
		ORDER BY r.path, m.digest LIMIT $2`, id, n-len(out))
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var repo string
		var digest gatehouse.Digest
		if err := rows.Scan(&repo, (*dbDigest)(&digest)); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, repo+"@"+string(digest))
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// ReposOfBlob lists repositories that hold a link to a blob, at most n.
func (t *Tx) ReposOfBlob(ctx context.Context, id int64, n int) ([]string, error) {
	return t.strings(ctx, `SELECT r.path FROM repo_blob l JOIN repository r ON r.id = l.repo_id WHERE l.blob_id = $1 ORDER BY r.path LIMIT $2`, id, n)
}

// Mends tells contradictions apart that Mend puts right together.
func (c Contradiction) Mends() string { return c.mend }

package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// kinds of a manifest_blob row.
const (
	ConfigBlob = 1
	LayerBlob  = 2
)

// annotationsMax bounds what a list of referrers carries of each manifest's
// annotations, in bytes of JSON: a page of a hundred must not fill the memory.
// Larger ones are left out of the list; the manifest itself has them.
const annotationsMax = 64 << 10

// NewManifest is a manifest on its way into the rows. All that it refers to
// has been looked up in the same transaction.
type NewManifest struct {
	gatehouse.Manifest
	RepoID   int64
	Blobs    []ManifestBlob // in the manifest's order
	Children []int64        // manifest rows, in the index's order
}

// ManifestBlob is a blob that a manifest needs.
type ManifestBlob struct {
	BlobID int64
	Kind   int // ConfigBlob or LayerBlob
}

const manifestColumns = `m.digest, m.media_type, m.artifact_type, m.subject, m.annotations, m.size, m.pushed_by, m.pushed_at`

func scanManifest(row interface{ Scan(...any) error }, m *gatehouse.Manifest, more ...any) error {
	var annotations string
	var pushed int64
	targets := append([]any{(*dbDigest)(&m.Digest), &m.MediaType, &m.ArtifactType, (*dbDigest)(&m.Subject),
		&annotations, &m.Size, &m.PushedBy, &pushed}, more...)
	if err := row.Scan(targets...); err != nil {
		return err
	}
	m.PushedAt = fromMicros(pushed)
	if annotations != "" {
		if err := json.Unmarshal([]byte(annotations), &m.Annotations); err != nil {
			return fmt.Errorf("stored annotations of %s: %w", m.Digest, err)
		}
	}
	return nil
}

const (
	servedColumns = manifestColumns + `, m.body, m.broken`
	ofDigest      = ` FROM repository r JOIN manifest m ON m.repo_id = r.id WHERE r.path = $1 AND m.digest = $2`
	ofTag         = ` FROM repository r JOIN tag t ON t.repo_id = r.id AND t.name = $2 JOIN manifest m ON m.id = t.manifest_id WHERE r.path = $1`
)

// Manifest finds a manifest by digest, in one query.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is none.
func (t *Tx) Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	m := gatehouse.Manifest{Repo: repo}
	if t.anyPulls() {
		row := t.tx.QueryRowContext(ctx, `SELECT `+servedColumns+pullColumn+ofDigest, string(repo), dbDigest(digest), projectOf(repo))
		return oneManifest(row, &m, string(digest), &m.Pull)
	}
	return oneManifest(t.tx.QueryRowContext(ctx, `SELECT `+servedColumns+ofDigest, string(repo), dbDigest(digest)), &m, string(digest))
}

// ManifestByTag finds the manifest that a tag points at, in one query.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is none.
func (t *Tx) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	m := gatehouse.Manifest{Repo: repo}
	if t.anyPulls() {
		row := t.tx.QueryRowContext(ctx, `SELECT `+servedColumns+pullColumn+ofTag, string(repo), tag, projectOf(repo))
		return oneManifest(row, &m, tag, &m.Pull)
	}
	return oneManifest(t.tx.QueryRowContext(ctx, `SELECT `+servedColumns+ofTag, string(repo), tag), &m, tag)
}

func oneManifest(row *sql.Row, m *gatehouse.Manifest, ref string, more ...any) (*gatehouse.Manifest, error) {
	var broken int
	err := scanManifest(row, m, append([]any{&m.Body, &broken}, more...)...)
	if none(err) {
		return nil, notFound("MANIFEST_UNKNOWN", "repository %s holds no manifest %s", m.Repo, ref)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	m.Broken = broken != 0
	return m, nil
}

// ManifestID finds a manifest's row. Until a transaction that writes ends, it
// cannot be deleted.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is none.
func (t *Tx) ManifestID(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (int64, error) {
	return t.manifestID(ctx, repo, digest, t.dialect.shareOf("m"))
}

// OwnManifest is [Tx.ManifestID] for who deletes it: until the transaction ends
// no tag and no index can come to point at it. Ask whether one does afterwards.
func (t *Tx) OwnManifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (int64, error) {
	return t.manifestID(ctx, repo, digest, t.dialect.ownOf("m"))
}

// ManifestAt is [Tx.ManifestID] for those who only read.
func (t *Tx) ManifestAt(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (id int64, err error) {
	return t.manifestID(ctx, repo, digest, "")
}

func (t *Tx) manifestID(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, lock string) (id int64, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT m.id FROM repository r JOIN manifest m ON m.repo_id = r.id
		WHERE r.path = $1 AND m.digest = $2`+lock, string(repo), dbDigest(digest)).Scan(&id)
	if none(err) {
		return 0, notFound("MANIFEST_UNKNOWN", "repository %s holds no manifest %s", repo, digest)
	}
	if err != nil {
		return 0, unavailable(err)
	}
	return id, nil
}

// ManifestIDs finds those of digests that the repository holds. Until a
// transaction that writes ends, they cannot be deleted.
func (t *Tx) ManifestIDs(ctx context.Context, repoID int64, digests []gatehouse.Digest) (map[gatehouse.Digest]int64, error) {
	out := make(map[gatehouse.Digest]int64, len(digests))
	err := inBatches(slices.Sorted(slices.Values(digests)), func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT digest, id FROM manifest WHERE repo_id = $1 AND digest IN (`+list+`) ORDER BY digest`+t.dialect.share,
			append([]any{repoID}, batch...)...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var d gatehouse.Digest
			var id int64
			if err := rows.Scan((*dbDigest)(&d), &id); err != nil {
				return unavailable(err)
			}
			out[d] = id
		}
		if err := rows.Err(); err != nil {
			return unavailable(err)
		}
		return nil
	})
	return out, err
}

// AddManifest adds a manifest with its edges and holds the blobs that it needs.
// created is false where the repository has it already; then nothing changes.
// Until the transaction ends it cannot be deleted.
func (t *Tx) AddManifest(ctx context.Context, m NewManifest) (id int64, created bool, err error) {
	annotations, err := annotationsText(m.Annotations)
	if err != nil {
		return 0, false, err
	}
	for range racesMax {
		if id, created, err = t.insertManifest(ctx, m, annotations); err != nil || id != 0 {
			break
		}
	}
	switch {
	case err != nil:
		return 0, false, err
	case id == 0:
		return 0, false, raced("manifest", m.Digest)
	case !created:
		return id, false, nil
	}
	return id, true, t.addEdges(ctx, id, m)
}

// insertManifest adds the row, or finds it. id is 0 where it was there and then
// was not any more.
func (t *Tx) insertManifest(ctx context.Context, m NewManifest, annotations string) (id int64, created bool, err error) {
	err = t.tx.QueryRowContext(ctx, `INSERT INTO manifest
		(repo_id, digest, media_type, artifact_type, subject, annotations, size, body, pushed_by, pushed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (repo_id, digest) DO NOTHING RETURNING id`,
		m.RepoID, dbDigest(m.Digest), m.MediaType, m.ArtifactType, dbDigest(m.Subject), annotations, m.Size, m.Body, m.PushedBy, micros(t.now)).Scan(&id)
	if err == nil {
		return id, true, nil
	}
	if none(err) {
		err = t.tx.QueryRowContext(ctx, `SELECT id FROM manifest WHERE repo_id = $1 AND digest = $2`+t.dialect.share, m.RepoID, dbDigest(m.Digest)).Scan(&id)
	}
	if none(err) {
		return 0, false, nil
	}
	return id, false, unavailable(err)
}

// annotationsText is what is stored of annotations.
func annotationsText(annotations map[string]string) (string, error) {
	if len(annotations) == 0 {
		return "", nil
	}
	text, err := json.Marshal(annotations)
	if err != nil || len(text) > annotationsMax {
		return "", err
	}
	return string(text), nil
}

// addEdges adds what the manifest in row id needs, and holds it.
func (t *Tx) addEdges(ctx context.Context, id int64, m NewManifest) error {
	blobs := make([][]any, len(m.Blobs))
	for i, b := range m.Blobs {
		blobs[i] = []any{id, i, b.BlobID, b.Kind, m.RepoID}
	}
	if err := t.insertRows(ctx, `INSERT INTO manifest_blob (manifest_id, ordinal, blob_id, kind, repo_id) VALUES `, blobs); err != nil {
		return err
	}
	children := make([][]any, len(m.Children))
	for i, child := range m.Children {
		children[i] = []any{id, i, child}
	}
	if err := t.insertRows(ctx, `INSERT INTO manifest_child (parent_id, ordinal, child_id) VALUES `, children); err != nil {
		return err
	}
	return t.holdLinks(ctx, m.RepoID, id)
}

// holdLinks has the links that a new manifest needs expire no more. Who lets
// them expire, because the last manifest that needs them goes, owns them first
// too and looks again.
func (t *Tx) holdLinks(ctx context.Context, repoID, manifestID int64) error {
	const needed = ` WHERE repo_id = $1 AND blob_id IN (SELECT blob_id FROM manifest_blob WHERE manifest_id = $2)`
	if t.dialect.own != "" {
		// An UPDATE would lock them in an order of its own.
		if _, err := t.tx.ExecContext(ctx, `SELECT blob_id FROM repo_blob`+needed+` ORDER BY blob_id`+t.dialect.own, repoID, manifestID); err != nil {
			return unavailable(err)
		}
	}
	if _, err := t.tx.ExecContext(ctx, `UPDATE repo_blob SET expires_at = NULL`+needed+` AND expires_at IS NOT NULL`, repoID, manifestID); err != nil {
		return unavailable(err)
	}
	return nil
}

// insertRows inserts rows of equal width in few statements: batches of 64, 32,
// … 1 rows, so that few distinct statements are prepared.
func (t *Tx) insertRows(ctx context.Context, insert string, rows [][]any) error {
	return t.insertRowsOr(ctx, insert, rows, "")
}

// insertRowsOr is insertRows with the end of each statement: what to do instead.
func (t *Tx) insertRowsOr(ctx context.Context, insert string, rows [][]any, or string) error {
	for size := 64; size >= 1; size /= 2 {
		for len(rows) >= size {
			args := make([]any, 0, size*len(rows[0]))
			for _, row := range rows[:size] {
				args = append(args, row...)
			}
			if _, err := t.tx.ExecContext(ctx, insert+t.dialect.places(size, len(rows[0]))+or, args...); err != nil {
				return unavailable(err)
			}
			rows = rows[size:]
		}
	}
	return nil
}

// Parent finds a manifest that lists the given one as its child. ok is false
// where none does.
func (t *Tx) Parent(ctx context.Context, manifestID int64) (digest gatehouse.Digest, ok bool, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT p.digest FROM manifest_child c JOIN manifest p ON p.id = c.parent_id
		WHERE c.child_id = $1 LIMIT 1`, manifestID).Scan((*dbDigest)(&digest))
	if none(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, unavailable(err)
	}
	return digest, true, nil
}

// Place is where a manifest is stored.
type Place struct {
	Repo   gatehouse.Repo
	Digest gatehouse.Digest
}

// Places lists the repositories that hold a manifest of this digest, at most n.
func (t *Tx) Places(ctx context.Context, digest gatehouse.Digest, n int) ([]Place, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT r.path FROM manifest m JOIN repository r ON r.id = m.repo_id
		WHERE m.digest = $1 ORDER BY r.path LIMIT $2`, dbDigest(digest), n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Place
	for rows.Next() {
		p := Place{Digest: digest}
		if err := rows.Scan(&p.Repo); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, p)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

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

// Manifest finds a manifest by digest, in one query.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is none.
func (t *Tx) Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	row := t.tx.QueryRowContext(ctx, `SELECT `+manifestColumns+`, m.body, m.broken FROM repository r JOIN manifest m ON m.repo_id = r.id
		WHERE r.path = $1 AND m.digest = $2`, string(repo), dbDigest(digest))
	return oneManifest(row, repo, string(digest))
}

// ManifestByTag finds the manifest that a tag points at, in one query.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is none.
func (t *Tx) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	row := t.tx.QueryRowContext(ctx, `SELECT `+manifestColumns+`, m.body, m.broken FROM repository r
		JOIN tag t ON t.repo_id = r.id AND t.name = $2 JOIN manifest m ON m.id = t.manifest_id
		WHERE r.path = $1`, string(repo), tag)
	return oneManifest(row, repo, tag)
}

func oneManifest(row *sql.Row, repo gatehouse.Repo, ref string) (*gatehouse.Manifest, error) {
	m := gatehouse.Manifest{Repo: repo}
	var broken int
	err := scanManifest(row, &m, &m.Body, &broken)
	if none(err) {
		return nil, notFound("MANIFEST_UNKNOWN", "repository %s holds no manifest %s", repo, ref)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	m.Broken = broken != 0
	return &m, nil
}

// ManifestID finds a manifest's row, which nobody else can change or refer to
// until the transaction ends.
// CodeNotFound with detail MANIFEST_UNKNOWN: there is none.
func (t *Tx) ManifestID(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (id int64, err error) {
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

// ManifestIDs finds those of digests that the repository holds.
func (t *Tx) ManifestIDs(ctx context.Context, repoID int64, digests []gatehouse.Digest) (map[gatehouse.Digest]int64, error) {
	out := make(map[gatehouse.Digest]int64, len(digests))
	err := inBatches(digests, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT digest, id FROM manifest WHERE repo_id = $1 AND digest IN (`+list+`)`+t.dialect.share,
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
func (t *Tx) AddManifest(ctx context.Context, m NewManifest) (id int64, created bool, err error) {
	annotations, err := annotationsText(m.Annotations)
	if err != nil {
		return 0, false, err
	}
	id, created, err = t.insertManifest(ctx, m, annotations)
	if err != nil || !created {
		return id, false, err
	}
	return id, true, t.addEdges(ctx, id, m)
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
	// A held link does not expire. Whoever lets it expire, because the last
	// manifest that needs it goes, takes it first too and looks again.
	if t.dialect.own != "" {
		_, err := t.ids(ctx, `SELECT blob_id FROM repo_blob WHERE repo_id = $1 AND blob_id IN (SELECT blob_id FROM manifest_blob WHERE manifest_id = $2)
			ORDER BY blob_id`+t.dialect.own, m.RepoID, id)
		if err != nil {
			return err
		}
	}
	_, err := t.tx.ExecContext(ctx, `UPDATE repo_blob SET expires_at = NULL WHERE repo_id = $1 AND expires_at IS NOT NULL
		AND blob_id IN (SELECT blob_id FROM manifest_blob WHERE manifest_id = $2)`, m.RepoID, id)
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// addAttempts bounds how often a manifest is found to be there and then gone.
const addAttempts = 5

// insertManifest adds the row, or finds the one that is there and keeps it there
// until the transaction ends.
func (t *Tx) insertManifest(ctx context.Context, m NewManifest, annotations string) (id int64, created bool, err error) {
	for range addAttempts {
		err = t.tx.QueryRowContext(ctx, `INSERT INTO manifest
			(repo_id, digest, media_type, artifact_type, subject, annotations, size, body, pushed_by, pushed_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (repo_id, digest) DO NOTHING RETURNING id`,
			m.RepoID, dbDigest(m.Digest), m.MediaType, m.ArtifactType, dbDigest(m.Subject), annotations, m.Size, m.Body, m.PushedBy, micros(t.now)).Scan(&id)
		if err == nil {
			return id, true, nil
		}
		if !none(err) {
			return 0, false, unavailable(err)
		}
		err = t.tx.QueryRowContext(ctx, `SELECT id FROM manifest WHERE repo_id = $1 AND digest = $2`+t.dialect.share, m.RepoID, dbDigest(m.Digest)).Scan(&id)
		if err == nil {
			return id, false, nil
		}
		if !none(err) {
			return 0, false, unavailable(err)
		}
	}
	return 0, false, gatehouse.Errorf(gatehouse.CodeUnavailable, "manifest %s comes and goes", m.Digest)
}

// insertRows inserts rows of equal width in few statements: batches of 64, 32,
// … 1 rows, so that few distinct statements are prepared.
func (t *Tx) insertRows(ctx context.Context, insert string, rows [][]any) error {
	return t.insertRowsThen(ctx, insert, "", rows)
}

// insertRowsThen is insertRows with an end of the statement behind the values.
func (t *Tx) insertRowsThen(ctx context.Context, insert, end string, rows [][]any) error {
	for size := 64; size >= 1; size /= 2 {
		for len(rows) >= size {
			var values strings.Builder
			args := make([]any, 0, size*len(rows[0]))
			for i, row := range rows[:size] {
				values.WriteString([]string{"(", ", ("}[min(i, 1)])
				for j, arg := range row {
					args = append(args, arg)
					fmt.Fprintf(&values, []string{"$%d", ", $%d"}[min(j, 1)], len(args))
				}
				values.WriteString(")")
			}
			if _, err := t.tx.ExecContext(ctx, insert+values.String()+end, args...); err != nil {
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

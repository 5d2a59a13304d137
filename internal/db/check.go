package db

import (
	"context"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
)

// StoredManifest is a manifest with its row, for checks.
type StoredManifest struct {
	gatehouse.Manifest
	ID       int64
	Blobs    int // edges to blobs
	Children int // edges to manifests
}

// ManifestsAfter lists manifests of all repositories by row id, at most n.
func (t *Tx) ManifestsAfter(ctx context.Context, after int64, n int) ([]StoredManifest, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+manifestColumns+`, m.body, m.id, r.path,
		(SELECT COUNT(*) FROM manifest_blob e WHERE e.manifest_id = m.id), (SELECT COUNT(*) FROM manifest_child e WHERE e.parent_id = m.id)
		FROM manifest m JOIN repository r ON r.id = m.repo_id WHERE m.id > $1 ORDER BY m.id LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []StoredManifest
	for rows.Next() {
		var m StoredManifest
		if err := scanManifest(rows, &m.Manifest, &m.Body, &m.ID, &m.Repo, &m.Blobs, &m.Children); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
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

// contradictions are rows that no sequence of changes can leave behind; each
// query yields sentences.
var contradictions = []string{
	`SELECT 'repository ' || r.path || ' needs a blob in a manifest without a link to it' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id WHERE NOT EXISTS (SELECT 1 FROM repo_blob l WHERE l.repo_id = m.repo_id AND l.blob_id = e.blob_id)`,
	`SELECT 'repository ' || r.path || ' needs a blob whose link may expire' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id JOIN repo_blob l ON l.repo_id = m.repo_id AND l.blob_id = e.blob_id WHERE l.expires_at IS NOT NULL`,
	`SELECT 'repository ' || r.path || ' needs a blob that is being deleted' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id JOIN blob b ON b.id = e.blob_id WHERE b.state <> 0`,
	`SELECT 'repository ' || r.path || ' lists a child of another repository' FROM manifest_child e JOIN manifest m ON m.id = e.parent_id
		JOIN manifest c ON c.id = e.child_id JOIN repository r ON r.id = m.repo_id WHERE c.repo_id <> m.repo_id`,
	`SELECT 'tag ' || r.path || ':' || t.name || ' points into another repository' FROM tag t JOIN manifest m ON m.id = t.manifest_id
		JOIN repository r ON r.id = t.repo_id WHERE m.repo_id <> t.repo_id`,
	`SELECT 'tag ' || r.path || ':' || t.name || ' is not where its history ends' FROM tag t JOIN manifest m ON m.id = t.manifest_id
		JOIN repository r ON r.id = t.repo_id WHERE NOT EXISTS (SELECT 1 FROM tag_history h WHERE h.repo_id = t.repo_id AND h.name = t.name
		AND h.new_digest = m.digest AND h.id = (SELECT MAX(l.id) FROM tag_history l WHERE l.repo_id = t.repo_id AND l.name = t.name))`,
	`SELECT 'manifest in ' || r.path || ' has no pushed event' FROM manifest m JOIN repository r ON r.id = m.repo_id
		WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.type = 'manifest.pushed' AND e.repo = r.path AND e.digest = m.digest)`,
	`SELECT 'repository ' || r.path || ' needs a blob in a manifest of another repository' FROM manifest_blob e JOIN manifest m ON m.id = e.manifest_id
		JOIN repository r ON r.id = m.repo_id WHERE e.repo_id <> m.repo_id`,
	`SELECT 'a manifest in ' || r.path || ' is held, but gone' FROM hold h JOIN repository r ON r.id = h.repo_id
		WHERE NOT EXISTS (SELECT 1 FROM manifest m WHERE m.repo_id = h.repo_id AND m.digest = h.digest)`,
	`SELECT 'a link in ' || r.path || ' expires and nobody will look' FROM repo_blob l JOIN repository r ON r.id = l.repo_id
		WHERE l.expires_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM gc_task g WHERE g.kind = 2 AND g.key = l.blob_id)`,
	`SELECT 'storage key ' || d.storage_key || ' is to be deleted and in use' FROM doomed d WHERE EXISTS (SELECT 1 FROM blob b WHERE b.storage_key = d.storage_key)
		OR EXISTS (SELECT 1 FROM upload u WHERE u.storage_key = d.storage_key)`,
	`SELECT 'two blobs share the storage key ' || storage_key FROM blob WHERE storage_key <> '' GROUP BY storage_key HAVING COUNT(*) > 1`,
	`SELECT 'storage key ' || u.storage_key || ' is named by a blob and an upload' FROM upload u JOIN blob b ON b.storage_key = u.storage_key WHERE u.storage_key <> ''`,
}

// Contradictions checks the rows against each other and returns what is wrong,
// one sentence each. It reads everything; for checks only.
func (t *Tx) Contradictions(ctx context.Context) ([]string, error) {
	var out []string
	for _, query := range contradictions {
		found, err := t.strings(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", query, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

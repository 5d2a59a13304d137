package db

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// ClusterDocument is a document of the Kubernetes cluster that policies are made of.
type ClusterDocument struct {
	Path   string
	Source string
}

// What the audit record calls a change of the cluster's documents.
const (
	clusterPut    = "cluster-policy.put"
	clusterDelete = "cluster-policy.delete"
)

// ClusterDocuments lists them by path, and when they were read as a whole for the last
// time that something had changed; zero: never.
func (t *Tx) ClusterDocuments(ctx context.Context) (out []ClusterDocument, read time.Time, err error) {
	var at int64
	err = t.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(at), 0) FROM cluster_read`).Scan(&at)
	if err != nil {
		return nil, read, unavailable(err)
	}
	if at != 0 {
		read = fromMicros(at)
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT path, source FROM cluster_document ORDER BY path`)
	if err != nil {
		return nil, read, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var d ClusterDocument
		if err := rows.Scan(&d.Path, &d.Source); err != nil {
			return nil, read, unavailable(err)
		}
		out = append(out, d)
	}
	if err := rows.Err(); err != nil {
		return nil, read, unavailable(err)
	}
	return out, read, nil
}

// SetClusterDocuments makes docs, by path, all that there are. It reports whether that
// is a change, which comes with its event and its audit records.
func (t *Tx) SetClusterDocuments(ctx context.Context, actor gatehouse.Actor, docs map[string]string) (changed bool, err error) {
	if err := t.take(ctx, turnPolicies); err != nil {
		return false, err
	}
	old, read, err := t.ClusterDocuments(ctx)
	if err != nil {
		return false, err
	}
	audit := map[string]string{} // path → action
	for path := range docs {
		audit[path] = clusterPut
	}
	for _, d := range old {
		if source, stays := docs[d.Path]; !stays {
			audit[d.Path] = clusterDelete
		} else if source == d.Source {
			delete(audit, d.Path)
		}
	}
	if len(audit) == 0 && !read.IsZero() {
		return false, nil
	}
	for _, path := range slices.Sorted(maps.Keys(audit)) {
		if err := t.setClusterDocument(ctx, actor, path, docs[path], audit[path]); err != nil {
			return false, err
		}
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO cluster_read (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = excluded.at`, micros(t.now))
	if err != nil {
		return false, unavailable(err)
	}
	if err := t.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventPolicyChanged, Actor: actor.Name, Payload: []byte(`{}`)}); err != nil {
		return false, err
	}
	return true, t.tellAll(ctx)
}

func (t *Tx) setClusterDocument(ctx context.Context, actor gatehouse.Actor, path, source, action string) error {
	var err error
	if action == clusterDelete {
		_, err = t.tx.ExecContext(ctx, `DELETE FROM cluster_document WHERE path = $1`, path)
	} else {
		_, err = t.tx.ExecContext(ctx, `INSERT INTO cluster_document (path, source) VALUES ($1, $2)
			ON CONFLICT (path) DO UPDATE SET source = excluded.source`, path, source)
	}
	if err != nil {
		return unavailable(err)
	}
	return t.AddAudit(ctx, actor, action, path, "")
}

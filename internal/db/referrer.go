package db

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
)

// referrersQuery finds the referrers of $2: the manifests that name it as their
// subject, and those that are listed by an index under its fallback tag, $6.
// Both halves are index ranges that end after $5 rows. A manifest that is in
// both counts in the first, and nothing refers to itself by being listed.
const referrersQuery = `SELECT ` + manifestColumns + `, m.id AS seq FROM repository r JOIN manifest m ON m.repo_id = r.id
		WHERE r.path = $1 AND m.subject = $2
		AND m.id > COALESCE((SELECT a.id FROM manifest a WHERE a.repo_id = r.id AND a.digest = $3), 0)
		AND (CAST($4 AS TEXT) = '' OR m.artifact_type = $4)
	UNION ALL
	SELECT ` + manifestColumns + `, m.id AS seq FROM manifest m
		WHERE m.id IN (SELECT c.child_id FROM repository r JOIN tag t ON t.repo_id = r.id AND t.name = $6
			JOIN manifest_child c ON c.parent_id = t.manifest_id WHERE r.path = $1)
		AND (m.subject IS NULL OR m.subject <> $2) AND m.digest <> $2
		AND m.id > COALESCE((SELECT a.id FROM repository r JOIN manifest a ON a.repo_id = r.id WHERE r.path = $1 AND a.digest = $3), 0)
		AND (CAST($4 AS TEXT) = '' OR m.artifact_type = $4)
	ORDER BY seq LIMIT $5`

// Referrers lists the referrers of digest in repo, oldest first, as descriptors,
// in one query. artifactType filters unless it is empty. after is the digest of
// the last one seen; where that has been deleted since, the list starts anew,
// so that none is ever missed.
//
// Clients that do not trust a registry to keep the list, and tools that move
// images from one that did not, push it as an index under a tag
// (distribution-spec, "Referrers Tag Schema"). The tag is the only record of
// it: where it moves or goes, so do the referrers that it told of.
func (t *Tx) Referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, artifactType string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	if n <= 0 {
		return nil, nil
	}
	rows, err := t.tx.QueryContext(ctx, referrersQuery, string(repo), dbDigest(digest), dbDigest(after), artifactType, n, digest.FallbackTag())
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []gatehouse.Descriptor
	for rows.Next() {
		var m gatehouse.Manifest
		var seq int64
		if err := scanManifest(rows, &m, &seq); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, m.Descriptor)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

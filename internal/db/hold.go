package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Hold keeps a manifest, and with it all that it needs, until it is released.
type Hold struct {
	Repo      gatehouse.Repo
	Digest    gatehouse.Digest
	Reason    string
	Actor     string
	CreatedAt time.Time
}

// AddHold holds a manifest that the transaction has found with
// [Tx.ManifestID]. A second hold changes the reason of the first.
func (t *Tx) AddHold(ctx context.Context, repoID int64, digest gatehouse.Digest, reason, actor string) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO hold (repo_id, digest, reason, actor, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (repo_id, digest) DO UPDATE SET reason = excluded.reason, actor = excluded.actor, created_at = excluded.created_at`,
		repoID, dbDigest(digest), reason, actor, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// Held finds the hold on a manifest. ok is false where there is none.
func (t *Tx) Held(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (h Hold, ok bool, err error) {
	var at int64
	err = t.tx.QueryRowContext(ctx, `SELECT h.reason, h.actor, h.created_at FROM repository r JOIN hold h ON h.repo_id = r.id
		WHERE r.path = $1 AND h.digest = $2`, string(repo), dbDigest(digest)).Scan(&h.Reason, &h.Actor, &at)
	if none(err) {
		return Hold{}, false, nil
	}
	if err != nil {
		return Hold{}, false, unavailable(err)
	}
	h.Repo, h.Digest, h.CreatedAt = repo, digest, fromMicros(at)
	return h, true, nil
}

// ReleaseHold ends a hold; released is false where there was none.
func (t *Tx) ReleaseHold(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (released bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `DELETE FROM hold WHERE digest = $2 AND repo_id = (SELECT r.id FROM repository r WHERE r.path = $1)`,
		string(repo), dbDigest(digest)))
	return n > 0, err
}

// Holds lists holds, those of one repository or, with repo empty, of all, in
// order of repository and digest, behind the given one, at most n.
func (t *Tx) Holds(ctx context.Context, repo gatehouse.Repo, after Hold, n int) ([]Hold, error) {
	if n <= 0 {
		return nil, nil
	}
	last := []byte{}
	if after.Digest != "" {
		v, err := dbDigest(after.Digest).Value()
		if err != nil {
			return nil, err
		}
		last = v.([]byte)
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT r.path, h.digest, h.reason, h.actor, h.created_at FROM hold h JOIN repository r ON r.id = h.repo_id
		WHERE (CAST($1 AS TEXT) = '' OR r.path = $1) AND (r.path > $2 OR r.path = $2 AND h.digest > $3) ORDER BY r.path, h.digest LIMIT $4`,
		string(repo), string(after.Repo), last, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Hold
	for rows.Next() {
		var h Hold
		var at int64
		if err := rows.Scan(&h.Repo, (*dbDigest)(&h.Digest), &h.Reason, &h.Actor, &at); err != nil {
			return nil, unavailable(err)
		}
		h.CreatedAt = fromMicros(at)
		out = append(out, h)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

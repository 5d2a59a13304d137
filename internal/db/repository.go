package db

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
)

// EnsureRepo returns the id of a repository's row, adding it where it is
// missing. The row alone does not make a repository known: see [Tx.RepoKnown].
func (t *Tx) EnsureRepo(ctx context.Context, repo gatehouse.Repo) (int64, error) {
	id, ok, err := t.repoID(ctx, repo)
	if err != nil || ok {
		return id, err
	}
	err = t.tx.QueryRowContext(ctx, `INSERT INTO repository (path, created_at) VALUES ($1, $2)
		ON CONFLICT (path) DO NOTHING RETURNING id`, string(repo), micros(t.now)).Scan(&id)
	if none(err) { // another transaction added it since
		id, _, err = t.repoID(ctx, repo)
		return id, err
	}
	if err != nil {
		return 0, unavailable(err)
	}
	return id, nil
}

func (t *Tx) repoID(ctx context.Context, repo gatehouse.Repo) (id int64, ok bool, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT id FROM repository WHERE path = $1`, string(repo)).Scan(&id)
	if none(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, unavailable(err)
	}
	return id, true, nil
}

// repoHolds is the condition that repository r holds content. An upload that
// was never committed leaves a row that nobody sees.
const repoHolds = `(EXISTS (SELECT 1 FROM repo_blob rb WHERE rb.repo_id = r.id) OR EXISTS (SELECT 1 FROM manifest m WHERE m.repo_id = r.id))`

// RepoKnown reports whether repo holds, or has a link to, any content.
func (t *Tx) RepoKnown(ctx context.Context, repo gatehouse.Repo) (bool, error) {
	var one int
	err := t.tx.QueryRowContext(ctx, `SELECT 1 FROM repository r WHERE r.path = $1 AND `+repoHolds, string(repo)).Scan(&one)
	if none(err) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	return true, nil
}

// Repos lists known repositories in byte order after the given name, at most n.
func (t *Tx) Repos(ctx context.Context, after string, n int) ([]gatehouse.Repo, error) {
	if n <= 0 {
		return nil, nil
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT r.path FROM repository r WHERE r.path > $1 AND `+repoHolds+` ORDER BY r.path LIMIT $2`, after, n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []gatehouse.Repo
	for rows.Next() {
		var repo gatehouse.Repo
		if err := rows.Scan(&repo); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, repo)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// OwnRepo has other transactions wait that own the repository too, or add to it,
// until this one ends.
func (t *Tx) OwnRepo(ctx context.Context, id int64) error {
	if t.dialect.own == "" {
		return nil // the writer is alone
	}
	_, err := t.tx.ExecContext(ctx, `SELECT id FROM repository WHERE id = $1`+t.dialect.own, id)
	return unavailable(err)
}

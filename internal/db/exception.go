package db

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// ExceptionsMax bounds the exceptions of a server: all are kept in memory.
const ExceptionsMax = 20_000

// Exception is a finding that somebody has accepted. What is set of its scope
// must all fit; at least one of Project, Repository, Digest and Package is set.
type Exception struct {
	ID         int64
	Finding    string // id or alias
	Project    string
	Repository gatehouse.Repo
	Digest     gatehouse.Digest
	Package    string // package URL or name
	Reason     string
	Author     string
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero = never
}

const exceptionColumns = `id, finding, project, repository, digest, package, reason, author, created_at, expires_at`

// AddException adds an exception, with its event and audit record, and returns
// it with its id and time. Author is the actor. CodeTooMany: there are
// [ExceptionsMax] already.
func (t *Tx) AddException(ctx context.Context, actor gatehouse.Actor, e Exception) (Exception, error) {
	if err := t.take(ctx, turnPolicies); err != nil {
		return e, err
	}
	var n int
	if err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM finding_exception`).Scan(&n); err != nil {
		return e, unavailable(err)
	}
	if n >= ExceptionsMax {
		return e, gatehouse.Errorf(gatehouse.CodeTooMany, "there are %d exceptions already", n).WithHint("delete those that have expired")
	}
	e.Author, e.CreatedAt, e.ExpiresAt = actor.Name, fromMicros(micros(t.now)), fromMicros(micros(e.ExpiresAt))
	err := t.tx.QueryRowContext(ctx, `INSERT INTO finding_exception (finding, project, repository, digest, package, reason, author, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id`,
		e.Finding, e.Project, string(e.Repository), string(e.Digest), e.Package, e.Reason, e.Author, micros(e.CreatedAt), micros(e.ExpiresAt)).Scan(&e.ID)
	if err != nil {
		return e, unavailable(err)
	}
	return e, t.exceptionChanged(ctx, actor, "exception.create", e)
}

// DeleteException removes an exception, with its event and audit record.
// CodeNotFound: there is none.
func (t *Tx) DeleteException(ctx context.Context, actor gatehouse.Actor, id int64) error {
	if err := t.take(ctx, turnPolicies); err != nil {
		return err
	}
	e, err := t.Exception(ctx, id)
	if err != nil {
		return err
	}
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM finding_exception WHERE id = $1`, id); err != nil {
		return unavailable(err)
	}
	return t.exceptionChanged(ctx, actor, "exception.delete", e)
}

// exceptionChanged tells of a change; the audit record keeps all of the
// exception, also of one that is gone.
func (t *Tx) exceptionChanged(ctx context.Context, actor gatehouse.Actor, action string, e Exception) error {
	detail, err := json.Marshal(e)
	if err != nil {
		return err
	}
	event := gatehouse.Event{Type: gatehouse.EventExceptionChanged, Actor: actor.Name, Repo: e.Repository, Digest: e.Digest, Payload: detail}
	if err := t.AddEvent(ctx, event); err != nil {
		return err
	}
	if err := t.tellAll(ctx); err != nil {
		return err
	}
	return t.AddAudit(ctx, actor, action, strconv.FormatInt(e.ID, 10), string(detail))
}

// Exception finds one. CodeNotFound: there is none.
func (t *Tx) Exception(ctx context.Context, id int64) (Exception, error) {
	list, err := t.exceptions(ctx, `WHERE id = $1`, id)
	if err == nil && len(list) == 0 {
		err = gatehouse.Errorf(gatehouse.CodeNotFound, "there is no exception %d", id)
	}
	if err != nil {
		return Exception{}, err
	}
	return list[0], nil
}

// Exceptions lists exceptions in order of their ids, behind after, at most n:
// all, or those of one finding or whose scope names the repository.
func (t *Tx) Exceptions(ctx context.Context, finding string, repo gatehouse.Repo, after int64, n int) ([]Exception, error) {
	return t.exceptions(ctx, `WHERE id > $1 AND (CAST($2 AS TEXT) = '' OR UPPER(finding) = UPPER($2)) AND (CAST($3 AS TEXT) = '' OR repository = $3)
		ORDER BY id LIMIT $4`, after, finding, string(repo), n)
}

func (t *Tx) exceptions(ctx context.Context, where string, args ...any) ([]Exception, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+exceptionColumns+` FROM finding_exception `+where, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Exception
	for rows.Next() {
		var e Exception
		var created, expires int64
		if err := rows.Scan(&e.ID, &e.Finding, &e.Project, &e.Repository, &e.Digest, &e.Package, &e.Reason, &e.Author, &created, &expires); err != nil {
			return nil, unavailable(err)
		}
		e.CreatedAt, e.ExpiresAt = fromMicros(created), fromMicros(expires)
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// ExceptionVersion grows whenever an exception is added or removed, on any
// replica, and never shrinks, as [Tx.PolicyVersion].
func (t *Tx) ExceptionVersion(ctx context.Context) (int64, error) {
	var seq int64
	err := t.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(seq), 0) FROM event WHERE type = $1`, string(gatehouse.EventExceptionChanged)).Scan(&seq)
	if err != nil {
		return 0, unavailable(err)
	}
	return seq, nil
}

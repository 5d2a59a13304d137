package server

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// exceptions are the findings that somebody has accepted on this server. They
// are kept in memory and read anew when a replica changed them. It implements
// api.Exceptions.
type exceptions struct {
	db      *db.DB
	mu      sync.Mutex // reads one at a time
	current atomic.Pointer[accepted]
}

// accepted are all exceptions of one version, by what they are limited to.
type accepted struct {
	version      int64
	anywhere     []vex.Exception // of an image or a package, in whatever repository
	byProject    map[string][]vex.Exception
	byRepository map[gatehouse.Repo][]vex.Exception
}

// of returns the exceptions that may concern images of repo, expired ones
// included. It costs one small query.
func (x *exceptions) of(ctx context.Context, repo gatehouse.Repo) ([]vex.Exception, error) {
	all, err := x.all(ctx)
	if err != nil {
		return nil, err
	}
	project, _, _ := strings.Cut(string(repo), "/")
	own, projects := all.byRepository[repo], all.byProject[project]
	if len(own) == 0 && len(projects) == 0 {
		return all.anywhere, nil
	}
	list := append(own[:len(own):len(own)], projects...)
	return append(list, all.anywhere...), nil
}

func (x *exceptions) all(ctx context.Context) (*accepted, error) {
	var version int64
	err := x.db.Get(ctx, func(tx *db.Tx) (err error) {
		version, err = tx.ExceptionVersion(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if a := x.current.Load(); a != nil && a.version == version {
		return a, nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if a := x.current.Load(); a != nil && a.version == version {
		return a, nil
	}
	var rows []db.Exception
	err = x.db.Read(ctx, func(tx *db.Tx) (err error) {
		if version, err = tx.ExceptionVersion(ctx); err != nil {
			return err
		}
		rows, err = tx.Exceptions(ctx, "", "", 0, db.ExceptionsMax)
		return err
	})
	if err != nil {
		return nil, err
	}
	a := &accepted{version: version, byProject: map[string][]vex.Exception{}, byRepository: map[gatehouse.Repo][]vex.Exception{}}
	for _, r := range rows {
		e := vex.Exception{
			ID: strconv.FormatInt(r.ID, 10), Finding: r.Finding, Project: r.Project, Repository: r.Repository, Digest: r.Digest,
			Package: r.Package, Reason: r.Reason, Author: r.Author, Expires: r.ExpiresAt,
		}
		switch {
		case e.Repository != "":
			a.byRepository[e.Repository] = append(a.byRepository[e.Repository], e)
		case e.Project != "":
			a.byProject[e.Project] = append(a.byProject[e.Project], e)
		default:
			a.anywhere = append(a.anywhere, e)
		}
	}
	x.current.Store(a)
	return a, nil
}

func exceptionDoc(r db.Exception) api.Exception {
	return api.Exception{
		ID: r.ID, Finding: r.Finding, Project: r.Project, Repository: r.Repository, Digest: r.Digest, Package: r.Package,
		Reason: r.Reason, Author: r.Author, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt,
		Expired: !r.ExpiresAt.IsZero() && !time.Now().Before(r.ExpiresAt),
	}
}

// List implements api.Exceptions.
func (x *exceptions) List(ctx context.Context, finding string, repo gatehouse.Repo, after int64, n int) (any, error) {
	var rows []db.Exception
	err := x.db.Get(ctx, func(tx *db.Tx) (err error) {
		rows, err = tx.Exceptions(ctx, finding, repo, after, n)
		return err
	})
	out := struct {
		Exceptions []api.Exception `json:"exceptions"`
		Next       int64           `json:"next,omitempty"`
	}{Exceptions: []api.Exception{}}
	for _, r := range rows {
		out.Exceptions = append(out.Exceptions, exceptionDoc(r))
	}
	if len(rows) == n && n > 0 {
		out.Next = rows[n-1].ID
	}
	return out, err
}

// Show implements api.Exceptions.
func (x *exceptions) Show(ctx context.Context, id int64) (any, error) {
	var row db.Exception
	err := x.db.Get(ctx, func(tx *db.Tx) (err error) {
		row, err = tx.Exception(ctx, id)
		return err
	})
	return exceptionDoc(row), err
}

// Create implements api.Exceptions.
func (x *exceptions) Create(ctx context.Context, actor gatehouse.Actor, e api.Exception) (any, error) {
	var row db.Exception
	err := x.db.Write(ctx, func(tx *db.Tx) (err error) {
		row, err = tx.AddException(ctx, actor, db.Exception{
			Finding: e.Finding, Project: e.Project, Repository: e.Repository, Digest: e.Digest, Package: e.Package, Reason: e.Reason, ExpiresAt: e.ExpiresAt,
		})
		return err
	})
	return exceptionDoc(row), err
}

// Delete implements api.Exceptions.
func (x *exceptions) Delete(ctx context.Context, actor gatehouse.Actor, id int64) error {
	return x.db.Write(ctx, func(tx *db.Tx) error { return tx.DeleteException(ctx, actor, id) })
}

package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Exception is a finding that somebody accepts. What is set of Project,
// Repository, Image and Package must all fit; at least one is set.
type Exception struct {
	ID         int64            `json:"id,omitempty"`
	Finding    string           `json:"finding"` // id or alias
	Project    string           `json:"project,omitempty"`
	Repository gatehouse.Repo   `json:"repository,omitempty"`
	Digest     gatehouse.Digest `json:"digest,omitempty"`  // of an image
	Package    string           `json:"package,omitempty"` // package URL, or a package's name
	Reason     string           `json:"reason"`
	Author     string           `json:"author,omitempty"`
	CreatedAt  time.Time        `json:"createdAt,omitzero"`
	ExpiresAt  time.Time        `json:"expiresAt,omitzero"`
	Expired    bool             `json:"expired,omitempty"`
}

// Exceptions keeps what has been accepted. Results are JSON documents.
type Exceptions interface {
	// List lists exceptions behind after, at most n: all, or those of one finding
	// or repository.
	List(ctx context.Context, finding string, repo gatehouse.Repo, after int64, n int) (any, error)
	Show(ctx context.Context, id int64) (any, error)
	Create(ctx context.Context, actor gatehouse.Actor, e Exception) (any, error)
	Delete(ctx context.Context, actor gatehouse.Actor, id int64) error
}

// Bounds on the fields of an exception, in bytes.
const (
	exceptionFindingMax = 200
	exceptionPackageMax = 1000
	exceptionReasonMax  = 2000
)

func (h handler) exceptionList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	var repo gatehouse.Repo
	if s := q.Get("repository"); s != "" {
		if repo, err = gatehouse.ParseRepo(s); err != nil {
			return err
		}
	}
	var after int64
	if s := q.Get("after"); s != "" {
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "after is not the number of an exception")
		}
	}
	v, err := h.Exceptions.List(r.Context(), q.Get("finding"), repo, after, n)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) exceptionShow(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	id, err := exceptionID(r)
	if err != nil {
		return err
	}
	v, err := h.Exceptions.Show(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func exceptionID(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id <= 0 {
		return 0, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no exception %q", r.PathValue("id"))
	}
	return id, nil
}

func (h handler) exceptionCreate(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	var in struct {
		Exception
		Reference string `json:"reference"` // names repository and digest in one
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	e := in.Exception
	if in.Reference != "" {
		ref, err := h.stored(in.Reference)
		if err != nil {
			return err
		}
		if ref.Digest == "" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%q has no digest: a tag may point at another image tomorrow", in.Reference).
				WithHint("name the image as REPOSITORY@sha256:…, or the whole repository")
		}
		e.Repository, e.Digest = ref.Repo, ref.Digest
	}
	if err := e.check(time.Now()); err != nil {
		return err
	}
	v, err := h.Exceptions.Create(r.Context(), actor, e)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// check refuses exceptions that say too little, or what nothing could ever fit.
func (e *Exception) check(now time.Time) error {
	invalid := func(format string, args ...any) *gatehouse.Error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
	}
	e.Finding, e.Reason = strings.TrimSpace(e.Finding), strings.TrimSpace(e.Reason)
	switch {
	case e.Finding == "" || len(e.Finding) > exceptionFindingMax || strings.ContainsAny(e.Finding, " \t\r\n*"):
		return invalid("finding is not the id of one").WithHint("for example CVE-2024-3094")
	case e.Reason == "":
		return invalid("the exception has no reason").WithHint("say why the finding is acceptable")
	case len(e.Reason) > exceptionReasonMax:
		return invalid("the reason has %d bytes, %d at most", len(e.Reason), exceptionReasonMax)
	case e.Project == "" && e.Repository == "" && e.Digest == "" && e.Package == "":
		return invalid("the exception does not say where it holds").WithHint("give a project, a repository, an image or a package")
	case !e.ExpiresAt.IsZero() && !now.Before(e.ExpiresAt):
		return invalid("the exception has expired already: expiresAt is %s", e.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if e.Project != "" {
		if _, err := gatehouse.ParseRepo(e.Project); err != nil || strings.Contains(e.Project, "/") {
			return invalid("project %q is not the first part of a repository's name", e.Project)
		}
	}
	if e.Repository != "" {
		if _, err := gatehouse.ParseRepo(string(e.Repository)); err != nil {
			return err
		}
	}
	if e.Digest != "" {
		if _, err := gatehouse.ParseDigest(string(e.Digest)); err != nil {
			return err
		}
	}
	if len(e.Package) > exceptionPackageMax {
		return invalid("the package has %d bytes, %d at most", len(e.Package), exceptionPackageMax)
	}
	if strings.HasPrefix(strings.ToLower(e.Package), "pkg:") {
		if _, err := gatehouse.ParsePURL(e.Package); err != nil {
			return err
		}
	}
	return nil
}

func (h handler) exceptionDelete(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	id, err := exceptionID(r)
	if err != nil {
		return err
	}
	if err := h.Exceptions.Delete(r.Context(), actor, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

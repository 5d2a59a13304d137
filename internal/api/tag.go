package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Tags answers what tags point at and pointed at. Results are JSON documents.
type Tags interface {
	// List lists tags in byte order after the given one, at most n.
	List(ctx context.Context, repo gatehouse.Repo, after string, n int) (any, error)
	Tag(ctx context.Context, repo gatehouse.Repo, tag string) (any, error)
	// History lists changes, newest first, before the one with this id (0: the
	// end), at most n.
	History(ctx context.Context, repo gatehouse.Repo, tag string, before int64, n int) (any, error)
	// Restore points a tag at what it had: digest or, empty, the last.
	Restore(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, tag string, digest gatehouse.Digest) (any, error)
	Delete(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, tag string) error
}

// tagPath is a path behind /api/v1/repositories/: NAME/tags, NAME/tags/TAG, or
// NAME/tags/TAG/VERB. It is read from its end, since a name may hold anything
// that a path can.
type tagPath struct {
	repo gatehouse.Repo
	tag  string
	verb string // "history" or "restore"
}

func parseTagPath(path string) (p tagPath, err error) {
	parts := strings.Split(path, "/")
	name := ""
	switch n := len(parts); {
	case n > 3 && parts[n-3] == "tags" && (parts[n-1] == "history" || parts[n-1] == "restore"):
		name, p.tag, p.verb = strings.Join(parts[:n-3], "/"), parts[n-2], parts[n-1]
	case n > 2 && parts[n-2] == "tags":
		name, p.tag = strings.Join(parts[:n-2], "/"), parts[n-1]
	case n > 1 && parts[n-1] == "tags":
		name = strings.Join(parts[:n-1], "/")
	default:
		return p, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no /api/v1/repositories/%s", path).WithHint("see docs/api.md for what there is")
	}
	if p.repo, err = gatehouse.ParseRepo(name); err != nil {
		return p, err
	}
	if p.tag != "" && !gatehouse.ValidTag(p.tag) {
		return p, gatehouse.Errorf(gatehouse.CodeInvalid, "tag %q is invalid", p.tag)
	}
	return p, nil
}

// may checks that actor may do action in repo.
func (h handler) may(ctx context.Context, actor gatehouse.Actor, action string, repo gatehouse.Repo) error {
	if h.Access.Allow(ctx, actor, action, repo) {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "you may not %s %s", action, repo)
}

func (h handler) tagGet(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	p, err := parseTagPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	if err := h.may(r.Context(), actor, "pull", p.repo); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	v, err := h.tagAnswer(r, p, n)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) tagAnswer(r *http.Request, p tagPath, n int) (any, error) {
	query := r.URL.Query()
	switch {
	case p.tag == "":
		after := query.Get("after")
		if after != "" && !gatehouse.ValidTag(after) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "after is no tag")
		}
		return h.Tags.List(r.Context(), p.repo, after, n)
	case p.verb == "":
		return h.Tags.Tag(r.Context(), p.repo, p.tag)
	case p.verb == "history":
		before := int64(0)
		if s := query.Get("before"); s != "" {
			var err error
			if before, err = strconv.ParseInt(s, 10, 64); err != nil || before < 1 {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "before is not the id of a change")
			}
		}
		return h.Tags.History(r.Context(), p.repo, p.tag, before, n)
	}
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "%s needs POST", p.verb)
}

func (h handler) tagPost(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	p, err := parseTagPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	if p.verb != "restore" {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "only …/tags/TAG/restore takes POST")
	}
	if err := admin(actor); err != nil {
		return err
	}
	var in struct{ Digest string }
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	digest := gatehouse.Digest("")
	if in.Digest != "" {
		if digest, err = gatehouse.ParseDigest(in.Digest); err != nil {
			return err
		}
	}
	v, err := h.Tags.Restore(r.Context(), actor, p.repo, p.tag, digest)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) tagDelete(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	p, err := parseTagPath(r.PathValue("path"))
	if err != nil {
		return err
	}
	if p.tag == "" || p.verb != "" {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "only …/tags/TAG takes DELETE")
	}
	if err := h.may(r.Context(), actor, "delete", p.repo); err != nil {
		return err
	}
	if err := h.Tags.Delete(r.Context(), actor, p.repo, p.tag); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

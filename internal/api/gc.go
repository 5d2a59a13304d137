package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/gatehouse-dev/gatehouse"
)

// Garbage collects what nobody needs, and keeps what somebody must. Results are
// JSON documents.
type Garbage interface {
	// Status tells how garbage collection stands.
	Status(ctx context.Context) (any, error)
	// Collect collects all that is due, or lists it (dryRun). everything takes
	// all waiting times as over.
	Collect(ctx context.Context, actor gatehouse.Actor, dryRun, everything bool) (any, error)
	// Explain tells why a manifest or blob is kept.
	Explain(ctx context.Context, image gatehouse.Ref) (any, error)
	// Holds lists holds, of all repositories where repo is empty, behind after
	// (REPOSITORY@DIGEST), at most n.
	Holds(ctx context.Context, repo gatehouse.Repo, after gatehouse.Ref, n int) (any, error)
	Hold(ctx context.Context, actor gatehouse.Actor, image gatehouse.Ref, reason string) (any, error)
	Release(ctx context.Context, actor gatehouse.Actor, image gatehouse.Ref) error
}

// Limits of small requests.
const (
	smallBodyMax = 16 << 10 // bytes
	pageDefault  = 100
	pageMax      = 1000
)

func (h handler) gcStatus(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	v, err := h.Garbage.Status(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) gcRun(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	var in struct {
		DryRun        bool `json:"dryRun"`
		IgnoreWindows bool `json:"ignoreWindows"`
		Confirm       bool `json:"confirm"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	if in.IgnoreWindows && !in.DryRun && !in.Confirm {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "ignoreWindows needs confirm: pushes and pulls under way can fail, and deleted tags cannot be restored")
	}
	v, err := h.Garbage.Collect(r.Context(), actor, in.DryRun, in.IgnoreWindows)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) gcExplain(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	ref, err := h.stored(r.URL.Query().Get("reference"))
	if err != nil {
		return err
	}
	v, err := h.Garbage.Explain(r.Context(), ref)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) holdList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	var repo gatehouse.Repo
	if s := r.URL.Query().Get("repository"); s != "" {
		if repo, err = gatehouse.ParseRepo(s); err != nil {
			return err
		}
	}
	var after gatehouse.Ref
	if s := r.URL.Query().Get("after"); s != "" {
		if after, err = h.stored(s); err != nil {
			return err
		}
	}
	v, err := h.Garbage.Holds(r.Context(), repo, after, n)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) holdAdd(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	var in struct{ Reference, Reason string }
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	ref, err := h.stored(in.Reference)
	if err != nil {
		return err
	}
	v, err := h.Garbage.Hold(r.Context(), actor, ref, in.Reason)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) holdRelease(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	ref, err := h.stored(r.URL.Query().Get("reference"))
	if err != nil {
		return err
	}
	if err := h.Garbage.Release(r.Context(), actor, ref); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stored parses a reference to something on this server, which needs no registry
// in front: "team/app:v1" means what it says.
func (h handler) stored(s string) (gatehouse.Ref, error) {
	ref, local, err := gatehouse.ParseLocalRef(s)
	if err != nil || local {
		return ref, err
	}
	ref.Repo, err = h.Images.Resolve(ref)
	return ref, err
}

func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := readAll(w, r, smallBodyMax)
	if err != nil || len(body) == 0 {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not valid JSON: %w", err)
	}
	return nil
}

// pageSize reads the parameter n.
func pageSize(r *http.Request) (int, error) {
	s := r.URL.Query().Get("n")
	if s == "" {
		return pageDefault, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > pageMax {
		return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "n is not a number from 1 to %d", pageMax)
	}
	return n, nil
}

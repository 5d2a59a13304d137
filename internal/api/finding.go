package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Findings answers what is and was wrong with stored images, and what happened.
// Results are JSON documents. may tells which repositories whoever asks may see.
type Findings interface {
	// Places lists repositories that hold a manifest, at most n.
	Places(ctx context.Context, digest gatehouse.Digest, n int) ([]gatehouse.Repo, error)
	// Findings lists what is wrong with an image, in the order of reports, from the
	// one with this number on, at most n.
	Findings(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, f FindingFilter, from, n int) (any, error)
	// History lists when each finding of an image was first seen and when it went;
	// at, unless it is zero, only those that were known then.
	History(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, at time.Time) (any, error)
	// Base tells which stored images an image was built upon.
	Base(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, may func(gatehouse.Repo) bool) (any, error)
	// Opinions compares what other scanners say of an image with our findings.
	Opinions(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (any, error)
	// Affected lists images, behind the given row, at most n.
	Affected(ctx context.Context, q Affected, after int64, n int, may func(gatehouse.Repo) bool) (any, error)
	// Events lists what happened after the event with this number, at most n.
	Events(ctx context.Context, after int64, n int, may func(gatehouse.Repo) bool) (any, error)
}

// FindingFilter says which findings to list. Empty fields match all.
type FindingFilter struct {
	Kind     gatehouse.Kind
	Severity *gatehouse.Severity
}

// Affected says which images to list: exactly one field is set.
type Affected struct {
	Vulnerability string           // a finding has this id
	Event         int64            // the event speaks of a package that they show
	Layer         gatehouse.Digest // they have a layer with this diffID
}

// placesMax is in how many repositories of an image one is looked for that the
// actor may read.
const placesMax = 1000

// visible finds a repository that holds the image of a path and that actor may
// pull from. CodeNotFound: there is none, as far as actor may know.
func (h handler) visible(r *http.Request, actor gatehouse.Actor) (gatehouse.Repo, gatehouse.Digest, error) {
	digest, err := gatehouse.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return "", "", err
	}
	repos, err := h.Findings.Places(r.Context(), digest, placesMax)
	if err != nil {
		return "", "", err
	}
	for _, repo := range repos {
		if h.Access.Allow(r.Context(), actor, "pull", repo) {
			return repo, digest, nil
		}
	}
	if actor.Anonymous() {
		return "", "", gatehouse.Errorf(gatehouse.CodeDenied, "this needs a name and a password").WithHint("sign in")
	}
	return "", "", gatehouse.Errorf(gatehouse.CodeNotFound, "there is no image %s that you may read", digest)
}

// mayPull asks for each repository once.
func (h handler) mayPull(r *http.Request, actor gatehouse.Actor) func(gatehouse.Repo) bool {
	known := map[gatehouse.Repo]bool{}
	return func(repo gatehouse.Repo) bool {
		may, ok := known[repo]
		if !ok {
			may = h.Access.Allow(r.Context(), actor, "pull", repo)
			known[repo] = may
		}
		return may
	}
}

func (h handler) imageFindings(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	repo, digest, err := h.visible(r, actor)
	if err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	from, err := number(r, "after")
	if err != nil {
		return err
	}
	var f FindingFilter
	switch kind := gatehouse.Kind(r.URL.Query().Get("kind")); kind {
	case "", gatehouse.KindVulnerability, gatehouse.KindSecret, gatehouse.KindMisconfig, gatehouse.KindMalware, gatehouse.KindLicense:
		f.Kind = kind
	default:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "kind %.50q is unknown", string(kind)).
			WithHint("use vulnerability, secret, misconfig, malware or license")
	}
	if s := r.URL.Query().Get("severity"); s != "" {
		severity, err := gatehouse.ParseSeverity(s)
		if err != nil {
			return err
		}
		f.Severity = &severity
	}
	v, err := h.Findings.Findings(r.Context(), repo, digest, f, int(min(from, 1<<31-1)), n)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) imageHistory(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	repo, digest, err := h.visible(r, actor)
	if err != nil {
		return err
	}
	var at time.Time
	if s := r.URL.Query().Get("at"); s != "" {
		if at, err = time.Parse(time.RFC3339, s); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "at is not a time").WithHint("write 2026-01-31T12:00:00Z")
		}
	}
	v, err := h.Findings.History(r.Context(), repo, digest, at)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) imageBase(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	repo, digest, err := h.visible(r, actor)
	if err != nil {
		return err
	}
	v, err := h.Findings.Base(r.Context(), repo, digest, h.mayPull(r, actor))
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) imageOpinions(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	repo, digest, err := h.visible(r, actor)
	if err != nil {
		return err
	}
	v, err := h.Findings.Opinions(r.Context(), repo, digest)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) imageList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	after, err := number(r, "after")
	if err != nil {
		return err
	}
	var q Affected
	asked := 0
	if q.Vulnerability = r.URL.Query().Get("vulnerability"); q.Vulnerability != "" {
		asked++
	}
	if q.Event, err = number(r, "event"); err != nil {
		return err
	}
	if q.Event != 0 {
		asked++
	}
	if s := r.URL.Query().Get("layer"); s != "" {
		asked++
		if q.Layer, err = gatehouse.ParseDigest(s); err != nil {
			return err
		}
	}
	if asked != 1 || len(q.Vulnerability) > 200 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "which images to list is not clear").
			WithHint("name one of vulnerability=ID, event=SEQ and layer=DIFFID")
	}
	v, err := h.Findings.Affected(r.Context(), q, after, n, h.mayPull(r, actor))
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) eventList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	after, err := number(r, "after")
	if err != nil {
		return err
	}
	v, err := h.Findings.Events(r.Context(), after, n, h.mayPull(r, actor))
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// number reads a parameter that counts rows; 0 where it is missing.
func number(r *http.Request, name string) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a number", name)
	}
	return n, nil
}

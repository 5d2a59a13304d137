package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Promotions copies images from one repository to another once their gates are
// passed. Results are JSON documents.
type Promotions interface {
	// Promote judges, copies and tells of it. The error is a [*Refused] where the
	// gates say no, and nothing has been copied. created is false where nothing had
	// to be done.
	Promote(ctx context.Context, actor gatehouse.Actor, p Promotion) (doc any, created bool, err error)
	// List lists promotions, newest first, before the one with this id (0: the end),
	// at most n. Those to repositories that may does not allow are left out.
	List(ctx context.Context, f PromotionFilter, before int64, n int, may func(gatehouse.Repo) bool) (any, error)
	// Key is the public key that promotions are signed with, PEM; ScanKey that of
	// what the scanner attests.
	Key(ctx context.Context) ([]byte, error)
	ScanKey(ctx context.Context) ([]byte, error)
}

// Promotion says what is promoted where.
type Promotion struct {
	Source, Destination gatehouse.Ref
	// Policies are the names of those that must have judged; all that are in force do
	// in any case.
	Policies []string
	// AllowIncomplete promotes an image that has not been scanned whole. It takes an
	// administrator.
	AllowIncomplete bool
	// NoClobber refuses to move a tag that points at something else.
	NoClobber bool
	// DryRun judges, and tells what would be copied.
	DryRun bool
}

// PromotionFilter chooses promotions; what is empty chooses all.
type PromotionFilter struct {
	Destination gatehouse.Repo
	Digest      gatehouse.Digest
}

// Refused is a promotion that the gates refuse.
type Refused struct{ Decision gatehouse.Decision }

func (r *Refused) Error() string {
	n, first := 0, ""
	for _, reason := range r.Decision.Reasons {
		if reason.Verdict == gatehouse.Deny {
			if n++; n == 1 {
				first = reason.Message
			}
		}
	}
	if n > 1 {
		first = fmt.Sprintf("%s, and %d more reasons", first, n-1)
	}
	return "the image does not pass its gates: " + first
}

// promotionPoliciesMax bounds the policies that one promotion names.
const promotionPoliciesMax = 100

func (h handler) promote(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	var in struct {
		Source          string   `json:"source"`
		Destination     string   `json:"destination"`
		Policies        []string `json:"policies"`
		AllowIncomplete bool     `json:"allowIncomplete"`
		NoClobber       bool     `json:"noClobber"`
		DryRun          bool     `json:"dryRun"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	if len(in.Policies) > promotionPoliciesMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "%d policies are named, %d at most", len(in.Policies), promotionPoliciesMax)
	}
	p := Promotion{Policies: slices.Compact(slices.Sorted(slices.Values(in.Policies))), AllowIncomplete: in.AllowIncomplete, NoClobber: in.NoClobber, DryRun: in.DryRun}
	var err error
	if p.Source, err = h.stored(in.Source); gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is in another registry: promotions judge and copy what this server holds", clip(in.Source)).
			WithHint("copy it into this registry first, with its signatures: gatehouse copy SOURCE THIS-REGISTRY/REPOSITORY:TAG; then promote that")
	} else if err != nil {
		return err
	}
	if p.Destination, err = h.promoteTo(in.Destination); err != nil {
		return err
	}
	if err := h.may(r.Context(), actor, "pull", p.Source.Repo); err != nil {
		return err
	}
	if err := h.may(r.Context(), actor, "push", p.Destination.Repo); err != nil {
		return err
	}
	if p.AllowIncomplete {
		if err := admin(actor); err != nil {
			return err
		}
	}
	v, created, err := h.Promotions.Promote(r.Context(), actor, p)
	var refused *Refused
	if errors.As(err, &refused) {
		return writeRefused(w, refused)
	}
	if err != nil {
		return err
	}
	if created {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
	}
	return writeJSON(w, v)
}

// promoteTo reads where to: a tag must stand there, since nobody should move
// latest by leaving something out.
func (h handler) promoteTo(s string) (gatehouse.Ref, error) {
	ref, err := h.stored(s)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is in another registry: promotions go to a repository of this server", clip(s)).
			WithHint("ask that registry's server, once the image is there")
	}
	if err != nil {
		return ref, err
	}
	name, _, digested := strings.Cut(s, "@")
	if digested || !strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "destination %q names no tag, or more than that", clip(s)).WithHint("name it as REPOSITORY:TAG")
	}
	return ref, nil
}

// writeRefused writes a problem that carries the decision.
func writeRefused(w http.ResponseWriter, r *Refused) error {
	b, err := json.Marshal(struct {
		Problem
		Decision gatehouse.Decision `json:"decision"`
	}{
		Problem{
			Type: "about:blank", Title: http.StatusText(http.StatusForbidden), Status: http.StatusForbidden, Detail: r.Error(), Code: gatehouse.CodeDenied,
			Hint: "gatehouse explain " + r.Decision.ID + " tells the reasons",
		}, r.Decision,
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write(append(b, '\n')) // the client has gone; nobody is left to tell
	return nil
}

func (h handler) promotionList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	query := r.URL.Query()
	var f PromotionFilter
	if s := query.Get("repository"); s != "" {
		if f.Destination, err = gatehouse.ParseRepo(s); err != nil {
			return err
		}
	}
	if s := query.Get("digest"); s != "" {
		if f.Digest, err = gatehouse.ParseDigest(s); err != nil {
			return err
		}
	}
	before := int64(0)
	if s := query.Get("before"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil || before < 1 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "before is not the id of a promotion")
		}
	}
	v, err := h.Promotions.List(r.Context(), f, before, n, func(repo gatehouse.Repo) bool {
		return h.Access.Allow(r.Context(), actor, "pull", repo)
	})
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) promotionKey(w http.ResponseWriter, r *http.Request, _ gatehouse.Actor) error {
	b, err := h.Promotions.Key(r.Context())
	return publicKey(w, b, err)
}

func (h handler) scanKey(w http.ResponseWriter, r *http.Request, _ gatehouse.Actor) error {
	b, err := h.Promotions.ScanKey(r.Context())
	return publicKey(w, b, err)
}

// publicKey answers with a public key, which is for everybody.
func publicKey(w http.ResponseWriter, b []byte, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(b) // the client has gone; nobody is left to tell
	return nil
}

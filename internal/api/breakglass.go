package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// BreakGlassRequest asks for a token that lets one image run once in spite of what
// the policies say.
type BreakGlassRequest struct {
	Namespace  string
	Digest     gatehouse.Digest // of the image
	Requester  string           // who will use it, as the cluster names them
	Reason     string
	TTL        time.Duration // 0: an hour
	Everything bool          // also in spite of policies that judge the object
}

// BreakGlass keeps tokens. Results are JSON documents.
type BreakGlass interface {
	// Create makes a token, which the answer shows and nothing shows again. It
	// decides who may: CodeDenied.
	Create(ctx context.Context, actor gatehouse.Actor, in BreakGlassRequest) (any, error)
	// List lists tokens, newest first, before the given one, at most n.
	List(ctx context.Context, before int64, n int) (any, error)
	Revoke(ctx context.Context, actor gatehouse.Actor, id int64) (any, error)
	// PublicKey verifies the statements about tokens (PEM).
	PublicKey(ctx context.Context) ([]byte, error)
}

func (h handler) breakGlassCreate(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	body, err := readAll(w, r, projectSettingsMax)
	if err != nil {
		return err
	}
	var in struct {
		Namespace  string `json:"namespace"`
		Image      string `json:"image"` // a reference with a digest, or a digest
		Requester  string `json:"requester"`
		Reason     string `json:"reason"`
		TTL        string `json:"ttl"` // "1h"
		Everything bool   `json:"everything"`
	}
	if err := strictJSON(body, &in); err != nil {
		return err
	}
	ask := BreakGlassRequest{Namespace: in.Namespace, Requester: in.Requester, Reason: in.Reason, Everything: in.Everything}
	if ask.Digest, err = digestIn(in.Image); err != nil {
		return err
	}
	if in.TTL != "" {
		if ask.TTL, err = time.ParseDuration(in.TTL); err != nil || ask.TTL <= 0 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "ttl %.50q is not how long the token holds", in.TTL).WithHint("for example 1h")
		}
	}
	v, err := h.BreakGlass.Create(r.Context(), actor, ask)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, v)
}

// digestIn is the digest that an image is named by.
func digestIn(image string) (gatehouse.Digest, error) {
	if d, err := gatehouse.ParseDigest(image); err == nil {
		return d, nil
	}
	ref, err := gatehouse.ParseRef(image)
	if err != nil {
		return "", err
	}
	if ref.Digest == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "image %.300q has no digest: a tag may point at another image tomorrow", image).
			WithHint("name it as NAME@sha256:…, or the digest alone")
	}
	return ref.Digest, nil
}

func (h handler) breakGlassList(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	n, err := pageSize(r)
	if err != nil {
		return err
	}
	var before int64
	if s := r.URL.Query().Get("before"); s != "" {
		if before, err = strconv.ParseInt(s, 10, 64); err != nil || before <= 0 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "before is not the number of a token")
		}
	}
	v, err := h.BreakGlass.List(r.Context(), before, n)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) breakGlassRevoke(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id <= 0 {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no break-glass token %.50q", r.PathValue("id"))
	}
	v, err := h.BreakGlass.Revoke(r.Context(), actor, id)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) breakGlassKey(w http.ResponseWriter, r *http.Request, _ gatehouse.Actor) error {
	b, err := h.BreakGlass.PublicKey(r.Context())
	return publicKey(w, b, err)
}

package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// Sigstore is the private Sigstore of a server.
type Sigstore interface {
	// Show tells where it is and what clients must trust. Nothing of it is secret;
	// administrators are told more.
	Show(ctx context.Context, actor gatehouse.Actor) (any, error)
	// Rotate puts new keys of the named parts in force. Those before may sign for a
	// while, unless atOnce.
	Rotate(ctx context.Context, actor gatehouse.Actor, parts []string, atOnce bool) (any, error)
}

var errNoSigstore = gatehouse.Errorf(gatehouse.CodeNotFound, "this server is no private Sigstore").WithHint("turn it on with the setting sigstore: true")

// sigstoreShow serves GET /api/v1/sigstore. Clients ask before they have a name.
func (h handler) sigstoreShow(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if h.Sigstore == nil {
		return errNoSigstore
	}
	v, err := h.Sigstore.Show(r.Context(), actor)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// sigstoreRotate serves POST /api/v1/sigstore/rotate.
func (h handler) sigstoreRotate(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	if h.Sigstore == nil {
		return errNoSigstore
	}
	var in struct {
		Parts  []string `json:"parts"`
		AtOnce bool     `json:"atOnce"`
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the body is not {\"parts\": [\"ca\", …]}: %w", err)
	}
	v, err := h.Sigstore.Rotate(r.Context(), actor, in.Parts, in.AtOnce)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

package api

import (
	"context"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Feeds keeps the advisories fresh. Results are JSON documents.
type Feeds interface {
	// Status tells how each feed stands.
	Status(ctx context.Context) (any, error)
	// Update has feeds looked at now, all of them where none is named. force
	// takes everything anew, and believes also what looks cut off.
	// CodeInvalid: a name is none of the feeds. CodeConflict: there are no feeds.
	Update(ctx context.Context, actor gatehouse.Actor, names []string, force bool) (any, error)
	// Remove takes feeds that are not kept fresh out of the advisories, and answers
	// when every verdict is true without them. CodeNotFound: there is no such feed.
	// CodeConflict: the settings name it, so that it would come again.
	Remove(ctx context.Context, actor gatehouse.Actor, names []string) (any, error)
	// Export packs the advisories in force. CodeNotFound: there are none.
	// CodeTooMany: that is being done already.
	Export(ctx context.Context) (Export, error)
}

// Export is an advisory database on its way out.
type Export interface {
	// WriteLayout writes it as the tar of an OCI image layout.
	WriteLayout(w io.Writer) error
	Discard()
}

func (h handler) feedStatus(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	v, err := h.Feeds.Status(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) feedUpdate(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	var in struct {
		Feeds []string `json:"feeds"`
		Force bool     `json:"force"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	v, err := h.Feeds.Update(r.Context(), actor, slices.Clone(in.Feeds), in.Force)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (h handler) feedRemove(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	var in struct {
		Feeds []string `json:"feeds"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return err
	}
	if len(in.Feeds) == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "no feed is named").WithHint(`{"feeds": ["osv/Debian"]}`)
	}
	v, err := h.Feeds.Remove(r.Context(), actor, in.Feeds)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

// exportTimeMax is how long a client may take to read an export.
const exportTimeMax = 30 * time.Minute

func (h handler) advisoryExport(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	e, err := h.Feeds.Export(r.Context())
	if err != nil {
		return err
	}
	defer e.Discard()
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(exportTimeMax))
	defer func() { _ = c.SetWriteDeadline(time.Time{}) }()
	w.Header().Set("Content-Type", "application/x-tar")
	if err := e.WriteLayout(w); err != nil {
		h.Log.WarnContext(r.Context(), "export advisories failed", "error", err)
		panic(http.ErrAbortHandler) // the status is sent: only a broken connection says that it is not whole
	}
	return nil
}

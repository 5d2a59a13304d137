package api

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Facts is what is told, signed, to admission in other clusters.
type Facts interface {
	// Changes is one page of what has changed after a position; after < 0: where the
	// feed ends. mark is that of the page that ended there. CodeConflict: that page is
	// not of this history.
	Changes(ctx context.Context, after int64, mark, nonce string, may func(gatehouse.Repo) bool) (json.RawMessage, error)
	// Image is what is known of one image in one repository, without what is known
	// already, which has the version known.
	Image(ctx context.Context, repo gatehouse.Repo, digest, known gatehouse.Digest, nonce string) (json.RawMessage, error)
	// FactsKey is the public key that both are signed with, PEM.
	FactsKey(ctx context.Context) ([]byte, error)
}

const (
	nonceMax    = 64 // bytes
	factsPlaces = 10 // repositories that one answer tells of
	// factsBytesMax is how many bytes of them are too many to tell of another one.
	factsBytesMax = 64 << 20
)

// nonce reads the text that a signed answer repeats, so that no old one passes for it.
func nonce(r *http.Request) (string, error) {
	s := r.URL.Query().Get("nonce")
	if len(s) > nonceMax {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "nonce has %d bytes, %d at most", len(s), nonceMax)
	}
	return s, nil
}

func (h handler) factChanges(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	once, err := nonce(r)
	if err != nil {
		return err
	}
	after := int64(-1)
	if s := r.URL.Query().Get("after"); s != "" {
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "after is not a position of the feed").WithHint("leave it out to begin, then give last of the page before")
		}
	}
	v, err := h.Facts.Changes(r.Context(), after, r.URL.Query().Get("mark"), once, h.mayPull(r, actor))
	if err != nil {
		return err
	}
	return writePacked(w, r, v)
}

func (h handler) facts(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := known(actor); err != nil {
		return err
	}
	q := r.URL.Query()
	once, err := nonce(r)
	if err != nil {
		return err
	}
	digest, err := gatehouse.ParseDigest(q.Get("digest"))
	if err != nil {
		return err
	}
	repos, err := h.factPlaces(r, digest)
	if err != nil {
		return err
	}
	out := struct {
		Facts []json.RawMessage `json:"facts"`
	}{Facts: []json.RawMessage{}}
	may, size := h.mayPull(r, actor), 0
	for _, repo := range repos {
		if !may(repo) {
			continue
		}
		if size > factsBytesMax {
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "the facts about %s in all of its repositories are too many", digest).WithHint("name one with repository=")
		}
		v, err := h.Facts.Image(r.Context(), repo, digest, gatehouse.Digest(q.Get("known")), once)
		if err != nil && (len(repos) == 1 || gatehouse.CodeOf(err) != gatehouse.CodeNotFound) {
			return err
		}
		if err == nil {
			out.Facts = append(out.Facts, v)
			size += len(v)
		}
	}
	if len(out.Facts) == 0 {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no image %s that you may read", digest)
	}
	return writePacked(w, r, out)
}

// factPlaces are the repositories that are asked about: the one that is named, or all
// that hold the image.
func (h handler) factPlaces(r *http.Request, digest gatehouse.Digest) ([]gatehouse.Repo, error) {
	if s := r.URL.Query().Get("repository"); s != "" {
		repo, err := gatehouse.ParseRepo(s)
		return []gatehouse.Repo{repo}, err
	}
	return h.Findings.Places(r.Context(), digest, factsPlaces)
}

func (h handler) factsKey(w http.ResponseWriter, r *http.Request, _ gatehouse.Actor) error {
	b, err := h.Facts.FactsKey(r.Context())
	return publicKey(w, b, err)
}

// writePacked is writeJSON for large answers, without blanks and compressed for those
// who take that.
func writePacked(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_, _ = w.Write(b) // the client has gone; nobody is left to tell
		return nil
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write(b)
	_ = z.Close() // as above
	return nil
}

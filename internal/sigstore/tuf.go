package sigstore

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// TUFPath is below which the TUF repository is.
const TUFPath = "/tuf"

// File is how a file of a TUF repository is found: by its path below the
// repository. CodeNotFound: there is none.
type File func(ctx context.Context, path string) ([]byte, error)

// TUF serves a TUF repository: metadata and targets as plain files.
type TUF struct {
	file   File
	logger *slog.Logger
}

// NewTUF makes the HTTP API of a TUF repository. logger may be nil.
func NewTUF(file File, logger *slog.Logger) *TUF {
	return &TUF{file, cmp.Or(logger, slog.New(slog.DiscardHandler))}
}

// Register adds the route.
func (t *TUF) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+TUFPath+"/{path...}", t.get)
}

// get answers GET /tuf/….
func (t *TUF) get(w http.ResponseWriter, req *http.Request) {
	path := req.PathValue("path")
	if !plain(path) { // no file is called so, and not every database can be asked
		fail(w, req, t.logger, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no file of that name"))
		return
	}
	data, err := t.file(req.Context(), path)
	if err != nil {
		fail(w, req, t.logger, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	// What bears a version or a hash never changes.
	if path == "timestamp.json" || !strings.Contains(strings.TrimSuffix(path, ".json"), ".") {
		h.Set("Cache-Control", "no-cache")
	} else {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}

// plain reports whether a path is printable ASCII, as all of ours are.
func plain(path string) bool {
	for _, c := range []byte(path) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

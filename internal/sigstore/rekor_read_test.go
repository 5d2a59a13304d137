package sigstore_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	rekorread "github.com/sigstore/rekor-tiles/v2/pkg/client/read"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// TestRead: the log is read by Rekor's own client at both places, tiles are kept
// for ever and the checkpoint is not, and entries come compressed if they may.
func TestRead(t *testing.T) {
	r := newRekor(t, nil)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() { r.add(sign256(t, fmt.Sprint("artifact ", i)).request()) })
	}
	wg.Wait()
	verifier, err := signature.LoadVerifier(r.pub, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"/log/", "/api/v2/"} {
		reader, err := rekorread.NewReader(r.url+base, r.log.Origin(), verifier)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := reader.ReadCheckpoint(t.Context())
		if err != nil || c.Size != 300 {
			t.Fatalf("%s: %+v %v", base, c, err)
		}
		full, err1 := reader.ReadTile(t.Context(), 0, 0, 0)
		part, err2 := reader.ReadTile(t.Context(), 0, 1, 44)
		bundle, err3 := reader.ReadEntryBundle(t.Context(), 1, 44)
		if len(full) != 8192 || len(part) != 44*32 || len(bundle) == 0 || err1 != nil || err2 != nil || err3 != nil {
			t.Errorf("%s: %d, %d and %d bytes; %v %v %v", base, len(full), len(part), len(bundle), err1, err2, err3)
		}
	}
	c, err := tlog.ParseCheckpoint(text(t, r))
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.Check(t.Context(), tlog.HTTP{Base: r.url + "/log", Client: r.client}, c.Tree); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]struct {
		status       int
		kind, caches string
	}{
		"/log/checkpoint":              {200, "text/plain; charset=utf-8", "no-cache"},
		"/log/tile/0/000":              {200, "application/octet-stream", "public, max-age=31536000, immutable"},
		"/log/tile/0/001.p/44":         {200, "application/octet-stream", "public, max-age=31536000, immutable"},
		"/log/tile/entries/001.p/44":   {200, "application/octet-stream", "public, max-age=31536000, immutable"},
		"/log/tile/0/001":              {404, "application/json", "no-store"},
		"/log/tile/0/001.p/45":         {404, "application/json", "no-store"},
		"/log/tile/0/1":                {400, "application/json", "no-store"},
		"/log/tile/entries/x999/x/999": {400, "application/json", "no-store"},
		"/log/tile/8/0/000":            {400, "application/json", "no-store"},
	} {
		res := r.get(path, "identity")
		if res.StatusCode != want.status || res.Header.Get("Content-Type") != want.kind || res.Header.Get("Cache-Control") != want.caches {
			t.Errorf("%s: %s %v", path, res.Status, res.Header)
		}
	}
	if at, err := http.ParseTime(r.get("/log/checkpoint", "identity").Header.Get("Last-Modified")); err != nil || time.Since(at) > time.Hour {
		t.Errorf("the checkpoint is of %s %v", at, err)
	}
	plain, packed := r.get("/log/tile/entries/000", "identity"), r.get("/log/tile/entries/000", "br, gzip")
	a, err1 := io.ReadAll(plain.Body)
	z, err2 := gzip.NewReader(packed.Body)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	b, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(a, b) || packed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" || packed.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("%d and %d bytes, %v %v", len(a), len(b), packed.Header, err)
	}
	if none := r.get("/log/tile/entries/000", "gzip;q=0"); none.Header.Get("Content-Encoding") != "" {
		t.Error("compressed although that is refused")
	}
}

func text(t *testing.T, r *rekor) string {
	signed, err := r.log.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(signed), "\n\n")
	return head + "\n"
}

func (r *rekor) get(path, accept string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", accept)
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { res.Body.Close() })
	return res
}

package update

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// held are what a database has, and what the states of the last run were.
type held struct {
	versions map[string]string
	states   map[string]State
}

// look fetches once and keeps what an update would keep.
func (h *held) look(t *testing.T, f *Fetcher, feeds []Feed) []*Result {
	t.Helper()
	results := f.Fetch(t.Context(), feeds, h.states, func(name string) (string, int) { return h.versions[name], 0 })
	for _, r := range results {
		t.Cleanup(r.Discard)
		h.states[r.Feed.Name] = r.State
		if r.File != nil {
			h.versions[r.Feed.Name] = r.Version
		}
	}
	return results
}

func newHeld() *held { return &held{map[string]string{}, map[string]State{}} }

func bodyOf(t *testing.T, r *Result) string {
	t.Helper()
	if r.File == nil {
		t.Fatalf("%s: nothing came: %v", r.Feed.Name, r.Err)
	}
	b, err := io.ReadAll(io.NewSectionReader(r.File, 0, r.Size))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestFetch: feeds are independent, looked at when they are due, and what has
// not changed is not fetched again.
func TestFetch(t *testing.T) {
	good, bad := &source{body: []byte("one"), etag: `"1"`}, &source{}
	for range 3 * attemptsMax {
		bad.answers = append(bad.answers, status(500))
	}
	feeds := []Feed{
		{Name: "osv/bad", kind: NameOSV, url: serve(t, bad), sizeMax: 100},
		{Name: "osv/good", kind: NameOSV, url: serve(t, good), sizeMax: 100},
		{Name: "osv/none", kind: NameOSV, url: serve(t, &source{answers: []http.HandlerFunc{status(404)}}), sizeMax: 100, optional: true},
	}
	f, h, now := newFetcher(t, nil), newHeld(), noon
	f.Now = func() time.Time { return now }
	r := h.look(t, f, feeds)
	if r[0].Err == nil || r[0].File != nil || r[0].State.Failures != 1 || !r[0].State.LastSuccess.IsZero() {
		t.Errorf("bad: %+v", r[0])
	}
	if bodyOf(t, r[1]) != "one" || r[1].State.Failures != 0 || !r[1].State.LastSuccess.Equal(noon) {
		t.Errorf("good: %+v", r[1])
	}
	if r[2].Err != nil || !r[2].State.Absent {
		t.Errorf("what is not published: %+v", r[2])
	}
	asked := len(good.asked)
	now = noon.Add(time.Minute)
	for _, r := range h.look(t, f, feeds) {
		if !r.Skipped {
			t.Errorf("%s is looked at again after a minute", r.Feed.Name)
		}
	}
	now = noon.Add(backoffMin)
	if r := h.look(t, f, feeds); r[0].Skipped || r[0].State.Failures != 2 || !r[1].Skipped || len(good.asked) != asked {
		t.Errorf("after the pause of the one that failed: %+v, %+v", r[0], r[1])
	}
	now = noon.Add(2 * f.interval())
	if r := h.look(t, f, feeds); r[1].Skipped || r[1].File != nil || r[1].Err != nil || !r[1].State.LastSuccess.Equal(now) {
		t.Errorf("unchanged: %+v", r[1])
	}
	// By force everything comes anew.
	h.states["osv/good"] = h.states["osv/good"].Ask(true)
	if r := h.look(t, f, feeds); bodyOf(t, r[1]) != "one" || r[1].State.Forced {
		t.Errorf("by force: %+v", r[1])
	}
	// Another source has other names for what it has.
	moved := &source{body: []byte("two"), etag: `"1"`}
	feeds[1].url = serve(t, moved)
	if r := h.look(t, f, feeds); bodyOf(t, r[1]) != "two" || moved.asked[0].Header.Get("If-None-Match") != "" {
		t.Errorf("moved: %+v", r[1])
	}
}

// TestNothingIsLeft of what was fetched.
func TestNothingIsLeft(t *testing.T) {
	f := newFetcher(t, nil)
	feeds := []Feed{
		{Name: "osv/a", kind: NameOSV, url: serve(t, &source{body: content}), sizeMax: 1 << 20},
		{Name: "osv/b", kind: NameOSV, url: serve(t, &source{body: content}), sizeMax: 10},
		{Name: "nvd/2024", kind: NameNVD, url: nvdAt(t, "x", "y", nil), sizeMax: 1 << 20},
	}
	for _, r := range f.Fetch(t.Context(), feeds, nil, nothing) {
		r.Discard()
	}
	if files, err := os.ReadDir(f.Dir); err != nil || len(files) != 0 {
		t.Errorf("left: %v, %v", files, err)
	}
}

// TestMirrorFile is read where it lies, and stays there.
func TestMirrorFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "kev.json")
	write := func(body string, at time.Time) {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	feed := []Feed{{Name: NameKEV, kind: NameKEV, url: &url.URL{Scheme: "file", Path: name}, sizeMax: 10}}
	f, h := newFetcher(t, nil), newHeld()
	again := func() *Result {
		h.states[NameKEV] = h.states[NameKEV].Ask(false)
		return h.look(t, f, feed)[0]
	}
	if r := again(); gatehouse.CodeOf(r.Err) != gatehouse.CodeNotFound {
		t.Errorf("no file: %v", r.Err)
	}
	write("one", noon)
	if r := again(); bodyOf(t, r) != "one" {
		t.Errorf("%+v", r)
	}
	if r := again(); r.File != nil || r.Err != nil {
		t.Errorf("unchanged: %+v", r)
	}
	write("two", noon.Add(time.Second))
	r := again()
	if bodyOf(t, r) != "two" {
		t.Errorf("changed: %+v", r)
	}
	r.Discard()
	if _, err := os.Stat(name); err != nil {
		t.Errorf("the mirror's file is gone: %v", err)
	}
	write("much too long", noon)
	if r := again(); gatehouse.CodeOf(r.Err) != gatehouse.CodeTooLarge {
		t.Errorf("too large: %v", r.Err)
	}
	feed[0].url.Path = dir
	if r := again(); gatehouse.CodeOf(r.Err) != gatehouse.CodeInvalid {
		t.Errorf("a directory: %v", r.Err)
	}
}

// nvdAt serves a yearly file of NVD with a .meta that speaks of the text meta
// ("" has none).
func nvdAt(t *testing.T, text, meta string, asked *[]string) *url.URL {
	t.Helper()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if asked != nil {
			*asked = append(*asked, r.URL.Path)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, ".json.gz"):
			_, _ = w.Write(packed.Bytes())
		case meta == "":
			http.NotFound(w, r)
		case meta == "nonsense":
			_, _ = io.WriteString(w, "<html>hello</html>")
		default:
			sum := sha256.Sum256([]byte(meta))
			fmt.Fprintf(w, "lastModifiedDate:2026-03-04T03:00:00-05:00\r\nsize:%d\r\nsha256:%s\r\n", len(meta), strings.ToUpper(hex.EncodeToString(sum[:])))
		}
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.JoinPath("nvdcve-2.0-2024.json.gz")
}

// TestNVD: the small file beside each says whether it has changed, and whether it
// came whole.
func TestNVD(t *testing.T) {
	var asked []string
	feed := func(u *url.URL) []Feed { return []Feed{{Name: "nvd/2024", kind: NameNVD, url: u, sizeMax: 1 << 20}} }
	f, h := newFetcher(t, nil), newHeld()
	feeds := feed(nvdAt(t, `{"a":1}`, `{"a":1}`, &asked))
	if r := h.look(t, f, feeds)[0]; r.Err != nil || r.File == nil || !strings.HasPrefix(r.Version, "sha256:") {
		t.Fatalf("%+v", r)
	}
	asked = nil
	h.states["nvd/2024"] = h.states["nvd/2024"].Ask(false)
	if r := h.look(t, f, feeds)[0]; r.Err != nil || r.File != nil || fmt.Sprint(asked) != "[/nvdcve-2.0-2024.meta]" {
		t.Errorf("unchanged: %+v, asked for %v", r, asked)
	}
	if r := newHeld().look(t, f, feed(nvdAt(t, `{"a":1}`, `{"a":2}`, nil)))[0]; gatehouse.CodeOf(r.Err) != gatehouse.CodeInvalid {
		t.Errorf("another file than its .meta says: %v", r.Err)
	}
	if r := newHeld().look(t, f, feed(nvdAt(t, `{"a":1}`, "", nil)))[0]; r.Err != nil || r.File == nil {
		t.Errorf("a mirror without .meta: %v", r.Err)
	}
	if r := newHeld().look(t, f, feed(nvdAt(t, `{"a":1}`, "nonsense", nil)))[0]; gatehouse.CodeOf(r.Err) != gatehouse.CodeInvalid {
		t.Errorf("nonsense as .meta: %v", r.Err)
	}
}

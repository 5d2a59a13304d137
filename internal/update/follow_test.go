package update

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// export pushes a database of some bytes and records to a registry, and returns
// what it is.
func (h *host) export(t *testing.T, body []byte, records int) About {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "advisories.db")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Pack(t.Context(), path, dir, About{BuiltAt: noon, UpdatedAt: noon, Records: records})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Discard()
	layout := filepath.Join(dir, "layout.tar")
	out, err := os.Create(layout)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.WriteLayout(out), out.Close()); err != nil {
		t.Fatal(err)
	}
	l, err := fetch.OpenLayout(t.Context(), layout)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	typed := egress.New(egress.Config{UserTyped: true})
	defer typed.Close()
	ref := gatehouse.Ref{Registry: h.addr, Repo: "advisories", Tag: "latest"}
	if _, err := Copy(t.Context(), l, fetch.New(fetch.Options{Transport: typed.Transport()}).Registry(h.addr), ref); err != nil {
		t.Fatal(err)
	}
	return a.About
}

// TestFollow takes another Gatehouse's database as it stands behind a tag: whole,
// once, and not at all where it is known, has shrunk, or is damaged.
func TestFollow(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1}) // so that it does not compress
	body := make([]byte, 300_000)
	_, _ = random.Read(body)
	h, f := newHost(t), newFetcher(t, nil)
	about := h.export(t, body, 200)
	f.Registry = registries(t)
	had, records := map[gatehouse.Digest]bool{}, 150
	f.Held = func(_ context.Context, d gatehouse.Digest) (bool, error) { return had[d], nil }
	specs, err := Parse([]string{"gatehouse=" + h.addr + "/advisories"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]State{}
	look := func(force bool) (r *Result, got []byte) {
		t.Helper()
		states[NameGatehouse] = states[NameGatehouse].Ask(force)
		r = f.Fetch(t.Context(), Feeds(specs, noon), states, func(string) (string, int) { return "", records })[0]
		defer r.Discard()
		err := f.Apply(t.Context(), []*Result{r}, func([]gatehouse.Publication) error {
			t.Error("it is built upon, and not taken as it is")
			return nil
		}, func(file *os.File, forced bool) (err error) {
			if forced != force {
				t.Errorf("forced: %v", forced)
			}
			got, err = io.ReadAll(file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		states[NameGatehouse] = r.State
		return r, got
	}
	want := func(what string, got []byte, taken bool) {
		t.Helper()
		if (string(got) == string(body)) != taken || !taken && got != nil {
			t.Errorf("%s: %d bytes were taken", what, len(got))
		}
	}

	r, got := look(false)
	want("new", got, true)
	if r.Err != nil || r.Version != string(about.Digest) {
		t.Errorf("%+v", r)
	}
	had[about.Digest] = true
	h.replace(nil)
	r, got = look(false)
	want("known", got, false)
	if r.Err != nil || r.State.Failures != 0 || h.requests("/advisories/") != 2 { // manifest and configuration
		t.Errorf("known: %+v, asked for %v", r, h.asked)
	}
	_, got = look(true)
	want("by force", got, true)

	had = map[gatehouse.Digest]bool{}
	config := ""
	h.replace(func(r *http.Request) http.HandlerFunc {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method != http.MethodGet {
			return nil
		}
		if config == "" || config == r.URL.Path { // comes before the layer
			config = r.URL.Path
			return nil
		}
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body[:1000])
			panic(http.ErrAbortHandler)
		}
	})
	r, got = look(false)
	want("broken off", got, false)
	if gatehouse.CodeOf(r.Err) != gatehouse.CodeUnavailable || r.State.Failures != 1 {
		t.Errorf("broken off: %v, %+v", r.Err, r.State)
	}
	h.replace(nil)
	records = 1000
	r, got = look(false)
	want("shrunk", got, false)
	if gatehouse.CodeOf(r.Err) != gatehouse.CodeInvalid || !strings.Contains(r.Err.Error(), "looks cut off") {
		t.Errorf("shrunk: %v", r.Err)
	}
	_, got = look(true)
	want("shrunk, by force", got, true)

	h.push(t, TypeTrivy, []byte("one"))
	if specs, err = Parse([]string{"gatehouse=" + h.addr + "/trivy-db:2"}, nil); err != nil {
		t.Fatal(err)
	}
	r, got = look(false)
	want("something else", got, false)
	if gatehouse.CodeOf(r.Err) != gatehouse.CodeInvalid {
		t.Errorf("something else: %v", r.Err)
	}
	left, err := os.ReadDir(f.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

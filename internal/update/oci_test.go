package update

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// host is a registry whose answers can be replaced.
type host struct {
	addr string
	mu   sync.Mutex
	// answer replaces the registry's answer where it returns one.
	answer func(r *http.Request) http.HandlerFunc
	asked  []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked = append(h.asked, r.Method+" "+r.URL.Path)
		var answer http.HandlerFunc
		if h.answer != nil {
			answer = h.answer(r)
		}
		h.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	h.addr = strings.TrimPrefix(srv.URL, "http://")
	return h
}

func (h *host) requests(part string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.asked {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

func (h *host) replace(answer func(*http.Request) http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer, h.asked = answer, nil
}

// registries reach the network as a command does.
func registries(t *testing.T) func(string, http.RoundTripper) Registry {
	return func(host string, rt http.RoundTripper) Registry {
		return fetch.New(fetch.Options{Transport: rt}).Registry(host)
	}
}

// push stores an artifact with one layer of a media type.
func (h *host) push(t *testing.T, mediaType string, layer []byte) {
	t.Helper()
	out := egress.New(egress.Config{UserTyped: true})
	defer out.Close()
	reg := fetch.New(fetch.Options{Transport: out.Transport()}).Registry(h.addr)
	put := func(mediaType string, b []byte) gatehouse.Descriptor {
		d := describe(mediaType, b)
		if err := reg.PutFile(t.Context(), "trivy-db", d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }); err != nil {
			t.Fatal(err)
		}
		return d
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": put("application/vnd.oci.empty.v1+json", []byte("{}")), "layers": []any{put(mediaType, layer)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := reg.PutManifest(t.Context(), "trivy-db", "2", typeManifest, body); err != nil {
		t.Fatal(err)
	}
}

func trivyFrom(hosts ...*host) []Feed {
	f := Feed{Name: NameTrivy, kind: NameTrivy, sizeMax: 1 << 20}
	for _, h := range hosts {
		f.repos = append(f.repos, h.addr+"/trivy-db:2")
	}
	return []Feed{f}
}

// all answers every request in the same way.
func all(answer http.HandlerFunc) func(*http.Request) http.HandlerFunc {
	return func(*http.Request) http.HandlerFunc { return answer }
}

// TestTrivyFromTheFirstThatAnswers, and not again while its tag stays where it is.
func TestTrivyFromTheFirstThatAnswers(t *testing.T) {
	first, second := newHost(t), newHost(t)
	second.push(t, TypeTrivy, []byte("one"))
	f, h := newFetcher(t, nil), newHeld()
	f.Registry = registries(t)
	again := func() *Result {
		h.states[NameTrivy] = h.states[NameTrivy].Ask(false)
		return h.look(t, f, trivyFrom(first, second))[0]
	}
	first.replace(all(status(429, "Retry-After", "3600")))
	if r := again(); bodyOf(t, r) != "one" || !strings.HasPrefix(r.Version, "digest:sha256:") {
		t.Fatalf("%+v", r)
	}
	if first.requests("") == 0 {
		t.Error("the first was not asked")
	}
	second.replace(nil)
	if r := again(); r.Err != nil || r.File != nil || second.requests("/blobs/") != 0 {
		t.Errorf("unchanged: %+v, asked for %v", r, second.asked)
	}
	second.push(t, TypeTrivy, []byte("two"))
	if r := again(); bodyOf(t, r) != "two" {
		t.Errorf("the tag has moved: %+v", r)
	}
	first.replace(nil)
	first.push(t, TypeTrivy, []byte("three"))
	second.replace(nil)
	if r := again(); bodyOf(t, r) != "three" || second.requests("") != 0 {
		t.Errorf("the first is well again: %+v", r)
	}
}

// TestTrivyFromNobody: whether and when to come back is what all of them say.
func TestTrivyFromNobody(t *testing.T) {
	first, second := newHost(t), newHost(t)
	f := newFetcher(t, nil)
	f.Registry = registries(t)
	look := func() *Result { return f.Fetch(t.Context(), trivyFrom(first, second), nil, nothing)[0] }
	first.replace(all(status(429, "Retry-After", "7200")))
	second.replace(all(status(429, "Retry-After", "3600")))
	r := look()
	if gatehouse.CodeOf(r.Err) != gatehouse.CodeTooMany || !r.State.NotBefore.Equal(noon.Add(time.Hour)) {
		t.Errorf("both ask for patience: %v, not before %s", r.Err, r.State.NotBefore)
	}
	for _, h := range []*host{first, second} {
		if !strings.Contains(r.State.Error, h.addr) {
			t.Errorf("the state does not tell of %s: %q", h.addr, r.State.Error)
		}
	}
	second.replace(nil) // does not have it
	if r := look(); r.Err == nil || !r.State.NotBefore.IsZero() {
		t.Errorf("one of them may be asked: %v, not before %s", r.Err, r.State.NotBefore)
	}
	second.replace(all(status(500)))
	first.replace(nil)
	if r := look(); r.Err == nil {
		t.Error("nobody has it, and nothing is said")
	}
}

// TestTrivyIsWhatItsDigestSays: other bytes, too few of them and something else
// are refused, and what breaks off is asked for again.
func TestTrivyIsWhatItsDigestSays(t *testing.T) {
	h := newHost(t)
	h.push(t, TypeTrivy, []byte("the database"))
	f := newFetcher(t, nil)
	f.Registry = registries(t)
	look := func() *Result {
		r := f.Fetch(t.Context(), trivyFrom(h), nil, nothing)[0]
		t.Cleanup(r.Discard)
		return r
	}
	blobs := func(bad int, answer http.HandlerFunc) {
		h.replace(func(r *http.Request) http.HandlerFunc {
			if !strings.Contains(r.URL.Path, "/blobs/") || bad == 0 {
				return nil
			}
			bad--
			return answer
		})
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	for name, answer := range map[string]http.HandlerFunc{"other bytes": text("THE database"), "too few": text("the data"), "too many": text("the database!")} {
		blobs(-1, answer)
		if r := look(); r.Err == nil || r.File != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	blobs(1, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "12")
		_, _ = io.WriteString(w, "the")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	if r := look(); bodyOf(t, r) != "the database" {
		t.Errorf("broken off once: %+v", r)
	}
	h.replace(nil)
	h.push(t, "application/vnd.aquasec.trivy.javadb.layer.v1.tar+gzip", []byte("java"))
	if r := look(); gatehouse.CodeOf(r.Err) != gatehouse.CodeInvalid || !strings.Contains(r.Err.Error(), "something else") {
		t.Errorf("another artifact: %v", r.Err)
	}
}

// FuzzUnpack: an artifact is somebody else's. Whatever it says, what comes out is
// what its digests name, or an error.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte(`{"artifactType":"`+TypeArtifact+`"}`), []byte(`{"digest":"x"}`), []byte("zstd"))
	f.Add([]byte(`{"layers":[{"mediaType":"`+TypeTrivy+`"}]}`), []byte(`{}`), []byte(""))
	f.Fuzz(func(t *testing.T, manifest, config, layer []byte) {
		reg := memory{manifest, config, layer}
		// Twice: as it came, and with descriptors that fit.
		for _, m := range [][]byte{manifest, fitting(config, layer)} {
			reg.manifest = m
			found, err := OpenRef(context.Background(), reg, gatehouse.Ref{Digest: gatehouse.DigestOf(m)}, t.TempDir())
			if err != nil {
				continue
			}
			b, err := io.ReadAll(io.NewSectionReader(found.File, 0, found.Size))
			if err != nil || found.Kind == TypeArtifact && !found.About.Digest.Matches(b) || found.Kind == TypeTrivy && !bytes.Equal(b, layer) {
				t.Errorf("%s: %d bytes, %v", found.Kind, len(b), err)
			}
			found.Discard()
		}
	})
}

func fitting(config, layer []byte) []byte {
	b, err := json.Marshal(map[string]any{
		"artifactType": TypeArtifact, "config": describe(TypeConfig, config), "layers": []any{describe(TypeDatabase, layer)},
	})
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return b
}

// memory is a registry that hands out the same three parts whatever they are
// called.
type memory struct{ manifest, config, layer []byte }

func (m memory) Manifest(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	return &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: d}, Body: m.manifest}, nil
}

func (m memory) ManifestByTag(ctx context.Context, repo gatehouse.Repo, _ string) (*gatehouse.Manifest, error) {
	return m.Manifest(ctx, repo, gatehouse.DigestOf(m.manifest))
}

func (m memory) OpenBlob(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Blob, error) {
	b := m.layer
	if d.Matches(m.config) {
		b = m.config
	}
	return &gatehouse.Blob{Body: body{bytes.NewReader(b)}}, nil
}

type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

// TestLayerIsComparedHere, too: a registry that does not verify what it hands out
// is not believed.
func TestLayerIsComparedHere(t *testing.T) {
	layer := []byte("the database")
	for name, d := range map[string]gatehouse.Descriptor{
		"its own":        describe(TypeTrivy, layer),
		"another digest": {MediaType: TypeTrivy, Digest: gatehouse.DigestOf([]byte("THE database")), Size: 12},
		"too short":      {MediaType: TypeTrivy, Digest: gatehouse.DigestOf(layer), Size: 11},
		"too long":       {MediaType: TypeTrivy, Digest: gatehouse.DigestOf(layer), Size: 13},
		"negative":       {MediaType: TypeTrivy, Digest: gatehouse.DigestOf(layer), Size: -1},
		"no digest":      {MediaType: TypeTrivy, Digest: "sha256:x", Size: 12},
		"huge":           {MediaType: TypeTrivy, Digest: gatehouse.DigestOf(layer), Size: trivySizeMax + 1},
	} {
		m, err := json.Marshal(map[string]any{"layers": []any{d}})
		if err != nil {
			t.Fatal(err)
		}
		found, err := OpenRef(t.Context(), memory{manifest: m, layer: layer}, gatehouse.Ref{Tag: "2"}, t.TempDir())
		if (err == nil) != (name == "its own") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			found.Discard()
		}
	}
}

// TestForgedConfiguration: every part has the digest that its manifest names, and
// the configuration speaks of another database than the one that is there.
func TestForgedConfiguration(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	db := []byte("a database")
	layer := z.EncodeAll(db, nil)
	for name, about := range map[string]About{
		"true":           {Digest: gatehouse.DigestOf(db), Size: 10},
		"another":        {Digest: gatehouse.DigestOf([]byte("A database")), Size: 10},
		"shorter":        {Digest: gatehouse.DigestOf(db), Size: 9},
		"longer":         {Digest: gatehouse.DigestOf(db), Size: 11},
		"empty":          {Digest: gatehouse.DigestOf(db)},
		"huge":           {Digest: gatehouse.DigestOf(db), Size: DatabaseSizeMax + 1},
		"without digest": {Size: 10},
	} {
		config, err := json.Marshal(about)
		if err != nil {
			t.Fatal(err)
		}
		m := fitting(config, layer)
		found, err := OpenRef(t.Context(), memory{m, config, layer}, gatehouse.Ref{Digest: gatehouse.DigestOf(m)}, t.TempDir())
		if (err == nil) != (name == "true") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			found.Discard()
		}
	}
}

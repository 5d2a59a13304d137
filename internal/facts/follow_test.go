package facts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/facts"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const repo = gatehouse.Repo("shop/app")

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// signer is a server's key.
type signer struct {
	key    *sign.Key
	public []byte
}

func newSigner(t testing.TB) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, key.PublicPEM()}
}

func (s signer) envelope(payloadType string, v any) []byte {
	payload, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	b, err := s.key.Envelope(context.Background(), payloadType, payload)
	if err != nil {
		panic(err)
	}
	return b
}

// server is a server in memory, and whatever a hostile one would do.
type server struct {
	signer
	now func() time.Time

	mu         sync.Mutex
	position   int64
	log        []facts.Change // of positions 1, 2, …
	all        bool           // for the next page
	generation int64
	images     map[gatehouse.Digest]*facts.Image
	err        error
	asked      int // questions about images
	// page and image spoil answers; nil: they do not.
	page  func(*facts.Page)
	image func(*facts.Document)
	bytes func([]byte) []byte
	other *signer
}

func (s *server) sign(payloadType string, v any) []byte {
	by := s.signer
	if s.other != nil {
		by = *s.other
	}
	b := by.envelope(payloadType, v)
	if s.bytes != nil {
		b = s.bytes(b)
	}
	return b
}

func (s *server) Changes(_ context.Context, after int64, _, nonce string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	p := facts.Page{Server: "one", Nonce: nonce, After: after, Last: s.position, At: s.now(), ExpiresAt: s.now().Add(facts.Lifetime), Generation: s.generation, Names: []string{"registry.example"}, All: s.all}
	if after < 0 {
		p.After = p.Last
	} else {
		p.Changes = s.log[after:]
	}
	s.all = false
	if s.page != nil {
		s.page(&p)
	}
	return s.sign(facts.TypePage, p), nil
}

func (s *server) Image(_ context.Context, repo gatehouse.Repo, digest, known gatehouse.Digest, nonce string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.err != nil {
		return nil, s.err
	}
	img := s.images[digest]
	if img == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no image %s", digest)
	}
	version, err := facts.VersionOf(img)
	if err != nil {
		return nil, err
	}
	d := facts.Document{Server: "one", Nonce: nonce, Repository: repo, Digest: digest, At: s.now(), ExpiresAt: s.now().Add(facts.Lifetime), Generation: s.generation, Version: version, Image: img}
	if d.Unchanged = version == known; d.Unchanged {
		d.Image = nil
	}
	if s.image != nil {
		s.image(&d)
	}
	return s.sign(facts.TypeImage, d), nil
}

func (s *server) change(c facts.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position++
	s.log = append(s.log, c)
}

// put makes an image out of a text, and returns its digest.
func (s *server) put(text string) gatehouse.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := fmt.Appendf(nil, `{"text":%q}`, text)
	digest := gatehouse.DigestOf(body)
	s.images[digest] = &facts.Image{Manifests: []facts.Manifest{{Digest: digest, Body: body}}, Scan: facts.Scan{Complete: true, Overlays: []string{"kev"}}}
	return digest
}

// world is a server and a follower of it, with one clock.
type world struct {
	*testing.T
	*server
	*facts.Follower
	at  time.Time
	dir string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, at: start, dir: t.TempDir()}
	w.server = &server{signer: newSigner(t), now: func() time.Time { return w.at }, images: map[gatehouse.Digest]*facts.Image{}, generation: 3}
	w.open()
	return w
}

// open begins anew with what is on the disk.
func (w *world) open() {
	w.Helper()
	keys, err := facts.ParseKeys(w.public)
	if err != nil {
		w.Fatal(err)
	}
	if w.Follower, err = facts.Open(facts.Options{Server: w.server, Keys: keys, Dir: w.dir, MaxStale: 24 * time.Hour, Now: w.now}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) poll() {
	w.Helper()
	w.at = w.at.Add(time.Second)
	if err := w.Poll(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// know asks for an image and wants facts of now, or of before.
func (w *world) know(digest gatehouse.Digest, stale bool) *facts.Image {
	w.Helper()
	img, asOf, err := w.Follower.Image(w.Context(), repo, digest)
	if err != nil {
		w.Fatalf("image: %v", err)
	}
	if asOf.IsZero() == stale {
		w.Fatalf("facts as of %v, want stale %v", asOf, stale)
	}
	return img
}

// refuse asks for an image and wants none, for a reason.
func (w *world) refuse(digest gatehouse.Digest, code gatehouse.Code, why string) {
	w.Helper()
	img, _, err := w.Follower.Image(w.Context(), repo, digest)
	if img != nil || gatehouse.CodeOf(err) != code || !strings.Contains(err.Error(), why) {
		w.Fatalf("image: %v, %v; want %s %q", img, err, code, why)
	}
}

func (w *world) away(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

var gone = gatehouse.Errorf(gatehouse.CodeUnavailable, "connection refused")

// TestFactsAreKept: the server is asked once, again when it says that something has
// changed, and not at all while it is away.
func TestFactsAreKept(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.refuse(digest, gatehouse.CodeUnavailable, "not been heard yet")
	w.at = w.at.Add(3 * time.Second)
	w.poll()
	w.know(digest, false)
	before := w.asked
	for range 10 {
		w.know(digest, false)
	}
	if w.asked != before {
		t.Errorf("%d questions about what was known", w.asked-before)
	}

	for name, change := range map[string]func(){
		"the repository": func() { w.change(facts.Change{Repository: repo}) },
		"the digest":     func() { w.change(facts.Change{Repository: "other", Digest: digest}) },
		"everything":     func() { w.all = true },
		"the advisories": func() { w.generation++ },
	} {
		change()
		w.poll()
		w.at = w.at.Add(time.Second)
		w.images[digest].Scan.Incomplete = []string{name}
		if got := w.know(digest, false).Scan.Incomplete; len(got) != 1 || got[0] != name {
			t.Errorf("%s has changed, and nobody asked", name)
		}
	}
	before = w.asked
	w.change(facts.Change{Repository: "shop/other"})
	w.poll()
	w.know(digest, false)
	if w.asked != before {
		t.Error("a change of another repository was one of this")
	}
}

// TestServerIsAway: decisions go on from what is kept, with its age; past the limit they
// do not, and they heal by themselves.
func TestServerIsAway(t *testing.T) {
	w := newWorld(t)
	digest, other := w.put("app"), w.put("never asked for")
	w.poll()
	w.know(digest, false)
	w.at = w.at.Add(time.Hour)
	w.poll() // it says nothing about the image: the facts are of now
	last := w.at
	w.away(gone)
	w.at = w.at.Add(time.Minute)
	w.know(digest, true)
	w.at = last.Add(24*time.Hour - time.Second)
	w.know(digest, true)
	w.refuse(other, gatehouse.CodeUnavailable, "has not told anything about")
	w.at = last.Add(24*time.Hour + time.Second)
	w.refuse(digest, gatehouse.CodeUnavailable, "older than admission-max-stale (24h0m0s), and the server does not answer: connection refused")
	w.away(nil)
	w.at = w.at.Add(time.Minute)
	w.poll()
	w.know(digest, false)
	w.know(other, false)
}

// TestChangedWhileAway: what the feed said to have changed is known to be true only
// until it was asked for.
func TestChangedWhileAway(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.poll()
	w.know(digest, false)
	asked := w.at
	w.at = w.at.Add(10 * time.Hour)
	w.change(facts.Change{Repository: repo})
	w.poll()
	w.away(gone)
	w.open() // it is not forgotten
	w.at = asked.Add(24*time.Hour - time.Second)
	w.know(digest, true)
	w.at = asked.Add(24*time.Hour + time.Second)
	w.refuse(digest, gatehouse.CodeUnavailable, "older than admission-max-stale")
}

// TestDeletedImage: an image that the server no longer has is not kept.
func TestDeletedImage(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.poll()
	w.know(digest, false)
	delete(w.images, digest)
	w.change(facts.Change{Repository: repo, Digest: digest})
	w.poll()
	w.refuse(digest, gatehouse.CodeNotFound, "no image")
	w.away(gone)
	w.at = w.at.Add(time.Minute)
	w.refuse(digest, gatehouse.CodeUnavailable, "has not told anything")
}

// TestHostileFeed: whatever a page is that is not the next one of this server, nothing
// is taken of it, and what is kept goes on to grow old.
func TestHostileFeed(t *testing.T) {
	other := newSigner(t)
	for name, test := range map[string]struct {
		spoil func(*world)
		why   string
	}{
		"another key":      {func(w *world) { w.other = &other }, "not signed with a key"},
		"an old page":      {func(w *world) { w.page = func(p *facts.Page) { p.Nonce = "of before" } }, "another question"},
		"a gap":            {func(w *world) { w.page = func(p *facts.Page) { p.After++ } }, "something is left out"},
		"a step back":      {func(w *world) { w.page = func(p *facts.Page) { p.After-- } }, "something is left out"},
		"older advisories": {func(w *world) { w.generation-- }, "went back"},
		"an older time":    {func(w *world) { w.page = func(p *facts.Page) { p.At = p.At.Add(-time.Hour) } }, "before the last one"},
		"another server":   {func(w *world) { w.page = func(p *facts.Page) { p.Server = "two" } }, "another server"},
		"expired":          {func(w *world) { w.page = func(p *facts.Page) { p.ExpiresAt = p.At } }, "ended at"},
		"of the future":    {func(w *world) { w.page = func(p *facts.Page) { p.At = p.At.Add(time.Hour) } }, "to come"},
		"no end":           {func(w *world) { w.page = func(p *facts.Page) { p.More, p.Last = true, p.After } }, "leads nowhere"},
		"too much": {func(w *world) {
			w.page = func(p *facts.Page) { p.Changes = make([]facts.Change, facts.ChangesMax+1) }
		}, "less or more"},
		"truncated": {func(w *world) { w.bytes = func(b []byte) []byte { return b[:len(b)/2] } }, "not whole"},
		"oversized": {func(w *world) { w.bytes = func(b []byte) []byte { return append(b, make([]byte, 9<<20)...) } }, "at most"},
		"another type": {func(w *world) {
			w.bytes = func([]byte) []byte { return w.envelope(facts.TypeImage, facts.Page{}) }
		}, "not what was asked for"},
		"another history": {func(w *world) { w.err = gatehouse.Errorf(gatehouse.CodeConflict, "not of this history") }, "not of this history"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			digest := w.put("app")
			w.change(facts.Change{Repository: "x"})
			w.poll()
			w.know(digest, false)
			was := w.State()
			w.change(facts.Change{Repository: repo})
			test.spoil(w)
			w.at = w.at.Add(time.Second)
			if err := w.Poll(t.Context()); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Fatalf("poll: %v; want %q", err, test.why)
			}
			if now := w.State(); now.Position != was.Position || !now.At.Equal(was.At) || now.Err == nil {
				t.Errorf("%+v after %+v", now, was)
			}
			w.at = w.at.Add(25 * time.Hour)
			_ = w.Poll(t.Context())
			w.away(gone)
			w.refuse(digest, gatehouse.CodeUnavailable, "older than admission-max-stale")
		})
	}
}

// TestHostileImage: facts that are not what was asked for are none.
func TestHostileImage(t *testing.T) {
	other := newSigner(t)
	for name, test := range map[string]struct {
		spoil func(*world)
		why   string
	}{
		"another key":      {func(w *world) { w.other = &other }, "not signed with a key"},
		"old facts":        {func(w *world) { w.image = func(d *facts.Document) { d.Nonce = "of before" } }, "another question"},
		"another digest":   {func(w *world) { w.image = func(d *facts.Document) { d.Digest = gatehouse.DigestOf(nil) } }, "are about"},
		"another repo":     {func(w *world) { w.image = func(d *facts.Document) { d.Repository = "x" } }, "are about"},
		"another server":   {func(w *world) { w.image = func(d *facts.Document) { d.Server = "two" } }, "another server"},
		"older advisories": {func(w *world) { w.image = func(d *facts.Document) { d.Generation-- } }, "at 3 already"},
		"expired":          {func(w *world) { w.image = func(d *facts.Document) { d.ExpiresAt = d.At } }, "ended at"},
		"of the future":    {func(w *world) { w.image = func(d *facts.Document) { d.At = d.At.Add(time.Hour) } }, "to come"},
		"nothing":          {func(w *world) { w.image = func(d *facts.Document) { d.Image = nil } }, "less or more"},
		"same as nothing":  {func(w *world) { w.image = func(d *facts.Document) { d.Image, d.Unchanged = nil, true } }, "not kept here"},
		"truncated":        {func(w *world) { w.bytes = func(b []byte) []byte { return b[:len(b)-9] } }, "not whole"},
		"a page instead":   {func(w *world) { w.bytes = func([]byte) []byte { return w.envelope(facts.TypePage, facts.Document{}) } }, "not what was asked for"},
		"many signatures":  {func(w *world) { w.bytes = manySignatures }, "more than 10"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			digest := w.put("app")
			w.poll()
			test.spoil(w)
			w.at = w.at.Add(time.Second)
			w.refuse(digest, gatehouse.CodeUnavailable, test.why)
			files := 0
			err := filepath.WalkDir(w.dir, func(_ string, e fs.DirEntry, err error) error {
				if !e.IsDir() && e.Name() != "state.json" {
					files++
				}
				return err
			})
			if err != nil || files > 0 {
				t.Errorf("%d files were kept, %v", files, err)
			}
		})
	}
}

func manySignatures(b []byte) []byte {
	var e facts.Envelope
	if err := json.Unmarshal(b, &e); err != nil {
		panic(err)
	}
	for range 10 {
		e.Signatures = append(e.Signatures, e.Signatures[0])
	}
	out, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return out
}

// TestUnchangedFacts travel once, and their age is that of the last word about them.
func TestUnchangedFacts(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.poll()
	first := w.know(digest, false)
	sent := 0
	w.image = func(d *facts.Document) {
		if d.Image != nil {
			sent++
		}
	}
	for range 3 {
		w.at = w.at.Add(10 * time.Hour)
		w.all = true
		w.poll()
		w.at = w.at.Add(time.Second)
		if w.know(digest, false) != first {
			t.Error("other facts than before")
		}
	}
	if sent > 0 {
		t.Errorf("they were sent again %d times", sent)
	}
	w.open()
	w.away(gone)
	w.at = w.at.Add(23 * time.Hour)
	w.know(digest, true) // 30 hours after they were sent, 23 after they were said to be the same
}

// TestPositionOutlivesProcesses: what changes while nobody follows is heard afterwards.
func TestPositionOutlivesProcesses(t *testing.T) {
	w := newWorld(t)
	digest := w.put("app")
	w.poll()
	w.know(digest, false)
	w.change(facts.Change{Repository: repo})
	w.at = w.at.Add(time.Minute)
	w.open()
	w.poll()
	w.at = w.at.Add(time.Second)
	w.images[digest].Scan.Complete = false
	if w.know(digest, false).Scan.Complete {
		t.Error("the change was not heard")
	}
	if w.State().Position != 1 {
		t.Errorf("at %d", w.State().Position)
	}
}

// TestAcceptedForATime: what was accepted until a moment counts again after it.
func TestAcceptedForATime(t *testing.T) {
	s := facts.Scan{Findings: []gatehouse.Finding{
		{ID: "a", Suppressed: &gatehouse.Suppression{By: "exception", Expires: start}},
		{ID: "b", Suppressed: &gatehouse.Suppression{By: "vex"}},
	}}
	if got := s.At(start.Add(-time.Second)); got[0].Suppressed == nil || got[1].Suppressed == nil {
		t.Error("counts before its time")
	}
	if got := s.At(start); got[0].Suppressed != nil || got[1].Suppressed == nil {
		t.Error("accepted for ever")
	}
	if s.Findings[0].Suppressed == nil {
		t.Error("the facts were changed")
	}
}

// TestClientsErrors: only the server itself says that something is not there.
func TestClientsErrors(t *testing.T) {
	for body, want := range map[string]gatehouse.Code{
		`{"code":"not-found","detail":"there is no image"}`: gatehouse.CodeNotFound,
		`{"code":"conflict","detail":"x"}`:                  gatehouse.CodeUnavailable,
		`default backend - 404`:                             gatehouse.CodeUnavailable,
		`{}`:                                                gatehouse.CodeUnavailable,
	} {
		c := client(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, body)
		})
		if _, err := c.Image(t.Context(), repo, gatehouse.DigestOf(nil), "", "n"); gatehouse.CodeOf(err) != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			for range 9 << 10 {
				_, _ = w.Write(make([]byte, 1<<10))
			}
		},
		"breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		},
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
	} {
		if b, err := client(t, answer).Changes(t.Context(), 0, "", "n"); b != nil || gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func client(t *testing.T, answer http.HandlerFunc) facts.Client {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return facts.Client{Base: base, HTTP: srv.Client()}
}

// FuzzImage: no bytes that are not signed become facts, and none break the reader.
func FuzzImage(f *testing.F) {
	s := newSigner(f)
	keys, err := facts.ParseKeys(s.public)
	if err != nil {
		f.Fatal(err)
	}
	digest := gatehouse.DigestOf([]byte("x"))
	f.Add(s.envelope(facts.TypeImage, facts.Document{Repository: repo, Digest: digest}))
	f.Add([]byte(`{"payloadType":"x","payload":"e30=","signatures":[{"sig":"AA=="}]}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		w := &fixed{b}
		follower, err := facts.Open(facts.Options{Server: w, Keys: keys, Dir: dir, MaxStale: time.Hour, Now: func() time.Time { return start }})
		if err != nil {
			t.Fatal(err)
		}
		if err := follower.Poll(t.Context()); err == nil {
			t.Errorf("a page: %q", b)
		}
		if img, _, err := follower.Image(t.Context(), repo, digest); err == nil || img != nil {
			t.Errorf("facts: %q", b)
		}
	})
}

type fixed struct{ b []byte }

func (f *fixed) Changes(context.Context, int64, string, string) ([]byte, error) { return f.b, nil }
func (f *fixed) Image(context.Context, gatehouse.Repo, gatehouse.Digest, gatehouse.Digest, string) ([]byte, error) {
	return f.b, nil
}

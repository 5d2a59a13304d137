package outside_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/keyref/keyreftest"
	"github.com/gatehouse-dev/gatehouse/internal/outside"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
)

func TestMain(m *testing.M) {
	if keyreftest.Called() {
		keyreftest.Main()
		return
	}
	os.Exit(m.Run())
}

func sum(b string) string {
	s := sha256.Sum256([]byte(b))
	return hex.EncodeToString(s[:])
}

// site is a web server whose files a test changes.
type site struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]string
	asked int
}

func newSite(t *testing.T, start func(*httptest.Server)) *site {
	s := &site{files: map[string]string{}}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		body, has := s.files[r.URL.Path]
		switch to, moved := strings.CutPrefix(body, "-> "); {
		case !has:
			http.NotFound(w, r)
		case moved:
			http.Redirect(w, r, to, http.StatusFound)
		default:
			io.WriteString(w, body)
		}
	}))
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

func (s *site) put(path, body string) { s.mu.Lock(); s.files[path] = body; s.mu.Unlock() }
func (s *site) count() int            { s.mu.Lock(); defer s.mu.Unlock(); return s.asked }

func https(s *httptest.Server) { s.StartTLS() }

// reader is one that trusts the site's certificate, over the way that a server's
// requests take.
func reader(t *testing.T, s *site) outside.Reader {
	e := egress.New(egress.Config{UserTyped: true, UnverifiedTLS: []string{"*"}})
	t.Cleanup(e.Close)
	return outside.Reader{Transport: e.Transport()}
}

func TestRemote(t *testing.T) {
	s, plain := newSite(t, https), newSite(t, (*httptest.Server).Start)
	plain.put("/p", "x")
	s.put("/p", "package sigstore")
	s.put("/moved", "-> "+s.URL+"/p")
	s.put("/plain", "-> "+plain.URL+"/p")
	s.put("/loop", "-> "+s.URL+"/loop")
	s.put("/large", strings.Repeat("x", 1<<20+1))
	r := reader(t, s)
	for name, c := range map[string]struct {
		url, sum string
		code     gatehouse.Code
		says     string
	}{
		"as the policy says":    {url: s.URL + "/p", sum: sum("package sigstore")},
		"moved":                 {url: s.URL + "/moved", sum: sum("package sigstore")},
		"another document":      {url: s.URL + "/p", sum: sum("x"), code: gatehouse.CodeDenied, says: "failed to check sha256sum from policy remote: " + sum("x") + " got " + sum("package sigstore")},
		"away from https":       {url: s.URL + "/plain", sum: sum("x"), code: gatehouse.CodeUnavailable, says: "leads away from https"},
		"in a circle":           {url: s.URL + "/loop", sum: sum("x"), code: gatehouse.CodeUnavailable, says: "on and on"},
		"too large":             {url: s.URL + "/large", sum: sum(strings.Repeat("x", 1<<20+1)), code: gatehouse.CodeTooLarge},
		"not there":             {url: s.URL + "/none", sum: sum("x"), code: gatehouse.CodeUnavailable, says: "404"},
		"without encryption":    {url: plain.URL + "/p", sum: sum("x"), code: gatehouse.CodeInvalid},
		"nobody answers":        {url: "https://127.0.0.1:1/p", sum: sum("x"), code: gatehouse.CodeUnavailable},
		"no address whatsoever": {url: "https://\x00", sum: sum("x"), code: gatehouse.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := r.Remote(c.url, c.sum)
			if gatehouse.CodeOf(err) != c.code || c.code == "" && string(b) != "package sigstore" || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	// A server does not let policies lead it into its own network.
	strict := egress.New(egress.Config{UnverifiedTLS: []string{"*"}})
	t.Cleanup(strict.Close)
	before := s.count()
	if _, err := (outside.Reader{Transport: strict.Transport()}).Remote(s.URL+"/p", sum("package sigstore")); gatehouse.CodeOf(err) != gatehouse.CodeDenied || s.count() != before {
		t.Errorf("a private address: %v", err)
	}
	if _, err := (outside.Reader{}).Remote(s.URL+"/p", sum("package sigstore")); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("a reader that reaches nothing: %v", err)
	}
}

// TestKey asks a plugin program, but only for services that are named.
func TestKey(t *testing.T) {
	keyreftest.Install(t)
	ref := "test://" + filepath.Join(t.TempDir(), "key")
	if _, err := keyref.Generate(t.Context(), ref, "", keyref.Options{Local: true}); err != nil {
		t.Fatal(err)
	}
	allowed := outside.Reader{Keys: keyref.Options{Services: []string{"test"}, Getenv: os.Getenv}}
	if text, err := allowed.Key(ref); err != nil || !strings.Contains(text, "BEGIN PUBLIC KEY") {
		t.Errorf("%q, %v", text, err)
	}
	for _, r := range []outside.Reader{{}, {Keys: keyref.Options{Services: []string{"awskms"}}}} {
		if _, err := r.Key(ref); gatehouse.CodeOf(err) != gatehouse.CodeDenied || !strings.Contains(gatehouse.HintOf(err), "policy-key-services") {
			t.Errorf("not named: %v", err)
		}
	}
	for _, ref := range []string{"/etc/passwd", "env://HOME", "https://a.example/key", "", "k8s://a/b"} {
		if text, err := allowed.Key(ref); err == nil {
			t.Errorf("%s gives %q", ref, text)
		}
	}
}

type tufKey struct{ ed25519.PrivateKey }

func (k tufKey) Signer() (crypto.Signer, error) { return k.PrivateKey, nil }

func newTUFKey(t *testing.T) tufKey {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return tufKey{private}
}

// repository publishes a TUF repository with one target beside the usual ones.
func repository(t *testing.T, root tufKey, now time.Time, trusted string) map[string][]byte {
	t.Helper()
	files, err := (tuf.Repository{
		Root: []tuf.Key{root}, Targets: newTUFKey(t), Online: newTUFKey(t), Now: now,
		Content: map[string][]byte{tuf.TrustedRootName: []byte(trusted), "other.json": []byte("other")},
	}).Publish()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// packed is the repository as spec.repository.mirrorFS has it, below a folder.
func packed(t *testing.T, folder string, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{Name: folder + name, Size: int64(len(body)), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		w.Write(body)
	}
	w.Close()
	gz.Close()
	return b.Bytes()
}

func TestRepository(t *testing.T) {
	key := newTUFKey(t)
	files := repository(t, key, time.Now(), "trusted")
	root, _ := tuf.NewestRoot(files)
	s := newSite(t, https)
	for name, body := range files {
		s.put("/tuf/"+name, string(body))
	}
	old := repository(t, key, time.Now().AddDate(-3, 0, 0), "old")
	oldRoot, _ := tuf.NewestRoot(old)
	stranger := repository(t, newTUFKey(t), time.Now(), "x")
	strangerRoot, _ := tuf.NewestRoot(stranger)
	r := reader(t, s)
	r.Dir = t.TempDir()
	for name, c := range map[string]struct {
		from cip.TUF
		want string
		code gatehouse.Code
	}{
		"a mirror":              {from: cip.TUF{Mirror: s.URL + "/tuf/", Root: root, Target: tuf.TrustedRootName}, want: "trusted"},
		"another target":        {from: cip.TUF{Mirror: s.URL + "/tuf", Root: root, Target: "other.json"}, want: "other"},
		"no such target":        {from: cip.TUF{Mirror: s.URL + "/tuf", Root: root, Target: "none.json"}, code: gatehouse.CodeNotFound},
		"another root":          {from: cip.TUF{Mirror: s.URL + "/tuf", Root: strangerRoot, Target: tuf.TrustedRootName}, code: gatehouse.CodeDenied},
		"no repository":         {from: cip.TUF{Mirror: s.URL + "/none", Root: root, Target: tuf.TrustedRootName}, code: gatehouse.CodeUnavailable},
		"an archive":            {from: cip.TUF{Archive: packed(t, "", files), Root: root, Target: tuf.TrustedRootName}, want: "trusted"},
		"an archive's folder":   {from: cip.TUF{Archive: packed(t, "./repository/", files), Root: root, Targets: "targets", Target: tuf.TrustedRootName}, want: "trusted"},
		"an archive that ended": {from: cip.TUF{Archive: packed(t, "", old), Root: oldRoot, Target: tuf.TrustedRootName}, code: gatehouse.CodeDenied},
		"an archive without":    {from: cip.TUF{Archive: packed(t, "", map[string][]byte{"x": nil}), Root: root, Target: tuf.TrustedRootName}, code: gatehouse.CodeInvalid},
		"no archive":            {from: cip.TUF{Archive: []byte("x"), Root: root, Target: tuf.TrustedRootName}, code: gatehouse.CodeInvalid},
		"too much":              {from: cip.TUF{Archive: packed(t, "", map[string][]byte{"timestamp.json": make([]byte, 33<<20)}), Root: root, Target: "x"}, code: gatehouse.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := r.Repository(c.from)
			if string(b) != c.want || gatehouse.CodeOf(err) != c.code {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

func FuzzArchive(f *testing.F) {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	_ = w.WriteHeader(&tar.Header{Name: "a/timestamp.json", Size: 2, Typeflag: tar.TypeReg})
	fmt.Fprint(w, "{}")
	w.Close()
	gz.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		_, err := (outside.Reader{}).Repository(cip.TUF{Archive: archive, Root: []byte("{}"), Target: "t"})
		if err == nil {
			t.Error("an archive without metadata passed")
		}
	})
}

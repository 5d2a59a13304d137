package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

// host serves on an address of its own and remembers what it was asked.
type host struct {
	addr  string // host:port
	mu    sync.Mutex
	asked []*http.Request
}

func newHost(t *testing.T, ip string, h http.HandlerFunc) *host {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skipf("no address %s: %v", ip, err)
	}
	out := &host{addr: l.Addr().String()}
	s := &httptest.Server{Listener: l, Config: &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out.mu.Lock()
		out.asked = append(out.asked, r)
		out.mu.Unlock()
		h(w, r)
	})}}
	s.Start()
	t.Cleanup(s.Close)
	return out
}

func (h *host) requests() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, r := range h.asked {
		out = append(out, r.Method+" "+r.URL.Path)
	}
	return out
}

func (h *host) was(t *testing.T, path string) {
	t.Helper()
	if !strings.Contains(strings.Join(h.requests(), "\n"), path) {
		t.Errorf("%s was not asked for %s, so that the test shows nothing: %v", h.addr, path, h.requests())
	}
}

func (h *host) untouched(t *testing.T) {
	t.Helper()
	if got := h.requests(); len(got) > 0 {
		t.Errorf("%s was contacted: %v", h.addr, got)
	}
}

// signedRule asks for a signature on every image that matches the glob.
func signedRule(t *testing.T, glob string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: signed}\nspec:\n  images: [{glob: %q}]\n  authorities: [{key: {data: %q}}]\n",
		glob, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

// nothing is a registry that holds nothing.
func nothing(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v2/" {
		http.NotFound(w, r)
	}
}

// TestPodCannotLeadInside: the image reference of a Pod names an address or a
// name in the server's own network. Nothing is contacted, the Pod is denied.
func TestPodCannotLeadInside(t *testing.T) {
	inside, inside6 := newHost(t, "127.0.0.1", ok), newHost(t, "::1", ok)
	_, port, _ := net.SplitHostPort(inside.addr)
	r := start(t, t.TempDir(), withMetrics)
	r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
	for _, registry := range []string{
		inside.addr, inside6.addr, "localhost:" + port, "[::ffff:127.0.0.1]:" + port, "0.0.0.0:" + port, "[::]:" + port,
		"169.254.169.254:80", "[fe80::1]:80", "10.0.0.1:5000", "192.168.0.1:5000", "172.16.0.1:5000", "100.64.0.1:5000",
		"[fd00::1]:5000", "[64:ff9b::a00:1]:5000", "[2002:7f00:1::]:5000", "224.0.0.1:5000", "[ff02::1]:5000",
	} {
		allowed, message := r.review(registry + "/team/app:1")
		if allowed || !strings.Contains(message, "is refused") {
			t.Errorf("%s: allowed %v: %s", registry, allowed, message)
		}
	}
	inside.untouched(t)
	inside6.untouched(t)
	figures := scrape(t, r)
	for _, reason := range []string{"loopback", "link-local", "private", "multicast", "NAT64"} {
		if figures[`gatehouse_egress_refused_total{reason="`+reason+`"}`] == "" {
			t.Errorf("refusals because of %s are not counted", reason)
		}
	}
}

// TestAllowedRangeIsReached: the same Pod gets its answer from the registry
// where the operator allows the range, and only that one.
func TestAllowedRangeIsReached(t *testing.T) {
	allowed, other := newHost(t, "127.0.0.1", nothing), newHost(t, "127.0.0.2", nothing)
	r := start(t, t.TempDir(), func(c *config.Config) { c.AllowPrivate = []string{"127.0.0.1/32"} })
	r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
	r.review(allowed.addr + "/team/app:1")
	allowed.was(t, "/v2/team/app/manifests/1")
	r.review(other.addr + "/team/app:1")
	other.untouched(t)
}

// TestTokenRealmCannotLeadInside: a registry that may be reached names a token
// service that may not.
func TestTokenRealmCannotLeadInside(t *testing.T) {
	inside := newHost(t, "127.0.0.2", ok)
	for name, realm := range map[string]string{
		"an address": "http://" + inside.addr + "/token",
		"metadata":   "http://169.254.169.254/latest/meta-data",
	} {
		t.Run(name, func(t *testing.T) {
			registry := newHost(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			r := start(t, t.TempDir(), func(c *config.Config) { c.AllowPrivate = []string{"127.0.0.1/32"} })
			r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
			if allowed, message := r.review(registry.addr + "/team/app:1"); allowed || !strings.Contains(message, "is refused") && !strings.Contains(message, "is a private or link-local address") {
				t.Errorf("allowed %v: %s", allowed, message)
			}
			registry.was(t, "/v2/")
		})
	}
	inside.untouched(t)
}

// TestBlobRedirectCannotLeadInside: a registry that may be reached sends the
// reader of a signature elsewhere.
func TestBlobRedirectCannotLeadInside(t *testing.T) {
	inside := newHost(t, "127.0.0.2", ok)
	payload := gatehouse.Descriptor{MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Digest: gatehouse.DigestOf([]byte("x")), Size: 1}
	image, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": gatehouse.Descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: payload.Digest, Size: 1}, "layers": []any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	signature, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": gatehouse.Descriptor{MediaType: "application/vnd.oci.image.config.v1+json", Digest: payload.Digest, Size: 1},
		"layers": []any{map[string]any{
			"mediaType": payload.MediaType, "digest": payload.Digest, "size": 1,
			"annotations": map[string]string{"dev.cosignproject.cosign/signature": "MEUCIQ=="},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tag := "sha256-" + gatehouse.DigestOf(image).Hex() + ".sig"
	registry := newHost(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		manifest := func(b []byte) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			_, _ = w.Write(b)
		}
		switch {
		case r.URL.Path == "/v2/":
		case strings.HasSuffix(r.URL.Path, "/manifests/"+tag):
			manifest(signature)
		case strings.Contains(r.URL.Path, "/manifests/1"), strings.HasSuffix(r.URL.Path, "/manifests/"+string(gatehouse.DigestOf(image))):
			manifest(image)
		case strings.Contains(r.URL.Path, "/blobs/"):
			w.Header().Set("Set-Cookie", "session=secret")
			http.Redirect(w, r, "http://"+inside.addr+"/secret", http.StatusTemporaryRedirect)
		default:
			http.NotFound(w, r)
		}
	})
	r := start(t, t.TempDir(), func(c *config.Config) { c.AllowPrivate = []string{"127.0.0.1/32"} })
	r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
	allowed, message := r.review(registry.addr + "/team/app:1")
	if allowed {
		t.Errorf("allowed: %s", message)
	}
	registry.was(t, "/blobs/")
	inside.untouched(t)
	// Where both ranges are allowed, the redirect is followed, without what the
	// first host was told.
	r = start(t, t.TempDir(), func(c *config.Config) { c.AllowPrivate = []string{"127.0.0.0/8"} })
	r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
	r.review(registry.addr + "/team/app:1")
	inside.was(t, "/secret")
	inside.mu.Lock()
	defer inside.mu.Unlock()
	for _, req := range inside.asked {
		if req.Header.Get("Authorization") != "" || req.Header.Get("Cookie") != "" {
			t.Errorf("the other host got %v", req.Header)
		}
	}
}

// TestRegistriesAreAllowedBeforeContact: with a list of registries, no other is
// asked, although its address is allowed; nor is one whose image no policy lets
// in anyway.
func TestRegistriesAreAllowedBeforeContact(t *testing.T) {
	listed, other := newHost(t, "127.0.0.1", nothing), newHost(t, "127.0.0.1", nothing)
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.AllowPrivate, c.AllowRegistries = []string{"127.0.0.0/8"}, []string{listed.addr, "*.example.com"}
	})
	r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
	r.review(listed.addr + "/team/app:1")
	listed.was(t, "/v2/team/app/manifests/1")
	if allowed, message := r.review(other.addr + "/team/app:1"); allowed || !strings.Contains(message, "may not be contacted") {
		t.Errorf("allowed %v: %s", allowed, message)
	}
	if allowed, message := r.review("example.com/team/app:1"); allowed || !strings.Contains(message, "may not be contacted") {
		t.Errorf("the domain itself: allowed %v: %s", allowed, message)
	}
	other.untouched(t)

	r = start(t, t.TempDir(), func(c *config.Config) { c.AllowPrivate = []string{"127.0.0.0/8"} })
	r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "registry.example/**"))
	if allowed, message := r.review(other.addr + "/team/app:1"); allowed || !strings.Contains(message, "no-matching-policy") {
		t.Errorf("allowed %v: %s", allowed, message)
	}
	other.untouched(t)
}

// TestLoginsForOtherRegistries: a registry that wants a name gets the one of the
// settings, and no other does.
func TestLoginsForOtherRegistries(t *testing.T) {
	other := start(t, t.TempDir(), nil)
	other.push("team/app:1")
	front := newHarborFront(t, other.url)
	host := strings.TrimPrefix(front.URL, "http://")
	logins := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(logins, []byte(`{"auths":{"`+host+`":{"auth":"`+basicOf("admin", password)+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"without": "", "with": logins} {
		r := start(t, t.TempDir(), func(c *config.Config) {
			c.AllowPrivate, c.RegistryLoginFile = []string{"127.0.0.0/8"}, file
		})
		r.must("PUT", "/api/v1/policies/rule.yaml", signedRule(t, "**"))
		_, message := r.review(host + "/team/app:1")
		// Whoever gets in learns that it is not signed.
		if read := strings.Contains(message, "signature-missing"); read != (file != "") {
			t.Errorf("%s a login: %s", name, message)
		}
	}
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.RegistryLoginFile = t.TempDir(), "127.0.0.1:0", "", filepath.Join(t.TempDir(), "missing")
	if _, err := server.New(t.Context(), cfg, os.Getenv, slog.New(slog.DiscardHandler)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), "registry-login-file") {
		t.Errorf("a file that is not there: %v", err)
	}
}

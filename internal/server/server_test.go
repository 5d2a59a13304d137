package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

const password = "correct horse battery"

// running is a server that listens, with clients for it.
type running struct {
	t       testing.TB
	url     string
	webhook string
	metrics string
	*server.Server
	https *http.Client // trusts the webhook's CA
	stop  func() error
}

func start(t testing.TB, dir string, change func(*config.Config)) *running {
	t.Helper()
	return startAt(t, dir, change, slog.New(slog.DiscardHandler), time.Now)
}

// startAt is start with a log and a clock.
func startAt(t testing.TB, dir string, change func(*config.Config), log *slog.Logger, now func() time.Time) *running {
	t.Helper()
	return startWith(t, dir, change, log, now, onlyPassword)
}

// onlyPassword is an environment that has the administrator's password.
func onlyPassword(key string) string {
	if key == "GATEHOUSE_ADMIN_PASSWORD" {
		return password
	}
	return ""
}

// startWith is startAt with an environment.
func startWith(t testing.TB, dir string, change func(*config.Config), log *slog.Logger, now func() time.Time, env func(string) string) *running {
	t.Helper()
	return startBy(t, server.NewAt, dir, change, log, now, env)
}

// opening is server.NewAt, or server.NewAdmissionAt.
type opening func(context.Context, config.Config, func(string) string, *slog.Logger, func() time.Time) (*server.Server, error)

func startBy(t testing.TB, open opening, dir string, change func(*config.Config), log *slog.Logger, now func() time.Time, env func(string) string) *running {
	t.Helper()
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen = dir, "127.0.0.1:0", "127.0.0.1:0"
	cfg.Hostnames = []string{"registry.example"}
	if change != nil {
		change(&cfg)
	}
	srv, err := open(t.Context(), cfg, env, log, now)
	if err != nil {
		t.Fatal(err)
	}
	if srv.AdminPassword != "" {
		t.Error("a given password was shown")
	}
	r := &running{t: t, url: srv.URL(), metrics: srv.MetricsURL(), Server: srv}
	var ca []byte
	r.webhook, ca = srv.AdmissionURL()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if cfg.TLSCert != "" {
		chain, err := os.ReadFile(cfg.TLSCert)
		if err != nil {
			t.Fatal(err)
		}
		roots.AppendCertsFromPEM(chain)
	}
	r.https = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	r.eventually("readiness", func() bool { code, _ := r.call("GET", "/readyz", ""); return code == 200 })
	return r
}

func (r *running) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// call asks as the administrator.
func (r *running) call(method, path, body string) (int, string) {
	r.t.Helper()
	return r.send(method, path, body, func(req *http.Request) { req.SetBasicAuth("admin", password) })
}

// byNobody is the status of what somebody without a name asks.
func (r *running) byNobody(method, path, body string) int {
	r.t.Helper()
	code, _ := r.send(method, path, body, func(*http.Request) {})
	return code
}

func (r *running) send(method, path, body string, login func(*http.Request)) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	login(req)
	res, err := r.https.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (r *running) must(method, path, body string) string {
	r.t.Helper()
	code, answer := r.call(method, path, body)
	if code >= 300 {
		r.t.Fatalf("%s %s: %d %s", method, path, code, answer)
	}
	return answer
}

// reviewed is the response of a webhook.
type reviewed struct {
	UID      string
	Allowed  bool
	Patch    []byte
	Warnings []string
	Status   struct{ Message string }
}

// ask sends a review of a Pod of one image to a webhook.
func (r *running) ask(path, image string) reviewed {
	r.t.Helper()
	return r.askAbout(path, fmt.Sprintf(`"uid":"u1","operation":"CREATE","name":"p","namespace":"default",
		"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},
		"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":%q}]}}`, image))
}

func (r *running) askAbout(path, request string) reviewed {
	r.t.Helper()
	res, err := r.https.Post(r.webhook+path, "application/json",
		strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{`+request+`}}`))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var review struct{ Response reviewed }
	if err := json.NewDecoder(res.Body).Decode(&review); err != nil || review.Response.UID != "u1" {
		r.t.Fatalf("%d %v: %+v", res.StatusCode, err, review)
	}
	return review.Response
}

// pin is what the mutating webhook writes for an image.
func (r *running) pin(image string) string {
	r.t.Helper()
	var steps []struct {
		Op, Path string
		Value    any
	}
	if patch := r.ask("/mutate", image).Patch; len(patch) > 0 {
		if err := json.Unmarshal(patch, &steps); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, s := range steps {
		if s.Op == "replace" && s.Path == "/spec/containers/0/image" {
			image, _ = s.Value.(string)
		}
	}
	return image
}

// review asks both webhooks about a Pod of one image, as an API server does.
func (r *running) review(image string) (allowed bool, message string) {
	r.t.Helper()
	a := r.ask("/validate", r.pin(image))
	return a.Allowed, a.Status.Message
}

// push pushes an image with one random layer under a tag and returns its digest.
func (r *running) push(repo string) string {
	r.t.Helper()
	img, err := random.Image(2000, 1)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.pushImage(repo, img)
}

func (r *running) pushImage(repo string, img v1.Image) string {
	r.t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(r.url, "http://")+"/"+repo, name.Insecure)
	if err != nil {
		r.t.Fatal(err)
	}
	// Spare connections would be waited for when the server stops.
	defer remote.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "admin", Password: password})); err != nil {
		r.t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return d.String()
}

const scanRule = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata:
  name: scanned
spec:
  images:
  - glob: "registry.example/**"
  vulnerabilities:
    maxSeverity: HIGH
`

const record = `{"schema_version":"1.6.0","id":"CVE-1","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"a"},
	"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`

func TestWithoutPoliciesEverythingIsDenied(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.push("a/b:1")
	allowed, message := r.review("registry.example/a/b:1")
	if allowed || !strings.Contains(message, "no-policies") {
		t.Errorf("allowed %v: %s", allowed, message)
	}
}

func TestDecisionsAreKeptAndSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	_, message := r.review("elsewhere.example/a:1")
	id := message[strings.LastIndex(message, " ")+1:]
	if answer := r.must("GET", "/api/v1/decisions/"+id, ""); !strings.Contains(answer, "elsewhere.example/a:1") {
		t.Errorf("decision %q: %s", id, answer)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, nil)
	if answer := r.must("GET", "/api/v1/decisions/"+id, ""); !strings.Contains(answer, `"deny"`) {
		t.Errorf("after a restart: %s", answer)
	}
	if answer := r.must("GET", "/api/v1/policies", ""); !strings.Contains(answer, "rule.yaml") {
		t.Errorf("after a restart: %s", answer)
	}
}

// An image without packages is scanned and clean; an index, which is no image,
// is not.
func TestVerdictAndReport(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	digest := r.push("a/b:1")
	// Compared with nothing is not clean.
	if allowed, message := r.review("registry.example/a/b:1"); allowed || !strings.Contains(message, "unscanned") {
		t.Errorf("without advisories: allowed %v: %s", allowed, message)
	}
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.eventually("the index", func() bool {
		return strings.Contains(r.must("GET", "/api/v1/verdicts?reference=registry.example/a/b:1", ""), `"indexed": true`)
	})
	if v := r.must("GET", "/api/v1/verdicts?reference=registry.example/a/b:1", ""); !strings.Contains(v, `"verdict": "allow"`) {
		t.Errorf("the verdict: %s", v)
	}
	var report struct {
		Target   struct{ Digest string }
		Complete bool
	}
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/reports?reference=registry.example/a/b@"+digest, "")), &report); err != nil {
		t.Fatal(err)
	}
	if report.Target.Digest != digest || !report.Complete {
		t.Errorf("%+v", report)
	}
	if allowed, message := r.review("registry.example/a/b:1"); !allowed {
		t.Errorf("denied: %s", message)
	}
	// The server answers to its address, too; that name no policy knows.
	if allowed, message := r.review(strings.TrimPrefix(r.url, "http://") + "/a/b:1"); allowed || !strings.Contains(message, "no-matching-policy") {
		t.Errorf("allowed %v: %s", allowed, message)
	}
	if allowed, message := r.review("registry.example/a/b:2"); allowed || !strings.Contains(message, "image-not-found") {
		t.Errorf("allowed %v: %s", allowed, message)
	}
}

// An image whose layer is no layer is never scanned whole, and a rule that asks
// for a scan denies it.
func TestBrokenLayerIsUnscanned(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	img, err := mutate.AppendLayers(empty.Image, rawLayer{[]byte("this is no tar")})
	if err != nil {
		t.Fatal(err)
	}
	r.pushImage("bad/image:1", img)
	r.eventually("the index to give up", func() bool {
		return strings.Contains(r.must("GET", "/api/v1/verdicts?reference=registry.example/bad/image:1", ""), "partly indexed")
	})
	if allowed, message := r.review("registry.example/bad/image:1"); allowed || !strings.Contains(message, "unscanned") {
		t.Errorf("allowed %v: %s", allowed, message)
	}
}

// rawLayer is a layer of bytes that are none.
type rawLayer struct{ b []byte }

func (s rawLayer) hash() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(s.b))
	return h, err
}
func (s rawLayer) Digest() (v1.Hash, error)             { return s.hash() }
func (s rawLayer) DiffID() (v1.Hash, error)             { return s.hash() }
func (s rawLayer) Compressed() (io.ReadCloser, error)   { return io.NopCloser(bytes.NewReader(s.b)), nil }
func (s rawLayer) Uncompressed() (io.ReadCloser, error) { return s.Compressed() }
func (s rawLayer) Size() (int64, error)                 { return int64(len(s.b)), nil }
func (s rawLayer) MediaType() (types.MediaType, error) {
	return "application/vnd.docker.image.rootfs.diff.tar.gzip", nil
}

func TestPoliciesThatDoNotLoadAreRefused(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/good.yaml", scanRule)
	for name, source := range map[string]string{
		"same-name.yaml": scanRule,
		"broken.yaml":    "kind: [",
		"broken.rego":    "package x\ndeny[",
		"empty.yaml":     "",
		"typo.yaml":      strings.ReplaceAll(scanRule, "maxSeverity", "maxSeverty"),
	} {
		code, answer := r.call("PUT", "/api/v1/policies/"+name, source)
		if code != 400 || !strings.Contains(answer, `"hint"`) && !strings.Contains(answer, name) {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	if answer := r.must("GET", "/api/v1/policies", ""); strings.Count(answer, `"name"`) != 1 {
		t.Errorf("policies: %s", answer)
	}
}

// TestRefusalNamesEveryProblem: the seed document's policy, re-indented, has a
// placeholder for a key and a static that is a string. Both are named at once.
func TestRefusalNamesEveryProblem(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	code, answer := r.call("PUT", "/api/v1/policies/seed.yaml", `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: require-production-signature
spec:
  images:
    - glob: "your-registry.com/production/**"
  authorities:
    - key:
        data: |
          -----BEGIN PUBLIC KEY-----
          # Your cosign.pub content goes here
          -----END PUBLIC KEY-----
      static: "your-registry.com/production/**"
`)
	for _, part := range []string{"seed.yaml:10: spec.authorities[0].key.data", "seed.yaml:14: spec.authorities[0].static: must be an object {action: pass|fail", "policy fix"} {
		if code != 400 || !strings.Contains(answer, part) {
			t.Errorf("%d, does not say %q: %s", code, part, answer)
		}
	}
}

func TestImportIsInForceWhenItAnswers(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	var gen struct {
		Generation int
		InForceAt  time.Time
		Records    int
	}
	if err := json.Unmarshal([]byte(r.must("POST", "/api/v1/advisories?name=x", record)), &gen); err != nil {
		t.Fatal(err)
	}
	if gen.Generation == 0 || gen.InForceAt.IsZero() || gen.Records != 1 {
		t.Errorf("%+v", gen)
	}
	if code, answer := r.call("POST", "/api/v1/advisories?name=x", `{"id"`); code != 400 || !strings.Contains(answer, "x") {
		t.Errorf("a broken record: %d %s", code, answer)
	}
	inventory := `{"packages":[{"type":"npm","name":"a","version":"1.0.0"}]}`
	if answer := r.must("POST", "/api/v1/match", inventory); !strings.Contains(answer, "CVE-1") {
		t.Errorf("match: %s", answer)
	}
}

func TestTLSAndAdmissionNames(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, func(c *config.Config) { c.AdmissionNames = []string{"gatehouse.gatehouse.svc"} })
	r.https.Transport.(*http.Transport).TLSClientConfig.ServerName = "gatehouse.gatehouse.svc"
	r.review("a/b")
	ca, err := os.ReadFile(filepath.Join(dir, "keys", "admission-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// Another name needs another certificate, of the CA that clusters trust.
	r = start(t, dir, func(c *config.Config) { c.AdmissionNames = []string{"other.svc"} })
	r.https.Transport.(*http.Transport).TLSClientConfig.ServerName = "other.svc"
	r.review("a/b")
	again, err := os.ReadFile(filepath.Join(dir, "keys", "admission-ca.crt"))
	if err != nil || !bytes.Equal(ca, again) {
		t.Errorf("the CA changed (%v)", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// The registry with the same certificate, over TLS.
	r = start(t, dir, func(c *config.Config) {
		c.TLSCert, c.TLSKey = filepath.Join(dir, "keys", "admission-tls.crt"), filepath.Join(dir, "keys", "admission-tls.key")
		c.AdmissionNames = []string{"other.svc"}
	})
	if !strings.HasPrefix(r.url, "https://") {
		t.Errorf("the registry with a certificate is at %s", r.url)
	}
	r.must("GET", "/v2/", "")
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := config.Default()
	cfg.Data, cfg.Listen = t.TempDir(), l.Addr().String()
	if _, err := server.New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
	// What New had opened is closed again: the directory is free.
	cfg.Listen, cfg.AdmissionListen = "127.0.0.1:0", ""
	srv, err := server.New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Run(ctx); err != nil {
		t.Error(err)
	}
}

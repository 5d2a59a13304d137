package e2e_test

import (
	"io"
	"log"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc/oidctest"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// keyless is a stock cosign on a machine of its own.
type keyless struct {
	t    *testing.T
	g    *e2e.Gatehouse
	path string
	home string
}

func newKeyless(t *testing.T, g *e2e.Gatehouse, program string) *keyless {
	return &keyless{t: t, g: g, path: tool.Need(t, program), home: t.TempDir()}
}

// run runs cosign with a token and without any flag that would point it anywhere.
// What is not on loopback cannot be reached.
func (k *keyless) run(token string, args ...string) (string, error) {
	k.t.Helper()
	cmd := exec.CommandContext(k.t.Context(), k.path, args...)
	cmd.Dir = k.home
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + k.home, "DOCKER_CONFIG=" + filepath.Join(k.g.Dir, "docker"), "SIGSTORE_ID_TOKEN=" + token,
		"HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1,localhost",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (k *keyless) must(token string, args ...string) {
	k.t.Helper()
	if out, err := k.run(token, args...); err != nil {
		k.t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (k *keyless) refused(why string, args ...string) {
	k.t.Helper()
	out, err := k.run("", args...)
	if err == nil || !strings.Contains(out, why) {
		k.t.Errorf("cosign %s: %v, want a refusal for %q\n%s", strings.Join(args, " "), err, why, out)
	}
}

func pushRandom(t *testing.T, g *e2e.Gatehouse, repo string) string {
	t.Helper()
	img, err := random.Image(256, 1)
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(g.Host + "/" + repo + "@" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "admin", Password: e2e.AdminPassword})); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

const builder = "https://kubernetes.io/namespaces/ci/serviceaccounts/builder"

// TestStockCosignKeyless: after one `cosign initialize`, a stock cosign signs with
// a token of a cluster's issuer and verifies with identity flags, and nothing else:
// no flag points to a service, none skips a check, and the internet is not there.
// Keys are rotated in between; what was signed before stays valid.
func TestStockCosignKeyless(t *testing.T) {
	g := e2e.ReserveGatehouse(t)
	issuer := oidctest.New(t, false)
	g.Start(t, "--sigstore", "--sigstore-issuers", "kubernetes+"+issuer.URL, "--allow-private", "127.0.0.0/8")
	k := newKeyless(t, g, "cosign")
	t.Setenv("GATEHOUSE_USERNAME", "admin")
	t.Setenv("GATEHOUSE_PASSWORD", e2e.AdminPassword)
	root := filepath.Join(k.home, "root.json")
	if out := g.Run(t, g.Binary, "sigstore", "init", "--server", g.URL, "-o", root); !strings.Contains(out, "cosign initialize --mirror "+g.URL+"/tuf --root "+root) {
		t.Errorf("sigstore init does not say how to go on:\n%s", out)
	}
	k.must("", "initialize", "--mirror", g.URL+"/tuf", "--root", root)
	sign := func(image string) {
		t.Helper()
		k.must(issuer.Token(t, "system:serviceaccount:ci:builder", nil), "sign", "--yes", image)
	}
	verify := func(image string) {
		t.Helper()
		k.must("", "verify", "--certificate-identity", builder, "--certificate-oidc-issuer", issuer.URL, image)
	}
	images := []string{pushRandom(t, g, "team/first")}
	sign(images[0])
	verify(images[0])
	k.refused("no matching CertificateIdentity found", "verify", "--certificate-identity", builder+"2", "--certificate-oidc-issuer", issuer.URL, images[0])
	k.refused("no matching CertificateIdentity found", "verify", "--certificate-identity", builder, "--certificate-oidc-issuer", "https://other.example", images[0])
	if out, err := k.run(issuer.Token(t, "system:serviceaccount:ci:builder", map[string]any{"aud": "other"}), "sign", "--yes", images[0]); err == nil || !strings.Contains(out, `not for \"sigstore\"`) && !strings.Contains(out, `not for "sigstore"`) {
		t.Errorf("a token for another audience: %v\n%s", err, out)
	}
	for _, parts := range [][]string{{"--ca", "--ct", "--tsa"}, {"--log"}, {"--tuf"}, {"--all"}} {
		g.Run(t, g.Binary, append([]string{"sigstore", "rotate", "--server", g.URL}, parts...)...)
		images = append(images, pushRandom(t, g, "team/after"+strings.Join(parts, "")))
		sign(images[len(images)-1])
		for _, image := range images {
			verify(image)
		}
	}
	// A machine that has never been here begins with the first root, and follows.
	k = newKeyless(t, g, "cosign")
	first, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.home, "root.json"), first, 0o600); err != nil {
		t.Fatal(err)
	}
	k.must("", "initialize", "--mirror", g.URL+"/tuf", "--root", "root.json")
	for _, image := range images {
		verify(image)
	}
}

// TestStockCosign2Keyless: a cosign of version 2 does so too, when it is told to use
// what version 3 uses by itself.
func TestStockCosign2Keyless(t *testing.T) {
	k := newKeyless(t, nil, "cosign2")
	k.g = e2e.ReserveGatehouse(t)
	issuer := oidctest.New(t, false)
	k.g.Start(t, "--sigstore", "--sigstore-issuers", "kubernetes+"+issuer.URL, "--allow-private", "127.0.0.0/8")
	k.g.Run(t, k.g.Binary, "sigstore", "init", "--server", k.g.URL, "-o", filepath.Join(k.home, "root.json"))
	k.must("", "initialize", "--mirror", k.g.URL+"/tuf", "--root", "root.json")
	image := pushRandom(t, k.g, "team/app")
	k.must(issuer.Token(t, "system:serviceaccount:ci:builder", nil), "sign", "--yes", "--use-signing-config", "--new-bundle-format", image)
	verify := []string{"verify", "--new-bundle-format", "--use-signed-timestamps", "--certificate-oidc-issuer", issuer.URL, "--certificate-identity"}
	k.must("", append(verify, builder, image)...)
	k.refused("no matching CertificateIdentity found", append(verify, builder+"2", image)...)
}

// balancer hands requests to servers in turn, as one in front of replicas does,
// and to the next one where one is not there.
type balancer struct {
	*httptest.Server
	mu      sync.Mutex
	targets []string // guarded by mu: hosts
	turn    int      // guarded by mu
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{}
	b.Server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.turn++
			r.SetURL(&url.URL{Scheme: "http", Host: b.targets[b.turn%len(b.targets)]})
		},
		ErrorLog: log.New(io.Discard, "", 0),
	})
	t.Cleanup(b.Close)
	return b
}

func (b *balancer) to(hosts ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = hosts
}

// TestStockCosignOnReplicas: two servers that start at the same time on one
// PostgreSQL make one Sigstore: each request of a signature goes to another one of
// them. Then keys are rotated on one while the other one does not know it yet, and
// the one that leads the log dies.
func TestStockCosignOnReplicas(t *testing.T) {
	k := newKeyless(t, nil, "cosign")
	database, bucket := dbtest.Postgres(t), s3test.Start(t)
	issuer, front := oidctest.New(t, false), newBalancer(t)
	dir, binary := t.TempDir(), e2e.BuildGatehouse(t)
	passphrase := filepath.Join(dir, "passphrase")
	if err := os.WriteFile(passphrase, []byte("a passphrase of no value\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Images lie in another registry: this is about signatures.
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	t.Cleanup(images.Close)
	k.g = &e2e.Gatehouse{Binary: binary, Dir: dir, Host: images.Listener.Addr().String()}
	var processes []*e2e.Process
	var hosts []string
	for _, name := range []string{"a", "b"} {
		ready := filepath.Join(dir, name+".ready")
		p, err := e2e.Start(t, e2e.Program{
			Name: binary, Log: filepath.Join(dir, name+".log"), Env: append([]string{"GATEHOUSE_ADMIN_PASSWORD=" + e2e.AdminPassword}, bucket.Env...),
			Args: []string{
				"serve", "--data", filepath.Join(dir, name), "--database", database, "--storage", bucket.URL, "--listen", "127.0.0.1:0", "--admission-listen", "",
				"--ready-file", ready, "--sigstore", "--sigstore-issuers", "kubernetes+" + issuer.URL, "--allow-private", "127.0.0.0/8",
				"--sigstore-passphrase-file", passphrase, "--external-url", front.URL,
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		processes = append(processes, p)
	}
	for i, name := range []string{"a", "b"} {
		hosts = append(hosts, awaitReady(t, processes[i], filepath.Join(dir, name+".ready")))
	}
	front.to(hosts...)
	t.Setenv("GATEHOUSE_USERNAME", "admin")
	t.Setenv("GATEHOUSE_PASSWORD", e2e.AdminPassword)
	k.g.Run(t, binary, "sigstore", "init", "--server", front.URL, "-o", filepath.Join(k.home, "root.json"))
	k.must("", "initialize", "--mirror", front.URL+"/tuf", "--root", "root.json")
	var signed []string
	round := func(what string) {
		t.Helper()
		signed = append(signed, pushRandom(t, k.g, "team/"+what))
		k.must(issuer.Token(t, "system:serviceaccount:ci:builder", nil), "sign", "--yes", signed[len(signed)-1])
		for _, image := range signed {
			k.must("", "verify", "--certificate-identity", builder, "--certificate-oidc-issuer", issuer.URL, image)
		}
	}
	round("one")
	round("two")
	k.g.Run(t, binary, "sigstore", "rotate", "--all", "--server", "http://"+hosts[0])
	front.to(hosts[1]) // which has not looked yet
	round("three")
	front.to(hosts...)
	round("four")
	processes[0].Kill()
	front.to(hosts[1])
	round("five")
}

// awaitReady waits for the file that a server writes when it answers, and returns
// its host.
func awaitReady(t *testing.T, p *e2e.Process, file string) string {
	t.Helper()
	for {
		if b, err := os.ReadFile(file); err == nil {
			return strings.TrimPrefix(strings.TrimSpace(string(b)), "http://")
		}
		select {
		case <-p.Done():
			t.Fatalf("gatehouse serve ended by itself: %v\n%s", p.Err(), p.LogTail())
		case <-t.Context().Done():
			t.Fatal("gatehouse serve does not get ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

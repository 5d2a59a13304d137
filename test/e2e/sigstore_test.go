package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

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

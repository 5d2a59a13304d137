package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// signers are one server with a private Sigstore, and the programs that sign and
// verify with it, each with a home of its own.
type signers struct {
	t      *testing.T
	g      *e2e.Gatehouse
	issuer *oidctest.Issuer
	paths  map[string]string // gatehouse, cosign, cosign2
	homes  map[string]string
}

// newSigners starts the server and introduces every program to it, as a person
// would: once, with the root.
func newSigners(t *testing.T) *signers {
	s := &signers{t: t, g: e2e.ReserveGatehouse(t), issuer: oidctest.New(t, false), homes: map[string]string{}}
	s.paths = map[string]string{"gatehouse": s.g.Binary, "cosign": tool.Need(t, "cosign"), "cosign2": tool.Need(t, "cosign2")}
	s.g.Start(t, "--sigstore", "--sigstore-issuers", "kubernetes+"+s.issuer.URL, "--allow-private", "127.0.0.0/8")
	t.Setenv("GATEHOUSE_USERNAME", "admin")
	t.Setenv("GATEHOUSE_PASSWORD", e2e.AdminPassword)
	root := filepath.Join(s.g.Dir, "root.json")
	s.g.Run(t, s.g.Binary, "sigstore", "init", "--server", s.g.URL, "-o", root)
	for program := range s.paths {
		s.homes[program] = t.TempDir()
		s.must(program, "initialize", "--mirror", s.g.URL+"/tuf", "--root", root)
	}
	for _, pair := range []string{"ours", "theirs"} {
		s.must("gatehouse", "generate-key-pair", "--output-key-prefix", filepath.Join(s.g.Dir, pair))
	}
	return s
}

// run runs a program with a token for the builder. What is not on loopback cannot
// be reached.
func (s *signers) run(program string, args ...string) (string, error) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), s.paths[program], args...)
	cmd.Dir = s.g.Dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.homes[program], "DOCKER_CONFIG=" + filepath.Join(s.g.Dir, "docker"),
		"SIGSTORE_ID_TOKEN=" + s.issuer.Token(s.t, "system:serviceaccount:ci:builder", nil), "COSIGN_PASSWORD=e2e",
		"HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1,localhost",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *signers) must(program string, args ...string) string {
	s.t.Helper()
	out, err := s.run(program, args...)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// pushIndex pushes an index of two images and returns the references of it and of
// the first image.
func (s *signers) pushIndex(repo string) (index, child string) {
	s.t.Helper()
	idx, err := random.Index(128, 1, 2)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := idx.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		s.t.Fatal(err)
	}
	at := s.g.Host + "/" + repo
	ref, err := name.ParseReference(at + "@" + d.String())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx, remote.WithAuth(&authn.Basic{Username: "admin", Password: e2e.AdminPassword})); err != nil {
		s.t.Fatal(err)
	}
	return ref.String(), at + "@" + m.Manifests[0].Digest.String()
}

// way is how somebody signs, and with which flags it is verified.
type way struct {
	name    string
	program string
	keyless bool
	sign    []string
	// verify are flags that verifiers need besides the key or the identity.
	verify []string
	bundle bool // as a bundle; cosign 2 needs a flag to look for those
}

// ways are all of them. What the tag scheme cannot carry, an entry of Rekor v2,
// is left out, and a timestamp proves the time.
func (s *signers) ways() []way {
	key := []string{"--key", filepath.Join(s.g.Dir, "ours.key")}
	unlogged := []string{"--insecure-ignore-tlog"}
	stamped := []string{"--insecure-ignore-tlog", "--use-signed-timestamps"}
	services := []string{"--use-signing-config=false", "--fulcio-url", s.g.URL, "--timestamp-server-url", s.g.URL + "/timestamp", "--tlog-upload=false"}
	return []way{
		{name: "cosign 3, bundle, key", program: "cosign", sign: slices.Concat([]string{"--yes"}, key), bundle: true},
		{name: "cosign 3, bundle, keyless", program: "cosign", keyless: true, sign: []string{"--yes"}, bundle: true},
		{name: "cosign 3, legacy, key", program: "cosign", sign: slices.Concat([]string{"--yes", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"}, key), verify: unlogged},
		{name: "cosign 3, legacy, keyless", program: "cosign", keyless: true, sign: slices.Concat([]string{"--yes", "--new-bundle-format=false"}, services), verify: stamped},
		{name: "cosign 2, legacy, key", program: "cosign2", sign: slices.Concat([]string{"--yes", "--tlog-upload=false"}, key), verify: unlogged},
		{name: "gatehouse, bundle, key", program: "gatehouse", sign: key, bundle: true},
		{name: "gatehouse, bundle, keyless", program: "gatehouse", keyless: true, bundle: true},
		{name: "gatehouse, legacy, key", program: "gatehouse", sign: slices.Concat([]string{"--legacy"}, key), verify: unlogged},
		{name: "gatehouse, legacy, keyless", program: "gatehouse", keyless: true, sign: []string{"--legacy"}, verify: stamped},
		{name: "gatehouse, both, key", program: "gatehouse", sign: slices.Concat([]string{"--both"}, key), verify: unlogged},
		{name: "gatehouse, both, keyless", program: "gatehouse", keyless: true, sign: []string{"--both"}, verify: stamped},
	}
}

// whose are the flags that say who has to have signed.
func (s *signers) whose(w way) []string {
	if w.keyless {
		return []string{"--certificate-identity", builder, "--certificate-oidc-issuer", s.issuer.URL}
	}
	return []string{"--key", filepath.Join(s.g.Dir, "ours.pub")}
}

// verify asks one program.
func (s *signers) verify(program, verb string, w way, more ...string) (string, error) {
	args := slices.Concat([]string{verb}, s.whose(w), w.verify)
	if program == "cosign2" && w.bundle {
		args = append(args, "--new-bundle-format")
		if w.keyless { // logs of Rekor v2 tell no time
			args = append(args, "--use-signed-timestamps")
		}
	}
	return s.run(program, append(args, more...)...)
}

// TestSignaturesOfEverybody signs in every way and verifies with every program:
// the index itself, and with us a child through it. docs/signatures.md shows the
// table.
func TestSignaturesOfEverybody(t *testing.T) {
	s := newSigners(t)
	for i, w := range s.ways() {
		index, child := s.pushIndex(fmt.Sprintf("sign/w%d", i))
		if out, err := s.run(w.program, slices.Concat([]string{"sign"}, w.sign, []string{index})...); err != nil {
			t.Errorf("%s: %v\n%s", w.name, err, out)
			continue
		}
		for _, program := range []string{"gatehouse", "cosign", "cosign2"} {
			out, err := s.verify(program, "verify", w, index)
			if err != nil {
				t.Errorf("%s: %s does not verify: %v\n%s", w.name, program, err, out)
			}
			if _, err := s.verify(program, "verify", w, child); err == nil {
				t.Errorf("%s: %s takes the index's signature for that of a child", w.name, program)
			}
		}
		if out, err := s.verify("gatehouse", "verify", w, "--through", index, child); err != nil {
			t.Errorf("%s: the child through the index: %v\n%s", w.name, err, out)
		}
	}
}

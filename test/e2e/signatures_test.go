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

// unread tells what stock cosign cannot read of itself: version 2 has statements
// logged as envelopes, and version 3 knows no such entries in Rekor v2.
func (w way) unread(program string) bool {
	return w.program == "cosign2" && w.bundle && program == "cosign"
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
		{name: "cosign 2, bundle, key", program: "cosign2", sign: slices.Concat([]string{"--yes", "--use-signing-config", "--new-bundle-format"}, key), bundle: true},
		{name: "cosign 2, bundle, keyless", program: "cosign2", keyless: true, sign: []string{"--yes", "--use-signing-config", "--new-bundle-format"}, bundle: true},
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
			if w.unread(program) != (err != nil) {
				t.Errorf("%s: %s verifies: %v, which docs/signatures.md tells otherwise\n%s", w.name, program, err == nil, out)
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

// TestAttestationsOfEverybody attests in every way and verifies with every
// program, on an image; another type is not found, and nobody's attestation is a
// signature for us.
func TestAttestationsOfEverybody(t *testing.T) {
	s := newSigners(t)
	predicate := s.g.WriteFile(t, "scan.json", []byte(`{"invocation":{"parameters":null,"uri":"","event_id":"","builder.id":""},"scanner":{"uri":"pkg:x","version":"1","db":{"uri":"","version":""},"result":{"n":1}},"metadata":{"scanStartedOn":"2026-01-01T00:00:00Z","scanFinishedOn":"2026-01-01T00:00:01Z"}}`))
	allow := s.g.WriteFile(t, "allow.rego", []byte("package signature\n\nallow {\n\tinput.predicate.scanner.result.n == 1\n}\n"))
	deny := s.g.WriteFile(t, "deny.rego", []byte("package signature\n\ndefault allow = false\n"))
	for i, w := range s.ways() {
		_, image := s.pushIndex(fmt.Sprintf("attest/w%d", i))
		if out, err := s.run(w.program, slices.Concat([]string{"attest", "--type", "vuln", "--predicate", predicate}, w.sign, []string{image})...); err != nil {
			t.Errorf("%s: %v\n%s", w.name, err, out)
			continue
		}
		for _, program := range []string{"gatehouse", "cosign", "cosign2"} {
			out, err := s.verify(program, "verify-attestation", w, "--type", "vuln", "--policy", allow, image)
			// cosign 3 has the signature stamped, and looks for a stamp on the envelope.
			if w.unread(program) || w.name == "cosign 3, legacy, keyless" && program != "gatehouse" {
				if err == nil {
					t.Errorf("%s: %s verifies now; docs/signatures.md says it does not", w.name, program)
				}
				continue
			}
			if err != nil || !strings.Contains(out, `"payload":"`) {
				t.Errorf("%s: %s does not verify: %v\n%s", w.name, program, err, out)
			}
			if out, err := s.verify(program, "verify-attestation", w, "--type", "vuln", "--policy", deny, image); err == nil {
				t.Errorf("%s: %s passes over the policy\n%s", w.name, program, out)
			}
			if out, err := s.verify(program, "verify-attestation", w, "--type", "spdxjson", image); err == nil {
				t.Errorf("%s: %s finds another type\n%s", w.name, program, out)
			}
		}
		if out, err := s.verify("gatehouse", "verify", w, image); err == nil {
			t.Errorf("%s: the attestation passes for a signature\n%s", w.name, out)
		}
		if out, err := s.verify("gatehouse", "verify", w, "--any-attestation", image); err != nil {
			t.Errorf("%s: --any-attestation: %v\n%s", w.name, err, out)
		}
	}
}

// TestDocumentLines runs the lines that introductions to cosign have, as they are
// typed there, with our name in place of cosign's: a key pair, a signature by tag,
// and one without a key.
func TestDocumentLines(t *testing.T) {
	s := newSigners(t)
	img, err := random.Image(128, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag := s.g.Host + "/your-app:v1.0.0"
	ref, err := name.ParseReference(tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "admin", Password: e2e.AdminPassword})); err != nil {
		t.Fatal(err)
	}
	s.must("gatehouse", "generate-key-pair")
	s.must("gatehouse", "sign", "--key", "cosign.key", tag)
	s.must("gatehouse", "sign", tag) // the token is in the environment, as in a CI job
	for _, program := range []string{"gatehouse", "cosign"} {
		s.must(program, "verify", "--key", "cosign.pub", tag)
		s.must(program, "verify", "--certificate-identity", builder, "--certificate-oidc-issuer", s.issuer.URL, tag)
	}
	// Both were logged, which is asked for with a key as well.
	s.must("gatehouse", "verify", "--insecure-ignore-tlog=false", "--use-signed-timestamps", "--key", "cosign.pub", tag)
	s.must("gatehouse", "sign", "--tlog-upload=false", "--key", filepath.Join(s.g.Dir, "theirs.key"), tag)
	if out, err := s.run("gatehouse", "verify", "--insecure-ignore-tlog=false", "--key", filepath.Join(s.g.Dir, "theirs.pub"), tag); err == nil || !strings.Contains(out, "log-required") {
		t.Errorf("a signature that was not logged: %v\n%s", err, out)
	}
	s.must("gatehouse", "verify", "--key", filepath.Join(s.g.Dir, "theirs.pub"), tag)
	// Unless it is told to use what version 3 uses, cosign 2 asks for certificates as
	// Fulcio's API of version 1 has it.
	if out, err := s.run("cosign2", "sign", "--yes", "--fulcio-url", s.g.URL, "--rekor-url", s.g.URL, tag); err == nil || !strings.Contains(out, "signingCert") {
		t.Errorf("cosign 2 signs without a key now; docs/signatures.md says it does not: %v\n%s", err, out)
	}
}

// TestCopyTakesSignaturesAlong copies an index with a signature, a signature of a
// child under the tag scheme and an attestation, with us and with stock cosign.
func TestCopyTakesSignaturesAlong(t *testing.T) {
	s := newSigners(t)
	index, child := s.pushIndex("copy/from")
	key := []string{"--key", filepath.Join(s.g.Dir, "ours.key")}
	predicate := s.g.WriteFile(t, "p.json", []byte(`{"a":1}`))
	s.must("gatehouse", slices.Concat([]string{"sign"}, key, []string{index})...)
	s.must("gatehouse", slices.Concat([]string{"sign", "--legacy"}, key, []string{child})...)
	s.must("gatehouse", slices.Concat([]string{"attest", "--predicate", predicate}, key, []string{index})...)
	_, digest, _ := strings.Cut(index, "@")
	_, childDigest, _ := strings.Cut(child, "@")
	pub := []string{"--key", filepath.Join(s.g.Dir, "ours.pub")}
	to := s.g.Host + "/copy/to"
	s.must("gatehouse", "copy", index, to+":v1")
	s.must("gatehouse", "copy", index, to+":v1") // again changes nothing
	for _, program := range []string{"gatehouse", "cosign"} {
		s.must(program, slices.Concat([]string{"verify"}, pub, []string{to + ":v1"})...)
		s.must(program, slices.Concat([]string{"verify", "--insecure-ignore-tlog"}, pub, []string{to + "@" + childDigest})...)
		s.must(program, slices.Concat([]string{"verify-attestation"}, pub, []string{to + "@" + digest})...)
	}
	other, _ := s.pushIndex("copy/from")
	if out, err := s.run("gatehouse", "copy", other, to+":v1"); err == nil || !strings.Contains(out, "--force") {
		t.Errorf("the tag is moved: %v\n%s", err, out)
	}
	s.must("gatehouse", "copy", "--force", other, to+":v1")
	// Stock cosign takes what is under tags, and that holds there.
	s.must("cosign", "copy", child, s.g.Host+"/copy/theirs:v1")
	s.must("gatehouse", slices.Concat([]string{"verify"}, pub, []string{s.g.Host + "/copy/theirs:v1"})...)
	for _, program := range []string{"gatehouse", "cosign"} {
		out := s.must(program, "tree", index)
		for _, want := range []string{"https://sigstore.dev/cosign/sign/v1 artifacts via OCI referrer", "https://cosign.sigstore.dev/attestation/v1 artifacts via OCI referrer"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s tree does not show %q:\n%s", program, want, out)
			}
		}
	}
	if ours, theirs := s.must("gatehouse", "triangulate", index), s.must("cosign", "triangulate", index); !strings.Contains(theirs, strings.TrimSpace(ours)) {
		t.Errorf("triangulate: %q, cosign %q", ours, theirs)
	}
}

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// TestSigningMistakes: each is an error of one line that names the mistake, with a
// hint that helps, and nothing is asked of anybody.
func TestSigningMistakes(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(content))
		return path
	}
	const ref = "127.0.0.1:1/app@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	root := file("root.json", string(verifytest.New(t).Trust()))
	predicate := file("p.json", "{}")
	for _, x := range []struct {
		args       []string
		said, hint string
	}{
		{[]string{"sign", ref}, "there is no --key", "gatehouse initialize"},
		{[]string{"sign", "--fulcio-url", "https://127.0.0.1:1", ref}, "nothing would prove when", "--timestamp-server-url"},
		{[]string{"sign", "--fulcio-url", "https://127.0.0.1:1", "--timestamp-server-url", "https://127.0.0.1:1", "--oidc-disable-ambient-providers", ref}, "no identity token", "id-token: write"},
		{[]string{"sign", "--fulcio-url", "nowhere", "--timestamp-server-url", "https://127.0.0.1:1", "--identity-token", "a.b.c", ref}, "is not the URL of a service", "https://HOST"},
		{[]string{"sign", "--key", private, "--signing-config", publicConfig(t, dir), ref}, "to everybody, for ever", "--yes"},
		{[]string{"sign", "--signing-config", root, ref}, "signing config", ""},
		{[]string{"sign", "--signing-config", root, "--rekor-url", "https://x.example", ref}, "--signing-config says where", "one or the other"},
		{[]string{"sign", "--key", private, "--sk", ref}, "--sk of cosign", "KMS plugin"},
		{[]string{"sign", "--key", private, "--oidc-issuer", "https://x", ref}, "--oidc-issuer of cosign", "--identity-token"},
		{[]string{"sign", "--key", private, "--upload=false", ref}, "stores the signature nowhere", "--bundle"},
		{[]string{"sign", "--key", private, "--payload", predicate, ref}, "of the tag scheme", "--legacy"},
		{[]string{"sign", "--key", private, "--bundle", "x", ref, ref}, "do not go into one file", "one image"},
		{[]string{"sign", "--key", private, "--certificate-chain", root, ref}, "is one of a certificate", "--certificate"},
		{[]string{"sign", "--key", private, "--legacy", "--registry-referrers-mode", "oci-1-1", ref}, "not written as referrers", "bundle"},
		{[]string{"sign", "--key", private, "--k8s-keychain", ref}, "--k8s-keychain", "--registry-username"},
		{[]string{"sign", "--key", private, "--registry-cacert", predicate, ref}, "holds no PEM certificate", ""},
		{[]string{"attest", "--key", private, ref}, "predicate", ""},
		{[]string{"attest", "--key", private, "--predicate", predicate, "--type", "nonsense", ref}, "no predicate type", "slsaprovenance"},
		{[]string{"attest", "--key", private, "--predicate", filepath.Join(dir, "none"), ref}, "couldn't read", "exists"},
		{[]string{"verify", ref}, "who has to have signed", "--certificate-oidc-issuer"},
		{[]string{"verify", "--certificate-identity", "a", ref}, "--certificate-oidc-issuer is missing", "--certificate-oidc-issuer"},
		{[]string{"verify", "--certificate-oidc-issuer", "a", ref}, "--certificate-identity is missing", "--certificate-identity"},
		{[]string{"verify", "--certificate-identity", "a", "--certificate-identity-regexp", "a", "--certificate-oidc-issuer", "b", ref}, "given twice", "one of them"},
		{[]string{"verify", "--certificate-identity-regexp", "(", "--certificate-oidc-issuer", "b", ref}, "--certificate-identity-regexp", ""},
		{[]string{"verify", "--certificate-identity", "a", "--certificate-oidc-issuer", "b", ref}, "nothing says which certificate authority", "gatehouse initialize"},
		{[]string{"verify", "--certificate-identity", "a", "--certificate-oidc-issuer", "b", "--trusted-root", predicate, ref}, "trusted root", ""},
		{[]string{"verify", "--certificate-identity", "a", "--certificate-oidc-issuer", "b", "--ca-intermediates", predicate, ref}, "leads nowhere", "--ca-roots"},
		{[]string{"verify", "--key", public, "--certificate-identity", "a", ref}, "two ways", "one of them"},
		{[]string{"verify", "--key", public, "--check-claims=false", ref}, "signature of any image", "leave it out"},
		{[]string{"verify", "--key", public, "--local-image", ref}, "--local-image of cosign", "gatehouse serve"},
		{[]string{"verify", "--key", public, "--trusted-root", predicate, ref}, "trusted root", ""},
		{[]string{"verify", "--key", public, "--format", "nonsense", ref}, "format", ""},
		{[]string{"verify", "--key", public, "--attachment", "nonsense", ref}, "is not known", "sbom"},
		{[]string{"verify-attestation", "--key", public, "--policy", file("bad.cue", "a: 1\na: 2"), ref}, "CUE error: a: conflicting values", ""},
		{[]string{"verify-attestation", "--key", public, "--policy", predicate, ref}, "is no .rego or .cue file", ".rego"},
		{[]string{"verify-attestation", "--key", public, "--policy", file("bad.rego", "nonsense("), ref}, "cannot be compiled", ""},
		{[]string{"verify-attestation", "--key", public, "--type", "x y", ref}, "no predicate type", "cyclonedx"},
		{[]string{"copy", "--only", "x", ref, ref}, "--only", "sig, att or sbom"},
		{[]string{"copy", ref}, "arg", ""},
		{[]string{"attach", "sbom", "--sbom", predicate, "--type", "x", ref}, "is not known", "cyclonedx"},
		{[]string{"attach", "signature", ref}, "payload", ""},
		{[]string{"triangulate", "--type", "x", ref}, "is not known", "digest"},
		{[]string{"initialize", "--mirror", "https://127.0.0.1:1/tuf"}, "--root is missing", "1.root.json"},
		{[]string{"initialize", "--mirror", "https://127.0.0.1:1/tuf", "--root", predicate}, "root", ""},
		{[]string{"initialize", "--mirror", "https://127.0.0.1:1/tuf", "--root", predicate, "--root-checksum", "00"}, "sha256", "do not trust it"},
	} {
		c.want(2, x.args...)
		lines := strings.Split(strings.TrimSpace(c.stderr), "\n")
		text, hint, _ := strings.Cut(c.stderr, "\nhint: ")
		if !strings.Contains(text, x.said) || !strings.Contains(hint, x.hint) || !strings.HasPrefix(c.stderr, "error: ") || len(lines) > 3 {
			t.Errorf("gatehouse %s\n%s", strings.Join(x.args, " "), c.stderr)
		}
	}
}

// publicConfig is a signing config that names the public Sigstore's log.
func publicConfig(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "public.json")
	write(t, path, []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogUrls":[{"url":"https://log2025-1.rekor.sigstore.dev","majorApiVersion":2,"validFor":{"start":"2025-01-01T00:00:00Z"},"operator":"sigstore.dev"}],"rekorTlogConfig":{"selector":"ANY"},"tsaConfig":{}}`))
	return path
}

// indexOfTwo pushes an index of two images.
func indexOfTwo(t *testing.T, like string) (index string, children []string) {
	t.Helper()
	idx, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	d, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	at, _, _ := strings.Cut(like, "@")
	ref, err := name.ParseReference(at + "@" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Manifests {
		children = append(children, at+"@"+c.Digest.String())
	}
	return ref.String(), children
}

func TestSignRecursively(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	like := registryWithImages(t, true, 1)[0]
	for _, form := range []string{"--both", "--legacy"} {
		index, children := indexOfTwo(t, like)
		other, _ := indexOfTwo(t, like)
		c.want(0, "sign", "--key", private, form, index)
		c.want(0, "verify", "--key", public, index)
		c.want(1, "verify", "--key", public, children[0])
		c.want(0, "verify", "--key", public, "--through", index, children[0])
		c.want(2, "verify", "--key", public, "--through", other, children[0])
		c.wantSaid(c.stderr, "does not list")
		c.want(0, "sign", "--key", private, form, "--recursive", index)
		for _, child := range children {
			c.want(0, "verify", "--key", public, child)
		}
		c.want(1, "verify", "--key", public, "--format", map[string]string{"--legacy": "bundle"}[form], "-a", "no=such", index)
	}
}

// TestSignaturesElsewhere keeps them in the repository that COSIGN_REPOSITORY
// names, and under tags with a prefix.
func TestSignaturesElsewhere(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	image, _ := pushedImage(t, nil)
	host, _, _ := strings.Cut(image, "/")
	elsewhere, _ := pushedImage(t, nil)
	at, _, _ := strings.Cut(elsewhere, "/")
	for _, repo := range []string{host + "/signatures", at + "/signatures"} {
		for _, form := range []string{"--both=false", "--legacy"} {
			ref, _ := pushedImage(t, nil)
			c.env["COSIGN_REPOSITORY"] = repo
			c.want(0, "sign", "--key", private, form, ref)
			c.wantSaid(c.stderr, repo)
			c.want(0, "verify", "--key", public, ref)
			c.want(0, "tree", ref)
			c.wantSaid(c.stdout, repo)
			delete(c.env, "COSIGN_REPOSITORY")
			c.want(1, "verify", "--key", public, ref)
		}
	}
	c.want(0, "sign", "--key", private, "--legacy", "--attachment-tag-prefix", "rel-", image)
	c.want(1, "verify", "--key", public, image)
	c.want(0, "verify", "--key", public, "--attachment-tag-prefix", "rel-", image)
}

// TestSignatureFiles writes what was signed to files, stores nothing, and attaches
// the files later.
func TestSignatureFiles(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	dir := t.TempDir()
	out := func(name string) string { return filepath.Join(dir, name) }
	image, _ := pushedImage(t, nil)
	other, _ := pushedImage(t, nil)
	c.want(0, "sign", "--key", private, "--upload=false", "--bundle", out("b.json"), image)
	c.want(1, "verify", "--key", public, image)
	c.want(2, "attach", "signature", "--payload", out("b.json"), other)
	c.wantSaid(c.stderr, "not about")
	c.want(0, "attach", "signature", "--payload", out("b.json"), image)
	c.want(0, "verify", "--key", public, image)
	c.want(0, "sign", "--key", private, "--legacy", "--upload=false", "--output-signature", out("s"), "--output-payload", out("p"), "--output-certificate", out("c"), "--bundle", out("l.json"), other)
	c.want(2, "attach", "signature", "--signature", out("s"), "--payload", out("p"), image)
	c.wantSaid(c.stderr, "the payload is about")
	c.want(0, "attach", "signature", "--signature", out("s"), "--payload", out("p"), other)
	c.want(0, "attach", "signature", "--signature", out("s"), "--payload", out("p"), other)
	c.wantSaid(c.stderr, "has it already")
	c.want(0, "verify", "--key", public, other)
	key, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out("c")); err != nil || string(got) != string(key) {
		t.Errorf("--output-certificate: %s, %v", got, err)
	}
	// The same payload is signed again, with a name of its own.
	c.want(0, "sign", "--key", private, "--legacy", "--sign-container-identity", "registry.example/app,mirror.example/app", image)
	c.want(0, "verify", "--key", public, "--format", "legacy", "-o", "text", image)
	c.wantSaid(c.stdout, `"docker-reference":"mirror.example/app"`)
	c.want(0, "verify", "--key", public, "--format", "legacy", "--output-file", out("o.json"), image)
	if c.stdout != "" {
		t.Errorf("standard output: %s", c.stdout)
	}
	var list []payload
	if b, err := os.ReadFile(out("o.json")); err != nil || json.Unmarshal(b, &list) != nil || len(list) != 2 {
		t.Errorf("%s, %v", b, err)
	}
	c.want(0, "attest", "--key", private, "--no-upload", "--predicate", out("p"), image)
	write(t, out("a.json"), []byte(c.stdout))
	c.want(1, "verify-attestation", "--key", public, image)
	c.want(0, "attach", "attestation", "--attestation", out("a.json"), image)
	c.want(0, "verify-attestation", "--key", public, image)
	c.want(0, "attest", "--key", private, "--legacy", "--no-upload", "--predicate", out("p"), other)
	write(t, out("e.json"), []byte(c.stdout))
	c.want(0, "attach", "attestation", "--attestation", out("e.json"), other)
	c.want(0, "verify-attestation", "--key", public, other)
	c.want(2, "attach", "attestation", "--attestation", out("e.json"), image)
}

// TestRekorIsAskedForItsVersion: --rekor-url does not say which API it speaks.
func TestRekorIsAskedForItsVersion(t *testing.T) {
	for _, c := range []struct {
		status int
		kind   string
		v1     bool
	}{{200, "application/json", true}, {200, "text/html", false}, {404, "application/json", false}} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
		}))
		t.Cleanup(s.Close)
		if got, err := speaksRekorV1(t.Context(), http.DefaultTransport, s.URL+"/"); err != nil || got != c.v1 {
			t.Errorf("%d %s: %v, %v", c.status, c.kind, got, err)
		}
	}
}

// TestFoundFileIsNotTrusted: a settings file that came with somebody's sources
// neither sends an identity token anywhere nor turns off a check.
func TestFoundFileIsNotTrusted(t *testing.T) {
	c := newConsole(t)
	_, public := makeKeys(t, c)
	c.env["SIGSTORE_ID_TOKEN"] = "a.b.c"
	dir := t.TempDir()
	t.Chdir(dir)
	const ref = "127.0.0.1:1/app@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for line, command := range map[string][]string{
		"fulcio-url: https://127.0.0.1:1": {"sign", ref},
		"any-attestation: true":           {"verify", "--key", public, ref},
		"insecure-ignore-tlog: true":      {"verify", "--key", public, ref},
		"trusted-root: root.json":         {"verify", "--key", public, ref},
		"mirror: https://127.0.0.1:1/tuf": {"initialize"},
	} {
		write(t, filepath.Join(dir, "gatehouse.yaml"), []byte(line+"\n"))
		c.want(2, command...)
		c.wantSaid(c.stderr, "merely lies in the current directory")
		write(t, filepath.Join(dir, "named.yaml"), []byte(line+"\n"))
		if err := os.Remove(filepath.Join(dir, "gatehouse.yaml")); err != nil {
			t.Fatal(err)
		}
		c.run(append([]string{"--config", "named.yaml"}, command...)...)
		if strings.Contains(c.stderr, "merely lies") {
			t.Errorf("%s in a file that is named: %s", line, c.stderr)
		}
	}
}

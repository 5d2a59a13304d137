package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// cosign is the stock program, as `make e2e` builds it from test/tools/cosign.
type cosign struct {
	t             *testing.T
	path          string
	dir           string
	signingConfig string // of no services: nothing is reached but the registry
	output        string
}

func newCosign(t *testing.T) *cosign {
	t.Helper()
	path := os.Getenv("GATEHOUSE_COSIGN")
	if path == "" {
		t.Skip("GATEHOUSE_COSIGN does not name a cosign program; make e2e builds one")
	}
	c := &cosign{t: t, path: path, dir: t.TempDir()}
	c.signingConfig = filepath.Join(c.dir, "signing-config.json")
	if err := os.WriteFile(c.signingConfig, []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cosign) run(args ...string) error {
	cmd := exec.CommandContext(c.t.Context(), c.path, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "COSIGN_PASSWORD=pw", "TUF_ROOT=" + c.dir + "/tuf"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	c.output = out.String()
	return err
}

func (c *cosign) must(args ...string) {
	c.t.Helper()
	if err := c.run(args...); err != nil {
		c.t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, c.output)
	}
}

func (c *cosign) sign(bundle bool, args ...string) {
	c.t.Helper()
	if bundle {
		c.must(append([]string{"sign", "--yes", "--signing-config", c.signingConfig}, args...)...)
		return
	}
	c.must(append([]string{"sign", "--yes", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false"}, args...)...)
}

func (c *cosign) verify(args ...string) error {
	return c.run(append([]string{"verify", "--insecure-ignore-tlog"}, args...)...)
}

// registryWithImages serves several images, with or without the referrers API.
func registryWithImages(t *testing.T, api bool, n int) []string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(api)))
	t.Cleanup(s.Close)
	var refs []string
	for range n {
		img, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		ref := strings.TrimPrefix(s.URL, "http://") + "/team/app@" + d.String()
		to, err := name.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(to, img); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	return refs
}

// TestCosignInterop signs with each program and verifies with the other, in
// both forms, on registries with and without the referrers API.
func TestCosignInterop(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	co.must("generate-key-pair", "--output-key-prefix", "theirs")
	theirs := filepath.Join(co.dir, "theirs")
	private, public := makeKeys(t, c)
	ours := strings.TrimSuffix(private, ".key")
	for _, api := range []bool{true, false} {
		for _, bundle := range []bool{true, false} {
			refs := registryWithImages(t, api, 4)
			form := map[bool]string{true: "--both=false", false: "--legacy"}[bundle]
			name := map[bool]string{true: "bundle", false: "legacy"}[bundle] + map[bool]string{true: ", referrers API", false: ", fallback tag"}[api]

			// Theirs, with their key and with ours.
			for i, key := range []string{theirs, ours} {
				co.sign(bundle, "--key", key+".key", "-a", "env=prod", refs[i])
				c.want(0, "verify", "--key", key+".pub", "-a", "env=prod", refs[i])
				c.want(1, "verify", "--key", key+".pub", "-a", "env=dev", refs[i])
			}
			c.want(1, "verify", "--key", public, refs[0])
			c.wantSaid(c.stderr, "wrong-key")
			c.want(1, "verify", "--key", public, refs[2])
			c.wantSaid(c.stderr, "no-candidate")

			// Ours, with our key and with theirs.
			for i, key := range []string{ours, theirs} {
				ref := refs[2+i]
				c.want(0, "sign", "--key", key+".key", "-a", "env=prod", form, ref)
				if err := co.verify("--key", key+".pub", "-a", "env=prod", ref); err != nil {
					t.Errorf("%s: cosign does not verify what we signed: %v\n%s", name, err, co.output)
				}
				if co.verify("--key", key+".pub", "-a", "env=dev", ref) == nil {
					t.Errorf("%s: cosign verifies another annotation", name)
				}
			}
			if co.verify("--key", public, refs[3]) == nil {
				t.Errorf("%s: cosign verifies with the wrong key", name)
			}

			// Side by side on one image, neither drops the other's.
			c.want(0, "sign", "--key", private, form, refs[0])
			co.sign(bundle, "--key", theirs+".key", refs[1])
			for _, ref := range refs[:2] {
				for _, key := range []string{ours, theirs} {
					c.want(0, "verify", "--key", key+".pub", ref)
					if err := co.verify("--key", key+".pub", ref); err != nil {
						t.Errorf("%s: %v\n%s", name, err, co.output)
					}
				}
			}
		}
	}
}

// TestCosignMixedForms: an old signature stands beside a new one by somebody
// else. Stock cosign then looks at the new ones only; we look at both.
func TestCosignMixedForms(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	co.must("generate-key-pair", "--output-key-prefix", "theirs")
	private, public := makeKeys(t, c)
	ref := registryWithImages(t, true, 1)[0]
	co.sign(false, "--key", "theirs.key", ref)
	c.want(0, "sign", "--key", private, ref)
	c.want(0, "verify", "--key", filepath.Join(co.dir, "theirs.pub"), ref)
	c.want(0, "verify", "--key", public, ref)
}

// TestCosignAttestationIsNoSignature is where we differ from cosign on purpose:
// for it, any attestation by the key makes an image "signed".
func TestCosignAttestationIsNoSignature(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	private, public := makeKeys(t, c)
	ref := registryWithImages(t, true, 1)[0]
	predicate := filepath.Join(co.dir, "p.json")
	if err := os.WriteFile(predicate, []byte(`{"scanner":{},"metadata":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	co.must("attest", "--yes", "--signing-config", co.signingConfig, "--key", private, "--type", "vuln", "--predicate", predicate, ref)
	c.want(1, "verify", "--key", public, ref)
	c.wantSaid(c.stderr, "not-a-signature")
}

// TestCosignKeyKinds signs with keys of other kinds that cosign imports, and
// verifies both ways.
func TestCosignKeyKinds(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for kind, key := range map[string]any{"p384": p384, "p521": p521, "rsa": rsa2048, "ed25519": ed} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		plain := filepath.Join(co.dir, kind+".pem")
		if err := os.WriteFile(plain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		co.must("import-key-pair", "--key", plain, "--output-key-prefix", kind)
		pair := filepath.Join(co.dir, kind)
		for _, bundle := range []bool{true, false} {
			refs := registryWithImages(t, true, 2)
			co.sign(bundle, "--key", pair+".key", refs[0])
			c.want(0, "verify", "--key", pair+".pub", refs[0])
			theyVerifyTheirs := co.verify("--key", pair+".pub", refs[0]) == nil ||
				co.verify("--key", pair+".pub", "--signature-digest-algorithm", "sha384", refs[0]) == nil ||
				co.verify("--key", pair+".pub", "--signature-digest-algorithm", "sha512", refs[0]) == nil
			c.want(0, "sign", "--key", pair+".key", map[bool]string{true: "--both=false", false: "--legacy"}[bundle], refs[1])
			theyVerifyOurs := co.verify("--key", pair+".pub", refs[1]) == nil ||
				co.verify("--key", pair+".pub", "--signature-digest-algorithm", "sha384", refs[1]) == nil ||
				co.verify("--key", pair+".pub", "--signature-digest-algorithm", "sha512", refs[1]) == nil
			t.Logf("%s, bundle %v: cosign verifies its own: %v, ours: %v", kind, bundle, theyVerifyTheirs, theyVerifyOurs)
			if theyVerifyTheirs && !theyVerifyOurs {
				t.Errorf("%s, bundle %v: cosign verifies its own and not ours\n%s", kind, bundle, co.output)
			}
		}
	}
}

// TestCosignSignatureMoved takes what stock cosign signed for one image and
// hangs it on another, as it is and with the payload changed.
func TestCosignSignatureMoved(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	co.must("generate-key-pair", "--output-key-prefix", "theirs")
	public := filepath.Join(co.dir, "theirs.pub")
	refs := registryWithImages(t, true, 2)
	for _, bundle := range []bool{true, false} {
		co.sign(bundle, "--key", "theirs.key", refs[0])
	}
	from, to := mustParse(t, refs[0]), mustParse(t, refs[1])
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	reg := fetch.New(fetch.Options{Transport: e.Transport()}).Registry(from.Registry)
	referrers, err := reg.Referrers(t.Context(), from.Repo, from.Digest, "", "", 10)
	if err != nil || len(referrers) != 1 {
		t.Fatalf("%v, %v", referrers, err)
	}
	bundle, err := reg.Manifest(t.Context(), from.Repo, referrers[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := reg.ManifestByTag(t.Context(), from.Repo, "sha256-"+from.Digest.Hex()+".sig")
	if err != nil {
		t.Fatal(err)
	}
	put := func(tag string, body string) {
		t.Helper()
		if err := reg.PutManifest(t.Context(), from.Repo, tag, "application/vnd.oci.image.manifest.v1+json", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	put("sha256-"+to.Digest.Hex()+".sig", string(legacy.Body))
	put("", strings.ReplaceAll(string(bundle.Body), string(from.Digest), string(to.Digest)))
	c.want(1, "verify", "--key", public, refs[1])
	if strings.Count(c.stderr, "other-digest") != 2 {
		t.Errorf("moved: %s", c.stderr)
	}

	// Now with the digest inside of the payload changed: the signature breaks.
	for _, m := range []*gatehouse.Manifest{legacy, bundle} {
		var doc struct{ Layers []gatehouse.Descriptor }
		if err := json.Unmarshal(m.Body, &doc); err != nil {
			t.Fatal(err)
		}
		blob, err := reg.OpenBlob(t.Context(), from.Repo, doc.Layers[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(blob.Body)
		blob.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		changed := changeDigest(t, body, from.Digest.Hex(), to.Digest.Hex())
		d, err := reg.PutBlob(t.Context(), from.Repo, changed)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(m.Body), string(doc.Layers[0].Digest), string(d.Digest))
		text = strings.Replace(text, fmt.Sprintf(`"size":%d`, len(body)), fmt.Sprintf(`"size":%d`, len(changed)), 1)
		if m == legacy {
			put("sha256-"+to.Digest.Hex()+".sig", text)
		} else {
			put("", strings.ReplaceAll(text, string(from.Digest), string(to.Digest)))
		}
	}
	c.want(1, "verify", "--key", public, refs[1])
	if strings.Count(c.stderr, "- wrong-key: ") != 1 || strings.Count(c.stderr, "- bad-signature: ") != 1 {
		t.Errorf("tampered: %s", c.stderr)
	}
	c.want(0, "verify", "--key", public, refs[0]) // the original still holds
}

func mustParse(t *testing.T, s string) gatehouse.Ref {
	t.Helper()
	ref, err := gatehouse.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// changeDigest replaces a digest in a simple-signing payload, or in the
// statement inside of a bundle.
func changeDigest(t *testing.T, body []byte, from, to string) []byte {
	t.Helper()
	if bytes.Contains(body, []byte(from)) {
		return bytes.ReplaceAll(body, []byte(from), []byte(to))
	}
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	envelope, _ := doc["dsseEnvelope"].(map[string]any)
	encoded, _ := envelope["payload"].(string)
	payload, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !bytes.Contains(payload, []byte(from)) {
		t.Fatalf("%v: the digest is not in %s", err, payload)
	}
	envelope["payload"] = bytes.ReplaceAll(payload, []byte(from), []byte(to))
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

package verify_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeBundle   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeSimple   = "application/vnd.dev.cosign.simplesigning.v1+json"
	sigKey       = "dev.cosignproject.cosign/signature"
)

// world is a real registry over HTTP with one image in it.
type world struct {
	t     *testing.T
	reg   *fetch.Registry
	image sign.Image
}

func newWorld(t *testing.T, referrersAPI bool) *world {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(referrersAPI), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	w := &world{t: t, reg: fetch.New(fetch.Options{Transport: e.Transport()}).Registry(host)}
	w.image = w.pushImage("one")
	w.image.Ref.Registry = host
	return w
}

func (w *world) blob(body []byte) gatehouse.Descriptor {
	w.t.Helper()
	d, err := w.reg.PutBlob(context.Background(), "app", body)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) pushImage(content string) sign.Image {
	w.t.Helper()
	config, layer := w.blob([]byte(`{"os":"linux","x":"`+content+`"}`)), w.blob([]byte(content))
	return w.manifest("", map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []any{layer}})
}

// manifest pushes any manifest and describes it as if it were to be signed.
func (w *world) manifest(tag string, doc map[string]any) sign.Image {
	w.t.Helper()
	body, err := json.Marshal(doc)
	if err != nil {
		w.t.Fatal(err)
	}
	mediaType, _ := doc["mediaType"].(string)
	if err := w.reg.PutManifest(context.Background(), "app", tag, mediaType, body); err != nil {
		w.t.Fatal(err)
	}
	return sign.Image{Ref: gatehouse.Ref{Registry: "example.com", Repo: "app", Digest: gatehouse.DigestOf(body)}, MediaType: mediaType, Size: int64(len(body))}
}

// refer hangs a layer on the image as a referrer.
func (w *world) refer(artifactType string, layers ...gatehouse.Descriptor) gatehouse.Digest {
	w.t.Helper()
	empty := w.blob([]byte("{}"))
	empty.MediaType = "application/vnd.oci.empty.v1+json"
	return w.manifest("", map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "artifactType": artifactType, "config": empty, "layers": layers,
		"subject": gatehouse.Descriptor{MediaType: w.image.MediaType, Digest: w.image.Ref.Digest, Size: w.image.Size},
	}).Ref.Digest
}

func (w *world) layer(mediaType string, body []byte) gatehouse.Descriptor {
	d := w.blob(body)
	d.MediaType = mediaType
	return d
}

func (w *world) attach(k *sign.Key, o sign.Options) []gatehouse.Digest {
	w.t.Helper()
	o.Now = time.Unix(1_700_000_000, 0)
	done, err := sign.Attach(context.Background(), w.reg, k, w.image, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func need(keys ...string) gatehouse.Need {
	return gatehouse.Need{Name: "policy/authority", Kind: gatehouse.NeedSignature, Authority: gatehouse.Authority{Name: "ci", Keys: keys}}
}

func (w *world) verify(n gatehouse.Need) ([]gatehouse.Evidence, []string) {
	w.t.Helper()
	evidence, rejected, err := verify.Image(context.Background(), w.reg, w.image.Ref, n)
	if err != nil {
		w.t.Fatal(err)
	}
	codes := []string{}
	for _, r := range rejected {
		codes = append(codes, r.Code)
	}
	return evidence, codes
}

// wantNo checks that there is no evidence and why.
func (w *world) wantNo(n gatehouse.Need, codes ...string) {
	w.t.Helper()
	evidence, got := w.verify(n)
	if len(evidence) != 0 {
		w.t.Errorf("evidence where there must be none: %+v", evidence)
	}
	if diff := cmp.Diff(codes, got); diff != "" {
		w.t.Errorf("rejected (-want +got):\n%s", diff)
	}
}

func newKey(t testing.TB) *sign.Key {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keyOf(t, priv)
}

func keyOf(t testing.TB, priv crypto.PrivateKey) *sign.Key {
	t.Helper()
	k, err := sign.NewKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pub(k *sign.Key) string { return string(k.PublicPEM()) }

func TestBothFormatsWithAndWithoutReferrersAPI(t *testing.T) {
	for _, api := range []bool{true, false} {
		w, k := newWorld(t, api), newKey(t)
		w.wantNo(need(pub(k)), verify.CodeNoCandidate)
		done := w.attach(k, sign.Options{Both: true, Annotations: map[string]string{"env": "prod"}})
		if len(done) != 2 {
			t.Fatalf("signed into %v", done)
		}
		n := need(pub(k))
		n.Authority.Annotations = map[string]string{"env": "prod"}
		evidence, codes := w.verify(n)
		if len(evidence) != 2 || len(codes) != 0 {
			t.Fatalf("api %v: %+v, rejected %v", api, evidence, codes)
		}
		for i, want := range []gatehouse.Evidence{
			{Format: "cosign-legacy", Predicate: "cosign container image signature", Artifact: done[1]},
			{Format: "sigstore-bundle-v0.3", Predicate: "https://sigstore.dev/cosign/sign/v1", Artifact: done[0]},
		} {
			want.Need, want.Subject, want.Identity = n.Name, w.image.Ref.Digest, gatehouse.Identity{Key: k.ID()}
			got := evidence[i]
			if !strings.Contains(string(got.Payload), w.image.Ref.Digest.Hex()) {
				t.Errorf("payload %s", got.Payload)
			}
			if got.Mark == "" {
				t.Error("it cannot be told apart")
			}
			got.Payload, got.Mark = nil, ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("api %v (-want +got):\n%s", api, diff)
			}
		}
		w.wantNo(need(pub(newKey(t))), verify.CodeWrongKey, verify.CodeWrongKey)
	}
}

func TestKinds(t *testing.T) {
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, priv := range map[string]crypto.Signer{"P-384": p384, "P-521": p521, "RSA": rsa2048, "Ed25519": ed} {
		w, k := newWorld(t, true), keyOf(t, priv)
		w.attach(k, sign.Options{Both: true})
		if evidence, codes := w.verify(need(pub(k))); len(evidence) != 2 {
			t.Errorf("%s: %v, rejected %v", name, evidence, codes)
		}
	}
}

// TestHashOfAuthority: clients sign with a hash that does not suit the curve,
// and an authority may insist on one.
func TestHashOfAuthority(t *testing.T) {
	w := newWorld(t, true)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k := keyOf(t, p384)
	payload := w.simple(w.image.Ref.Digest, "cosign container image signature")
	sum := crypto.SHA256.New()
	sum.Write(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, p384, sum.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	w.legacy(payload, base64.StdEncoding.EncodeToString(sig))
	for hash, want := range map[string]int{"": 1, "sha256": 1, "sha384": 0, "sha512": 0} {
		n := need(pub(k))
		n.Authority.Hash = hash
		if evidence, codes := w.verify(n); len(evidence) != want {
			t.Errorf("%q: %d, rejected %v", hash, len(evidence), codes)
		}
	}
}

// legacy puts layers under the signature tag.
// statement is signed into a bundle with a key, by the reference library.
// TestFallbackTagBesideAPI: a registry that has the API and lists nothing,
// because the client wrote the tag.
func TestFallbackTagBesideAPI(t *testing.T) {
	w := newWorld(t, true)
	k, pem := ephemeral(t)
	l := w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, signPredicate)))
	m := w.manifest("", map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": w.blob([]byte("{}")), "layers": []any{l}})
	w.wantNo(need(pem), verify.CodeNoCandidate)
	w.manifest("sha256-"+w.image.Ref.Digest.Hex(), map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex,
		"manifests": []any{gatehouse.Descriptor{MediaType: typeManifest, Digest: m.Ref.Digest, Size: m.Size}},
	})
	if evidence, codes := w.verify(need(pem)); len(evidence) != 1 {
		t.Errorf("rejected %v", codes)
	}
}

func TestLegacyAsReferrer(t *testing.T) {
	w := newWorld(t, true)
	priv, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p := w.simple(w.image.Ref.Digest, "cosign container image signature")
	l := w.layer(typeSimple, p)
	l.Annotations = map[string]string{sigKey: w.rawSign(priv, p)}
	w.refer("application/vnd.dev.cosign.artifact.sig.v1+json", l)
	if evidence, codes := w.verify(need(pub(keyOf(t, priv)))); len(evidence) != 1 {
		t.Errorf("rejected %v", codes)
	}
}

func TestAnnotations(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.attach(k, sign.Options{Both: true, Annotations: map[string]string{"env": "prod", "team": "a"}})
	n := need(pub(k))
	for want, annotations := range map[int]map[string]string{2: {"team": "a"}, 0: {"env": "dev"}} {
		n.Authority.Annotations = annotations
		if evidence, codes := w.verify(n); len(evidence) != want {
			t.Errorf("%v: %d, rejected %v", annotations, len(evidence), codes)
		}
	}
	n.Authority.Annotations = map[string]string{"none": "x"}
	w.wantNo(n, verify.CodeAnnotation, verify.CodeAnnotation)
}

func TestAnnotationThatIsNoText(t *testing.T) {
	w := newWorld(t, true)
	k, pem := ephemeral(t)
	w.refer(typeBundle, w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, signPredicate))))
	n := need(pem)
	n.Authority.Annotations = map[string]string{"n": "1"}
	w.wantNo(n, verify.CodeAnnotation)
}

func TestTrust(t *testing.T) {
	w, k, k2 := newWorld(t, true), newKey(t), newKey(t)
	w.attach(k, sign.Options{Both: true})
	w.wantNo(need(), verify.CodeNoTrust)
	w.wantNo(gatehouse.Need{Kind: gatehouse.NeedSignature}, verify.CodeNoTrust)
	for name, n := range map[string]gatehouse.Need{
		"second key":      need(pub(k2), pub(k)),
		"two in one text": need(pub(k2) + "\n" + pub(k) + "\n"),
	} {
		if evidence, codes := w.verify(n); len(evidence) != 2 || evidence[0].Identity.Key != k.ID() {
			t.Errorf("%s: %v, rejected %v", name, evidence, codes)
		}
	}
	n := need(pub(k))
	n.Authority.RequireLog = true
	w.wantNo(n, verify.CodeLogRequired, verify.CodeLogRequired)
}

func TestBadNeeds(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.attach(k, sign.Options{})
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	weakDER := []byte(nil)
	if weak != nil {
		weakDER, _ = x509.MarshalPKIXPublicKey(&weak.PublicKey)
	}
	pair, err := sign.GenerateKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	hash := need(pub(k))
	hash.Authority.Hash = "md5"
	attestation := need(pub(k))
	attestation.Kind = gatehouse.NeedAttestation
	findings := need(pub(k))
	findings.Kind = gatehouse.NeedFindings
	for name, n := range map[string]gatehouse.Need{
		"placeholder":      need("<PEM>"),
		"empty key":        need(""),
		"garbage behind":   need(pub(k) + "garbage"),
		"private key":      need(string(pair.Private)),
		"certificate":      need("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"bad DER":          need("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
		"weak RSA":         need(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: weakDER}))),
		"too long":         need(strings.Repeat("x", 65<<10)),
		"too many":         need(strings.Repeat(pub(k), 65)),
		"one good one bad": need(pub(k), "<PEM>"),
		"hash":             hash,
		"no predicate":     attestation,
		"findings":         findings,
		"nothing":          {},
	} {
		evidence, _, err := verify.Image(t.Context(), w.reg, w.image.Ref, n)
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || len(evidence) != 0 {
			t.Errorf("%s: %v, %v", name, evidence, err)
		}
	}
	_, _, err = verify.Image(t.Context(), w.reg, gatehouse.Ref{Registry: "x", Repo: "app", Tag: "v1"}, need(pub(k)))
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a tag was verified: %v", err)
	}
}

// failing is a source that breaks at one method.
// TestFailingSource: what could not be read is never a plain no, and never
// keeps a signature that was read from counting.

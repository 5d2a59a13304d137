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
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

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
			got.Payload = nil
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

func (w *world) simple(d gatehouse.Digest, kind string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"example.com/app"},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, d, kind)
}

// legacy puts layers under the signature tag.
func (w *world) legacy(payload []byte, sig string) {
	w.t.Helper()
	l := w.layer(typeSimple, payload)
	l.Annotations = map[string]string{sigKey: sig}
	w.legacyLayers(l)
}

func (w *world) legacyLayers(layers ...gatehouse.Descriptor) gatehouse.Digest {
	w.t.Helper()
	return w.manifest(sign.LegacyTag(w.image.Ref.Digest), map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": w.layer("application/vnd.oci.image.config.v1+json", []byte("{}")), "layers": layers,
	}).Ref.Digest
}

func (w *world) rawSign(k *ecdsa.PrivateKey, payload []byte) string {
	w.t.Helper()
	h := crypto.SHA256.New()
	h.Write(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, k, h.Sum(nil))
	if err != nil {
		w.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

func TestLegacyRefusals(t *testing.T) {
	priv, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k := keyOf(t, priv)
	other := gatehouse.DigestOf([]byte("another image"))
	cases := map[string]struct {
		make func(w *world) (payload []byte, sig string)
		code string
	}{
		"good": {func(w *world) ([]byte, string) {
			p := w.simple(w.image.Ref.Digest, "cosign container image signature")
			return p, w.rawSign(priv, p)
		}, ""},
		"other digest": {func(w *world) ([]byte, string) {
			p := w.simple(other, "cosign container image signature")
			return p, w.rawSign(priv, p)
		}, verify.CodeOtherDigest},
		"tampered payload": {func(w *world) ([]byte, string) {
			return w.simple(w.image.Ref.Digest, "cosign container image signature"), w.rawSign(priv, w.simple(other, "cosign container image signature"))
		}, verify.CodeWrongKey},
		"other type": {func(w *world) ([]byte, string) {
			p := w.simple(w.image.Ref.Digest, "atomic container signature")
			return p, w.rawSign(priv, p)
		}, verify.CodeNotASignature},
		"no signature": {func(w *world) ([]byte, string) {
			return w.simple(w.image.Ref.Digest, "cosign container image signature"), ""
		}, verify.CodeMalformed},
		"signature no b64": {func(w *world) ([]byte, string) {
			return w.simple(w.image.Ref.Digest, "cosign container image signature"), "%%"
		}, verify.CodeMalformed},
		"signature huge": {func(w *world) ([]byte, string) {
			return w.simple(w.image.Ref.Digest, "cosign container image signature"), strings.Repeat("A", 20<<10)
		}, verify.CodeTooLarge},
		"signature garbage": {func(w *world) ([]byte, string) {
			return w.simple(w.image.Ref.Digest, "cosign container image signature"), "AAAA"
		}, verify.CodeWrongKey},
		"payload not JSON": {func(w *world) ([]byte, string) { p := []byte("x"); return p, w.rawSign(priv, p) }, verify.CodeMalformed},
		"payload empty":    {func(w *world) ([]byte, string) { p := []byte("{}"); return p, w.rawSign(priv, p) }, verify.CodeNotASignature},
		"payload too large": {func(w *world) ([]byte, string) {
			p := append(w.simple(w.image.Ref.Digest, "cosign container image signature"), []byte(strings.Repeat(" ", 1<<20))...)
			return p, w.rawSign(priv, p)
		}, verify.CodeTooLarge},
	}
	for name, c := range cases {
		w := newWorld(t, true)
		w.legacy(c.make(w))
		evidence, codes := w.verify(need(pub(k)))
		if c.code == "" {
			if len(evidence) != 1 {
				t.Errorf("%s: rejected %v", name, codes)
			}
			continue
		}
		if len(evidence) != 0 || !cmp.Equal(codes, []string{c.code}) {
			t.Errorf("%s: evidence %v, rejected %v, want %s", name, evidence, codes, c.code)
		}
	}
}

// statement is signed into a bundle with a key, by the reference library.
func bundleOf(t testing.TB, k sgsign.Keypair, payloadType string, payload []byte) []byte {
	t.Helper()
	b, err := sgsign.Bundle(&sgsign.DSSEData{Data: payload, PayloadType: payloadType}, k, sgsign.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func ephemeral(t testing.TB) (*sgsign.EphemeralKeypair, string) {
	t.Helper()
	k, err := sgsign.NewEphemeralKeypair(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.GetPublicKeyPem()
	if err != nil {
		t.Fatal(err)
	}
	return k, p
}

const inToto = "application/vnd.in-toto+json"

func statementFor(d gatehouse.Digest, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":%q},"annotations":{"env":"prod","n":1}}],"predicateType":%q,"predicate":{}}`, d.Hex(), predicate)
}

const signPredicate = "https://sigstore.dev/cosign/sign/v1"

func TestBundleRefusals(t *testing.T) {
	k, pem := ephemeral(t)
	other := gatehouse.DigestOf([]byte("another image"))
	tamper := func(b []byte, from, to string) []byte {
		if !strings.Contains(string(b), from) {
			t.Fatalf("%q is not in the bundle", from)
		}
		return []byte(strings.Replace(string(b), from, to, 1))
	}
	b64 := base64.StdEncoding.EncodeToString
	cases := map[string]struct {
		body func(d gatehouse.Digest) []byte
		code string
	}{
		"good":         {func(d gatehouse.Digest) []byte { return bundleOf(t, k, inToto, statementFor(d, signPredicate)) }, ""},
		"other digest": {func(gatehouse.Digest) []byte { return bundleOf(t, k, inToto, statementFor(other, signPredicate)) }, verify.CodeOtherDigest},
		"tampered payload": {func(d gatehouse.Digest) []byte {
			return tamper(bundleOf(t, k, inToto, statementFor(other, signPredicate)), b64(statementFor(other, signPredicate)), b64(statementFor(d, signPredicate)))
		}, verify.CodeWrongKey},
		"attestation is no signature": {func(d gatehouse.Digest) []byte {
			return bundleOf(t, k, inToto, statementFor(d, "https://cosign.sigstore.dev/attestation/vuln/v1"))
		}, verify.CodeNotASignature},
		"no statement":   {func(d gatehouse.Digest) []byte { return bundleOf(t, k, "text/plain", []byte("hello")) }, verify.CodeNotASignature},
		"statement type": {func(d gatehouse.Digest) []byte { return bundleOf(t, k, inToto, []byte(`{"_type":"x"}`)) }, verify.CodeMalformed},
		"statement text": {func(d gatehouse.Digest) []byte { return bundleOf(t, k, inToto, []byte(`x`)) }, verify.CodeMalformed},
		"no subject": {func(d gatehouse.Digest) []byte {
			return bundleOf(t, k, inToto, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"`+signPredicate+`"}`))
		}, verify.CodeOtherDigest},
		"digest of other algorithm": {func(d gatehouse.Digest) []byte {
			return bundleOf(t, k, inToto, tamper(statementFor(d, signPredicate), "sha256", "sha512"))
		}, verify.CodeOtherDigest},
		"message signature": {func(d gatehouse.Digest) []byte {
			b, err := sgsign.Bundle(&sgsign.PlainData{Data: []byte(d)}, k, sgsign.BundleOptions{})
			if err != nil {
				t.Fatal(err)
			}
			j, _ := protojson.Marshal(b)
			return j
		}, verify.CodeNotASignature},
		"not JSON": {func(gatehouse.Digest) []byte { return []byte("x") }, verify.CodeMalformed},
		"empty":    {func(gatehouse.Digest) []byte { return []byte("{}") }, verify.CodeUnsupported},
		"other version": {func(gatehouse.Digest) []byte {
			return []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.9+json","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{}}`)
		}, verify.CodeUnsupported},
		"no signature": {func(gatehouse.Digest) []byte {
			return []byte(`{"mediaType":"` + typeBundle + `","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{}}`)
		}, verify.CodeMalformed},
		"no material": {func(gatehouse.Digest) []byte { return []byte(`{"mediaType":"` + typeBundle + `","dsseEnvelope":{}}`) }, verify.CodeMalformed},
		"too large":   {func(gatehouse.Digest) []byte { return []byte(strings.Repeat(" ", 8<<20+1)) }, verify.CodeTooLarge},
	}
	for name, c := range cases {
		w := newWorld(t, true)
		w.refer(typeBundle, w.layer(typeBundle, c.body(w.image.Ref.Digest)))
		evidence, codes := w.verify(need(pem))
		if c.code == "" {
			if len(evidence) != 1 {
				t.Errorf("%s: rejected %v", name, codes)
			}
			continue
		}
		if len(evidence) != 0 || !cmp.Equal(codes, []string{c.code}) {
			t.Errorf("%s: evidence %v, rejected %v, want %s", name, evidence, codes, c.code)
		}
	}
}

func TestOlderBundles(t *testing.T) {
	k, pem := ephemeral(t)
	for _, mediaType := range []string{"application/vnd.dev.sigstore.bundle+json;version=0.1", "application/vnd.dev.sigstore.bundle+json;version=0.2", "application/vnd.dev.sigstore.bundle+json;version=0.3"} {
		w := newWorld(t, true)
		body := bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, signPredicate))
		body = []byte(strings.Replace(string(body), typeBundle, mediaType, 1))
		// The artifact type is missing, as in listings by older clients.
		w.refer("", w.layer(mediaType, body))
		if evidence, codes := w.verify(need(pem)); len(evidence) != 1 || !strings.HasSuffix(mediaType, strings.TrimPrefix(evidence[0].Format, "sigstore-bundle-v")) {
			t.Errorf("%s: %+v, rejected %v", mediaType, evidence, codes)
		}
	}
}

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

func TestAttestations(t *testing.T) {
	const vuln = "https://cosign.sigstore.dev/attestation/vuln/v1"
	w := newWorld(t, true)
	k, pem := ephemeral(t)
	w.refer(typeBundle, w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, vuln))))
	w.refer(typeBundle, w.layer(typeBundle, bundleOf(t, k, inToto, statementFor(w.image.Ref.Digest, signPredicate))))
	// As `cosign attest` before version 3 wrote it, with a foreign signature in front.
	payload := statementFor(w.image.Ref.Digest, vuln)
	sig, _, err := k.SignData(t.Context(), fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inToto), inToto, len(payload), payload))
	if err != nil {
		t.Fatal(err)
	}
	envelope, _ := json.Marshal(map[string]any{"payloadType": inToto, "payload": payload, "signatures": []any{map[string]any{"sig": []byte("no")}, map[string]any{"keyid": "", "sig": sig}}})
	w.manifest("sha256-"+w.image.Ref.Digest.Hex()+".att", map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": w.blob([]byte("{}")), "layers": []any{w.layer("application/vnd.dsse.envelope.v1+json", envelope)},
	})
	n := need(pem)
	n.Kind, n.Predicate = gatehouse.NeedAttestation, vuln
	evidence, codes := w.verify(n)
	var formats []string
	for _, e := range evidence {
		formats = append(formats, e.Format)
	}
	if diff := cmp.Diff([]string{"cosign-dsse", "sigstore-bundle-v0.3"}, formats); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{verify.CodeWrongKey, verify.CodeOtherPredict}, codes); diff != "" {
		t.Error(diff)
	}
	// And none of it is a signature but the one.
	if evidence, codes := w.verify(need(pem)); len(evidence) != 1 || !cmp.Equal(codes, []string{verify.CodeNotASignature}) {
		t.Errorf("%d, rejected %v", len(evidence), codes)
	}
}

func TestOtherThingsOnTheImage(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.refer("application/spdx+json", w.layer("application/spdx+json", []byte("{}")))
	w.wantNo(need(pub(k)), verify.CodeNoCandidate)
	w.manifest("sha256-"+w.image.Ref.Digest.Hex(), map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": []any{
			gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("gone")), Size: 4},
			gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("notary")), Size: 4, ArtifactType: "application/vnd.cncf.notary.signature"},
			gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("huge")), Size: 1 << 40},
		},
	})
	w.wantNo(need(pub(k)), verify.CodeMissing, verify.CodeUnsupported, verify.CodeTooLarge)
}

// failing is a source that breaks at one method.
type failing struct {
	verify.Source
	tag, referrers, manifest, blob error
}

func (f failing) ManifestByTag(ctx context.Context, r gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	if f.tag != nil {
		return nil, f.tag
	}
	return f.Source.ManifestByTag(ctx, r, tag)
}

func (f failing) Referrers(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest, a string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	if f.referrers != nil {
		return nil, f.referrers
	}
	return f.Source.Referrers(ctx, r, d, a, after, n)
}

func (f failing) Manifest(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	if f.manifest != nil {
		return nil, f.manifest
	}
	return f.Source.Manifest(ctx, r, d)
}

func (f failing) OpenBlob(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Blob, error) {
	if f.blob != nil {
		return nil, f.blob
	}
	return f.Source.OpenBlob(ctx, r, d)
}

// TestFailingSource: what could not be read is never a plain no, and never
// keeps a signature that was read from counting.
func TestFailingSource(t *testing.T) {
	w, k := newWorld(t, true), newKey(t)
	w.attach(k, sign.Options{Both: true})
	down := gatehouse.Errorf(gatehouse.CodeUnavailable, "down")
	for name, c := range map[string]struct {
		src  failing
		want int // pieces of evidence; 0 = an error
	}{
		"tag":            {failing{tag: down}, 1},
		"referrers":      {failing{referrers: down}, 1},
		"manifest":       {failing{manifest: down}, 1}, // the tag brings its manifest along
		"blob":           {failing{blob: down}, 0},
		"both":           {failing{tag: down, referrers: down}, 0},
		"tag, manifest":  {failing{tag: down, manifest: down}, 0},
		"a plain error":  {failing{blob: errors.New("disk")}, 0},
		"denied":         {failing{blob: gatehouse.Errorf(gatehouse.CodeDenied, "login")}, 0},
		"only not found": {failing{tag: gatehouse.Errorf(gatehouse.CodeNotFound, "x"), referrers: gatehouse.Errorf(gatehouse.CodeNotFound, "x")}, -1},
	} {
		c.src.Source = w.reg
		evidence, rejected, err := verify.Image(t.Context(), c.src, w.image.Ref, need(pub(k)))
		switch {
		case c.want > 0 && (err != nil || len(evidence) != c.want):
			t.Errorf("%s: %v, %v", name, evidence, err)
		case c.want == 0 && (err == nil || len(evidence) != 0):
			t.Errorf("%s: %v, %v, rejected %v", name, evidence, err, rejected)
		case c.want < 0 && (err != nil || len(evidence) != 0 || rejected[0].Code != verify.CodeNoCandidate):
			t.Errorf("%s: %v, %v, rejected %v", name, evidence, err, rejected)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if evidence, _, err := verify.Image(ctx, w.reg, w.image.Ref, need(pub(k))); err == nil || len(evidence) != 0 {
		t.Errorf("cancelled: %v, %v", evidence, err)
	}
}

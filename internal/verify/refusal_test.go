package verify_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

func (w *world) simple(d gatehouse.Digest, kind string) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"example.com/app"},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, d, kind)
}

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
		}, verify.CodeBadSignature},
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

package verify_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// FuzzKeyless: whatever a layer and its annotations are, only what the identity
// has signed becomes evidence.
func FuzzKeyless(f *testing.F) {
	s := verifytest.NewFixed(f)
	statement, payload := statementFor(image.Digest, signPredicate), simplePayload(image.Digest)
	v, n := remembering(), keyless(s)
	v.Cache = nil
	for _, o := range []signing{{Log: verifytest.LogV1}, {Log: verifytest.LogV2, Stamp: true}, {Log: verifytest.LogV1SET, Version: "0.1"}, {Stamp: true, Chain: true}, {Log: verifytest.LogDSSE, Stamp: true}} {
		f.Add(s.Bundle(statement, o), typeBundle, "", "", "", "", "")
	}
	for _, stamp := range []bool{true, false} {
		a := s.Annotations(payload, signing{Log: verifytest.LogV1SET, Stamp: stamp})
		f.Add(payload, typeSimple, a[sigKey], a["dev.sigstore.cosign/certificate"], a["dev.sigstore.cosign/chain"], a["dev.sigstore.cosign/bundle"], a["dev.sigstore.cosign/rfc3161timestamp"])
		layer, a := s.Envelope(statement, signing{Log: verifytest.LogV1SET, Stamp: stamp})
		f.Add(layer, "application/vnd.dsse.envelope.v1+json", "", a["dev.sigstore.cosign/certificate"], a["dev.sigstore.cosign/chain"], a["dev.sigstore.cosign/bundle"], a["dev.sigstore.cosign/rfc3161timestamp"])
	}
	f.Fuzz(func(t *testing.T, layer []byte, mediaType, sig, cert, chain, log, stamp string) {
		m := newMemory()
		l := m.put(layer)
		l.MediaType, l.Annotations = mediaType, map[string]string{
			sigKey: sig, "dev.sigstore.cosign/certificate": cert, "dev.sigstore.cosign/chain": chain,
			"dev.sigstore.cosign/bundle": log, "dev.sigstore.cosign/rfc3161timestamp": stamp,
		}
		m.referrers = []gatehouse.Descriptor{m.manifest(l)}
		for _, need := range []gatehouse.Need{n, ignoring(n)} {
			evidence, rejected, err := v.Image(t.Context(), m, image, need)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range evidence {
				if !bytes.Equal(e.Payload, statement) && !bytes.Equal(e.Payload, payload) || e.Identity.Subject != verifytest.Subject || !e.SignedAt.Equal(verifytest.At) {
					t.Fatalf("evidence %+v for %s", e, e.Payload)
				}
			}
			for _, r := range rejected {
				if r.Code == "" || r.Message == "" || bytes.Contains([]byte(r.Message), []byte("verifier fail")) {
					t.Fatalf("rejected %+v", r)
				}
			}
		}
	})
}

func ignoring(n gatehouse.Need) gatehouse.Need {
	k := *n.Authority.Keyless
	k.IgnoreLog, k.IgnoreSCT = true, true
	n.Authority.Keyless, n.Authority.AnyAttestation = &k, true
	return n
}

// FuzzManifests: manifests, indexes under the fallback tag and indexes that images
// were reached by, as anybody may write them.
func FuzzManifests(f *testing.F) {
	k := verifytest.FixedKey(f, 100)
	s := verifytest.NewFixed(f)
	m := newMemory()
	good := m.manifest(m.bundle(s.Bundle(statementFor(image.Digest, signPredicate), signing{Key: k})))
	f.Add(m.bytes[good.Digest], false)
	index, _ := json.Marshal(map[string]any{"manifests": []any{good, gatehouse.Descriptor{Digest: image.Digest}}})
	f.Add(index, true)
	f.Add([]byte(`{"artifactType":"application/vnd.cncf.notary.signature","layers":[{}]}`), false)
	f.Add([]byte(`{"manifests":[{"digest":"x","size":-1},null]}`), true)
	f.Fuzz(func(t *testing.T, body []byte, fallback bool) {
		d := m.put(body)
		defer delete(m.bytes, d.Digest)
		m.referrers, m.tags = []gatehouse.Descriptor{d}, map[string]gatehouse.Digest{}
		if fallback {
			m.tags["sha256-"+image.Digest.Hex()] = d.Digest
		}
		for _, kind := range []gatehouse.NeedKind{gatehouse.NeedSignature, gatehouse.NeedSBOM} {
			n := need(verifytest.PublicPEM(t, k))
			n.Kind, n.Through = kind, d.Digest
			if d.Digest == good.Digest {
				m.bytes[d.Digest] = body
			}
			evidence, _, err := verify.Verifier{}.Image(t.Context(), m, image, n)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range evidence {
				if !bytes.Equal(e.Payload, statementFor(image.Digest, signPredicate)) || e.Through != "" {
					t.Fatalf("%+v", e)
				}
			}
		}
	})
}

// FuzzCertificate: the extensions of a certificate that anybody may have made.
func FuzzCertificate(f *testing.F) {
	s := verifytest.NewFixed(f)
	for _, c := range []verifytest.Certificate{{}, {NoSCT: true}, {Extensions: map[int]string{2: "push", 12: "x", 22: "public"}}} {
		f.Add(s.Leaf(c, verifytest.NewKey(f)).Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		verify.SCTLogs(c)
		id, err := verify.IdentityOf(c)
		if err == nil && id.Subject == "" {
			t.Errorf("a certificate for nobody: %+v", id)
		}
		if again, _ := verify.IdentityOf(c); cmp.Diff(id, again) != "" {
			t.Error("it is for somebody else the second time")
		}
	})
}

package verify_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

type signing = verifytest.Signing

// keyless is the need for a signature of the usual signer.
func keyless(s *verifytest.Sigstore) gatehouse.Need {
	return gatehouse.Need{Name: "policy/keyless", Kind: gatehouse.NeedSignature, Authority: gatehouse.Authority{
		Name: "release", Trust: s.Trust(),
		Keyless: &gatehouse.Keyless{Identities: []gatehouse.IdentityRule{{Issuer: verifytest.Issuer, Subject: verifytest.Subject}}},
	}}
}

// now is shortly after everything was signed.
func now() time.Time { return verifytest.At.Add(time.Hour) }

// remembering is as the server verifies.
func remembering() verify.Verifier {
	return verify.Verifier{Cache: verify.NewLRU(1000), Roots: trust.NewCache(8), Now: now}
}

// hang puts a bundle on the image.
func (m *memory) hang(bundle []byte) *memory {
	m.referrers = append(m.referrers, m.manifest(m.bundle(bundle)))
	return m
}

// tag puts a layer under a signature tag.
func (m *memory) tag(suffix, mediaType string, layer []byte, annotations map[string]string) *memory {
	l := m.put(layer)
	l.MediaType, l.Annotations = mediaType, annotations
	m.tags["sha256-"+image.Digest.Hex()+suffix] = m.manifest(l).Digest
	return m
}

func simplePayload(d gatehouse.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"example.com/app"},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, d)
}

// forms are the ways in which a signature can be written, each with the log that
// goes with it. Stamps are needed where the log does not tell the time.
var forms = map[string]func(s *verifytest.Sigstore, o signing) *memory{
	"bundle v0.1, promise":          inBundle("0.1", verifytest.LogV1SET),
	"bundle v0.2, Rekor v1":         inBundle("0.2", verifytest.LogV1),
	"bundle v0.3, Rekor v1":         inBundle("0.3", verifytest.LogV1),
	"bundle v0.3, dsse in Rekor v2": inBundle("0.3", verifytest.LogDSSE),
	"bundle v0.3, Rekor v2":         inBundle("0.3", verifytest.LogV2),
	"legacy simple signature":       func(s *verifytest.Sigstore, o signing) *memory { return inLegacy(s, o) },
}

func inBundle(version, log string) func(s *verifytest.Sigstore, o signing) *memory {
	return func(s *verifytest.Sigstore, o signing) *memory {
		o.Version, o.Log, o.Stamp = version, log, o.Stamp || log == verifytest.LogV2 || log == verifytest.LogDSSE
		return newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), o))
	}
}

func inLegacy(s *verifytest.Sigstore, o signing) *memory {
	if o.Log == verifytest.NoLog {
		o.Log = verifytest.LogV1SET
	}
	p := simplePayload(image.Digest)
	return newMemory().tag(".sig", typeSimple, p, s.Annotations(p, o))
}

func TestKeylessInEveryForm(t *testing.T) {
	s := verifytest.New(t)
	workflow := map[int]string{2: "push", 3: "old", 4: "release", 5: "acme/app", 6: "refs/heads/main", 9: "https://github.com/acme/ci@v1", 11: "github-hosted",
		12: "https://github.com/acme/app", 13: "0123abcd", 14: "refs/tags/v1", 20: "release", 21: "https://github.com/acme/app/actions/runs/1"}
	for name, in := range forms {
		m := in(s, signing{Certificate: verifytest.Certificate{Extensions: workflow}})
		evidence, rejected, err := remembering().Image(t.Context(), m, image, keyless(s))
		if err != nil || len(evidence) != 1 {
			t.Errorf("%s: %v, rejected %v, %v", name, evidence, rejected, err)
			continue
		}
		e := evidence[0]
		want := gatehouse.Identity{Issuer: verifytest.Issuer, Subject: verifytest.Subject, Workflow: gatehouse.Workflow{
			Trigger: "release", SHA: "0123abcd", Name: "release", Repository: "acme/app", Ref: "refs/tags/v1", BuildSigner: "https://github.com/acme/ci@v1",
			SourceRepository: "https://github.com/acme/app", RunInvocation: "https://github.com/acme/app/actions/runs/1", Runner: "github-hosted",
		}}
		if diff := cmp.Diff(want, e.Identity); diff != "" {
			t.Errorf("%s: identity (-want +got):\n%s", name, diff)
		}
		if !e.SignedAt.Equal(verifytest.At) || e.Subject != image.Digest || e.Need != "policy/keyless" {
			t.Errorf("%s: %+v", name, e)
		}
		if e.Log == nil || e.Log.Log == "" || e.Log.At.IsZero() != strings.HasSuffix(name, "v2") {
			t.Errorf("%s: log entry %+v", name, e.Log)
		}
	}
}

// TestKeylessRefusals: each thing that can be wrong is refused and named.
func TestKeylessRefusals(t *testing.T) {
	s, stranger := verifytest.New(t), verifytest.New(t)
	late := verifytest.At.Add(time.Hour)
	statement := statementFor(image.Digest, signPredicate)
	spoil := func(f func(m *protobundle.VerificationMaterial)) signing {
		return signing{Log: verifytest.LogV1, Change: func(b *protobundle.Bundle) { f(b.VerificationMaterial) }}
	}
	elsewhere := func(log string) signing {
		o := signing{Log: log, Stamp: true}
		o.Forge = func(_, cert []byte) ([]byte, []byte) { return []byte("another signature"), cert }
		return o
	}
	for name, c := range map[string]struct {
		signing
		by      *verifytest.Sigstore // nil: s
		payload []byte               // nil: the right one
		need    func(*gatehouse.Need)
		code    string
		says    string
	}{
		"wrong subject": {signing: signing{Log: verifytest.LogV1, Certificate: verifytest.Certificate{Subject: "https://evil.example"}}, code: verify.CodeWrongIdentity, says: "https://evil.example"},
		"wrong issuer":  {signing: signing{Log: verifytest.LogV1, Certificate: verifytest.Certificate{Issuer: "https://evil.example"}}, code: verify.CodeWrongIdentity, says: "https://evil.example"},
		"tampered payload": {signing: signing{Log: verifytest.LogV1, Change: func(b *protobundle.Bundle) {
			e := b.GetDsseEnvelope()
			e.Payload = append(bytes.Clone(e.Payload), ' ')
		}}, code: verify.CodeBadSignature, says: "changed"},
		"another digest":            {signing: signing{Log: verifytest.LogV1}, payload: statementFor(gatehouse.DigestOf([]byte("x")), signPredicate), code: verify.CodeOtherDigest},
		"no signature":              {signing: signing{Log: verifytest.LogV1}, payload: statementFor(image.Digest, "https://example.com/p"), code: verify.CodeNotASignature},
		"another CA":                {signing: signing{Log: verifytest.LogV1}, by: stranger, code: verify.CodeUntrustedCA, says: "intermediate"},
		"expired, no time":          {signing: signing{}, need: func(n *gatehouse.Need) { n.Authority.Keyless.IgnoreLog = true }, code: verify.CodeNoTimestamp, says: "when it was signed"},
		"dsse in v2, no time":       {signing: signing{Log: verifytest.LogDSSE}, code: verify.CodeNoTimestamp},
		"another entry, dsse in v2": {signing: elsewhere(verifytest.LogDSSE), code: verify.CodeLogMismatch, says: "another signature"},
		"another certificate, dsse in v2": {signing: signing{Log: verifytest.LogDSSE, Stamp: true, Forge: func(sig, _ []byte) ([]byte, []byte) {
			return sig, []byte(verifytest.PublicPEM(t, verifytest.NewKey(t)))
		}}, code: verify.CodeLogMismatch, says: "another key"},
		"another payload, dsse in v2": {signing: signing{Log: verifytest.LogDSSE, Stamp: true, Change: func(b *protobundle.Bundle) {
			e := b.VerificationMaterial.TlogEntries[0]
			e.CanonicalizedBody = bytes.Replace(e.CanonicalizedBody, []byte(`"digest":"`), []byte(`"digest":"AAAA`), 1)
		}}, code: verify.CodeLogMismatch, says: "another payload"},
		"bad proof, dsse in v2": {signing: signing{Log: verifytest.LogDSSE, Stamp: true, Change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].InclusionProof.Hashes[0][0] ^= 1
		}}, code: verify.CodeBadLogProof},
		"no proof, dsse in v2": {signing: signing{Log: verifytest.LogDSSE, Stamp: true, Change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].InclusionProof = nil
		}}, code: verify.CodeBadLogProof},
		"unknown log, dsse in v2": {signing: signing{Log: verifytest.LogDSSE, Stamp: true}, need: without(s, func(p *trust.PEM) { p.Logs = stranger.Files().Logs }), code: verify.CodeUnknownLog},
		"v2, no time":             {signing: signing{Log: verifytest.LogV2}, code: verify.CodeNoTimestamp},
		"logged late":             {signing: signing{Log: verifytest.LogV1, LoggedAt: late}, code: verify.CodeExpired, says: "not valid"},
		"stamped late":            {signing: signing{Log: verifytest.LogV2, Stamp: true, StampedAt: late}, code: verify.CodeExpired, says: "not valid"},
		"no entry":                {signing: signing{Stamp: true}, code: verify.CodeLogRequired, says: "brings none"},
		"no log trusted":          {signing: signing{Log: verifytest.LogV1}, need: without(s, func(p *trust.PEM) { p.Logs = nil }), code: verify.CodeLogRequired, says: "no log is trusted"},
		"unknown log":             {signing: signing{Log: verifytest.LogV1}, need: without(s, func(p *trust.PEM) { p.Logs = stranger.Files().Logs }), code: verify.CodeUnknownLog},
		"another entry, v1":       {signing: elsewhere(verifytest.LogV1), code: verify.CodeLogMismatch, says: "another signature"},
		"another entry, v2":       {signing: elsewhere(verifytest.LogV2), code: verify.CodeLogMismatch, says: "another signature"},
		"another certificate in the log": {signing: signing{Log: verifytest.LogV1, Forge: func(sig, _ []byte) ([]byte, []byte) {
			return sig, []byte(verifytest.PublicPEM(t, verifytest.NewKey(t)))
		}}, code: verify.CodeLogMismatch, says: "another key"},
		"bad promise": {signing: spoil(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries[0].InclusionPromise.SignedEntryTimestamp = []byte("no")
		}),
			code: verify.CodeBadLogPromise, says: "SET"},
		"bad proof": {signing: spoil(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].InclusionProof.Hashes[0][0] ^= 1 }), code: verify.CodeBadLogProof},
		"bad proof, v2": {signing: signing{Log: verifytest.LogV2, Stamp: true, Change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries[0].InclusionProof.Hashes[0][0] ^= 1
		}}, code: verify.CodeBadLogProof},
		"another checkpoint": {signing: spoil(func(m *protobundle.VerificationMaterial) {
			c := m.TlogEntries[0].InclusionProof.Checkpoint
			c.Envelope = strings.Replace(c.Envelope, "\n2\n", "\n3\n", 1)
		}), code: verify.CodeBadLogProof},
		"no SCT":      {signing: signing{Log: verifytest.LogV1, Certificate: verifytest.Certificate{NoSCT: true}}, code: verify.CodeNoSCT},
		"bad SCT":     {signing: signing{Log: verifytest.LogV1, Certificate: verifytest.Certificate{BadSCT: true}}, code: verify.CodeBadSCT, says: "for this certificate"},
		"foreign SCT": {signing: signing{Log: verifytest.LogV1, Certificate: verifytest.Certificate{CTKey: verifytest.NewKey(t)}}, code: verify.CodeBadSCT, says: "no certificate transparency log"},
		"unknown TSA": {signing: signing{Log: verifytest.LogV2, Stamp: true}, need: without(s, func(p *trust.PEM) { p.TSAs = stranger.Files().TSAs }),
			code: verify.CodeBadTimestamp, says: "not trusted"},
		"no TSA trusted": {signing: signing{Log: verifytest.LogV2, Stamp: true}, need: without(s, func(p *trust.PEM) { p.TSAs = nil }), code: verify.CodeBadTimestamp, says: "no timestamp authority is trusted"},
		"stamp over something else": {signing: signing{Log: verifytest.LogV2, Change: func(b *protobundle.Bundle) {
			b.VerificationMaterial.TimestampVerificationData = s.Stamp([]byte("something else"), verifytest.At)
		}}, code: verify.CodeBadTimestamp},
		"stamp required": {signing: signing{Log: verifytest.LogV1}, need: func(n *gatehouse.Need) { n.Authority.RequireTimestamp = true }, code: verify.CodeNoTimestamp},
		"in the future": {signing: signing{Log: verifytest.LogV1, LoggedAt: late.Add(time.Minute * 10), Certificate: verifytest.Certificate{NotBefore: late, NotAfter: late.Add(time.Hour)}},
			code: verify.CodeClockSkew, says: "10m0s in the future"},
		"plain key":             {signing: signing{Log: verifytest.LogV1, Key: verifytest.NewKey(t)}, code: verify.CodeWrongKey, says: "identities are trusted"},
		"legacy wanted":         {signing: signing{Log: verifytest.LogV1}, need: func(n *gatehouse.Need) { n.Authority.Format = "legacy" }, code: verify.CodeOtherFormat, says: "legacy"},
		"entry of another kind": {signing: spoil(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].KindVersion.Kind = "helm" }), code: verify.CodeUnsupported, says: "helm"},
		"entry garbage":         {signing: spoil(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].CanonicalizedBody = []byte("{}") }), code: verify.CodeMalformed},
		"many entries": {signing: spoil(func(m *protobundle.VerificationMaterial) {
			for range 8 {
				m.TlogEntries = append(m.TlogEntries, m.TlogEntries[0])
			}
		}), code: verify.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			by, body, n := s, statement, keyless(s)
			if c.by != nil {
				by = c.by
			}
			if c.payload != nil {
				body = c.payload
			}
			if c.need != nil {
				c.need(&n)
			}
			m, v := newMemory().hang(by.Bundle(body, c.signing)), remembering()
			for range 2 { // the second time out of the cache
				evidence, rejected, err := v.Image(t.Context(), m, image, n)
				if err != nil || len(evidence) != 0 || len(rejected) != 1 {
					t.Fatalf("%+v, rejected %+v, %v", evidence, rejected, err)
				}
				if r := rejected[0]; r.Code != c.code || !strings.Contains(r.Message, c.says) {
					t.Errorf("%s: %s, want %s: … %s …", r.Code, r.Message, c.code, c.says)
				}
			}
		})
	}
}

// without is a need whose trust lacks something.
func without(s *verifytest.Sigstore, change func(*trust.PEM)) func(*gatehouse.Need) {
	return func(n *gatehouse.Need) {
		p := s.Files()
		change(&p)
		n.Authority.Trust = s.TrustIn(p)
	}
}

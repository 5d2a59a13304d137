package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// codes verifies and returns how much evidence there is, and why the rest is none.
func codes(t *testing.T, v verify.Verifier, src verify.Source, n gatehouse.Need) (int, map[string]int) {
	t.Helper()
	evidence, rejected, err := v.Image(t.Context(), src, image, n)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rejected {
		if r.Code != verify.CodeTooMany && r.Message == "" {
			t.Errorf("%s without a reason", r.Code)
		}
	}
	return len(evidence), codesOf(rejected)
}

func TestLegacyKeylessRefusals(t *testing.T) {
	s, stranger := verifytest.New(t), verifytest.New(t)
	p := simplePayload(image.Digest)
	for name, c := range map[string]struct {
		signing
		by      *verifytest.Sigstore
		payload []byte
		change  func(annotations map[string]string)
		code    string
	}{
		"another CA":     {by: stranger, code: verify.CodeUntrustedCA},
		"another digest": {payload: simplePayload(gatehouse.DigestOf([]byte("x"))), code: verify.CodeOtherDigest},
		"tampered payload": {payload: append(simplePayload(image.Digest), ' '), change: func(a map[string]string) {
			for k, v := range s.Annotations(p, signing{Log: verifytest.LogV1SET}) {
				a[k] = v
			}
		}, code: verify.CodeBadSignature},
		"no entry": {change: func(a map[string]string) { delete(a, "dev.sigstore.cosign/bundle") }, code: verify.CodeLogRequired},
		"entry of another": {change: func(a map[string]string) {
			a["dev.sigstore.cosign/bundle"] = s.Annotations(p, signing{Log: verifytest.LogV1SET})["dev.sigstore.cosign/bundle"]
		}, code: verify.CodeLogMismatch},
		"entry not JSON":     {change: func(a map[string]string) { a["dev.sigstore.cosign/bundle"] = "x" }, code: verify.CodeMalformed},
		"entry without body": {change: func(a map[string]string) { a["dev.sigstore.cosign/bundle"] = "{}" }, code: verify.CodeMalformed},
		"entry huge":         {change: func(a map[string]string) { a["dev.sigstore.cosign/bundle"] = strings.Repeat(" ", 600<<10) }, code: verify.CodeTooLarge},
		"bad promise": {change: func(a map[string]string) {
			a["dev.sigstore.cosign/bundle"] = strings.Replace(a["dev.sigstore.cosign/bundle"], `"logIndex":0`, `"logIndex":7`, 1)
		}, code: verify.CodeBadLogPromise},
		"certificate garbage": {change: func(a map[string]string) { a["dev.sigstore.cosign/certificate"] = "x" }, code: verify.CodeMalformed},
		"no certificate":      {change: func(a map[string]string) { delete(a, "dev.sigstore.cosign/certificate") }, code: verify.CodeWrongKey},
		"stamp garbage":       {change: func(a map[string]string) { a["dev.sigstore.cosign/rfc3161timestamp"] = "{}" }, code: verify.CodeMalformed},
		"wrong identity":      {signing: signing{Certificate: verifytest.Certificate{Subject: "mailto:x"}}, code: verify.CodeWrongIdentity},
		"logged late":         {signing: signing{LoggedAt: now()}, code: verify.CodeExpired},
	} {
		t.Run(name, func(t *testing.T) {
			by, payload := s, p
			if c.by != nil {
				by = c.by
			}
			if c.payload != nil {
				payload = c.payload
			}
			c.Log = verifytest.LogV1SET
			a := by.Annotations(payload, c.signing)
			if c.change != nil {
				c.change(a)
			}
			n, got := codes(t, remembering(), newMemory().tag(".sig", typeSimple, payload, a), keyless(s))
			if diff := cmp.Diff(map[string]int{c.code: 1}, got); n != 0 || diff != "" {
				t.Errorf("%d pieces of evidence, %s", n, diff)
			}
		})
	}
}

// TestLegacyKeylessAttestation: an envelope with annotations, whose timestamp is
// over all of the envelope.
func TestLegacyKeylessAttestation(t *testing.T) {
	s := verifytest.New(t)
	const predicate = "https://slsa.dev/provenance/v1"
	n := keyless(s)
	n.Kind, n.Predicate = gatehouse.NeedAttestation, predicate
	for name, o := range map[string]signing{"promise": {Log: verifytest.LogV1SET}, "timestamp": {Log: verifytest.LogV1SET, Stamp: true}} {
		layer, annotations := s.Envelope(statementFor(image.Digest, predicate), o)
		m := newMemory().tag(".att", "application/vnd.dsse.envelope.v1+json", layer, annotations)
		n.Authority.RequireTimestamp = o.Stamp
		if got, why := codes(t, remembering(), m, n); got != 1 {
			t.Errorf("%s: rejected %v", name, why)
		}
		other := n
		other.Authority.Trust = verifytest.New(t).Trust()
		if got, why := codes(t, remembering(), m, other); got != 0 || why[verify.CodeUntrustedCA] != 1 {
			t.Errorf("%s, trusting others: %d, %v", name, got, why)
		}
	}
}

// TestChainOfTheSigner: intermediates that came along lead to the root that is
// trusted, in the annotation of old and in a bundle; a root that came along is no
// root.
func TestChainOfTheSigner(t *testing.T) {
	s := verifytest.New(t).WithoutIntermediate()
	for name, m := range map[string]*memory{
		"legacy": inLegacy(s, signing{}),
		"v0.2":   inBundle("0.2", verifytest.LogV1)(s, signing{Chain: true}),
		"v0.3":   inBundle("0.3", verifytest.LogV2)(s, signing{Chain: true}),
	} {
		if n, why := codes(t, remembering(), m, keyless(s)); n != 1 {
			t.Errorf("%s: rejected %v", name, why)
		}
		if n, why := codes(t, remembering(), m, keyless(verifytest.New(t))); n != 0 || why[verify.CodeUntrustedCA] != 1 {
			t.Errorf("%s: the signer's own root counts: %d, %v", name, n, why)
		}
	}
	if n, why := codes(t, remembering(), inBundle("0.3", verifytest.LogV2)(s, signing{}), keyless(s)); n != 0 || why[verify.CodeUntrustedCA] != 1 {
		t.Errorf("without the intermediate: %d, %v", n, why)
	}
}

func TestIgnoring(t *testing.T) {
	s := verifytest.New(t)
	n := keyless(s)
	n.Authority.Keyless.IgnoreSCT = true
	if got, why := codes(t, remembering(), inBundle("0.3", verifytest.LogV2)(s, signing{Certificate: verifytest.Certificate{NoSCT: true}}), n); got != 1 {
		t.Errorf("SCT: rejected %v", why)
	}
	n = keyless(s)
	n.Authority.Keyless.IgnoreLog = true
	m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Stamp: true}))
	evidence, rejected, err := remembering().Image(t.Context(), m, image, n)
	if err != nil || len(evidence) != 1 || evidence[0].Log != nil || !evidence[0].SignedAt.Equal(verifytest.At) {
		t.Errorf("log: %+v, rejected %v, %v", evidence, rejected, err)
	}
	n.Authority.RequireLog = true // wins
	if got, why := codes(t, remembering(), m, n); got != 0 || why[verify.CodeLogRequired] != 1 {
		t.Errorf("%d, %v", got, why)
	}
}

func TestIdentityRules(t *testing.T) {
	s := verifytest.New(t)
	m := inBundle("0.3", verifytest.LogV1)(s, signing{Certificate: verifytest.Certificate{Extensions: map[int]string{2: "push", 12: "https://github.com/acme/app"}}})
	v := remembering() // one memory for all: whom a policy trusts is not in it
	type rule = gatehouse.IdentityRule
	good := rule{Issuer: verifytest.Issuer, Subject: verifytest.Subject}
	with := func(w gatehouse.Workflow) rule { r := good; r.Workflow = w; return r }
	for name, c := range map[string]struct {
		rules []rule
		want  int
	}{
		"exact":                      {[]rule{good}, 1},
		"second of two":              {[]rule{{Issuer: "x", Subject: "y"}, good}, 1},
		"halves of two":              {[]rule{{Issuer: verifytest.Issuer, Subject: "y"}, {Issuer: "x", Subject: verifytest.Subject}}, 0},
		"expressions":                {[]rule{{IssuerRegExp: `https://token\..*`, SubjectRegExp: `https://github\.com/acme/.*@refs/heads/main`}}, 1},
		"only the beginning":         {[]rule{{IssuerRegExp: `.*`, SubjectRegExp: `https://github\.com/acme/`}}, 0},
		"only the end":               {[]rule{{IssuerRegExp: `.*`, SubjectRegExp: `refs/heads/main`}}, 0},
		"alternatives are anchored":  {[]rule{{IssuerRegExp: `.*`, SubjectRegExp: `https://github|refs/heads/main`}}, 0},
		"lines are not ends":         {[]rule{{IssuerRegExp: `.*`, SubjectRegExp: `(?m)https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main$`}}, 1},
		"exact and expression: both": {[]rule{{Issuer: verifytest.Issuer, IssuerRegExp: `x`, Subject: verifytest.Subject}}, 0},
		"prefix is no match":         {[]rule{{Issuer: verifytest.Issuer, Subject: verifytest.Subject[:20]}}, 0},
		"workflow":                   {[]rule{with(gatehouse.Workflow{Trigger: "push", SourceRepository: "https://github.com/acme/app"})}, 1},
		"another workflow":           {[]rule{with(gatehouse.Workflow{Trigger: "pull_request"})}, 0},
		"a claim it does not make":   {[]rule{with(gatehouse.Workflow{Name: "release"})}, 0},
	} {
		n := keyless(s)
		n.Authority.Keyless.Identities = c.rules
		got, why := codes(t, v, m, n)
		if got != c.want || got == 0 && why[verify.CodeWrongIdentity] != 1 {
			t.Errorf("%s: %d, rejected %v", name, got, why)
		}
	}
}

func TestBadAuthorities(t *testing.T) {
	s := verifytest.New(t)
	pem := verifytest.PublicPEM(t, verifytest.NewKey(t))
	for name, change := range map[string]func(a *gatehouse.Authority){
		"no identity":           func(a *gatehouse.Authority) { a.Keyless.Identities = nil },
		"no issuer":             func(a *gatehouse.Authority) { a.Keyless.Identities[0].Issuer = "" },
		"no subject":            func(a *gatehouse.Authority) { a.Keyless.Identities[0].Subject = "" },
		"bad expression":        func(a *gatehouse.Authority) { a.Keyless.Identities[0].SubjectRegExp = "(" },
		"an expression escapes": func(a *gatehouse.Authority) { a.Keyless.Identities[0].SubjectRegExp = `x)|(?:.*` },
		"long expression":       func(a *gatehouse.Authority) { a.Keyless.Identities[0].SubjectRegExp = strings.Repeat("x", 5000) },
		"many identities":       func(a *gatehouse.Authority) { a.Keyless.Identities = make([]gatehouse.IdentityRule, 1001) },
		"no trust":              func(a *gatehouse.Authority) { a.Trust = nil },
		"broken trust":          func(a *gatehouse.Authority) { a.Trust = []byte("{}") },
		"keys as well":          func(a *gatehouse.Authority) { a.Keys = []string{pem} },
		"notary as well":        func(a *gatehouse.Authority) { a.Notary = &gatehouse.Notary{} },
		"notary and a log": func(a *gatehouse.Authority) {
			a.Keyless, a.Notary, a.RequireLog = nil, &gatehouse.Notary{}, true
		},
		"format": func(a *gatehouse.Authority) { a.Format = "pgp" },
		"another registry": func(a *gatehouse.Authority) {
			a.Sources = []gatehouse.SignatureSource{{Registry: "other.example", Repo: "x"}}
		},
		"many sources": func(a *gatehouse.Authority) { a.Sources = make([]gatehouse.SignatureSource, 17) },
	} {
		n := keyless(s)
		change(&n.Authority)
		evidence, _, err := remembering().Image(t.Context(), newMemory(), image, n)
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || len(evidence) != 0 {
			t.Errorf("%s: %v, %v", name, evidence, err)
		}
	}
}

// TestKeysWithMore: a key's signature that has to be logged, or stamped.
func TestKeysWithMore(t *testing.T) {
	s, k := verifytest.New(t), verifytest.NewKey(t)
	key := func(log, stamp bool) gatehouse.Need {
		n := need(verifytest.PublicPEM(t, k))
		n.Authority.Trust, n.Authority.RequireLog, n.Authority.RequireTimestamp = s.Trust(), log, stamp
		return n
	}
	for name, in := range forms {
		bare := name == "legacy simple signature"
		for want, o := range map[string]signing{
			"both":                 {Key: k, Stamp: true},
			verify.CodeNoTimestamp: {Key: k},
			verify.CodeLogMismatch: {Key: k, Stamp: true, Forge: func(_, v []byte) ([]byte, []byte) { return []byte("x"), v }},
			verify.CodeWrongKey:    {Key: verifytest.NewKey(t), Stamp: true},
		} {
			if want == verify.CodeNoTimestamp && strings.HasSuffix(name, "v2") || want == verify.CodeLogMismatch && bare {
				continue // it is always stamped; such an entry cannot be read
			}
			m := in(s, o)
			evidence, rejected, err := remembering().Image(t.Context(), m, image, key(true, true))
			if err != nil {
				t.Fatal(err)
			}
			if want == "both" {
				if len(evidence) != 1 || evidence[0].Log == nil || evidence[0].Identity.Key == "" || !evidence[0].SignedAt.Equal(verifytest.At) {
					t.Errorf("%s: %+v, rejected %v", name, evidence, rejected)
				}
			} else if len(evidence) != 0 || codesOf(rejected)[want] != 1 {
				t.Errorf("%s: want %s, %+v, rejected %v", name, want, evidence, rejected)
			}
		}
		// Nothing is asked for: the time is told where it is known, the log is not looked at.
		evidence, _, err := remembering().Image(t.Context(), in(s, signing{Key: k, Stamp: true}), image, key(false, false))
		if err != nil || len(evidence) != 1 || evidence[0].Log != nil || !evidence[0].SignedAt.Equal(verifytest.At) {
			t.Errorf("%s: %+v, %v", name, evidence, err)
		}
		if bare { // and what is broken beside the key's signature is no reason against it
			p := simplePayload(image.Digest)
			a := s.Annotations(p, signing{Key: k})
			a["dev.sigstore.cosign/bundle"], a["dev.sigstore.cosign/certificate"] = "garbage", "garbage"
			m := newMemory().tag(".sig", typeSimple, p, a)
			if n, why := codes(t, remembering(), m, key(false, false)); n != 1 {
				t.Errorf("rejected %v", why)
			}
			if n, why := codes(t, remembering(), m, key(true, false)); n != 0 || why[verify.CodeMalformed] != 1 {
				t.Errorf("%d, %v", n, why)
			}
			// Some add a certificate of their key: the key is what counts.
			a = s.Annotations(p, signing{Key: k, Log: verifytest.LogV1SET})
			a["dev.sigstore.cosign/certificate"] = s.Annotations(p, signing{})["dev.sigstore.cosign/certificate"]
			if n, why := codes(t, remembering(), newMemory().tag(".sig", typeSimple, p, a), key(true, false)); n != 1 {
				t.Errorf("rejected %v", why)
			}
		}
	}
}

// TestKeylessDocuments: documents as artifacts that an identity has signed, and
// as attestations.
func TestKeylessDocuments(t *testing.T) {
	s := verifytest.New(t)
	n := keyless(s)
	n.Kind = gatehouse.NeedVEX
	m := newMemory()
	doc := m.put([]byte(`{"the":"document"}`))
	doc.MediaType = gatehouse.TypeOpenVEX
	body, _ := json.Marshal(map[string]any{"layers": []any{doc}, "subject": gatehouse.Descriptor{Digest: image.Digest}})
	artifact := m.put(body)
	m.referrers = []gatehouse.Descriptor{artifact}
	o := signing{Log: verifytest.LogV2, Stamp: true}
	about := &perDigest{memory: m, of: map[gatehouse.Digest][]gatehouse.Descriptor{
		image.Digest:    {artifact, m.manifest(m.bundle(s.Bundle(statementFor(image.Digest, gatehouse.PredicateOpenVEX), o)))},
		artifact.Digest: {m.manifest(m.bundle(s.Bundle(statementFor(artifact.Digest, signPredicate), o)))},
	}}
	evidence, rejected, err := remembering().Image(t.Context(), about, image, n)
	if err != nil || len(evidence) != 2 || len(rejected) != 0 {
		t.Fatalf("%+v, rejected %v, %v", evidence, rejected, err)
	}
	for _, e := range evidence {
		if e.Identity.Subject != verifytest.Subject || e.SignedAt.IsZero() || e.Log == nil {
			t.Errorf("%+v", e)
		}
	}
	n.Authority.Keyless.Identities[0].Subject = "somebody else"
	if got, why := codes(t, remembering(), about, n); got != 0 || why[verify.CodeWrongIdentity] != 2 {
		t.Errorf("%d, %v", got, why)
	}
}

// perDigest has referrers of several manifests.
type perDigest struct {
	*memory
	of map[gatehouse.Digest][]gatehouse.Descriptor
}

func (p *perDigest) Referrers(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest, _ string, _ gatehouse.Digest, _ int) ([]gatehouse.Descriptor, error) {
	return p.of[d], nil
}

// TestHashInTheLog: a key of P-384, whose log entry has the payload's SHA-384.
func TestHashInTheLog(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, p := verifytest.New(t), simplePayload(image.Digest)
	n := need(verifytest.PublicPEM(t, k))
	n.Authority.Trust, n.Authority.RequireLog = s.Trust(), true
	a := s.Annotations(p, signing{Key: k, SHA384: true, Log: verifytest.LogV1SET})
	if got, why := codes(t, remembering(), newMemory().tag(".sig", typeSimple, p, a), n); got != 1 {
		t.Errorf("rejected %v", why)
	}
}

// TestStrangersUseUpNothing: a public authority certifies anybody; their
// signatures are refused by name, before anything is checked.
func TestStrangersUseUpNothing(t *testing.T) {
	s := verifytest.New(t)
	m := newMemory()
	o := signing{Log: verifytest.LogV2, Stamp: true}
	good := m.bundle(s.Bundle(statementFor(image.Digest, signPredicate), o))
	o.Certificate.Subject = "https://evil.example"
	strange := m.bundle(s.Bundle(statementFor(image.Digest, signPredicate), o))
	m.referrers = []gatehouse.Descriptor{m.manifest(slices.Repeat([]gatehouse.Descriptor{strange}, 1000)...), m.manifest(good)}
	v := remembering()
	v.Cache = nil
	if got, why := codes(t, v, m, keyless(s)); got != 1 || why[verify.CodeWrongIdentity] != 1000 {
		t.Errorf("%d, %v", got, why)
	}
}

// TestSeveralEntries: the entry that is told is the one that was verified, and of
// its time only what the log has promised.
func TestSeveralEntries(t *testing.T) {
	s, stranger := verifytest.New(t), verifytest.New(t)
	var theirs protobundle.Bundle
	if err := protojson.Unmarshal(stranger.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV1}), &theirs); err != nil {
		t.Fatal(err)
	}
	var log []byte
	m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV1, Stamp: true, Change: func(b *protobundle.Bundle) {
		v := b.VerificationMaterial
		v.TlogEntries[0].InclusionPromise = nil // its time is nobody's word now
		log = v.TlogEntries[0].LogId.KeyId
		v.TlogEntries = append(theirs.VerificationMaterial.TlogEntries, v.TlogEntries...)
	}}))
	evidence, rejected, err := remembering().Image(t.Context(), m, image, keyless(s))
	if err != nil || len(evidence) != 1 {
		t.Fatalf("rejected %v, %v", rejected, err)
	}
	want := &gatehouse.LogEntry{Log: base64.StdEncoding.EncodeToString(log), Index: 1}
	if diff := cmp.Diff(want, evidence[0].Log); diff != "" || !evidence[0].SignedAt.Equal(verifytest.At) {
		t.Errorf("%v, %s", evidence[0].SignedAt, diff)
	}
}

// TestMemoryIsOfEverythingThatCame: a signature that held with its log entry does
// not hold without, in the same memory.
func TestMemoryIsOfEverythingThatCame(t *testing.T) {
	s, v := verifytest.New(t), remembering()
	good := s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV2, Stamp: true})
	if n, why := codes(t, v, newMemory().hang(good), keyless(s)); n != 1 {
		t.Fatalf("rejected %v", why)
	}
	var b protobundle.Bundle
	if err := protojson.Unmarshal(good, &b); err != nil {
		t.Fatal(err)
	}
	b.VerificationMaterial.TlogEntries = nil
	bare, err := protojson.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n, why := codes(t, v, newMemory().hang(bare), keyless(s)); n != 0 || why[verify.CodeLogRequired] != 1 {
		t.Errorf("bundle: %d, %v", n, why)
	}
	p := simplePayload(image.Digest)
	a := s.Annotations(p, signing{Log: verifytest.LogV1SET})
	if n, why := codes(t, v, newMemory().tag(".sig", typeSimple, p, a), keyless(s)); n != 1 {
		t.Fatalf("rejected %v", why)
	}
	delete(a, "dev.sigstore.cosign/bundle")
	if n, why := codes(t, v, newMemory().tag(".sig", typeSimple, p, a), keyless(s)); n != 0 || why[verify.CodeLogRequired] != 1 {
		t.Errorf("legacy: %d, %v", n, why)
	}
}

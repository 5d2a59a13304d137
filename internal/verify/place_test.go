package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

func TestFormat(t *testing.T) {
	k := verifytest.NewKey(t)
	s := verifytest.New(t)
	p := simplePayload(image.Digest)
	m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Key: k})).tag(".sig", typeSimple, p, s.Annotations(p, signing{Key: k}))
	for format, want := range map[string]string{"legacy": verify.FormatLegacy, "bundle": "sigstore-bundle-v0.3"} {
		n := need(verifytest.PublicPEM(t, k))
		n.Authority.Format = format
		evidence, rejected, err := remembering().Image(t.Context(), m, image, n)
		if err != nil || len(evidence) != 1 || evidence[0].Format != want || codesOf(rejected)[verify.CodeOtherFormat] != 1 {
			t.Errorf("%s: %+v, rejected %v, %v", format, evidence, rejected, err)
		}
	}
}

func TestAnyAttestation(t *testing.T) {
	const predicate = "https://cosign.sigstore.dev/attestation/vuln/v1"
	k := verifytest.NewKey(t)
	s := verifytest.New(t)
	layer, annotations := s.Envelope(statementFor(image.Digest, predicate), signing{Key: k})
	m := newMemory().hang(s.Bundle(statementFor(image.Digest, predicate), signing{Key: k})).
		hang(s.Bundle(statementFor(gatehouse.DigestOf([]byte("x")), predicate), signing{Key: k})).
		tag(".att", "application/vnd.dsse.envelope.v1+json", layer, annotations)
	n := need(verifytest.PublicPEM(t, k))
	if got, why := codes(t, remembering(), m, n); got != 0 || why[verify.CodeNotASignature] != 2 {
		t.Errorf("%d, %v", got, why)
	}
	n.Authority.AnyAttestation = true
	if got, why := codes(t, remembering(), m, n); got != 2 || why[verify.CodeOtherDigest] != 1 {
		t.Errorf("%d, %v", got, why)
	}
}

// inRepo is a source with one repository.
type inRepo struct {
	*memory
	repo gatehouse.Repo
}

func (s inRepo) ManifestByTag(ctx context.Context, r gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	if r != s.repo {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no such repository")
	}
	return s.memory.ManifestByTag(ctx, r, tag)
}

func (s inRepo) Referrers(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest, a string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	if r != s.repo {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no such repository")
	}
	return s.memory.Referrers(ctx, r, d, a, after, n)
}

func TestSources(t *testing.T) {
	k := verifytest.NewKey(t)
	s := verifytest.New(t)
	p := simplePayload(image.Digest)
	beside := inRepo{newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Key: k})), "app"}
	far := newMemory()
	l := far.put(p)
	l.MediaType, l.Annotations = typeSimple, s.Annotations(p, signing{Key: k})
	far.tags["ci-sha256-"+image.Digest.Hex()+".sig"] = far.manifest(l).Digest
	asked := []string{}
	v := remembering()
	v.Sources = func(registry string) (verify.Source, error) {
		asked = append(asked, registry)
		if registry == "down.example" {
			return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "down")
		}
		return inRepo{far, "signatures"}, nil
	}
	source := func(registry, repo, prefix string) []gatehouse.SignatureSource {
		return []gatehouse.SignatureSource{{Registry: registry, Repo: gatehouse.Repo(repo), TagPrefix: prefix}}
	}
	for name, c := range map[string]struct {
		sources []gatehouse.SignatureSource
		want    int
	}{
		"beside":             {nil, 1},
		"beside, by name":    {source("example.com", "app", ""), 1},
		"far":                {source("far.example", "signatures", "ci-"), 1},
		"far, no prefix":     {source("far.example", "signatures", ""), 0},
		"only where it says": {source("", "elsewhere", ""), 0},
		"both":               {append(source("", "", ""), source("far.example", "signatures", "ci-")...), 2},
	} {
		n := need(verifytest.PublicPEM(t, k))
		n.Authority.Sources = c.sources
		if got, why := codes(t, v, beside, n); got != c.want {
			t.Errorf("%s: %d, rejected %v", name, got, why)
		}
	}
	if diff := cmp.Diff([]string{"far.example", "far.example", "far.example"}, asked); diff != "" {
		t.Error(diff)
	}
	n := need(verifytest.PublicPEM(t, k))
	n.Authority.Sources = source("down.example", "x", "")
	if _, _, err := v.Image(t.Context(), beside, image, n); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Error(err)
	}
}

// history remembers where a tag pointed.
type history struct {
	*memory
	past []gatehouse.Digest
	err  error
}

func (h history) TagHistory(context.Context, gatehouse.Repo, string) ([]gatehouse.Digest, error) {
	return h.past, h.err
}

// TestTagHistory: of two that signed at once, the tag shows one; the other counts
// as well. Signatures that were written along again count once.
func TestTagHistory(t *testing.T) {
	k1, k2 := verifytest.NewKey(t), verifytest.NewKey(t)
	s := verifytest.New(t)
	m := newMemory()
	layer := func(k signing) gatehouse.Descriptor {
		p := simplePayload(image.Digest)
		l := m.put(p)
		l.MediaType, l.Annotations = typeSimple, s.Annotations(p, k)
		return l
	}
	a, b := layer(signing{Key: k1}), layer(signing{Key: k2})
	first, lost := m.manifest(a), m.manifest(a, b)
	current := m.manifest(a, layer(signing{Key: k1}))
	m.tags["sha256-"+image.Digest.Hex()+".sig"] = current.Digest
	h := history{memory: m, past: []gatehouse.Digest{current.Digest, lost.Digest, first.Digest, gatehouse.DigestOf([]byte("cleaned up"))}}
	n := need(verifytest.PublicPEM(t, k2))
	if got, _ := codes(t, remembering(), m, n); got != 0 {
		t.Errorf("without history: %d", got)
	}
	evidence, rejected, err := remembering().Image(t.Context(), h, image, n)
	if err != nil || len(evidence) != 1 || evidence[0].Artifact != lost.Digest || codesOf(rejected)[verify.CodeWrongKey] != 2 || len(rejected) != 2 {
		t.Errorf("%+v, rejected %v, %v", evidence, rejected, err)
	}
	if got, why := codes(t, remembering(), h, need(verifytest.PublicPEM(t, k1))); got != 2 || len(why) != 1 {
		t.Errorf("%d, %v", got, why)
	}
	h.err = gatehouse.Errorf(gatehouse.CodeUnavailable, "down")
	if _, _, err := remembering().Image(t.Context(), h, image, n); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("what the history holds is not known, and the answer is %v", err)
	}
}

// TestTagHistoryIsNotShadowed: whoever moves a signature tag to a manifest that
// lists the signature's bytes as something else does not take it away.
func TestTagHistoryIsNotShadowed(t *testing.T) {
	k := verifytest.NewKey(t)
	s := verifytest.New(t)
	for name, shadow := range map[string]func(*gatehouse.Descriptor){
		"media type": func(d *gatehouse.Descriptor) { d.MediaType = "application/octet-stream" },
		"size":       func(d *gatehouse.Descriptor) { d.Size = 1 << 40 },
	} {
		m := newMemory()
		p := simplePayload(image.Digest)
		l := m.put(p)
		l.MediaType, l.Annotations = typeSimple, s.Annotations(p, signing{Key: k})
		signed := m.manifest(l)
		shadow(&l)
		m.tags["sha256-"+image.Digest.Hex()+".sig"] = m.manifest(l).Digest
		h := history{memory: m, past: []gatehouse.Digest{signed.Digest}}
		if got, why := codes(t, remembering(), h, need(verifytest.PublicPEM(t, k))); got != 1 {
			t.Errorf("%s: %d, rejected %v", name, got, why)
		}
	}
}

// TestTagHistoryBeforeReferrers: a flood of referrers does not push out what the
// tag pointed to before.
func TestTagHistoryBeforeReferrers(t *testing.T) {
	k := verifytest.NewKey(t)
	s := verifytest.New(t)
	m := newMemory()
	p := simplePayload(image.Digest)
	l := m.put(p)
	l.MediaType, l.Annotations = typeSimple, s.Annotations(p, signing{Key: k})
	h := history{memory: m, past: []gatehouse.Digest{m.manifest(l).Digest}}
	for i := range 1100 {
		m.referrers = append(m.referrers, m.manifest(m.bundle(fmt.Append(nil, i))))
	}
	if got, why := codes(t, remembering(), h, need(verifytest.PublicPEM(t, k))); got != 1 || why[verify.CodeTooMany] != 1 {
		t.Errorf("%d, rejected %v", got, why)
	}
}

func TestThroughIndex(t *testing.T) {
	k := verifytest.NewKey(t)
	s := verifytest.New(t)
	m := newMemory()
	index := func(children ...gatehouse.Digest) gatehouse.Digest {
		var list []gatehouse.Descriptor
		for _, d := range children {
			list = append(list, gatehouse.Descriptor{Digest: d})
		}
		body, _ := json.Marshal(map[string]any{"mediaType": typeIndex, "manifests": list})
		return m.put(body).Digest
	}
	other := gatehouse.DigestOf([]byte("other"))
	mine, strange, unsigned := index(other, image.Digest), index(other), index(image.Digest, other)
	const provenance = "https://slsa.dev/provenance/v1"
	hang := func(d gatehouse.Digest) []gatehouse.Descriptor {
		var list []gatehouse.Descriptor
		for _, p := range []string{signPredicate, provenance, gatehouse.PredicateOpenVEX} {
			list = append(list, m.manifest(m.bundle(s.Bundle(statementFor(d, p), signing{Key: k}))))
		}
		return list
	}
	src := &perDigest{memory: m, of: map[gatehouse.Digest][]gatehouse.Descriptor{mine: hang(mine), strange: hang(strange)}}
	lied := index(gatehouse.DigestOf([]byte("lied about")))
	m.bytes[lied], src.of[lied] = m.bytes[mine], hang(lied)
	for name, c := range map[string]struct {
		through gatehouse.Digest
		kind    gatehouse.NeedKind
		want    int
		code    string
	}{
		"signed":         {mine, gatehouse.NeedSignature, 1, verify.CodeNotASignature},
		"attested":       {mine, gatehouse.NeedAttestation, 1, verify.CodeOtherPredict},
		"VEX is of one":  {mine, gatehouse.NeedVEX, 0, verify.CodeNoCandidate},
		"lists others":   {strange, gatehouse.NeedSignature, 0, verify.CodeOtherDigest},
		"unsigned":       {unsigned, gatehouse.NeedSignature, 0, verify.CodeNoCandidate},
		"not there":      {gatehouse.DigestOf([]byte("gone")), gatehouse.NeedSignature, 0, verify.CodeMissing},
		"a lying source": {lied, gatehouse.NeedSignature, 0, verify.CodeMalformed},
		"no digest":      {"latest", gatehouse.NeedSignature, 0, verify.CodeMalformed},
		"directly":       {"", gatehouse.NeedSignature, 0, verify.CodeNoCandidate},
		"through itself": {image.Digest, gatehouse.NeedSignature, 0, verify.CodeNoCandidate},
	} {
		n := need(verifytest.PublicPEM(t, k))
		n.Kind, n.Through, n.Predicate = c.kind, c.through, provenance
		evidence, rejected, err := remembering().Image(t.Context(), src, image, n)
		if err != nil || len(evidence) != c.want || codesOf(rejected)[c.code] == 0 {
			t.Errorf("%s: %+v, rejected %v, %v", name, evidence, rejected, err)
		}
		for _, e := range evidence {
			if e.Subject != image.Digest || e.Through != c.through {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
}

// TestKnownSignaturesComeFirst: a flood does not hide what was verified before,
// and the answer says that there is more.
func TestKnownSignaturesComeFirst(t *testing.T) {
	s := verifytest.New(t)
	good := s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV2, Stamp: true})
	m := newMemory().hang(good)
	v := remembering()
	if got, why := codes(t, v, m, keyless(s)); got != 1 {
		t.Fatalf("rejected %v", why)
	}
	flood := make([]gatehouse.Descriptor, 1500)
	for i := range flood {
		flood[i] = m.manifest(m.bundle(fmt.Append(nil, i)))
	}
	m.referrers = append(flood, m.referrers...)
	got, why := codes(t, v, m, keyless(s))
	if diff := cmp.Diff(map[string]int{verify.CodeMalformed: 1000, verify.CodeTooMany: 1}, why); got != 1 || diff != "" {
		t.Errorf("%d pieces of evidence\n%s", got, diff)
	}
	if got, why := codes(t, remembering(), m, keyless(s)); got != 0 || why[verify.CodeTooMany] != 1 {
		t.Errorf("nobody has verified it before, and it was found: %d, %v", got, why)
	}
	// A registry remembers longer than a process; what it says is checked.
	stored := storing{m, []gatehouse.Digest{m.referrers[len(m.referrers)-1].Digest, flood[7].Digest}}
	if got, why := codes(t, remembering(), stored, keyless(s)); got != 1 || why[verify.CodeTooMany] != 1 || why[verify.CodeMalformed] != 1001 {
		t.Errorf("the registry has verified it before: %d, %v", got, why)
	}
	// The same with the signatures of one manifest.
	p := simplePayload(image.Digest)
	annotations := s.Annotations(p, signing{Log: verifytest.LogV1SET})
	layers := func(front int) gatehouse.Digest {
		var list []gatehouse.Descriptor
		for i := range front {
			l := m.put(p)
			l.MediaType, l.Annotations = typeSimple, map[string]string{sigKey: fmt.Sprint("AA", i)}
			list = append(list, l)
		}
		l := m.put(p)
		l.MediaType, l.Annotations = typeSimple, annotations
		return m.manifest(append(list, l)...).Digest
	}
	m.referrers = nil
	tag := "sha256-" + image.Digest.Hex() + ".sig"
	m.tags[tag] = layers(0)
	if got, why := codes(t, v, m, keyless(s)); got != 1 {
		t.Fatalf("rejected %v", why)
	}
	m.tags[tag] = layers(1200)
	if got, why := codes(t, v, m, keyless(s)); got != 1 || why[verify.CodeTooMany] != 1 {
		t.Errorf("%d, %v", got, why)
	}
}

// storing is a registry that remembers in which manifests signatures held.
type storing struct {
	*memory
	valid []gatehouse.Digest
}

func (s storing) ValidSignatures(context.Context, gatehouse.Repo, gatehouse.Digest) ([]gatehouse.Digest, error) {
	return s.valid, nil
}

// TestKnownSignaturesBehindTheListing: what was verified before is found where the
// listing is cut off before it, as long as it hangs on the image.
func TestKnownSignaturesBehindTheListing(t *testing.T) {
	s := verifytest.New(t)
	layer := func(m *memory) []gatehouse.Descriptor {
		return []gatehouse.Descriptor{m.bundle(s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV2, Stamp: true}))}
	}
	m := newMemory()
	for i := range 10_001 {
		m.referrers = append(m.referrers, m.put(fmt.Append(nil, "{} ", i)))
	}
	attached := func(to gatehouse.Digest) gatehouse.Descriptor {
		body, _ := json.Marshal(map[string]any{"layers": layer(m), "subject": gatehouse.Descriptor{Digest: to}})
		return m.put(body)
	}
	good, other, withdrawn := attached(image.Digest), attached(gatehouse.DigestOf([]byte("x"))), m.manifest(layer(m)...)
	m.referrers = append(m.referrers, good)
	gone := gatehouse.DigestOf([]byte("gone"))
	if got, why := codes(t, remembering(), storing{m, nil}, keyless(s)); got != 0 || why[verify.CodeTooMany] != 2 {
		t.Errorf("nobody has verified it before: %d, %v", got, why)
	}
	stored := storing{m, []gatehouse.Digest{gone, other.Digest, withdrawn.Digest, good.Digest}}
	evidence, _, err := remembering().Image(t.Context(), stored, image, keyless(s))
	if err != nil || len(evidence) != 1 || evidence[0].Artifact != good.Digest {
		t.Errorf("%+v, %v", evidence, err)
	}
	// A listing that comes whole tells of all that hangs on the image.
	m.referrers = m.referrers[:100]
	if got, why := codes(t, remembering(), stored, keyless(s)); got != 0 || len(why) > 1 || why[verify.CodeMissing] != 0 {
		t.Errorf("%d, %v", got, why)
	}
}

// TestRepeatedSignatures: what held before is looked at freely once, not in as
// many copies as somebody pushes.
func TestRepeatedSignatures(t *testing.T) {
	s := verifytest.New(t)
	good := s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV2, Stamp: true})
	m := newMemory().hang(good)
	v := remembering()
	if got, why := codes(t, v, m, keyless(s)); got != 1 {
		t.Fatalf("rejected %v", why)
	}
	copies := make([]gatehouse.Descriptor, 3000)
	for i := range copies {
		copies[i] = m.bundle(good)
	}
	m.referrers = append(m.referrers, m.manifest(copies...))
	for range 2 { // the second time the manifest is known, too
		if got, why := codes(t, v, m, keyless(s)); got != 1001 || why[verify.CodeTooMany] != 1 {
			t.Errorf("%d pieces of evidence, %v", got, why)
		}
	}
}

// TestJunkBesideKnownSignatures: a manifest that holds somebody's signature and
// much else does not take the bounds away from what was verified before.
func TestJunkBesideKnownSignatures(t *testing.T) {
	s := verifytest.New(t)
	sign := func() []byte {
		return s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV2, Stamp: true})
	}
	first, second := sign(), sign()
	m := newMemory()
	wrapped := []gatehouse.Descriptor{m.bundle(first)}
	junk := m.bundle(bytes.Repeat([]byte(" "), 8<<20))
	for range 40 {
		wrapped = append(wrapped, junk)
	}
	m.hang(second)
	good := m.referrers
	m.referrers = append([]gatehouse.Descriptor{m.manifest(wrapped[0])}, good...)
	v := remembering()
	if got, why := codes(t, v, m, keyless(s)); got != 2 {
		t.Fatalf("rejected %v", why)
	}
	m.referrers = []gatehouse.Descriptor{m.manifest(wrapped...)}
	if got, why := codes(t, v, m, keyless(s)); got != 1 {
		t.Fatalf("rejected %v", why)
	}
	m.referrers = append(m.referrers, good...)
	if got, why := codes(t, v, m, keyless(s)); got != 2 || why[verify.CodeTooMany] != 8 && why[verify.CodeTooMany] != 9 {
		t.Errorf("%d pieces of evidence, %v", got, why)
	}
}

// TestListedDigests: what a listing calls a digest is one before it is told of.
func TestListedDigests(t *testing.T) {
	m := newMemory()
	index, _ := json.Marshal(map[string]any{"manifests": []any{
		map[string]any{"digest": "\x1b[2Jno digest", "artifactType": "application/vnd.cncf.notary.signature"},
	}})
	m.tags["sha256-"+image.Digest.Hex()] = m.put(index).Digest
	_, rejected, err := remembering().Image(t.Context(), m, image, need(verifytest.PublicPEM(t, verifytest.NewKey(t))))
	if err != nil || len(rejected) != 1 || rejected[0].Code != verify.CodeMalformed || rejected[0].Artifact != "" {
		t.Errorf("%+v, %v", rejected, err)
	}
}

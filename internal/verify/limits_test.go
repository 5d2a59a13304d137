package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// memory is a registry in memory, for numbers that are slow over HTTP and for
// answers that no registry may give.
type memory struct {
	bytes     map[gatehouse.Digest][]byte
	tags      map[string]gatehouse.Digest
	referrers []gatehouse.Descriptor
	opened    int // blobs
}

func newMemory() *memory {
	return &memory{bytes: map[gatehouse.Digest][]byte{}, tags: map[string]gatehouse.Digest{}}
}

func (m *memory) put(body []byte) gatehouse.Descriptor {
	d := gatehouse.DigestOf(body)
	m.bytes[d] = body
	return gatehouse.Descriptor{Digest: d, Size: int64(len(body))}
}

func (m *memory) manifest(layers ...gatehouse.Descriptor) gatehouse.Descriptor {
	body, _ := json.Marshal(map[string]any{"layers": layers})
	return m.put(body)
}

func (m *memory) bundle(body []byte) gatehouse.Descriptor {
	l := m.put(body)
	l.MediaType = typeBundle
	return l
}

func (m *memory) Manifest(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	b, ok := m.bytes[d]
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no manifest")
	}
	return &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: d, Size: int64(len(b))}, Body: b}, nil
}

func (m *memory) ManifestByTag(ctx context.Context, r gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	return m.Manifest(ctx, r, m.tags[tag])
}

type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func (m *memory) OpenBlob(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Blob, error) {
	m.opened++
	b, ok := m.bytes[d]
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no blob")
	}
	return &gatehouse.Blob{Descriptor: gatehouse.Descriptor{Digest: d, Size: int64(len(b))}, Body: body{bytes.NewReader(b)}}, nil
}

func (m *memory) Referrers(_ context.Context, _ gatehouse.Repo, _ gatehouse.Digest, _ string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	start := 0
	for i, d := range m.referrers {
		if after != "" && d.Digest == after {
			start = i + 1
		}
	}
	rest := m.referrers[start:]
	return rest[:min(n, len(rest))], nil
}

var image = gatehouse.Ref{Registry: "example.com", Repo: "app", Digest: gatehouse.DigestOf([]byte("the image"))}

func codesOf(rejected []gatehouse.Rejected) map[string]int {
	n := map[string]int{}
	for _, r := range rejected {
		n[r.Code]++
	}
	return n
}

func TestManifestsAreBounded(t *testing.T) {
	k, pem := ephemeral(t)
	m := newMemory()
	good := m.manifest(m.bundle(bundleOf(t, k, inToto, statementFor(image.Digest, signPredicate))))
	for i := range 999 {
		m.referrers = append(m.referrers, m.manifest(m.bundle(fmt.Append(nil, i))))
	}
	m.referrers = append(m.referrers, good)
	evidence, rejected, err := verify.Image(t.Context(), m, image, need(pem))
	if err != nil || len(evidence) != 1 {
		t.Errorf("the thousandth: %v, %v", evidence, err)
	}
	if diff := cmp.Diff(map[string]int{verify.CodeMalformed: 999}, codesOf(rejected)); diff != "" {
		t.Error(diff)
	}
	m.referrers = append([]gatehouse.Descriptor{m.manifest(m.bundle([]byte("one more")))}, m.referrers...)
	evidence, rejected, err = verify.Image(t.Context(), m, image, need(pem))
	if err != nil || len(evidence) != 0 || codesOf(rejected)[verify.CodeTooMany] != 1 {
		t.Errorf("one too many: %v, %v, %v", evidence, codesOf(rejected), err)
	}
}

func TestLayersOfAManifestAreBounded(t *testing.T) {
	_, pem := ephemeral(t)
	m := newMemory()
	junk := m.bundle([]byte("{}"))
	layers := make([]gatehouse.Descriptor, 1001)
	for i := range layers {
		layers[i] = junk
	}
	m.referrers = []gatehouse.Descriptor{m.manifest(layers...)}
	_, rejected, err := verify.Image(t.Context(), m, image, need(pem))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{verify.CodeUnsupported: 1000, verify.CodeTooMany: 1}, codesOf(rejected)); diff != "" {
		t.Error(diff)
	}
}

// TestChecksAreBounded: forged signatures in front cost no more than the bound,
// and what is known to be good is found whatever stands before it.
func TestChecksAreBounded(t *testing.T) {
	k, pem := ephemeral(t)
	stranger, _ := ephemeral(t)
	m := newMemory()
	forged := m.bundle(bundleOf(t, stranger, inToto, statementFor(image.Digest, signPredicate)))
	good := m.bundle(bundleOf(t, k, inToto, statementFor(image.Digest, signPredicate)))
	many := make([]gatehouse.Descriptor, 999)
	for i := range many {
		many[i] = forged
	}
	m.referrers = []gatehouse.Descriptor{m.manifest(many...), m.manifest(append(many[:10:10], good)...)}
	check := func(v verify.Verifier, want int, codes map[string]int) {
		t.Helper()
		evidence, rejected, err := v.Image(t.Context(), m, image, need(pem))
		if err != nil || len(evidence) != want {
			t.Errorf("%d pieces of evidence, want %d; %v", len(evidence), want, err)
		}
		if diff := cmp.Diff(codes, codesOf(rejected)); diff != "" {
			t.Error(diff)
		}
	}
	check(verify.Verifier{}, 0, map[string]int{verify.CodeWrongKey: 1000, verify.CodeTooMany: 10})
	cache := verify.NewLRU(10)
	check(verify.Verifier{Cache: cache}, 1, map[string]int{verify.CodeWrongKey: 1009})
	if cache.Len() != 4 {
		t.Errorf("%d results are cached, want the forged and the good one, and where the good one was", cache.Len())
	}
}

// TestCandidatesAreBounded: many manifests with many signatures each.
func TestCandidatesAreBounded(t *testing.T) {
	_, pem := ephemeral(t)
	m := newMemory()
	junk := m.bundle([]byte("{}"))
	many := make([]gatehouse.Descriptor, 900)
	for i := range many {
		many[i] = junk
	}
	for i := range 12 {
		m.referrers = append(m.referrers, m.manifest(many[i:]...))
	}
	_, rejected, err := verify.Image(t.Context(), m, image, need(pem))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{verify.CodeUnsupported: 10_000, verify.CodeTooMany: 1}, codesOf(rejected)); diff != "" {
		t.Error(diff)
	}
}

func TestTotalSizeIsBounded(t *testing.T) {
	_, pem := ephemeral(t)
	m := newMemory()
	big := m.bundle(bytes.Repeat([]byte(" "), 8<<20))
	layers := make([]gatehouse.Descriptor, 40)
	for i := range layers {
		layers[i] = big
	}
	m.referrers = []gatehouse.Descriptor{m.manifest(layers...)}
	_, rejected, err := verify.Image(t.Context(), m, image, need(pem))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{verify.CodeMalformed: 32, verify.CodeTooMany: 8}, codesOf(rejected)); diff != "" || m.opened != 32 {
		t.Errorf("%d blobs were opened\n%s", m.opened, diff)
	}
}

// circles lists the same page for ever.
type circles struct{ *memory }

func (c circles) Referrers(ctx context.Context, r gatehouse.Repo, d gatehouse.Digest, a string, _ gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	return c.memory.Referrers(ctx, r, d, a, "", n)
}

func TestListingInCircles(t *testing.T) {
	_, pem := ephemeral(t)
	m := newMemory()
	for i := range 1000 {
		m.referrers = append(m.referrers, m.manifest(m.bundle(fmt.Append(nil, i))))
	}
	_, rejected, err := verify.Image(t.Context(), circles{m}, image, need(pem))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{verify.CodeMalformed: 1000, verify.CodeTooMany: 1}, codesOf(rejected)); diff != "" {
		t.Error(diff)
	}
}

func TestLyingSource(t *testing.T) {
	_, pem := ephemeral(t)
	d := gatehouse.DigestOf([]byte("x"))
	for name, m := range map[string]*memory{
		"no digest": {referrers: []gatehouse.Descriptor{{}}},
		"manifest":  {bytes: map[gatehouse.Digest][]byte{d: []byte("y")}, referrers: []gatehouse.Descriptor{{Digest: d}}},
	} {
		_, rejected, err := verify.Image(t.Context(), m, image, need(pem))
		if err != nil || codesOf(rejected)[verify.CodeMalformed] != 1 {
			t.Errorf("%s: %v, %v", name, rejected, err)
		}
	}
	m := newMemory()
	l := m.bundle([]byte("x"))
	m.referrers = []gatehouse.Descriptor{m.manifest(l)}
	m.bytes[l.Digest] = []byte("y")
	l2 := m.bundle([]byte("z"))
	l2.Size = 0 // smaller than the truth: what is read counts
	m.bytes[l2.Digest] = bytes.Repeat([]byte(" "), 8<<20+1)
	m.referrers = append(m.referrers, m.manifest(l2), m.manifest(gatehouse.Descriptor{MediaType: typeBundle}))
	_, rejected, err := verify.Image(t.Context(), m, image, need(pem))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{verify.CodeMalformed: 2, verify.CodeTooLarge: 1}, codesOf(rejected)); diff != "" {
		t.Error(diff)
	}
}

func TestCacheHoldsNoPolicy(t *testing.T) {
	k, pem := ephemeral(t)
	m := newMemory()
	m.referrers = []gatehouse.Descriptor{m.manifest(m.bundle(bundleOf(t, k, inToto, statementFor(image.Digest, signPredicate))))}
	v := verify.Verifier{Cache: verify.NewLRU(8)}
	n := need(pem)
	for range 2 { // the second time from the cache
		evidence, _, err := v.Image(t.Context(), m, image, n)
		if err != nil || len(evidence) != 1 {
			t.Fatalf("%v, %v", evidence, err)
		}
		for _, change := range []func(*gatehouse.Need){
			func(n *gatehouse.Need) { n.Authority.Annotations = map[string]string{"env": "dev"} },
			func(n *gatehouse.Need) { n.Authority.RequireLog = true },
			func(n *gatehouse.Need) { n.Authority.Hash = "sha512" },
			func(n *gatehouse.Need) { n.Authority.Keys = []string{pub(newKey(t))} },
			func(n *gatehouse.Need) { n.Kind, n.Predicate = gatehouse.NeedAttestation, "x" },
		} {
			other := n
			change(&other)
			if evidence, _, err := v.Image(t.Context(), m, image, other); err != nil || len(evidence) != 0 {
				t.Errorf("%+v: %v, %v", other, evidence, err)
			}
		}
		elsewhere := image
		elsewhere.Digest = gatehouse.DigestOf([]byte("another"))
		if evidence, _, err := v.Image(t.Context(), m, elsewhere, n); err != nil || len(evidence) != 0 {
			t.Errorf("another image: %v, %v", evidence, err)
		}
	}
}

func TestLRU(t *testing.T) {
	c := verify.NewLRU(2)
	key := func(b byte) verify.CacheKey { return verify.CacheKey{b} }
	good, bad := verify.Checked{Identity: gatehouse.Identity{Subject: "x"}}, verify.Checked{Code: verify.CodeWrongKey}
	c.Put(key(1), good)
	c.Put(key(2), bad)
	c.Get(key(1))
	c.Put(key(3), good)
	if _, known := c.Get(key(2)); known || c.Len() != 2 {
		t.Error("what was not used for longest is still there")
	}
	if got, known := c.Get(key(1)); got != good || !known {
		t.Error("what was used is forgotten")
	}
	c.Put(key(1), bad)
	if got, _ := c.Get(key(1)); got != bad || c.Len() != 2 {
		t.Error("a result cannot be replaced")
	}
}

func FuzzCandidates(f *testing.F) {
	k, pem := ephemeral(f)
	priv := newKey(f)
	good := bundleOf(f, k, inToto, statementFor(image.Digest, signPredicate))
	f.Add(good, "application/vnd.dev.sigstore.bundle.v0.3+json", "")
	f.Add([]byte(strings.Replace(string(good), "v0.3", "v0.2", 1)), typeBundle, "")
	f.Add([]byte(`{"critical":{"image":{"docker-manifest-digest":"sha256:x"},"type":"cosign container image signature"}}`), typeSimple, "AAAA")
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"sig":"AA=="}]}`), "application/vnd.dsse.envelope.v1+json", "")
	f.Fuzz(func(t *testing.T, layer []byte, mediaType, sig string) {
		m := newMemory()
		l := m.put(layer)
		l.MediaType, l.Annotations = mediaType, map[string]string{sigKey: sig}
		m.referrers = []gatehouse.Descriptor{m.manifest(l), m.put(layer)}
		// A key that has signed nothing is satisfied by nothing.
		evidence, _, err := verify.Image(t.Context(), m, image, need(pub(priv)))
		if err != nil || len(evidence) != 0 {
			t.Fatalf("evidence %v, %v", evidence, err)
		}
		// And the key that has signed is satisfied by its own statement only.
		evidence, _, err = verify.Image(t.Context(), m, image, need(pem))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range evidence {
			if !bytes.Equal(e.Payload, statementFor(image.Digest, signPredicate)) {
				t.Fatalf("evidence for %s", e.Payload)
			}
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(pub(newKey(f)))
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	f.Add("-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := verify.ParseKeys(text)
		if (err == nil) != (len(ids) > 0) {
			t.Errorf("%v, %v", ids, err)
		}
	})
}

func BenchmarkKeySignature(b *testing.B) {
	k, pem := ephemeral(b)
	m := newMemory()
	m.referrers = []gatehouse.Descriptor{m.manifest(m.bundle(bundleOf(b, k, inToto, statementFor(image.Digest, signPredicate))))}
	for name, v := range map[string]verify.Verifier{"fresh": {}, "cached": {Cache: verify.NewLRU(8)}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if evidence, _, err := v.Image(b.Context(), m, image, need(pem)); err != nil || len(evidence) != 1 {
					b.Fatal(evidence, err)
				}
			}
		})
	}
}

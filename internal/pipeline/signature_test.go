package pipeline_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// trusting is a house whose policies name signers by key.
type trusting struct {
	*house
	mu   sync.Mutex
	keys map[string]*sign.Key
}

func openTrusting(t *testing.T) *trusting {
	tr := &trusting{keys: map[string]*sign.Key{}}
	v := verify.Verifier{Cache: verify.NewLRU(1000)}
	tr.house = open(t, t.TempDir(), func(_ *house, o *pipeline.Options) {
		o.Signatures = pipeline.SignatureOptions{
			InForce: func(ctx context.Context) (gatehouse.Digest, error) { s, err := tr.signers(ctx); return s.Policies, err },
			Of: func(ctx context.Context, _ gatehouse.Repo, _ gatehouse.Digest) (pipeline.Signers, error) {
				return tr.signers(ctx)
			},
			Verify: v.Image,
		}
	}).work()
	return tr
}

func (tr *trusting) signers(ctx context.Context) (s pipeline.Signers, err error) {
	err = tr.db.Get(ctx, func(tx *db.Tx) (err error) { s.Version, err = tx.PolicyVersion(ctx); return err })
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for name, k := range tr.keys {
		s.List = append(s.List, pipeline.Signer{Name: "policy/" + name, Authority: gatehouse.Authority{Name: name, Keys: []string{string(k.PublicPEM())}}})
		s.Policies += gatehouse.Digest(name)
	}
	slices.SortFunc(s.List, func(a, b pipeline.Signer) int { return strings.Compare(a.Name, b.Name) })
	return s, err
}

// trust has policies name these signers from now on.
func (tr *trusting) trust(keys map[string]*sign.Key) {
	tr.t.Helper()
	tr.mu.Lock()
	tr.keys = keys
	tr.mu.Unlock()
	err := tr.db.Write(tr.t.Context(), func(tx *db.Tx) error {
		if err := tx.PutPolicy(tr.t.Context(), gatehouse.Actor{Name: "admin"}, "p.yaml", fmt.Sprint(len(keys))); err != nil {
			return err
		}
		return pipeline.PoliciesChanged(tr.t.Context(), tx)
	})
	if err != nil {
		tr.t.Fatal(err)
	}
}

func newKey(t *testing.T) *sign.Key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sign.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (tr *trusting) sign(k *sign.Key, repo gatehouse.Repo, digest gatehouse.Digest, o sign.Options) {
	tr.t.Helper()
	m, err := tr.content.Manifest(tr.t.Context(), repo, digest)
	if err != nil {
		tr.t.Fatal(err)
	}
	image := sign.Image{Ref: gatehouse.Ref{Registry: "registry.example", Repo: repo, Digest: digest}, MediaType: m.MediaType, Size: m.Size}
	if _, err := sign.Attach(tr.t.Context(), sign.InContent(tr.content, gatehouse.Actor{Name: "signer"}), k, image, o); err != nil {
		tr.t.Fatal(err)
	}
}

// shown is what is known of an image's signatures: "valid key …", "untrusted".
func (tr *trusting) shown(repo gatehouse.Repo, digest gatehouse.Digest) []string {
	tr.t.Helper()
	out := []string{}
	err := tr.db.Read(tr.t.Context(), func(tx *db.Tx) error {
		list, _, err := tx.Signatures(tr.t.Context(), repo, digest)
		for _, s := range list {
			line := map[db.SignatureStatus]string{db.SignatureValid: "valid", db.SignatureUnjudged: "unjudged", db.SignatureUntrusted: "untrusted", db.SignatureBroken: "broken"}[s.Status]
			if s.Signer != "" {
				line += " " + s.Signer
			}
			for _, a := range s.Authorities {
				line += " " + a
			}
			out = append(out, line)
		}
		return err
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func (tr *trusting) want(repo gatehouse.Repo, digest gatehouse.Digest, want ...string) {
	tr.t.Helper()
	slices.Sort(want)
	var last []string
	defer func() {
		if tr.t.Failed() {
			tr.t.Log(cmp.Diff(want, last))
		}
	}()
	tr.eventually("signatures "+strings.Join(want, ", "), func() bool {
		last = tr.shown(repo, digest)
		return slices.Equal(last, want)
	})
}

// told are the events about signatures of an image so far.
func (tr *trusting) told(digest gatehouse.Digest) (out []string) {
	tr.t.Helper()
	err := tr.db.Read(tr.t.Context(), func(tx *db.Tx) error {
		list, err := tx.Events(tr.t.Context(), 0, 1000)
		for _, e := range list {
			if e.Digest != digest || e.Type != gatehouse.EventSignatureAdded && e.Type != gatehouse.EventSignatureInvalid {
				continue
			}
			var about pipeline.SignatureEvent
			if err := json.Unmarshal(e.Payload, &about); err != nil {
				return err
			}
			line := string(e.Type) + " " + about.Signer
			for _, r := range about.Reasons {
				line += " " + r.Authority + ":" + r.Code
			}
			out = append(out, line)
		}
		return err
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return out
}

func (tr *trusting) wantTold(digest gatehouse.Digest, want ...string) {
	tr.t.Helper()
	var last []string
	tr.eventually("events", func() bool { last = tr.told(digest); return len(last) >= len(want) })
	if diff := cmp.Diff(want, last); diff != "" {
		tr.t.Error(diff)
	}
}

func signerOf(k *sign.Key) string { return "key " + string(k.ID()) }

// TestSignaturesAreCheckedWhenTheyArrive: of each digest it is known who signed it,
// by whichever signer some policy names, and what is nobody's is shown as that.
func TestSignaturesAreCheckedWhenTheyArrive(t *testing.T) {
	tr := openTrusting(t)
	known, stranger := newKey(t), newKey(t)
	packed, diffID := layer(t, npm("a", "1.0.0"))
	d := tr.push("team/app", [][]byte{packed}, []gatehouse.Digest{diffID})
	// As long as no policy names anybody, there is nothing to say for or against it.
	tr.sign(known, "team/app", d, sign.Options{})
	tr.want("team/app", d, "unjudged")
	// The policy comes after the signature.
	tr.trust(map[string]*sign.Key{"release": known})
	tr.want("team/app", d, "valid "+signerOf(known)+" policy/release")
	tr.sign(stranger, "team/app", d, sign.Options{})
	tr.want("team/app", d, "valid "+signerOf(known)+" policy/release", "untrusted")
	// The tag scheme: one manifest with two signatures, of which one is nobody's.
	tr.sign(known, "team/app", d, sign.Options{Legacy: true})
	tr.sign(stranger, "team/app", d, sign.Options{Legacy: true})
	tr.want("team/app", d, "valid "+signerOf(known)+" policy/release", "valid "+signerOf(known)+" policy/release", "untrusted", "untrusted")
	tr.wantTold(d, "signature.added "+signerOf(known), "signature.invalid unknown signer policy/release:wrong-key",
		"signature.added "+signerOf(known), "signature.invalid unknown signer policy/release:wrong-key")
	// Another policy: the one who signed is not known any more, and the stranger is.
	tr.trust(map[string]*sign.Key{"other": stranger})
	tr.want("team/app", d, "untrusted", "untrusted", "valid "+signerOf(stranger)+" policy/other", "valid "+signerOf(stranger)+" policy/other")
}

// TestBrokenSignatures: what is wrong with a signature whoever made it is told once.
func TestBrokenSignatures(t *testing.T) {
	tr := openTrusting(t)
	k := newKey(t)
	tr.trust(map[string]*sign.Key{"release": k})
	packed, diffID := layer(t, npm("a", "1.0.0"))
	d := tr.push("team/app", [][]byte{packed}, []gatehouse.Digest{diffID})
	packed, diffID = layer(t, npm("b", "1.0.0"))
	other := tr.push("team/app", [][]byte{packed}, []gatehouse.Digest{diffID})
	// A signature of another image, moved over.
	tr.sign(k, "team/app", other, sign.Options{Legacy: true})
	m, err := tr.content.ManifestByTag(t.Context(), "team/app", sign.LegacyTag(other))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := tr.content.PutManifest(t.Context(), gatehouse.Actor{Name: "mallory"}, gatehouse.ManifestPut{
			Repo: "team/app", Tags: []string{sign.LegacyTag(d)}, MediaType: m.MediaType, Body: m.Body,
		}); err != nil {
			t.Fatal(err)
		}
	}
	tr.want("team/app", d, "broken")
	tr.want("team/app", other, "valid "+signerOf(k)+" policy/release")
	tr.wantTold(d, "signature.invalid unknown signer :other-digest")
	// The tag goes, and what it held with it.
	if err := tr.content.DeleteTag(t.Context(), gatehouse.Actor{Name: "admin"}, "team/app", sign.LegacyTag(d)); err != nil {
		t.Fatal(err)
	}
	tr.want("team/app", d)
}

// TestSignaturesComeAndGo: a signature may come before its image, of children and of
// what hangs on an image; and what is known of it goes with either.
func TestSignaturesComeAndGo(t *testing.T) {
	tr := openTrusting(t)
	k := newKey(t)
	tr.trust(map[string]*sign.Key{"release": k})
	packed, diffID := layer(t, npm("a", "1.0.0"))
	d := tr.push("one", [][]byte{packed}, []gatehouse.Digest{diffID})
	tr.sign(k, "one", d, sign.Options{})
	tr.want("one", d, "valid "+signerOf(k)+" policy/release")
	list, err := tr.content.Referrers(t.Context(), "one", d, "", "", 10)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	// Copied to another repository, signature first.
	tr.copyManifest("one", "two", list[0].Digest)
	if err := tr.pipeline.CheckSignatures(t.Context(), "two", d); err != nil {
		t.Fatal(err)
	}
	tr.want("two", d)
	tr.copyManifest("one", "two", d)
	tr.want("two", d, "valid "+signerOf(k)+" policy/release")
	// The signature of a signature.
	tr.sign(k, "two", list[0].Digest, sign.Options{Legacy: true})
	tr.want("two", list[0].Digest, "valid "+signerOf(k)+" policy/release")
	if err := tr.content.DeleteManifest(t.Context(), gatehouse.Actor{Name: "admin"}, "two", list[0].Digest); err != nil {
		t.Fatal(err)
	}
	if got := tr.shown("two", d); len(got) != 0 {
		t.Errorf("after the signature was deleted: %v", got)
	}
	if got := tr.shown("two", list[0].Digest); len(got) != 0 {
		t.Errorf("of a manifest that is gone: %v", got)
	}
	tr.want("one", d, "valid "+signerOf(k)+" policy/release")
}

// copyManifest copies a manifest with its blobs.
func (tr *trusting) copyManifest(from, to gatehouse.Repo, digest gatehouse.Digest) {
	tr.t.Helper()
	m, err := tr.content.Manifest(tr.t.Context(), from, digest)
	if err != nil {
		tr.t.Fatal(err)
	}
	var doc struct {
		Config gatehouse.Descriptor
		Layers []gatehouse.Descriptor
	}
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		tr.t.Fatal(err)
	}
	for _, b := range append(doc.Layers, doc.Config) {
		if _, err := tr.content.MountBlob(tr.t.Context(), gatehouse.Actor{Name: "copier"}, to, from, b.Digest); err != nil {
			tr.t.Fatal(err)
		}
	}
	if _, err := tr.content.PutManifest(tr.t.Context(), gatehouse.Actor{Name: "copier"}, gatehouse.ManifestPut{Repo: to, Digest: digest, MediaType: m.MediaType, Body: m.Body}); err != nil {
		tr.t.Fatal(err)
	}
}

// TestStatementsOfStrangeTypes: a signer's statements are known whatever their types
// are called.
func TestStatementsOfStrangeTypes(t *testing.T) {
	tr := openTrusting(t)
	k := newKey(t)
	tr.trust(map[string]*sign.Key{"release": k})
	packed, diffID := layer(t, npm("a", "1.0.0"))
	d := tr.push("team/app", [][]byte{packed}, []gatehouse.Digest{diffID})
	m, err := tr.content.Manifest(t.Context(), "team/app", d)
	if err != nil {
		t.Fatal(err)
	}
	image := sign.Image{Ref: gatehouse.Ref{Registry: "registry.example", Repo: "team/app", Digest: d}, MediaType: m.MediaType, Size: m.Size}
	noise := make([]byte, 1500)
	_, _ = rand.Read(noise) // never fails
	long := "https://a.example/" + hex.EncodeToString(noise)
	s, err := sign.NewSigner(k, sign.Services{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, predicate := range []string{"https://a.example/\x00b", long + "1", long + "2"} {
		statement, err := json.Marshal(map[string]any{
			"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": map[string]any{},
			"subject": []any{map[string]any{"name": "app", "digest": map[string]string{"sha256": d.Hex()}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		// The manifest says it is of another type: the statement counts.
		if _, err := s.Attest(t.Context(), sign.InContent(tr.content, gatehouse.Actor{Name: "signer"}), image,
			sign.Statement{Predicate: "https://a.example/a", JSON: statement}, sign.Options{Now: time.Unix(1_700_000_000, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	valid := "valid " + signerOf(k) + " policy/release"
	tr.want("team/app", d, valid, valid, valid)
}

// TestSignaturesUnderOneTag: each of the signatures that manifests of a tag carry one
// after the other is known once, and none passes for a stranger's where a later
// manifest carries it again.
func TestSignaturesUnderOneTag(t *testing.T) {
	tr := openTrusting(t)
	k := newKey(t)
	tr.trust(map[string]*sign.Key{"release": k})
	packed, diffID := layer(t, npm("a", "1.0.0"))
	d := tr.push("team/app", [][]byte{packed}, []gatehouse.Digest{diffID})
	m, err := tr.content.Manifest(t.Context(), "team/app", d)
	if err != nil {
		t.Fatal(err)
	}
	image := sign.Image{Ref: gatehouse.Ref{Registry: "registry.example", Repo: "team/app", Digest: d}, MediaType: m.MediaType, Size: m.Size}
	s, err := sign.NewSigner(k, sign.Services{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 4 {
		predicate := fmt.Sprintf("https://a.example/%d", i)
		if _, err := s.Attest(t.Context(), sign.InContent(tr.content, gatehouse.Actor{Name: "signer"}), image, sign.Statement{Predicate: predicate, JSON: []byte(fmt.Sprintf(
			`{"_type":"https://in-toto.io/Statement/v1","predicateType":%q,"predicate":{},"subject":[{"name":"app","digest":{"sha256":%q}}]}`, predicate, d.Hex(),
		))}, sign.Options{Now: time.Unix(1_700_000_000, 0), Legacy: true}); err != nil {
			t.Fatal(err)
		}
		want = append(want, "valid "+signerOf(k)+" policy/release")
		tr.want("team/app", d, want...)
	}
	for _, line := range tr.told(d) {
		if strings.HasPrefix(line, string(gatehouse.EventSignatureInvalid)) {
			t.Errorf("told: %s", line)
		}
	}
}

// TestManySignatures: what is kept of one image is bounded, valid ones first, and
// that there are more is told.
func TestManySignatures(t *testing.T) {
	tr := openTrusting(t)
	k := newKey(t)
	tr.trust(map[string]*sign.Key{"release": k})
	packed, diffID := layer(t, npm("a", "1.0.0"))
	d := tr.push("team/app", [][]byte{packed}, []gatehouse.Digest{diffID})
	for range 210 {
		tr.sign(newKey(t), "team/app", d, sign.Options{})
	}
	tr.sign(k, "team/app", d, sign.Options{})
	tr.eventually("the check", func() bool { return slices.Contains(tr.shown("team/app", d), "valid "+signerOf(k)+" policy/release") })
	err := tr.db.Read(t.Context(), func(tx *db.Tx) error {
		list, check, err := tx.Signatures(t.Context(), "team/app", d)
		if len(list) != 200 || list[0].Status != db.SignatureValid || len(check.Incomplete) == 0 {
			t.Errorf("%d signatures, the first %v, incomplete %v", len(list), list[0].Status, check.Incomplete)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

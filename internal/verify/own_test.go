package verify_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// TestOwnRegistry signs into our own registry and verifies out of it, with no
// HTTP in between, as the server does.
func TestOwnRegistry(t *testing.T) {
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := content.New(d, mem.New(), content.Options{})
	actor := gatehouse.System("test")
	store := sign.InContent(c, actor)
	empty, err := store.PutBlob(t.Context(), "app", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"schemaVersion":2,"mediaType":"` + typeManifest + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + string(empty.Digest) + `","size":2},"layers":[]}`)
	if err := store.PutManifest(t.Context(), "app", "v1", typeManifest, body); err != nil {
		t.Fatal(err)
	}
	m, err := store.ManifestByTag(t.Context(), "app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	ref := gatehouse.Ref{Registry: "localhost:5000", Repo: "app", Digest: m.Digest}
	k1, k2 := newKey(t), newKey(t)
	v := verify.Verifier{Cache: verify.NewLRU(100)}
	_, rejected, err := v.Image(t.Context(), c, ref, need(pub(k1)))
	if err != nil || codesOf(rejected)[verify.CodeNoCandidate] != 1 {
		t.Fatalf("unsigned: %v, %v", rejected, err)
	}
	for _, k := range []*sign.Key{k1, k2} {
		done, err := sign.Attach(t.Context(), store, k, sign.Image{Ref: ref, MediaType: m.MediaType, Size: m.Size}, sign.Options{Both: true, Now: time.Now()})
		if err != nil || len(done) != 2 {
			t.Fatalf("%v, %v", done, err)
		}
	}
	for _, k := range []*sign.Key{k1, k2} {
		evidence, rejected, err := v.Image(t.Context(), c, ref, need(pub(k)))
		if err != nil || len(evidence) != 2 || codesOf(rejected)[verify.CodeWrongKey] != 2 {
			t.Errorf("%v, rejected %v, %v", evidence, rejected, err)
		}
		apart, why, err := v.Image(t.Context(), oneByOne{c, c, c}, ref, need(pub(k)))
		if diff := cmp.Diff([]any{evidence, rejected}, []any{apart, why}); err != nil || diff != "" {
			t.Errorf("asked one by one: %v\n%s", err, diff)
		}
	}
}

// oneByOne is a source that cannot be asked at once.
type oneByOne struct {
	verify.Source
	verify.TagHistory
	verify.ValidSignatures
}

// TestAskedAtOnce: for what hangs on an image in our own registry it is asked once,
// and what it cannot answer at once is asked one by one.
func TestAskedAtOnce(t *testing.T) {
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := content.New(d, mem.New(), content.Options{})
	s, k := verifytest.New(t), verifytest.NewKey(t)
	ref := pushSigned(t, c, "app", func(image gatehouse.Digest) []byte {
		return s.Bundle(statementFor(image, signPredicate), signing{Key: k})
	})
	before := d.Statements()
	if evidence, _, err := verify.Image(t.Context(), c, ref, need(verifytest.PublicPEM(t, k))); err != nil || len(evidence) != 1 {
		t.Fatal(evidence, err)
	}
	if n := d.Statements() - before; n != 2 {
		t.Errorf("%d statements; one lists, one reads the bundle", n)
	}
	evidence, _, err := verify.Image(t.Context(), speechless{c}, ref, need(verifytest.PublicPEM(t, k)))
	if err != nil || len(evidence) != 1 {
		t.Errorf("asked one by one in the end: %v, %v", evidence, err)
	}
}

// speechless answers nothing at once.
type speechless struct{ verify.Source }

func (speechless) Attached(context.Context, gatehouse.Repo, gatehouse.Digest, string, []string, int) (*gatehouse.Attached, error) {
	return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "down")
}

package verify_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
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
	}
}

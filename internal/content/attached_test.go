package content_test

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestOnAttached: whatever changes what hangs on a manifest is told in its own
// transaction, whether the manifest is there or comes later; what changes nothing of
// that is not.
func TestOnAttached(t *testing.T) {
	d := openDB(t, db.Options{})
	var told []gatehouse.Digest
	c := content.New(d, mem.New(), content.Options{
		OnAttached: func(_ context.Context, _ *db.Tx, repo gatehouse.Repo, subject gatehouse.Digest) error {
			if repo != "a" {
				t.Errorf("in %s", repo)
			}
			told = append(told, subject)
			return nil
		},
		MaySign: func(m *gatehouse.Manifest) bool { return m.ArtifactType != "application/x-document" },
	})
	s := &contenttest.Suite{T: t, C: c}
	was := func(what string, want ...gatehouse.Digest) {
		t.Helper()
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		told = nil
	}
	image := contenttest.Image{Config: "{}"}
	x := s.Push("a", image, "v1")
	was("an image")
	refer := func(artifactType, name string, subject gatehouse.Descriptor, tags ...string) gatehouse.Descriptor {
		return s.Push("a", contenttest.Image{Config: "{}", Subject: &subject, ArtifactType: artifactType, Annotations: map[string]string{"name": name}}, tags...)
	}
	one := refer("application/x", "one", x)
	was("a referrer", x.Digest)
	refer("application/x", "one", x)
	was("the same again")
	refer("application/x-document", "bill", x)
	was("a document")
	tag := "sha256-" + x.Digest.Hex()
	for _, suffix := range []string{".sig", ".att", ".sbom", ""} {
		s.Push("a", contenttest.Image{Config: "{}", Annotations: map[string]string{"name": suffix}}, tag+suffix)
		was("tag "+suffix, x.Digest)
	}
	if err := c.DeleteTag(t.Context(), contenttest.Pusher, "a", tag+".sig"); err != nil {
		t.Fatal(err)
	}
	was("a tag that goes", x.Digest)
	if _, err := c.RestoreTag(t.Context(), contenttest.Pusher, "a", tag+".sig", ""); err != nil {
		t.Fatal(err)
	}
	was("and comes back", x.Digest)
	if err := c.DeleteTag(t.Context(), contenttest.Pusher, "a", "v1"); err != nil {
		t.Fatal(err)
	}
	was("another tag")
	// Before its image.
	late := contenttest.Image{Config: "{}", Annotations: map[string]string{"name": "late"}}
	desc := contenttest.Describe(contenttest.OCIManifest, string(late.Body()))
	refer("application/x", "early", desc)
	was("before its image", desc.Digest)
	s.Push("a", late)
	was("and the image", desc.Digest)
	before := version(t, d, x.Digest)
	if err := c.DeleteManifest(t.Context(), contenttest.Pusher, "a", one.Digest); err != nil {
		t.Fatal(err)
	}
	if now := version(t, d, x.Digest); now == before || now == "" {
		t.Errorf("a referrer that goes changes nothing: %q", now)
	}
}

func version(t *testing.T, d *db.DB, subject gatehouse.Digest) (v string) {
	t.Helper()
	if err := d.Get(t.Context(), func(tx *db.Tx) (err error) { v, err = tx.AttachedVersion(t.Context(), "a", subject); return err }); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTagHistory: what a tag pointed at is there as long as its manifests are.
func TestTagHistory(t *testing.T) {
	d := openDB(t, db.Options{})
	c := content.New(d, mem.New(), content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	x := s.Push("a", contenttest.Image{Config: "{}"}, "v1")
	tag := "sha256-" + x.Digest.Hex() + ".sig"
	var all []gatehouse.Digest
	for _, name := range []string{"one", "two", "three"} {
		all = append(all, s.Push("a", contenttest.Image{Config: "{}", Annotations: map[string]string{"name": name}}, tag).Digest)
	}
	slices.Reverse(all)
	got, err := c.TagHistory(t.Context(), "a", tag)
	if err != nil || !slices.Equal(got, all) {
		t.Errorf("%v, %v; want %v", got, err, all)
	}
	if err := c.DeleteManifest(t.Context(), contenttest.Pusher, "a", all[1]); err != nil {
		t.Fatal(err)
	}
	if got, err := c.TagHistory(t.Context(), "a", tag); err != nil || !slices.Equal(got, []gatehouse.Digest{all[0], all[2]}) {
		t.Errorf("after one was deleted: %v, %v", got, err)
	}
	// Moving the tag does not push out what holds.
	err = d.Write(t.Context(), func(tx *db.Tx) error {
		v, err := tx.AttachedVersion(t.Context(), "a", x.Digest)
		if err != nil {
			return err
		}
		_, current, err := tx.SaveSignatures(t.Context(), "a", x.Digest, v, db.SignatureCheck{}, []db.Signature{
			{Artifact: all[0], Status: db.SignatureUntrusted}, {Artifact: all[2], Signer: "release", Status: db.SignatureValid}})
		if !current {
			t.Error("not saved")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.TagHistory(t.Context(), "a", tag); err != nil || !slices.Equal(got, []gatehouse.Digest{all[2], all[0]}) {
		t.Errorf("with a valid signature in the oldest: %v, %v", got, err)
	}
	if got, err := c.ValidSignatures(t.Context(), "a", x.Digest); err != nil || !slices.Equal(got, []gatehouse.Digest{all[2]}) {
		t.Errorf("valid signatures: %v, %v", got, err)
	}
	if got, err := c.ValidSignatures(t.Context(), "a", all[0]); err != nil || len(got) != 0 {
		t.Errorf("valid signatures of what has none: %v, %v", got, err)
	}
	for _, other := range []string{"none", "v2"} {
		if got, err := c.TagHistory(t.Context(), gatehouse.Repo("a"), other); err != nil || len(got) != 0 {
			t.Errorf("%s: %v, %v", other, got, err)
		}
	}
}

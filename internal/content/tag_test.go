package content_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestTagRestore: the last move or deletion of a tag can be undone, and any
// manifest that it had can be had again, as long as that is there.
func TestTagRestore(t *testing.T) {
	d := openDB(t, db.Options{})
	c := content.New(d, mem.New(), content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	ctx := t.Context()
	one := s.Push("a", contenttest.Image{Config: "{}", Annotations: map[string]string{"n": "1"}}, "v1")
	two := s.Push("a", contenttest.Image{Config: "{}", Annotations: map[string]string{"n": "2"}}, "v1")
	other := s.Push("a", contenttest.Image{Config: "{}"}, "other")
	names := map[gatehouse.Digest]string{one.Digest: "1", two.Digest: "2"}
	restore := func(digest, want gatehouse.Digest) {
		t.Helper()
		done, err := c.RestoreTag(ctx, contenttest.Pusher, "a", "v1", digest)
		if err != nil || done.New != want || done.Actor != "pusher" || done.At.IsZero() {
			t.Fatalf("restored %+v, %v, want %s", done, err, names[want])
		}
	}
	restore("", one.Digest) // undoes the move
	if err := c.DeleteTag(ctx, contenttest.Pusher, "a", "v1"); err != nil {
		t.Fatal(err)
	}
	restore("", one.Digest) // undoes the deletion
	restore(two.Digest, two.Digest)

	_, err := c.RestoreTag(ctx, contenttest.Pusher, "a", "v1", two.Digest)
	s.WantError(err, gatehouse.CodeConflict, "")
	_, err = c.RestoreTag(ctx, contenttest.Pusher, "a", "v1", other.Digest)
	s.WantError(err, gatehouse.CodeInvalid, "")
	_, err = c.RestoreTag(ctx, contenttest.Pusher, "a", "other", "")
	s.WantError(err, gatehouse.CodeConflict, "")
	_, err = c.RestoreTag(ctx, contenttest.Pusher, "a", "never", "")
	s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	_, err = c.TagChanges(ctx, "a", "never", 0, 10)
	s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")

	// A whole manifest takes its tags with it; then there is nothing to go back to.
	if err := c.DeleteManifest(ctx, contenttest.Pusher, "a", two.Digest); err != nil {
		t.Fatal(err)
	}
	_, err = c.RestoreTag(ctx, contenttest.Pusher, "a", "v1", "")
	s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	if !strings.Contains(err.Error(), "is gone") || !strings.Contains(gatehouse.HintOf(err), "tag-restore") {
		t.Errorf("the refusal does not help: %v, %s", err, gatehouse.HintOf(err))
	}
	restore(one.Digest, one.Digest)

	var history []string
	for before := int64(0); ; {
		page, err := c.TagChanges(ctx, "a", "v1", before, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range page {
			history, before = append(history, names[h.Old]+">"+names[h.New]), h.ID
		}
		if len(page) < 3 {
			break
		}
	}
	if diff := cmp.Diff([]string{">1", "2>", "1>2", ">1", "1>", "2>1", "1>2", ">1"}, history); diff != "" {
		t.Errorf("history, newest first (-want +got):\n%s", diff)
	}
	wantRestores(t, d, 4)
	wantSound(t, c)
}

// wantRestores counts the events of restored tags.
func wantRestores(t *testing.T, d *db.DB, want int) {
	t.Helper()
	n := 0
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		events, err := tx.Events(t.Context(), 0, 1000)
		for _, e := range events {
			if e.Type == gatehouse.EventTagRestored {
				n++
			}
		}
		return err
	})
	if err != nil || n != want {
		t.Errorf("%d events tag.restored, %v, want %d", n, err, want)
	}
}

// TestTagsFrom: tags with what they point at, by pages.
func TestTagsFrom(t *testing.T) {
	c := content.New(openDB(t, db.Options{}), mem.New(), content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	m := s.Push("a", contenttest.Image{Config: "{}"}, "v1", "v2", "v3")
	list, err := c.TagsFrom(t.Context(), "a", "v2", 10)
	if err != nil || len(list) != 2 || list[0].Name != "v2" || list[0].Digest != m.Digest || list[0].MediaType != m.MediaType ||
		list[0].Size != m.Size || list[0].UpdatedBy != "pusher" || list[0].UpdatedAt.IsZero() {
		t.Errorf("tags %+v, %v", list, err)
	}
	if tag, err := c.Tag(t.Context(), "a", "v3"); err != nil || tag.Name != "v3" {
		t.Errorf("tag %+v, %v", tag, err)
	}
	_, err = c.Tag(t.Context(), "a", "v")
	s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	_, err = c.TagsFrom(t.Context(), "none", "", 10)
	s.WantError(err, gatehouse.CodeNotFound, "NAME_UNKNOWN")
}

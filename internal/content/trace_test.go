package content_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestTraces checks what a push and its undoing leave behind: events, audit
// records and tag history, each once.
func TestTraces(t *testing.T) {
	d := openDB(t, db.Options{})
	c := content.New(d, mem.New(), content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	one, two := contenttest.Image{Config: "{}"}, contenttest.Image{Config: "{}", Annotations: map[string]string{"n": "2"}}
	a := s.Push("a/b", one, "v1")
	s.Push("a/b", one, "v1", "same") // again: only the new tag counts
	b := s.Push("a/b", two, "v1")
	sig := s.Push("a/b", contenttest.Image{Config: "{}", ArtifactType: "application/x", Subject: &a})
	if err := c.DeleteTag(t.Context(), contenttest.Pusher, "a/b", "same"); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteManifest(t.Context(), contenttest.Pusher, "a/b", b.Digest); err != nil {
		t.Fatal(err)
	}
	names := map[gatehouse.Digest]string{a.Digest: "a", b.Digest: "b", sig.Digest: "sig"}
	var events, audit, history []string
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		list, err := tx.Events(t.Context(), 0, 100)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Repo != "a/b" || e.Actor != "pusher" || e.At.IsZero() || !json.Valid(e.Payload) {
				t.Errorf("event %+v %s", e, e.Payload)
			}
			events = append(events, strings.TrimSpace(string(e.Type)+" "+names[e.Digest]+" "+e.Tag))
		}
		records, err := tx.Audit(t.Context(), 0, 100)
		if err != nil {
			return err
		}
		for _, r := range records {
			audit = append(audit, r.Action)
			if r.Actor != "pusher" || !strings.HasPrefix(r.Resource, "a/b") {
				t.Errorf("audit record %+v", r)
			}
		}
		changes, err := tx.TagHistory(t.Context(), "a/b", "v1", 0, 100)
		for _, h := range changes {
			history = append(history, names[h.Old]+">"+names[h.New])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		what      string
		got, want []string
	}{
		{"events", events, []string{"manifest.pushed a", "tag.moved a v1", "tag.moved a same", "manifest.pushed b", "tag.moved b v1",
			"manifest.pushed sig", "referrer.added sig", "tag.deleted a same", "tag.deleted b v1", "manifest.deleted b"}},
		{"audit", audit, []string{"manifest.push", "tag.move", "tag.move", "manifest.push", "tag.move", "manifest.push", "tag.delete", "tag.delete", "manifest.delete"}},
		{"history of v1", history, []string{"b>", "a>b", ">a"}},
	} {
		if diff := cmp.Diff(want.want, want.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.what, diff)
		}
	}
}

// TestOnPush: the hook runs once per manifest, in its transaction.
func TestOnPush(t *testing.T) {
	d := openDB(t, db.Options{})
	refuse := errors.New("not today")
	var err error
	var seen []gatehouse.Digest
	c := content.New(d, mem.New(), content.Options{OnPush: func(ctx context.Context, tx *db.Tx, m *gatehouse.Manifest) error {
		seen = append(seen, m.Digest)
		if m.Repo != "a/b" || len(m.Body) == 0 || m.PushedAt.IsZero() {
			t.Errorf("the hook sees %+v", m)
		}
		if _, jerr := tx.AddJob(ctx, "index", string(m.Digest), nil, time.Time{}); jerr != nil {
			return jerr
		}
		return err
	}})
	s := &contenttest.Suite{T: t, C: c}
	image := contenttest.Image{Config: "{}"}
	s.PushBlob("a/b", "{}")
	err = refuse
	if _, perr := s.Put("a/b", contenttest.OCIManifest, image.Body(), "v1"); !errors.Is(perr, refuse) {
		t.Fatalf("the hook refused, but the push returned %v", perr)
	}
	_, merr := c.ManifestByTag(t.Context(), "a/b", "v1")
	s.WantError(merr, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	wantJobs(t, d, 0)
	err = nil
	for range 2 {
		s.Push("a/b", image, "v1")
	}
	wantJobs(t, d, 1)
	if len(seen) != 2 { // the refused one and the first that was stored
		t.Errorf("the hook ran %d times, want 2", len(seen))
	}
}

func wantJobs(t *testing.T, d *db.DB, want int) {
	t.Helper()
	err := d.Get(t.Context(), func(tx *db.Tx) error {
		n, err := tx.CountJobs(t.Context(), db.JobFilter{})
		if err == nil && n != want {
			err = fmt.Errorf("%d jobs, want %d", n, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCost counts what the hot paths ask of database and storage.
func TestCost(t *testing.T) {
	d, store := openDB(t, db.Options{}), mem.New()
	c := content.New(d, store, content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	big := strings.Repeat("x", content.InlineMax+1)
	image := contenttest.Image{Config: "{}", Layers: []string{big, "small"}}
	m := s.Push("a/b", image, "v1")
	ctx := t.Context()
	read := func(text string) func() error {
		return func() error {
			b, err := c.OpenBlob(ctx, "a/b", gatehouse.DigestOf([]byte(text)))
			if err != nil {
				return err
			}
			defer b.Body.Close()
			_, err = io.Copy(io.Discard, b.Body)
			return err
		}
	}
	for _, test := range []struct {
		name       string
		statements int64
		opens      int
		run        func() error
	}{
		{"pull by tag", 1, 0, func() error { _, err := c.ManifestByTag(ctx, "a/b", "v1"); return err }},
		{"pull by digest", 1, 0, func() error { _, err := c.Manifest(ctx, "a/b", m.Digest); return err }},
		{"stat of a blob", 1, 0, func() error { _, err := c.StatBlob(ctx, "a/b", gatehouse.DigestOf([]byte(big))); return err }},
		{"a blob in storage", 1, 1, read(big)},
		{"the same blob, while nothing is written", 0, 1, read(big)},
		{"a blob in its row", 1, 0, read("small")},
		{"a page of tags", 1, 0, func() error { _, err := c.Tags(ctx, "a/b", "", 100); return err }},
		{"referrers", 1, 0, func() error { _, err := c.Referrers(ctx, "a/b", m.Digest, "", "", 100); return err }},
		{"a page of repositories", 1, 0, func() error { _, err := c.Repos(ctx, "", 100); return err }},
	} {
		statements, opens, lists := d.Statements(), store.Calls(mem.OpOpen), store.Calls(mem.OpList)
		if err := test.run(); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := d.Statements() - statements; got != test.statements {
			t.Errorf("%s: %d statements, want %d", test.name, got, test.statements)
		}
		if got := store.Calls(mem.OpOpen) - opens; got != test.opens {
			t.Errorf("%s: %d opens, want %d", test.name, got, test.opens)
		}
		if got := store.Calls(mem.OpList) - lists; got != 0 {
			t.Errorf("%s lists storage", test.name)
		}
	}
}

// TestHotBlobs: what is remembered of a blob does not outlive the next change,
// and belongs to its repository.
func TestHotBlobs(t *testing.T) {
	s := &contenttest.Suite{T: t, C: content.New(openDB(t, db.Options{}), mem.New(), content.Options{})}
	big := strings.Repeat("x", content.InlineMax+1)
	d := s.PushBlob("a/b", big)
	for range 2 {
		s.WantBlob("a/b", d, big)
	}
	if _, err := s.C.OpenBlob(t.Context(), "c/d", d.Digest); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("through another repository: %v", err)
	}
	if err := s.C.DeleteBlob(t.Context(), gatehouse.System("test"), "a/b", d.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.C.OpenBlob(t.Context(), "a/b", d.Digest); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("after it was deleted: %v", err)
	}
}

// TestPushCostIsFlat: moving a tag costs the same however many there are.
func TestPushCostIsFlat(t *testing.T) {
	d := openDB(t, db.Options{})
	s := &contenttest.Suite{T: t, C: content.New(d, mem.New(), content.Options{})}
	s.PushBlob("a/b", "{}")
	var costs []int64
	for i := range 300 {
		before := d.Statements()
		if _, err := s.Put("a/b", contenttest.OCIManifest, contenttest.Image{Config: "{}", Annotations: map[string]string{"n": fmt.Sprint(i)}}.Body(), fmt.Sprint("v", i)); err != nil {
			t.Fatal(err)
		}
		costs = append(costs, d.Statements()-before)
	}
	if costs[0] != costs[299] || costs[0] > 20 {
		t.Errorf("the first push took %d statements, the 300th %d", costs[0], costs[299])
	}
}

// TestReferrerAnnotations: a list of referrers stays small whatever its members
// carry; they themselves stay whole.
func TestReferrerAnnotations(t *testing.T) {
	s := &contenttest.Suite{T: t, C: content.New(openDB(t, db.Options{}), mem.New(), content.Options{})}
	subject := contenttest.Describe(contenttest.OCIManifest, "subject")
	for size, kept := range map[int]bool{1 << 10: true, 1 << 20: false} {
		image := contenttest.Image{Config: "{}", Subject: &subject, ArtifactType: fmt.Sprint("application/", size), Annotations: map[string]string{"k": strings.Repeat("x", size)}}
		d := s.Push("a/b", image, "v1")
		list, err := s.C.Referrers(t.Context(), "a/b", subject.Digest, image.ArtifactType, "", 10)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		if got := len(list[0].Annotations["k"]) == size; got != kept {
			t.Errorf("annotations of %d bytes in the list: %v, want %v", size, got, kept)
		}
		s.WantManifest("a/b", "v1", d, image.Body())
	}
}

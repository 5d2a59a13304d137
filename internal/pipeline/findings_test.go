package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// without leaves an extractor out: an indexer of another version.
func without(name string) func(*house, *pipeline.Options) {
	return func(_ *house, o *pipeline.Options) {
		o.Analysis.Extractors = slices.DeleteFunc(index.Extractors(), func(e index.Extractor) bool { return e.Name() == name })
	}
}

func (h *house) read(f func(ctx context.Context, tx *db.Tx) error) {
	h.t.Helper()
	ctx := context.Background()
	if err := h.db.Read(ctx, func(tx *db.Tx) error { return f(ctx, tx) }); err != nil {
		h.t.Fatal(err)
	}
}

// TestAnotherIndexerLooksAgain: what an indexer of another version has seen is
// looked at again, in the background, and what was known stands until then.
func TestAnotherIndexerLooksAgain(t *testing.T) {
	dir := t.TempDir()
	var npmName string
	for _, e := range index.Extractors() {
		if e.Wants("app/node_modules/a/package.json", 100, 0o644) {
			npmName = e.Name()
			break // the first that wants a path gets it
		}
	}
	h := open(t, dir, without(npmName)).work()
	base, baseID := layer(t, osRelease("alpine", "3.16.0"), apk("zlib 1.2.12-r1"))
	var images []gatehouse.Digest
	for i := range 5 {
		app, appID := layer(t, npm("minimist", "1.2.5"), file{"n", fmt.Sprint(i)})
		images = append(images, h.push(gatehouse.Repo(fmt.Sprint("a/", i)), [][]byte{base, app}, []gatehouse.Digest{baseID, appID}))
	}
	h.publish(flaw("CVE-2022-37434", "Alpine:v3.16", "zlib", "1.2.12-r2"), flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"))
	old := map[gatehouse.Digest]db.Image{}
	for _, d := range images {
		old[d] = h.indexed(d)
		if got := h.vulns(d); len(got) != 1 {
			t.Fatalf("the old indexer found %v", got)
		}
	}
	h.close()

	h = open(t, dir) // nobody works yet
	for _, d := range images {
		if diff := cmp.Diff([]string{"CVE-2022-37434 zlib 1.2.12-r1"}, h.vulns(d)); diff != "" {
			t.Errorf("before it was looked at again:\n%s", diff)
		}
	}
	h.work()
	for _, d := range images {
		h.eventually("an image that was indexed again", func() bool { return h.indexed(d).Indexer != old[d].Indexer })
		if diff := cmp.Diff([]string{"CVE-2021-44906 minimist 1.2.5", "CVE-2022-37434 zlib 1.2.12-r1"}, h.vulns(d)); diff != "" {
			t.Errorf("after it was looked at again:\n%s", diff)
		}
		if img := h.indexed(d); !img.FirstIndexedAt.Equal(old[d].FirstIndexedAt) || img.ID != old[d].ID {
			t.Errorf("first indexed at %s, before at %s", img.FirstIndexedAt, old[d].FirstIndexedAt)
		}
	}
	h.read(func(ctx context.Context, tx *db.Tx) error {
		left, err := tx.ReindexLeft(ctx)
		if left != 0 {
			t.Errorf("%d images are still to be indexed again", left)
		}
		return err
	})
}

// firstSeen tells since when an image has a flaw.
func (h *house) firstSeen(d gatehouse.Digest, vuln string) (at time.Time) {
	h.t.Helper()
	h.read(func(ctx context.Context, tx *db.Tx) error {
		img, _, err := tx.ImageByDigest(ctx, d)
		if err != nil {
			return err
		}
		list, err := tx.FindingsOfImage(ctx, img)
		for _, f := range list {
			if f.ID == vuln {
				at = f.FirstSeen
			}
		}
		return err
	})
	if at.IsZero() {
		h.t.Errorf("the image has no %s", vuln)
	}
	return at
}

// TestHistoryOfAnImage: a flaw is first seen on an image when it became known, or
// when the image came, whichever was later; when it went is remembered.
func TestHistoryOfAnImage(t *testing.T) {
	h := open(t, t.TempDir()).work()
	l, id := layer(t, npm("minimist", "1.2.5"))
	other, otherID := layer(t, file{"x", "y"})
	early := h.push("a/early", [][]byte{l}, []gatehouse.Digest{id})
	before := h.indexed(early)
	h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	known := h.firstSeen(early, "CVE-1")
	if !known.After(before.FirstIndexedAt) {
		t.Errorf("known since %s, indexed at %s", known, before.FirstIndexedAt)
	}
	late := h.push("a/late", [][]byte{l, other}, []gatehouse.Digest{id, otherID})
	img := h.indexed(late)
	if at := h.firstSeen(late, "CVE-1"); !at.Equal(img.FirstIndexedAt) || !at.After(known) {
		t.Errorf("the later image has it since %s; it was indexed at %s", at, img.FirstIndexedAt)
	}
	h.publish(flaw("CVE-1", "npm", "minimist", "1.2.5")) // corrected
	for d, from := range map[gatehouse.Digest]time.Time{early: known, late: img.FirstIndexedAt} {
		h.read(func(ctx context.Context, tx *db.Tx) error {
			row, _, err := tx.ImageByDigest(ctx, d)
			if err != nil {
				return err
			}
			gone, err := tx.GoneFromImage(ctx, row)
			if len(gone) != 1 || gone[0].Vuln != "CVE-1" || !gone[0].From.Equal(from) || !gone[0].To.After(from) ||
				gone[0].Package.Name != "minimist" || gone[0].Severity != gatehouse.SeverityCritical {
				t.Errorf("gone %+v, want from %s", gone, from)
			}
			return err
		})
	}
}

// TestEventsExpandToImages: one event per advisory and package, however many images
// there are, and the images that it speaks of are found by it.
func TestEventsExpandToImages(t *testing.T) {
	h := open(t, t.TempDir()).work()
	l, id := layer(t, npm("minimist", "1.2.5"))
	const images = 25
	want := map[gatehouse.Digest]bool{}
	for i := range images {
		top, topID := layer(t, file{"n", fmt.Sprint(i)})
		d := h.push(gatehouse.Repo(fmt.Sprint("a/", i)), [][]byte{l, top}, []gatehouse.Digest{id, topID})
		h.indexed(d)
		want[d] = true
	}
	h.publish(flaw("CVE-1", "npm", "minimist", "1.2.6"))
	h.publish(flaw("CVE-1", "npm", "minimist", "1.2.5"))
	var types []string
	h.eventually("both events", func() bool {
		types = nil
		h.read(func(ctx context.Context, tx *db.Tx) error {
			events, err := tx.Events(ctx, 0, 1000)
			if err != nil {
				return err
			}
			for _, e := range events {
				if !strings.HasPrefix(string(e.Type), "vulnerability.") {
					continue
				}
				types = append(types, string(e.Type))
				var about struct {
					Vulnerability, Package, Distribution string
					PackageID                            int64
					Severity                             gatehouse.Severity
				}
				if err := json.Unmarshal(e.Payload, &about); err != nil {
					return err
				}
				if about.Vulnerability != "CVE-1" || about.Package != "minimist 1.2.5" || about.Severity != gatehouse.SeverityCritical {
					t.Errorf("%s says %+v", e.Type, about)
				}
				got := map[gatehouse.Digest]bool{}
				for after := int64(0); ; {
					page, err := tx.ImagesWithPackage(ctx, about.PackageID, about.Distribution, after, 10)
					if err != nil {
						return err
					}
					for _, a := range page {
						got[a.Digest], after = true, a.ID
					}
					if len(page) < 10 {
						break
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s speaks of other images:\n%s", e.Type, diff)
				}
			}
			return nil
		})
		return len(types) >= 2
	})
	if diff := cmp.Diff([]string{"vulnerability.new", "vulnerability.fixed"}, types); diff != "" {
		t.Errorf("events:\n%s", diff)
	}
}

package content_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// noGC are options under which everything is due at once.
var noGC = content.Options{GC: content.GCOptions{Grace: content.NoTime, TagRestore: content.NoTime, Tombstone: content.NoTime}}

func collect(t *testing.T, c *content.Content) content.CollectReport {
	t.Helper()
	report, err := c.Collect(t.Context(), content.CollectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// live adds n tagged images to a repository in one transaction.
func live(t *testing.T, d *db.DB, repo gatehouse.Repo, n int) {
	t.Helper()
	ctx := t.Context()
	err := d.Write(ctx, func(tx *db.Tx) error {
		id, err := tx.EnsureRepo(ctx, repo)
		if err != nil {
			return err
		}
		layer, _, err := tx.AddBlob(ctx, db.Blob{Digest: gatehouse.DigestOf([]byte("shared")), Size: 6, Inline: []byte("shared")})
		if err != nil {
			return err
		}
		if err := tx.LinkBlob(ctx, id, layer, tx.Now().Add(time.Hour)); err != nil {
			return err
		}
		for i := range n {
			body := contenttest.Image{Config: "shared", Annotations: map[string]string{"n": fmt.Sprint(i)}}.Body()
			m := gatehouse.Manifest{Descriptor: gatehouse.Descriptor{MediaType: contenttest.OCIManifest, Digest: gatehouse.DigestOf(body), Size: int64(len(body))}, Body: body}
			to := db.TagTarget{Repo: repo, RepoID: id, Digest: m.Digest}
			if to.ManifestID, _, err = tx.AddManifest(ctx, db.NewManifest{Manifest: m, RepoID: id, Blobs: []db.ManifestBlob{{BlobID: layer, Kind: db.ConfigBlob}}}); err != nil {
				return err
			}
			if _, err := tx.MoveTag(ctx, contenttest.Pusher, to, fmt.Sprint("live", i), time.Hour); err != nil {
				return err
			}
			if err := tx.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventPushed, Repo: repo, Digest: m.Digest}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGCCostFollowsTheGarbage: five images that are garbage cost the same number
// of statements beside ten that live and beside ten thousand that need the same
// blobs. Nothing is listed.
func TestGCCostFollowsTheGarbage(t *testing.T) {
	var costs []int64
	for _, n := range []int{10, 2_000} {
		d, store := openDB(t, db.Options{}), mem.New()
		c := content.New(d, store, noGC)
		s := &contenttest.Suite{T: t, C: c}
		live(t, d, "a", n)
		collect(t, c)
		for i := range 5 {
			s.Push("a", contenttest.Image{Config: "shared", Layers: []string{fmt.Sprint("garbage ", i)}})
		}
		lists, before := store.Calls(mem.OpList), d.Statements()
		report := collect(t, c)
		costs = append(costs, d.Statements()-before)
		if report.Manifests != 5 || report.Blobs != 5 || store.Calls(mem.OpList) != lists {
			t.Errorf("beside %d: %+v, %d listings", n, report, store.Calls(mem.OpList)-lists)
		}
		if n < 100 { // the check compares each manifest with each event
			wantSound(t, c)
		}
	}
	if costs[0] != costs[1] {
		t.Errorf("%d statements beside 10 manifests, %d beside 2,000", costs[0], costs[1])
	}
}

// TestDryRun: a dry run lists to the byte what the next run deletes, and changes
// nothing.
func TestDryRun(t *testing.T) {
	d, store := openDB(t, db.Options{}), mem.New()
	c := content.New(d, store, noGC)
	s := &contenttest.Suite{T: t, C: c}
	big := strings.Repeat("x", content.InlineMax+1)
	child := s.Push("a", contenttest.Image{Config: "{}", Layers: []string{big}})
	index, err := s.Put("a", contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, child))
	if err != nil {
		t.Fatal(err)
	}
	s.Push("a", contenttest.Image{Config: "{}", Layers: []string{"kept"}}, "v1")
	before, err := c.GCStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dry, err := c.Collect(t.Context(), content.CollectOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	after, err := c.GCStatus(t.Context())
	if diff := cmp.Diff(before, after); diff != "" || err != nil {
		t.Errorf("the dry run changed something: %v\n%s", err, diff)
	}
	dry.Seconds = 0
	slices.SortFunc(dry.Items, func(a, b content.GarbageItem) int {
		return strings.Compare(a.Kind+string(a.Digest), b.Kind+string(b.Digest))
	})
	want := []content.GarbageItem{
		{Kind: "blob", Digest: gatehouse.DigestOf([]byte(big)), Bytes: int64(len(big)), Reason: "manifest collected"},
		{Kind: "manifest", Repo: "a", Digest: child.Digest, Bytes: child.Size, Reason: "pushed"},
		{Kind: "manifest", Repo: "a", Digest: index.Digest, Bytes: index.Size, Reason: "pushed"},
	}
	if want[1].Digest > want[2].Digest {
		want[1], want[2] = want[2], want[1]
	}
	// The bytes themselves have the tombstone time, here none, before them.
	objects := dry.Items[len(dry.Items)-1]
	if objects.Kind == "object" && objects.Digest == want[0].Digest {
		dry.Items = dry.Items[:len(dry.Items)-1]
	}
	if diff := cmp.Diff(want, dry.Items); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
	real := collect(t, c)
	if dry.Manifests != real.Manifests || dry.Blobs != real.Blobs || dry.BlobBytes != real.BlobBytes || dry.Bytes != real.Bytes || real.Objects != 1 {
		t.Errorf("dry %+v, real %+v", dry.Collected, real.Collected)
	}
	wantSound(t, c)
}

// TestGCStatus: totals survive a restart.
func TestGCStatus(t *testing.T) {
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
	c := content.New(d, store, content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	big := strings.Repeat("x", content.InlineMax+1)
	s.Push("a", contenttest.Image{Config: "{}", Layers: []string{big}})
	status, err := c.GCStatus(t.Context())
	if err != nil || status.Due != 0 || status.Waiting != 3 || status.Next == nil || status.OldestDue != nil || status.LastRun != nil {
		t.Errorf("after a push: %+v, %v", status, err)
	}
	clk.ahead = 25 * time.Hour
	if status, err = c.GCStatus(t.Context()); err != nil || status.Due != 3 || status.OldestDue == nil {
		t.Errorf("a day later: %+v, %v", status, err)
	}
	collect(t, c)
	clk.ahead = 50 * time.Hour
	collect(t, c)
	status, err = content.New(d, store, content.Options{}).GCStatus(t.Context())
	if err != nil || status.Totals.Manifests != 1 || status.Totals.Blobs != 2 || status.PendingObjects != 1 || status.PendingBytes != int64(len(big)) ||
		status.Totals.Bytes != 2 || status.LastRun == nil {
		t.Errorf("after its collection: %+v, %v", status, err)
	}
	clk.ahead = 51 * time.Hour
	collect(t, c)
	status, err = c.GCStatus(t.Context())
	if err != nil || status.PendingObjects != 0 || status.Totals.Bytes != int64(len(big))+2 || status.Totals.Objects != 1 || status.Due+status.Waiting != 0 {
		t.Errorf("in the end: %+v, %v", status, err)
	}
}

// TestGCLooksFirst: while nothing is due, nothing is written. Each commit wakes
// the loop, which would go round for ever, and takes the turn from a push.
func TestGCLooksFirst(t *testing.T) {
	clk := &clock{}
	var writes atomic.Int64
	d := openDB(t, db.Options{Now: clk.now, OnWrite: func(context.Context, time.Time, error) { writes.Add(1) }})
	c := content.New(d, mem.New(), content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	s.Push("a", contenttest.Image{Config: "{}", Layers: []string{"layer"}})
	before := writes.Load()
	if err := c.GCStep(t.Context()); err != nil || writes.Load() != before {
		t.Errorf("with reviews that wait: %d transactions that write, %v", writes.Load()-before, err)
	}
	clk.ahead = 25 * time.Hour
	if err := c.GCStep(t.Context()); err != nil || writes.Load() == before {
		t.Errorf("with reviews that are due: no transaction that writes, %v", err)
	}
	wantSound(t, c)
}

// TestGCSlices: what is dead together but too much for one transaction goes in
// slices, and whoever gets a tag in between is not deleted.
func TestGCSlices(t *testing.T) {
	d := openDB(t, db.Options{})
	opts := noGC
	opts.GC = opts.GC.WithLimits(1000, 7)
	c := content.New(d, mem.New(), opts)
	s := &contenttest.Suite{T: t, C: c}
	var children []gatehouse.Descriptor
	for i := range 10 {
		children = append(children, s.Push("a", contenttest.Image{Config: "{}", Annotations: map[string]string{"n": fmt.Sprint(i)}}))
	}
	index, err := s.Put("a", contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, children...))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		s.Push("a", contenttest.Image{Config: "{}", Subject: &index.Descriptor, Annotations: map[string]string{"sig": fmt.Sprint(i)}})
	}
	if report := collect(t, c); report.Manifests != 31 || report.Failed != 0 {
		t.Errorf("collected %+v", report)
	}
	wantSound(t, c)
}

// TestGCTooMuchHangsTogether: what cannot be judged is kept, is told of, and does
// not keep the rest from being collected.
func TestGCTooMuchHangsTogether(t *testing.T) {
	clk := &clock{}
	d := openDB(t, db.Options{Now: clk.now})
	opts := noGC
	opts.GC = opts.GC.WithLimits(5, 7)
	c := content.New(d, mem.New(), opts)
	s := &contenttest.Suite{T: t, C: c}
	subject := s.Push("a", contenttest.Image{Config: "{}"})
	for i := range 10 {
		s.Push("a", contenttest.Image{Config: "{}", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)}})
	}
	single := s.Push("a", contenttest.Image{Config: "{}", Layers: []string{"single"}})
	report := collect(t, c)
	// The first that fails is put off, and while it waits it keeps the others.
	if report.Manifests != 1 || report.Failed != 1 {
		t.Errorf("collected %+v, want the single one, and a failure", report.Collected)
	}
	_, err := c.Manifest(t.Context(), "a", single.Digest)
	s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	if status, err := c.GCStatus(t.Context()); err != nil || status.Failing != 1 || status.Due != 0 || status.Waiting != 11 {
		t.Errorf("status %+v, %v", status, err)
	}
	// A larger limit mends it, once the pause is over.
	clk.ahead = time.Hour
	if report := collect(t, content.New(d, mem.New(), noGC)); report.Manifests != 11 {
		t.Errorf("collected %+v", report.Collected)
	}
}

// TestGCTooMuchIsReadOnce: what too much hangs on is put off itself, so that not
// everything that hangs on it is read in full for each of its parts. Its row is
// younger here than theirs, so that it is not the first that is looked at.
func TestGCTooMuchIsReadOnce(t *testing.T) {
	clk := &clock{}
	d := openDB(t, db.Options{Now: clk.now})
	opts := noGC
	opts.GC = opts.GC.WithLimits(5, 7)
	c := content.New(d, mem.New(), opts)
	s := &contenttest.Suite{T: t, C: c}
	subject := s.Push("b", contenttest.Image{Config: "{}"})
	for i := range 10 {
		s.Push("a", contenttest.Image{Config: "{}", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)}})
	}
	s.Push("a", contenttest.Image{Config: "{}"})
	for range 3 { // the pauses grow
		report := collect(t, c)
		if report.Failed != 1 {
			t.Errorf("collected %+v, want one failure", report.Collected)
		}
		clk.ahead += 10 * time.Minute
	}
	if report := collect(t, content.New(d, mem.New(), noGC)); report.Manifests != 11 {
		t.Errorf("collected %+v", report.Collected)
	}
}

// garbage makes a registry in which everything that can be garbage is.
func garbage(ctx context.Context, t *testing.T, clk *clock, store *mem.Store) (*content.Content, *db.DB) {
	t.Helper()
	d := openDB(t, db.Options{Now: clk.now})
	c := content.New(d, store, noGC)
	s := &contenttest.Suite{T: t, C: c}
	image := contenttest.Image{Config: faultSmall, Layers: []string{faultBig}}
	child := s.Push("a/b", image)
	index, err := s.Put("a/b", contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, child))
	if err != nil {
		t.Fatal(err)
	}
	s.Push("a/b", contenttest.Image{Config: "{}", Subject: &index.Descriptor})
	s.Push("a/b", contenttest.Image{Config: "{}", Layers: []string{strings.Repeat("kept ", 20_000)}}, "v1")
	s.Push("a/b", contenttest.Image{Config: "{}"}, "sha256-"+index.Digest.Hex()+".sig")
	s.PushBlob("a/b", strings.Repeat("alone ", 20_000))
	return c, d
}

// checkCollected finishes a collection and checks that only what is needed is
// left, and that the same content can be pushed again.
func checkCollected(t *testing.T, c *content.Content, store *mem.Store) {
	t.Helper()
	wantSound(t, c)
	collect(t, c)
	wantSound(t, c)
	objects, err := store.List(t.Context(), "", 10)
	if err != nil || len(objects) != 1 {
		t.Errorf("in storage: %v, %v; want the one layer that is kept", objects, err)
	}
	s := &contenttest.Suite{T: t, C: c}
	s.WantTags("a/b", "v1")
	s.WantBlob("a/b", contenttest.Describe("", strings.Repeat("kept ", 20_000)), strings.Repeat("kept ", 20_000))
	s.Push("a/b", contenttest.Image{Config: faultSmall, Layers: []string{faultBig}}, "again")
	s.WantBlob("a/b", contenttest.Describe("", faultBig), faultBig)
	wantSound(t, c)
}

// TestGCCrashes ends the process at the begin of every transaction of a
// collection. The next process goes on; nothing that is needed is missing,
// nothing that is not stays.
func TestGCCrashes(t *testing.T) {
	whole := &clock{}
	c, _ := garbage(t.Context(), t, whole, mem.New())
	whole.reads = 0
	collect(t, c)
	if whole.reads < 8 {
		t.Fatalf("a collection reads the clock %d times; the test misses transactions", whole.reads)
	}
	for n := 1; n <= whole.reads; n++ {
		t.Run(fmt.Sprintf("at transaction %d of %d", n, whole.reads), func(t *testing.T) {
			clk, store := &clock{}, mem.New()
			c, d := garbage(t.Context(), t, clk, store)
			clk.reads, clk.crashAt = 0, n
			if !crashes(func() { _, _ = c.Collect(t.Context(), content.CollectOptions{}) }) {
				t.Fatal("the crash did not happen")
			}
			clk.crashAt = 0
			store = store.Crash()
			checkCollected(t, content.New(d, store, noGC), store)
		})
	}
}

// TestGCStorageFaults lets the deletion of bytes fail, before it was done and
// after: the rows that name them stay until it has been done for sure.
func TestGCStorageFaults(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			store := mem.New()
			c, _ := garbage(t.Context(), t, &clock{}, store)
			if after {
				store.FailAfter(mem.OpDelete, 1, mem.ErrInjected)
			} else {
				store.FailBefore(mem.OpDelete, 1, mem.ErrInjected)
			}
			if _, err := c.Collect(t.Context(), content.CollectOptions{}); !errors.Is(err, mem.ErrInjected) {
				t.Fatalf("Collect = %v", err)
			}
			if status, err := c.GCStatus(t.Context()); err != nil || status.PendingObjects != 1 && status.PendingObjects != 2 {
				t.Errorf("status %+v, %v", status, err)
			}
			store.Heal()
			checkCollected(t, c, store)
		})
	}
}

// TestRunGC: the loop collects what becomes garbage while it runs, tells of
// faults and goes on after them.
func TestRunGC(t *testing.T) {
	store := mem.New()
	opts := noGC
	passes := make(chan error, 1000)
	collected := make(chan content.Collected, 1000)
	opts.GC.OnPass = func(_ context.Context, done content.Collected, err error) {
		if err != nil {
			passes <- err
		} else {
			collected <- done
		}
	}
	c := content.New(openDB(t, db.Options{}), store, opts)
	s := &contenttest.Suite{T: t, C: c}
	s.Push("a", contenttest.Image{Config: "{}", Layers: []string{"x"}}, "v1")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.RunGC(ctx) }()
	store.FailBefore(mem.OpDelete, 1, mem.ErrInjected)
	s.PushBlob("a", strings.Repeat("big ", 20_000))
	if err := <-passes; !errors.Is(err, mem.ErrInjected) {
		t.Errorf("the loop tells of %v", err)
	}
	for done := (content.Collected{}); done.Objects == 0; {
		done = <-collected
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("RunGC = %v", err)
	}
	s.C = c
	s.WantTags("a", "v1")
	wantSound(t, c)
}

// TestHolds: what is held can be deleted by nobody until it is released.
func TestHolds(t *testing.T) {
	d := openDB(t, db.Options{})
	c := content.New(d, mem.New(), noGC)
	s := &contenttest.Suite{T: t, C: c}
	ctx, admin := t.Context(), gatehouse.Actor{Name: "admin", Admin: true}
	m := s.Push("a", contenttest.Image{Config: "{}"}, "v1")
	none := gatehouse.DigestOf([]byte("none"))
	s.WantError(c.Hold(ctx, admin, "a", m.Digest, ""), gatehouse.CodeInvalid, "")
	s.WantError(c.Hold(ctx, admin, "a", none, "why"), gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	s.WantError(c.Release(ctx, admin, "a", m.Digest), gatehouse.CodeNotFound, "")
	if err := c.Hold(ctx, admin, "a", m.Digest, "case 7"); err != nil {
		t.Fatal(err)
	}
	err := c.DeleteManifest(ctx, contenttest.Pusher, "a", m.Digest)
	s.WantError(err, gatehouse.CodeConflict, "DENIED")
	if !strings.Contains(err.Error(), "case 7") || gatehouse.HintOf(err) == "" {
		t.Errorf("the refusal does not help: %v", err)
	}
	if err := c.DeleteTag(ctx, contenttest.Pusher, "a", "v1"); err != nil {
		t.Errorf("a tag of what is held may go: %v", err)
	}
	collect(t, c)
	holds, err := c.Holds(ctx, "", db.Hold{}, 10)
	if err != nil || len(holds) != 1 || holds[0].Reason != "case 7" || holds[0].Actor != "admin" || holds[0].Repo != "a" || holds[0].Digest != m.Digest || holds[0].CreatedAt.IsZero() {
		t.Errorf("holds %+v, %v", holds, err)
	}
	if more, err := c.Holds(ctx, "a", holds[0], 10); err != nil || len(more) != 0 {
		t.Errorf("behind the last: %+v, %v", more, err)
	}
	if _, err := c.Manifest(ctx, "a", m.Digest); err != nil {
		t.Errorf("what is held was collected: %v", err)
	}
	if err := c.Release(ctx, admin, "a", m.Digest); err != nil {
		t.Fatal(err)
	}
	if report := collect(t, c); report.Manifests != 1 {
		t.Errorf("after the release: %+v", report)
	}
	var acts []string
	err = d.Read(ctx, func(tx *db.Tx) error {
		records, err := tx.Audit(ctx, 0, 100)
		for _, r := range records {
			acts = append(acts, r.Actor+" "+r.Action)
		}
		return err
	})
	want := []string{"pusher manifest.push", "pusher tag.move", "admin hold.add", "pusher tag.delete", "admin hold.release", "gatehouse manifest.collect"}
	if diff := cmp.Diff(want, acts); diff != "" || err != nil {
		t.Errorf("audit: %v (-want +got):\n%s", err, diff)
	}
}

// TestExplain: the way from what keeps something to it.
func TestExplain(t *testing.T) {
	clk := &clock{}
	c := content.New(openDB(t, db.Options{Now: clk.now}), mem.New(), content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	child := s.Push("a", contenttest.Image{Config: "{}", Layers: []string{"layer"}})
	sig := s.Push("a", contenttest.Image{Config: "{}", Subject: &child})
	index, err := s.Put("a", contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, child), "v1")
	if err != nil {
		t.Fatal(err)
	}
	loose := s.PushBlob("a", "loose")
	young := s.Push("a", contenttest.Image{Config: "{}", Annotations: map[string]string{"n": "young"}})
	layer := gatehouse.DigestOf([]byte("layer"))
	if _, err := c.MountBlob(t.Context(), contenttest.Pusher, "b", "a", layer); err != nil {
		t.Fatal(err)
	}
	check := func(digest gatehouse.Digest, kept, forever bool, path ...string) {
		t.Helper()
		e, err := c.Explain(t.Context(), "a", digest)
		if err != nil || e.Kept != kept || (e.Until == nil) != forever || e.Text() != strings.Join(path, " -> ") {
			t.Errorf("%s: kept %v until %v, %q, %v; want %v, for ever %v, %q", digest.Short(), e.Kept, e.Until, e.Text(), err, kept, forever, path)
		}
	}
	// Younger than the grace they are kept for that alone; a tag counts more.
	check(index.Digest, true, true, "tag v1", "this")
	check(young.Digest, true, false, "it was pushed a short time ago", "this")
	check(loose.Digest, true, false, "it was pushed or mounted, or lost its manifest, a short time ago", "this")
	clk.ahead = 25 * time.Hour
	check(young.Digest, false, true)
	check(child.Digest, true, true, "tag v1", "index "+string(index.Digest), "this")
	check(sig.Digest, true, true, "tag v1", "index "+string(index.Digest), "subject "+string(child.Digest), "this")
	check(layer, true, true, "tag v1", "index "+string(index.Digest), "manifest "+string(child.Digest), "this")
	if e, err := c.Explain(t.Context(), "a", layer); err != nil || fmt.Sprint(e.OtherRepos) != "[b]" || e.Kind != "blob" || e.Review == nil || e.Event != "linked" {
		t.Errorf("the layer: %+v, %v", e, err)
	}
	_, err = c.Explain(t.Context(), "a", gatehouse.DigestOf([]byte("none")))
	s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
	_, err = c.Explain(t.Context(), "none", layer)
	s.WantError(err, gatehouse.CodeNotFound, "NAME_UNKNOWN")
}

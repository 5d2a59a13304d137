package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

const testBill = "application/vnd.example.bill+json"

// billing attaches a list of packages.
func billing(version *atomic.Int64) func(*house, *pipeline.Options) {
	return func(_ *house, o *pipeline.Options) {
		o.Bills = []pipeline.Bill{{Type: testBill, Write: func(inv gatehouse.Inventory, platform string, created time.Time) ([]byte, error) {
			var names []string
			for _, p := range inv.Packages {
				names = append(names, p.Name+" "+p.Version)
			}
			return json.Marshal(map[string]any{"packages": names, "platform": platform, "created": created, "version": version.Load()})
		}}}
	}
}

// attached lists the bills of an image in a repository.
func (h *house) attached(repo gatehouse.Repo, d gatehouse.Digest) []gatehouse.Descriptor {
	h.t.Helper()
	list, err := h.content.Referrers(context.Background(), repo, d, testBill, "", 100)
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// bill reads the document of a manifest that attaches one.
func (h *house) bill(repo gatehouse.Repo, d gatehouse.Digest) string {
	h.t.Helper()
	ctx := context.Background()
	m, err := h.content.Manifest(ctx, repo, d)
	if err != nil {
		h.t.Fatal(err)
	}
	var body struct{ Layers []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &body); err != nil || len(body.Layers) != 1 || body.Layers[0].MediaType != testBill {
		h.t.Fatalf("%s, %v", m.Body, err)
	}
	blob, err := h.content.OpenBlob(ctx, repo, body.Layers[0].Digest)
	if err != nil {
		h.t.Fatal(err)
	}
	defer blob.Body.Close()
	text, err := io.ReadAll(blob.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// idle waits until no job is left.
func (h *house) idle() {
	h.t.Helper()
	h.eventually("the end of all jobs", func() (done bool) {
		h.read(func(ctx context.Context, tx *db.Tx) error {
			n, err := tx.CountJobs(ctx, db.JobFilter{States: []db.JobState{db.JobReady, db.JobLeased}})
			done = n == 0
			return err
		})
		return done
	})
}

func (h *house) failedJobs() (n int) {
	h.read(func(ctx context.Context, tx *db.Tx) (err error) {
		n, err = tx.CountJobs(ctx, db.JobFilter{States: []db.JobState{db.JobFailed}})
		return err
	})
	return n
}

func TestBillsAreAttached(t *testing.T) {
	var version atomic.Int64
	dir := t.TempDir()
	h := open(t, dir, billing(&version)).work()
	l, id := layer(t, npm("minimist", "1.2.5"))
	d := h.push("a/one", [][]byte{l}, []gatehouse.Digest{id})
	h.indexed(d)
	h.idle()
	list := h.attached("a/one", d)
	if len(list) != 1 || list[0].ArtifactType != testBill {
		t.Fatalf("attached: %+v", list)
	}
	want := `{"created":"0001-01-01T00:00:00Z","packages":["minimist 1.2.5"],"platform":"linux/amd64","version":0}`
	if got := h.bill("a/one", list[0].Digest); got != want {
		t.Errorf("the bill says %s", got)
	}
	// What is attached is no image, and gets no bill.
	h.read(func(ctx context.Context, tx *db.Tx) error {
		_, ok, err := tx.ImageByDigest(ctx, list[0].Digest)
		if ok {
			t.Error("the bill was indexed as an image")
		}
		return err
	})
	// The same image elsewhere, and here again: the same bill, once in each.
	h.push("b/two", [][]byte{l}, []gatehouse.Digest{id})
	h.push("a/one", [][]byte{l}, []gatehouse.Digest{id})
	h.idle()
	for _, repo := range []gatehouse.Repo{"a/one", "b/two"} {
		if got := h.attached(repo, d); len(got) != 1 || got[0].Digest != list[0].Digest {
			t.Errorf("%s: %+v", repo, got)
		}
	}
	// Somebody else's stays when ours is replaced, since another indexer saw more.
	foreign, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": testBill,
		"config":  map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": gatehouse.DigestOf([]byte("{}")), "size": 2},
		"layers":  []map[string]any{{"mediaType": testBill, "digest": gatehouse.DigestOf([]byte(want)), "size": len(want)}},
		"subject": map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": d, "size": 1}, "annotations": map[string]string{"dev.gatehouse.sbom": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.content.PutManifest(t.Context(), gatehouse.Actor{Name: "somebody"}, gatehouse.ManifestPut{
		Repo: "a/one", MediaType: "application/vnd.oci.image.manifest.v1+json", Body: foreign}); err != nil {
		t.Fatal(err)
	}
	h.close()
	version.Store(1)
	h = open(t, dir, billing(&version), without(index.Extractors()[0].Name())).work()
	h.eventually("the new bill", func() bool {
		list := h.attached("b/two", d)
		return len(list) == 1 && h.bill("b/two", list[0].Digest) != want
	})
	h.idle()
	if got := h.attached("a/one", d); len(got) != 2 || got[0].Digest != gatehouse.DigestOf(foreign) {
		t.Errorf("beside somebody else's: %+v", got)
	}
	// It goes with the image.
	if err := h.content.DeleteManifest(t.Context(), gatehouse.Actor{Name: "tester", Admin: true}, "b/two", d); err != nil {
		t.Fatal(err)
	}
	if _, err := h.content.Collect(t.Context(), content.CollectOptions{IgnoreWindows: true, Actor: gatehouse.Actor{Name: "tester", Admin: true}}); err != nil {
		t.Fatal(err)
	}
	if got := h.attached("b/two", d); len(got) != 0 {
		t.Errorf("the image is gone, its bill is not: %+v", got)
	}
	if n := h.failedJobs(); n != 0 {
		t.Errorf("%d jobs failed", n)
	}
}

// TestBillsOfTwoReplicas: who writes the same thing at the same moment does no harm.
func TestBillsOfTwoReplicas(t *testing.T) {
	var version atomic.Int64
	h := open(t, t.TempDir(), billing(&version))
	const images = 8
	var digests []gatehouse.Digest
	for i := range images {
		l, id := layer(t, npm("minimist", fmt.Sprint("1.2.", i)))
		digests = append(digests, h.push(gatehouse.Repo(fmt.Sprint("a/", i)), [][]byte{l}, []gatehouse.Digest{id}))
	}
	h.work()
	for _, d := range digests {
		h.indexed(d)
	}
	h.idle()
	version.Store(1) // every bill is another one from now on
	var g errgroup.Group
	for range 3 {
		for _, d := range digests {
			g.Go(func() error { return h.pipeline.AttachBills(context.Background(), d) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, d := range digests {
		if got := h.attached(gatehouse.Repo(fmt.Sprint("a/", i)), d); len(got) != 1 {
			t.Errorf("image %d has %d bills", i, len(got))
		}
	}
}

package pipeline_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// attempts is how often the queues of these tests try.
const attempts = 3

// unreliable is a storage that does not answer when it is told not to.
type unreliable struct {
	blob.Store
	away atomic.Bool
}

func (u *unreliable) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	if u.away.Load() {
		return nil, errors.New("bucket s3.internal does not answer")
	}
	return u.Store.Open(ctx, key)
}

// workBriefly runs the jobs, and gives them up soon.
func (h *house) workBriefly() {
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	queue := job.New(h.db, job.Options{
		Poll: 20 * time.Millisecond, BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond, AttemptsMax: attempts, GaveUp: h.pipeline.GaveUp(),
	})
	g.Go(func() error { return queue.Run(ctx, h.pipeline.Handlers()) })
	h.stop = func() { cancel(); _ = g.Wait() }
}

// jobsOf lists the jobs of a kind by state.
func (h *house) jobsOf(kind string, state db.JobState) (jobs []db.Job) {
	h.read(func(ctx context.Context, tx *db.Tx) (err error) {
		jobs, err = tx.Jobs(ctx, db.JobFilter{Kind: kind, States: []db.JobState{state}}, 0, 100)
		return err
	})
	return jobs
}

// die has the worker of an image's index job die as often as it may.
func (h *house) die() {
	h.t.Helper()
	for range attempts {
		err := h.db.Write(h.t.Context(), func(tx *db.Tx) error {
			_, ok, err := tx.ClaimJob(h.t.Context(), []string{pipeline.JobIndex}, "dead", tx.Now().Add(-time.Second))
			if err == nil && !ok {
				err = errors.New("there is no job to claim")
			}
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestStorageThatIsAwayForLong: an image that could not be indexed says so, without
// the inner names, and is indexed later.
func TestStorageThatIsAwayForLong(t *testing.T) {
	away := &unreliable{}
	h := open(t, t.TempDir(), func(h *house, o *pipeline.Options) {
		away.Store = h.store
		h.content = content.New(h.db, away, content.Options{OnPush: pipeline.Pushed})
		o.Content, o.Registry = h.content, h.content
	})
	away.away.Store(true)
	packed, id := layer(t, npm("minimist", "1.2.5"), noise())
	digest := h.push("a/one", [][]byte{packed}, []gatehouse.Digest{id})
	h.workBriefly()
	img := h.indexed(digest)
	if !img.Failed || img.Complete || len(img.Reasons) != 1 || !strings.Contains(img.Reasons[0], "could not be indexed") || strings.Contains(img.Reasons[0], "s3.internal") {
		t.Errorf("%+v", img)
	}
	ready := h.jobsOf(pipeline.JobIndex, db.JobReady)
	if len(ready) != 1 || ready[0].RunAt.Before(time.Now().Add(30*time.Minute)) || len(h.jobsOf(pipeline.JobIndex, db.JobFailed)) != 1 {
		t.Fatalf("jobs %+v", ready)
	}
	away.away.Store(false)
	err := h.db.Write(t.Context(), func(tx *db.Tx) error { // its time has come
		_, err := tx.AddJob(t.Context(), pipeline.JobIndex, ready[0].Key, ready[0].Payload, tx.Now())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("the image after all", func() bool { img := h.indexed(digest); return !img.Failed && len(img.Reasons) == 0 })
}

// TestImageThatKillsItsWorker: it is told, the others are indexed, and it is left
// alone until there is another indexer. One that was indexed before keeps what is
// known of it and is not complete any more.
func TestImageThatKillsItsWorker(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	packed, id := layer(t, npm("minimist", "1.2.5"))
	bad := h.push("a/bad", [][]byte{packed}, []gatehouse.Digest{id})
	h.die()
	good := h.push("a/good", [][]byte{packed, packed}, []gatehouse.Digest{id, id})
	h.workBriefly()
	if img := h.indexed(good); img.Failed {
		t.Errorf("the other image: %+v", img)
	}
	img := h.indexed(bad)
	if !img.Failed || img.Complete || len(img.Reasons) != 1 || !strings.Contains(img.Reasons[0], "the process ended each time") {
		t.Errorf("%+v", img)
	}
	if ready := h.jobsOf(pipeline.JobIndex, db.JobReady); len(ready) != 0 {
		t.Errorf("it is tried again: %+v", ready)
	}
	h.publish(flaw("CVE-2021-44906", "npm", "minimist", "1.2.6"))
	h.eventually("no work", func() bool { return len(h.jobsOf(pipeline.JobIndex, db.JobReady)) == 0 })
	h.stop()
	h.stop = nil
	err := h.db.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.AddJob(t.Context(), pipeline.JobIndex, string(good), []byte(`{"repo":"a/good","digest":"`+string(good)+`"}`), tx.Now())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.die()
	h.workBriefly()
	h.eventually("word of the image that was indexed before", func() bool { return !h.indexed(good).Complete })
	img = h.indexed(good)
	if img.Failed || !slices.ContainsFunc(img.Reasons, func(s string) bool { return strings.Contains(s, "the process ended each time") }) {
		t.Errorf("%+v", img)
	}
	if got := h.vulns(good); len(got) != 1 {
		t.Errorf("what was known of it: %v", got)
	}
}

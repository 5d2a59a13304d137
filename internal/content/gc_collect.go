package content

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Limits of a dry run, which holds the database's right to write while it
// computes: what it says is exact because it is what a run does, undone.
const (
	dryTasksMax = 10_000
	dryTimeMax  = 2 * time.Second
)

// CollectOptions tune one collection.
type CollectOptions struct {
	// DryRun changes nothing and lists what would go.
	DryRun bool
	// IgnoreWindows takes every waiting time as over: grace, restore, tombstone.
	// Pushes and downloads that are under way may fail.
	IgnoreWindows bool
	// Actor is who asked for it, for the audit record; nobody: none is written.
	Actor gatehouse.Actor
	// Progress, where it is set, hears of each step.
	Progress func(Collected)
}

// GarbageItem is one thing that a dry run would delete.
type GarbageItem struct {
	Kind   string           `json:"kind"`           // "manifest", "blob" (its row), "object" (bytes in storage)
	Repo   gatehouse.Repo   `json:"repo,omitempty"` // of a manifest
	Digest gatehouse.Digest `json:"digest"`
	Bytes  int64            `json:"bytes"`
	Reason string           `json:"reason"` // the event that had it looked at
}

// CollectReport is what one collection did or, of a dry run, would do.
type CollectReport struct {
	Collected
	DryRun    bool          `json:"dryRun"`
	Items     []GarbageItem `json:"items,omitempty"`     // of a dry run
	Truncated bool          `json:"truncated,omitempty"` // the dry run ended early: there is more
	Seconds   float64       `json:"seconds"`
}

// runRest is to Collect what gcRest is to RunGC: somebody is waiting for it, so
// that it does not rest for long because the disk is slow.
const (
	runRest    = 1
	runRestMax = 20 * time.Millisecond
)

// Collect does at once what [Content.RunGC] does in the course of time: it
// collects all that is due, at up to twice the speed, in as small steps. It may
// run beside it, and on several replicas.
func (c *Content) Collect(ctx context.Context, o CollectOptions) (report CollectReport, err error) {
	start, now := time.Now(), gcNow{everything: o.IgnoreWindows}
	defer func() { report.Seconds = time.Since(start).Seconds() }()
	if o.DryRun {
		return c.dryRun(ctx, now)
	}
	if !o.Actor.Anonymous() {
		err := c.db.Write(ctx, func(tx *db.Tx) error {
			return tx.AddAudit(ctx, o.Actor, "gc.run", "registry", fmt.Sprintf(`{"ignoreWindows":%t}`, o.IgnoreWindows))
		})
		if err != nil {
			return report, err
		}
	}
	if err := c.Sweep(ctx); err != nil {
		return report, err
	}
	for {
		begun := time.Now()
		s, err := c.step(ctx, now)
		report.add(s.done)
		if err != nil || !s.worked() {
			return report, err
		}
		rest(ctx, min(runRest*time.Since(begun), runRestMax))
		if o.Progress != nil {
			o.Progress(report.Collected)
		}
	}
}

// errDryRun undoes the transaction of a dry run.
var errDryRun = errors.New("dry run")

func (c *Content) dryRun(ctx context.Context, now gcNow) (report CollectReport, err error) {
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		report = CollectReport{DryRun: true}
		if err := c.dryReviews(ctx, tx, now, &report); err != nil {
			return err
		}
		doomed, err := tx.DueDoomed(ctx, now.of(tx), dryTasksMax)
		if err != nil {
			return err
		}
		for _, d := range doomed {
			report.Objects++
			report.Bytes += d.Size
			report.Items = append(report.Items, GarbageItem{Kind: "object", Digest: d.Digest, Bytes: d.Size, Reason: "no blob names it any more"})
		}
		report.Truncated = report.Truncated || len(doomed) == dryTasksMax
		return errDryRun
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return report, err
}

// dryReviews reviews all that is due, in a transaction that will be undone.
func (c *Content) dryReviews(ctx context.Context, tx *db.Tx, now gcNow, report *CollectReport) error {
	end := time.Now().Add(dryTimeMax)
	kinds := []db.TaskKind{db.ManifestTask, db.BlobTask}
	if c.opts.GC.KeepUntagged {
		kinds = kinds[1:]
	}
	for {
		var all step
		for _, kind := range kinds {
			r := &review{Content: c, tx: tx, now: now.of(tx), kind: kind, dry: true}
			if err := r.run(ctx, gcBatch); err != nil {
				return err
			}
			report.add(r.done)
			report.Items = append(report.Items, r.items...)
			all.add(r.step)
		}
		if !all.worked() {
			return nil
		}
		if report.Reviewed >= dryTasksMax || time.Now().After(end) {
			report.Truncated = true
			return nil
		}
	}
}

// GCStatus is how garbage collection stands.
type GCStatus struct {
	Due            int64      `json:"due"`     // reviews whose time has come
	Waiting        int64      `json:"waiting"` // reviews whose time has not
	OldestDue      *time.Time `json:"oldestDue,omitempty"`
	Next           *time.Time `json:"next,omitempty"` // when something is due next
	Failing        int64      `json:"failing"`        // reviews that failed and wait to be repeated
	PendingObjects int64      `json:"pendingObjects"` // in storage, no blob names them any more
	PendingBytes   int64      `json:"pendingBytes"`
	Holds          int64      `json:"holds"`
	Totals         GCTotals   `json:"totals"`
	LastRun        *time.Time `json:"lastRun,omitempty"`
	KeepsUntagged  bool       `json:"keepsUntagged"`
	// The settings, in seconds.
	GraceSeconds      float64 `json:"graceSeconds"`
	TagRestoreSeconds float64 `json:"tagRestoreSeconds"`
	TombstoneSeconds  float64 `json:"tombstoneSeconds"`
}

// GCTotals are the sums since the registry was made.
type GCTotals struct {
	Reviewed  int64 `json:"reviewed"`
	Manifests int64 `json:"manifests"`
	Blobs     int64 `json:"blobs"`
	Objects   int64 `json:"objects"`
	Bytes     int64 `json:"bytes"` // freed
}

// GCStatus tells how garbage collection stands, on all replicas together.
func (c *Content) GCStatus(ctx context.Context) (GCStatus, error) {
	var s db.GCState
	err := c.db.Read(ctx, func(tx *db.Tx) (err error) {
		s, err = tx.GCState(ctx, tx.Now(), !c.opts.GC.KeepUntagged)
		return err
	})
	if err != nil {
		return GCStatus{}, err
	}
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	out := GCStatus{
		Due: s.Due, Waiting: s.Waiting, OldestDue: at(s.Oldest), Next: at(s.Next), Failing: s.Failed,
		PendingObjects: s.DoomedObjects, PendingBytes: s.DoomedBytes, Holds: s.Holds, KeepsUntagged: c.opts.GC.KeepUntagged,
		GraceSeconds: c.opts.GC.Grace.Seconds(), TagRestoreSeconds: c.opts.GC.TagRestore.Seconds(), TombstoneSeconds: c.opts.GC.Tombstone.Seconds(),
		Totals: GCTotals{
			Reviewed: s.Counters[countTasks], Manifests: s.Counters[countManifests], Blobs: s.Counters[countBlobs],
			Objects: s.Counters[countObjects], Bytes: s.Counters[countBytes],
		},
	}
	if micros := s.Counters[lastRun]; micros != 0 {
		out.LastRun = at(time.UnixMicro(micros).UTC())
	}
	return out, nil
}

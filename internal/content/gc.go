package content

import (
	"context"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Garbage collection follows events, never the whole store. Whatever may have
// become garbage was written down as a task in the transaction of the event that
// did it (a tag that left, a manifest or blob that came without a name). When a
// task is due, its manifest or blob is looked at: nothing that is needed can be
// reached upward, then its rows go, in one transaction, and the keys of bytes
// in storage move to the list of the doomed. Later those bytes are deleted, then
// that list's rows. Between two statements of one of these transactions nobody
// can begin to need what it takes; and since a key is never used twice, whoever
// pushes the same bytes again makes new ones. So pushes go on meanwhile, and
// several replicas may collect at once.

// GCOptions say how long what nobody needs is kept. Zero is the default, a
// negative time is none.
type GCOptions struct {
	// Grace is how long blobs and manifests that were never tagged, and what a
	// deleted manifest needed, are kept; 24 h by default. It must be longer than
	// a client takes from its first blob to its manifest.
	Grace time.Duration
	// TagRestore is how long a manifest stays that lost its last tag, so that
	// the tag can be restored; 14 days by default.
	TagRestore time.Duration
	// Tombstone is how long bytes stay in storage after their rows are gone, for
	// downloads that had begun; 10 min by default.
	Tombstone time.Duration
	// KeepUntagged keeps manifests without a tag for ever. Their reviews wait.
	KeepUntagged bool
	// closureMax and sliceMax, where they are set, stand for the constants.
	closureMax, sliceMax int
	// OnPass, where it is set, hears of [Content.RunGC]: what was collected since
	// it last was idle, or why it cannot go on now.
	OnPass func(ctx context.Context, done Collected, err error)
}

// NoTime is the setting that makes a time none, since zero is the default.
const NoTime time.Duration = -1

func (o *GCOptions) set() {
	if o.closureMax == 0 {
		o.closureMax, o.sliceMax = closureMax, sliceMax
	}
	for _, v := range []struct {
		of       *time.Duration
		default_ time.Duration
	}{{&o.Grace, 24 * time.Hour}, {&o.TagRestore, 14 * 24 * time.Hour}, {&o.Tombstone, 10 * time.Minute}} {
		switch {
		case *v.of == 0:
			*v.of = v.default_
		case *v.of < 0:
			*v.of = 0
		}
	}
}

// Limits of one step. Reviews are cheap, but they hold the one right to write
// that SQLite has: a step must be short beside a push.
const (
	gcBatch     = 128  // tasks of one transaction: some 5 ms of one processor
	doomedBatch = 1000 // objects deleted at once, the most that S3 takes
	// closureMax bounds the manifests that one review reads. What hangs together
	// with more is kept, and counted as a failure.
	closureMax = 250_000
	// sliceMax bounds the manifests that one transaction deletes; more that are
	// dead together go in slices, indexes before their children.
	sliceMax = 2000
)

// Pauses of the loop.
const (
	gcPoll     = time.Minute            // other replicas make garbage too
	gcSettle   = 250 * time.Millisecond // a burst of changes is looked at once
	gcPauseMax = 100 * time.Millisecond
	gcPauseMin = 5 * time.Millisecond
	gcRest     = 2               // times what a step took, until the next one
	gcBusy     = 2 * time.Second // until what somebody is using is looked at again
	gcRetryMin = 30 * time.Second
	gcRetryMax = 6 * time.Hour
	sweepEvery = 10 * time.Minute
)

// collector is the actor of what garbage collection does.
var collector = gatehouse.Actor{Name: "gatehouse", Source: "system", Admin: true}

// Names of the sums that survive restarts.
const (
	countTasks     = "gc.tasks"
	countManifests = "gc.manifests"
	countBlobs     = "gc.blobs"
	countBytes     = "gc.bytes"
	countObjects   = "gc.objects"
	lastRun        = "gc.last" // microseconds
)

// Collected is what garbage collection has done, or would do.
type Collected struct {
	Reviewed  int64 `json:"reviewed"`  // manifests and blobs looked at
	Manifests int64 `json:"manifests"` // deleted
	Tags      int64 `json:"tags"`      // of other manifests that went with them
	Blobs     int64 `json:"blobs"`     // whose rows were deleted
	BlobBytes int64 `json:"blobBytes"` // their size
	Objects   int64 `json:"objects"`   // deleted from storage
	Bytes     int64 `json:"bytes"`     // freed: of objects, and of blobs that lay in their rows
	Failed    int64 `json:"failed"`    // reviews that failed and will be repeated
}

func (d *Collected) add(more Collected) {
	d.Reviewed += more.Reviewed
	d.Manifests += more.Manifests
	d.Tags += more.Tags
	d.Blobs += more.Blobs
	d.BlobBytes += more.BlobBytes
	d.Objects += more.Objects
	d.Bytes += more.Bytes
	d.Failed += more.Failed
}

// RunGC collects garbage until ctx ends: whatever is due, in small steps with
// pauses between them, and upload sessions that were given up. Run it on every
// replica.
func (c *Content) RunGC(ctx context.Context) error {
	var done Collected
	var swept time.Time
	pass := func(err error) {
		if c.opts.GC.OnPass != nil && ctx.Err() == nil {
			c.opts.GC.OnPass(ctx, done, err)
		}
		done = Collected{}
	}
	for failures := 0; ctx.Err() == nil; {
		changed, start := c.db.Changed(), time.Now()
		var err error
		if start.Sub(swept) >= sweepEvery {
			if err = c.Sweep(ctx); err == nil {
				swept = start
			}
		}
		var step step
		if err == nil {
			step, err = c.step(ctx, gcNow{})
			done.add(step.done)
		}
		switch {
		case err != nil:
			failures++
			pass(err)
			wait(ctx, min(time.Second<<min(failures, 8), gcPoll), nil)
		case step.worked():
			failures = 0
			rest(ctx, max(gcRest*time.Since(start), gcPauseMin))
		default:
			failures = 0
			if done != (Collected{}) {
				pass(nil)
			}
			c.idle(ctx, changed)
		}
	}
	return nil
}

// idle waits until something may be due.
func (c *Content) idle(ctx context.Context, changed <-chan struct{}) {
	pause := gcPoll
	err := c.db.Get(ctx, func(tx *db.Tx) error {
		next, ok, err := tx.NextTask(ctx, !c.opts.GC.KeepUntagged)
		if err == nil && ok {
			pause = min(pause, next.Sub(tx.Now()))
		}
		return err
	})
	if err != nil { // the next step will say so
		pause = time.Second
	}
	// What is due and was not done is in other hands.
	wait(ctx, max(pause, gcSettle), changed)
	wait(ctx, gcSettle, nil)
}

// rest leaves the machine to others after a step: clients that pull meanwhile must
// not notice that garbage is collected. What the step took, most of which is
// waiting for the disk, says how busy the machine is and how long to rest.
func rest(ctx context.Context, d time.Duration) { wait(ctx, min(d, gcPauseMax), nil) }

func wait(ctx context.Context, d time.Duration, early <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-early:
	}
}

// gcNow is what time it is for a collection: the database's, or, for one that
// takes every waiting time as over, far ahead.
type gcNow struct{ everything bool }

func (n gcNow) of(tx *db.Tx) time.Time {
	if n.everything {
		return tx.Now().AddDate(1000, 0, 0)
	}
	return tx.Now()
}

// step is what one round of the loop did.
type step struct {
	done Collected
	over int64 // tasks that ended: nothing is left of them
	more bool  // a task has more to do at once
}

func (s step) worked() bool { return s.over > 0 || s.more || s.done.Objects > 0 }

func (s *step) add(more step) {
	s.done.add(more.done)
	s.over += more.over
	s.more = s.more || more.more
}

// step reviews one batch of manifests and one of blobs and deletes one batch of
// objects. It looks first: where nothing is due it takes no turn to write, and
// does not wake the loop by a commit of its own.
func (c *Content) step(ctx context.Context, now gcNow) (s step, err error) {
	if due, err := c.due(ctx, now); err != nil || !due {
		return s, err
	}
	kinds := []db.TaskKind{db.ManifestTask, db.BlobTask}
	if c.opts.GC.KeepUntagged {
		kinds = kinds[1:]
	}
	for _, kind := range kinds {
		more, err := c.reviewBatch(ctx, kind, now)
		s.add(more)
		if err != nil {
			return s, err
		}
	}
	more, err := c.deleteDoomed(ctx, now)
	s.done.add(more)
	return s, err
}

func (c *Content) due(ctx context.Context, now gcNow) (due bool, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) error {
		next, ok, err := tx.NextTask(ctx, !c.opts.GC.KeepUntagged)
		due = ok && !next.After(now.of(tx))
		return err
	})
	return due, err
}

// reviewBatch reviews tasks of one kind in one transaction. Where that fails
// they are reviewed one by one, so that one which cannot be does not keep the
// others from it.
func (c *Content) reviewBatch(ctx context.Context, kind db.TaskKind, now gcNow) (s step, err error) {
	r, err := c.reviewOnce(ctx, kind, now, gcBatch)
	if err == nil {
		return r.step, nil
	}
	for range gcBatch {
		if ctx.Err() != nil || gatehouse.CodeOf(err) == gatehouse.CodeUnavailable || len(r.tasks) == 0 {
			return s, err
		}
		r, err = c.reviewOnce(ctx, kind, now, 1)
		if err == nil && len(r.tasks) == 0 {
			break
		}
		if err == nil {
			s.add(r.step)
			continue
		}
		if len(r.tasks) > 0 && gatehouse.CodeOf(err) != gatehouse.CodeUnavailable && ctx.Err() == nil {
			s.done.Failed++
			if perr := c.postpone(ctx, r.tasks[0], err); perr != nil {
				return s, errors.Join(err, perr)
			}
		}
	}
	return s, nil
}

func (c *Content) reviewOnce(ctx context.Context, kind db.TaskKind, now gcNow, n int) (r *review, err error) {
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		r = &review{Content: c, tx: tx, now: now.of(tx), kind: kind}
		if err := r.run(ctx, n); err != nil {
			return err
		}
		return r.count(ctx)
	})
	if r == nil { // it never began
		r = &review{}
	}
	return r, err
}

// postpone puts a task off that cannot be done, longer each time. Where that is
// because too much hangs on a manifest, so is that one: while it waits it is a
// root, and the others that hang on it are not read in full one after the other.
func (c *Content) postpone(ctx context.Context, task db.Task, why error) error {
	return c.db.Write(ctx, func(tx *db.Tx) error {
		tasks, attempts := []db.Task{task}, task.Attempts
		var t *tangled
		if errors.As(why, &t) {
			for _, id := range t.at {
				more, ok, err := tx.Task(ctx, db.ManifestTask, id)
				if err != nil {
					return err
				}
				if !ok {
					more = db.Task{Kind: db.ManifestTask, Key: id, Event: "too much hangs on it"}
				}
				tasks, attempts = append(tasks, more), max(attempts, more.Attempts)
			}
		}
		next := tx.Now().Add(min(gcRetryMin<<min(attempts, 16), gcRetryMax))
		for i := range tasks {
			tasks[i].Attempts, tasks[i].ReviewAfter = attempts+1, next
		}
		return tx.AddTasks(ctx, tasks...)
	})
}

// deleteDoomed deletes bytes that no row of a blob names any more, then the rows
// that name them. It may be repeated, and several replicas may do the same.
func (c *Content) deleteDoomed(ctx context.Context, now gcNow) (done Collected, err error) {
	var list []db.Doomed
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		list, err = tx.DueDoomed(ctx, now.of(tx), doomedBatch)
		return err
	})
	if err != nil || len(list) == 0 {
		return done, err
	}
	keys := make([]string, len(list))
	for i, d := range list {
		keys[i] = d.StorageKey
	}
	if err := c.store.Delete(ctx, keys...); err != nil {
		return done, err
	}
	err = c.db.Write(ctx, func(tx *db.Tx) (err error) {
		done = Collected{}
		if done.Objects, done.Bytes, err = tx.ForgetDoomed(ctx, list); err != nil {
			return err
		}
		if err := tx.Count(ctx, countObjects, done.Objects); err != nil {
			return err
		}
		return tx.Count(ctx, countBytes, done.Bytes)
	})
	return done, err
}

package job

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Run claims jobs of the kinds that handlers names and runs them, until ctx
// ends; then it waits for those that run, at most Options.StopGrace, and gives
// back what did not finish. It returns nil.
func (q *Queue) Run(ctx context.Context, handlers map[string]Handler) error {
	r := &runner{
		Queue: q, handlers: handlers, kinds: slices.Sorted(maps.Keys(handlers)),
		slots: make(chan struct{}, q.opts.Workers), ended: make(chan struct{}, 1),
	}
	// Handlers outlive ctx by the grace.
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	r.loop(ctx, work)
	grace := time.AfterFunc(q.opts.StopGrace, func() { stop(errStopped) })
	defer grace.Stop()
	r.running.Wait()
	return nil
}

// runner is one call of Run.
type runner struct {
	*Queue
	handlers map[string]Handler
	kinds    []string
	slots    chan struct{} // one per job that runs
	ended    chan struct{} // something ended since it was last looked
	running  sync.WaitGroup
	tidied   time.Time
}

// loop claims and starts jobs until ctx ends.
func (r *runner) loop(ctx, work context.Context) {
	for {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		// Taken before looking, so that nothing added meanwhile is missed.
		changed := r.db.JobsChanged()
		j, ok, wait := r.next(ctx)
		if ok {
			r.running.Go(func() {
				defer func() {
					<-r.slots
					select {
					case r.ended <- struct{}{}:
					default:
					}
				}()
				r.run(work, j)
			})
			continue
		}
		<-r.slots
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-r.ended: // its key is free again
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// next claims a job. Where there is none it tells how long to wait for one. It
// looks before it claims: looking does not need the turn to write.
func (r *runner) next(ctx context.Context) (j *Job, ok bool, wait time.Duration) {
	r.tidy(ctx)
	var at, now time.Time
	err := r.db.Get(ctx, func(tx *db.Tx) (err error) {
		now = tx.Now()
		at, ok, err = tx.NextJobAt(ctx, r.kinds)
		return err
	})
	if err != nil {
		r.complain(ctx, "job look failed", err)
		return nil, false, r.opts.Poll
	}
	if !ok || at.After(now) {
		wait = r.opts.Poll
		if ok {
			wait = min(wait, at.Sub(now))
		}
		return nil, false, wait
	}
	// Free of the end of ctx: a claim whose commit is cut off may have been made,
	// and then nobody would do that work before its lease has run out.
	whole, stop := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer stop()
	j = &Job{}
	err = r.db.Write(whole, func(tx *db.Tx) (err error) {
		j.Job, ok, err = tx.ClaimJob(whole, r.kinds, rand.Text(), tx.Now().Add(r.opts.Lease))
		return err
	})
	if err != nil {
		r.complain(ctx, "job claim failed", err)
		return nil, false, r.opts.Poll
	}
	return j, ok, r.opts.Poll
}

// tidyPeriod is how often ended jobs are removed.
const tidyPeriod = 10 * time.Minute

func (r *runner) tidy(ctx context.Context) {
	if time.Since(r.tidied) < tidyPeriod {
		return
	}
	r.tidied = time.Now()
	err := r.db.Write(ctx, func(tx *db.Tx) error {
		return tx.ForgetJobs(ctx, tx.Now().Add(-r.opts.KeepDone), tx.Now().Add(-r.opts.KeepFailed))
	})
	if err != nil {
		r.complain(ctx, "job tidy failed", err)
	}
}

func (r *runner) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		r.opts.Log.WarnContext(ctx, what, "err", err)
	}
}

// run runs one claimed job to its end.
func (r *runner) run(work context.Context, j *Job) {
	log := r.opts.Log.With("kind", j.Kind, "key", j.Key, "job", j.ID, "attempt", j.Attempts)
	ctx, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	if j.Attempts > r.opts.AttemptsMax { // its worker died each time, and perhaps because of it
		r.end(ctx, log, j, ErrDied)
		return
	}
	id, lease := j.ID, j.Lease // the handler holds j
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		r.keep(ctx, cancel, id, lease)
	}()
	log.DebugContext(ctx, "job start")
	begun := time.Now()
	err := safely(ctx, r.handlers[j.Kind], j)
	cause := context.Cause(ctx)
	cancel(nil)
	<-kept
	switch {
	case err == nil:
		log.DebugContext(ctx, "job done", "took", time.Since(begun))
	case errors.Is(cause, errLost):
		log.InfoContext(ctx, "job lost", "err", err)
		return
	}
	r.end(work, log, j, stoppedOr(cause, err))
}

// stoppedOr tells an error that the end of the server caused from one of the job.
func stoppedOr(cause, err error) error {
	if err != nil && errors.Is(cause, errStopped) {
		return errStopped
	}
	return err
}

// keep prolongs the lease until ctx ends, and ends ctx when the lease is lost.
func (r *runner) keep(ctx context.Context, cancel context.CancelCauseFunc, id int64, lease string) {
	tick := time.NewTicker(r.opts.Lease / 3)
	defer tick.Stop()
	until := time.Now().Add(r.opts.Lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		held := true
		err := r.db.Write(ctx, func(tx *db.Tx) (err error) {
			held, err = tx.KeepJob(ctx, id, lease, tx.Now().Add(r.opts.Lease))
			return err
		})
		switch {
		case err == nil && held:
			until = time.Now().Add(r.opts.Lease)
		case err == nil || time.Now().After(until):
			cancel(errLost)
			return
		}
	}
}

// endTimeout bounds a claim, and the writing of a job's outcome.
const endTimeout = 10 * time.Second

// end writes the outcome of a job, if it still is ours.
func (r *runner) end(ctx context.Context, log *slog.Logger, j *Job, outcome error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer stop()
	var p permanent
	err := r.db.Write(ctx, func(tx *db.Tx) error {
		switch {
		case outcome == nil:
			return tx.FinishJob(ctx, j.ID, j.Lease)
		case errors.Is(outcome, errStopped):
			return tx.ReturnJob(ctx, j.ID, j.Lease)
		case errors.As(outcome, &p) || j.Attempts >= r.opts.AttemptsMax:
			log.ErrorContext(ctx, "job failed", "err", outcome)
			return r.fail(ctx, tx, j.Job, outcome)
		}
		log.WarnContext(ctx, "job failed, will retry", "err", outcome)
		return tx.RetryJob(ctx, j.ID, j.Lease, tx.Now().Add(r.backoff(j.Attempts)), clip(outcome.Error()))
	})
	if gatehouse.CodeOf(err) == gatehouse.CodeConflict && (outcome == nil && j.finished || outcome != nil) {
		return // finished with its results, or no longer ours
	}
	if err != nil {
		log.WarnContext(ctx, "job end failed", "err", err) // the lease will run out
	}
}

// fail ends a job for good, and tells who wants to know.
func (r *runner) fail(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
	if err := tx.FailJob(ctx, j.ID, j.Lease, clip(reason.Error())); err != nil {
		return err
	}
	if tell := r.opts.GaveUp[j.Kind]; tell != nil {
		return tell(ctx, tx, j, reason)
	}
	return nil
}

// clip bounds the error text that is stored.
func clip(s string) string {
	const max = 4 << 10
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}

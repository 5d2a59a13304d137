// Package job is durable work over db: a job added in the transaction of its
// cause is run by any replica, under a lease, until it has succeeded or has
// failed too often. It survives a crash of the worker: then it is run again, so
// that a handler must do no harm when it is run twice. What a handler writes
// together with [Job.Finish] in one transaction happens exactly once.
//
// What it never does: know what the work is about.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Options tune a [Queue]. The zero value is right.
type Options struct {
	Log         *slog.Logger  // none by default
	Workers     int           // jobs that run at once here; as many as processors by default
	Lease       time.Duration // after which the work of a dead worker is taken over; 30 s by default
	Poll        time.Duration // how often to look for work that others added; 1 s by default
	AttemptsMax int           // 10 by default
	BackoffMin  time.Duration // before the second attempt, doubled for each more; 1 s by default
	BackoffMax  time.Duration // 10 min by default
	StopGrace   time.Duration // for jobs that run when the server stops; 5 s by default
	KeepDone    time.Duration // how long done jobs stay visible; 24 h by default
	KeepFailed  time.Duration // and failed ones; 30 days by default
	// GaveUp, by kind, is told of jobs that end as failed.
	GaveUp map[string]GaveUp
}

// GaveUp is told that a job has failed for good, in the transaction that says so:
// whoever waits for its result learns of it there. It may add the same work anew.
// An error leaves the job as it is; it is asked again when the lease has run out.
type GaveUp func(ctx context.Context, tx *db.Tx, j db.Job, reason error) error

// Queue runs jobs. It is safe for concurrent use.
type Queue struct {
	db   *db.DB
	opts Options
}

// New returns the queue that lives in d.
func New(d *db.DB, opts Options) *Queue {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Workers = or(opts.Workers, runtime.GOMAXPROCS(0))
	opts.Lease = or(opts.Lease, 30*time.Second)
	opts.Poll = or(opts.Poll, time.Second)
	opts.AttemptsMax = or(opts.AttemptsMax, 10)
	opts.BackoffMin = or(opts.BackoffMin, time.Second)
	opts.BackoffMax = or(opts.BackoffMax, 10*time.Minute)
	opts.StopGrace = or(opts.StopGrace, 5*time.Second)
	opts.KeepDone = or(opts.KeepDone, 24*time.Hour)
	opts.KeepFailed = or(opts.KeepFailed, 30*24*time.Hour)
	return &Queue{db: d, opts: opts}
}

func or[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Handler does the work of one job. An error has it run again later, unless it
// is [Permanent]. ctx ends when the lease is lost (the job was cancelled) or
// the server stops; then a job that has not finished is run again.
type Handler func(ctx context.Context, j *Job) error

// Job is one job in the hands of a handler.
type Job struct {
	db.Job
	finished bool
}

// Finish marks the job as done in the transaction that carries its results.
// CodeConflict: the lease was lost; the transaction must not commit.
func (j *Job) Finish(ctx context.Context, tx *db.Tx) error {
	if err := tx.FinishJob(ctx, j.ID, j.Lease); err != nil {
		return err
	}
	j.finished = true
	return nil
}

// Enqueue adds work in the transaction of its cause, to be done from runAt on
// (zero: now). Where the same kind and key is ready already, that one stands
// for both, with the new payload and the earlier time.
func Enqueue(ctx context.Context, tx *db.Tx, kind, key string, payload []byte, runAt time.Time) error {
	_, err := tx.AddJob(ctx, kind, key, payload, runAt)
	return err
}

// Permanent marks an error that trying again cannot mend.
func Permanent(err error) error { return permanent{err} }

// IsPermanent reports whether err is one.
func IsPermanent(err error) bool {
	var p permanent
	return errors.As(err, &p)
}

type permanent struct{ err error }

func (p permanent) Error() string { return p.err.Error() }
func (p permanent) Unwrap() error { return p.err }

// List lists jobs, oldest first, with an id after the given one, at most n.
func (q *Queue) List(ctx context.Context, f db.JobFilter, after int64, n int) (out []db.Job, err error) {
	err = q.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Jobs(ctx, f, after, n)
		return err
	})
	return out, err
}

// Count counts jobs.
func (q *Queue) Count(ctx context.Context, f db.JobFilter) (n int, err error) {
	err = q.db.Get(ctx, func(tx *db.Tx) (err error) {
		n, err = tx.CountJobs(ctx, f)
		return err
	})
	return n, err
}

// Cancel ends a job; see [db.Tx.CancelJob].
func (q *Queue) Cancel(ctx context.Context, actor gatehouse.Actor, id int64) error {
	return q.db.Write(ctx, func(tx *db.Tx) error { return tx.CancelJob(ctx, actor, id) })
}

// Restart makes a failed job ready again; see [db.Tx.RestartJob].
func (q *Queue) Restart(ctx context.Context, actor gatehouse.Actor, id int64) error {
	return q.db.Write(ctx, func(tx *db.Tx) error { return tx.RestartJob(ctx, actor, id) })
}

// backoff is the pause after the attempts-th attempt: exponential, with a
// quarter of jitter each way, so that what failed together does not come back
// together.
func (q *Queue) backoff(attempts int) time.Duration {
	d := q.opts.BackoffMax
	if shift := max(attempts-1, 0); shift < 32 && q.opts.BackoffMin<<shift < d {
		d = q.opts.BackoffMin << shift
	}
	return d*3/4 + rand.N(d/2+1)
}

// ErrDied is why a job failed whose worker died in every attempt, perhaps because
// of it.
var ErrDied = errors.New("its worker died in every attempt")

// Poisonous reports whether a job failed in a way that it very likely would again
// and that harms the process: its worker died, or the handler panicked.
func Poisonous(reason error) bool {
	var p panicked
	return errors.Is(reason, ErrDied) || errors.As(reason, &p)
}

// panicked is what a handler panicked with, and where.
type panicked struct {
	value any
	stack []byte
}

func (p panicked) Error() string {
	return fmt.Sprintf("the handler panicked: %v\n%s", p.value, p.stack)
}

// errLost is why a handler's context ends when its lease is lost.
var errLost = errors.New("the job was taken over or cancelled")

// errStopped is why a handler's context ends when the server stops.
var errStopped = errors.New("the server stops")

// safely runs h; a panic is an error of this job, not the end of the server.
func safely(ctx context.Context, h Handler, j *Job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := make([]byte, 8<<10)
			stack = stack[:runtime.Stack(stack, false)]
			err = panicked{p, stack}
		}
	}()
	return h(ctx, j)
}

package job_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/job"
)

// The tests run in real time, because the database's goroutines do not live in
// a synctest bubble; none depends on how fast anything is, only on what comes
// to pass before patience ends.
const patience = 60 * time.Second

// brisk are options under which retries come soon.
func brisk() job.Options {
	return job.Options{Workers: 2, Poll: 20 * time.Millisecond, Lease: 20 * time.Second, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond, AttemptsMax: 3}
}

type bench struct {
	*testing.T
	d *db.DB
}

func newBench(t *testing.T) *bench {
	t.Helper()
	d := dbtest.At(t, t.TempDir(), db.Options{})
	t.Cleanup(func() { d.Close() })
	return &bench{t, d}
}

func (b *bench) enqueue(kind, key, payload string) {
	b.Helper()
	b.write(func(tx *db.Tx) error {
		return job.Enqueue(b.Context(), tx, kind, key, []byte(payload), time.Time{})
	})
}

func (b *bench) write(f func(*db.Tx) error) {
	b.Helper()
	if err := b.d.Write(b.Context(), f); err != nil {
		b.Fatal(err)
	}
}

// run runs workers until stop is called, which waits for them.
func (b *bench) run(opts job.Options, handlers map[string]job.Handler) (q *job.Queue, stop func()) {
	q = job.New(b.d, opts)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := q.Run(ctx, handlers); err != nil {
			b.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	b.Cleanup(stop)
	return q, stop
}

// until waits for a state of the jobs, told as "kind/key state".
func (b *bench) until(want ...string) []db.Job {
	b.Helper()
	var got []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		jobs := b.jobs()
		got = nil
		for _, j := range jobs {
			got = append(got, j.Kind+"/"+j.Key+" "+j.State.String())
		}
		if slices.Equal(got, want) {
			return jobs
		}
	}
	b.Fatalf("jobs are %q, want %q", got, want)
	return nil
}

func (b *bench) jobs() (jobs []db.Job) {
	b.Helper()
	err := b.d.Get(b.Context(), func(tx *db.Tx) (err error) {
		jobs, err = tx.Jobs(b.Context(), db.JobFilter{}, 0, 100)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return jobs
}

func TestRunsEachOnce(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	seen := map[string]int{}
	opts := brisk()
	opts.Poll = time.Hour // the commit alone must wake the workers
	b.run(opts, map[string]job.Handler{"index": func(_ context.Context, j *job.Job) error {
		mu.Lock()
		defer mu.Unlock()
		seen[j.Key+"="+string(j.Payload)]++
		return nil
	}})
	var want []string
	for i := range 20 {
		b.enqueue("index", fmt.Sprint(i), fmt.Sprint("p", i))
		want = append(want, fmt.Sprintf("index/%d done", i))
	}
	b.until(want...)
	for i := range 20 {
		if n := seen[fmt.Sprintf("%d=p%d", i, i)]; n != 1 {
			t.Errorf("job %d ran %d times", i, n)
		}
	}
}

func TestReadyOnce(t *testing.T) {
	b := newBench(t)
	later := time.Now().Add(time.Hour)
	b.write(func(tx *db.Tx) error { return job.Enqueue(t.Context(), tx, "index", "a", []byte("old"), later) })
	b.enqueue("index", "a", "new")
	b.enqueue("match", "a", "other kind")
	jobs := b.until("index/a ready", "match/a ready")
	if string(jobs[0].Payload) != "new" || !jobs[0].RunAt.Before(later) {
		t.Errorf("the ready job is %+v, want the new payload and the earlier time", jobs[0])
	}
	// An enqueueing that is undone leaves nothing.
	undo := errors.New("undo")
	err := b.d.Write(t.Context(), func(tx *db.Tx) error {
		if err := job.Enqueue(t.Context(), tx, "index", "undone", nil, time.Time{}); err != nil {
			return err
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	b.until("index/a ready", "match/a ready")
}

func TestSameKeyNeverAtOnce(t *testing.T) {
	b := newBench(t)
	begun, goOn := make(chan string), make(chan struct{})
	var now, most atomic.Int32
	b.run(brisk(), map[string]job.Handler{"index": func(_ context.Context, j *job.Job) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		begun <- string(j.Payload)
		<-goOn
		now.Add(-1)
		return nil
	}})
	b.enqueue("index", "a", "first")
	if got := <-begun; got != "first" {
		t.Fatalf("%q ran first", got)
	}
	b.enqueue("index", "a", "second") // while the first runs: not lost, not beside it
	b.until("index/a running", "index/a ready")
	goOn <- struct{}{}
	if got := <-begun; got != "second" {
		t.Fatalf("%q ran second", got)
	}
	goOn <- struct{}{}
	b.until("index/a done", "index/a done")
	if most.Load() != 1 {
		t.Errorf("%d jobs of one key ran at once", most.Load())
	}
}

func TestRetries(t *testing.T) {
	for _, test := range []struct {
		name     string
		handler  func(attempt int) error
		state    string
		attempts int
		text     string
	}{
		{"succeeds the second time", func(n int) error {
			if n == 1 {
				return errors.New("not yet")
			}
			return nil
		}, "done", 2, ""},
		{"fails too often", func(n int) error { return fmt.Errorf("no %d", n) }, "failed", 3, "no 3"},
		{"fails for good", func(int) error { return job.Permanent(errors.New("never")) }, "failed", 1, "never"},
		{"panics", func(int) error { panic("at the disco") }, "failed", 3, "at the disco"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.run(brisk(), map[string]job.Handler{"index": func(_ context.Context, j *job.Job) error { return test.handler(j.Attempts) }})
			b.enqueue("index", "a", "")
			j := b.until("index/a " + test.state)[0]
			if j.Attempts != test.attempts || !strings.Contains(j.Error, test.text) || (test.text == "") != (j.Error == "") {
				t.Errorf("after %d attempts: %q, want %d and %q", j.Attempts, j.Error, test.attempts, test.text)
			}
		})
	}
}

// TestTakenOver: a worker that dies in the middle leaves a lease behind; when it
// has run out, the job is run again.
func TestTakenOver(t *testing.T) {
	b := newBench(t)
	b.enqueue("index", "a", "payload")
	var dead db.Job
	b.write(func(tx *db.Tx) (err error) { // a worker claims it and dies
		dead, _, err = tx.ClaimJob(t.Context(), []string{"index"}, "the dead", tx.Now().Add(300*time.Millisecond))
		return err
	})
	ran := make(chan int, 10)
	b.run(brisk(), map[string]job.Handler{"index": func(_ context.Context, j *job.Job) error {
		ran <- j.Attempts
		return nil
	}})
	b.until("index/a done")
	if got := <-ran; got != 2 || len(ran) != 0 {
		t.Errorf("attempt %d ran, and %d more; want the second only", got, len(ran))
	}
	// The dead, should it wake up, can do nothing any more.
	err := b.d.Write(t.Context(), func(tx *db.Tx) error { return tx.FinishJob(t.Context(), dead.ID, dead.Lease) })
	if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("a lost lease still finishes: %v", err)
	}
}

// TestPoison: a job whose worker dies each time is given up.
func TestPoison(t *testing.T) {
	b := newBench(t)
	b.enqueue("index", "a", "")
	for range brisk().AttemptsMax {
		b.write(func(tx *db.Tx) error {
			_, ok, err := tx.ClaimJob(t.Context(), []string{"index"}, "dead", tx.Now().Add(-time.Second))
			if !ok {
				t.Fatal("the job cannot be claimed")
			}
			return err
		})
	}
	b.run(brisk(), map[string]job.Handler{"index": func(context.Context, *job.Job) error {
		t.Error("it ran once more")
		return nil
	}})
	if j := b.until("index/a failed")[0]; !strings.Contains(j.Error, "died") {
		t.Errorf("given up with %q", j.Error)
	}
}

// TestHeartbeat: a job that takes longer than its lease keeps it.
func TestHeartbeat(t *testing.T) {
	b := newBench(t)
	opts := brisk()
	opts.Lease = 300 * time.Millisecond
	var runs atomic.Int32
	b.run(opts, map[string]job.Handler{"index": func(ctx context.Context, j *job.Job) error {
		runs.Add(1)
		// Until the lease that it was claimed with is over by far.
		for time.Now().Before(j.LeasedUntil.Add(2 * opts.Lease)) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}})
	b.enqueue("index", "a", "")
	b.until("index/a done")
	if runs.Load() != 1 {
		t.Errorf("it ran %d times", runs.Load())
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	opts := brisk()
	opts.Lease = 300 * time.Millisecond
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	q, _ := b.run(opts, map[string]job.Handler{"index": func(ctx context.Context, _ *job.Job) error {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}})
	admin := gatehouse.Actor{Name: "admin"}
	b.enqueue("index", "a", "")
	<-begun
	id := b.until("index/a running")[0].ID
	if err := q.Cancel(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the handler was not told why")
	}
	if j := b.until("index/a failed")[0]; j.Error != "cancelled by admin" {
		t.Errorf("cancelled with %q", j.Error)
	}
	if err := q.Cancel(t.Context(), admin, id); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("cancelled twice: %v", err)
	}
	if err := q.Cancel(t.Context(), admin, id+1); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("cancelled what is not there: %v", err)
	}
	if err := q.Restart(t.Context(), admin, id); err != nil {
		t.Fatal(err)
	}
	<-begun
	b.until("index/a running")
}

// TestFinish: what is written together with Finish happens once, or not at all
// where the lease is lost.
func TestFinish(t *testing.T) {
	b := newBench(t)
	result := func(ctx context.Context, j *job.Job, fail error) error {
		return b.d.Write(ctx, func(tx *db.Tx) error {
			if err := tx.AddEvent(ctx, gatehouse.Event{Type: "result"}); err != nil {
				return err
			}
			if err := j.Finish(ctx, tx); err != nil {
				return err
			}
			return fail
		})
	}
	b.run(brisk(), map[string]job.Handler{
		"good": func(ctx context.Context, j *job.Job) error { return result(ctx, j, nil) },
		"undone once": func(ctx context.Context, j *job.Job) error {
			if j.Attempts == 1 {
				return result(ctx, j, errors.New("undo"))
			}
			return result(ctx, j, nil)
		},
		"robbed": func(ctx context.Context, j *job.Job) error {
			j.Lease = "another"
			err := result(ctx, j, nil)
			if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
				t.Errorf("Finish without the lease: %v", err)
			}
			return job.Permanent(err)
		},
	})
	b.enqueue("good", "a", "")
	b.until("good/a done")
	b.enqueue("undone once", "a", "")
	b.until("good/a done", "undone once/a done")
	b.enqueue("robbed", "a", "")
	var events []gatehouse.Event
	b.until("good/a done", "undone once/a done", "robbed/a running")
	err := b.d.Get(t.Context(), func(tx *db.Tx) (err error) {
		events, err = tx.Events(t.Context(), 0, 10)
		return err
	})
	if err != nil || len(events) != 2 {
		t.Errorf("%d results, %v; want 2", len(events), err)
	}
}

// TestStop: a job that runs when the server stops is given back and run by the
// next one, and the attempt does not count.
func TestStop(t *testing.T) {
	b := newBench(t)
	opts := brisk()
	opts.StopGrace = 10 * time.Millisecond
	begun := make(chan struct{}, 1)
	_, stop := b.run(opts, map[string]job.Handler{"index": func(ctx context.Context, _ *job.Job) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}})
	b.enqueue("index", "a", "")
	<-begun
	stop()
	if j := b.until("index/a ready")[0]; j.Attempts != 0 || j.Error != "" {
		t.Errorf("given back with %d attempts, %q", j.Attempts, j.Error)
	}
	b.run(opts, map[string]job.Handler{"index": func(context.Context, *job.Job) error { return nil }})
	b.until("index/a done")
}

// TestStopLetsFinish: within the grace a job may finish.
func TestStopLetsFinish(t *testing.T) {
	b := newBench(t)
	opts := brisk()
	opts.StopGrace = patience
	begun, goOn := make(chan struct{}), make(chan struct{})
	_, stop := b.run(opts, map[string]job.Handler{"index": func(ctx context.Context, _ *job.Job) error {
		close(begun)
		<-goOn
		return ctx.Err()
	}})
	b.enqueue("index", "a", "")
	<-begun
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	close(goOn)
	<-stopped
	if jobs := b.jobs(); jobs[0].State != db.JobDone {
		t.Errorf("the job that ran is %s", jobs[0].State)
	}
}

func TestUnknownKindsStay(t *testing.T) {
	b := newBench(t)
	b.enqueue("other", "a", "")
	b.enqueue("index", "a", "")
	b.run(brisk(), map[string]job.Handler{"index": func(context.Context, *job.Job) error { return nil }})
	b.until("other/a ready", "index/a done")
}

func TestList(t *testing.T) {
	b := newBench(t)
	for i := range 5 {
		b.enqueue("index", fmt.Sprint(i), "")
	}
	b.enqueue("match", "0", "")
	q := job.New(b.d, job.Options{})
	page, err := q.List(t.Context(), db.JobFilter{Kind: "index", States: []db.JobState{db.JobReady}}, 0, 3)
	if err != nil || len(page) != 3 {
		t.Fatal(page, err)
	}
	rest, err := q.List(t.Context(), db.JobFilter{Kind: "index"}, page[2].ID, 3)
	if err != nil || len(rest) != 2 || rest[0].Key != "3" {
		t.Fatal(rest, err)
	}
	if n, err := q.Count(t.Context(), db.JobFilter{Key: "0"}); err != nil || n != 2 {
		t.Errorf("Count = %d, %v", n, err)
	}
	if n, err := q.Count(t.Context(), db.JobFilter{States: []db.JobState{db.JobFailed}}); err != nil || n != 0 {
		t.Errorf("Count = %d, %v", n, err)
	}
}

package db

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// JobState says where a job is in its life.
type JobState int

const (
	JobReady  JobState = 0 // waits for its time and a worker
	JobLeased JobState = 1 // a worker has it
	JobDone   JobState = 2
	JobFailed JobState = 3 // for good: too many attempts, or cancelled
)

func (s JobState) String() string {
	switch s {
	case JobReady:
		return "ready"
	case JobLeased:
		return "running"
	case JobDone:
		return "done"
	case JobFailed:
		return "failed"
	}
	return fmt.Sprintf("JobState(%d)", int(s))
}

// Job is one row of durable work.
type Job struct {
	ID          int64
	Kind        string
	Key         string // what it is about: one job per kind and key is ready at a time
	Payload     []byte
	State       JobState
	Attempts    int // begun so far
	RunAt       time.Time
	Lease       string // token of the worker that has it
	LeasedUntil time.Time
	Error       string // of the last attempt that failed
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

const jobColumns = `id, kind, key, payload, state, attempts, run_at, lease, leased_until, error, created_at, updated_at`

func scanJob(row interface{ Scan(...any) error }) (j Job, err error) {
	var payload string
	var run, leased, created, updated int64
	err = row.Scan(&j.ID, &j.Kind, &j.Key, &payload, &j.State, &j.Attempts, &run, &j.Lease, &leased, &j.Error, &created, &updated)
	j.Payload = []byte(payload)
	j.RunAt, j.LeasedUntil, j.CreatedAt, j.UpdatedAt = fromMicros(run), fromMicros(leased), fromMicros(created), fromMicros(updated)
	return j, err
}

// AddJob adds work to be done from runAt on (zero: now). Where a job of that
// kind and key is ready already, that one takes the new payload and the earlier
// time instead; added is false. One that is running is left alone: the new job
// runs after it.
func (t *Tx) AddJob(ctx context.Context, kind, key string, payload []byte, runAt time.Time) (added bool, err error) {
	if runAt.IsZero() {
		runAt = t.now
	}
	var created, updated int64
	err = t.tx.QueryRowContext(ctx, `INSERT INTO job (kind, key, payload, run_at, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)
		ON CONFLICT (kind, key) WHERE state = 0 DO UPDATE SET payload = excluded.payload, updated_at = excluded.updated_at + 1,
		run_at = CASE WHEN excluded.run_at < job.run_at THEN excluded.run_at ELSE job.run_at END
		RETURNING created_at, updated_at`, kind, key, string(payload), micros(runAt), micros(t.now)).Scan(&created, &updated)
	if err != nil {
		return false, unavailable(err)
	}
	t.jobs = true
	return created == updated, nil
}

// ClaimJob takes the next job of one of kinds that is due, or whose worker's
// lease ran out, until the given time. Two jobs of one kind and key never run
// at once. ok is false where there is nothing to do.
func (t *Tx) ClaimJob(ctx context.Context, kinds []string, lease string, until time.Time) (j Job, ok bool, err error) {
	if len(kinds) == 0 {
		return Job{}, false, nil
	}
	args, marks := []any{lease, micros(until), micros(t.now)}, make([]string, len(kinds))
	for i, kind := range kinds {
		args = append(args, kind)
		marks[i] = fmt.Sprintf("$%d", len(args))
	}
	in := strings.Join(marks, ", ")
	// COALESCE, of what is never null, keeps planners from the index of kinds: of it
	// they would sort all jobs that wait, each time, to find the first.
	for _, which := range []string{
		`w.state = 1 AND w.leased_until < $3 AND COALESCE(w.kind, '') IN (` + in + `) ORDER BY w.leased_until, w.id`,
		`w.state = 0 AND w.run_at <= $3 AND COALESCE(w.kind, '') IN (` + in + `) AND NOT EXISTS (SELECT 1 FROM job o
			WHERE o.state = 1 AND o.kind = w.kind AND o.key = w.key) ORDER BY w.run_at, w.id`,
	} {
		j, err = scanJob(t.tx.QueryRowContext(ctx, `UPDATE job SET state = 1, lease = $1, leased_until = $2, attempts = attempts + 1, updated_at = $3
			WHERE id = (SELECT w.id FROM job w WHERE `+which+` LIMIT 1`+t.dialect.claim+`) RETURNING `+jobColumns, args...))
		if none(err) {
			continue
		}
		if err != nil {
			return Job{}, false, unavailable(err)
		}
		return j, true, nil
	}
	return Job{}, false, nil
}

// KeepJob prolongs a lease. held is false where it was lost, for example
// because the job was cancelled.
func (t *Tx) KeepJob(ctx context.Context, id int64, lease string, until time.Time) (held bool, err error) {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE job SET leased_until = $3 WHERE id = $1 AND state = 1 AND lease = $2`, id, lease, micros(until)))
	return n > 0, err
}

// FinishJob marks a leased job as done. CodeConflict: the lease was lost;
// nothing that the worker did in this transaction may be committed.
func (t *Tx) FinishJob(ctx context.Context, id int64, lease string) error {
	return t.jobHeld(affected(t.tx.ExecContext(ctx, `UPDATE job SET state = 2, lease = '', leased_until = 0, error = '', updated_at = $3
		WHERE id = $1 AND state = 1 AND lease = $2`, id, lease, micros(t.now))))
}

// RetryJob gives a leased job back, to be run again at runAt. Where the same
// work is ready anew already, that one stands for both.
// CodeConflict: the lease was lost.
func (t *Tx) RetryJob(ctx context.Context, id int64, lease string, runAt time.Time, reason string) error {
	return t.jobHeld(affected(t.tx.ExecContext(ctx, `UPDATE job SET lease = '', leased_until = 0, run_at = $3, error = $4, updated_at = $5,
		state = CASE WHEN EXISTS (SELECT 1 FROM job o WHERE o.kind = job.kind AND o.key = job.key AND o.state = 0) THEN 2 ELSE 0 END
		WHERE id = $1 AND state = 1 AND lease = $2`, id, lease, micros(runAt), reason, micros(t.now))))
}

// ReturnJob gives a leased job back unharmed, as if it had not been claimed:
// the server stops. CodeConflict: the lease was lost.
func (t *Tx) ReturnJob(ctx context.Context, id int64, lease string) error {
	return t.jobHeld(affected(t.tx.ExecContext(ctx, `UPDATE job SET lease = '', leased_until = 0, attempts = attempts - 1, updated_at = $3,
		state = CASE WHEN EXISTS (SELECT 1 FROM job o WHERE o.kind = job.kind AND o.key = job.key AND o.state = 0) THEN 2 ELSE 0 END
		WHERE id = $1 AND state = 1 AND lease = $2`, id, lease, micros(t.now))))
}

// FailJob ends a leased job for good. CodeConflict: the lease was lost.
func (t *Tx) FailJob(ctx context.Context, id int64, lease, reason string) error {
	return t.jobHeld(affected(t.tx.ExecContext(ctx, `UPDATE job SET state = 3, lease = '', leased_until = 0, error = $3, updated_at = $4
		WHERE id = $1 AND state = 1 AND lease = $2`, id, lease, reason, micros(t.now))))
}

func (t *Tx) jobHeld(n int64, err error) error {
	if err == nil && n == 0 {
		err = gatehouse.Errorf(gatehouse.CodeConflict, "the job was taken over or cancelled")
	}
	return err
}

// CancelJob ends a job that has not ended; a running one loses its lease, so
// that its worker stops at its next sign of life.
// CodeNotFound: there is no such job. CodeConflict: it has ended.
func (t *Tx) CancelJob(ctx context.Context, actor gatehouse.Actor, id int64) error {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE job SET state = 3, lease = '', leased_until = 0, error = $2, updated_at = $3
		WHERE id = $1 AND state IN (0, 1)`, id, "cancelled by "+actor.Name, micros(t.now)))
	if err != nil {
		return err
	}
	if n == 0 {
		if _, err := t.Job(ctx, id); err != nil {
			return err
		}
		return gatehouse.Errorf(gatehouse.CodeConflict, "job %d has ended", id)
	}
	return t.AddAudit(ctx, actor, "job.cancel", fmt.Sprint(id), "")
}

// RestartJob makes a failed job ready again, with all its attempts.
// CodeNotFound: there is no such job. CodeConflict: it has not failed, or the
// same work is ready already.
func (t *Tx) RestartJob(ctx context.Context, actor gatehouse.Actor, id int64) error {
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE job SET state = 0, attempts = 0, run_at = $2, updated_at = $2
		WHERE id = $1 AND state = 3 AND NOT EXISTS (SELECT 1 FROM job o WHERE o.kind = job.kind AND o.key = job.key AND o.state = 0)`, id, micros(t.now)))
	if err != nil {
		return err
	}
	if n == 0 {
		j, err := t.Job(ctx, id)
		if err != nil {
			return err
		}
		if j.State == JobFailed {
			return gatehouse.Errorf(gatehouse.CodeConflict, "the work of job %d is ready to run already", id)
		}
		return gatehouse.Errorf(gatehouse.CodeConflict, "job %d is %s", id, j.State)
	}
	t.jobs = true
	return t.AddAudit(ctx, actor, "job.restart", fmt.Sprint(id), "")
}

// Job finds a job. CodeNotFound: there is none.
func (t *Tx) Job(ctx context.Context, id int64) (Job, error) {
	j, err := scanJob(t.tx.QueryRowContext(ctx, `SELECT `+jobColumns+` FROM job WHERE id = $1`, id))
	if none(err) {
		return Job{}, notFound("", "there is no job %d", id)
	}
	if err != nil {
		return Job{}, unavailable(err)
	}
	return j, nil
}

// JobFilter chooses jobs. Empty fields match all.
type JobFilter struct {
	Kind   string
	Key    string
	States []JobState
}

func (f JobFilter) where() (cond string, args []any) {
	cond = `1 = 1`
	add := func(text string, arg any) {
		args = append(args, arg)
		cond += fmt.Sprintf(text, len(args))
	}
	if f.Kind != "" {
		add(` AND kind = $%d`, f.Kind)
	}
	if f.Key != "" {
		add(` AND key = $%d`, f.Key)
	}
	if len(f.States) > 0 {
		list := make([]string, len(f.States))
		for i, s := range f.States {
			list[i] = fmt.Sprint(int(s))
		}
		cond += ` AND state IN (` + strings.Join(list, ", ") + `)`
	}
	return cond, args
}

// Jobs lists jobs, oldest first, with an id after the given one, at most n.
func (t *Tx) Jobs(ctx context.Context, f JobFilter, after int64, n int) ([]Job, error) {
	cond, args := f.where()
	args = append(args, after, n)
	rows, err := t.tx.QueryContext(ctx, `SELECT `+jobColumns+` FROM job WHERE `+cond+
		fmt.Sprintf(` AND id > $%d ORDER BY id LIMIT $%d`, len(args)-1, len(args)), args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Job
	for rows.Next() {
		j, err := scanJob(rows)
		if err != nil {
			return nil, unavailable(err)
		}
		out = append(out, j)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// CountJobs counts jobs.
func (t *Tx) CountJobs(ctx context.Context, f JobFilter) (n int, err error) {
	cond, args := f.where()
	if err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM job WHERE `+cond, args...).Scan(&n); err != nil {
		return 0, unavailable(err)
	}
	return n, nil
}

// NextJobAt tells when the next job of one of kinds is due, or a lease on one
// runs out. ok is false where none is waiting.
func (t *Tx) NextJobAt(ctx context.Context, kinds []string) (at time.Time, ok bool, err error) {
	if len(kinds) == 0 {
		return time.Time{}, false, nil
	}
	args, marks := make([]any, len(kinds)), make([]string, len(kinds))
	for i, kind := range kinds {
		args[i], marks[i] = kind, fmt.Sprintf("$%d", i+1)
	}
	in := strings.Join(marks, ", ")
	var ready, leased *int64
	err = t.tx.QueryRowContext(ctx, `SELECT
		(SELECT r.run_at FROM job r WHERE r.state = 0 AND COALESCE(r.kind, '') IN (`+in+`) ORDER BY r.run_at, r.id LIMIT 1),
		(SELECT l.leased_until FROM job l WHERE l.state = 1 AND COALESCE(l.kind, '') IN (`+in+`) ORDER BY l.leased_until LIMIT 1)`, args...).Scan(&ready, &leased)
	if err != nil {
		return time.Time{}, false, unavailable(err)
	}
	for _, micro := range []*int64{ready, leased} {
		if micro != nil && (!ok || fromMicros(*micro).Before(at)) {
			at, ok = fromMicros(*micro), true
		}
	}
	return at, ok, nil
}

// ForgetJobs removes done jobs that ended before doneBefore and failed ones that
// ended before failedBefore.
func (t *Tx) ForgetJobs(ctx context.Context, doneBefore, failedBefore time.Time) error {
	_, err := t.tx.ExecContext(ctx, `DELETE FROM job WHERE state = 2 AND updated_at < $1 OR state = 3 AND updated_at < $2`, micros(doneBefore), micros(failedBefore))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

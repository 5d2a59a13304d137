package db

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// TaskKind is what a [Task] is about.
type TaskKind int

// Kinds of tasks.
const (
	ManifestTask TaskKind = 1
	BlobTask     TaskKind = 2
)

// Task is something that may be garbage and is to be looked at again.
type Task struct {
	Kind        TaskKind
	Key         int64 // row of the manifest or blob; it may be gone
	Event       string
	ReviewAfter time.Time
	Attempts    int // reviews that failed
}

// AddTasks asks for reviews. Where one waits already it waits for the later of
// the two times, so that nothing is looked at too early.
func (t *Tx) AddTasks(ctx context.Context, tasks ...Task) error {
	seen := make(map[[2]int64]bool, len(tasks)) // PostgreSQL refuses to change a row twice in a statement
	rows := make([][]any, 0, len(tasks))
	for _, task := range tasks {
		if id := [2]int64{int64(task.Kind), task.Key}; !seen[id] {
			seen[id] = true
			rows = append(rows, []any{int(task.Kind), task.Key, task.Event, micros(task.ReviewAfter), task.Attempts})
		}
	}
	return t.insertRowsOr(ctx, `INSERT INTO gc_task (kind, key, event, review_after, attempts) VALUES `, rows, ` ON CONFLICT (kind, key) DO UPDATE SET event = excluded.event,
		attempts = excluded.attempts, review_after = CASE WHEN gc_task.review_after > excluded.review_after THEN gc_task.review_after ELSE excluded.review_after END`)
}

// addTasks asks for reviews of rows that the same event touched.
func (t *Tx) addTasks(ctx context.Context, kind TaskKind, event string, at time.Time, keys ...int64) error {
	tasks := make([]Task, len(keys))
	for i, key := range keys {
		tasks[i] = Task{Kind: kind, Key: key, Event: event, ReviewAfter: at}
	}
	return t.AddTasks(ctx, tasks...)
}

// ReviewManifest asks for a review of a manifest at the given time; until then
// it is kept.
func (t *Tx) ReviewManifest(ctx context.Context, id int64, event string, at time.Time) error {
	return t.addTasks(ctx, ManifestTask, event, at, id)
}

// ClaimTasks takes tasks that are due at now, oldest first, at most n. They stay
// until the transaction says otherwise; nobody else gets them meanwhile.
func (t *Tx) ClaimTasks(ctx context.Context, kind TaskKind, now time.Time, n int) ([]Task, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT key, event, review_after, attempts FROM gc_task
		WHERE kind = $1 AND review_after <= $2 ORDER BY review_after, key LIMIT $3`+t.dialect.claim, int(kind), micros(now), n)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Task
	for rows.Next() {
		task := Task{Kind: kind}
		var at int64
		if err := rows.Scan(&task.Key, &task.Event, &at, &task.Attempts); err != nil {
			return nil, unavailable(err)
		}
		task.ReviewAfter = fromMicros(at)
		out = append(out, task)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// EndTasks removes tasks that have been done.
func (t *Tx) EndTasks(ctx context.Context, kind TaskKind, keys []int64) error {
	return inIDs(keys, 2, func(ids []any, list string) error {
		if _, err := t.tx.ExecContext(ctx, `DELETE FROM gc_task WHERE kind = $1 AND key IN (`+list+`)`, append([]any{int(kind)}, ids...)...); err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// NextTask returns when the next task is due, of any kind unless manifests is
// false, or the next doomed bytes are. ok is false where nothing waits.
func (t *Tx) NextTask(ctx context.Context, manifests bool) (at time.Time, ok bool, err error) {
	first := ManifestTask
	if !manifests {
		first = BlobTask
	}
	var next [3]*int64
	err = t.tx.QueryRowContext(ctx, `SELECT (SELECT MIN(review_after) FROM gc_task WHERE kind = $1), (SELECT MIN(review_after) FROM gc_task WHERE kind = $2),
		(SELECT MIN(due_at) FROM doomed)`, int(first), int(BlobTask)).Scan(&next[0], &next[1], &next[2])
	if err != nil {
		return time.Time{}, false, unavailable(err)
	}
	for _, n := range next {
		if n != nil && (!ok || *n < at.UnixMicro()) {
			at, ok = time.UnixMicro(*n).UTC(), true
		}
	}
	return at, ok, nil
}

// GCState is how garbage collection stands.
type GCState struct {
	Due     int64     // tasks whose time has come
	Waiting int64     // tasks whose time has not
	Oldest  time.Time // since when the longest waiting task is due; zero: none is
	Next    time.Time // when the next task or deletion is due; zero: none waits
	Failed  int64     // tasks whose last review failed
	// Bytes that no blob names any more and that have not been deleted yet.
	DoomedObjects, DoomedBytes int64
	Holds                      int64
	Counters                   map[string]int64
}

// GCState reads how garbage collection stands at now. manifests is false where
// those are never reviewed.
func (t *Tx) GCState(ctx context.Context, now time.Time, manifests bool) (s GCState, err error) {
	first := ManifestTask
	if !manifests {
		first = BlobTask
	}
	var oldest *int64
	err = t.tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM gc_task WHERE kind >= $1 AND review_after <= $2),
		(SELECT COUNT(*) FROM gc_task WHERE kind < $1 OR review_after > $2),
		(SELECT MIN(review_after) FROM gc_task WHERE kind >= $1 AND review_after <= $2),
		(SELECT COUNT(*) FROM gc_task WHERE attempts > 0),
		(SELECT COUNT(*) FROM doomed), (SELECT COALESCE(SUM(size), 0) FROM doomed), (SELECT COUNT(*) FROM hold)`, int(first), micros(now)).
		Scan(&s.Due, &s.Waiting, &oldest, &s.Failed, &s.DoomedObjects, &s.DoomedBytes, &s.Holds)
	if err != nil {
		return s, unavailable(err)
	}
	if oldest != nil {
		s.Oldest = fromMicros(*oldest)
	}
	if s.Next, _, err = t.NextTask(ctx, manifests); err != nil {
		return s, err
	}
	s.Counters, err = t.Counters(ctx)
	return s, err
}

// Counters returns all sums.
func (t *Tx) Counters(ctx context.Context) (map[string]int64, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT name, value FROM counter`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var name string
		var value int64
		if err := rows.Scan(&name, &value); err != nil {
			return nil, unavailable(err)
		}
		out[name] = value
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// Count adds to a sum.
func (t *Tx) Count(ctx context.Context, name string, n int64) error {
	if n == 0 {
		return nil
	}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO counter (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = counter.value + excluded.value`, name, n)
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// SetCount sets a sum, for those that are none: the time of something.
func (t *Tx) SetCount(ctx context.Context, name string, n int64) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO counter (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, n)
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// idsMax bounds the row ids of one IN list.
const idsMax = 256

// inIDs calls f with ids in batches whose sizes are powers of two, the last one
// filled up by repetition, so that few distinct statements are prepared. list
// holds their placeholders, from $first on.
func inIDs(ids []int64, first int, f func(batch []any, list string) error) error {
	for len(ids) > 0 {
		take := min(len(ids), idsMax)
		batch, list := placeholders(ids[:take], func(id int64) any { return id })
		if first > 1 {
			list = placeholdersFrom(first, len(batch))
		}
		if err := f(batch, list); err != nil {
			return err
		}
		ids = ids[take:]
	}
	return nil
}

// placeholders returns items as arguments, as many as the next power of two, the
// last one repeated, and their placeholders from $1 on.
func placeholders[T any](items []T, arg func(T) any) (args []any, list string) {
	size := 1
	for size < len(items) {
		size *= 2
	}
	args = make([]any, size)
	for i := range args {
		args[i] = arg(items[min(i, len(items)-1)])
	}
	return args, placeholdersFrom(1, size)
}

func placeholdersFrom(first, n int) string {
	marks := make([]string, n)
	for i := range marks {
		marks[i] = "$" + strconv.Itoa(i+first)
	}
	return strings.Join(marks, ", ")
}

// ids runs a query of row ids.
func (t *Tx) ids(ctx context.Context, query string, args ...any) ([]int64, error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, id)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// Task finds the review that waits for a manifest or blob. ok is false for none.
func (t *Tx) Task(ctx context.Context, kind TaskKind, key int64) (task Task, ok bool, err error) {
	task = Task{Kind: kind, Key: key}
	var at int64
	err = t.tx.QueryRowContext(ctx, `SELECT event, review_after, attempts FROM gc_task WHERE kind = $1 AND key = $2`, int(kind), key).
		Scan(&task.Event, &at, &task.Attempts)
	if none(err) {
		return Task{}, false, nil
	}
	if err != nil {
		return Task{}, false, unavailable(err)
	}
	task.ReviewAfter = fromMicros(at)
	return task, true, nil
}

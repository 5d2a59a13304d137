package job_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
)

// TestGaveUp: whoever waits for a job learns in the same transaction that it has
// failed for good, why, and once; and may add the work anew.
func TestGaveUp(t *testing.T) {
	for _, test := range []struct {
		name     string
		handle   job.Handler
		died     bool
		want     string
		poison   bool
		attempts int
	}{
		{"errors each time", func(context.Context, *job.Job) error { return errors.New("no luck") }, false, "no luck", false, 3},
		{"cannot be mended", func(context.Context, *job.Job) error { return job.Permanent(errors.New("no sense")) }, false, "no sense", false, 1},
		{"panics", func(context.Context, *job.Job) error { panic("oh") }, false, "panicked: oh", true, 3},
		{"dies", nil, true, "died", true, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.enqueue("index", "a", "about")
			for range brisk().AttemptsMax {
				if !test.died {
					break
				}
				b.write(func(tx *db.Tx) error {
					_, _, err := tx.ClaimJob(t.Context(), []string{"index"}, "dead", tx.Now().Add(-time.Second))
					return err
				})
			}
			told := make(chan db.Job, 10)
			reasons := make(chan error, 10)
			opts := brisk()
			opts.GaveUp = map[string]job.GaveUp{"index": func(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
				told <- j
				reasons <- reason
				_, err := tx.AddJob(ctx, j.Kind, j.Key, j.Payload, tx.Now().Add(time.Hour))
				return err
			}}
			b.run(opts, map[string]job.Handler{"index": test.handle})
			b.until("index/a failed", "index/a ready")
			j, reason := <-told, <-reasons
			if len(told) != 0 || string(j.Payload) != "about" || j.Attempts != test.attempts || !strings.Contains(reason.Error(), test.want) || job.Poisonous(reason) != test.poison {
				t.Errorf("told of %+v, and of %d more: %v", j, len(told), reason)
			}
		})
	}
}

package db

import (
	"context"
	"sync/atomic"
	"time"
)

// clock tells the time of a database without asking it each time: what that
// said last, plus what has passed since by the monotonic clock of this machine,
// which nobody sets.
type clock struct{ last atomic.Pointer[reading] }

type reading struct {
	at     time.Time // here, monotonic
	theirs time.Time
	off    time.Duration // by at most so much
}

// staleAfter is when a reading is replaced even by one that is less precise:
// clocks drift apart.
const staleAfter = 5 * time.Minute

func (c *clock) now() time.Time {
	r := c.last.Load()
	return r.theirs.Add(time.Since(r.at))
}

// measure asks for the time, in Unix microseconds. An answer that took long says
// little, and does not replace a better one that is fresh.
func (c *clock) measure(ctx context.Context, ask func(context.Context) (int64, error)) error {
	before := time.Now()
	micro, err := ask(ctx)
	if err != nil {
		return err
	}
	took := time.Since(before)
	next := &reading{at: before.Add(took / 2), theirs: time.UnixMicro(micro), off: took / 2}
	last := c.last.Load()
	// Clocks were set where the readings contradict each other.
	if last == nil || next.off <= 2*last.off || time.Since(last.at) > staleAfter || c.apart(last, next) {
		c.last.Store(next)
	}
	return nil
}

// apart reports whether two readings cannot both be right, give or take a
// millisecond of drift.
func (c *clock) apart(last, next *reading) bool {
	gap := next.theirs.Sub(last.theirs.Add(next.at.Sub(last.at)))
	return gap.Abs() > last.off+next.off+time.Millisecond
}

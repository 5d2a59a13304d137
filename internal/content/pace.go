package content

import (
	"context"
	"sync"
	"time"
)

// pacer bounds a flow of bytes to a rate. Nothing is saved up: after a pause the
// flow goes on at the rate, not above it. A nil pacer does not bound. It is safe
// for concurrent use.
type pacer struct {
	mu    sync.Mutex
	rate  int64 // bytes per second; 0 = as fast as it goes
	next  time.Time
	total int64
}

// setRate changes the rate for what is still to come.
func (p *pacer) setRate(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// piece is how many bytes, at most max, should be moved at once: an eighth of a
// second's, so that the flow is even.
func (p *pacer) piece(max int) int {
	if p == nil {
		return max
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate == 0 {
		return max
	}
	return min(max, int(min(p.rate/8, 1<<30))+1)
}

// wait returns when n bytes that have been moved are paid for.
func (p *pacer) wait(ctx context.Context, n int) error {
	if p == nil {
		return ctx.Err()
	}
	p.mu.Lock()
	p.total += int64(n)
	pause := time.Duration(0)
	if p.rate > 0 {
		now := time.Now()
		if p.next.Before(now) {
			p.next = now
		}
		p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
		pause = p.next.Sub(now)
	}
	p.mu.Unlock()
	if pause == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// moved is the number of bytes so far.
func (p *pacer) moved() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

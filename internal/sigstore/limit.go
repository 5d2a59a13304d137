package sigstore

import (
	"sync"
	"time"
)

// bucketsMax bounds the memory of a limiter.
const bucketsMax = 8192

// limiter lets so many through per second and name, and some more at once. With
// perSecond 0 it lets everything through.
type limiter struct {
	perSecond, burst float64

	mu      sync.Mutex
	buckets map[string]time.Time // guarded by mu: when each will be full again
}

// cost is how long n take to come back.
func (l *limiter) cost(n int) time.Duration {
	return time.Duration(float64(n) / l.perSecond * float64(time.Second))
}

// take takes n of name's, or tells how long there will not be as many.
func (l *limiter) take(name string, n int, now time.Time) (wait time.Duration) {
	if l.perSecond == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.buckets[name]
	if full.Before(now) {
		full = now
	}
	full = full.Add(l.cost(n))
	if over := full.Sub(now) - time.Duration(l.burst/l.perSecond*float64(time.Second)); over > 0 {
		return over
	}
	if _, known := l.buckets[name]; !known && len(l.buckets) >= bucketsMax {
		l.shrink(now)
	}
	if l.buckets == nil {
		l.buckets = map[string]time.Time{}
	}
	l.buckets[name] = full
	return 0
}

// give gives n back that were taken.
func (l *limiter) give(name string, n int) {
	if l.perSecond == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if full, known := l.buckets[name]; known {
		l.buckets[name] = full.Add(-l.cost(n))
	}
}

// shrink forgets those that are full; if none is, all: then many addresses ask at
// once, and the bounds for all of them hold.
func (l *limiter) shrink(now time.Time) {
	for name, full := range l.buckets {
		if !full.After(now) {
			delete(l.buckets, name)
		}
	}
	if len(l.buckets) >= bucketsMax {
		clear(l.buckets)
	}
}

// bounds limit what one address may have, and all together.
type bounds struct{ address, all limiter }

// take takes n for an address, or tells how long there will not be as many, and
// whether it is all together who have had them.
func (b *bounds) take(addr string, n int, now time.Time) (wait time.Duration, all bool) {
	if wait = b.address.take(addr, n, now); wait > 0 {
		return wait, false
	}
	if wait = b.all.take("", n, now); wait > 0 {
		b.address.give(addr, n)
	}
	return wait, true
}

// give gives n back that were taken.
func (b *bounds) give(addr string, n int) {
	b.address.give(addr, n)
	b.all.give("", n)
}

package sigstore

import (
	"sync"
	"time"
)

// bucketsMax bounds the memory of a limiter.
const bucketsMax = 8192

// limiter lets so many through per second and name, and some more at once.
type limiter struct {
	perSecond, burst float64

	mu      sync.Mutex
	buckets map[string]time.Time // guarded by mu: when each will be full again
}

// take takes one of name's, or tells how long there will be none.
func (l *limiter) take(name string, now time.Time) (wait time.Duration) {
	cost := time.Duration(float64(time.Second) / l.perSecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.buckets[name]
	if full.Before(now) {
		full = now
	}
	if full = full.Add(cost); full.Sub(now) > time.Duration(l.burst*float64(cost)) {
		return cost
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

// shrink forgets those that are full; if none is, all: then many addresses ask at
// once, and the bounds of the log itself hold.
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

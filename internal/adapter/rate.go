package adapter

import (
	"sync"
	"time"
)

// bucket lets so many through per second, and some more at once.
type bucket struct {
	perSecond, size float64

	mu   sync.Mutex
	left float64
	at   time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.IsZero() {
		b.left = b.size
	} else if gone := now.Sub(b.at).Seconds(); gone > 0 {
		b.left = min(b.size, b.left+gone*b.perSecond)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

package auth

import (
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	CacheTTL        = cacheTTL
	CacheEntriesMax = cacheEntriesMax
	BucketsMax      = bucketsMax
	GateQueueMax    = gateQueueMax
)

var (
	PerAccountBurst  = perAccount.burst
	PerAccountRefill = perAccount.refill
	PerAddressBurst  = perAddress.burst
)

// Remembered counts the credentials that are answered from memory.
func (a *Auth) Remembered() int { return len(a.cache.entries) }

// Counted counts the buckets of failed attempts.
func (a *Auth) Counted() int { return len(a.limits.buckets) }

// Dummy is what an unknown account's password is compared with.
func (a *Auth) Dummy() string { return a.dummy }

// FillGate takes every slot and place in the queue; free gives them back.
func (a *Auth) FillGate() (free func()) {
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	a.gate.waiting += gateQueueMax
	return func() {
		a.gate.mu.Lock()
		defer a.gate.mu.Unlock()
		a.gate.waiting -= gateQueueMax
	}
}

// FillMemory remembers and counts what many clients would leave behind.
func (a *Auth) FillMemory(credentials, names int) {
	now := time.Now()
	for i := range credentials {
		a.cache.put(a.remember(strconv.Itoa(i), ""), gatehouse.Actor{}, now, 0)
	}
	for i := range names {
		a.limits.take(strconv.Itoa(i), "address"+strconv.Itoa(i), now)
	}
}

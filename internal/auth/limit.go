package auth

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// allowance is a number of failed attempts, and the time in which one of them
// is forgiven.
type allowance struct {
	burst  int
	refill time.Duration
}

var (
	// perAccount binds one name from one address: never the name alone, which
	// would let anybody lock anybody out.
	perAccount = allowance{burst: 10, refill: 6 * time.Second}
	// perAddress binds one address that tries many names.
	perAddress = allowance{burst: 40, refill: time.Second}
)

// bucketsMax bounds the memory of a limiter.
const bucketsMax = 8192

// limiter counts failed logins. The zero limiter is ready.
type limiter struct {
	mu      sync.Mutex
	buckets map[string]bucket // guarded by mu
}

// bucket is empty at the time full has not yet come: full is when the last
// failure will have been forgiven.
type bucket struct{ full time.Time }

// take books one attempt; refund gives it back when it turned out right. wait
// says how long there is none left, and nothing is booked then.
func (l *limiter) take(name, addr string, now time.Time) (refund func(), wait time.Duration) {
	addr = network(addr)
	if len(name) > NameLengthMax {
		name = "" // all of these share one bucket
	}
	account, address := addr+" "+name, addr
	l.mu.Lock()
	defer l.mu.Unlock()
	wait = max(l.missing(account, perAccount, now), l.missing(address, perAddress, now))
	if wait > 0 {
		return nil, wait
	}
	l.book(account, perAccount.refill, now)
	l.book(address, perAddress.refill, now)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.book(account, -perAccount.refill, now)
		l.book(address, -perAddress.refill, now)
	}, 0
}

// missing is how long until key has an attempt left.
func (l *limiter) missing(key string, a allowance, now time.Time) time.Duration {
	full := l.buckets[key].full
	if !full.After(now) {
		return 0
	}
	return max(0, full.Sub(now)-time.Duration(a.burst-1)*a.refill)
}

func (l *limiter) book(key string, cost time.Duration, now time.Time) {
	if l.buckets == nil {
		l.buckets = map[string]bucket{}
	}
	b, known := l.buckets[key]
	if !known && len(l.buckets) >= bucketsMax {
		l.shrink(now)
	}
	if b.full.Before(now) {
		b.full = now
	}
	if b.full = b.full.Add(cost); b.full.After(now) {
		l.buckets[key] = b
	} else {
		delete(l.buckets, key)
	}
}

// shrink drops what is forgiven, and half of the rest if that is not enough.
func (l *limiter) shrink(now time.Time) {
	for k, b := range l.buckets {
		if !b.full.After(now) {
			delete(l.buckets, k)
		}
	}
	for k := range l.buckets {
		if len(l.buckets) <= bucketsMax/2 {
			return
		}
		delete(l.buckets, k)
	}
}

// network is what one owner of an address has: the address itself in IPv4, the
// /64 around it in IPv6.
func network(addr string) string {
	ip, err := netip.ParseAddr(strings.Trim(addr, "[]"))
	if err != nil {
		return addr
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return addr
	}
	return prefix.String()
}

// gateQueueMax is how many password checks may wait for a processor.
const gateQueueMax = 64

// gate keeps password checks, which cost tens of milliseconds each, from
// taking more than the machine has.
type gate struct {
	slots   chan struct{}
	mu      sync.Mutex
	waiting int // guarded by mu
}

// enter waits for a processor. Errors: CodeUnavailable when too many wait.
func (g *gate) enter() error {
	g.mu.Lock()
	if g.waiting >= gateQueueMax {
		g.mu.Unlock()
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "too many logins at once").WithHint("try again in a moment")
	}
	g.waiting++
	g.mu.Unlock()
	g.slots <- struct{}{}
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
	return nil
}

func (g *gate) leave() { <-g.slots }

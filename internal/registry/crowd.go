package registry

import (
	"net/http"
	"net/netip"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// clientRequestsMax is the default of [Options.ClientRequestsMax].
const clientRequestsMax = 8192

// crowd counts the requests in flight of each client. Deadlines end each of
// them in time; this bounds how many one client makes us hold meanwhile. It is
// by address: many machines rightly share one account, and who comes without
// credentials has none.
type crowd struct {
	max int

	mu     sync.Mutex
	inside map[netip.Prefix]int // no entry is zero
}

// enter reports whether one more of client's requests may be served. Each true
// is followed by one [crowd.leave].
func (c *crowd) enter(client netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside == nil {
		c.inside = map[netip.Prefix]int{}
	}
	if c.inside[client] >= c.max {
		return false
	}
	c.inside[client]++
	return true
}

func (c *crowd) leave(client netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside[client]--; c.inside[client] <= 0 {
		delete(c.inside, client)
	}
}

// clientOf is the network that one client may speak from. Without an address
// (a listener that is no network) all are one client.
func clientOf(r *http.Request) netip.Prefix {
	const subscriberBits = 64 // what providers give to one customer, at least
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = subscriberBits
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func tooCrowded() *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeTooMany, "too many requests from this address at a time").
		WithDetail("TOOMANYREQUESTS").WithHint("wait until some of them have ended")
}

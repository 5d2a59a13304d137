package server

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// connectionsMax is how many connections one address (IPv4, or /64 of IPv6) may
// hold to one listener: enough for a proxy that stands for a whole cluster. Each
// ends by its deadlines; this bounds how many there are until then.
const connectionsMax = 8192

// crowd counts connections by address and closes those that are too many.
type crowd struct {
	max int

	mu     sync.Mutex
	inside map[netip.Prefix]int // no entry is zero
	over   map[net.Conn]bool    // closed on arrival, not counted
}

// state is a hook for [http.Server.ConnState].
func (c *crowd) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if !c.enter(conn) {
			conn.Close() // what reads from it next fails, and reports StateClosed
		}
	case http.StateClosed, http.StateHijacked:
		c.leave(conn)
	}
}

func (c *crowd) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside == nil {
		c.inside, c.over = map[netip.Prefix]int{}, map[net.Conn]bool{}
	}
	from := networkOf(conn.RemoteAddr())
	if c.inside[from] >= c.max {
		c.over[conn] = true
		return false
	}
	c.inside[from]++
	return true
}

func (c *crowd) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over[conn] {
		delete(c.over, conn)
		return
	}
	from := networkOf(conn.RemoteAddr())
	if c.inside[from]--; c.inside[from] <= 0 {
		delete(c.inside, from)
	}
}

// networkOf is where one client may come from; the zero Prefix for what is no
// network address.
func networkOf(addr net.Addr) netip.Prefix {
	const subscriberBits = 64 // what providers give to one customer, at least
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = subscriberBits
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

package server

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// hosts are the registry names that mean this server.
type hosts struct {
	names []string        // lower case, in their order, the main one first
	keys  map[string]bool // the same, as hostKey has them
	// everywhere is the port where the server listens on all addresses of the machine;
	// empty where it does not. What is reached there by such an address may be this
	// server, or something else on another machine.
	everywhere string
	machine    map[netip.Addr]bool // addresses of the machine
}

// newHosts lists the configured names, and those of the address that is listened on.
func newHosts(configured []string, addr string) hosts {
	h := hosts{keys: map[string]bool{}}
	names := append(slices.Clone(configured), addr)
	host, port, err := net.SplitHostPort(addr)
	if err == nil && config.Loopback(addr) {
		names = append(names, "localhost:"+port, "127.0.0.1:"+port)
	}
	if ip, bad := netip.ParseAddr(host); err == nil && bad == nil && ip.IsUnspecified() {
		h.everywhere, h.machine = port, machineAddresses()
	}
	for _, name := range names {
		if name = strings.ToLower(name); !slices.Contains(h.names, name) {
			h.names = append(h.names, name)
		}
		h.keys[hostKey(name)] = true
	}
	return h
}

// machineAddresses are those of now; what comes later has to be configured.
func machineAddresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	list, _ := net.InterfaceAddrs() // without it, only what is configured counts
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return out
}

// hostKey is what spellings of one registry have in common: an address in its
// shortest form, lower case, without the port that a client takes where none is
// written.
func hostKey(registry string) string {
	host, port, err := net.SplitHostPort(registry)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(registry, "["), "]"), ""
	}
	host = strings.ToLower(host)
	if ip, ok := address(host); ok {
		host = ip.String()
	}
	if port == "443" || port == "80" {
		port = ""
	}
	return net.JoinHostPort(host, port)
}

// address reads an IP address in any form that resolvers take, also those of old:
// 127.1, 0x7f000001 and 0177.0.0.1 are 127.0.0.1.
func address(host string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone(""), true
	}
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var all uint64
	for i, part := range parts {
		size := 1 // bytes that the part stands for
		if i == len(parts)-1 {
			size = 4 - i
		}
		n, err := strconv.ParseUint(part, 0, 8*size)
		if err != nil {
			return netip.Addr{}, false
		}
		all = all<<(8*size) | n
	}
	return netip.AddrFrom4([4]byte{byte(all >> 24), byte(all >> 16), byte(all >> 8), byte(all)}), true
}

// own reports whether a registry is this one.
func (h hosts) own(registry string) bool { return h.keys[hostKey(registry)] }

// might reports whether a registry may be this one.
func (h hosts) might(registry string) bool {
	if h.own(registry) {
		return true
	}
	host, port, err := net.SplitHostPort(registry)
	if err != nil || h.everywhere == "" || port != h.everywhere {
		return false
	}
	ip, ok := address(host)
	if !ok {
		return strings.EqualFold(host, "localhost")
	}
	return ip.IsLoopback() || ip.IsUnspecified() || h.machine[ip]
}

// policyNames are the names by which policies may speak of images of this server.
func (h hosts) policyNames() decide.Names { return decide.Names{Hosts: h.names, Ours: h.might} }

package server

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// hosts are the registry names that mean this server.
type hosts struct {
	names []string        // lower case, in their order, the main one first
	keys  map[string]bool // the same, as [gatehouse.SameRegistry] has them
	// given are those of them that were configured and mean this server everywhere.
	given []string
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
	for _, name := range configured {
		if name = strings.ToLower(name); !ofMachine(name) {
			h.given = append(h.given, name)
		}
	}
	for _, name := range names {
		if name = strings.ToLower(name); !slices.Contains(h.names, name) {
			h.names = append(h.names, name)
		}
		h.keys[gatehouse.SameRegistry(name)] = true
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

// own reports whether a registry is this one.
func (h hosts) own(registry string) bool { return h.keys[gatehouse.SameRegistry(registry)] }

// anywhere reports whether any machine that asks for an image at a registry is answered
// by this one: it has one of the configured names, to the letter. Behind another port, or
// at localhost, there may be anything.
func (h hosts) anywhere(registry string) bool {
	return slices.Contains(h.given, strings.ToLower(registry))
}

// ofMachine reports whether a name means another server on each machine.
func ofMachine(registry string) bool {
	registry = gatehouse.SameRegistry(registry) // without other spellings of addresses
	host := registry
	if h, _, err := net.SplitHostPort(registry); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && (ip.Unmap().IsLoopback() || ip.Unmap().IsUnspecified())
}

// might reports whether a registry may be this one.
func (h hosts) might(registry string) bool {
	if h.own(registry) {
		return true
	}
	if h.everywhere == "" {
		return false
	}
	// A name with the port that is listened on, whatever the name is, to compare the ports.
	registry = gatehouse.SameRegistry(registry)
	host, port := registry, ""
	if h, p, err := net.SplitHostPort(registry); err == nil {
		host, port = h, ":"+p
	}
	if gatehouse.SameRegistry("a:"+h.everywhere) != "a"+port {
		return false
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return host == "localhost"
	}
	return ip.IsLoopback() || ip.IsUnspecified() || h.machine[ip]
}

// policyNames are the names by which policies may speak of images of this server.
func (h hosts) policyNames() decide.Names { return decide.Names{Hosts: h.names, Ours: h.might} }

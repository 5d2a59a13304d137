package gatehouse

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// hubHosts serve Docker Hub beside docker.io.
var hubHosts = map[string]bool{"index.docker.io": true, "registry-1.docker.io": true, "registry.hub.docker.com": true}

// SameRegistry is what spellings of one registry, host[:port], have in common: lower
// case, an address in its shortest form, no port that a client takes where none is
// written, docker.io for each host of Docker Hub. It is for comparing: what is written
// may be reached in another way.
func SameRegistry(registry string) string {
	host, port, err := net.SplitHostPort(registry)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(registry, "["), "]"), ""
	}
	host = strings.ToLower(host)
	if ip, ok := address(host); ok {
		host = ip.String()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(n, 10) // 0443 is 443
	}
	if port == "443" || port == "80" {
		port = ""
	}
	if port == "" && hubHosts[host] {
		return "docker.io"
	}
	if port != "" {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
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

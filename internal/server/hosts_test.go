package server_test

import (
	"net"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// TestHosts: a registry is this one in any spelling of its names; what is reached by
// an address of the machine may be, where the server listens on all of them.
func TestHosts(t *testing.T) {
	for _, test := range []struct {
		listen, registry string
		own, might       bool
	}{
		{"127.0.0.1:5000", "registry.example", true, true},
		{"127.0.0.1:5000", "Registry.Example:443", true, true},
		{"127.0.0.1:5000", "registry.example:80", true, true},
		{"127.0.0.1:5000", "registry.example:8443", false, false},
		{"127.0.0.1:5000", "[2001:DB8:0::1]:5000", true, true},
		{"127.0.0.1:5000", "localhost:5000", true, true},
		{"127.0.0.1:5000", "127.1:5000", true, true},
		{"127.0.0.1:5000", "0x7f000001:5000", true, true},
		{"127.0.0.1:5000", "0177.0.0.1:5000", true, true},
		{"127.0.0.1:5000", "2130706433:5000", true, true},
		{"127.0.0.1:5000", "[::ffff:127.0.0.1]:5000", true, true},
		{"127.0.0.1:5000", "127.0.0.1.0:5000", false, false},
		{"127.0.0.1:5000", "127.0.0.1:5001", false, false},
		{"127.0.0.1:5000", "127.0.0.2:5000", false, false},
		{"127.0.0.1:5000", "127.256:5000", false, false},
		{"192.0.2.7:5000", "192.0.2.7:5000", true, true},
		{"192.0.2.7:5000", "localhost:5000", false, false},
		{"[::]:5000", "localhost:5000", false, true},
		{"[::]:5000", "127.0.0.2:5000", false, true},
		{"0.0.0.0:5000", "[::]:5000", false, true},
		{"0.0.0.0:5000", "192.0.2.7:5000", false, false},
		{"0.0.0.0:5000", "localhost:5001", false, false},
		{"0.0.0.0:5000", "localhost:05000", false, true},
		{"0.0.0.0:5000", "127.1:05000", false, true},
		{"0.0.0.0:443", "127.0.0.1", false, true},
		{"127.0.0.1:5000", "registry.example:0443", true, true},
		{"127.0.0.1:5000", "127.0.0.1:05000", true, true},
		{"0.0.0.0:5000", "localhost", false, false},
	} {
		own, might := server.Hosts([]string{"registry.example", "[2001:db8::1]:5000"}, test.listen, test.registry)
		if own != test.own || might != test.might {
			t.Errorf("%s, listening on %s: own %v, might be %v", test.registry, test.listen, own, might)
		}
	}
	for registry, want := range map[string]bool{
		"registry.example": true, "Registry.Example": true, "[2001:db8::1]:5000": true, "[2001:DB8::1]:5000": true,
		"registry.example:443": false, "registry.example:80": false, "127.0.0.1:5000": false, "localhost:5000": false, "LOCALHOST:5000": false,
		"a.localhost": false, "127.1:5000": false, "2130706433:5000": false, "[::1]:5000": false, "0.0.0.0:5000": false, "other.example": false,
	} {
		given := []string{"registry.example", "[2001:db8::1]:5000", "localhost:5000", "a.localhost", "127.0.0.1:5000", "[::1]:5000", "0.0.0.0:5000", "127.1:5000", "2130706433:5000"}
		if got := server.HostsAnywhere(given, "127.0.0.1:5000", registry); got != want {
			t.Errorf("%s means this server on every machine: %v", registry, got)
		}
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		ip, _, err := net.ParseCIDR(a.String())
		if err != nil {
			t.Fatal(err)
		}
		registry := net.JoinHostPort(ip.String(), "5000")
		if own, might := server.Hosts(nil, "[::]:5000", registry); own || !might {
			t.Errorf("%s, of this machine: own %v, might be %v", registry, own, might)
		}
	}
}

// TestOtherNamesDoNotDodgePolicies: a Pod that names the server by its address is
// judged by the policies that speak of its name, too.
func TestOtherNamesDoNotDodgePolicies(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.NoMatch = "allow" })
	k := signer(t)
	r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
	r.must("PUT", "/api/v1/policies/q.yaml", strings.Replace(signedBy("lax", "**", k), "authorities:", "authorities:\n  - static: {action: pass}", 1))
	digest := r.push("team/app:1")
	address := strings.TrimPrefix(r.url, "http://")
	_, port, _ := strings.Cut(address, ":")
	names := []string{"registry.example", "registry.example:443", address, "localhost:" + port, "127.1:" + port}
	for _, name := range names {
		for _, image := range []string{name + "/team/app:1", name + "/team/app@" + digest} {
			if allowed, message := r.review(image); allowed || !strings.Contains(message, "signature-missing") {
				t.Errorf("%s: allowed %v: %s", image, allowed, message)
			}
		}
	}
	r.signImage(k, "team/app", digest, sign.Options{})
	for _, name := range names {
		if allowed, message := r.review(name + "/team/app:1"); !allowed {
			t.Errorf("%s, signed: %s", name, message)
		}
	}
}

package gatehouse_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// TestSameRegistry: however a registry is written, it is compared as one.
func TestSameRegistry(t *testing.T) {
	for in, want := range map[string]string{
		"ghcr.io": "ghcr.io", "GHCR.io:443": "ghcr.io", "ghcr.io:0443": "ghcr.io", "ghcr.io:80": "ghcr.io", "ghcr.io:8443": "ghcr.io:8443",
		"docker.io": "docker.io", "index.docker.io": "docker.io", "registry-1.docker.io:443": "docker.io", "Registry.Hub.Docker.com": "docker.io",
		"index.docker.io:5000": "index.docker.io:5000", "evil.docker.io": "evil.docker.io",
		"[::1]": "[::1]", "[0:0::1]:443": "[::1]", "[::ffff:127.0.0.1]:5000": "127.0.0.1:5000", "127.1:05000": "127.0.0.1:5000", "0x7f.1": "127.0.0.1",
		"a:99999": "a:99999", "": "",
	} {
		got := gatehouse.SameRegistry(in)
		if got != want {
			t.Errorf("SameRegistry(%q) = %q, want %q", in, got, want)
		}
		if again := gatehouse.SameRegistry(got); again != got {
			t.Errorf("SameRegistry(%q) = %q", got, again)
		}
	}
}

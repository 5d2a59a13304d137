package rule

import "testing"

func TestWildcard(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"shop", "shop", true}, {"shop", "shop-eu", false}, {"shop-*", "shop-eu", true}, {"shop-*", "shop-", true}, {"shop-*", "shop", false},
		{"*-eu", "shop-eu", true}, {"*-eu", "shop-eu-1", false}, {"*", "", true}, {"*", "x", true}, {"", "", true}, {"", "x", false},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "axbxc", true}, {"a*b*c", "axcxb", false}, {"a*b*b", "ab", false}, {"**", "x", true},
	} {
		if got := wildcard(c.pattern, c.s); got != c.want {
			t.Errorf("wildcard(%q, %q) = %t", c.pattern, c.s, got)
		}
	}
}

// TestRegistryGlob: what stands for a registry alone, and what is a glob.
func TestRegistryGlob(t *testing.T) {
	for text, want := range map[string]string{
		"registry.example": "registry.example/**", "Registry.Example": "registry.example/**", "registry.example:5000": "registry.example:5000/**",
		"*.example.com": "*.example.com/**", "docker.io": "index.docker.io/**", "docker.io/library/*": "index.docker.io/library/*",
		"**:latest": "**:latest", "ghcr.io/acme/**": "ghcr.io/acme/**",
	} {
		if g, err := registryGlob(text); err != nil || g.String() != want {
			t.Errorf("%s: %s, %v", text, g, err)
		}
	}
	for _, text := range []string{"", "a b", "[::1]:5000"} {
		if g, err := registryGlob(text); err == nil {
			t.Errorf("%q: %s", text, g)
		}
	}
}

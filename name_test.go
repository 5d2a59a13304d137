package gatehouse_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

func TestNormalName(t *testing.T) {
	for _, c := range []struct{ space, name, want string }{
		{"PyPI", "Zope.Interface", "zope-interface"},
		{"PyPI", "a-_.b", "a-b"},
		{"PyPI", "", ""},
		{"NuGet", "Newtonsoft.Json", "newtonsoft.json"},
		{"Packagist", "Symfony/HttpKernel", "symfony/httpkernel"},
		{"npm", "JSONStream", "JSONStream"},
		{"Debian:12", "libA_b", "libA_b"},
	} {
		if got := gatehouse.NormalName(c.space, c.name); got != c.want {
			t.Errorf("NormalName(%q, %q) = %q, want %q", c.space, c.name, got, c.want)
		}
	}
}

package manifest_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "0": true, "a-b.c9": true, "a--b..c": true, strings.Repeat("a", 253): true,
		"": false, "-a": false, "a-": false, ".a": false, "a.": false, "A": false, "a_b": false, "a b": false, "a\n": false, "\u00e9": false,
		strings.Repeat("a", 254): false,
	} {
		if manifest.ValidName(name) != want {
			t.Errorf("%.20q of %d bytes: %t", name, len(name), !want)
		}
	}
}

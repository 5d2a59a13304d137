package gatehouse_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

func TestTagPatterns(t *testing.T) {
	p, err := gatehouse.ParseTagPatterns([]string{"v*", "release-?.[0-9]", "stable", "v*"})
	if want := []string{"release-?.[0-9]", "stable", "v*"}; err != nil || !slices.Equal(p, want) {
		t.Fatalf("%q %v", p, err)
	}
	for tag, want := range map[string]string{
		"v1": "v*", "v": "v*", "v1.2-rc.1": "v*", "release-1.2": "release-?.[0-9]", "stable": "stable",
		"release-10.2": "", "release-1.x": "", "latest": "", "xv1": "", "stable2": "", "V1": "",
	} {
		if got, ok := p.Match(tag); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v, want %q", tag, got, ok, want)
		}
	}
	for _, all := range []string{"*", "**"} {
		if _, ok := (gatehouse.TagPatterns{all}).Match("any.thing-1"); !ok {
			t.Errorf("%s does not choose all", all)
		}
	}
	if _, ok := gatehouse.TagPatterns(nil).Match("v1"); ok {
		t.Error("no pattern chooses")
	}
	for _, bad := range []string{"", "v[", "[z-a", "{v1,v2}", "a/b", `v\*`, "v 1", "[!a]", "ä*", strings.Repeat("a", 129)} {
		if _, err := gatehouse.ParseTagPatterns([]string{"ok", bad}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || gatehouse.HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := gatehouse.ParseTagPatterns(make([]string, gatehouse.TagPatternsMax+1)); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Error(err)
	}
}

// FuzzTagPatterns: a pattern that was taken chooses or does not, and is taken again.
func FuzzTagPatterns(f *testing.F) {
	for _, p := range []string{"v*", "[a-c]?", "[^0-9]*", "[", "]", "**x**", "a-[]-b]", "[^]"} {
		f.Add(p, "v1")
	}
	f.Fuzz(func(t *testing.T, pattern, tag string) {
		p, err := gatehouse.ParseTagPatterns([]string{pattern})
		if err != nil {
			return
		}
		p.Match(tag)
		if again, err := gatehouse.ParseTagPatterns(p); err != nil || !slices.Equal(again, p) {
			t.Errorf("%q: %q %v", p, again, err)
		}
	})
}

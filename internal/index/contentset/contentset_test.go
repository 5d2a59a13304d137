package contentset_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/index/contentset"
)

func TestParse(t *testing.T) {
	many := strings.Repeat(`"a-rpms",`, 10) + `"b-rpms"`
	for _, c := range []struct {
		text string
		want []string
	}{
		{`{"metadata": {"icm_version": 1, "image_layer_index": 1}, "content_sets": ["rhel-9-for-x86_64-baseos-eus-rpms__9_DOT_2", "rhel-9-for-x86_64-appstream-eus-rpms__9_DOT_2"], "image_contents": []}`,
			[]string{"rhel-9-for-x86_64-appstream-eus-rpms__9_DOT_2", "rhel-9-for-x86_64-baseos-eus-rpms__9_DOT_2"}},
		{`{"from_dnf_hint": true, "content_sets": ["ubi-8-appstream-rpms", "ubi-8-appstream-rpms"]}`, []string{"ubi-8-appstream-rpms"}},
		{`{"content_sets": [` + many + `]}`, []string{"a-rpms", "b-rpms"}},
		{`{"content_sets": ["../x", "", "a b", "` + strings.Repeat("a", 201) + `", "ok"]}`, []string{"ok"}},
		{`{"content_sets": "baseos"}`, nil},
		{`{"architecture": "x86_64"}`, nil},
		{`[]`, nil},
		{``, nil},
		{`{"content_sets": ["a"`, nil},
	} {
		if got := contentset.Parse(strings.NewReader(c.text)); !slices.Equal(got, c.want) {
			t.Errorf("Parse(%.60s) = %q, want %q", c.text, got, c.want)
		}
	}
	var names []string
	for i := range contentset.NamesMax + 50 {
		names = append(names, fmt.Sprintf(`"n%d"`, i))
	}
	if got := contentset.Parse(strings.NewReader(`{"content_sets": [` + strings.Join(names, ",") + `]}`)); len(got) != contentset.NamesMax {
		t.Errorf("%d names, at most %d are read", len(got), contentset.NamesMax)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"content_sets": ["rhel-9-for-x86_64-baseos-rpms"]}`)
	f.Fuzz(func(t *testing.T, s string) {
		got := contentset.Parse(strings.NewReader(s))
		if len(got) > contentset.NamesMax || !slices.IsSorted(got) {
			t.Errorf("%q", got)
		}
	})
}

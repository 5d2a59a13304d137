package trivydb_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/trivydb"
)

func TestAffectedVersions(t *testing.T) {
	for _, c := range []struct{ vulnerable, patched, unaffected, want string }{
		// As Trivy's OSV reader writes them.
		{"<1.2.3", "1.2.3", "", "from 0 fixed 1.2.3"},
		{">=1.0.0, <1.2.3", "1.2.3", "", "from 1.0.0 fixed 1.2.3"},
		{"<1.21.9;>=1.22.0-0, <1.22.2", "1.21.9;1.22.2", "", "from 0 fixed 1.21.9 | from 1.22.0-0 fixed 1.22.2"},
		{">=1.0, <=1.5", "1.6", "", "from 1.0 last 1.5 fixed 1.6"},
		{">=1.0, <=1.5", "", "", "from 1.0 last 1.5"},
		{"=1.4", "", "", "from 1.4 last 1.4"},
		{">=1.0", "1.6", "", "from 1.0"}, // 1.6 alone is repaired, 1.7 is not
		{">=1.0", "", "", "from 1.0"},
		{">=0", "", "", "from 0"},
		// GitLab's.
		{">=2.0.0 <2.0.5||>=3.0.0 <3.0.1", "2.0.5", "", "from 2.0.0 fixed 2.0.5 | from 3.0.0 fixed 3.0.1"},
		{"<0.8.1 || =0.9", "", "", "from 0 fixed 0.8.1 | from 0.9 last 0.9"},
		// PHP's, Node's.
		{">= 1.0.0 , < 1.2", "", "", "from 1.0.0 fixed 1.2"},
		{"<=99.999.99999", ">= 1.2.3", "", "from 0 last 99.999.99999 fixed 1.2.3"},
		{"*", "", "", "from 0"},
		{"all", "", "", "from 0"},
		{"1.2.x", "", "", "from 1.2 fixed 1.3"},
		{"~1.2.3", "", "", "from 1.2.3 fixed 1.3"},
		{"^1.2.3", "", "", "from 1.2.3 fixed 2"},
		{"^0.2.3", "", "", "from 0.2.3 fixed 0.3"},
		{"<2.0.0 !=1.9", "", "", "from 0 fixed 2.0.0"},
		{"> 1.0, < 2", "", "", "from 1.0 fixed 2"}, // and 1.0 itself, which cannot be said
		// Ruby's: what is neither patched nor unaffected.
		{"", ">= 1.2.3", "", "from 0 fixed 1.2.3"},
		{"", "~> 1.1.5;>= 1.2.3", "", "from 0 fixed 1.1.5 from 1.2 fixed 1.2.3"},
		{"", "~> 5.2.4, >= 5.2.4.3;>= 6.0.3.1", "< 4.0.0", "fixed 5.2.4.3 from 5.3 fixed 6.0.3.1 from 4.0.0"},
		{"", "> 1.0", "", "from 0 fixed 1.0 | 1.0"},
		{"", "", "< 2", "from 2"},
		{"", "", "", "from 0"},
		// Empty texts mean every version.
		{"-", "", "", "from 0"},
		{"<1", "-", "", "from 0"},
		// Nonsense counts as affected.
		{">=", "", "", "from 0"},
		{"~> x", "", "", "from 0"},
	} {
		ranges, versions, err := trivydb.AffectedVersions(list(c.vulnerable), list(c.patched), list(c.unaffected))
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		a := gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: ranges, Versions: versions}}}
		_, got, _ := strings.Cut(line(a), "\n   |  | ")
		if got != c.want {
			t.Errorf("vulnerable %q, patched %q, unaffected %q:\n\t%s, want\n\t%s", c.vulnerable, c.patched, c.unaffected, got, c.want)
		}
	}
}

// list splits at semicolons; "-" is an empty text.
func list(s string) []string {
	if s == "" {
		return nil
	}
	out := strings.Split(s, ";")
	for i := range out {
		if out[i] == "-" {
			out[i] = ""
		}
	}
	return out
}

// FuzzAffectedVersions looks for panics and for ranges that could never hold a
// version.
func FuzzAffectedVersions(f *testing.F) {
	f.Add(">=1.0.0, <1.2.3 || ~> 1.2", ">= 1.2.3", "< 1")
	f.Add("", "~> 1.1.5", "")
	f.Add("^0.0", "1.x || *", "!= 1")
	f.Fuzz(func(t *testing.T, vulnerable, patched, unaffected string) {
		ranges, _, err := trivydb.AffectedVersions(list(vulnerable), list(patched), list(unaffected))
		if err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
				t.Fatal(err)
			}
			return
		}
		if len(ranges) == 0 {
			t.Fatal("nothing is affected")
		}
		for _, r := range ranges {
			if slices.Contains(r.Events, gatehouse.RangeEvent{}) || !slices.ContainsFunc(r.Events, func(e gatehouse.RangeEvent) bool { return e.Introduced != "" }) {
				t.Fatalf("%q, %q, %q give %+v", vulnerable, patched, unaffected, r)
			}
		}
	})
}

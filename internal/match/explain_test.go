package match_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// told is a store of a few records.
type told []gatehouse.Advisory

func (s told) For(_ context.Context, space, name string) (out []gatehouse.Advisory, _ error) {
	for _, a := range s {
		for _, e := range a.Affected {
			if e.Space == space && e.Name == name {
				out = append(out, a)
				break
			}
		}
	}
	return out, nil
}

func (s told) Named(context.Context, string) ([]gatehouse.Advisory, error) { return nil, nil }
func (s told) Covers(context.Context, string) (bool, error)                { return true, nil }

// TestExplain: each rule that keeps a record from being a finding is told.
func TestExplain(t *testing.T) {
	until := func(fixed string) []gatehouse.Range {
		events := []gatehouse.RangeEvent{{Introduced: "0"}}
		if fixed != "" {
			events = append(events, gatehouse.RangeEvent{Fixed: fixed})
		}
		return []gatehouse.Range{{Type: "ECOSYSTEM", Events: events}}
	}
	npm := gatehouse.Package{Type: "npm", Name: "a", Version: "1.2.0"}
	rpm := gatehouse.Package{Type: "rpm", Name: "nodejs", Version: "1:16.1.0-1.module_el8.5.0", Modularity: "nodejs:16:1:2"}
	alma := gatehouse.Distro{ID: "almalinux", VersionID: "8.5"}
	for name, c := range map[string]struct {
		pkg      gatehouse.Package
		advisory gatehouse.Advisory
		affected bool
		rule     string
	}{
		"affected":      {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("1.3.0")}}}, true, "repaired in 1.3.0"},
		"no repair":     {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("")}}}, true, "no version that repairs it is known"},
		"repaired":      {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("1.2.0")}}}, false, "not lower than 1.2.0"},
		"listed":        {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Versions: []string{"1.1.0", "1.2.0"}}}}, true, "affected"},
		"later":         {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: []gatehouse.Range{{Type: "SEMVER", Events: []gatehouse.RangeEvent{{Introduced: "2.0.0"}}}}}}}, false, "in none of the affected ranges"},
		"withdrawn":     {npm, gatehouse.Advisory{Withdrawn: time.Date(2024, 1, 2, 0, 0, 0, 0, time.UTC), Affected: []gatehouse.Affected{{Ranges: until("")}}}, false, "withdrawn on 2024-01-02"},
		"informational": {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until(""), Informational: "unmaintained"}}}, false, "unmaintained"},
		"denied":        {npm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until(""), Status: gatehouse.StatusNotAffected}}}, false, "not affected"},
		"no version":    {gatehouse.Package{Type: "npm", Name: "a"}, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("")}}}, false, "no version"},
		"nonsense":      {gatehouse.Package{Type: "npm", Name: "a", Version: "git+ssh"}, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("")}}}, false, "no version by the rules"},
		"bug fix":       {rpm, gatehouse.Advisory{ID: "ALBA-2022:1", Related: []string{"CVE-X"}, Affected: []gatehouse.Affected{{Ranges: until("2:0-0")}}}, false, "no vulnerability"},
		"other stream":  {rpm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("1:18.0.0-1.module_el8.7.0"), Modules: []string{"nodejs:18"}}}}, false, "another module stream"},
		"its stream":    {rpm, gatehouse.Advisory{Affected: []gatehouse.Affected{{Ranges: until("1:16.9.0-1.module_el8.7.0"), Modules: []string{"nodejs:16"}}}}, true, "repaired in"},
	} {
		a := c.advisory
		if a.ID == "" {
			a.ID, a.Aliases = "X-1", []string{"CVE-2024-0001"}
		} else {
			a.Aliases = []string{"CVE-X"}
		}
		distro := gatehouse.Distro{}
		for i := range a.Affected {
			a.Affected[i].Space, a.Affected[i].Name = "npm", "a"
			if c.pkg.Type == "rpm" {
				distro, a.Affected[i].Space, a.Affected[i].Name = alma, "AlmaLinux:8", "nodejs"
			}
		}
		got, err := match.Explain(t.Context(), distro, []gatehouse.Package{c.pkg}, told{a}, []string{"CVE-2024-0001", "CVE-X"})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %d comparisons, %v", name, len(got), err)
			continue
		}
		if got[0].Affected != c.affected || !strings.Contains(got[0].Rule, c.rule) {
			t.Errorf("%s: %v, %q; want %v, %q", name, got[0].Affected, got[0].Rule, c.affected, c.rule)
		}
		// What is told is what is found.
		res, err := match.Findings(t.Context(), distro, []gatehouse.Package{c.pkg}, told{a})
		if err != nil || (len(res.Findings) > 0) != c.affected {
			t.Errorf("%s: %d findings, %v, but it is explained as %v", name, len(res.Findings), err, c.affected)
		}
	}
	if got, err := match.Explain(t.Context(), gatehouse.Distro{}, []gatehouse.Package{npm}, told{{ID: "Y", Affected: []gatehouse.Affected{{Space: "npm", Name: "a"}}}}, []string{"CVE-2024-0001"}); err != nil || len(got) != 0 {
		t.Errorf("another flaw is compared: %v, %v", got, err)
	}
}

package report_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// TestEveryFormatTellsWhatIsIncomplete: a result without findings that proves
// nothing must not look like a clean one, in whatever form it is read.
func TestEveryFormatTellsWhatIsIncomplete(t *testing.T) {
	const why = "no advisories for Plan9:4 are loaded"
	sources := map[string]string{}
	for _, name := range report.Formats() {
		if name != "template" {
			sources[name] = ""
		}
	}
	for _, name := range report.Templates() {
		text, err := report.LoadTemplate("@" + name)
		if err != nil {
			t.Fatal(err)
		}
		sources["template "+name] = text
	}
	for name, text := range sources {
		format, _, _ := strings.Cut(name, " ")
		for _, complete := range []bool{true, false} {
			inv := gatehouse.Inventory{Complete: complete}
			if !complete {
				inv.Incomplete = []string{why}
			}
			out := render(t, format, report.New(report.Target{Reference: "a:1"}, report.Database{}, inv, nil, report.Filter{}).WithPackages(inv), report.Options{Template: text})
			if strings.Contains(out, why) == complete {
				t.Errorf("%s, complete %v:\n%s", name, complete, out)
			}
		}
	}
}

// TestTableTellsWhatWasNotCompared: the first few, and how many more.
func TestTableTellsWhatWasNotCompared(t *testing.T) {
	r := report.New(report.Target{Reference: "a:1"}, report.Database{}, gatehouse.Inventory{Complete: true}, nil, report.Filter{})
	if out := render(t, "table", r, report.Options{}); strings.Contains(out, "not compared") {
		t.Errorf("nothing to tell:\n%s", out)
	}
	for i := range 12 {
		r.NotCompared = append(r.NotCompared, fmt.Sprintf("golang example.test/app%d\x1b[2J has no version", i))
	}
	out := render(t, "table", r, report.Options{})
	if !strings.Contains(out, "not compared with any advisory:\n  - golang example.test/app0") || !strings.Contains(out, "app9") ||
		strings.Contains(out, "app10") || !strings.Contains(out, "and 2 more") || strings.Contains(out, "\x1b") {
		t.Errorf("%s", out)
	}
}

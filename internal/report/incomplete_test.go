package report_test

import (
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

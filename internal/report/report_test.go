package report_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

func findings() []gatehouse.Finding {
	f := []gatehouse.Finding{
		{ID: "CVE-2", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityHigh, Status: gatehouse.StatusAffected,
			Package: gatehouse.Package{Type: "deb", Name: "zlib1g", Version: "1:1.2.13"}, Title: "heap\x1b[2J overflow"},
		{ID: "CVE-1", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityCritical, FixedVersion: "3.0.9", Status: gatehouse.StatusFixed,
			Package: gatehouse.Package{Type: "deb", Name: "openssl", Version: "3.0.8"}, Title: "bad"},
		{ID: "CVE-3", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityUnknown, Status: gatehouse.StatusAffected,
			Package: gatehouse.Package{Type: "npm", Name: "lodash", Version: "4.17.4"}},
	}
	gatehouse.SortFindings(f)
	return f
}

func TestTableIsSortedAndHarmless(t *testing.T) {
	inv := gatehouse.Inventory{Distro: gatehouse.Distro{ID: "debian", VersionID: "12"}, Complete: true}
	var b strings.Builder
	if err := report.Write(&b, "table", report.New(report.Target{Reference: "a:1"}, report.Database{}, inv, findings(), report.Filter{})); err != nil {
		t.Fatal(err)
	}
	want := `a:1 (debian 12)

Library  Vulnerability  Severity  Installed  Fixed  Title
───────  ─────────────  ────────  ─────────  ─────  ─────────────────
openssl  CVE-1          CRITICAL  3.0.8      3.0.9  bad
zlib1g   CVE-2          HIGH      1:1.2.13          heap` + "\uFFFD" + `[2J overflow
lodash   CVE-3          UNKNOWN   4.17.4

Total: 3 (CRITICAL: 1, HIGH: 1, MEDIUM: 0, LOW: 0, NEGLIGIBLE: 0, UNKNOWN: 1)
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestFilterNeverDropsUnknownSilently(t *testing.T) {
	f := report.Filter{Severities: []gatehouse.Severity{gatehouse.SeverityCritical}}
	r := report.New(report.Target{}, report.Database{}, gatehouse.Inventory{}, findings(), f)
	if len(r.Findings) != 1 || r.UnknownOutsideFilter != 1 {
		t.Errorf("%d findings, %d unknown outside; want 1 and 1", len(r.Findings), r.UnknownOutsideFilter)
	}
	r = report.New(report.Target{}, report.Database{}, gatehouse.Inventory{}, findings(), report.Filter{IgnoreUnfixed: true})
	if len(r.Findings) != 1 || r.Findings[0].ID != "CVE-1" {
		t.Errorf("with IgnoreUnfixed: %+v", r.Findings)
	}
}

func TestJSONHasNoNullLists(t *testing.T) {
	var b strings.Builder
	r := report.New(report.Target{Reference: "x"}, report.Database{}, gatehouse.Inventory{}, findings()[:1], report.Filter{})
	if err := report.Write(&b, "json", r); err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(b.String()), &doc); err != nil {
		t.Fatal(err)
	}
	first := doc["findings"].([]any)[0].(map[string]any)
	for _, key := range []string{"aliases", "cvss", "references"} {
		if _, ok := first[key].([]any); !ok {
			t.Errorf("findings[0].%s is %v, want a list", key, first[key])
		}
	}
	if doc["complete"] != false || doc["incompleteReasons"] == nil {
		t.Errorf("complete %v, reasons %v", doc["complete"], doc["incompleteReasons"])
	}
}

func TestUnknownFormat(t *testing.T) {
	err := report.Write(&strings.Builder{}, "xlsx", report.Report{})
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(gatehouse.HintOf(err), "json") {
		t.Errorf("got %v, hint %q", err, gatehouse.HintOf(err))
	}
}

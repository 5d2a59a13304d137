package report_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

const (
	baseLayer = gatehouse.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")
	appLayer  = gatehouse.Digest("sha256:2222222222222222222222222222222222222222222222222222222222222222")
)

func findings() []gatehouse.Finding {
	f := []gatehouse.Finding{
		{ID: "CVE-2024-2", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityHigh, Status: gatehouse.StatusAffected,
			Package: gatehouse.Package{Type: "deb", Name: "zlib1g", Version: "1:1.2.13", Path: "var/lib/dpkg/status"}, Title: "heap\x1b[2J overflow"},
		{ID: "CVE-2024-1", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityCritical, FixedVersion: "3.0.9", Status: gatehouse.StatusFixed,
			Package: gatehouse.Package{Type: "deb", Name: "openssl", Version: "3.0.8", Path: "var/lib/dpkg/status"}, Title: "bad"},
		{ID: "CVE-2024-3", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityUnknown, Status: gatehouse.StatusAffected,
			Package: gatehouse.Package{Type: "npm", Name: "lodash", Version: "4.17.4", Path: "app/node_modules/lodash/package.json"}},
	}
	gatehouse.SortFindings(f)
	return f
}

// inventory is that of an image with everything in it that can be wrong; its
// texts try to break out of every format.
func inventory() (gatehouse.Inventory, []gatehouse.Finding) {
	inv := gatehouse.Inventory{
		Distro: gatehouse.Distro{ID: "debian", VersionID: "12"}, Incomplete: []string{`layer 2: "x]]>" <b>broke off`},
		Layers: []gatehouse.LayerOrigin{
			{DiffID: baseLayer, CreatedBy: "/bin/sh -c #(nop) ADD file:0 in / ", Base: true},
			{DiffID: appLayer, CreatedBy: "RUN /bin/sh -c npm ci && echo '<script>' # buildkit"},
		},
		Packages: []gatehouse.Package{
			{Type: "deb", Name: "openssl", Version: "3.0.8", Path: "var/lib/dpkg/status", Layer: baseLayer},
			{Type: "npm", Name: "lodash", Version: "4.17.4", Path: "app/node_modules/lodash/package.json", Layer: appLayer},
			{Type: "golang", Name: "golang.org/x/net", Version: "v0.1.0", Path: "usr/bin/app", Layer: appLayer},
		},
	}
	f := findings()
	for i := range f {
		if f[i].Package.Type == "deb" {
			f[i].Package.Layer = baseLayer
		} else {
			f[i].Package.Layer = appLayer
		}
		if f[i].ID == "CVE-2024-1" {
			f[i].Aliases, f[i].EPSS = []string{"DSA-1"}, &gatehouse.EPSS{Score: 0.42, Percentile: 0.97}
			f[i].KEV = &gatehouse.KEV{Added: time.Date(2024, 2, 1, 0, 0, 0, 0, time.UTC)}
			f[i].CVSS = []gatehouse.CVSS{{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", Score: 9.8, Source: "nvd"}}
			f[i].Description = "a | table, a `code`, <script>alert(1)</script> and \"quotes\"\nand a second line with {{ .Evil }} ]]> \x00"
			f[i].References = []string{"https://example.com/?a=1&b=<2>", "javascript:alert(1)"}
			f[i].SeveritySource = "debian"
		}
	}
	f = append(f,
		gatehouse.Finding{ID: "aws-access-key-id", Kind: gatehouse.KindSecret, Severity: gatehouse.SeverityCritical, Title: "AWS access key id",
			Package: gatehouse.Package{Path: "app/a b<&>.env", Layer: appLayer}, Resolution: "revoke it",
			Location: &gatehouse.Location{Origin: "file", StartLine: 3, EndLine: 3, Excerpt: `KEY="AKIA****"`, Deleted: true}},
		gatehouse.Finding{ID: "GHM001", Kind: gatehouse.KindMisconfig, Severity: gatehouse.SeverityHigh, Title: "runs as root", Resolution: "add USER",
			Description: "who breaks out is root", Location: &gatehouse.Location{Origin: "config", Name: "User"}},
		gatehouse.Finding{ID: "MAL-2024-1", Kind: gatehouse.KindMalware, Severity: gatehouse.SeverityCritical, Title: "steals <tokens>",
			Package: gatehouse.Package{Type: "npm", Name: "evil", Version: "1.0.0", Path: "app/node_modules/evil/package.json", Layer: appLayer}},
		gatehouse.Finding{ID: "AGPL-3.0-only", Kind: gatehouse.KindLicense, Severity: gatehouse.SeverityMedium, Title: "restricted",
			Package: gatehouse.Package{Type: "npm", Name: "left", Version: "2.0.0", Path: "app/node_modules/left/package.json", Layer: appLayer}},
		gatehouse.Finding{ID: "CVE-2024-9", Kind: gatehouse.KindVulnerability, Severity: gatehouse.SeverityLow, Status: gatehouse.StatusWillNotFix,
			Package:    gatehouse.Package{Type: "golang", Name: "golang.org/x/net", Version: "v0.1.0", Path: "usr/bin/app", Layer: appLayer},
			Suppressed: &gatehouse.Suppression{By: gatehouse.SuppressedByVEX, Status: "not_affected", Reason: "code_not_present", Source: "vex.json"}},
	)
	gatehouse.SortFindings(f)
	return inv, f
}

func sample(filter report.Filter) report.Report {
	inv, f := inventory()
	target := report.Target{Reference: "registry.example:5000/team/app:v1", Digest: appLayer, Platform: "linux/amd64", Source: "remote"}
	r := report.New(target, report.Database{Source: "osv"}, inv, f, filter).WithPackages(inv)
	eol := true
	r.OS.EOL, r.OS.EOLDate = &eol, time.Date(2023, 6, 30, 0, 0, 0, 0, time.UTC)
	return r
}

func render(t *testing.T, format string, r report.Report, o report.Options) string {
	t.Helper()
	var b strings.Builder
	o.Version, o.Now = "1.2.3", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := report.Write(&b, format, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTableIsSortedAndHarmless(t *testing.T) {
	inv := gatehouse.Inventory{Distro: gatehouse.Distro{ID: "debian", VersionID: "12"}, Complete: true}
	got := render(t, "table", report.New(report.Target{Reference: "a:1"}, report.Database{}, inv, findings(), report.Filter{}), report.Options{})
	want := `a:1 (debian 12)

a:1 (debian 12): 2

Library  Vulnerability  Severity  Installed  Fixed  Title
───────  ─────────────  ────────  ─────────  ─────  ─────────────────
openssl  CVE-2024-1     CRITICAL  3.0.8      3.0.9  bad
zlib1g   CVE-2024-2     HIGH      1:1.2.13          heap` + "\uFFFD" + `[2J overflow

Node.js: 1

Library  Vulnerability  Severity  Installed  Fixed  Title  Where
───────  ─────────────  ────────  ─────────  ─────  ─────  ────────────────────────────────────
lodash   CVE-2024-3     UNKNOWN   4.17.4                   app/node_modules/lodash/package.json

Total: 3 (CRITICAL: 1, HIGH: 1, MEDIUM: 0, LOW: 0, NEGLIGIBLE: 0, UNKNOWN: 1)
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestTableTellsEverything: kinds, places, repairs, causes, steps, gaps.
func TestTableTellsEverything(t *testing.T) {
	got := render(t, "table", sample(report.Filter{ShowSuppressed: true}), report.Options{})
	for _, want := range []string{
		"warning: debian 12 gets no more fixes since 2023-06-30",
		"[exploited, EPSS 42%] bad",
		"app/a b<&>.env:3 (deleted by a later layer)", `AWS access key id: KEY="AKIA****"`, "  aws-access-key-id: revoke it\n",
		"config User", "  GHM001: add USER\n", "evil 1.0.0  MAL-2024-1  CRITICAL", "left 2.0.0  AGPL-3.0-only  MEDIUM",
		"not affected: code not present (vex.json)",
		"the base image", "RUN npm ci && echo '<script>'",
		"Secrets: 1 (CRITICAL: 1,", "Misconfigurations: 1 (CRITICAL: 0, HIGH: 1,", "Vulnerabilities: 3 (", "Malware: 1 (", "Licences: 1 (",
		"Total: 7 (CRITICAL: 3, HIGH: 2, MEDIUM: 1, LOW: 0, NEGLIGIBLE: 0, UNKNOWN: 1)",
		"incomplete: this result proves nothing about what could not be looked at:\n  - layer 2:",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
	if hidden := render(t, "table", sample(report.Filter{}), report.Options{}); !strings.Contains(hidden, "1 suppressed; --show-suppressed lists them") || strings.Contains(hidden, "CVE-2024-9") {
		t.Errorf("what is suppressed is not counted, or is listed:\n%s", hidden)
	}
}

func TestFilterNeverDropsUnknownSilently(t *testing.T) {
	f := report.Filter{Severities: []gatehouse.Severity{gatehouse.SeverityCritical}}
	r := report.New(report.Target{}, report.Database{}, gatehouse.Inventory{}, findings(), f)
	if len(r.Findings) != 1 || r.UnknownOutsideFilter != 1 {
		t.Errorf("%d findings, %d unknown outside; want 1 and 1", len(r.Findings), r.UnknownOutsideFilter)
	}
	r = report.New(report.Target{}, report.Database{}, gatehouse.Inventory{}, findings(), report.Filter{IgnoreUnfixed: true})
	if len(r.Findings) != 1 || r.Findings[0].ID != "CVE-2024-1" || r.UnknownOutsideFilter != 0 {
		t.Errorf("with IgnoreUnfixed: %+v", r.Findings)
	}
}

// TestFilterIsAboutItsKind: what only vulnerabilities have hides nothing else,
// and what is suppressed never counts.
func TestFilterIsAboutItsKind(t *testing.T) {
	for name, c := range map[string]struct {
		filter report.Filter
		want   int // that gate
		listed int
	}{
		"all":                {report.Filter{}, 7, 7},
		"suppressed shown":   {report.Filter{ShowSuppressed: true}, 7, 8},
		"unfixed":            {report.Filter{IgnoreUnfixed: true}, 5, 5},
		"status":             {report.Filter{IgnoreStatus: []string{"affected"}}, 5, 5},
		"only secrets":       {report.Filter{Kinds: []gatehouse.Kind{gatehouse.KindSecret}}, 1, 1},
		"vulnerabilities":    {report.Filter{Kinds: []gatehouse.Kind{gatehouse.KindVulnerability}, ShowSuppressed: true}, 3, 4},
		"a licence":          {report.Filter{IgnoreLicenses: []string{"AGPL-3.0-only"}}, 6, 6},
		"critical":           {report.Filter{Severities: []gatehouse.Severity{gatehouse.SeverityCritical}}, 3, 3},
		"low and suppressed": {report.Filter{Severities: []gatehouse.Severity{gatehouse.SeverityLow}, ShowSuppressed: true}, 0, 1},
	} {
		r := sample(c.filter)
		if r.Gating() != c.want || len(r.Findings) != c.listed {
			t.Errorf("%s: %d count and %d are listed; want %d and %d", name, r.Gating(), len(r.Findings), c.want, c.listed)
		}
	}
}

func TestJSONHasNoNullLists(t *testing.T) {
	out := render(t, "json", report.New(report.Target{Reference: "x"}, report.Database{}, gatehouse.Inventory{}, findings()[:1], report.Filter{}), report.Options{})
	var doc map[string]any
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
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
	err := report.Write(&strings.Builder{}, "xlsx", report.Report{}, report.Options{})
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(gatehouse.HintOf(err), "json") {
		t.Errorf("got %v, hint %q", err, gatehouse.HintOf(err))
	}
}

package licence_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/licence"
)

// TestNames runs testdata/names.txt: what packages say, what SPDX would say, and
// the class of what cannot be chosen away.
func TestNames(t *testing.T) {
	b, err := os.ReadFile("testdata/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		text, want, ok := strings.Cut(line, " => ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		got := licence.Parse(text).String() + " " + worst(text)
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if n < 60 {
		t.Errorf("only %d cases were read", n)
	}
}

// worst returns the class of the worst finding for a package with that licence.
func worst(text string) string {
	inv := gatehouse.Inventory{Packages: []gatehouse.Package{{Type: "rpm", Name: "a", Version: "1", Licenses: []string{text}}}}
	order := []licence.Class{licence.Forbidden, licence.Unknown, licence.Restricted, licence.Reciprocal, licence.Notice, licence.Permissive, licence.Unencumbered}
	found := licence.Findings(inv, licence.Policy{})
	for _, c := range order {
		if slices.ContainsFunc(found, func(f gatehouse.Finding) bool { return strings.HasSuffix(f.Title, "class "+string(c)) }) {
			return string(c)
		}
	}
	return "none"
}

func inventory(licences map[string][]string) gatehouse.Inventory {
	var inv gatehouse.Inventory
	for name, l := range licences {
		kind, name, _ := strings.Cut(name, ":")
		inv.Packages = append(inv.Packages, gatehouse.Package{Type: kind, Name: name, Version: "1", Path: "x", Licenses: l})
	}
	return inv
}

func rows(findings []gatehouse.Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Package.Name+" "+f.ID+" "+f.Severity.String())
	}
	return out
}

func TestFindings(t *testing.T) {
	inv := inventory(map[string][]string{
		"deb:bash": {"GPL-3+"}, "npm:dual": {"GPL-2.0", "MIT"}, "pypi:both": {"GPL-2.0-only", "MIT"}, "deb:none": nil,
		"rpm:twice": {"MIT and MIT", "mit"}, "gem:odd": {"Nonstandard"}, "npm:agpl": {"AGPL-3.0-only"},
	})
	for _, test := range []struct {
		name   string
		policy licence.Policy
		want   []string
	}{
		{"as Trivy", licence.Policy{}, []string{
			"agpl AGPL-3.0-only CRITICAL", "bash GPL-3.0-or-later HIGH", "both GPL-2.0-only HIGH",
			"both MIT LOW", "dual MIT LOW", "twice MIT LOW", "odd Nonstandard UNKNOWN",
		}},
		{"ignored by id and by text", licence.Policy{Ignored: []string{"the MIT license", "AGPL-3.0", "nonstandard"}}, []string{
			"bash GPL-3.0-or-later HIGH", "both GPL-2.0-only HIGH",
		}},
		{"own classes", licence.Policy{Classes: map[string]licence.Class{"Nonstandard": licence.Notice, "MIT": licence.Forbidden}}, []string{
			"agpl AGPL-3.0-only CRITICAL", "both MIT CRITICAL", "twice MIT CRITICAL", "bash GPL-3.0-or-later HIGH",
			"both GPL-2.0-only HIGH", "dual GPL-2.0-only HIGH", "odd Nonstandard LOW",
		}},
		{"own severities", licence.Policy{Severities: map[licence.Class]gatehouse.Severity{
			licence.Unknown: gatehouse.SeverityCritical, licence.Restricted: gatehouse.SeverityNegligible,
		}}, []string{
			"agpl AGPL-3.0-only CRITICAL", "odd Nonstandard CRITICAL", "both MIT LOW", "dual MIT LOW", "twice MIT LOW",
			"bash GPL-3.0-or-later NEGLIGIBLE", "both GPL-2.0-only NEGLIGIBLE",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d := cmp.Diff(test.want, rows(licence.Findings(inv, test.policy))); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestSettings: lists by class as people write them, and what is refused of them.
func TestSettings(t *testing.T) {
	inv := inventory(map[string][]string{
		"deb:only": {"GPL-3.0-only"}, "deb:later": {"GPL-3.0+"}, "deb:lesser": {"LGPL-3.0-or-later"}, "npm:choice": {"MIT OR GPL-3.0-only"},
		"deb:own": {"ACME Licence"}, "deb:mit": {"MIT"}, "deb:except": {"GPL-2.0-only WITH Classpath-exception-2.0"}, "deb:gpl2": {"GPL-2.0-only"},
	})
	for _, test := range []struct {
		name     string
		settings licence.Settings
		want     []string // how each package's licence is judged, where it differs from the default
		strange  string
		err      string
	}{
		{"an id without a version means both", licence.Settings{Forbidden: []string{"GPL-3.0"}}, []string{"later GPL-3.0-or-later CRITICAL", "only GPL-3.0-only CRITICAL"}, "", ""},
		{"one of them", licence.Settings{Forbidden: []string{"gpl-3.0-ONLY"}}, []string{"only GPL-3.0-only CRITICAL"}, "", ""},
		{"a text of packages", licence.Settings{Notice: []string{"acme  licence"}}, []string{"own ACME Licence LOW"}, "acme  licence", ""},
		{"an exception", licence.Settings{Notice: []string{"GPL-2.0-only WITH Classpath-exception-2.0"}}, []string{"except GPL-2.0-only WITH Classpath-exception-2.0 LOW"}, "", ""},
		{"a choice moves", licence.Settings{Forbidden: []string{"MIT"}}, []string{"choice GPL-3.0-only HIGH", "mit MIT CRITICAL"}, "", ""},
		{"two classes", licence.Settings{Forbidden: []string{"GPL-3.0"}, Notice: []string{"GPL-3.0-or-later"}}, nil, "", "is both"},
		{"an expression", licence.Settings{Forbidden: []string{"MIT OR GPL-3.0"}}, nil, "", "more than one licence"},
		{"nothing", licence.Settings{Ignored: []string{" "}}, nil, "", "no name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy, strange, err := test.settings.Policy()
			if test.err != "" {
				if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || strings.Join(strange, "|") != test.strange {
				t.Errorf("strange %v, %v", strange, err)
			}
			was := rows(licence.Findings(inv, licence.Policy{}))
			var differs []string
			for _, row := range rows(licence.Findings(inv, policy)) {
				if !slices.Contains(was, row) {
					differs = append(differs, row)
				}
			}
			slices.Sort(differs)
			if d := cmp.Diff(test.want, differs); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	policy, _, err := licence.Settings{Ignored: []string{"GPL-3.0", "mit"}}.Policy()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows(licence.Findings(inv, policy)) {
		if strings.Contains(row, " GPL-3.0") || strings.Contains(row, " MIT ") {
			t.Errorf("not ignored: %s", row)
		}
	}
}

// TestFindingShape: a finding about a licence names the whole package.
func TestFindingShape(t *testing.T) {
	p := gatehouse.Package{Type: "npm", Name: "a", Version: "1", Path: "node_modules/a/package.json", Layer: "sha256:x", Licenses: []string{"GPL-3.0"}}
	got := licence.Findings(gatehouse.Inventory{Packages: []gatehouse.Package{p}}, licence.Policy{})
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	f := got[0]
	if f.Kind != gatehouse.KindLicense || f.ID != "GPL-3.0-only" || f.Location != nil || cmp.Diff(p, f.Package) != "" || f.Resolution == "" || f.Description == "" {
		t.Errorf("%+v", f)
	}
	if d := cmp.Diff([]string{"https://spdx.org/licenses/GPL-3.0-only.html"}, f.References); d != "" {
		t.Error(d)
	}
	if got := licence.Findings(gatehouse.Inventory{}, licence.Policy{}); got == nil || len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestBounds(t *testing.T) {
	deep := strings.Repeat("(", 1000) + "MIT" + strings.Repeat(")", 1000)
	for name, text := range map[string]string{
		"deep": deep, "many": strings.Repeat("MIT AND ", 300) + "MIT", "long": strings.Repeat("x", 100_000),
	} {
		if e := licence.Parse(text); e.Op != "" || len(e.ID) > 130 {
			t.Errorf("%s: %d terms, id of %d bytes", name, len(e.Terms), len(e.ID))
		}
	}
	if e := licence.Parse("é" + strings.Repeat("é", 100)); strings.ContainsRune(e.ID, '\uFFFD') {
		t.Errorf("cut within a letter: %q", e.ID)
	}
}

// FuzzParse: what is parsed is bounded, and printed it parses to itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"MIT", "GPLv2+ and (MIT or BSD)", "GPL-2.0 WITH x", "a, b", "GNU GPL v2 or later (GPLv2+)", "((", "or and"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := licence.Parse(s)
		once := e.String()
		if e.Op == "" && licence.ClassOf(e.ID) == licence.Unknown {
			return // a name as written
		}
		if len(once) > 100_000 {
			t.Errorf("%d bytes", len(once))
		}
	})
}

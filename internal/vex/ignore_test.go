package vex_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// findings are one of each kind.
func findings() []gatehouse.Finding {
	lodash := gatehouse.Package{Type: "npm", Name: "lodash", Version: "4.17.20", Path: "app/node_modules/lodash/package.json"}
	return []gatehouse.Finding{
		{ID: "CVE-2021-23337", Aliases: []string{"GHSA-35jh-r3h4-6jhm"}, Kind: gatehouse.KindVulnerability, Package: lodash},
		{ID: "CVE-2020-8203", Package: lodash}, // from before kinds
		{ID: "aws-access-key-id", Kind: gatehouse.KindSecret, Package: gatehouse.Package{Path: "srv/test/key.env"}},
		{ID: "GHM001", Kind: gatehouse.KindMisconfig, Location: &gatehouse.Location{Origin: "config"}},
		{ID: "GPL-3.0-only", Kind: gatehouse.KindLicense, Package: gatehouse.Package{Type: "npm", Name: "x", Version: "1"}},
		{ID: "Eicar-Test-Signature", Kind: gatehouse.KindMalware, Package: gatehouse.Package{Path: "tmp/eicar"}},
	}
}

func ignored(t *testing.T, name, text string) (ids []string, g vex.Ignore) {
	t.Helper()
	g, err := vex.ParseIgnore(name, []byte(text), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range g.Apply(findings(), gatehouse.Distro{}) {
		if s := f.Suppressed; s != nil {
			if s.By != gatehouse.SuppressedByIgnoreFile || s.Source != name {
				t.Errorf("%s: %+v", f.ID, s)
			}
			ids = append(ids, f.ID+": "+s.Reason)
		}
	}
	return ids, g
}

// TestTrivyIgnore reads Trivy's example and what else people write there.
func TestTrivyIgnore(t *testing.T) {
	ids, g := ignored(t, "dir/.trivyignore", "\ufeff# Accept the risk\nghsa-35jh-r3h4-6jhm\r\n\n"+
		"# Accept the risk until 2023-01-01\nCVE-2020-8203 exp:2023-01-01\n# lost\n\naws-access-key-id exp:2027-01-01 # a test key\nGHM001")
	want := []string{"CVE-2021-23337: Accept the risk", "aws-access-key-id: a test key", "GHM001: "}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	if len(g.Expired) != 1 || !strings.HasPrefix(g.Expired[0], "dir/.trivyignore:5: CVE-2020-8203 is not ignored any more") {
		t.Errorf("expired %q", g.Expired)
	}
}

func TestTrivyIgnoreYAML(t *testing.T) {
	text := `
vulnerabilities:
  - id: CVE-2021-23337
    paths: ["app/**/package.json", other]
    purls: [pkg:npm/lodash@4.17.20]
    statement: not reached
  - id: CVE-2020-8203
    purls: ["pkg:npm/lodash@4.17.19"]
  - id: GPL-3.0-only        # another kind
misconfigurations:
  - id: GHM001
    expired_at: 2023-01-01
secrets:
  - id: aws-access-key-id
    paths: ["srv/*/key.env"]
    expired_at: "2027-01-01T00:00:00Z"
licenses:
  - id: GPL-3.0-only
    statement: a tool, not linked
malware:
`
	want := []string{"CVE-2021-23337: not reached", "aws-access-key-id: ", "GPL-3.0-only: a tool, not linked"}
	for _, name := range []string{".trivyignore.yaml", "x.yml", "dir/.gatehouseignore"} {
		ids, g := ignored(t, name, text)
		if diff := cmp.Diff(want, ids); diff != "" {
			t.Errorf("%s: ignored (-want +got):\n%s", name, diff)
		}
		if len(g.Expired) != 1 || !strings.Contains(g.Expired[0], ":11: GHM001") {
			t.Errorf("%s: expired %q", name, g.Expired)
		}
	}
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		if ids, _ := ignored(t, ".gatehouseignore", text); len(ids) > 0 {
			t.Errorf("%q ignores %q", text, ids)
		}
	}
}

// TestIgnoreExpiry: a rule ends as its day begins.
func TestIgnoreExpiry(t *testing.T) {
	for date, expired := range map[string]bool{"2026-11-20": true, "2026-11-21": true, "2026-11-22": false} {
		g, err := vex.ParseIgnore(".trivyignore", []byte("CVE-1 exp:"+date), now)
		if err != nil || (len(g.Expired) == 1) != expired || (len(g.Rules) == 0) != expired {
			t.Errorf("%s: %+v, %v", date, g, err)
		}
	}
}

// TestIgnoreRefuses: what is not understood is refused with its line, since a
// misspelt limit would ignore more than was meant.
func TestIgnoreRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"CVE-1 expires:2027-01-01": "x:1: \"expires:2027-01-01\" is not understood",
		"CVE-1\nCVE-2 exp:soon":    "x:2: \"exp:soon\" is not a date",
		"exp:2027-01-01":           "x:1: \"exp:2027-01-01\" is not understood",
	} {
		if _, err := vex.ParseIgnore("x", []byte(text), now); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"vulnerability:\n- id: CVE-1":                      "x.yaml:1: \"vulnerability\" is not known",
		"vulnerabilities:\n- id: CVE-1\n  path: [a]":       "x.yaml:3: \"path\" is not known",
		"vulnerabilities:\n- CVE-1":                        "x.yaml:2: the entry is not a map",
		"vulnerabilities:\n- paths: [a]":                   "x.yaml:2: the entry has no id",
		"vulnerabilities:\n- id: CVE-1\n  expired_at: now": "x.yaml:3: expired_at",
		"vulnerabilities:\n- id: CVE-1\n  purls: [lodash]": "x.yaml:3: purls",
		"vulnerabilities:\n- id: CVE-1\n  paths: ['[']":    "x.yaml:3: paths",
		"vulnerabilities:\n- id: CVE-1\n  paths: {a: b}":   "x.yaml:3: paths",
		"vulnerabilities: CVE-1":                           "x.yaml:1: vulnerabilities is not a list",
		"CVE-1":                                            "x.yaml:1: the file is not a map",
		"- CVE-1":                                          "x.yaml:1: the file is not a map",
		"a: [":                                             "x.yaml is not YAML",
		"secrets: []\n---\nsecrets: []":                    "x.yaml holds more than one document",
	} {
		_, err := vex.ParseIgnore("x.yaml", []byte(text), now)
		var e *gatehouse.Error
		if !errors.As(err, &e) || e.Code != gatehouse.CodeInvalid || !strings.Contains(e.Message, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := vex.ParseIgnore("x", make([]byte, vex.IgnoreSizeMax+1), now); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
	if _, err := vex.ParseIgnore("x", []byte(strings.Repeat("CVE-1\n", 50_001)), now); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("too many: %v", err)
	}
}

func TestIgnorePaths(t *testing.T) {
	for glob, want := range map[string]bool{
		"srv/test/key.env": true, "/srv/test/key.env": true, "srv/*/key.env": true, "**/key.env": true, "**": true, "srv/**": true, "**/test/**": true,
		"srv/**/test/**/key.env": true, "*": false, "srv/*": false, "key.env": false, "srv/test": false, "**/x/**": false, "srv/test/key.en": false, "": false,
	} {
		g := vex.Ignore{Rules: []vex.IgnoreRule{{ID: "aws-access-key-id", Paths: []string{glob}}}}
		got := slices.ContainsFunc(g.Apply(findings(), gatehouse.Distro{}), func(f gatehouse.Finding) bool { return f.Suppressed != nil })
		if got != want {
			t.Errorf("%q: %v", glob, got)
		}
	}
}

// TestExceptions: each part of a scope limits, and one without any is none.
func TestExceptions(t *testing.T) {
	image, other := gatehouse.DigestOf([]byte("image")), gatehouse.DigestOf([]byte("other"))
	for name, c := range map[string]struct {
		e    vex.Exception
		want bool
	}{
		"nothing":              {vex.Exception{}, false},
		"project":              {vex.Exception{Project: "team"}, true},
		"part of a project":    {vex.Exception{Project: "tea"}, false},
		"another project":      {vex.Exception{Project: "app"}, false},
		"repository":           {vex.Exception{Repository: "team/app"}, true},
		"one above":            {vex.Exception{Repository: "team"}, false},
		"image":                {vex.Exception{Digest: image}, true},
		"another image":        {vex.Exception{Digest: other}, false},
		"purl":                 {vex.Exception{Package: "pkg:npm/lodash"}, true},
		"purl and version":     {vex.Exception{Package: "pkg:npm/lodash@4.17.20"}, true},
		"another version":      {vex.Exception{Package: "pkg:npm/lodash@4.17.21"}, false},
		"name":                 {vex.Exception{Package: "lodash"}, true},
		"another name":         {vex.Exception{Package: "lodas"}, false},
		"all of it":            {vex.Exception{Project: "team", Repository: "team/app", Digest: image, Package: "lodash"}, true},
		"all but one":          {vex.Exception{Project: "team", Repository: "team/app", Digest: other, Package: "lodash"}, false},
		"not expired":          {vex.Exception{Project: "team", Expires: now.Add(time.Second)}, true},
		"expired this instant": {vex.Exception{Project: "team", Expires: now}, false},
	} {
		c.e.ID, c.e.Finding, c.e.Reason, c.e.Author = "7", "ghsa-35JH-r3h4-6jhm", "accepted", "ann"
		given := findings()
		got := vex.ApplyExceptions(given, "team/app", vex.Subject{Digests: []gatehouse.Digest{image}}, []vex.Exception{c.e}, now)
		var suppressed []string
		for _, f := range got {
			if s := f.Suppressed; s != nil {
				suppressed = append(suppressed, f.ID)
				if s.By != gatehouse.SuppressedByException || s.Source != "7" || s.Author != "ann" || s.Reason != "accepted" || !s.Expires.Equal(c.e.Expires) {
					t.Errorf("%s: %+v", name, s)
				}
			}
		}
		if (len(suppressed) == 1 && suppressed[0] == "CVE-2021-23337") != c.want || len(suppressed) > 1 || given[0].Suppressed != nil {
			t.Errorf("%s: suppressed %q", name, suppressed)
		}
	}
	got := vex.ApplyExceptions(findings(), "team/app", vex.Subject{}, []vex.Exception{{Finding: "GHM001", Repository: "team/app"}, {Finding: "Eicar-Test-Signature", Project: "team"}}, now)
	if got[3].Suppressed == nil || got[5].Suppressed == nil || got[2].Suppressed != nil {
		t.Errorf("other kinds: %+v", got)
	}
}

// FuzzParseIgnore: whatever comes in, an answer comes out, and every rule names
// what it ignores.
func FuzzParseIgnore(f *testing.F) {
	f.Add("x", "CVE-1 exp:2027-01-01 # why\n")
	f.Add("x.yaml", "vulnerabilities:\n- id: CVE-1\n  paths: [a/**]\n  purls: [pkg:npm/a]\n  expired_at: 2027-01-01\n  statement: x\n")
	f.Fuzz(func(t *testing.T, name, text string) {
		g, err := vex.ParseIgnore(name, []byte(text), now)
		if err != nil {
			return
		}
		for _, r := range g.Rules {
			if strings.TrimSpace(r.ID) == "" {
				t.Errorf("a rule without an id: %+v", r)
			}
		}
		g.Apply(findings(), gatehouse.Distro{})
	})
}

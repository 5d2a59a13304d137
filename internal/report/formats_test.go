package report_test

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// node walks a JSON document by names and indexes.
type node struct {
	t *testing.T
	v any
}

func parse(t *testing.T, text string) node {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("something stands behind the document: %v", err)
	}
	return node{t, v}
}

func (n node) at(path ...any) node {
	n.t.Helper()
	v := n.v
	for i, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			if v, _ = m[p]; !ok || v == nil {
				n.t.Fatalf("there is no %v", path[:i+1])
			}
		case int:
			l, ok := v.([]any)
			if !ok || p >= len(l) {
				n.t.Fatalf("there is no %v", path[:i+1])
			}
			v = l[p]
		}
	}
	return node{n.t, v}
}

func (n node) list() (out []node) {
	n.t.Helper()
	l, ok := n.v.([]any)
	if !ok {
		n.t.Fatalf("%v is no list", n.v)
	}
	for _, v := range l {
		out = append(out, node{n.t, v})
	}
	return out
}

func (n node) text() string { s, _ := n.v.(string); return s }

// TestSARIF holds the log against what SARIF 2.1.0 requires and GitHub's code
// scanning reads (docs.github.com, "SARIF support for code scanning").
func TestSARIF(t *testing.T) {
	doc := parse(t, render(t, "sarif", sample(report.Filter{ShowSuppressed: true}), report.Options{}))
	if doc.at("version").text() != "2.1.0" || !strings.Contains(doc.at("$schema").text(), "sarif-schema-2.1.0") {
		t.Error("it does not say its version")
	}
	run := doc.at("runs", 0)
	rules := run.at("tool", "driver", "rules").list()
	results := run.at("results").list()
	if len(results) != 8 || len(rules) != 8 {
		t.Fatalf("%d results, %d rules; want 8 and 8", len(results), len(rules))
	}
	score := regexp.MustCompile(`^([0-9]|10)\.[0-9]$`)
	for _, r := range rules {
		for _, key := range []string{"id", "name"} {
			if r.at(key).text() == "" {
				t.Errorf("a rule has no %s", key)
			}
		}
		for _, key := range []string{"shortDescription", "fullDescription", "help"} {
			if s := r.at(key, "text").text(); s == "" || key != "help" && len([]rune(s)) > 1024 {
				t.Errorf("rule %s: %s has %d characters", r.at("id").text(), key, len(s))
			}
		}
		if s := r.at("properties", "security-severity").text(); !score.MatchString(s) {
			t.Errorf("rule %s: security-severity %q", r.at("id").text(), s)
		}
	}
	seen := map[string]bool{}
	for _, r := range results {
		id := r.at("ruleId").text()
		rule := rules[int(r.at("ruleIndex").v.(float64))]
		if rule.at("id").text() != id {
			t.Errorf("%s points at the rule %s", id, rule.at("id").text())
		}
		if !slices.Contains([]string{"error", "warning", "note"}, r.at("level").text()) || r.at("message", "text").text() == "" {
			t.Errorf("%s: level %v", id, r.at("level").v)
		}
		place := r.at("locations", 0, "physicalLocation")
		uri, err := url.Parse(place.at("artifactLocation", "uri").text())
		if err != nil || uri.IsAbs() || uri.Host != "" || strings.HasPrefix(uri.Path, "/") || uri.Path == "" {
			t.Errorf("%s: %q is no relative reference", id, uri)
		}
		if run.at("originalUriBaseIds", place.at("artifactLocation", "uriBaseId").text()); place.at("region", "startLine").v.(float64) < 1 {
			t.Errorf("%s: it starts before the first line", id)
		}
		print := r.at("partialFingerprints", "primaryLocationLineHash").text()
		if seen[print] {
			t.Errorf("%s: two results have the fingerprint %s", id, print)
		}
		seen[print] = true
	}
	openssl := rules[slices.IndexFunc(rules, func(r node) bool { return r.at("id").text() == "CVE-2024-1" })]
	if openssl.at("properties", "security-severity").text() != "9.8" || openssl.at("name").text() != "OsPackageVulnerability" ||
		openssl.at("helpUri").text() != "https://www.cve.org/CVERecord?id=CVE-2024-1" {
		t.Errorf("the rule of CVE-2024-1: %v", openssl.v)
	}
	if md := openssl.at("help", "markdown").text(); strings.Contains(md, "<script") || strings.Contains(md, "a | table") {
		t.Errorf("foreign text is structure in %s", md)
	}
	secret := results[slices.IndexFunc(results, func(r node) bool { return r.at("ruleId").text() == "aws-access-key-id" })]
	if place := secret.at("locations", 0, "physicalLocation"); place.at("artifactLocation", "uri").text() != "app/a%20b%3C&%3E.env" || place.at("region", "startLine").v.(float64) != 3 {
		t.Errorf("the place of the secret: %v", place.v)
	}
	vex := results[slices.IndexFunc(results, func(r node) bool { return r.at("ruleId").text() == "CVE-2024-9" })]
	if s := vex.at("suppressions", 0); s.at("kind").text() != "external" || s.at("status").text() != "accepted" || !strings.Contains(s.at("justification").text(), "code not present") {
		t.Errorf("suppressed by %v", s.v)
	}
	if run.at("invocations", 0, "executionSuccessful").v != false || !strings.Contains(run.at("invocations", 0, "toolExecutionNotifications", 0, "message", "text").text(), "incomplete: layer 2") {
		t.Error("that it is incomplete is not told")
	}
}

// TestFingerprintsOutliveABuild: the next build has other layers and versions.
func TestFingerprintsOutliveABuild(t *testing.T) {
	prints := func(r report.Report) (out []string) {
		for _, res := range parse(t, render(t, "sarif", r, report.Options{})).at("runs", 0, "results").list() {
			out = append(out, res.at("partialFingerprints", "gatehouse/v1").text())
		}
		slices.Sort(out)
		return out
	}
	before := sample(report.Filter{})
	after := sample(report.Filter{})
	after.Target.Reference, after.Target.Digest = "registry.example:5000/team/app:v2", baseLayer
	for i := range after.Findings {
		after.Findings[i].Package.Layer = "sha256:other"
		if after.Findings[i].Package.Version != "" {
			after.Findings[i].Package.Version += ".1"
		}
	}
	if !slices.Equal(prints(before), prints(after)) {
		t.Error("the fingerprints changed with the build")
	}
}

type junitXML struct {
	XMLName  xml.Name `xml:"testsuites"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Suites   []struct {
		Name  string `xml:"name,attr"`
		Tests int    `xml:"tests,attr"`
		Cases []struct {
			Class   string    `xml:"classname,attr"`
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func TestJUnit(t *testing.T) {
	var doc junitXML
	if err := xml.Unmarshal([]byte(render(t, "junit", sample(report.Filter{ShowSuppressed: true}), report.Options{})), &doc); err != nil {
		t.Fatal(err)
	}
	failures, errors, skipped, tests := 0, 0, 0, 0
	names := []string{}
	for _, s := range doc.Suites {
		if len(s.Cases) != s.Tests {
			t.Errorf("%s says %d tests and has %d", s.Name, s.Tests, len(s.Cases))
		}
		for _, c := range s.Cases {
			tests++
			names = append(names, c.Class+" "+c.Name)
			switch {
			case c.Failure != nil:
				failures++
			case c.Error != nil:
				errors++
			case c.Skipped != nil:
				skipped++
			}
		}
	}
	if doc.Tests != tests || doc.Failures != failures || doc.Errors != errors {
		t.Errorf("the sums %d, %d, %d; counted %d, %d, %d", doc.Tests, doc.Failures, doc.Errors, tests, failures, errors)
	}
	if failures != 7 || errors != 1 || skipped != 1 {
		t.Errorf("%d failures, %d errors, %d skipped; want 7, 1, 1", failures, errors, skipped)
	}
	if !slices.Contains(names, "openssl 3.0.8 [CRITICAL] CVE-2024-1") {
		t.Errorf("the tests are called %q", names)
	}
	clean := report.New(report.Target{Reference: "a:1"}, report.Database{}, gatehouse.Inventory{Complete: true}, nil, report.Filter{})
	if err := xml.Unmarshal([]byte(render(t, "junit", clean, report.Options{})), &doc); err != nil || doc.Failures+doc.Errors != 0 || doc.Tests != 1 {
		t.Errorf("of a clean image: %v, %d tests", err, doc.Tests)
	}
}

func TestGitHubSnapshot(t *testing.T) {
	env := map[string]string{"GITHUB_SHA": "abc", "GITHUB_REF": "refs/heads/main", "GITHUB_WORKFLOW": "build", "GITHUB_JOB": "scan", "GITHUB_RUN_ID": "7"}
	doc := parse(t, render(t, "github", sample(report.Filter{}), report.Options{Getenv: func(k string) string { return env[k] }}))
	for path, want := range map[string]string{"sha": "abc", "ref": "refs/heads/main", "scanned": "2026-01-02T03:04:05Z"} {
		if got := doc.at(path).text(); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if doc.at("version").v != 0.0 || doc.at("job", "correlator").text() != "build_scan" || doc.at("job", "id").text() != "7" || doc.at("detector", "version").text() != "1.2.3" {
		t.Errorf("job %v, detector %v", doc.at("job").v, doc.at("detector").v)
	}
	for manifest, pkg := range map[string]string{
		"registry.example:5000/team/app:v1 (debian 12)": "openssl@3.0.8", "Node.js": "lodash@4.17.4", "usr/bin/app": "golang.org/x/net@v0.1.0",
	} {
		p := doc.at("manifests", manifest, "resolved", pkg)
		if !strings.HasPrefix(p.at("package_url").text(), "pkg:") || p.at("relationship").text() != "direct" {
			t.Errorf("%s: %v", pkg, p.v)
		}
	}
	if doc.at("metadata", "gatehouse:complete").v != false {
		t.Error("that it is incomplete is not told")
	}
}

// TestOwnTemplates: each gives a document of its kind, and foreign text stays
// text.
func TestOwnTemplates(t *testing.T) {
	for _, name := range report.Templates() {
		text, err := report.LoadTemplate("@" + name)
		if err != nil {
			t.Fatal(err)
		}
		out := render(t, "template", sample(report.Filter{}), report.Options{Template: text})
		if !strings.Contains(out, "CVE-2024-1") {
			t.Errorf("%s does not speak of CVE-2024-1:\n%s", name, out)
		}
		empty := render(t, "template", report.New(report.Target{Reference: "a"}, report.Database{}, gatehouse.Inventory{Complete: true}, nil, report.Filter{}), report.Options{Template: text})
		switch {
		case name == "html":
			if strings.Contains(out, "<script") || strings.Contains(out, "href=\"javascript") || strings.Contains(out, "<tokens>") {
				t.Errorf("foreign text is markup:\n%s", out)
			}
			d := xml.NewDecoder(strings.NewReader(strings.NewReplacer("<!DOCTYPE html>", "", `<meta charset="utf-8">`, "", "<br>", "").Replace(stripMeta(out))))
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("its elements do not fit into each other: %v", err)
				}
			}
		default:
			parse(t, out)
			parse(t, empty)
		}
	}
}

func stripMeta(s string) string { return regexp.MustCompile(`<meta [^>]*>`).ReplaceAllString(s, "") }

// TestGitLab holds the report against what GitLab's schema of container scanning
// (security-report-schemas 15) requires.
func TestGitLab(t *testing.T) {
	text, err := report.LoadTemplate("@contrib/gitlab.tpl") // as Trivy's users type it
	if err != nil {
		t.Fatal(err)
	}
	doc := parse(t, render(t, "template", sample(report.Filter{}), report.Options{Template: text}))
	if !regexp.MustCompile(`^15\.`).MatchString(doc.at("version").text()) || doc.at("scan", "type").text() != "container_scanning" {
		t.Error("version or type")
	}
	for _, part := range []string{"analyzer", "scanner"} {
		for _, key := range []string{"id", "name", "version"} {
			if doc.at("scan", part, key).text() == "" {
				t.Errorf("scan.%s.%s is empty", part, key)
			}
		}
		doc.at("scan", part, "vendor", "name")
	}
	for _, key := range []string{"start_time", "end_time"} {
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`).MatchString(doc.at("scan", key).text()) {
			t.Errorf("%s is %q", key, doc.at("scan", key).text())
		}
	}
	if doc.at("scan", "status").text() != "failure" || doc.at("scan", "messages", 0, "level").text() != "fatal" {
		t.Error("an incomplete scan is called a success")
	}
	ids := map[string]bool{}
	image := regexp.MustCompile(`^[^:]+(:\d+[^:]*)?:[^:]+(:\d+[^:]*)?$`)
	list := doc.at("vulnerabilities").list()
	if len(list) != 3 {
		t.Fatalf("%d vulnerabilities, want 3", len(list))
	}
	for _, v := range list {
		if ids[v.at("id").text()] {
			t.Error("two have one id")
		}
		ids[v.at("id").text()] = true
		if !slices.Contains([]string{"Info", "Unknown", "Low", "Medium", "High", "Critical"}, v.at("severity").text()) {
			t.Errorf("severity %q", v.at("severity").text())
		}
		if !image.MatchString(v.at("location", "image").text()) || v.at("location", "operating_system").text() != "debian 12" {
			t.Errorf("location %v", v.at("location").v)
		}
		v.at("location", "dependency", "package", "name")
		if len(v.at("identifiers").list()) < 1 || v.at("identifiers", 0, "type").text() == "" || v.at("identifiers", 0, "name").text() != v.at("identifiers", 0, "value").text() {
			t.Errorf("identifiers %v", v.at("identifiers").v)
		}
		for _, l := range v.at("links").list() {
			if !strings.HasPrefix(l.at("url").text(), "https://") {
				t.Errorf("link %q", l.at("url").text())
			}
		}
	}
}

// TestTrivysTemplatesWork: the fields and functions that the templates in the
// contrib folder of Trivy, and those that people derived from them, use.
func TestTrivysTemplatesWork(t *testing.T) {
	for text, want := range map[string]string{
		`{{ range . }}{{ .Target }}|{{ .Class }}|{{ .Type }}|{{ len .Vulnerabilities }};{{ end }}`:                                                                                          "registry.example:5000/team/app:v1 (debian 12)|os-pkgs|debian|2;Node.js|lang-pkgs|node-pkg|1;usr/bin/app|lang-pkgs|gobinary|0;",
		`{{ range . }}{{ range .Vulnerabilities }}{{ escapeXML .Vulnerability.Severity }} {{ .Severity }} {{ .PkgName }}-{{ .InstalledVersion }} {{ .VulnerabilityID }};{{ end }}{{ end }}`: "CRITICAL CRITICAL openssl-3.0.8 CVE-2024-1;HIGH HIGH zlib1g-1:1.2.13 CVE-2024-2;UNKNOWN UNKNOWN lodash-4.17.4 CVE-2024-3;",
		`{{ range . }}{{ $t := .Target | regexFind "[^\\s]+" }}{{ range .Vulnerabilities }}{{ $t }} {{ .Title | printf "%q" }},{{ abbrev 8 "0123456789" }} {{ end }}{{ end }}`:              `registry.example:5000/team/app:v1 "bad",01234...`,
		`{{ range . }}{{ if .Secrets }}{{ range .Secrets }}{{ .RuleID }} {{ .StartLine }} {{ .Match }}{{ end }}{{ end }}{{ end }}`:                                                          `aws-access-key-id 3 KEY="AKIA****"`,
		`{{ range . }}{{ range .Misconfigurations }}{{ .ID }} {{ .Type }} {{ .Status }} {{ .Resolution }};{{ end }}{{ end }}`:                                                               "MAL-2024-1 malware FAIL ;GHM001 dockerfile FAIL add USER;",
		`{{ range . }}{{ range .Licenses }}{{ .Name }} {{ .PkgName }} {{ .Severity }}{{ end }}{{ end }}`:                                                                                    "AGPL-3.0-only left MEDIUM",
		`{{ range . }}{{ range .Vulnerabilities }}{{ with index .CVSS "nvd" }}{{ .V3Score }}{{ end }}{{ .Layer.DiffID | trunc 9 }} {{ end }}{{ end }}`:                                      "9.8sha256:11 0sha256:11 0sha256:22",
		`{{ $n := 0 }}{{ range . }}{{ $n = add $n (len .Vulnerabilities) }}{{ end }}{{ $n }} {{ now | date "2006-01-02" }} {{ appVersion }} {{ env "HOME" | default "none" }}`:              "3 2026-01-02 1.2.3 none",
		`{{ list "a" "b" | join "," | upper }} {{ toJson (dict "k" 1) }} {{ "x" | quote }} {{ ternary "y" "n" true }} {{ endWithPeriod "a" }}{{ endWithPeriod "b." }}`:                      `A,B {"k":1} "x" y a.b.`,
	} {
		got := render(t, "template", sample(report.Filter{}), report.Options{Template: text})
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s\n gives %q\n want %q", text, got, want)
		}
	}
}

func TestBadTemplates(t *testing.T) {
	for name, text := range map[string]string{"syntax": "{{ range }", "function": "{{ getHostByName \"x\" }}", "runs": "{{ readFile \"/etc/passwd\" }}"} {
		if err := report.CheckTemplate(text); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, value := range []string{"", "@/nowhere/none.tpl"} {
		if _, err := report.LoadTemplate(value); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(gatehouse.HintOf(err), "@gitlab") {
			t.Errorf("%q: %v", value, err)
		}
	}
	err := report.Write(io.Discard, "template", sample(report.Filter{}), report.Options{Template: "{{ range . }}{{ .Nothing }}{{ end }}"})
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("an unknown field: %v", err)
	}
}

package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// evil is what an image calls its packages and files to take over the terminal, or
// the log of the CI system, that a report is shown in: escape sequences with seven
// and with eight bits, a line read backwards, commands of GitHub and Azure.
const evil = "\x1b[2J\x1b]0;owned\a\u009b31m\u202eevil\u2028::error::x\r\n::error::y ##vso[task.setvariable variable=PATH]z ##[group]\x7f\U000e0001\xff"

// hostile is the report of an image all of whose texts are evil.
func hostile() report.Report {
	inv := gatehouse.Inventory{
		Distro:     gatehouse.Distro{ID: "debian" + evil, VersionID: "12" + evil},
		Incomplete: []string{"::error::" + evil},
		Layers:     []gatehouse.LayerOrigin{{DiffID: baseLayer, CreatedBy: "RUN " + evil}},
		Packages:   []gatehouse.Package{{Type: "deb", Name: "::set-env::" + evil, Version: evil, Path: evil, Layer: baseLayer}},
	}
	cause := &gatehouse.Suppression{By: evil, Reason: evil, Source: evil, Author: evil}
	f := []gatehouse.Finding{
		{ID: evil, Kind: gatehouse.KindVulnerability, Package: inv.Packages[0], Title: evil, FixedVersion: evil, Resolution: evil, Aliases: []string{evil}},
		{ID: "CVE-2", Kind: gatehouse.KindVulnerability, Package: gatehouse.Package{Type: "npm", Name: evil, Version: evil, Path: evil}, Suppressed: cause},
		{ID: evil, Kind: gatehouse.KindSecret, Package: gatehouse.Package{Path: evil, Layer: baseLayer},
			Location: &gatehouse.Location{Origin: "file", StartLine: 1, EndLine: 1, Excerpt: evil}, Title: evil},
		{ID: evil, Kind: gatehouse.KindMisconfig, Location: &gatehouse.Location{Origin: "config", Name: evil}, Title: evil, Description: evil, Resolution: evil},
	}
	target := report.Target{Reference: "::notice::" + evil, Digest: baseLayer, Platform: evil, Platforms: []string{evil, "::error::"}}
	return report.New(target, report.Database{Source: evil, OldestFeed: evil}, inv, f, report.Filter{ShowSuppressed: true}).WithPackages(inv)
}

// TestNothingObeysAReport: no format hands on what a terminal or a CI system would
// obey. HTML is for browsers, which do not.
func TestNothingObeysAReport(t *testing.T) {
	for _, format := range []string{"table", "json", "sarif", "github", "junit", "cosign-vuln"} {
		t.Run(format, func(t *testing.T) {
			out := render(t, format, hostile(), report.Options{})
			for _, r := range out {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Fatalf("%q is in the output", r)
				}
			}
			for l := range strings.Lines(out) {
				if format == "table" && (strings.HasPrefix(strings.TrimSpace(l), "::") || strings.Contains(l, "##vso[") || strings.Contains(l, "##[")) {
					t.Errorf("a CI system obeys %q", l)
				}
			}
			switch format {
			case "table":
			case "junit":
				if err := xml.Unmarshal([]byte(out), new(struct{})); err != nil {
					t.Errorf("it is not XML: %v", err)
				}
			default:
				if !json.Valid([]byte(out)) {
					t.Error("it is not JSON")
				}
			}
		})
	}
}

// TestJSONMeansTheSame: what is escaped is what was there.
func TestJSONMeansTheSame(t *testing.T) {
	for _, text := range []string{"", "plain ü 漢 ✓", "a\u009bb\u202ec\u2028d\x7fe\U000e0001f", "\u0085", "😀\u200d"} {
		var b bytes.Buffer
		if err := json.NewEncoder(report.JSONWriter(&b)).Encode(text); err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != text {
			t.Errorf("%q became %q by %s (%v)", text, back, b.Bytes(), err)
		}
	}
	var b bytes.Buffer
	if err := json.NewEncoder(report.JSONWriter(&b)).Encode("plain ü 漢 ✓"); err != nil || b.String() != "\"plain ü 漢 ✓\"\n" {
		t.Errorf("%q, %v: what prints stays", b.String(), err)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü 漢":          "plain ü 漢",
		"a\nb":               "a\ufffdb",
		"::error::x":         "\ufffd:error::x",
		"  ::error::x":       "  \ufffd:error::x",
		"a::b":               "a::b",
		"x ##vso[a]y":        "x \ufffd#vso[a]y",
		"##[group]":          "\ufffd#[group]",
		"## heading":         "## heading",
		"\x1b[31mred\x1b[0m": "\ufffd[31mred\ufffd[0m",
	} {
		if got := report.Printable(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := report.PrintableLines("a\n::b\x1b\nc"); got != "a\n\ufffd:b\ufffd\nc" {
		t.Errorf("%q", got)
	}
}

// TestCosignVuln: the predicate has the fields that cosign's reader knows and no
// others (cosign specs/COSIGN_VULN_ATTESTATION_SPEC.md), and what is incomplete
// stays so.
func TestCosignVuln(t *testing.T) {
	env := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "7", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b",
	}
	started := time.Date(2026, 1, 2, 3, 4, 1, 500, time.UTC)
	out := render(t, "cosign-vuln", sample(report.Filter{}), report.Options{Getenv: func(k string) string { return env[k] }, Started: started})
	var p struct {
		Invocation struct {
			Parameters any    `json:"parameters"`
			URI        string `json:"uri"`
			EventID    string `json:"event_id"`
			BuilderID  string `json:"builder.id"`
		} `json:"invocation"`
		Scanner struct {
			URI     string `json:"uri"`
			Version string `json:"version"`
			DB      struct {
				URI     string `json:"uri"`
				Version string `json:"version"`
			} `json:"db"`
			Result map[string]any `json:"result"`
		} `json:"scanner"`
		Metadata struct {
			Started  time.Time `json:"scanStartedOn"`
			Finished time.Time `json:"scanFinishedOn"`
		} `json:"metadata"`
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Invocation.URI != "https://github.com/a/b/actions/runs/7" || p.Invocation.EventID != "7" || p.Invocation.BuilderID != "github actions" {
		t.Errorf("the invocation is %+v", p.Invocation)
	}
	if p.Scanner.Version != "1.2.3" || p.Scanner.DB.URI != "osv" || p.Scanner.Result["complete"] != false {
		t.Errorf("the scanner is %+v, complete %v", p.Scanner.DB, p.Scanner.Result["complete"])
	}
	if !p.Metadata.Started.Equal(started.Truncate(time.Second)) || p.Metadata.Finished.Before(p.Metadata.Started) {
		t.Errorf("it took from %s to %s", p.Metadata.Started, p.Metadata.Finished)
	}
}

// TestIndexIsTold: who scans an index learns that it was one image of several.
func TestIndexIsTold(t *testing.T) {
	r := nothing()
	r.Target.Platform, r.Target.Platforms = "linux/amd64", []string{"linux/amd64", "linux/arm64", "linux/arm/v7"}
	if out := render(t, "table", r, report.Options{}); !strings.Contains(out, "this is the image for linux/amd64; the index has others, for linux/arm64, linux/arm/v7") {
		t.Errorf("the table says %s", out)
	}
	r.Target.Platforms = []string{"linux/amd64"}
	if out := render(t, "table", r, report.Options{}); strings.Contains(out, "index") {
		t.Errorf("an index of one image has others: %s", out)
	}
}

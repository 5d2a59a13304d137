package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// policyFormats are the forms of what policy test says.
var policyFormats = []string{"text", "json", "junit", "sarif"}

// trial is one case of a report: an object that was decided about, or a case of a
// suite.
type trial struct {
	file     string
	line     int
	name     string
	failures []trialReason
	warnings []trialReason
	skipped  bool
}

// trialReason is why a case failed.
type trialReason struct{ code, text string }

// trialsOf turns decisions into cases: what is denied has failed.
func trialsOf(results []policyResult) []trial {
	var all []trial
	for _, r := range results {
		t := trial{file: r.File, line: r.Line, name: r.object.String()}
		for _, why := range r.Decision.Reasons {
			reason := trialReason{why.Code, reasonText(why)}
			switch why.Verdict {
			case gatehouse.Deny:
				t.failures = append(t.failures, reason)
			case gatehouse.Warn:
				t.warnings = append(t.warnings, reason)
			}
		}
		if r.Decision.Verdict == gatehouse.Deny && len(t.failures) == 0 {
			t.failures = []trialReason{{"no-judgement", "denied, and no reason was given"}}
		}
		all = append(all, t)
	}
	return all
}

// reasonText says which policy, which image, why, and what would help.
func reasonText(r gatehouse.Reason) string {
	var b strings.Builder
	if r.Policy != "" {
		b.WriteString(r.Policy + ": ")
	}
	if r.Image != "" {
		fmt.Fprintf(&b, "image %s (%s): ", r.Image, r.Field)
	}
	b.WriteString(r.Message)
	if r.Hint != "" {
		b.WriteString("; hint: " + r.Hint)
	}
	return b.String()
}

// writeTrials writes cases as junit or sarif.
func writeTrials(w io.Writer, format string, trials []trial) error {
	if format == "junit" {
		return writeTrialsJUnit(w, trials)
	}
	return writeTrialsSARIF(w, trials)
}

// The elements of JUnit's format that CI systems read.
type (
	trialSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []trialSuite `xml:"testsuite"`
	}
	trialSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []trialCase `xml:"testcase"`
	}
	trialCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Line    int           `xml:"line,attr,omitempty"`
		Failure *trialFailure `xml:"failure,omitempty"`
		Skipped *struct{}     `xml:"skipped,omitempty"`
		Output  string        `xml:"system-out,omitempty"`
	}
	trialFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

func writeTrialsJUnit(w io.Writer, trials []trial) error {
	doc := trialSuites{Name: "gatehouse policy test"}
	for _, t := range trials {
		i := slices.IndexFunc(doc.Suites, func(s trialSuite) bool { return s.Name == t.file })
		if i < 0 {
			i = len(doc.Suites)
			doc.Suites = append(doc.Suites, trialSuite{Name: t.file})
		}
		s := &doc.Suites[i]
		c := trialCase{Class: t.file, Name: t.name, File: t.file, Line: t.line}
		s.Tests++
		doc.Tests++
		switch {
		case t.skipped:
			s.Skipped++
			c.Skipped = &struct{}{}
		case len(t.failures) > 0:
			s.Failures++
			doc.Failures++
			c.Failure = &trialFailure{Message: t.failures[0].text, Type: t.failures[0].code, Text: lines(t.failures)}
		}
		c.Output = lines(t.warnings)
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func lines(reasons []trialReason) string {
	all := make([]string, len(reasons))
	for i, r := range reasons {
		all[i] = r.text + " [" + r.code + "]"
	}
	return strings.Join(all, "\n")
}

// writeTrialsSARIF makes each denial an error and each warning one, at the object's
// place in its file.
func writeTrialsSARIF(w io.Writer, trials []trial) error {
	type object = map[string]any
	results, rules := []object{}, []object{}
	index := map[string]int{}
	add := func(t trial, level string, r trialReason) {
		i, known := index[r.code]
		if !known {
			i = len(rules)
			index[r.code] = i
			rules = append(rules, object{"id": r.code, "shortDescription": object{"text": r.code}})
		}
		results = append(results, object{
			"ruleId": r.code, "ruleIndex": i, "level": level,
			"message": object{"text": t.name + ": " + r.text},
			"locations": []object{{"physicalLocation": object{
				"artifactLocation": object{"uri": fileURI(t.file)}, "region": object{"startLine": max(t.line, 1)},
			}}},
		})
	}
	for _, t := range trials {
		for _, r := range t.failures {
			add(t, "error", r)
		}
		for _, r := range t.warnings {
			add(t, "warning", r)
		}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(object{
		"$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", "version": "2.1.0",
		"runs": []object{{
			"tool":    object{"driver": object{"name": "Gatehouse", "informationUri": "https://github.com/gatehouse-dev/gatehouse", "rules": rules}},
			"results": results,
		}},
	})
}

// fileURI is the path as SARIF wants it.
func fileURI(path string) string {
	if path == "-" {
		return "stdin"
	}
	u := url.URL{Path: filepath.ToSlash(path)}
	return u.String()
}

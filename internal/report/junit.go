package report

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// The elements of the JUnit format that CI systems read. It has no standard;
// these are the ones that Jenkins' and GitLab's readers share.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property,omitempty"`
		Cases      []junitCase     `xml:"testcase"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitProblem `xml:"failure,omitempty"`
		Error   *junitProblem `xml:"error,omitempty"`
		Skipped *junitProblem `xml:"skipped,omitempty"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit makes each finding a failed test, each suppressed one a skipped
// test, and what could not be looked at an error: a report without findings
// that is not complete must not look like a pass.
func writeJUnit(w io.Writer, r Report, _ Options) error {
	doc := junitSuites{Name: "gatehouse"}
	byKind := map[gatehouse.Kind][]Finding{}
	for _, f := range r.Findings {
		kind := cmp.Or(f.Kind, gatehouse.KindVulnerability)
		byKind[kind] = append(byKind[kind], f)
	}
	for _, g := range groupsOf(r, byKind[gatehouse.KindVulnerability]) {
		doc.add(newJUnitSuite(g.name, "vulnerability", g.kind, g.list))
	}
	for _, k := range kindWords[1:] {
		if list := byKind[k.kind]; len(list) > 0 {
			doc.add(newJUnitSuite(targetName(r), string(k.kind), r.OS.Family, list))
		}
	}
	if len(doc.Suites) == 0 || !r.Complete {
		doc.add(junitWhole(r))
	}
	b := bytes.NewBufferString(xml.Header)
	enc := xml.NewEncoder(b)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	b.WriteString("\n")
	_, err := xmlWriter(w).Write(b.Bytes())
	return err
}

func (d *junitSuites) add(s junitSuite) {
	s.Time, s.Tests = "0", len(s.Cases)
	for _, c := range s.Cases {
		switch {
		case c.Failure != nil:
			s.Failures++
		case c.Error != nil:
			s.Errors++
		case c.Skipped != nil:
			s.Skipped++
		}
	}
	d.Tests += s.Tests
	d.Failures += s.Failures
	d.Errors += s.Errors
	d.Suites = append(d.Suites, s)
}

func newJUnitSuite(name, kind, kindOfTarget string, list []Finding) junitSuite {
	s := junitSuite{Name: name, Properties: []junitProperty{{"kind", kind}, {"type", kindOfTarget}}}
	for _, f := range list {
		c := junitCase{Class: Place(f), Name: fmt.Sprintf("[%s] %s", f.Severity, f.ID), Time: "0"}
		if f.Suppressed != nil {
			c.Skipped = &junitProblem{Message: strings.TrimSpace(f.Suppressed.By + ": " + Cause(*f.Suppressed))}
		} else {
			c.Failure = &junitProblem{Message: cmp.Or(line(f.Title), f.ID), Type: string(f.Kind), Text: junitText(f)}
		}
		s.Cases = append(s.Cases, c)
	}
	return s
}

func junitText(f Finding) string {
	parts := []string{f.Description}
	if f.FixedVersion != "" {
		parts = append(parts, "Fixed in "+f.FixedVersion+".")
	}
	if f.Resolution != "" {
		parts = append(parts, f.Resolution)
	}
	if u := PrimaryURL(f.ID, f.References); u != "" {
		parts = append(parts, u)
	}
	return strings.TrimSpace(strings.Join(parts, "\n"))
}

// junitWhole is the test that the target was looked at whole.
func junitWhole(r Report) junitSuite {
	c := junitCase{Class: r.Target.Reference, Name: "everything was looked at", Time: "0"}
	if !r.Complete {
		c.Error = &junitProblem{Message: "incomplete", Type: "incomplete", Text: strings.Join(r.IncompleteReasons, "\n")}
	}
	return junitSuite{Name: targetName(r), Cases: []junitCase{c}}
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// explanation is why a flaw is or is not listed for a target.
type explanation struct {
	ID      string   `json:"id"`
	Names   []string `json:"names"` // all that it is called
	Target  string   `json:"target"`
	Answer  string   `json:"answer"` // listed, suppressed, filtered, not affected, not installed, unknown
	Why     []string `json:"why"`
	Records []string `json:"records"` // that speak of it, whatever is installed
	// Compared is what was looked at, package by package.
	Compared []match.Comparison `json:"compared"`
	Complete bool               `json:"complete"`
	Gaps     []string           `json:"incompleteReasons"`
}

// explain says why --explain ID is or is not listed.
func (r *scanRun) explain(ctx context.Context) error {
	account, err := r.matcher.Explain(ctx, r.inventory, r.opts.explain)
	if err != nil {
		return err
	}
	e := explanation{
		ID: r.opts.explain, Target: r.target.Reference, Complete: r.inventory.Complete, Gaps: append([]string{}, r.inventory.Incomplete...),
		Names: account.Names, Records: account.Records, Why: []string{}, Compared: account.Compared,
	}
	e.answer(r, account.Packages)
	return r.writeExplanation(e)
}

// answer draws the conclusion from what was found and what was compared.
func (e *explanation) answer(r *scanRun, elsewhere []string) {
	if e.found(r) {
		return
	}
	affected := slices.ContainsFunc(e.Compared, func(c match.Comparison) bool { return c.Affected })
	switch {
	case affected:
		e.Answer = "not affected"
		e.Why = append(e.Why, "a record that stands nearer to the package (the distribution's own advisory) overrules the one that says affected")
	case len(e.Compared) > 0:
		e.Answer = "not affected"
		e.Why = append(e.Why, "no installed version is affected, see what was compared")
	case len(e.Records) == 0:
		e.Answer = "unknown"
		e.Why = append(e.Why, "no loaded advisory is called so; gatehouse db status lists the feeds")
	default:
		e.Answer = "not installed"
		e.Why = append(e.Why, "the records speak of packages that are not installed: "+strings.Join(elsewhere, ", "))
	}
	if !e.Complete {
		e.Why = append(e.Why, "this holds for what could be looked at only: "+strings.Join(e.Gaps, "; "))
	}
}

// found tells of findings with one of the names.
func (e *explanation) found(r *scanRun) bool {
	answers := map[string]int{}
	for _, f := range r.findings {
		if !slices.Contains(e.Names, f.ID) && !slices.ContainsFunc(f.Aliases, func(a string) bool { return slices.Contains(e.Names, a) }) {
			continue
		}
		row := report.Finding{ID: f.ID, Location: f.Location, Package: report.Package{Name: f.Package.Name, Version: f.Package.Version, Path: f.Package.Path}}
		at := report.Place(row)
		switch why := r.opts.filter.Excludes(f); {
		case f.Suppressed != nil:
			answers["suppressed"]++
			e.Why = append(e.Why, fmt.Sprintf("%s in %s is suppressed by %s: %s", f.ID, at, f.Suppressed.By, report.Cause(*f.Suppressed)))
		case why != "":
			answers["filtered"]++
			e.Why = append(e.Why, fmt.Sprintf("%s in %s is found, but %s", f.ID, at, why))
		default:
			answers["listed"]++
			e.Why = append(e.Why, fmt.Sprintf("%s in %s: %s, rated by %s; %s", f.ID, at, f.Severity,
				cmp.Or(f.SeveritySource, "nobody"), cmp.Or(prefixed("fixed in ", f.FixedVersion), strings.ReplaceAll(f.Status, "_", " "))))
		}
	}
	for _, a := range []string{"listed", "filtered", "suppressed"} {
		if answers[a] > 0 {
			e.Answer = a
			return true
		}
	}
	return false
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func (r *scanRun) writeExplanation(e explanation) error {
	w, done, err := r.app.outputTo(r.opts.output)
	if err != nil {
		return err
	}
	if r.opts.format == "json" {
		enc := json.NewEncoder(report.JSONWriter(w))
		enc.SetIndent("", "  ")
		return notWritten(errors.Join(enc.Encode(e), done()))
	}
	_, err = io.WriteString(w, e.text())
	return notWritten(errors.Join(err, done()))
}

// text is the explanation for people.
func (e explanation) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s: %s\n", report.Printable(e.ID), report.Printable(e.Target), e.Answer)
	if len(e.Names) > 1 {
		fmt.Fprintf(&b, "also called %s\n", report.Printable(strings.Join(slices.DeleteFunc(slices.Clone(e.Names), func(n string) bool { return n == e.ID }), ", ")))
	}
	for _, why := range e.Why {
		fmt.Fprintf(&b, "  - %s\n", report.Printable(why))
	}
	for i, c := range e.Compared {
		if i == 0 {
			b.WriteString("\ncompared:\n")
		}
		feed := ""
		if c.Feed != "" {
			feed = " (" + c.Feed + ")"
		}
		fmt.Fprintf(&b, "  %s %s, %s\n", report.Printable(c.Package.Name), report.Printable(c.Package.Version), report.Printable(c.Package.Path))
		fmt.Fprintf(&b, "    %s%s, %s %s: %s\n", report.Printable(c.Record), report.Printable(feed), report.Printable(c.Space), report.Printable(c.Name),
			report.Printable(strings.Join(c.Ranges, "; ")))
		fmt.Fprintf(&b, "    %s: %s\n", report.Printable(c.Version), report.Printable(c.Rule))
	}
	return b.String()
}

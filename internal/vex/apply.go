package vex

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Apply returns findings with what statements say about them. Of several
// statements about the same vulnerability of the same package the latest
// counts, of equal times the later in the list: not_affected and fixed set
// Suppressed, the others set Assessed. One whose time is not known is taken for old
// if it suppresses, and for new if it does not. What was suppressed before stays as it
// was. findings is not changed.
func Apply(findings []gatehouse.Finding, s Subject, statements []Statement) []gatehouse.Finding {
	if len(statements) == 0 {
		return findings
	}
	byID := map[string][]int{}
	for i, st := range statements {
		for _, id := range st.IDs {
			key := strings.ToUpper(strings.TrimSpace(id))
			if list := byID[key]; len(list) == 0 || list[len(list)-1] != i {
				byID[key] = append(list, i)
			}
		}
	}
	all := &view{Subject: s}
	out, changed := findings, false
	for i, f := range findings {
		if f.Kind != gatehouse.KindVulnerability && f.Kind != "" || f.Suppressed != nil {
			continue
		}
		last := latest(f, all, statements, byID)
		if last == nil {
			continue
		}
		if !changed {
			out, changed = slices.Clone(findings), true
		}
		said := &gatehouse.Suppression{
			By: gatehouse.SuppressedByVEX, Status: last.Status, Reason: last.reason(), Source: last.Source, Author: last.Author,
		}
		if last.suppresses() {
			out[i].Suppressed = said
		} else {
			out[i].Assessed = said
		}
	}
	return out
}

// latest finds the statement that counts for f, nil where none speaks of it.
func latest(f gatehouse.Finding, s *view, statements []Statement, byID map[string][]int) *Statement {
	var candidates []int
	for _, id := range append([]string{f.ID}, f.Aliases...) {
		for _, i := range byID[strings.ToUpper(id)] {
			if !statements[i].otherCVE(f.ID) {
				candidates = append(candidates, i)
			}
		}
	}
	if len(candidates) == 0 {
		return nil
	}
	slices.SortFunc(candidates, func(a, b int) int {
		return cmp.Or(statements[b].when().Compare(statements[a].when()), cmp.Compare(b, a))
	})
	t := newTarget(f.Package, s.Distro)
	for _, i := range slices.Compact(candidates) {
		if slices.ContainsFunc(statements[i].Products, func(p Product) bool { return p.speaksOf(t, s) }) {
			return &statements[i]
		}
	}
	return nil
}

func (s *Statement) suppresses() bool { return s.Status == NotAffected || s.Status == Fixed }

// unknownTime is that of statements without one that let a finding count.
var unknownTime = time.Unix(1<<40, 0)

func (s *Statement) when() time.Time {
	if s.At.IsZero() && !s.suppresses() {
		return unknownTime
	}
	return s.At
}

var cve = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)

// otherCVE reports whether the finding is of a CVE and the statement of others. A
// CVE is one flaw, while other names that both may bear (RHSA-2024:1234, DSA-5000-1)
// stand for whatever was repaired together.
func (s *Statement) otherCVE(id string) bool {
	if id = strings.ToUpper(id); !cve.MatchString(id) {
		return false
	}
	others := false
	for _, name := range s.IDs {
		if name = strings.ToUpper(strings.TrimSpace(name)); name == id {
			return false
		}
		others = others || cve.MatchString(name)
	}
	return others
}

// reason is why, in one line.
func (s Statement) reason() string {
	text := strings.Join(strings.Fields(s.Impact), " ")
	if s.Justification != "" && text != "" {
		return s.Justification + ": " + text
	}
	return s.Justification + text
}

package vex

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Apply returns findings with what statements say about them. Of several
// statements about the same vulnerability of the same package the latest
// counts, of equal times the later in the list: not_affected and fixed set
// Suppressed, the others set Assessed. What was suppressed before stays as it
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
		if last.Status == NotAffected || last.Status == Fixed {
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
		candidates = append(candidates, byID[strings.ToUpper(id)]...)
	}
	if len(candidates) == 0 {
		return nil
	}
	slices.SortFunc(candidates, func(a, b int) int {
		return cmp.Or(statements[b].At.Compare(statements[a].At), cmp.Compare(b, a))
	})
	t := newTarget(f.Package, s.Distro)
	for _, i := range slices.Compact(candidates) {
		if slices.ContainsFunc(statements[i].Products, func(p Product) bool { return p.speaksOf(t, s) }) {
			return &statements[i]
		}
	}
	return nil
}

// reason is why, in one line.
func (s Statement) reason() string {
	text := strings.Join(strings.Fields(s.Impact), " ")
	if s.Justification != "" && text != "" {
		return s.Justification + ": " + text
	}
	return s.Justification + text
}

package rule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// Codes of rejected documents that are not worth a word: that there is none.
const (
	noCandidate = "no-candidate"
	tooMany     = "too-many"
)

// withDocuments returns the findings of an image together with those that signed
// SBOMs add, with what signed VEX documents say of all of them. notes tell what
// was applied and what was ignored; they allow and deny nothing. gaps are what
// SBOMs name and nobody could judge.
func (p *Policy) withDocuments(f gatehouse.ImageFacts) (findings []gatehouse.Finding, notes []gatehouse.Reason, gaps []string) {
	findings = f.Findings
	for _, a := range p.sbom {
		need := p.sbomNeed(a)
		for _, added := range f.Added {
			if added.Need != need {
				continue
			}
			before := len(findings)
			findings = merge(findings, added.Findings)
			notes = append(notes, gatehouse.Reason{
				Verdict: gatehouse.Allow, Code: decide.CodeSBOMApplied, Evidence: []gatehouse.Digest{added.Artifact},
				Message: fmt.Sprintf("the SBOM of authority %s counts; packages: %d, findings that are not ours: %d", a.Name, added.Packages, len(findings)-before),
			})
			if len(added.Incomplete) > 0 {
				gaps = append(gaps, fmt.Sprintf("the SBOM of authority %s names what cannot be judged: %s", a.Name, strings.Join(added.Incomplete, "; ")))
			}
		}
		// Whoever may push could hide an SBOM behind many others.
		if slices.ContainsFunc(f.Rejected, func(r gatehouse.Rejected) bool { return r.Need == need && r.Code == tooMany }) {
			gaps = append(gaps, fmt.Sprintf("so many documents hang on the image that not all were looked at for SBOMs of authority %s", a.Name))
		}
		notes = append(notes, ignored(f, need, decide.CodeSBOMIgnored, "SBOM")...)
	}
	var statements []vex.Statement
	for _, a := range p.vex {
		need := p.vexNeed(a)
		for _, e := range f.Evidence {
			if e.Need != need || e.Subject == "" || e.Subject != f.Image.Digest {
				continue
			}
			doc, err := vex.Parse(e.Payload, string(e.Artifact))
			if err != nil {
				notes = append(notes, note(decide.CodeVEXIgnored, e.Artifact, "the VEX document of authority %s is ignored: %s", a.Name, err))
				continue
			}
			for _, w := range doc.Warnings {
				notes = append(notes, note(decide.CodeVEXIgnored, e.Artifact, "the VEX document of authority %s is ignored in part: %s", a.Name, w))
			}
			for i := range doc.Statements {
				doc.Statements[i].Author = a.Name // who signed it, not who says to have written it
			}
			statements = append(statements, doc.Statements...)
		}
		notes = append(notes, ignored(f, need, decide.CodeVEXIgnored, "VEX document")...)
	}
	findings = vex.Apply(findings, subject(f), statements)
	return findings, append(notes, applied(findings)...), gaps
}

func subject(f gatehouse.ImageFacts) vex.Subject {
	s := vex.Subject{Ref: f.Image, Digests: []gatehouse.Digest{f.Image.Digest}}
	if f.Inventory != nil {
		s.Distro, s.Packages = f.Inventory.Distro, f.Inventory.Packages
	}
	return s
}

// merge adds findings that are not there yet: the same flaw of the same version,
// wherever it lies.
func merge(have, more []gatehouse.Finding) []gatehouse.Finding {
	type place struct{ id, typ, name, version string }
	at := func(f gatehouse.Finding) place { return place{f.ID, f.Package.Type, f.Package.Name, f.Package.Version} }
	seen := map[place]bool{}
	for _, f := range have {
		seen[at(f)] = true
	}
	out := have[:len(have):len(have)]
	for _, f := range more {
		if !seen[at(f)] {
			seen[at(f)] = true
			out = append(out, f)
		}
	}
	return out
}

// applied says, once per document, what it took out of the count.
func applied(findings []gatehouse.Finding) []gatehouse.Reason {
	ids := map[gatehouse.Digest][]string{}
	author := map[gatehouse.Digest]string{}
	for _, f := range findings {
		s := f.Suppressed
		if s == nil || s.By != gatehouse.SuppressedByVEX {
			continue
		}
		d := gatehouse.Digest(s.Source)
		if !slices.Contains(ids[d], f.ID) {
			ids[d] = append(ids[d], f.ID)
		}
		author[d] = s.Author
	}
	var out []gatehouse.Reason
	for d, list := range ids {
		slices.Sort(list)
		names := strings.Join(list[:min(len(list), namedMax)], ", ")
		if len(list) > namedMax {
			names += fmt.Sprintf(" and %d more", len(list)-namedMax)
		}
		out = append(out, note(decide.CodeVEXApplied, d, "by the VEX document of authority %s these do not count: %s", author[d], names))
	}
	slices.SortFunc(out, func(a, b gatehouse.Reason) int { return strings.Compare(a.Message, b.Message) })
	return out
}

// ignored names the documents that do not count, and why.
func ignored(f gatehouse.ImageFacts, need, code, what string) []gatehouse.Reason {
	var out []gatehouse.Reason
	for _, r := range f.Rejected {
		if r.Need != need || r.Code == noCandidate || len(out) >= namedMax {
			continue
		}
		out = append(out, note(code, r.Artifact, "%s ignored: %s: %s", what, r.Code, r.Message))
	}
	return out
}

func note(code string, artifact gatehouse.Digest, format string, args ...any) gatehouse.Reason {
	r := gatehouse.Reason{Verdict: gatehouse.Allow, Code: code, Message: fmt.Sprintf(format, args...)}
	if artifact != "" {
		r.Evidence = []gatehouse.Digest{artifact}
	}
	return r
}

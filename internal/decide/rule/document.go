package rule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// noCandidate is the code of a rejected document that is not worth a word: there
// is none.
const noCandidate = "no-candidate"

// unseen reports whether documents hang on the image that were not looked at: there
// is too much, the registry failed, or one that the authority has signed is too
// large. Whoever may push can bring the first about, and what they hide is what
// would deny: an SBOM that adds findings, a VEX document that takes an older one
// back.
func unseen(f gatehouse.ImageFacts, need string) bool {
	return slices.ContainsFunc(f.Rejected, func(r gatehouse.Rejected) bool {
		return r.Need == need && (r.Code == "too-many" || r.Code == "unreadable" || r.Code == "too-large" && r.Format == "signed-artifact")
	})
}

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
		if unseen(f, need) {
			gaps = append(gaps, fmt.Sprintf("so much hangs on the image that not all was looked at for SBOMs of authority %s", a.Name))
		}
		notes = append(notes, ignored(f, need, decide.CodeSBOMIgnored, "SBOM")...)
	}
	statements, more := p.statements(f)
	findings = vex.Apply(findings, subject(f), statements)
	return findings, append(append(notes, more...), applied(findings)...), gaps
}

// statements are those of the VEX documents that count: all of what hangs on the
// image, or none, since the latest of them decides.
func (p *Policy) statements(f gatehouse.ImageFacts) (statements []vex.Statement, notes []gatehouse.Reason) {
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
	for _, a := range p.vex {
		if unseen(f, p.vexNeed(a)) && len(statements) > 0 {
			return nil, append(notes, note(decide.CodeVEXIgnored, "",
				"no VEX document counts: so much hangs on the image that not all was looked at, and a later one of authority %s may say otherwise", a.Name))
		}
	}
	return statements, notes
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

// Package licence says which licences the packages of an image are under and
// what kind of obligations these bring: an inventory and a policy go in,
// findings come out. It reads no text of licences, only what packages say of
// themselves, in SPDX expressions and in the many words that came before them.
//
//	licence.go     classes, policy, findings
//	settings.go    policies as people write them
//	expression.go  SPDX expressions and what resembles them
//	name.go        names as people write them → SPDX ids
//	table.go       the ids with their classes
//
// It is pure and no legal advice: classes are Google's, as in licenseclassifier
// and Trivy.
package licence

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Class is a kind of obligations.
type Class string

const (
	Forbidden    Class = "forbidden"    // not to be used at all: AGPL, non-commercial
	Restricted   Class = "restricted"   // what is linked with it has to be published: GPL, LGPL
	Reciprocal   Class = "reciprocal"   // changes to it have to be published: MPL, EPL
	Notice       Class = "notice"       // has to be named: MIT, BSD, Apache
	Permissive   Class = "permissive"   // not even that
	Unencumbered Class = "unencumbered" // given to everybody: CC0, Unlicense
	Unknown      Class = "unknown"      // no licence that is known here
)

// classes in the order of what they ask for. An unknown licence is worse than
// any that may be used.
var classes = []Class{Unencumbered, Permissive, Notice, Reciprocal, Restricted, Unknown, Forbidden}

func (c Class) rank() int {
	for i, other := range classes {
		if c == other {
			return i
		}
	}
	return len(classes)
}

// severities as Trivy has them.
var severities = map[Class]gatehouse.Severity{
	Forbidden: gatehouse.SeverityCritical, Restricted: gatehouse.SeverityHigh, Reciprocal: gatehouse.SeverityMedium,
	Notice: gatehouse.SeverityLow, Permissive: gatehouse.SeverityLow, Unencumbered: gatehouse.SeverityLow,
	Unknown: gatehouse.SeverityUnknown,
}

var meanings = map[Class]string{
	Forbidden:    "It forbids uses that are common, or demands that even users over a network get the source code.",
	Restricted:   "Whoever passes the image on has to offer the source code, in some cases also that of what is linked with it.",
	Reciprocal:   "Whoever changes its files has to publish the changed files when passing the image on.",
	Notice:       "Whoever passes the image on has to pass on its copyright notice.",
	Permissive:   "It asks for nothing that an image does not do anyway.",
	Unencumbered: "It asks for nothing.",
	Unknown:      "What it asks for is not known.",
}

// Policy says how licences are judged. The zero Policy judges as Trivy does.
type Policy struct {
	// Classes overrules the class of a licence, by SPDX id or by the text that
	// packages have, in any case.
	Classes map[string]Class
	// Severities overrules the severity of a class.
	Severities map[Class]gatehouse.Severity
	// Ignored are licences that give no finding, named as in Classes.
	Ignored []string
}

// FindingsMax bounds the findings of one image.
const FindingsMax = 100_000

// Findings returns one finding for each package and licence that it cannot be
// used without, in the order of reports. Of alternatives (MIT OR GPL-2.0-only)
// that which asks for the least counts. A package that tells no licence gives
// none. More than FindingsMax are cut off.
func Findings(inv gatehouse.Inventory, policy Policy) []gatehouse.Finding {
	j := newJudge(policy)
	findings := []gatehouse.Finding{}
	type key struct{ kind, name, version, path, id string }
	seen := map[key]bool{}
	for _, p := range inv.Packages {
		for _, term := range j.needed(expressionOf(p)) {
			k := key{p.Type, p.Name, p.Version, p.Path, term.String()}
			if seen[k] || j.ignored[strings.ToLower(term.ID)] || j.ignored[strings.ToLower(term.String())] {
				continue
			}
			seen[k] = true
			if len(findings) >= FindingsMax {
				gatehouse.SortFindings(findings)
				return findings
			}
			findings = append(findings, j.finding(p, term))
		}
	}
	gatehouse.SortFindings(findings)
	return findings
}

// expressionOf puts what a package says together. Lists of npm, Composer and
// RubyGems are to choose from; elsewhere all of a list holds.
func expressionOf(p gatehouse.Package) Expression {
	const licencesMax = 64
	op := And
	switch p.Type {
	case "npm", "composer", "gem":
		op = Or
	}
	e := Expression{Op: op}
	for i, text := range p.Licenses {
		if i >= licencesMax {
			break
		}
		if term := Parse(text); term.Op != "" || term.ID != "" {
			e.Terms = append(e.Terms, term)
		}
	}
	return e
}

// judge is a policy made ready.
type judge struct {
	classes    map[string]Class
	severities map[Class]gatehouse.Severity
	ignored    map[string]bool
}

func newJudge(p Policy) judge {
	j := judge{classes: map[string]Class{}, severities: p.Severities, ignored: map[string]bool{}}
	for name, c := range p.Classes {
		for _, key := range keys(name) {
			j.classes[key] = c
		}
	}
	for _, name := range p.Ignored {
		for _, key := range keys(name) {
			j.ignored[key] = true
		}
	}
	return j
}

// class of one licence.
func (j judge) class(term Expression) Class {
	for _, name := range []string{term.String(), term.ID} {
		if c, ok := j.classes[strings.ToLower(name)]; ok {
			return c
		}
	}
	return ClassOf(term.ID)
}

// needed returns the licences that cannot be chosen away.
func (j judge) needed(e Expression) []Expression {
	switch e.Op {
	case "":
		if e.ID == "" {
			return nil
		}
		return []Expression{e}
	case Or:
		var best []Expression
		least := -1
		for _, t := range e.Terms {
			terms := j.needed(t)
			worst := 0
			for _, n := range terms {
				worst = max(worst, j.class(n).rank())
			}
			if least < 0 || worst < least {
				best, least = terms, worst
			}
		}
		return best
	}
	var all []Expression
	for _, t := range e.Terms {
		all = append(all, j.needed(t)...)
	}
	return all
}

func (j judge) finding(p gatehouse.Package, term Expression) gatehouse.Finding {
	class := j.class(term)
	severity, ok := j.severities[class]
	if !ok {
		severity = severities[class]
	}
	id := term.String()
	return gatehouse.Finding{
		ID: id, Aliases: []string{}, Kind: gatehouse.KindLicense, Package: p, Severity: severity,
		SeveritySource: "gatehouse", CVSS: []gatehouse.CVSS{}, References: references(term.ID),
		Title:       fmt.Sprintf("%s: licence of class %s", id, class),
		Description: fmt.Sprintf("%s %s says that it is under %q. %s", p.Name, p.Version, strings.Join(p.Licenses, ", "), meanings[class]),
		Resolution:  resolution(class),
	}
}

func resolution(c Class) string {
	switch c {
	case Forbidden, Restricted, Reciprocal:
		return "Use another package, or do what the licence asks for and make an exception that says so."
	case Unknown:
		return "Find out which licence it is; if it is acceptable, name it in the policy."
	}
	return ""
}

func references(id string) []string {
	if _, known := table[strings.ToLower(base(id))]; known && !strings.HasPrefix(id, "LicenseRef-") {
		return []string{"https://spdx.org/licenses/" + id + ".html"}
	}
	return []string{}
}

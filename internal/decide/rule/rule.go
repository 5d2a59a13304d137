// Package rule reads and evaluates ImageRule, our own kind of policy: what the
// scan of an image must show. A manifest goes in, a decide.ImagePolicy or the
// problems of the manifest come out. An image that has not been scanned whole
// proves nothing and is denied unless the rule says otherwise.
package rule

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// Policy is one ImageRule.
type Policy struct {
	name        string
	mode        decide.Mode
	globs       []glob.Glob
	requireScan bool
	limited     bool // worst holds
	worst       gatehouse.Severity
	unknown     gatehouse.Severity // what an unknown severity counts as
	fixableOnly bool
	ignore      map[string]bool // ids in upper case
}

var _ decide.ImagePolicy = (*Policy)(nil)

// Name returns metadata.name.
func (p *Policy) Name() string { return p.name }

// Mode returns what a failure does.
func (p *Policy) Mode() decide.Mode { return p.mode }

// Picks lists the images whose reference, as written, a glob of the rule matches.
func (p *Policy) Picks(req gatehouse.Request) []int {
	var picks []int
	for i, f := range req.Images {
		if glob.AnyMatch(p.globs, f.Written) {
			picks = append(picks, i)
		}
	}
	return picks
}

// Needs asks for the findings of each image that the rule picks.
func (p *Policy) Needs(req gatehouse.Request) []gatehouse.Need {
	var needs []gatehouse.Need
	for _, i := range p.Picks(req) {
		needs = append(needs, gatehouse.Need{Name: p.name + "/findings", Image: i, Kind: gatehouse.NeedFindings})
	}
	return needs
}

// Judge passes images that were scanned whole and have no finding worse than
// the rule allows.
func (p *Policy) Judge(_ context.Context, req gatehouse.Request) decide.Judgement {
	j := decide.Judgement{Outcome: decide.NotApplicable}
	for _, i := range p.Picks(req) {
		f := req.Images[i]
		reasons := p.image(req, f)
		failed := false
		for _, r := range reasons {
			r.Image, r.Field = f.Written, f.Field
			failed = failed || r.Verdict == gatehouse.Deny
			j.Reasons = append(j.Reasons, r)
		}
		switch {
		case failed:
			j.Outcome = decide.Failed
		case j.Outcome == decide.NotApplicable:
			j.Outcome = decide.Passed
			fallthrough
		default:
			j.Passed = append(j.Passed, i)
		}
	}
	return j
}

func (p *Policy) image(req gatehouse.Request, f gatehouse.ImageFacts) []gatehouse.Reason {
	var reasons []gatehouse.Reason
	if why := unscanned(req, f); why != "" {
		r := gatehouse.Reason{Verdict: gatehouse.Deny, Code: decide.CodeUnscanned, Message: why}
		r.Hint = "push the image to this registry and wait for its scan, or update the advisories (gatehouse db status)"
		if !p.requireScan {
			r.Verdict = gatehouse.Warn
		}
		reasons = append(reasons, r)
	}
	bad, lesser := p.tooBad(f.Findings)
	if len(bad) > 0 {
		reasons = append(reasons, p.exceeded(bad))
	}
	if len(reasons) == 0 {
		message := "scanned whole"
		if p.limited {
			message = fmt.Sprintf("scanned whole, no vulnerability above %s%s, %d below or ignored", p.worst, p.onlyFixable(), lesser)
		}
		reasons = append(reasons, gatehouse.Reason{Verdict: gatehouse.Allow, Code: decide.CodeScanClean, Message: message})
	}
	return reasons
}

func (p *Policy) onlyFixable() string {
	if p.fixableOnly {
		return " that has a fix"
	}
	return ""
}

// unscanned says why the findings of an image prove nothing, "" if they do.
func unscanned(req gatehouse.Request, f gatehouse.ImageFacts) string {
	switch {
	case f.Inventory == nil:
		return strings.Join(append([]string{"the image has not been scanned"}, f.Incomplete...), ": ")
	case !f.Complete || !f.Inventory.Complete:
		why := strings.Join(append(slices.Clone(f.Incomplete), f.Inventory.Incomplete...), "; ")
		if why == "" {
			why = "no reason was given"
		}
		return "the image has not been scanned whole: " + why
	case req.FeedAt.IsZero():
		return "the image has not been compared with any advisories"
	}
	return ""
}

// tooBad returns the findings that exceed the rule, worst first, and how many
// vulnerabilities do not.
func (p *Policy) tooBad(findings []gatehouse.Finding) (bad []gatehouse.Finding, lesser int) {
	if !p.limited {
		return nil, 0
	}
	for _, f := range findings {
		// A finding without a kind is from before kinds: it is a vulnerability.
		if f.Kind != gatehouse.KindVulnerability && f.Kind != "" {
			continue
		}
		if p.severity(f) <= p.worst || p.ignored(f) || (p.fixableOnly && !f.Fixable()) {
			lesser++
			continue
		}
		bad = append(bad, f)
	}
	slices.SortStableFunc(bad, func(a, b gatehouse.Finding) int {
		return cmp.Or(cmp.Compare(p.severity(b), p.severity(a)), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Package.Name, b.Package.Name))
	})
	return bad, lesser
}

func (p *Policy) severity(f gatehouse.Finding) gatehouse.Severity {
	if f.Severity == gatehouse.SeverityUnknown {
		return p.unknown
	}
	return f.Severity
}

func (p *Policy) ignored(f gatehouse.Finding) bool {
	return p.ignore[strings.ToUpper(f.ID)] || slices.ContainsFunc(f.Aliases, func(id string) bool {
		return p.ignore[strings.ToUpper(id)]
	})
}

// namedMax bounds the findings that one reason names.
const namedMax = 5

func (p *Policy) exceeded(bad []gatehouse.Finding) gatehouse.Reason {
	var named, updates []string
	for _, f := range bad {
		if len(named) == namedMax {
			named = append(named, fmt.Sprintf("and %d more", len(bad)-namedMax))
			break
		}
		s := fmt.Sprintf("%s (%s) in %s %s", f.ID, f.Severity, f.Package.Name, f.Package.Version)
		if f.Fixable() {
			s += ", fixed in " + f.FixedVersion
			if up := f.Package.Name + " to " + f.FixedVersion; !slices.Contains(updates, up) {
				updates = append(updates, up)
			}
		}
		named = append(named, s)
	}
	noun := "vulnerabilities exceed"
	if len(bad) == 1 {
		noun = "vulnerability exceeds"
	}
	r := gatehouse.Reason{
		Verdict: gatehouse.Deny, Code: decide.CodeSeverityExceeded,
		Message: fmt.Sprintf("%d %s the maximum severity %s: %s", len(bad), noun, p.worst, strings.Join(named, "; ")),
		Hint:    "no fix is known: use another base image, or ignore the id in the rule",
	}
	if len(updates) > 0 {
		r.Hint = "update " + strings.Join(updates, ", ") + " and build the image again"
	}
	return r
}

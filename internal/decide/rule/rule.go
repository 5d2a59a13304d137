// Package rule reads and evaluates ImageRule, our own kind of policy: what the
// scan of an image must show, who must have signed it, what must have been attested,
// and how it must have been built. A manifest goes in, a decide.ImagePolicy or the
// problems of the manifest come out. An image that has not been scanned whole
// proves nothing and is denied unless the rule says otherwise.
//
// A rule may say whose VEX documents and SBOMs count. Evidence of them exists
// only after a signature of one of these authorities has been verified; all other
// documents are named as ignored and change nothing.
package rule

import (
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
	limits      []limit // one per kind that the rule speaks of
	vex, sbom   []gatehouse.Authority

	signatures   *signatures // nil: none are asked for
	attestations []attestation
	provenance   *provenanceRule // nil: none is asked for
	supply       *supplyChain    // nil: none is asked for
	sbomRequired bool
	// scans: the rule judges what is in the image, not only what was signed.
	scans bool
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

// Needs asks for the findings of each image that the rule picks, if it judges any,
// and for the signatures, attestations and documents of the authorities that it names.
func (p *Policy) Needs(req gatehouse.Request) []gatehouse.Need {
	var needs []gatehouse.Need
	for _, i := range p.Picks(req) {
		if p.scans {
			needs = append(needs, gatehouse.Need{Name: p.name + "/findings", Image: i, Kind: gatehouse.NeedFindings})
		}
		for _, a := range p.vex {
			needs = append(needs, gatehouse.Need{Name: p.vexNeed(a), Image: i, Kind: gatehouse.NeedVEX, Authority: a})
		}
		for _, a := range p.sbom {
			needs = append(needs, gatehouse.Need{Name: p.sbomNeed(a), Image: i, Kind: gatehouse.NeedSBOM, Authority: a})
		}
		needs = append(needs, p.signedNeeds(i)...)
	}
	return needs
}

func (p *Policy) vexNeed(a gatehouse.Authority) string { return decide.NeedName(p.name, "vex", a.Name) }
func (p *Policy) sbomNeed(a gatehouse.Authority) string {
	return decide.NeedName(p.name, "sbom", a.Name)
}

// Judge passes images that were scanned whole and have no finding worse than
// the rule allows, and that are signed and attested as it asks.
func (p *Policy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	j := decide.Judgement{Outcome: decide.NotApplicable}
	for _, i := range p.Picks(req) {
		f := req.Images[i]
		var reasons []gatehouse.Reason
		if p.scans {
			reasons = p.image(req, f)
		}
		reasons = append(reasons, p.signed(ctx, f, req.Now)...)
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
	gap := func(why, hint string) {
		r := gatehouse.Reason{Verdict: gatehouse.Deny, Code: decide.CodeUnscanned, Message: why, Hint: hint}
		if !p.requireScan {
			r.Verdict = gatehouse.Warn
		}
		reasons = append(reasons, r)
	}
	if why := unscanned(req, f); why != "" {
		gap(why, "push the image to this registry and wait for its scan, or update the advisories (gatehouse db status)")
	}
	for _, why := range p.partial(f) {
		gap(why, "the server's settings and feeds say what is looked for (gatehouse db status); images that were indexed before need a new look")
	}
	findings, notes, gaps := p.withDocuments(f)
	for _, why := range gaps {
		gap(why, "repair the SBOM, delete what else hangs on the image, or leave sbom out of the rule")
	}
	lesser, suppressed := 0, 0
	for _, l := range p.limits {
		bad, below, accepted := l.judge(findings)
		reasons = append(reasons, bad...)
		lesser, suppressed = lesser+below, suppressed+accepted
	}
	if len(reasons) == 0 {
		reasons = append(reasons, p.clean(lesser, suppressed))
	}
	return append(reasons, notes...)
}

func (p *Policy) clean(lesser, suppressed int) gatehouse.Reason {
	message := "scanned whole"
	for _, l := range p.limits {
		if l.limited {
			message += fmt.Sprintf(", no %s above %s%s", l.noun(), l.worst, l.onlyFixable())
		} else {
			message += ", no " + l.noun() + " that is denied"
		}
	}
	if len(p.limits) > 0 {
		message += fmt.Sprintf(", %d below or ignored", lesser)
	}
	if suppressed > 0 {
		message += fmt.Sprintf(", %d suppressed", suppressed)
	}
	return gatehouse.Reason{Verdict: gatehouse.Allow, Code: decide.CodeScanClean, Message: message}
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

// partial says which of the findings that the rule limits were not looked for, or
// cannot be known to be exploited.
func (p *Policy) partial(f gatehouse.ImageFacts) (gaps []string) {
	for _, l := range p.limits {
		if why := f.Partial[l.kind]; len(why) > 0 && f.Complete {
			gaps = append(gaps, "the image has not been looked through for "+l.plural()+": "+strings.Join(why, "; "))
		}
		if l.exploited && !slices.Contains(f.Overlays, gatehouse.OverlayKEV) {
			gaps = append(gaps, "it is not known which vulnerabilities are exploited: no KEV catalog is loaded")
		}
		if l.epss != nil && !slices.Contains(f.Overlays, gatehouse.OverlayEPSS) {
			gaps = append(gaps, "it is not known how likely vulnerabilities are to be exploited: no EPSS scores are loaded")
		}
	}
	return gaps
}

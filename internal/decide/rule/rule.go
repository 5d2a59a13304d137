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
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// Policy is one ImageRule.
type Policy struct {
	name       string
	mode       decide.Mode
	globs      []glob.Glob
	match      match
	naming     naming
	unscanned  ignorance     // what becomes of an image that the scan proves nothing of
	maxScanAge time.Duration // 0 = any
	limits     []limit       // one per kind that the rule speaks of
	vex, sbom  []gatehouse.Authority
	bases      *bases       // nil: any
	pods       *podSecurity // nil: Pods are not looked at
	cel        *expressions // nil: there are none
	exceptions []exception

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

// JudgesObject reports whether the rule judges more of an object than its images.
func (p *Policy) JudgesObject() bool { return p.pods != nil || p.cel != nil }

// WantsDigest reports whether names have to hold digests.
func (p *Policy) WantsDigest() bool { return p.naming.digest }

// ignorance is what a rule does about an image that was not scanned, or not whole. Its
// zero value denies.
type ignorance int

const (
	denyUnscanned ignorance = iota
	waitUnscanned           // as deny, after the scan has been waited for
	warnUnscanned
	allowUnscanned
)

func (g ignorance) verdict() gatehouse.Verdict {
	switch g {
	case warnUnscanned:
		return gatehouse.Warn
	case allowUnscanned:
		return gatehouse.Allow
	}
	return gatehouse.Deny
}

// Picks lists the images whose reference, as written, a glob of the rule matches, in
// objects that the rule speaks of.
func (p *Policy) Picks(req gatehouse.Request) []int {
	var picks []int
	for i, f := range req.Images {
		if glob.AnyMatch(p.globs, f.Written) {
			picks = append(picks, i)
		}
	}
	if len(picks) > 0 && !p.match.speaks(req) {
		return nil
	}
	return picks
}

// Needs asks for the findings of each image that the rule picks, if it judges any,
// and for the signatures, attestations and documents of the authorities that it names.
// Nothing is asked where names alone deny, so that nobody is contacted about them.
func (p *Policy) Needs(req gatehouse.Request) []gatehouse.Need {
	picks := p.Picks(req)
	same := p.untouched(req)
	if p.match.unknown(req) != "" || p.settled(req, picks, same) {
		return nil
	}
	var needs []gatehouse.Need
	for _, i := range picks {
		if p.pardoned(req, req.Images[i].Written) != nil {
			continue
		}
		again := same[req.Images[i].Field] // judged for its object only
		if p.scans && (!again || p.cel.findings()) {
			needs = append(needs, gatehouse.Need{Name: decide.NeedName(p.name, "findings"), Image: i, Kind: gatehouse.NeedFindings, Wait: p.unscanned == waitUnscanned})
		}
		if p.cel.configs() {
			needs = append(needs, gatehouse.Need{Name: decide.NeedName(p.name, "configs"), Image: i, Kind: gatehouse.NeedPlatforms})
		}
		if again {
			continue
		}
		for _, a := range p.vex {
			needs = append(needs, gatehouse.Need{Name: p.vexNeed(a), Image: i, Kind: gatehouse.NeedVEX, Authority: a})
		}
		for _, a := range p.sbom {
			needs = append(needs, gatehouse.Need{Name: p.sbomNeed(a), Image: i, Kind: gatehouse.NeedSBOM, Authority: a})
		}
		if p.bases != nil {
			needs = append(needs, gatehouse.Need{Name: decide.NeedName(p.name, "builds"), Image: i, Kind: gatehouse.NeedBuilds})
		}
		needs = append(needs, p.signedNeeds(i)...)
	}
	return needs
}

// named judges the name of an image, exceptions heeded.
func (p *Policy) named(req gatehouse.Request, f gatehouse.ImageFacts) []gatehouse.Reason {
	return p.excuse(req, f.Written, p.naming.judge(f, req.Operation))
}

// asks reports whether the rule has to know anything of images.
func (p *Policy) asks() bool {
	return p.scans || p.cel.configs() || len(p.vex) > 0 || len(p.sbom) > 0 || p.bases != nil || p.signs()
}

// settled reports whether a rule that would have to look into images denies by the name
// of one of them alone, which settles it for all.
func (p *Policy) settled(req gatehouse.Request, picks []int, same map[string]bool) bool {
	if p.mode != decide.Enforce || !p.naming.given() || !p.asks() {
		return false
	}
	for _, i := range picks {
		if !same[req.Images[i].Field] && p.pardoned(req, req.Images[i].Written) == nil && denies(p.named(req, req.Images[i])) {
			return true
		}
	}
	return false
}

func denies(reasons []gatehouse.Reason) bool {
	return slices.ContainsFunc(reasons, func(r gatehouse.Reason) bool { return r.Verdict != gatehouse.Warn && r.Verdict != gatehouse.Allow })
}

func (p *Policy) vexNeed(a gatehouse.Authority) string { return decide.NeedName(p.name, "vex", a.Name) }
func (p *Policy) sbomNeed(a gatehouse.Authority) string {
	return decide.NeedName(p.name, "sbom", a.Name)
}

// Judge passes images that are named as the rule wants it, were scanned whole and have
// no finding worse than it allows, are signed and attested as it asks, and meet its
// expressions; and Pods that meet its level of Pod security.
func (p *Policy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	j := decide.Judgement{Outcome: decide.NotApplicable}
	picks := p.Picks(req)
	if len(picks) == 0 {
		return j
	}
	ctx, cancel := context.WithTimeout(ctx, judgeTimeMax)
	defer cancel()
	j.Outcome = decide.Passed
	same := p.untouched(req)
	unknown, settled := p.match.unknown(req), p.settled(req, picks, same)
	for _, i := range picks {
		f := req.Images[i]
		var reasons []gatehouse.Reason
		switch e := p.pardoned(req, f.Written); {
		case e != nil:
			reasons = []gatehouse.Reason{e.note("the whole rule")}
		case unknown != "":
			reasons = []gatehouse.Reason{{
				Code: decide.CodeNamespaceUnknown, Message: "the rule selects by labels of the namespace " + short(unknown) + ", which are not known here",
				Hint: "connect Gatehouse to the cluster (kubeconfig), or select by match.namespaces",
			}}
		case same[f.Field]:
			reasons = p.again(ctx, req, f)
		case settled:
			if reasons = p.named(req, f); !denies(reasons) {
				reasons = append(reasons, gatehouse.Reason{Code: decide.CodeNotChecked, Message: "not looked into: another image is denied by its name"})
			}
		default:
			reasons = p.judge(ctx, req, f)
		}
		for _, r := range reasons {
			r.Image, r.Field = f.Written, f.Field
			j.Reasons = append(j.Reasons, r)
		}
		if denies(reasons) {
			j.Outcome = decide.Failed
		} else {
			j.Passed = append(j.Passed, i)
		}
	}
	if p.pods != nil && unknown == "" {
		j.Reasons = append(j.Reasons, p.podReasons(req, picks)...)
	}
	return j
}

// judgeTimeMax bounds the judgement of one request.
const judgeTimeMax = 3 * time.Second

// podReasons are those about Pods. An exception counts that concerns every image of
// the rule's in them.
func (p *Policy) podReasons(req gatehouse.Request, picks []int) []gatehouse.Reason {
	reasons := p.pods.judge(req)
	if len(reasons) == 0 {
		return nil
	}
	written := ""
	for _, i := range picks {
		written = req.Images[i].Written
		if excused := p.excuse(req, written, slices.Clone(reasons)); denies(excused) {
			return excused
		}
	}
	return p.excuse(req, written, reasons)
}

// judge judges one image that names alone do not settle.
func (p *Policy) judge(ctx context.Context, req gatehouse.Request, f gatehouse.ImageFacts) []gatehouse.Reason {
	reasons := p.named(req, f)
	findings := f.Findings
	if p.scans {
		var more []gatehouse.Reason
		more, findings = p.image(req, f)
		reasons = append(reasons, more...)
	}
	if p.bases != nil {
		reasons = append(reasons, p.bases.judge(f, p.unscanned.verdict())...)
	}
	reasons = append(reasons, p.signed(ctx, f, req.Now)...)
	if p.cel != nil {
		reasons = append(reasons, p.cel.judge(ctx, req, f, findings)...)
	}
	return p.excuse(req, f.Written, reasons)
}

// again judges an image that an update leaves as it was: by what is said of its object.
func (p *Policy) again(ctx context.Context, req gatehouse.Request, f gatehouse.ImageFacts) []gatehouse.Reason {
	if p.cel == nil {
		return nil
	}
	findings, _ := p.except(req, f.Written, f.Findings)
	return p.excuse(req, f.Written, p.cel.judge(ctx, req, f, findings))
}

// image judges what is in an image, and returns its findings as they count.
func (p *Policy) image(req gatehouse.Request, f gatehouse.ImageFacts) (reasons []gatehouse.Reason, findings []gatehouse.Finding) {
	gap := func(code, why, hint string) {
		reasons = append(reasons, gatehouse.Reason{Verdict: p.unscanned.verdict(), Code: code, Message: why, Hint: hint})
	}
	if why := unscanned(req, f); why != "" {
		hint := "push the image to this registry and wait for its scan, or update the advisories (gatehouse db status)"
		if p.unscanned == waitUnscanned && f.Inventory == nil {
			why, hint = why+"; its scan was waited for", "try again: an image of this registry is scanned within moments of its push"
		}
		gap(decide.CodeUnscanned, why, hint)
	} else if why := p.aged(req); why != "" {
		gap(decide.CodeScanOld, why, "update the advisories (gatehouse db status)")
	}
	for _, why := range p.partial(f) {
		gap(decide.CodeUnscanned, why, "the server's settings and feeds say what is looked for (gatehouse db status); images that were indexed before need a new look")
	}
	findings, notes, gaps := p.withDocuments(f)
	for _, why := range gaps {
		gap(decide.CodeUnscanned, why, "repair the SBOM, delete what else hangs on the image, or leave sbom out of the rule")
	}
	findings, more := p.except(req, f.Written, findings)
	notes = append(notes, more...)
	lesser, suppressed := 0, 0
	for _, l := range p.limits {
		bad, more, below, accepted := l.judge(findings, req.Now)
		reasons, notes = append(reasons, bad...), append(notes, more...)
		lesser, suppressed = lesser+below, suppressed+accepted
	}
	if len(reasons) == 0 {
		reasons = append(reasons, p.clean(lesser, suppressed))
	}
	return append(reasons, notes...), findings
}

// aged says that the advisories which the image was compared with are too old, "" if
// they are not.
func (p *Policy) aged(req gatehouse.Request) string {
	if p.maxScanAge == 0 {
		return ""
	}
	age := req.Now.Sub(req.FeedAt)
	switch {
	case age < -skewMax:
		return fmt.Sprintf("the advisories that the image was compared with say to be of %s, which is in the future", req.FeedAt.UTC().Format(time.RFC3339))
	case age > p.maxScanAge:
		return fmt.Sprintf("the image was compared with advisories of %s, which is %s ago; %s are allowed",
			req.FeedAt.UTC().Format(time.RFC3339), age.Round(time.Second), days(p.maxScanAge))
	}
	return ""
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

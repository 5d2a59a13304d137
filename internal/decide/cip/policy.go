// Package cip reads and evaluates ClusterImagePolicy of policy.sigstore.dev: a
// manifest goes in, a decide.ImagePolicy or the problems of the manifest come
// out. All of the CRD is evaluated: what a policy refers to (keys in Secrets and key
// services, policies in ConfigMaps and on servers, trust roots) is read through
// Outside while it is parsed, and a policy of which something cannot be read is
// refused, never half applied.
//
// One authority that passes is enough, unless spec.policy, which judges what all of
// them have found, wants more. Either signature format counts, unless
// signatureFormat names one. TrustRoot documents become Sigstore's trusted roots,
// and what an authority names of them travels with it.
package cip

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// Policy is one ClusterImagePolicy. The zero Policy picks nothing.
type Policy struct {
	name        string
	mode        decide.Mode
	globs       []glob.Glob
	authorities []authorityRule
	matches     []matcher
	whole       *wholeRule // nil: none
	// waits is what the policy refers to and cannot be read now: until it can, nobody
	// knows what the policy says.
	waits []decide.Problem
}

type staticAction int

const (
	notStatic staticAction = iota
	staticFail
	staticPass
)

// authorityRule is one authority: whose signatures or attestations count, or an
// answer without looking.
type authorityRule struct {
	gatehouse.Authority
	static       staticAction
	message      string
	attestations []attestationRule // instead of a signature, where there are any
}

// attestationRule is one statement that an authority must have made.
type attestationRule struct {
	name, predicate string
	policy          decide.Compliance // nil: that it was made is enough
	language        string            // of the policy
}

// Name returns metadata.name.
func (p *Policy) Name() string { return p.name }

// Mode returns what a failure does.
func (p *Policy) Mode() decide.Mode { return p.mode }

// Picks lists the images that the policy speaks of: one of its globs matches
// the reference as written, and match, if given, fits the object.
func (p *Policy) Picks(req gatehouse.Request) []int {
	var picks []int
	for i, f := range req.Images {
		if glob.AnyMatch(p.globs, f.Written) {
			picks = append(picks, i)
		}
	}
	if len(picks) == 0 || !p.fits(req) {
		return nil
	}
	return picks
}

// Needs asks for the signatures of each authority on each image that the
// policy picks. With a static pass nothing needs to be asked: one authority is
// enough, unless spec.policy judges them all.
func (p *Policy) Needs(req gatehouse.Request) []gatehouse.Need {
	if len(p.waits) > 0 {
		return nil
	}
	if p.whole == nil && slices.ContainsFunc(p.authorities, func(a authorityRule) bool { return a.static == staticPass }) {
		return nil
	}
	var needs []gatehouse.Need
	for _, i := range p.Picks(req) {
		for _, a := range p.authorities {
			if a.static != notStatic {
				continue
			}
			if len(a.attestations) == 0 {
				needs = append(needs, gatehouse.Need{Name: p.need(a), Image: i, Kind: gatehouse.NeedSignature, Authority: a.Authority})
			}
			for _, att := range a.attestations {
				needs = append(needs, gatehouse.Need{
					Name: p.attestationNeed(a, att), Image: i, Kind: gatehouse.NeedAttestation, Predicate: att.predicate, Authority: a.Authority,
				})
			}
		}
		if p.whole != nil && p.whole.config {
			needs = append(needs, gatehouse.Need{Name: p.configNeed(), Image: i, Kind: gatehouse.NeedPlatforms})
		}
	}
	return needs
}

// SettlesNeeds implements decide.Settling: an authority that could not be asked has
// not passed, and another one may have.
func (p *Policy) SettlesNeeds() bool { return true }

// JudgesObject reports whether the policy looks at more of an object than its
// images, so that it is asked also where an update leaves those as they were.
func (p *Policy) JudgesObject() bool {
	return p.whole != nil && (p.whole.spec || p.whole.objectMeta || p.whole.typeMeta)
}

func (p *Policy) need(a authorityRule) string { return decide.NeedName(p.name, a.Name) }

func (p *Policy) attestationNeed(a authorityRule, att attestationRule) string {
	return decide.NeedName(p.name, a.Name, att.name)
}

// Judge passes an image when one authority does, and spec.policy agrees.
func (p *Policy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	j := decide.Judgement{Outcome: decide.NotApplicable}
	read := sync.OnceValues(func() (object, error) { return p.object(req) })
	for _, i := range p.Picks(req) {
		if j.Outcome == decide.NotApplicable {
			j.Outcome = decide.Passed
		}
		reasons, passed := p.unknown(), false
		if len(p.waits) == 0 {
			reasons, passed = p.image(ctx, req, req.Images[i], read)
		}
		for k := range reasons {
			reasons[k].Image, reasons[k].Field = req.Images[i].Written, req.Images[i].Field
		}
		j.Reasons = append(j.Reasons, reasons...)
		if passed {
			j.Passed = append(j.Passed, i)
		} else {
			j.Outcome = decide.Failed
		}
	}
	return j
}

// unknown says why nobody knows what the policy says.
func (p *Policy) unknown() (reasons []gatehouse.Reason) {
	for _, w := range p.waits {
		reasons = append(reasons, gatehouse.Reason{Code: decide.CodePolicyUnknown, Message: w.Field + ": " + w.Message, Hint: w.Hint})
	}
	return reasons
}

// finding is what one authority says of one image.
type finding struct {
	name    string
	passed  bool
	unknown bool // something that it needs could not be found out
	match   authorityMatch
	reasons []gatehouse.Reason
}

// image asks the authorities in their order, all of them where spec.policy judges
// what they found. Without one, the reasons of those that failed are dropped when
// one passes.
func (p *Policy) image(ctx context.Context, req gatehouse.Request, f gatehouse.ImageFacts, read func() (object, error)) ([]gatehouse.Reason, bool) {
	var all []finding
	var failed []gatehouse.Reason
	for _, a := range p.authorities {
		found := p.authority(ctx, a, f, req.Now)
		for i := range found.reasons {
			found.reasons[i].Authority = a.Name
		}
		if found.passed && p.whole == nil {
			return found.reasons, true
		}
		all, failed = append(all, found), append(failed, found.reasons...)
	}
	if p.whole == nil {
		return failed, false
	}
	return p.judgeWhole(ctx, req, f, all, read)
}

func (p *Policy) authority(ctx context.Context, a authorityRule, f gatehouse.ImageFacts, now time.Time) finding {
	found := finding{name: a.Name}
	switch {
	case a.static == staticPass:
		found.passed, found.match.Static = true, true
		found.reasons = []gatehouse.Reason{{Verdict: gatehouse.Allow, Code: decide.CodeStaticPass, Message: "allowed by static policy of authority " + a.Name}}
	case a.static == staticFail:
		message := "disallowed by static policy"
		if a.message != "" {
			message += ": " + a.message
		}
		found.reasons = []gatehouse.Reason{{Code: decide.CodeStaticFail, Message: message}}
	case len(a.attestations) > 0:
		p.attested(ctx, a, f, now, &found)
	default:
		p.signed(a, f, &found)
	}
	return found
}

func (p *Policy) signed(a authorityRule, f gatehouse.ImageFacts, found *finding) {
	need := p.need(a)
	if r, unknown := decide.Unanswered(f, need); unknown {
		found.unknown, found.reasons = true, []gatehouse.Reason{r}
		return
	}
	var misfit string
	for _, e := range f.Evidence {
		if e.Need != need || e.Subject == "" || e.Subject != f.Image.Digest {
			continue
		}
		if !Accepts(a.Format, e.Format) {
			misfit = e.Format
			continue
		}
		found.match.Signatures = append(found.match.Signatures, signatureOf(e))
		if found.passed {
			continue
		}
		found.passed = true
		found.reasons = []gatehouse.Reason{{
			Verdict: gatehouse.Allow, Code: decide.CodeSignatureValid, Evidence: []gatehouse.Digest{e.Artifact},
			Message: fmt.Sprintf("signed by authority %s (%s, %s)", a.Name, Signer(e.Identity), e.Format),
		}}
	}
	if !found.passed {
		found.reasons = []gatehouse.Reason{Unsigned(a.Authority, f, need, misfit)}
	}
}

// Package cip reads and evaluates ClusterImagePolicy of policy.sigstore.dev: a
// manifest goes in, a decide.ImagePolicy or the problems of the manifest come
// out. All of the CRD is parsed and checked; what this version cannot evaluate
// (secretRef, signaturePullSecrets, CUE, policies in ConfigMaps and on servers, the
// policy of the whole) is refused when it is read, never ignored.
//
// Either signature format counts, unless signatureFormat names one. TrustRoot
// documents become Sigstore's trusted roots, and what an authority names of them
// travels with it.
package cip

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

// Policy is one ClusterImagePolicy. The zero Policy picks nothing.
type Policy struct {
	name        string
	mode        decide.Mode
	globs       []glob.Glob
	authorities []authorityRule
	matches     []matcher
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
	policy          *rego.Compliance // nil: that it was made is enough
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
// enough.
func (p *Policy) Needs(req gatehouse.Request) []gatehouse.Need {
	for _, a := range p.authorities {
		if a.static == staticPass {
			return nil
		}
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
	}
	return needs
}

func (p *Policy) need(a authorityRule) string { return decide.NeedName(p.name, a.Name) }

func (p *Policy) attestationNeed(a authorityRule, att attestationRule) string {
	return decide.NeedName(p.name, a.Name, att.name)
}

// Judge passes an image when one authority does.
func (p *Policy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	j := decide.Judgement{Outcome: decide.NotApplicable}
	for _, i := range p.Picks(req) {
		if j.Outcome == decide.NotApplicable {
			j.Outcome = decide.Passed
		}
		reasons, passed := p.image(ctx, req.Images[i], req.Now)
		j.Reasons = append(j.Reasons, reasons...)
		if passed {
			j.Passed = append(j.Passed, i)
		} else {
			j.Outcome = decide.Failed
		}
	}
	return j
}

// image asks the authorities in their order. The reasons of those that failed
// are dropped when one passes.
func (p *Policy) image(ctx context.Context, f gatehouse.ImageFacts, now time.Time) ([]gatehouse.Reason, bool) {
	var failed []gatehouse.Reason
	for _, a := range p.authorities {
		reasons, passed := p.authority(ctx, a, f, now)
		for i := range reasons {
			reasons[i].Image, reasons[i].Field = f.Written, f.Field
		}
		if passed {
			return reasons, true
		}
		failed = append(failed, reasons...)
	}
	return failed, false
}

func (p *Policy) authority(ctx context.Context, a authorityRule, f gatehouse.ImageFacts, now time.Time) ([]gatehouse.Reason, bool) {
	switch {
	case a.static == staticPass:
		return []gatehouse.Reason{{Verdict: gatehouse.Allow, Code: decide.CodeStaticPass, Message: "allowed by static policy of authority " + a.Name}}, true
	case a.static == staticFail:
		message := "disallowed by static policy"
		if a.message != "" {
			message += ": " + a.message
		}
		return []gatehouse.Reason{{Code: decide.CodeStaticFail, Message: message}}, false
	case len(a.attestations) > 0:
		return p.attested(ctx, a, f, now)
	}
	r, passed := p.signed(a, f)
	return []gatehouse.Reason{r}, passed
}

func (p *Policy) signed(a authorityRule, f gatehouse.ImageFacts) (gatehouse.Reason, bool) {
	need := p.need(a)
	var misfit string
	for _, e := range f.Evidence {
		if e.Need != need || e.Subject == "" || e.Subject != f.Image.Digest {
			continue
		}
		if !Accepts(a.Format, e.Format) {
			misfit = e.Format
			continue
		}
		return gatehouse.Reason{
			Verdict: gatehouse.Allow, Code: decide.CodeSignatureValid, Evidence: []gatehouse.Digest{e.Artifact},
			Message: fmt.Sprintf("signed by authority %s (%s, %s)", a.Name, Signer(e.Identity), e.Format),
		}, true
	}
	return Unsigned(a.Authority, f, need, misfit), false
}

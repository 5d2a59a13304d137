// Package cip reads and evaluates ClusterImagePolicy of policy.sigstore.dev: a
// manifest goes in, a decide.ImagePolicy or the problems of the manifest come
// out. All of the CRD is parsed and checked; what this version cannot evaluate
// (keyless, attestations, kms, secretRef, source, ctlog, timestamps and the
// policy languages) is refused when it is read, never ignored.
//
// Either signature format counts, unless signatureFormat names one.
package cip

import (
	"context"
	"fmt"
	"strings"

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
}

type staticAction int

const (
	notStatic staticAction = iota
	staticFail
	staticPass
)

// authorityRule is one authority. One without keys and static answer verifies
// nothing.
type authorityRule struct {
	name    string
	keys    []string
	hash    string
	format  string // "", "legacy", "bundle"
	static  staticAction
	message string
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
			needs = append(needs, gatehouse.Need{
				Name: p.need(a), Image: i, Kind: gatehouse.NeedSignature,
				Authority: gatehouse.Authority{Name: a.name, Keys: a.keys, Hash: a.hash},
			})
		}
	}
	return needs
}

func (p *Policy) need(a authorityRule) string { return p.name + "/" + a.name }

// Judge passes an image when one authority does.
func (p *Policy) Judge(_ context.Context, req gatehouse.Request) decide.Judgement {
	j := decide.Judgement{Outcome: decide.NotApplicable}
	for _, i := range p.Picks(req) {
		if j.Outcome == decide.NotApplicable {
			j.Outcome = decide.Passed
		}
		reasons, passed := p.image(req.Images[i])
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
func (p *Policy) image(f gatehouse.ImageFacts) ([]gatehouse.Reason, bool) {
	var failed []gatehouse.Reason
	for _, a := range p.authorities {
		r, passed := p.authority(a, f)
		r.Image, r.Field = f.Written, f.Field
		if passed {
			r.Verdict = gatehouse.Allow
			return []gatehouse.Reason{r}, true
		}
		failed = append(failed, r)
	}
	return failed, false
}

func (p *Policy) authority(a authorityRule, f gatehouse.ImageFacts) (gatehouse.Reason, bool) {
	switch a.static {
	case staticPass:
		return gatehouse.Reason{Code: decide.CodeStaticPass, Message: "allowed by static policy of authority " + a.name}, true
	case staticFail:
		message := "disallowed by static policy"
		if a.message != "" {
			message += ": " + a.message
		}
		return gatehouse.Reason{Code: decide.CodeStaticFail, Message: message}, false
	}
	need := p.need(a)
	var misfit string
	for _, e := range f.Evidence {
		if e.Need != need || e.Subject == "" || e.Subject != f.Image.Digest {
			continue
		}
		if !a.accepts(e.Format) {
			misfit = e.Format
			continue
		}
		return gatehouse.Reason{
			Code: decide.CodeSignatureValid, Evidence: []gatehouse.Digest{e.Artifact},
			Message: fmt.Sprintf("signed by authority %s (%s, %s)", a.name, signer(e.Identity), e.Format),
		}, true
	}
	return p.unsigned(a, f, need, misfit), false
}

func signer(id gatehouse.Identity) string {
	if id.Key != "" {
		return "key " + id.Key.Short()
	}
	return clip(id.Subject + " of " + id.Issuer)
}

// accepts reports whether the authority takes signatures of this format.
func (a authorityRule) accepts(format string) bool {
	switch a.format {
	case "legacy":
		return strings.Contains(format, "legacy")
	case "bundle":
		return strings.Contains(format, "bundle")
	}
	return true
}

// rejectedMax bounds the candidates that one reason names.
const rejectedMax = 5

// noCandidate is the code of the remark that nothing is attached to the image.
const noCandidate = "no-candidate"

// unsigned says what was looked at and why none of it counts.
func (p *Policy) unsigned(a authorityRule, f gatehouse.ImageFacts, need, misfit string) gatehouse.Reason {
	r := gatehouse.Reason{
		Code:    decide.CodeSignatureMissing,
		Message: fmt.Sprintf("signature key validation failed for authority %s for %s@%s: no matching signatures", a.name, f.Image.Name(), f.Image.Digest),
		Hint:    fmt.Sprintf("sign it with the key of authority %s: gatehouse sign --key cosign.key %s@%s", a.name, f.Image.Name(), f.Image.Digest),
	}
	var tried []string
	for _, c := range f.Rejected {
		if c.Need != need && c.Need != "" {
			continue
		}
		if c.Artifact == "" { // a remark about the image, not a candidate
			if c.Code != noCandidate && len(tried) < rejectedMax {
				tried = append(tried, c.Code+": "+clip(c.Message))
			}
			continue
		}
		r.Code = decide.CodeSignatureInvalid
		if len(r.Evidence) < rejectedMax {
			r.Evidence = append(r.Evidence, c.Artifact)
			tried = append(tried, fmt.Sprintf("%s (%s) %s: %s", c.Artifact.Short(), clip(c.Format), c.Code, clip(c.Message)))
		}
	}
	if misfit != "" {
		r.Code = decide.CodeSignatureInvalid
		tried = append(tried, fmt.Sprintf("a valid signature in format %s, signatureFormat asks for %s", misfit, a.format))
	}
	if len(tried) > 0 {
		r.Message += ": " + strings.Join(tried, "; ")
	}
	return r
}

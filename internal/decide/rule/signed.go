package rule

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/provenance"
)

// signatures asks for signatures of the image itself.
type signatures struct {
	authorities []gatehouse.Authority
	all         bool // of each authority, not of any
	minimum     int  // different signers, over all authorities
}

// attestation asks for a statement about the image.
type attestation struct {
	name, predicate string
	authorities     []gatehouse.Authority // any one of them
	maxAge          time.Duration         // 0 = any
	conditions      []condition
	policy          decide.Compliance // nil: none
}

func (p *Policy) signatureNeed(a gatehouse.Authority) string {
	return decide.NeedName(p.name, "signature", a.Name)
}

func (p *Policy) attestationNeed(att attestation, a gatehouse.Authority) string {
	return decide.NeedName(p.name, "attestation", att.name, a.Name)
}

// signedNeeds lists what the rule has to know of signatures of image i.
func (p *Policy) signedNeeds(i int) (needs []gatehouse.Need) {
	if p.signatures != nil {
		for _, a := range p.signatures.authorities {
			needs = append(needs, gatehouse.Need{Name: p.signatureNeed(a), Image: i, Kind: gatehouse.NeedSignature, Authority: a})
		}
	}
	for _, att := range p.attestations {
		for _, a := range att.authorities {
			needs = append(needs, gatehouse.Need{Name: p.attestationNeed(att, a), Image: i, Kind: gatehouse.NeedAttestation, Predicate: att.predicate, Authority: a})
		}
	}
	if p.provenance != nil {
		needs = append(needs, p.provenanceNeeds(i)...)
	}
	if p.supply != nil {
		needs = append(needs, p.supplyNeeds(i)...)
	}
	return needs
}

// signed judges signatures, attestations and provenance, and that there is an SBOM.
func (p *Policy) signed(ctx context.Context, f gatehouse.ImageFacts, now time.Time) (reasons []gatehouse.Reason) {
	if p.signatures != nil {
		reasons = append(reasons, p.signers(f)...)
	}
	for _, att := range p.attestations {
		reasons = append(reasons, p.attested(ctx, att, f, now)...)
	}
	if p.provenance != nil {
		reasons = append(reasons, p.built(f, now)...)
	}
	if p.supply != nil {
		reasons = append(reasons, p.supplied(ctx, f, now)...)
	}
	if p.sbomRequired {
		reasons = append(reasons, p.billed(f)...)
	}
	return reasons
}

// valid are the checked statements or signatures for a need.
func valid(f gatehouse.ImageFacts, need string, a gatehouse.Authority) (list []gatehouse.Evidence, misfit string) {
	for _, e := range f.Evidence {
		if e.Need != need || e.Subject == "" || e.Subject != f.Image.Digest {
			continue
		}
		if !cip.Accepts(a.Format, e.Format) {
			misfit = e.Format
			continue
		}
		list = append(list, e)
	}
	return list, misfit
}

// signers counts who has signed. Two signatures of one signer count once, also
// where two authorities name that signer.
func (p *Policy) signers(f gatehouse.ImageFacts) []gatehouse.Reason {
	s := p.signatures
	var who []string
	var missing []gatehouse.Reason
	var evidence []gatehouse.Digest
	for _, a := range s.authorities {
		list, misfit := valid(f, p.signatureNeed(a), a)
		if len(list) == 0 {
			r := cip.Unsigned(a, f, p.signatureNeed(a), misfit)
			r.Verdict = gatehouse.Deny
			missing = append(missing, r)
		}
		for _, e := range list {
			name := "key " + string(e.Identity.Key)
			if id := e.Identity; id.Key == "" {
				name = id.Subject + " of " + id.Issuer
			}
			if !slices.Contains(who, name) {
				who, evidence = append(who, name), append(evidence, e.Artifact)
			}
		}
	}
	switch {
	case len(who) == 0, s.all && len(missing) > 0:
		return missing
	case len(who) < s.minimum:
		return append([]gatehouse.Reason{{
			Verdict: gatehouse.Deny, Code: decide.CodeSignaturesTooFew, Evidence: cut(evidence),
			Message: fmt.Sprintf("%d different signers are asked for, %d have signed: %s", s.minimum, len(who), names(who)),
			Hint:    "signatures of one signer count once; have another one sign it, too",
		}}, missing...)
	}
	return []gatehouse.Reason{{
		Verdict: gatehouse.Allow, Code: decide.CodeSignatureValid, Evidence: cut(evidence), Message: "signed by " + names(who),
	}}
}

func names(list []string) string {
	var out []string
	for i, s := range list {
		if i == namedMax {
			out = append(out, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		out = append(out, short(s))
	}
	return strings.Join(out, ", ")
}

func cut(list []gatehouse.Digest) []gatehouse.Digest { return list[:min(len(list), namedMax)] }

// attested asks for one statement of one of the authorities that meets all
// conditions; older ones that do not may hang on the image beside it.
func (p *Policy) attested(ctx context.Context, att attestation, f gatehouse.ImageFacts, now time.Time) []gatehouse.Reason {
	var absent, refused []gatehouse.Reason
	for _, a := range att.authorities {
		need := p.attestationNeed(att, a)
		list, _ := valid(f, need, a)
		if len(list) == 0 {
			r := cip.Unattested(a, att.predicate, f, need)
			r.Verdict = gatehouse.Deny
			absent = append(absent, r)
		}
		for _, e := range list {
			code, why, warnings := att.check(ctx, e, now)
			if why == "" {
				return append([]gatehouse.Reason{{
					Verdict: gatehouse.Allow, Code: decide.CodeAttestationValid, Evidence: []gatehouse.Digest{e.Artifact},
					Message: fmt.Sprintf("attestation %s of type %s by authority %s (%s)", att.name, att.predicate, a.Name, cip.Signer(e.Identity)),
				}}, warnings...)
			}
			if len(refused) < namedMax {
				refused = append(refused, gatehouse.Reason{
					Verdict: gatehouse.Deny, Code: code, Evidence: []gatehouse.Digest{e.Artifact},
					Message: fmt.Sprintf("attestation %s by authority %s does not count: %s", att.name, a.Name, why),
				})
			}
		}
	}
	if len(refused) > 0 {
		return refused
	}
	return absent
}

// check says why a statement does not meet what is asked, "" if it does.
func (att attestation) check(ctx context.Context, e gatehouse.Evidence, now time.Time) (code, why string, warnings []gatehouse.Reason) {
	if e.Predicate != att.predicate {
		return decide.CodeAttestationRefused, "it is of type " + short(e.Predicate), nil
	}
	if att.maxAge > 0 {
		if why := age(e, att.maxAge, now); why != "" {
			return decide.CodeAttestationOld, why, nil
		}
	}
	if len(att.conditions) > 0 {
		var statement any
		if err := json.Unmarshal(e.Payload, &statement); err != nil {
			return decide.CodeAttestationRefused, "the statement is not JSON", nil
		}
		if why := unmet(att.conditions, statement, now); why != "" {
			return decide.CodeAttestationRefused, why, nil
		}
	}
	if att.policy == nil {
		return "", "", nil
	}
	answer, err := att.policy.Eval(ctx, e.Payload, now)
	switch {
	case err != nil:
		return decide.CodeAttestationRefused, "the rule could not be evaluated: " + short(err.Error()), nil
	case !answer.Compliant:
		return decide.CodeAttestationRefused, "the rule does not hold: " + names(answer.Errors), nil
	}
	for _, w := range answer.Warnings {
		warnings = append(warnings, gatehouse.Reason{
			Verdict: gatehouse.Warn, Code: decide.CodeAttestationWarned, Message: "attestation " + att.name + ": " + short(w), Evidence: []gatehouse.Digest{e.Artifact},
		})
	}
	return "", "", warnings
}

// age says why a statement is too old. Its own word counts, since its signer is
// trusted with all that it says, but never beyond the time of the signature.
func age(e gatehouse.Evidence, limit time.Duration, now time.Time) string {
	facts, err := provenance.Read(e.Payload)
	if err != nil {
		return short(err.Error())
	}
	at := facts.At
	if at.IsZero() || !e.SignedAt.IsZero() && e.SignedAt.Before(at) {
		at = e.SignedAt
	}
	return tooOld(at, limit, now)
}

func unmet(list []condition, statement any, now time.Time) string {
	for _, c := range list {
		if why := c.check(statement, now); why != "" {
			return why
		}
	}
	return ""
}

// billed asks for an SBOM of an authority that could be read.
func (p *Policy) billed(f gatehouse.ImageFacts) []gatehouse.Reason {
	var why []string
	for _, a := range p.sbom {
		need := p.sbomNeed(a)
		if slices.ContainsFunc(f.Added, func(b gatehouse.AddedFindings) bool { return b.Need == need && b.Packages > 0 }) {
			return nil // sbom-applied has told of it
		}
		tried, _ := cip.Tried(f, need)
		why = append(why, tried...)
	}
	r := gatehouse.Reason{
		Verdict: gatehouse.Deny, Code: decide.CodeSBOMMissing, Message: "no SBOM of an authority of the rule is attached",
		Hint: fmt.Sprintf("gatehouse attest --type cyclonedx --predicate SBOM %s@%s", f.Image.Name(), f.Image.Digest),
	}
	if len(why) > 0 {
		r.Message += ": " + names(why)
	}
	return []gatehouse.Reason{r}
}

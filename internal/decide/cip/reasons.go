package cip

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// rejectedMax bounds the candidates that one reason names.
const rejectedMax = 5

// noCandidate is the code of the remark that nothing is attached to the image.
const noCandidate = "no-candidate"

// Signer names who signed, for people.
func Signer(id gatehouse.Identity) string {
	if id.Key != "" {
		return "key " + id.Key.Short()
	}
	return clip(id.Subject + " of " + id.Issuer)
}

// Accepts reports whether an authority that asks for want takes signatures of this
// format.
func Accepts(want, format string) bool {
	switch want {
	case "legacy":
		return strings.Contains(format, "legacy") || format == "cosign-dsse"
	case "bundle":
		return strings.Contains(format, "bundle")
	}
	return true
}

// kind is the word for the authority's kind of trust.
func kind(a gatehouse.Authority) string {
	if a.Keyless != nil {
		return "keyless"
	}
	return "key"
}

// Unsigned says what was looked at for a need and why none of it counts. misfit is
// the format of a signature that would count in another one.
func Unsigned(a gatehouse.Authority, f gatehouse.ImageFacts, need, misfit string) gatehouse.Reason {
	r := gatehouse.Reason{
		Code:    decide.CodeSignatureMissing,
		Message: fmt.Sprintf("signature %s validation failed for authority %s for %s@%s: no matching signatures", kind(a), a.Name, f.Image.Name(), f.Image.Digest),
		Hint:    fmt.Sprintf("sign it with the key of authority %s: gatehouse sign --key cosign.key %s@%s", a.Name, f.Image.Name(), f.Image.Digest),
	}
	if a.Keyless != nil {
		r.Hint = fmt.Sprintf("sign it as one of the identities of authority %s: gatehouse sign %s@%s", a.Name, f.Image.Name(), f.Image.Digest)
	}
	var tried []string
	tried, r.Evidence = Tried(f, need)
	if len(r.Evidence) > 0 {
		r.Code = decide.CodeSignatureInvalid
	}
	if misfit != "" {
		r.Code = decide.CodeSignatureInvalid
		tried = append(tried, fmt.Sprintf("a valid signature in format %s, signatureFormat asks for %s", misfit, a.Format))
	}
	if len(tried) > 0 {
		r.Message += ": " + strings.Join(tried, "; ")
	}
	return r
}

// Tried lists why candidates for a need do not count, and which they are.
func Tried(f gatehouse.ImageFacts, need string) (why []string, candidates []gatehouse.Digest) {
	for _, c := range f.Rejected {
		if c.Need != need && c.Need != "" {
			continue
		}
		if c.Artifact == "" { // a remark about the image, not a candidate
			if c.Code != noCandidate && len(why) < rejectedMax {
				why = append(why, c.Code+": "+clip(c.Message))
			}
			continue
		}
		if len(candidates) < rejectedMax {
			candidates = append(candidates, c.Artifact)
			why = append(why, fmt.Sprintf("%s (%s) %s: %s", c.Artifact.Short(), clip(c.Format), c.Code, clip(c.Message)))
		}
	}
	return why, candidates
}

// attested passes when the authority has made every statement that the policy
// asks for. Of several of one type one is enough: others may be older.
func (p *Policy) attested(ctx context.Context, a authorityRule, f gatehouse.ImageFacts, now time.Time, found *finding) {
	found.passed = true
	found.match.Attestations = map[string][]foundStatement{}
	var good, bad []gatehouse.Reason
	for _, att := range a.attestations {
		if r, unknown := decide.Unanswered(f, p.attestationNeed(a, att)); unknown {
			found.passed, found.unknown = false, true
			bad = append(bad, r)
			continue
		}
		statements, reasons := p.attestation(ctx, a, att, f, now)
		if len(statements) == 0 {
			found.passed = false
			bad = append(bad, reasons...)
			continue
		}
		found.match.Attestations[att.name] = statements
		good = append(good, reasons...)
	}
	if found.reasons = good; !found.passed {
		found.reasons = bad
	}
}

// attestation finds the statements that pass, all of them where spec.policy counts
// them, and says why, or why none does.
func (p *Policy) attestation(ctx context.Context, a authorityRule, att attestationRule, f gatehouse.ImageFacts, now time.Time) (passed []foundStatement, reasons []gatehouse.Reason) {
	need := p.attestationNeed(a, att)
	var refused []string
	var evidence []gatehouse.Digest
	for _, e := range f.Evidence {
		if e.Need != need || e.Subject == "" || e.Subject != f.Image.Digest || e.Predicate != att.predicate || !Accepts(a.Format, e.Format) {
			continue
		}
		answer := decide.Answer{Compliant: true}
		if att.policy != nil {
			var err error
			if answer, err = att.policy.Eval(ctx, e.Payload, now); err != nil {
				answer = decide.Answer{Errors: []string{"the policy could not be evaluated: " + clip(err.Error())}}
			}
		}
		if !answer.Compliant {
			if len(refused) < rejectedMax {
				refused, evidence = append(refused, prefix(att.language, att.name)+long(strings.Join(answer.Errors, "; "))), append(evidence, e.Artifact)
			}
			continue
		}
		if passed = append(passed, statementOf(e)); len(passed) == 1 {
			reasons = append(reasons, gatehouse.Reason{
				Verdict: gatehouse.Allow, Code: decide.CodeAttestationValid, Evidence: []gatehouse.Digest{e.Artifact},
				Message: fmt.Sprintf("attestation %s of type %s by authority %s (%s, %s)", att.name, att.predicate, a.Name, Signer(e.Identity), e.Format),
			})
			for _, w := range answer.Warnings {
				reasons = append(reasons, gatehouse.Reason{Verdict: gatehouse.Warn, Code: decide.CodeAttestationWarned, Message: fmt.Sprintf("attestation %s: %s", att.name, w), Evidence: []gatehouse.Digest{e.Artifact}})
			}
		}
		if p.whole == nil {
			return passed, reasons
		}
	}
	if len(passed) > 0 {
		return passed, reasons
	}
	if len(refused) > 0 {
		return nil, []gatehouse.Reason{{
			Code: decide.CodeAttestationRefused, Evidence: evidence,
			Message: fmt.Sprintf("attestation %s validation failed for authority %s for %s@%s: %s",
				kind(a.Authority), a.Name, f.Image.Name(), f.Image.Digest, strings.Join(refused, " | ")),
			Hint: fmt.Sprintf("the policy is attestations[].policy of %s; attest again what has changed", att.name),
		}}
	}
	return nil, []gatehouse.Reason{Unattested(a.Authority, att.predicate, f, need)}
}

// long clips what a policy says, which may name several things.
func long(s string) string {
	const max = 600
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}

// Unattested says what was looked at for a need of that predicate type instead.
func Unattested(a gatehouse.Authority, predicate string, f gatehouse.ImageFacts, need string) gatehouse.Reason {
	r := gatehouse.Reason{
		Code: decide.CodeAttestationMissing,
		Message: fmt.Sprintf("attestation %s validation failed for authority %s for %s@%s: no matching attestations with type %s",
			kind(a), a.Name, f.Image.Name(), f.Image.Digest, predicate),
		Hint: fmt.Sprintf("gatehouse attest --type %s --predicate FILE %s@%s", predicate, f.Image.Name(), f.Image.Digest),
	}
	tried, candidates := Tried(f, need)
	if r.Evidence = candidates; slices.ContainsFunc(f.Rejected, func(c gatehouse.Rejected) bool {
		return c.Need == need && c.Artifact != "" && c.Code != "other-predicate"
	}) {
		r.Code = decide.CodeAttestationInvalid
	}
	if len(tried) > 0 {
		r.Message += ": " + strings.Join(tried, "; ")
	}
	return r
}

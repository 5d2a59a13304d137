package decide

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// Reason codes: stable, for machines. docs/policies.md explains each.
const (
	CodeNoPolicies         = "no-policies"
	CodePoliciesIncomplete = "policies-incomplete"
	CodeNoJudgement        = "no-judgement"
	CodePolicyPanic        = "policy-panic"
	CodeTimeout            = "timeout"
	CodeNoMatch            = "no-matching-policy"
	CodeNoImages           = "no-images"
	CodeUnchanged          = "unchanged"
	CodeStaleFacts         = "stale-facts"
	CodeStaticPod          = "static-pod"
	CodeNamespaceExempt    = "namespace-exempt"
	CodePolicyInvalid      = "policy-invalid"
	CodePassed             = "passed"

	CodeObjectInvalid    = "object-invalid"
	CodeReferenceInvalid = "reference-invalid"
	CodeFactsIncomplete  = "facts-incomplete"

	CodeImageUnresolved = "image-unresolved"
	CodeTagNotPinned    = "tag-not-pinned"
	CodeImageNotFound   = "image-not-found"
	CodeUnavailable     = "unavailable"
	CodeAccessDenied    = "access-denied"
	CodeNotChecked      = "not-checked"
	CodeCheckFailed     = "check-failed"

	CodeSignatureValid   = "signature-valid"
	CodeSignatureMissing = "signature-missing"
	CodeSignatureInvalid = "signature-invalid"
	CodeSignaturesTooFew = "signatures-too-few"
	CodeStaticPass       = "static-pass"
	CodeStaticFail       = "static-fail"

	CodeAttestationValid   = "attestation-valid"
	CodeAttestationMissing = "attestation-missing"
	CodeAttestationInvalid = "attestation-invalid"
	CodeAttestationRefused = "attestation-refused"
	CodeAttestationWarned  = "attestation-warned"
	CodeAttestationOld     = "attestation-old"

	CodeProvenanceValid      = "provenance-valid"
	CodeProvenanceMissing    = "provenance-missing"
	CodeProvenanceInvalid    = "provenance-invalid"
	CodeProvenanceBuilder    = "provenance-builder"
	CodeProvenanceLevel      = "provenance-level"
	CodeProvenanceSource     = "provenance-source"
	CodeProvenanceBuildType  = "provenance-build-type"
	CodeProvenanceEntryPoint = "provenance-entry-point"
	CodeProvenanceRef        = "provenance-ref"
	CodeProvenanceOld        = "provenance-old"

	CodeLayoutMet    = "layout-met"
	CodeLayoutBroken = "layout-broken"

	CodeScanClean        = "scan-clean"
	CodeUnscanned        = "unscanned"
	CodeSeverityExceeded = "severity-exceeded"
	CodeKnownExploited   = "known-exploited"
	CodeEPSSExceeded     = "epss-exceeded"
	CodeFindingDenied    = "finding-denied"
	CodeVEXApplied       = "vex-applied"
	CodeVEXIgnored       = "vex-ignored"
	CodeSBOMApplied      = "sbom-applied"
	CodeSBOMIgnored      = "sbom-ignored"
	CodeSBOMMissing      = "sbom-missing"

	CodePolicyRefused     = "policy-refused"
	CodePolicyWarned      = "policy-warned"
	CodePolicyUnknown     = "policy-unknown"
	CodeRegistryTrusted   = "registry-trusted"
	CodeRegistryUntrusted = "registry-untrusted"
	CodeRegistryDenied    = "registry-denied"
	CodeDigestMissing     = "digest-missing"
	CodeScanOld           = "scan-old"
	CodeBaseTrusted       = "base-trusted"
	CodeBaseUntrusted     = "base-untrusted"
	CodeGracePeriod       = "grace-period"
	CodePodSecurity       = "pod-security"
	CodeNamespaceUnknown  = "namespace-unknown"
	CodeExceptionApplied  = "exception-applied"
	CodeExceptionEnded    = "exception-ended"

	CodeRuleDenied = "rule-denied"
	CodeRuleWarned = "rule-warned"
	CodeRuleError  = "rule-error"
	CodeRuleDryRun = "rule-dryrun"
)

// DetailNotContacted marks, in the Detail of an error in ImageFacts.Failed, a
// registry that was not asked because the request is refused anyway.
const DetailNotContacted = "NOT_CONTACTED"

// reasonsMax bounds the reasons of one decision; the verdict counts them all.
const reasonsMax = 200

// failure turns a need that could not be answered into a reason.
func failure(err *gatehouse.Error) (code, message, hint string) {
	if err == nil {
		return CodeCheckFailed, "the check failed without saying why", ""
	}
	if err.Detail == DetailNotContacted {
		return CodeNotChecked, err.Message, err.Hint
	}
	switch err.Code {
	case gatehouse.CodeNotFound:
		return CodeImageNotFound, err.Message, err.Hint
	case gatehouse.CodeUnavailable, gatehouse.CodeTooMany:
		return CodeUnavailable, err.Message, err.Hint
	case gatehouse.CodeDenied:
		return CodeAccessDenied, err.Message, err.Hint
	case gatehouse.CodeInternal:
		// Its text belongs to the log, not to whoever creates Pods.
		return CodeCheckFailed, "a check of the image failed inside", ""
	}
	return CodeCheckFailed, err.Message, err.Hint
}

// finish puts reasons into their order: denials, warnings, then the rest; by
// image, policy and code. It clips foreign text and the number of reasons.
func finish(reasons []gatehouse.Reason) []gatehouse.Reason {
	slices.SortStableFunc(reasons, func(a, b gatehouse.Reason) int {
		return cmp.Or(
			cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Policy, b.Policy), cmpField(a.Field, b.Field),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message),
		)
	})
	reasons = slices.CompactFunc(reasons, func(a, b gatehouse.Reason) bool {
		return a.Verdict == b.Verdict && a.Policy == b.Policy && a.Field == b.Field && a.Code == b.Code && a.Message == b.Message
	})
	if len(reasons) > reasonsMax {
		more := len(reasons) - reasonsMax + 1
		last := reasons[0].Verdict // the worst: what is cut off is not better than it says
		reasons = append(reasons[:reasonsMax-1:reasonsMax-1], gatehouse.Reason{
			Verdict: last, Code: reasons[reasonsMax].Code, Message: fmt.Sprintf("and %d more reasons", more),
		})
	}
	for i := range reasons {
		r := &reasons[i]
		r.Image, r.Field, r.Hint = clip(r.Image), clip(r.Field), clip(r.Hint)
		if len(r.Message) > messageMax {
			r.Message = r.Message[:messageMax] + "…"
		}
	}
	return reasons
}

// messageMax bounds one message in bytes.
const messageMax = 2000

// cmpField orders field paths by their numbers as numbers.
func cmpField(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// worst is the verdict that the reasons give: nothing said is a no.
func worst(reasons []gatehouse.Reason) gatehouse.Verdict {
	if len(reasons) == 0 {
		return gatehouse.Deny
	}
	v := gatehouse.Allow
	for _, r := range reasons {
		v = min(v, r.Verdict)
	}
	return max(v, gatehouse.Deny)
}

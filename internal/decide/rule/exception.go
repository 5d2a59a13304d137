package rule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// exception says what of the rule does not count for a while: some findings, or all
// that is denied for some reasons.
type exception struct {
	findings   map[string]bool // ids in upper case
	reasons    []string        // codes; "*" is all
	images     []glob.Glob     // none: all of the rule
	namespaces []string        // none: all
	owner, why string
	expires    time.Time
	until      string // expires, as written
}

// allReasons in an exception means the whole rule.
const allReasons = "*"

// excusable are the codes that an exception may name. What fails inside, or could not
// be found out, is not among them.
var excusable = []string{
	decide.CodeRegistryUntrusted, decide.CodeRegistryDenied, decide.CodeDigestMissing, decide.CodeUnscanned, decide.CodeScanOld, decide.CodeBaseUntrusted,
	decide.CodeSeverityExceeded, decide.CodeKnownExploited, decide.CodeEPSSExceeded, decide.CodeFindingDenied,
	decide.CodeSignatureMissing, decide.CodeSignatureInvalid, decide.CodeSignaturesTooFew, decide.CodeAttestationMissing,
	decide.CodeAttestationInvalid, decide.CodeAttestationRefused, decide.CodeAttestationOld, decide.CodeProvenanceMissing,
	decide.CodeProvenanceInvalid, decide.CodeProvenanceBuilder, decide.CodeProvenanceLevel, decide.CodeProvenanceSource,
	decide.CodeProvenanceRef, decide.CodeProvenanceBuildType, decide.CodeProvenanceEntryPoint, decide.CodeProvenanceOld,
	decide.CodeLayoutBroken, decide.CodeSBOMMissing, decide.CodePodSecurity, decide.CodeRuleDenied,
}

// concerns reports whether e is about an image, as the object names it, at all.
func (e exception) concerns(req gatehouse.Request, written string) bool {
	if len(e.namespaces) > 0 {
		obj, _ := decoded(req)
		if space := namespaceOf(req, obj); space == "" || !anyWildcard(e.namespaces, space) {
			return false
		}
	}
	return len(e.images) == 0 || glob.AnyMatch(e.images, written)
}

func (e exception) ended(now time.Time) bool { return now.IsZero() || !now.Before(e.expires) }

func (e exception) excuses(code string) bool {
	return slices.Contains(e.reasons, code) || slices.Contains(e.reasons, allReasons) && slices.Contains(excusable, code)
}

// pardoned is the exception in force that takes the whole rule from an image, nil if
// there is none. Nothing has to be known of the image then.
func (p *Policy) pardoned(req gatehouse.Request, written string) *exception {
	for i, e := range p.exceptions {
		if slices.Contains(e.reasons, allReasons) && !e.ended(req.Now) && e.concerns(req, written) {
			return &p.exceptions[i]
		}
	}
	return nil
}

func (e exception) note(what string) gatehouse.Reason {
	return note(decide.CodeExceptionApplied, "", "left out until %s by an exception of %s (%s): %s", e.until, short(e.owner), short(e.why), what)
}

func (e exception) over() string {
	return fmt.Sprintf("the exception of %s ended on %s", short(e.owner), e.until)
}

// except takes the findings that exceptions in force name out of the count. notes tell
// of them, and of those that have ended.
func (p *Policy) except(req gatehouse.Request, written string, findings []gatehouse.Finding) (out []gatehouse.Finding, notes []gatehouse.Reason) {
	out = findings
	for _, e := range p.exceptions {
		if len(e.findings) == 0 || !e.concerns(req, written) {
			continue
		}
		var ids []string
		ended := e.ended(req.Now)
		for i, f := range out {
			if f.Suppressed != nil || !named(e.findings, f) {
				continue
			}
			if !slices.Contains(ids, f.ID) {
				ids = append(ids, f.ID)
			}
			if ended {
				continue
			}
			if len(out) > 0 && &out[0] == &findings[0] {
				out = slices.Clone(findings)
			}
			out[i].Suppressed = &gatehouse.Suppression{By: gatehouse.SuppressedByException, Reason: e.why, Author: e.owner, Expires: e.expires}
		}
		switch {
		case len(ids) == 0:
		case ended:
			notes = append(notes, note(decide.CodeExceptionEnded, "", "%s, which left out: %s", e.over(), names(ids)))
		default:
			notes = append(notes, e.note(names(ids)))
		}
	}
	return out, notes
}

// excuse turns denials for reasons that exceptions in force name into notes.
func (p *Policy) excuse(req gatehouse.Request, written string, reasons []gatehouse.Reason) []gatehouse.Reason {
	for i, r := range reasons {
		if r.Verdict == gatehouse.Warn || r.Verdict == gatehouse.Allow {
			continue
		}
		for _, e := range p.exceptions {
			if !e.excuses(r.Code) || !e.concerns(req, written) {
				continue
			}
			if !e.ended(req.Now) {
				reasons[i].Verdict = gatehouse.Allow
				reasons[i].Message = fmt.Sprintf("excepted until %s by %s (%s): %s", e.until, short(e.owner), short(e.why), r.Message)
				reasons[i].Hint = ""
				break
			}
			if !strings.Contains(reasons[i].Hint, e.over()) {
				reasons[i].Hint = strings.TrimPrefix(reasons[i].Hint+"; "+e.over(), "; ")
			}
		}
	}
	return reasons
}

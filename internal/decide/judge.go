package decide

import (
	"context"
	"fmt"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// verdictOf is one policy's contribution, collected under recover so that a
// panic leaves nothing half said.
type verdictOf struct {
	name    string
	mode    Mode
	picks   []int
	other   map[int]bool // those of picks that it speaks of by another name
	isImage bool
	applies bool
	passed  []int // images that it vouches for
	asked   []gatehouse.Need
	reasons []gatehouse.Reason
}

// policy lets p judge. Without facts only policies that need none are asked,
// and the others only for what they pick.
func (s *session) policy(ctx context.Context, p Policy, facts bool) {
	var v verdictOf
	func() {
		defer func() {
			if r := recover(); r != nil {
				v.applies = true
				v.reasons = []gatehouse.Reason{{
					Verdict: v.faulty(), Code: CodePolicyPanic,
					Message: "the policy failed inside and gave no judgement",
				}}
			}
		}()
		v.judge(ctx, p, s.set.Names, s.req, facts)
	}()
	if v.applies {
		s.judged++
	}
	for i := range v.reasons {
		v.reasons[i].Policy = v.name
		s.add(v.reasons[i])
	}
	if facts {
		s.tree = append(s.tree, v.step(s.req))
	}
	if v.mode == DryRun {
		return // it changes nothing, also not for images that nobody else speaks of
	}
	s.picks = s.picks || v.isImage
	for _, i := range v.picks {
		if v.other[i] && !s.set.Names.Vouch {
			continue
		}
		if s.matched == nil {
			s.matched = map[int]bool{}
		}
		s.matched[i] = true
	}
}

func (v *verdictOf) judge(ctx context.Context, p Policy, names Names, req gatehouse.Request, facts bool) {
	ip, isImage := p.(ImagePolicy)
	v.isImage = isImage
	v.name = p.Name()
	if m, ok := p.(moded); ok {
		v.mode = m.Mode()
	}
	if isImage {
		seen := names.view(ip, req)
		req, v.picks, v.other = seen.Request, seen.picks, seen.other
		v.picks = slices.DeleteFunc(v.picks, func(i int) bool { return !asks(p, req.Images[i]) })
		if len(v.picks) == 0 {
			return
		}
	}
	needs := needed(p, req)
	if !facts && len(needs) > 0 {
		return
	}
	v.applies, v.asked = true, needs
	bad := map[int]bool{}
	if s, ok := p.(Settling); !ok || !s.SettlesNeeds() {
		bad = v.needs(req, needs)
	}
	if !isImage && len(bad) > 0 {
		return
	}
	j := p.Judge(ctx, req)
	v.passed = j.Passed
	fields := map[string]bool{} // of images whose facts are missing: what else is said of them is only a consequence
	for i := range bad {
		fields[req.Images[i].Field] = true
	}
	for _, f := range req.Images { // what is said of an image that was not asked about
		fields[f.Field] = fields[f.Field] || !asks(p, f)
	}
	denied := map[string]bool{}
	for _, r := range j.Reasons {
		if r.Field != "" && fields[r.Field] {
			continue
		}
		if r.Verdict != gatehouse.Warn && r.Verdict != gatehouse.Allow {
			denied[r.Field] = true
		}
		v.say(r)
	}
	if isImage {
		v.pinned(req, needs, bad, denied)
	}
	v.total(req, j, bad, denied)
}

// needs turns every need that was not answered into a reason and returns the
// images concerned.
func (v *verdictOf) needs(req gatehouse.Request, needs []gatehouse.Need) map[int]bool {
	bad := map[int]bool{}
	for _, n := range needs {
		if n.Image < 0 || n.Image >= len(req.Images) {
			v.fault("the policy asks for facts of an image that the object does not have", gatehouse.ImageFacts{})
			bad[0] = true
			continue
		}
		r, unanswered := Unanswered(req.Images[n.Image], n.Name)
		if !unanswered {
			continue
		}
		bad[n.Image] = true
		if !slices.ContainsFunc(v.reasons, func(o gatehouse.Reason) bool {
			return o.Field == r.Field && o.Code == r.Code && o.Message == r.Message
		}) {
			v.say(r)
		}
	}
	return bad
}

// Unanswered is the reason why a need was not answered; false: it was.
func Unanswered(f gatehouse.ImageFacts, need string) (gatehouse.Reason, bool) {
	r := gatehouse.Reason{Image: f.Written, Field: f.Field}
	if err, failed := f.Failed[need]; failed {
		r.Code, r.Message, r.Hint = failure(err)
		return r, true
	}
	if f.Image.Digest == "" {
		r.Code = CodeImageUnresolved
		r.Message = fmt.Sprintf("%s must be an image digest", f.Written)
		r.Hint = "the reference was not resolved to a digest; write it as name@sha256:…"
		return r, true
	}
	return r, false
}

// total denies where the judgement leaves a gap, whatever the policy's mode.
func (v *verdictOf) total(req gatehouse.Request, j Judgement, bad map[int]bool, denied map[string]bool) {
	anyDenied := len(denied) > 0
	switch {
	case j.Outcome < NotApplicable || j.Outcome > Passed:
		v.fault("the policy gave no judgement", gatehouse.ImageFacts{})
		return
	case !v.isImage && j.Outcome == NotApplicable:
		v.applies = false
		return
	case !v.isImage && j.Outcome == Failed && !anyDenied:
		v.say(gatehouse.Reason{Code: CodeRuleDenied, Message: "the policy says no"})
		return
	}
	if !v.isImage {
		return
	}
	for _, i := range v.picks {
		f := req.Images[i]
		if !bad[i] && !slices.Contains(j.Passed, i) && !denied[f.Field] {
			v.fault("the policy gave no judgement of this image", f)
		}
	}
}

// fault is our own failure: it denies even for a policy that only warns, and warns
// for one that is only tried.
func (v *verdictOf) fault(message string, f gatehouse.ImageFacts) {
	v.reasons = append(v.reasons, gatehouse.Reason{
		Verdict: v.faulty(), Code: CodeNoJudgement, Message: message, Image: f.Written, Field: f.Field,
	})
}

func (v *verdictOf) faulty() gatehouse.Verdict {
	if v.mode == DryRun {
		return gatehouse.Warn
	}
	return gatehouse.Deny
}

// say adds what the policy says, in its mode.
func (v *verdictOf) say(r gatehouse.Reason) {
	if r.Verdict != gatehouse.Warn && r.Verdict != gatehouse.Allow {
		r.Verdict = gatehouse.Deny
		switch v.mode {
		case WarnOnly:
			r.Verdict = gatehouse.Warn
		case DryRun:
			r.Verdict, r.Message = gatehouse.Allow, "dry run, would deny: "+r.Message
		}
	} else if r.Verdict == gatehouse.Warn && v.mode == DryRun {
		r.Verdict, r.Message = gatehouse.Allow, "dry run, would warn: "+r.Message
	}
	v.reasons = append(v.reasons, r)
}

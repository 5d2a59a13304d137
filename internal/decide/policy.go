package decide

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Policy is one rule. Its methods are pure: no I/O, no clock, the same answer
// for the same request, safe for concurrent use.
type Policy interface {
	// Name is unique in a set.
	Name() string
	// Needs lists the facts that Judge must have of the images of the request;
	// it may depend on the object and the written references only, never on
	// facts.
	Needs(gatehouse.Request) []gatehouse.Need
	// Judge is called when all needs are answered. ctx bounds the time.
	Judge(ctx context.Context, req gatehouse.Request) Judgement
}

// ImagePolicy is a Policy that picks images by name and vouches for those that
// pass. Picks lists the indexes of req.Images that the policy speaks of, in
// their order; it must not depend on facts. It is asked for all at once, so
// that an object of many images is read once and not once per image.
type ImagePolicy interface {
	Policy
	Picks(req gatehouse.Request) []int
}

// Mode says what a failing policy does.
type Mode int

const (
	Enforce  Mode = iota // denies
	WarnOnly             // warns
	DryRun               // notes what it would do, and vouches for nothing
)

// moded is a Policy with a mode; others enforce.
type moded interface{ Mode() Mode }

// Settling is an ImagePolicy that may pass an image although one of its needs was
// not answered, since another one is enough: its Judge asks [Unanswered] itself. For
// others a need that was not answered denies.
type Settling interface{ SettlesNeeds() bool }

// objectJudge is an ImagePolicy that may judge more of the object than its images
// and what they run in: it is also asked about images that an update leaves alone.
type objectJudge interface{ JudgesObject() bool }

// tagPinner is an ImagePolicy that wants digests although it needs no facts.
type tagPinner interface{ WantsDigest() bool }

// asks reports whether p is to be asked about an image: not about one that an
// update leaves as it was, unless p judges more than images.
func asks(p Policy, f gatehouse.ImageFacts) bool {
	if !f.Unchanged {
		return true
	}
	if _, isImage := p.(ImagePolicy); !isImage {
		return true
	}
	o, ok := p.(objectJudge)
	return ok && o.JudgesObject()
}

// needed lists the facts that p needs of the images that it is asked about.
func needed(p Policy, req gatehouse.Request) []gatehouse.Need {
	return slices.DeleteFunc(slices.Clone(p.Needs(req)), func(n gatehouse.Need) bool {
		return n.Image >= 0 && n.Image < len(req.Images) && !asks(p, req.Images[n.Image])
	})
}

// Outcome is what a policy found. The zero value is no judgement, and denies.
type Outcome int

const (
	Unjudged      Outcome = iota
	NotApplicable         // the policy does not speak of this object
	Failed                // it says no
	Passed                // it says yes
)

// Judgement is what one policy says. Its zero value denies.
type Judgement struct {
	Outcome Outcome
	// Passed lists, for an ImagePolicy, the indexes of the images that it found
	// good. An image that it picked and does not list here is denied.
	Passed []int
	// Reasons explain. A reason with verdict Deny denies whatever Outcome says;
	// a reason about an image has its Field.
	Reasons []gatehouse.Reason
}

// PolicySet is all policies of one cluster. The zero PolicySet denies.
type PolicySet struct {
	Policies []Policy
	// NoMatch is for images that no image policy picks, in a set that has
	// image policies.
	NoMatch gatehouse.Verdict
	// Complete: every policy that there should be has been read.
	Complete bool
	// Lacks says what keeps it from being complete, for those who are denied.
	Lacks string
	// Digest names the set by its sources.
	Digest gatehouse.Digest
	// Names are those of the registry whose images image policies speak of by
	// whichever of them.
	Names Names
	// Lookups are the kinds of objects that policies look up beside the one that
	// they judge; an empty Group, Version or Kind is any, as "*" is. Whoever asks
	// gives them in Request.Inventory. A policy that misses them denies.
	Lookups []gatehouse.ObjectKind
}

// Images lists the images that req's object would run, with parsed references
// and no facts. An object that cannot be read has none here; Decide denies it.
func (s PolicySet) Images(req gatehouse.Request) []gatehouse.ImageFacts {
	if len(req.Object) == 0 {
		return req.Images
	}
	facts, _, err := objectImages(req)
	if err != nil {
		return nil
	}
	return facts
}

// Needs lists the facts that the policies of the set ask for, but for images that an
// update leaves alone. A policy that panics asks for nothing here; Decide denies for it.
func (s PolicySet) Needs(req gatehouse.Request) []gatehouse.Need {
	var needs []gatehouse.Need
	req = s.Names.also(req)
	for _, p := range s.Policies {
		asked, err := s.needsOf(p, req)
		if err == nil {
			needs = append(needs, asked...)
		}
	}
	return needs
}

// Refused reports whether req is denied whatever facts may be found: by a
// policy that needs none, because no policy picks one of its images, or
// because the set or the object is broken. Gathering asks before it contacts a
// registry that is not ours.
func (s PolicySet) Refused(ctx context.Context, req gatehouse.Request) (refused bool) {
	defer func() {
		if recover() != nil {
			refused = true
		}
	}()
	j := session{set: s, req: s.Names.also(req)}
	ctx = withMemo(ctx)
	j.object()
	j.wholeSet()
	for _, p := range s.Policies {
		j.policy(ctx, p, false)
	}
	j.unmatched()
	return j.denied()
}

func (s PolicySet) needsOf(p Policy, req gatehouse.Request) (needs []gatehouse.Need, err error) {
	defer func() {
		if r := recover(); r != nil {
			needs, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	if ip, ok := p.(ImagePolicy); ok {
		req = s.Names.view(ip, req).Request
	}
	return needed(p, req), nil
}

// Silent lists those of the named policies that pick images and pick none of req's.
// CodeNotFound: s has no policy of a name.
func (s PolicySet) Silent(req gatehouse.Request, names ...string) (out []string, err error) {
	req.Images = s.Images(req)
	for _, name := range names {
		i := slices.IndexFunc(s.Policies, func(p Policy) bool { return p.Name() == name })
		if i < 0 {
			return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no policy %q", clip(name)).WithHint("%s", s.hint())
		}
		if ip, ok := s.Policies[i].(ImagePolicy); ok && len(s.Names.view(ip, req).picks) == 0 {
			out = append(out, name)
		}
	}
	return out, nil
}

// NeedName names a need of a policy by what it is for. Parts may hold any text:
// different ones give different names.
func NeedName(policy string, parts ...string) string {
	var b strings.Builder
	b.WriteString(policy)
	for _, part := range parts {
		b.WriteString("/" + partEscaper.Replace(part))
	}
	return b.String()
}

var partEscaper = strings.NewReplacer("%", "%25", "/", "%2F")

// hintMax is how many names a hint lists.
const hintMax = 20

func (s PolicySet) hint() string {
	var names []string
	for _, p := range s.Policies {
		names = append(names, p.Name())
	}
	if len(names) == 0 {
		return "add a policy first"
	}
	slices.Sort(names)
	if len(names) > hintMax {
		names = append(names[:hintMax], "…")
	}
	return "policies are " + strings.Join(names, ", ")
}

// WithReasons adds reasons to a decision that was made, which can only get worse
// by it.
func WithReasons(d gatehouse.Decision, more ...gatehouse.Reason) gatehouse.Decision {
	d.Reasons = finish(append(slices.Clone(d.Reasons), more...))
	d.Verdict = min(d.Verdict, worst(d.Reasons))
	return d
}

package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of the tree of one decision: it is kept, and people read it.
const (
	stepsMax      = 1500 // nodes, policies and what stands for others aside
	policiesMax   = 200  // that it shows
	candidatesMax = 20   // of one need
	stepTextMax   = 500  // bytes of one message
)

// step is the tree of what the policy did: policy → image → authority → candidate
// → check. It is made of the same facts and reasons as the decision.
func (v *verdictOf) step(req gatehouse.Request) gatehouse.Step {
	top := gatehouse.Step{Kind: gatehouse.StepPolicy, Name: v.name, Result: gatehouse.StepPassed}
	if v.mode == WarnOnly {
		top.Message = "warns only"
	}
	if !v.applies && len(v.reasons) == 0 {
		top.Result = gatehouse.StepSkipped
		top.Message = "does not speak of this object"
		if v.isImage {
			top.Message = "picks no image of this object"
		}
		return top
	}
	for _, r := range v.reasons {
		if !ofImage(req, r.Field) {
			top.Steps = append(top.Steps, check(r))
		}
	}
	for _, i := range v.spokenOf(req) {
		top.Steps = append(top.Steps, v.image(req, i))
	}
	if top.Result = worstStep(top.Steps, gatehouse.StepPassed); v.mode == DryRun {
		top.Result, top.Message = gatehouse.StepSkipped, "is only tried"
	}
	return top
}

// ofImage reports whether field is that of an image of the request.
func ofImage(req gatehouse.Request, field string) bool {
	return slices.ContainsFunc(req.Images, func(f gatehouse.ImageFacts) bool { return f.Field == field })
}

// spokenOf lists the images that the policy picked, asked about or has a reason
// about.
func (v *verdictOf) spokenOf(req gatehouse.Request) []int {
	said := map[string]bool{}
	for _, r := range v.reasons {
		said[r.Field] = true
	}
	asked := map[int]bool{}
	for _, n := range v.asked {
		asked[n.Image] = true
	}
	for _, i := range v.picks {
		asked[i] = true
	}
	var list []int
	for i, f := range req.Images {
		if asked[i] || said[f.Field] {
			list = append(list, i)
		}
	}
	return list
}

// image is what the policy did about one image.
func (v *verdictOf) image(req gatehouse.Request, i int) gatehouse.Step {
	f := req.Images[i]
	b := treeOf{facts: f, feedAt: req.FeedAt}
	for _, r := range v.reasons {
		if r.Field == f.Field {
			b.reasons = append(b.reasons, r)
		}
	}
	for _, n := range v.asked {
		if n.Image == i {
			b.need(n, strings.TrimPrefix(n.Name, v.name+"/"))
		}
	}
	if f.TagFixed && f.Image.Digest != "" {
		b.steps = append(b.steps, gatehouse.Step{Kind: gatehouse.StepCheck, Name: "tag-immutable", Digest: f.Image.Digest, Result: gatehouse.StepPassed,
			Message: "the tag is immutable in this registry and never named another image: it cannot move between this decision and the pull"})
	}
	b.rest()
	step := gatehouse.Step{Kind: gatehouse.StepImage, Name: short(f.Written), Digest: f.Image.Digest, Result: gatehouse.StepPassed, Steps: b.steps}
	// One authority of several is enough: what the policy says of the image counts,
	// not the worst of its steps.
	for _, r := range b.reasons {
		step.Result = worseStep(step.Result, result(r.Verdict))
	}
	if v.isImage && !slices.Contains(v.passed, i) && step.Result == gatehouse.StepPassed {
		step.Result = gatehouse.StepFailed
	}
	return step
}

// treeOf builds the steps below one image.
type treeOf struct {
	facts   gatehouse.ImageFacts
	feedAt  time.Time
	reasons []gatehouse.Reason
	shown   []bool // reasons that stand at a candidate already
	steps   []gatehouse.Step
	unasked []gatehouse.Step // needs that were not answered
}

// need adds what was asked for, and what was found.
func (b *treeOf) need(n gatehouse.Need, name string) {
	if b.shown == nil {
		b.shown = make([]bool, len(b.reasons))
	}
	step := gatehouse.Step{Kind: gatehouse.StepFacts, Name: short(name), Result: gatehouse.StepPassed}
	if err, failed := b.facts.Failed[n.Name]; failed {
		step.Result = gatehouse.StepFailed
		step.Code, step.Message, _ = failure(err)
		step.Message = short(step.Message)
		b.unasked = append(b.unasked, step)
	} else {
		b.fill(&step, n)
	}
	switch n.Kind {
	case gatehouse.NeedFindings, gatehouse.NeedConfig, gatehouse.NeedPlatforms, gatehouse.NeedBuilds, gatehouse.NeedDigest, gatehouse.NeedNothing:
		b.steps = append(b.steps, step)
		return
	}
	at := b.authority(n.Authority)
	if n.Kind == gatehouse.NeedSignature && len(at.Steps) == 0 && at.Code == "" {
		at.Result, at.Code, at.Message, at.Steps = step.Result, step.Code, step.Message, step.Steps
		return
	}
	step.Kind, step.Name = gatehouse.StepAttestation, cmp.Or(short(n.Predicate), step.Name)
	at.Steps = append(at.Steps, step)
	at.Result = worstStep(at.Steps, gatehouse.StepPassed)
}

// authority finds the step of an authority, or adds it.
func (b *treeOf) authority(a gatehouse.Authority) *gatehouse.Step {
	i := slices.IndexFunc(b.steps, func(s gatehouse.Step) bool {
		return s.Kind == gatehouse.StepAuthority && s.Name == short(a.Name)
	})
	if i < 0 {
		b.steps = append(b.steps, gatehouse.Step{Kind: gatehouse.StepAuthority, Name: short(a.Name), Result: gatehouse.StepFailed})
		i = len(b.steps) - 1
	}
	return &b.steps[i]
}

// fill says what answered a need.
func (b *treeOf) fill(step *gatehouse.Step, n gatehouse.Need) {
	switch n.Kind {
	case gatehouse.NeedFindings:
		b.findings(step)
		return
	case gatehouse.NeedConfig:
		step.Message = fmt.Sprintf("the configuration has %d bytes", len(b.facts.Config))
		return
	case gatehouse.NeedPlatforms:
		step.Message = fmt.Sprintf("%d configurations, one for each platform", len(b.facts.Platforms))
		return
	case gatehouse.NeedBuilds:
		step.Message = fmt.Sprintf("what it is built on, of %d images", len(b.facts.Builds))
		return
	case gatehouse.NeedDigest:
		step.Digest = b.facts.Image.Digest
		return
	}
	step.Result = gatehouse.StepFailed
	left := 0
	add := func(c gatehouse.Step) {
		if len(step.Steps) >= candidatesMax {
			left++
			return
		}
		step.Steps = append(step.Steps, c)
	}
	for _, e := range b.facts.Evidence {
		if e.Need != n.Name {
			continue
		}
		c := b.evidence(e)
		if c.Result != gatehouse.StepFailed {
			step.Result = gatehouse.StepPassed
		}
		add(c)
	}
	for _, r := range b.facts.Rejected {
		if r.Need == n.Name || r.Need == "" {
			add(rejected(r))
		}
	}
	switch {
	case len(step.Steps) == 0:
		step.Message = "nothing that could count is attached to the image"
	case left > 0:
		step.Message = fmt.Sprintf("%d more candidates are not shown", left)
	}
}

func (b *treeOf) findings(step *gatehouse.Step) {
	inv := b.facts.Inventory
	if inv == nil {
		step.Result, step.Message = gatehouse.StepFailed, short(strings.Join(append([]string{"not scanned"}, b.facts.Incomplete...), ": "))
		return
	}
	step.Message = fmt.Sprintf("%d packages, %d findings", len(inv.Packages), len(b.facts.Findings))
	if !b.feedAt.IsZero() {
		step.Message += ", advisories of " + b.feedAt.UTC().Format(time.RFC3339)
	}
	if !b.facts.Complete || !inv.Complete {
		step.Result = gatehouse.StepFailed
		step.Message = short(step.Message + "; incomplete: " + strings.Join(append(slices.Clone(b.facts.Incomplete), inv.Incomplete...), "; "))
	}
}

// evidence is a candidate whose cryptography held, with what was checked.
func (b *treeOf) evidence(e gatehouse.Evidence) gatehouse.Step {
	c := gatehouse.Step{Kind: gatehouse.StepCandidate, Name: short(e.Format), Digest: e.Artifact, Result: gatehouse.StepPassed, Message: short(e.Predicate)}
	add := func(name string, digest gatehouse.Digest, message string) {
		c.Steps = append(c.Steps, gatehouse.Step{Kind: gatehouse.StepCheck, Name: name, Result: gatehouse.StepPassed, Digest: digest, Message: short(message)})
	}
	if e.Subject == "" || e.Subject != b.facts.Image.Digest {
		c.Steps = append(c.Steps, gatehouse.Step{Kind: gatehouse.StepCheck, Name: "subject", Result: gatehouse.StepFailed, Digest: e.Subject, Message: "is about another image"})
	} else {
		add("subject", e.Subject, "")
	}
	if e.Through != "" {
		add("index", e.Through, "the index that lists the image was signed")
	}
	if e.Identity.Key != "" {
		add("key", e.Identity.Key, "")
	}
	if e.Identity.Subject != "" {
		add("identity", "", e.Identity.Subject+" of "+e.Identity.Issuer)
	}
	if e.Log != nil {
		add("log", "", fmt.Sprintf("entry %d of log %s", e.Log.Index, e.Log.Log))
	}
	if !e.SignedAt.IsZero() {
		add("time", "", "signed at "+e.SignedAt.UTC().Format(time.RFC3339))
	}
	if !e.ExpiresAt.IsZero() {
		add("expiry", "", "holds until "+e.ExpiresAt.UTC().Format(time.RFC3339))
	}
	b.judged(&c, e.Artifact)
	c.Result = worstStep(c.Steps, gatehouse.StepPassed)
	return c
}

// judged adds what the policy says of a candidate beyond its signature.
func (b *treeOf) judged(c *gatehouse.Step, artifact gatehouse.Digest) {
	for i, r := range b.reasons {
		if artifact != "" && slices.Contains(r.Evidence, artifact) {
			b.shown[i] = true
			if r.Code != CodeSignatureValid && r.Code != CodeAttestationValid {
				c.Steps = append(c.Steps, check(r))
			}
		}
	}
}

// rejected is a candidate that did not become evidence.
func rejected(r gatehouse.Rejected) gatehouse.Step {
	name := short(r.Format)
	if r.Artifact == "" {
		return gatehouse.Step{Kind: gatehouse.StepCheck, Name: cmp.Or(name, "candidates"), Result: gatehouse.StepFailed, Code: short(r.Code), Message: short(r.Message)}
	}
	return gatehouse.Step{
		Kind: gatehouse.StepCandidate, Name: cmp.Or(name, "unknown format"), Digest: r.Artifact, Result: gatehouse.StepFailed,
		Steps: []gatehouse.Step{{Kind: gatehouse.StepCheck, Name: cmp.Or(short(r.Code), "check"), Result: gatehouse.StepFailed, Code: short(r.Code), Message: short(r.Message)}},
	}
}

// rest adds the reasons that stand at no candidate: at the authority that they
// name, if one, else at the image.
func (b *treeOf) rest() {
	for i, r := range b.reasons {
		c := check(r)
		if b.shown != nil && b.shown[i] || slices.ContainsFunc(b.unasked, func(s gatehouse.Step) bool { return s.Code == c.Code && s.Message == c.Message }) {
			continue
		}
		if r.Authority == "" {
			b.steps = append(b.steps, c)
			continue
		}
		at := b.authority(gatehouse.Authority{Name: r.Authority})
		fresh := len(at.Steps) == 0 && at.Code == ""
		switch {
		case fresh:
			at.Result = c.Result
		case at.Code == r.Code: // it says why nothing could be asked already
			continue
		case c.Result != gatehouse.StepPassed:
			at.Result = worseStep(at.Result, c.Result)
		}
		at.Steps = append(at.Steps, c)
	}
}

// check is a reason as a step.
func check(r gatehouse.Reason) gatehouse.Step {
	return gatehouse.Step{Kind: gatehouse.StepCheck, Name: r.Code, Code: r.Code, Result: result(r.Verdict), Message: short(r.Message)}
}

func result(v gatehouse.Verdict) gatehouse.StepResult {
	switch v {
	case gatehouse.Allow:
		return gatehouse.StepPassed
	case gatehouse.Warn:
		return gatehouse.StepWarned
	}
	return gatehouse.StepFailed
}

// stepOrder sorts results from worst to best.
var stepOrder = map[gatehouse.StepResult]int{gatehouse.StepFailed: 0, gatehouse.StepWarned: 1, gatehouse.StepPassed: 2, gatehouse.StepSkipped: 3}

func worseStep(a, b gatehouse.StepResult) gatehouse.StepResult {
	if stepOrder[b] < stepOrder[a] {
		return b
	}
	return a
}

func worstStep(steps []gatehouse.Step, start gatehouse.StepResult) gatehouse.StepResult {
	for _, s := range steps {
		start = worseStep(start, s.Result)
	}
	return start
}

// prune puts the policies that object first and keeps the tree within its limits:
// what is left out is counted where it would stand.
func prune(tree []gatehouse.Step) []gatehouse.Step {
	slices.SortStableFunc(tree, func(a, b gatehouse.Step) int { return cmp.Compare(stepOrder[a.Result], stepOrder[b.Result]) })
	left := stepsMax
	for i := range tree {
		tree[i].Steps = cut(tree[i].Steps, &left)
	}
	if more := len(tree) - policiesMax; more > 0 {
		tree = append(tree[:policiesMax:policiesMax], gatehouse.Step{
			Kind: gatehouse.StepPolicy, Name: fmt.Sprintf("and %d more", more), Result: tree[policiesMax].Result, Message: "not shown",
		})
	}
	return tree
}

// cut keeps as many steps as left allows, depth first.
func cut(steps []gatehouse.Step, left *int) []gatehouse.Step {
	for i := range steps {
		if *left <= 0 {
			gone := gatehouse.Step{
				Kind: gatehouse.StepCheck, Name: "more", Result: worstStep(steps[i:], gatehouse.StepPassed), Message: fmt.Sprintf("%d more are not shown", len(steps)-i),
			}
			return append(steps[:i:i], gone)
		}
		*left--
		steps[i].Steps = cut(steps[i].Steps, left)
	}
	return steps
}

// short clips foreign text for a tree.
func short(s string) string {
	if len(s) <= stepTextMax {
		return s
	}
	return strings.ToValidUTF8(s[:stepTextMax], "") + "…"
}

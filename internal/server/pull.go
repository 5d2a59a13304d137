package server

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

// pullGate decides whether images of projects with a pull policy may be pulled. It
// implements registry.Gate. Of a project without one it is never asked.
//
// Decisions that follow from signatures alone are remembered for as long as
// policies, settings and everything that hangs on the image and on the indexes that
// list it stay the same, which one small transaction tells; what vulnerabilities
// have a say in is decided anew each time.
type pullGate struct {
	db       *db.DB
	policies *policies
	facts    *facts
	decider  *decider
	access   namedAuth

	mu      sync.Mutex
	known   map[string]pullDecision   // by repository, tag and digest; guarded by mu
	text    map[gatehouse.Digest]bool // whether the layers of a manifest are text; guarded by mu
	flights singleflight.Group
}

type pullDecision struct {
	state    string // everything that it follows from; empty: more than can be told
	decision gatehouse.Decision
	at       time.Time
}

const (
	pullsKnownMax = 10_000
	// pullKnownAge bounds how long a decision is remembered in any case.
	pullKnownAge = 5 * time.Minute
	// pullSameAge is how long a decision that says the same is the same one: kept ones
	// do not live for ever.
	pullSameAge = 24 * time.Hour
	// ancestorsMax bounds the indexes whose signatures count for an image that they
	// list.
	ancestorsMax = 32
	// pullOperation is the operation of a request that is a pull.
	pullOperation = "PULL"
)

// pullState is what a decision about a pull follows from.
type pullState struct {
	policy    db.PullPolicy
	ancestors []gatehouse.Digest
	text      string
}

// Pull implements registry.Gate.
func (g *pullGate) Pull(ctx context.Context, actor gatehouse.Actor, m *gatehouse.Manifest, tag string) (warning string, err error) {
	if m.Pull == gatehouse.PullOff || !g.runs(ctx, m, tag) || g.exempt(ctx, actor, m.Repo) {
		return "", nil
	}
	d, p, err := g.decide(ctx, m.Repo, tag, m.Digest)
	if err != nil {
		return "", err
	}
	switch {
	case p.Mode == gatehouse.PullOff || d.Verdict == gatehouse.Allow:
		return "", nil
	case d.Verdict == gatehouse.Warn || p.Mode == gatehouse.PullWarn:
		return denial(d, m.Repo, tag, m.Digest).Message, nil
	}
	return "", denial(d, m.Repo, tag, m.Digest)
}

// runs reports whether a runtime could run what is pulled. What cannot be read counts
// as if it could.
func (g *pullGate) runs(ctx context.Context, m *gatehouse.Manifest, tag string) bool {
	may, layers := mayRun(m, tag)
	if may || len(layers) == 0 {
		return may
	}
	g.mu.Lock()
	text, known := g.text[m.Digest]
	g.mu.Unlock()
	if known {
		return !text
	}
	text, err := g.facts.onlyText(ctx, m.Repo, layers)
	if err != nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.text == nil || len(g.text) >= pullsKnownMax {
		g.text = map[gatehouse.Digest]bool{}
	}
	g.text[m.Digest] = text
	return !text
}

// exempt lets those read who have to before an image can be allowed: whoever may
// push, and so sign, and scanners that were given a token for it.
func (g *pullGate) exempt(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo) bool {
	return actor.Source == pullTokenSource || g.access.Allow(ctx, actor, registry.ActionPush, repo)
}

// pullDenied is what machines are told of a denial.
type pullDenied struct {
	Reason   string           `json:"reason"`
	Policy   string           `json:"policy,omitempty"`
	Digest   gatehouse.Digest `json:"digest"`
	Decision string           `json:"decision"`
}

func (d pullDenied) Error() string   { return d.Reason }
func (d pullDenied) WireDetail() any { return d }

// denial is the error of a pull that the policies do not allow: the first reason,
// what helps, and where the others are found.
func denial(d gatehouse.Decision, repo gatehouse.Repo, tag string, digest gatehouse.Digest) *gatehouse.Error {
	const messageMax = 400
	r := gatehouse.Reason{Code: decide.CodeNoJudgement, Message: "no policy allows it"}
	if len(d.Reasons) > 0 {
		r = d.Reasons[0] // the worst one
	}
	what := string(repo) + "@" + string(digest)
	if tag != "" {
		what = string(repo) + ":" + tag
	}
	by := "the policies do"
	if r.Policy != "" {
		by = "policy " + r.Policy + " does"
	}
	message := r.Message
	if len(message) > messageMax {
		message = strings.ToValidUTF8(message[:messageMax], "") + "…"
	}
	e := gatehouse.Errorf(gatehouse.CodeDenied, "%s not allow to pull %s: %s: %s (decision %s)", by, what, r.Code, message, d.ID).WithDetail("DENIED")
	e.Hint = cmp.Or(r.Hint, "gatehouse explain "+d.ID+" tells more")
	e.Err = pullDenied{Reason: r.Code, Policy: r.Policy, Digest: digest, Decision: d.ID}
	return e
}

// state reads what a decision follows from, in one moment.
func (g *pullGate) state(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (s pullState, err error) {
	turn := g.policies.changes() // before the rest: what changes meanwhile makes this state old
	err = g.db.Read(ctx, func(tx *db.Tx) error {
		if s.policy, _, err = tx.PullPolicy(ctx, repo); err != nil || s.policy.Mode == gatehouse.PullOff {
			return err
		}
		version, err := tx.PolicyVersion(ctx)
		if err != nil {
			return err
		}
		attached, err := tx.AttachedVersion(ctx, repo, digest)
		if err != nil {
			return err
		}
		indexes, err := tx.Ancestors(ctx, repo, digest, ancestorsMax)
		if err != nil {
			return err
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%d %s %q %s %d", version, s.policy.Mode, s.policy.Policies, attached, turn)
		for _, a := range indexes {
			s.ancestors = append(s.ancestors, a.Digest)
			fmt.Fprintf(&b, " %s=%s", a.Digest, a.Version)
		}
		s.text = b.String()
		return nil
	})
	return s, err
}

// decide answers whether an image may be pulled by the policy of its project, which
// is returned with the answer.
func (g *pullGate) decide(ctx context.Context, repo gatehouse.Repo, tag string, digest gatehouse.Digest) (gatehouse.Decision, db.PullPolicy, error) {
	s, err := g.state(ctx, repo, digest)
	if err != nil || s.policy.Mode == gatehouse.PullOff {
		return gatehouse.Decision{}, s.policy, err
	}
	key := string(repo) + "\x00" + tag + "\x00" + string(digest)
	if d, ok := g.remembered(key, s.text); ok {
		return d, s.policy, nil
	}
	// A rollout asks on many nodes at once: one of them pays. It must not fail
	// because that one's client left.
	work := g.flights.DoChan(key+"\x00"+s.text, func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		d, lasting, err := g.judge(ctx, s, repo, tag, digest)
		if err != nil {
			return d, err
		}
		known := pullDecision{decision: d, at: time.Now()}
		if lasting {
			known.state = s.text
		}
		d, anew := g.remember(key, known)
		if anew {
			g.decider.keepDecision(ctx, d, []gatehouse.Digest{digest})
		}
		return d, nil
	})
	select {
	case <-ctx.Done():
		return gatehouse.Decision{}, s.policy, ctx.Err()
	case r := <-work:
		d, _ := r.Val.(gatehouse.Decision)
		return d, s.policy, r.Err
	}
}

func (g *pullGate) remembered(key, state string) (gatehouse.Decision, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k, ok := g.known[key]
	if !ok || k.state != state || time.Since(k.at) > pullKnownAge {
		return gatehouse.Decision{}, false
	}
	return k.decision, true
}

// remember returns the decision that stands: one that says the same as the last is
// that one, so that a thousand pulls of one image are not a thousand decisions.
func (g *pullGate) remember(key string, d pullDecision) (_ gatehouse.Decision, anew bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, ok := g.known[key]
	anew = !ok || last.decision.Verdict != d.decision.Verdict || last.decision.Policies != d.decision.Policies ||
		!reflect.DeepEqual(last.decision.Reasons, d.decision.Reasons) || d.decision.At.Sub(last.decision.At) > pullSameAge
	if !anew {
		d.decision = last.decision
	}
	if g.known == nil || len(g.known) >= pullsKnownMax {
		g.known = map[string]pullDecision{}
	}
	g.known[key] = d
	return d.decision, anew
}

// judge decides. lasting: the answer follows from the state alone.
func (g *pullGate) judge(ctx context.Context, s pullState, repo gatehouse.Repo, tag string, digest gatehouse.Digest) (d gatehouse.Decision, lasting bool, err error) {
	set, version, err := g.policies.versioned(ctx)
	if err != nil {
		return d, false, err
	}
	set = pullPolicies(set, s.policy.Policies)
	req := gatehouse.Request{UID: "pull " + string(repo), Operation: pullOperation, Images: []gatehouse.ImageFacts{g.facts.named(repo, tag, digest)}, Now: time.Now().UTC()}
	sources := g.facts.sources()
	sources.Verifier = throughIndexes{g.facts, s.ancestors}
	known := gather.Facts(ctx, set, req, sources)
	d = g.decider.judgeFacts(ctx, set, known)
	lasting = strings.HasPrefix(s.text, fmt.Sprint(version)+" ") && set.Complete
	for _, n := range set.Needs(req) {
		here := len(n.Authority.Sources) == 0 // elsewhere nobody tells of changes
		lasting = lasting && here && (n.Kind == gatehouse.NeedSignature || n.Kind == gatehouse.NeedAttestation)
	}
	for _, img := range known.Images {
		lasting = lasting && len(img.Failed) == 0
	}
	return d, lasting, nil
}

// named is an image under this server's main name. Policies speak of it by any of
// them: see decide.Names.
func (f *facts) named(repo gatehouse.Repo, tag string, digest gatehouse.Digest) gatehouse.ImageFacts {
	ref := gatehouse.Ref{Registry: f.hosts.names[0], Repo: repo, Tag: tag, Digest: digest}
	written := ref
	if tag != "" {
		written.Digest = "" // policies may speak of tags
	}
	return gatehouse.ImageFacts{Written: written.String(), Field: "image", Image: ref}
}

// pullPolicies are those of a set that decide about pulls: image policies, those
// that are named or all. What none of them speaks of, by any name of this server, is
// denied, and so is everything where one that is named is missing.
func pullPolicies(set decide.PolicySet, names []string) decide.PolicySet {
	out := decide.PolicySet{NoMatch: gatehouse.Deny, Complete: set.Complete, Lacks: set.Lacks, Digest: set.Digest, Names: set.Names}
	out.Names.Vouch = true // whoever pulls chooses the name, and it is ours in any case
	found := map[string]bool{}
	for _, p := range set.Policies {
		if _, ok := p.(decide.ImagePolicy); ok && (len(names) == 0 || slices.Contains(names, p.Name())) {
			out.Policies, found[p.Name()] = append(out.Policies, p), true
		}
	}
	for _, name := range names {
		if !found[name] {
			out.Policies = append(out.Policies, missingPolicy(name))
		}
	}
	return out
}

// missingPolicy stands for a policy that a project names and that is not there.
type missingPolicy string

// Name implements decide.Policy.
func (p missingPolicy) Name() string { return string(p) }

// Needs implements decide.Policy.
func (missingPolicy) Needs(gatehouse.Request) []gatehouse.Need { return nil }

// Judge implements decide.Policy: it says no.
func (p missingPolicy) Judge(context.Context, gatehouse.Request) decide.Judgement {
	return decide.Judgement{Outcome: decide.Failed, Reasons: []gatehouse.Reason{{
		Verdict: gatehouse.Deny, Code: "policy-missing", Message: "the project asks for this policy, which is not in force",
		Hint: "an administrator can put the policy, or change the project: gatehouse project update",
	}}}
}

// throughIndexes verifies images of this registry. Signatures and attestations of an
// index count for what it lists, itself or by an index between them.
type throughIndexes struct {
	*facts
	indexes []gatehouse.Digest // that list the image, itself or through another
}

// Verify implements gather.Verifier.
func (t throughIndexes) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	evidence, rejected, err := t.facts.Verify(ctx, ref, need)
	any := need.Authority.AnyAttestation // of which each type is found by itself
	if err != nil || len(evidence) > 0 && !any || need.Kind != gatehouse.NeedSignature && need.Kind != gatehouse.NeedAttestation {
		return evidence, rejected, err
	}
	nearer := map[string]bool{} // types of what was found up to here
	for _, e := range evidence {
		nearer[e.Predicate] = true
	}
	for _, index := range t.indexes {
		signed := ref
		signed.Digest = index
		list, _, err := t.facts.Verify(ctx, signed, need)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range list {
			if !nearer[e.Predicate] {
				e.Subject, e.Through = ref.Digest, index
				evidence = append(evidence, e)
			}
		}
		for _, e := range list {
			nearer[e.Predicate] = true
		}
		if len(evidence) > 0 && !any {
			break
		}
	}
	return evidence, rejected, nil
}

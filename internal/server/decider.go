package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// decider answers requests: it gathers what the policies in force need and lets
// them judge. Decisions are kept, a moment later, so that they can be explained.
type decider struct {
	db         *db.DB
	policies   *policies
	facts      *facts
	cluster    cluster
	kubernetes *kubernetes // nil: none
	reviews    *reviews
	// glass answers denials that a token overrides; nil: none does.
	glass   func(context.Context, gatehouse.Request, gatehouse.Decision) gatehouse.Decision
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	waiting []gatehouse.Decision      // not written yet, oldest first
	bytes   int                       // of them, about
	used    map[gatehouse.Digest]bool // images of this registry that were asked for
	wake    chan struct{}
}

const (
	// waitingMax and waitingBytesMax bound the decisions that wait to be
	// written; past it the oldest are dropped, and the log says so.
	waitingMax      = 10_000
	waitingBytesMax = 32 << 20
	// decisionsMax and decisionAge bound those that are kept.
	decisionsMax = 100_000
	decisionAge  = 30 * 24 * time.Hour
	// usedMax bounds the images whose use waits to be written, useAge how long it
	// is remembered.
	usedMax = 10_000
	useAge  = 90 * 24 * time.Hour
	// keepEvery collects decisions, so that a burst costs one transaction.
	keepEvery = 200 * time.Millisecond
)

func newDecider(d *db.DB, p *policies, f *facts, c cluster, r *reviews, log *slog.Logger, m *metrics) *decider {
	return &decider{
		db: d, policies: p, facts: f, cluster: c, reviews: r, log: log, metrics: m,
		used: map[gatehouse.Digest]bool{}, wake: make(chan struct{}, 1),
	}
}

// Decide implements admit.Decider. A set that cannot be read is an incomplete
// one, and denies.
func (d *decider) Decide(ctx context.Context, req gatehouse.Request) gatehouse.Decision {
	start := time.Now()
	req.Templates = d.cluster.templates[req.Kind.Kind+"."+req.Kind.Group]
	out, known := d.judge(ctx, req)
	if d.glass != nil {
		out = d.glass(ctx, known, out)
	}
	d.metrics.decisions.WithLabelValues(out.Verdict.String()).Inc()
	d.metrics.deciding.Observe(time.Since(start).Seconds())
	d.log.DebugContext(ctx, "decide done", "id", out.ID, "verdict", out.Verdict.String(), "kind", req.Kind.Kind, "namespace", req.Namespace, "name", req.Name)
	d.reviews.add(known, out)
	d.keepDecision(ctx, out, d.own(known))
	return out
}

// own lists the images of a request that are this registry's.
func (d *decider) own(req gatehouse.Request) (own []gatehouse.Digest) {
	for _, img := range req.Images {
		if img.Image.Digest != "" && d.facts.isOwn(img.Image.Registry) {
			own = append(own, img.Image.Digest)
		}
	}
	return own
}

// keepDecision has a decision written a moment later, and that these images of this
// registry were asked for.
func (d *decider) keepDecision(ctx context.Context, out gatehouse.Decision, own []gatehouse.Digest) {
	d.mu.Lock()
	d.waiting = append(d.waiting, out)
	for _, digest := range own {
		if len(d.used) < usedMax {
			d.used[digest] = true
		}
	}
	d.bytes += weight(out)
	dropped := 0
	for len(d.waiting) > waitingMax || d.bytes > waitingBytesMax {
		d.bytes -= weight(d.waiting[0])
		d.waiting = d.waiting[1:]
		dropped++
	}
	d.mu.Unlock()
	if dropped > 0 {
		d.log.WarnContext(ctx, "decisions dropped before they were written", "count", dropped)
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// weight is about how many bytes a decision takes.
func weight(d gatehouse.Decision) int {
	n := 512
	for _, r := range d.Reasons {
		n += 256 + len(r.Message) + len(r.Hint) + len(r.Image) + len(r.Field) + 80*len(r.Evidence)
	}
	return n + weightOf(d.Tree)
}

func weightOf(tree []gatehouse.Step) int {
	n := 0
	for _, s := range tree {
		n += 128 + len(s.Name) + len(s.Message) + len(s.Digest) + weightOf(s.Steps)
	}
	return n
}

// judge decides without keeping the decision, and returns the request with the facts
// that it was decided by.
func (d *decider) judge(ctx context.Context, req gatehouse.Request) (_ gatehouse.Decision, known gatehouse.Request) {
	if d.cluster.exempts(req) {
		req.Images = decide.PolicySet{}.Images(req)
		return decide.Decide(ctx, letThrough("admission-exempt-namespaces", decide.CodeNamespaceExempt, "namespace "+req.Namespace+" is exempt"), req), req
	}
	set, asOf, err := d.policies.latest(ctx)
	if err != nil {
		d.log.ErrorContext(ctx, "read policies failed", "error", err)
	}
	if isPolicy(req) {
		return d.judgePolicy(ctx, set, req)
	}
	d.kubernetes.complete(ctx, set, &req)
	read := reading{set, decide.Read(req)}
	known = gather.Facts(ctx, read, req, d.facts.live())
	d.logFailed(ctx, known)
	out := read.Decide(ctx, set, known)
	if !asOf.IsZero() {
		out = decide.WithReasons(out, gatehouse.Reason{
			Verdict: gatehouse.Warn, Code: decide.CodeStaleFacts,
			Message: fmt.Sprintf("the database does not answer: judged by the policies of %s ago", d.policies.now().Sub(asOf).Round(time.Second)),
		})
	}
	return out, known
}

// judgePolicy decides whether a policy may be put into the cluster: it has to load
// beside the others. Where there is none yet, or one that cannot be read, the others
// have no say: nobody could ever begin, or repair it.
func (d *decider) judgePolicy(ctx context.Context, set decide.PolicySet, req gatehouse.Request) (_ gatehouse.Decision, known gatehouse.Request) {
	if d.kubernetes.complete(ctx, set, &req); !set.Complete || len(set.Policies) == 0 {
		set = letThrough("policies", decide.CodePassed, "the object is a policy")
	}
	req.Images = set.Images(req)
	out := decide.Decide(ctx, set, req)
	if more := d.policies.objections(ctx, req); len(more) > 0 {
		out = decide.WithReasons(out, more...)
	}
	return out, req
}

// judgeFacts decides about gathered facts. The causes of what failed inside go into the
// log: they are nobody else's business.
func (d *decider) judgeFacts(ctx context.Context, set decide.PolicySet, req gatehouse.Request) gatehouse.Decision {
	d.logFailed(ctx, req)
	return decide.Decide(ctx, set, req)
}

// logFailed puts the causes of what failed inside into the log.
func (d *decider) logFailed(ctx context.Context, req gatehouse.Request) {
	for _, img := range req.Images {
		for need, err := range img.Failed {
			if err != nil && err.Code == gatehouse.CodeInternal {
				d.log.ErrorContext(ctx, "gather failed", "image", img.Written, "need", need, "error", err)
			}
		}
	}
}

// reading is a set that is asked about an object that has been read.
type reading struct {
	decide.PolicySet
	*decide.Reading
}

// Images implements gather.Policies: those of the object that was read.
func (r reading) Images(gatehouse.Request) []gatehouse.ImageFacts { return r.Reading.Images() }

// recent finds a decision that has not been written yet.
func (d *decider) recent(id string) (gatehouse.Decision, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.waiting {
		if w.ID == id {
			return w, true
		}
	}
	return gatehouse.Decision{}, false
}

// keep writes decisions until ctx ends, and then the rest.
func (d *decider) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-d.wake:
		}
		select {
		case <-ctx.Done():
		case <-time.After(keepEvery):
		}
		d.flush(context.WithoutCancel(ctx))
	}
	return nil
}

func (d *decider) flush(ctx context.Context) {
	d.reviews.flush(ctx)
	d.mu.Lock()
	batch, used := d.waiting, d.used
	d.used = map[gatehouse.Digest]bool{}
	d.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	err := d.db.Note(ctx, func(tx *db.Tx) error {
		if err := tx.SaveDecisions(ctx, batch...); err != nil {
			return err
		}
		return tx.NoteUse(ctx, used)
	})
	if err != nil {
		d.log.ErrorContext(ctx, "write decisions failed", "error", err)
		return // they wait for the next one
	}
	written := map[string]bool{}
	for _, one := range batch {
		written[one.ID] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	rest := d.waiting[:0:0]
	d.bytes = 0
	for _, w := range d.waiting {
		if !written[w.ID] {
			rest = append(rest, w)
			d.bytes += weight(w)
		}
	}
	d.waiting = rest
}

// prune drops decisions that nobody will ask for any more.
func (d *decider) prune(ctx context.Context, now time.Time) error {
	err := d.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.PruneDecisions(ctx, now.Add(-decisionAge), decisionsMax); err != nil {
			return err
		}
		if err := tx.PruneBreakGlass(ctx, now.Add(-breakGlassKept)); err != nil {
			return err
		}
		return tx.PruneUse(ctx, now.Add(-useAge))
	})
	if err != nil {
		return err
	}
	return d.reviews.prune(ctx, now)
}

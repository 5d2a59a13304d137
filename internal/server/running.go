package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

const (
	// runningSettle collects changes that come together, and is the least time from one
	// pass to the next.
	runningSettle = 500 * time.Millisecond
	// runningLook is how often events are looked for that nobody told of, and the lease;
	// what could not be found out or told is tried again every runningRetry.
	runningLook  = 5 * time.Second
	runningRetry = time.Minute
	// runningAll is how often everything is judged again: time passes for ages of scans
	// and ends of exceptions, and other registries tell of nothing.
	runningAll = time.Hour
	// runningParallel is how much is judged at once: the webhook comes first.
	runningParallel = 2
	// runningRead is after how long Pods are read anew of which not all templates could be
	// kept, where there is room now.
	runningRead = 10 * time.Minute
	// runningTime bounds the facts of one template.
	runningTime = 20 * time.Second
)

// runningPods are the Pods of the cluster.
type runningPods interface {
	// Kept lists them. CodeUnavailable: they are not known whole yet.
	Kept() ([]kube.Kept, error)
}

// runningCluster is where what came out is written to.
type runningCluster interface {
	Tell(ctx context.Context, event map[string]any) error
	Complain(ctx context.Context, key string, err error)
	Namespace(ctx context.Context, name string) ([]byte, error)
}

// runningReports writes reports.
type runningReports interface {
	Served() string
	Namespaces(ctx context.Context) ([]string, error)
	Write(ctx context.Context, namespace string, body map[string]any) error
	Forget()
}

// runningOptions are what a runningAudit stands on.
type runningOptions struct {
	db      *db.DB
	cluster runningCluster
	reports runningReports // nil: none are written
	events  bool           // Events are written
	// set is the policies that judge what runs, and a name of their state.
	set     func(context.Context) (set decide.PolicySet, state string, err error)
	sources func() gather.Sources
	// spared reports whether what runs in a namespace is not judged.
	spared   func(namespace string) bool
	pinned   bool // digests are written into Pods that are created
	instance string
	own      func(registry string) bool
	// inventory adds what else of the cluster policies may look up.
	inventory func(context.Context, decide.PolicySet, *gatehouse.Request)
	budget    *running.Budget
	metrics   *metrics
	log       *slog.Logger
	now       func() time.Time
}

// runningAudit judges what runs in the cluster, again whenever something has changed
// that the verdict may depend on. It only tells: nothing here stops a Pod. It is for one
// goroutine.
type runningAudit struct {
	runningOptions
	rows  map[db.RunningKey]*runningRow // nil: not read yet
	cases map[runningCase]*runningVerdict
	// state names everything but images and Pods that verdicts were made of.
	state   string
	cursor  int64 // seq of the last event that was looked at
	judged  time.Time
	retryAt time.Time // zero: nothing is to be tried again
	served  string    // kinds of reports that were written
	// unreported are namespaces whose reports could not be written, and lookAgain says
	// that it is not known where there are reports: until reportAt.
	unreported map[string]bool
	lookAgain  bool
	reportAt   time.Time
	tellAt     time.Time // Events are tried again, after one could not be written
	used       time.Time // that the use of images was noted
	anew       bool      // there is room for templates that could not be kept
}

// runningCase is what is judged once: Pods of one template, in a namespace as it is.
type runningCase struct {
	template  running.Template
	namespace string
	object    gatehouse.Digest // of what policies see of the namespace
}

// keptPod is a Pod in the store of a watch.
type keptPod struct{ running.Pod }

// KeptName implements kube.Kept.
func (p keptPod) KeptName() (namespace, name string) { return p.Namespace, p.Name }

// keepPod is what is kept of a Pod. What cannot be read keeps its names, so that it can
// be deleted.
func keepPod(o *kube.Object) keptPod {
	namespace, name := o.GetNamespace(), o.GetName()
	p, ok := running.Read(o.Object)
	if !ok {
		p = running.Pod{Namespace: namespace, Name: name, Ended: true}
	}
	return keptPod{p}
}

// openRunning prepares to judge what runs in the cluster.
func (c *kubernetes) openRunning(budget *running.Budget) *runningAudit {
	s := c.server
	audit := &auditPolicies{policies: s.policies}
	inventory := func(_ context.Context, set decide.PolicySet, req *gatehouse.Request) {
		if len(set.Lookups) > 0 { // the webhook says which kinds they are
			req.Inventory = c.view.Inventory()
		}
	}
	o := runningOptions{
		db: s.db, cluster: c.view, events: s.cfg.RunningEvents, set: audit.set, sources: s.facts.sources, spared: c.spares,
		pinned: s.cfg.AdmissionMutate != "off", instance: identity(), own: s.facts.isOwn, inventory: inventory, budget: budget, metrics: s.metrics, log: s.log, now: s.now,
	}
	if s.cfg.RunningReports == "auto" {
		o.reports = c.view.Reports(running.ReportName, s.cfg.ClusterOwner)
	}
	return newRunningAudit(o)
}

func newRunningAudit(o runningOptions) *runningAudit {
	return &runningAudit{runningOptions: o, unreported: map[string]bool{}}
}

// spares reports whether a namespace is not judged: nor is what runs there.
func (c *kubernetes) spares(namespace string) bool {
	return slices.Contains(c.server.decider.cluster.exempt, namespace)
}

// runRunning judges what runs while leads says that this replica is the one to, until
// ctx ends. Pods are watched only meanwhile.
func (c *kubernetes) runRunning(ctx context.Context, leads func() bool) error {
	seen := c.view.Follow()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if leads() {
			if err := c.termOfRunning(ctx, leads, seen); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-seen:
		}
	}
}

// termOfRunning judges what runs as long as this replica leads.
func (c *kubernetes) termOfRunning(ctx context.Context, leads func() bool, seen <-chan struct{}) error {
	ctx, end := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	budget, begin := running.NewBudget(running.TemplatesMax), c.server.now()
	keep := func(o *kube.Object) kube.Kept {
		p := keepPod(o)
		p.Pod = budget.Take(p.Pod)
		return p
	}
	pods, err := c.view.Pods(keep, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		end()
		return err
	}
	done := make(chan struct{})
	go func() { defer close(done); pods.Run(ctx) }()
	defer func() { end(); <-done }()
	go func() { // a pass may take long
		for ctx.Err() == nil && leads() {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		end()
	}()
	a := c.openRunning(budget)
	defer a.end()
	look := time.NewTicker(runningLook)
	defer look.Stop()
	for leads() && ctx.Err() == nil {
		news := c.server.db.Changed()
		err := a.pass(ctx, pods)
		if ctx.Err() == nil {
			c.view.Complain(ctx, "judge what runs", err)
		}
		if a.anew && c.server.now().Sub(begin) > runningRead {
			return nil // the next term reads all Pods
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		case <-changed:
		case <-seen:
		case <-news:
		}
		select {
		case <-ctx.Done():
		case <-time.After(runningSettle):
		}
	}
	return nil
}

// auditPolicies are the policies in force as they judge what runs: constraints that name
// enforcement points are asked at Gatekeeper's point of audit.
type auditPolicies struct {
	*policies
	made string // state that last was made of
	last decide.PolicySet
}

// set returns the policies and what they were made of.
func (p *auditPolicies) set(ctx context.Context) (set decide.PolicySet, state string, err error) {
	set, version, err := p.versioned(ctx)
	if err != nil {
		return set, "", err
	}
	state = fmt.Sprintf("%d %d %s", version, p.changes(), set.Digest)
	if p.made == state {
		return p.last, state, nil
	}
	at, err := p.at(ctx, set)
	if err != nil {
		return set, "", err
	}
	p.last, p.made = at, state
	return at, state, nil
}

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

// runningVerdict is what was decided of a case.
type runningVerdict struct {
	decision gatehouse.Decision
	images   []running.Image
	// unknown: a source did not answer, and the verdict follows from that alone.
	unknown bool
}

// imagesMax bounds the images that are named of one Pod.
const imagesMax = 100

// pass judges what is due and tells what became of it. Errors: what could not be done;
// the next pass does it.
func (a *runningAudit) pass(ctx context.Context, pods runningPods) error {
	kept, err := pods.Kept()
	if err != nil {
		return err
	}
	a.settle(ctx, kept)
	set, policies, err := a.set(ctx)
	if err != nil {
		return err
	}
	if !set.Complete || len(set.Policies) == 0 {
		// Everything would be denied, and that is told of already. What was known stands.
		a.metrics.auditStands.Set(1)
		return nil
	}
	a.metrics.auditStands.Set(0)
	if err := a.read(ctx); err != nil {
		return err
	}
	due, err := a.due(ctx, policies)
	if err != nil {
		return err
	}
	cases, err := a.casesOf(ctx, kept)
	if err != nil {
		return err
	}
	if err := a.judge(ctx, set, cases, due); err != nil {
		return err
	}
	return a.tell(ctx, cases, due)
}

// settle counts the templates that there are, and tells of those for which there was no
// room.
func (a *runningAudit) settle(ctx context.Context, kept []kube.Kept) {
	pods := make([]running.Pod, 0, len(kept))
	for _, k := range kept {
		if p, ok := k.(keptPod); ok {
			pods = append(pods, p.Pod)
		}
	}
	without, room := a.budget.Settle(pods)
	a.anew = without > 0 && room
	var err error
	if without > 0 {
		err = gatehouse.Errorf(gatehouse.CodeTooLarge, "some Pods cannot be judged: the templates of all Pods have more than %d MiB", running.TemplatesMax>>20)
	}
	a.cluster.Complain(ctx, "keep the templates of all Pods", err)
}

// unkept is the verdict on Pods whose template could not be kept.
func (a *runningAudit) unkept(ctx context.Context, set decide.PolicySet, namespace string) *runningVerdict {
	d := decide.Decide(ctx, set, gatehouse.Request{
		UID: "running/" + namespace + "/unkept", Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Operation: "CREATE", Namespace: namespace, Now: a.now().UTC(),
	})
	d.Verdict, d.Reasons, d.Tree = gatehouse.Deny, []gatehouse.Reason{{
		Verdict: gatehouse.Deny, Code: decide.CodeUnavailable,
		Message: fmt.Sprintf("what runs is not known: the templates of all Pods of the cluster have more than %d MiB, and there was no room for this one", running.TemplatesMax>>20),
		Hint:    "see who makes so many Pods that are large and no two alike",
	}}, nil
	return &runningVerdict{decision: d, images: []running.Image{}, unknown: true}
}

// dueCases says which verdicts have to be made again.
type dueCases struct {
	all   bool
	repos map[gatehouse.Repo]bool // something of an image in them has changed
	state string                  // as it is now
	last  int64                   // seq of the last event
}

// eventsPage is how many events are read at once.
const eventsPage = 500

// due looks at what has changed since the last pass.
func (a *runningAudit) due(ctx context.Context, policies string) (d dueCases, err error) {
	d = dueCases{repos: map[gatehouse.Repo]bool{}, last: a.cursor}
	err = a.db.Get(ctx, func(tx *db.Tx) error {
		generation, _, err := tx.CurrentGeneration(ctx)
		if err != nil {
			return err
		}
		d.state = fmt.Sprintf("%s %d", policies, generation.ID)
		if a.state == "" || d.state != a.state {
			d.all = true
			last, err := tx.LastEvent(ctx)
			d.last = last.Seq
			return err
		}
		for {
			list, err := tx.Events(ctx, d.last, eventsPage)
			for _, e := range list {
				d.note(e)
				d.last = e.Seq
			}
			if err != nil || len(list) < eventsPage {
				return err
			}
		}
	})
	now := a.now()
	if now.Sub(a.judged) >= runningAll {
		d.all = true
	}
	return d, err
}

// note tells what an event makes due.
func (d *dueCases) note(e gatehouse.Event) {
	switch e.Type {
	case gatehouse.EventPolicyChanged, gatehouse.EventExceptionChanged, gatehouse.EventVulnNew, gatehouse.EventVulnFixed,
		gatehouse.EventMalwareFound, gatehouse.EventSigstoreRotated, gatehouse.EventProjectChanged:
		d.all = true
	case gatehouse.EventIndexed, gatehouse.EventSignatureAdded, gatehouse.EventSignatureInvalid, gatehouse.EventReferrerAdded, gatehouse.EventTagDeleted,
		gatehouse.EventManifestDeleted, gatehouse.EventManifestCorrupt, gatehouse.EventManifestHealed:
		// What it says of one image may count for an index that lists it.
		d.repos[e.Repo] = true
	}
}

// casePods is a case with its Pods, by their workload.
type casePods map[running.Workload]int

// casesOf groups the Pods that run. A namespace that is not known any more has no Pods.
func (a *runningAudit) casesOf(ctx context.Context, kept []kube.Kept) (map[runningCase]casePods, error) {
	type namespace struct {
		digest gatehouse.Digest
		spared bool
	}
	namespaces := map[string]namespace{}
	out := map[runningCase]casePods{}
	for _, k := range kept {
		p, ok := k.(keptPod)
		if !ok || p.Ended {
			continue
		}
		n, known := namespaces[p.Namespace]
		if !known {
			n.spared = a.spared(p.Namespace)
			if !n.spared {
				object, err := a.cluster.Namespace(ctx, p.Namespace)
				if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
					n.spared = true
				} else if err != nil {
					return nil, err
				}
				n.digest = namespaceDigest(object)
			}
			namespaces[p.Namespace] = n
		}
		if n.spared {
			continue
		}
		c := runningCase{p.Template, p.Namespace, n.digest}
		if out[c] == nil {
			out[c] = casePods{}
		}
		out[c][p.Workload]++
	}
	return out, nil
}

// namespaceDigest is that of what an author says of a namespace: its name, labels and
// annotations.
func namespaceDigest(object []byte) gatehouse.Digest {
	var n struct {
		Metadata struct {
			Name        string            `json:"name"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(object, &n); err != nil {
		return gatehouse.DigestOf(object)
	}
	b, err := json.Marshal(n)
	if err != nil {
		return gatehouse.DigestOf(object)
	}
	return gatehouse.DigestOf(b)
}

// judge makes the verdicts that are missing or due, each once, and forgets those of
// Pods that are gone.
func (a *runningAudit) judge(ctx context.Context, set decide.PolicySet, cases map[runningCase]casePods, due dueCases) error {
	retry := !a.retryAt.IsZero() && !a.now().Before(a.retryAt)
	var wanted []runningCase
	next := make(map[runningCase]*runningVerdict, len(cases))
	for c := range cases {
		v := a.cases[c]
		next[c] = v
		if v == nil || due.all || retry && v.unknown || a.touches(v, due.repos) {
			wanted = append(wanted, c)
		}
	}
	if len(wanted) == 0 {
		a.cases = next
		a.state, a.cursor = due.state, due.last
		return nil
	}
	start := a.now()
	facts := askOnce(a.sources())
	made, err := a.judgeAll(ctx, set, facts, wanted)
	a.metrics.auditGathered.Add(float64(facts.gathered()))
	a.metrics.auditJudged.Add(float64(len(made)))
	if err != nil {
		return err // nothing of this pass counts: the next one begins again
	}
	a.retryAt = time.Time{}
	for c, v := range made {
		next[c] = v
	}
	for _, v := range next {
		if v.unknown {
			a.retryAt = a.now().Add(runningRetry)
		}
	}
	a.cases, a.state, a.cursor = next, due.state, due.last
	if due.all {
		a.judged = start
	}
	a.metrics.auditSeconds.Observe(a.now().Sub(start).Seconds())
	a.log.DebugContext(ctx, "running judged", "templates", len(wanted), "images", facts.gathered(), "all", due.all)
	return nil
}

// judgeAll judges cases, those of one image one after the other, so that few facts are
// held at a time.
func (a *runningAudit) judgeAll(ctx context.Context, set decide.PolicySet, facts *onceFacts, wanted []runningCase) (made map[runningCase]*runningVerdict, err error) {
	type task struct {
		runningCase
		images []string
		over   func()
	}
	tasks := make([]task, 0, len(wanted))
	for _, c := range wanted {
		images := a.imagesOf(set, c)
		tasks = append(tasks, task{c, images, facts.willAsk(images)})
	}
	slices.SortFunc(tasks, func(a, b task) int { return slices.Compare(a.images, b.images) })
	var mu sync.Mutex
	made = make(map[runningCase]*runningVerdict, len(wanted))
	workers, within := errgroup.WithContext(ctx)
	workers.SetLimit(runningParallel)
	for _, t := range tasks {
		workers.Go(func() error {
			defer t.over()
			if err := within.Err(); err != nil {
				return err
			}
			v, err := a.one(within, set, facts, t.runningCase)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			made[t.runningCase] = v
			return within.Err()
		})
	}
	return made, workers.Wait()
}

// imagesOf names the images that a case will ask about, as far as they are known before.
func (a *runningAudit) imagesOf(set decide.PolicySet, c runningCase) (out []string) {
	req, runs, err := c.template.Request(c.namespace, nil, a.pinned)
	if err != nil {
		return nil
	}
	for _, f := range set.Images(req) {
		ref := f.Image
		if d, ok, err := runs.Digest(ref); ref.Digest == "" && ok && err == nil {
			ref.Digest = d
		}
		if key := imageKey(ref); !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// touches reports whether a verdict is about an image of this registry in one of repos.
func (a *runningAudit) touches(v *runningVerdict, repos map[gatehouse.Repo]bool) bool {
	if len(repos) == 0 {
		return false
	}
	return slices.ContainsFunc(v.images, func(i running.Image) bool {
		ref, err := gatehouse.ParseRef(i.Name)
		return err == nil && repos[ref.Repo] && a.own(ref.Registry)
	})
}

// one judges one case.
func (a *runningAudit) one(ctx context.Context, set decide.PolicySet, facts *onceFacts, c runningCase) (*runningVerdict, error) {
	if c.template.Unkept() {
		return a.unkept(ctx, set, c.namespace), nil
	}
	object, err := a.cluster.Namespace(ctx, c.namespace)
	if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return nil, err
	}
	req, runs, err := c.template.Request(c.namespace, object, a.pinned)
	if err != nil {
		return nil, err
	}
	req.Now = a.now().UTC()
	a.inventory(ctx, set, &req)
	sources := facts.sources(runs)
	sources.Timeout = runningTime
	known := gather.Facts(ctx, set, req, sources)
	d := decide.Decide(ctx, set, known)
	return &runningVerdict{decision: d, images: running.Images(known, imagesMax), unknown: d.Verdict == gatehouse.Deny && unanswered(known)}, nil
}

// unanswered reports whether a source did not answer that may answer another time.
func unanswered(req gatehouse.Request) bool {
	for _, f := range req.Images {
		for _, err := range f.Failed {
			if err == nil || err.Detail == running.DetailUnknownDigest || err.Detail == decide.DetailNotContacted {
				continue
			}
			switch err.Code {
			case gatehouse.CodeUnavailable, gatehouse.CodeTooMany, gatehouse.CodeInternal:
				return true
			}
		}
	}
	return false
}

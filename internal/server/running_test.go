package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

// auditWorld is a cluster, a registry and a policy that count what they are asked.
type auditWorld struct {
	mu         sync.Mutex
	pods       map[string]kube.Kept
	namespaces map[string]string
	scans      map[string]int // by image
	verifies   map[string]int
	judged     map[string]int // by namespace and object
	bad        map[gatehouse.Digest]bool
	away       bool // the registry does not answer
	foreign    bool // it is not ours
	state      string
	incomplete bool

	told    []map[string]any
	silent  bool              // the cluster takes no Events
	said    map[string]string // complaints
	reports map[string]map[string]any
	writes  int
	at      time.Time
}

func newAuditWorld() *auditWorld {
	w := &auditWorld{
		pods: map[string]kube.Kept{}, namespaces: map[string]string{}, bad: map[gatehouse.Digest]bool{}, state: "1",
		reports: map[string]map[string]any{}, said: map[string]string{}, at: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	w.reset()
	return w
}

func (w *auditWorld) reset() {
	w.scans, w.verifies, w.judged = map[string]int{}, map[string]int{}, map[string]int{}
}

func imageDigest(i int) gatehouse.Digest { return gatehouse.DigestOf(fmt.Appendf(nil, "image %d", i)) }

// add has a Pod run that a ReplicaSet made, of one image by its digest.
func (w *auditWorld) add(namespace, owner, name string, image int) {
	o := &kube.Object{}
	err := json.Unmarshal(fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": %q, "name": %q, "generateName": "%s-", "uid": %[2]q, "resourceVersion": "1",
		"labels": {"app": "x", "pod-template-hash": "h"},
		"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": %[3]q, "uid": "uid-%[3]s", "controller": true}]},
		"spec": {"nodeName": "n-%[2]s", "containers": [{"name": "c", "image": "own.example/team/app-%[4]d@%[5]s"}]}, "status": {"phase": "Running"}}`,
		namespace, name, owner, image, imageDigest(image)), &o.Object)
	if err != nil {
		panic(err)
	}
	w.pods[namespace+"/"+name] = keepPod(o)
	if w.namespaces[namespace] == "" {
		w.namespaces[namespace] = fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"tier":"a"}}}`, namespace)
	}
}

func (w *auditWorld) Kept() ([]kube.Kept, error) { return slices.Collect(maps.Values(w.pods)), nil }
func (w *auditWorld) Tell(_ context.Context, event map[string]any) error {
	if w.silent {
		return errors.New("no")
	}
	w.told = append(w.told, event)
	return nil
}
func (w *auditWorld) Complain(_ context.Context, key string, err error) {
	if w.said[key] = ""; err != nil {
		w.said[key] = err.Error()
	}
}
func (w *auditWorld) Namespace(_ context.Context, name string) ([]byte, error) {
	if w.namespaces[name] == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no namespace %s", name)
	}
	return []byte(w.namespaces[name]), nil
}

func (w *auditWorld) Served() string { return "PolicyReport" }
func (w *auditWorld) Forget()        {}
func (w *auditWorld) Namespaces(context.Context) ([]string, error) {
	return slices.Collect(maps.Keys(w.reports)), nil
}
func (w *auditWorld) Write(_ context.Context, namespace string, body map[string]any) error {
	w.writes++
	if body == nil {
		delete(w.reports, namespace)
	} else {
		w.reports[namespace] = body
	}
	return nil
}

func (w *auditWorld) count(m map[string]int, key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m[key]++
}

func (w *auditWorld) Scan(_ context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	w.count(w.scans, ref.String())
	if w.away {
		return gather.Scan{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "away")
	}
	return gather.Scan{Inventory: &gatehouse.Inventory{Subject: ref.Digest, Complete: true}, Complete: true}, nil
}

func (w *auditWorld) Verify(_ context.Context, ref gatehouse.Ref, _ gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	w.count(w.verifies, ref.String())
	return []gatehouse.Evidence{{Subject: ref.Digest, Artifact: ref.Digest}}, nil, nil
}

// countingPolicy denies bad images, and all in namespaces whose tier is forbidden.
type countingPolicy struct{ *auditWorld }

func (countingPolicy) Name() string { return "counting" }
func (countingPolicy) Needs(req gatehouse.Request) (needs []gatehouse.Need) {
	for i := range req.Images {
		needs = append(needs, gatehouse.Need{Name: "counting/scan", Image: i, Kind: gatehouse.NeedFindings},
			gatehouse.Need{Name: "counting/signed", Image: i, Kind: gatehouse.NeedSignature, Authority: gatehouse.Authority{Name: "a", Keys: []string{"k"}}})
	}
	return needs
}

func (p countingPolicy) Judge(_ context.Context, req gatehouse.Request) decide.Judgement {
	p.count(p.judged, req.Namespace+" "+string(gatehouse.DigestOf(append(req.Object, req.NamespaceObject...))))
	j := decide.Judgement{Outcome: decide.Passed}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range req.Images {
		code := ""
		switch {
		case len(f.Failed) > 0:
			code = decide.CodeUnavailable
		case p.bad[f.Image.Digest]:
			code = decide.CodeSeverityExceeded
		case strings.Contains(string(req.NamespaceObject), `"forbidden"`):
			code = decide.CodePolicyRefused
		}
		if code != "" {
			j.Outcome = decide.Failed
			j.Reasons = append(j.Reasons, gatehouse.Reason{Verdict: gatehouse.Deny, Code: code, Policy: "counting", Image: f.Written, Field: f.Field, Message: "bad"})
		}
	}
	return j
}

// auditOf is an audit of w on a database.
func auditOf(t *testing.T, w *auditWorld, d *db.DB) *runningAudit {
	t.Helper()
	return newRunningAudit(runningOptions{
		db: d, cluster: w, reports: w, events: true, pinned: true, instance: "test", metrics: newMetrics("test"), log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		set: func(context.Context) (decide.PolicySet, string, error) {
			return decide.PolicySet{Complete: !w.incomplete, NoMatch: gatehouse.Allow, Policies: []decide.Policy{countingPolicy{w}}}, w.state, nil
		},
		sources: func() gather.Sources {
			return gather.Sources{Scanner: w, Verifier: w, Own: func(string) bool { return !w.foreign }}
		},
		spared: func(namespace string) bool { return namespace == "kube-system" },
		own:    func(string) bool { return true }, inventory: func(context.Context, decide.PolicySet, *gatehouse.Request) {},
		now: func() time.Time { return w.at }, budget: running.NewBudget(running.TemplatesMax),
	})
}

func auditDB(t *testing.T) *db.DB {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func passes(t *testing.T, a *runningAudit, w *auditWorld) {
	t.Helper()
	if err := a.pass(t.Context(), w); err != nil {
		t.Fatal(err)
	}
}

// counts are how often things were asked, and of how many.
type auditCounts struct{ Images, Scans, Verifies, Templates, Judged int }

func (w *auditWorld) counts() (c auditCounts) {
	c.Images, c.Templates = len(w.scans), len(w.judged)
	for _, n := range w.scans {
		c.Scans += n
	}
	for _, n := range w.verifies {
		c.Verifies += n
	}
	for _, n := range w.judged {
		c.Judged += n
	}
	return c
}

// runningEvents are those of the outbox.
func runningEvents(t *testing.T, d *db.DB) (out []runningPayload) {
	t.Helper()
	err := d.Get(t.Context(), func(tx *db.Tx) error {
		list, err := tx.Events(t.Context(), 0, 100_000)
		for _, e := range list {
			var p runningPayload
			if e.Type == gatehouse.EventRunningChanged {
				if err := json.Unmarshal(e.Payload, &p); err != nil {
					return err
				}
				out = append(out, p)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTenThousandPods: 10,000 Pods of 300 images cost 300 gatherings of facts, and
// policies are judged once per template and namespace, whatever changes; a new Pod of a
// known template costs nothing.
func TestTenThousandPods(t *testing.T) {
	const pods, images, teams = 10_000, 300, 10
	w, d := newAuditWorld(), auditDB(t)
	templates := map[string]bool{}
	for i := range pods {
		// Every image runs in two namespaces, under its own ReplicaSet in each.
		image, namespace := i%images, fmt.Sprintf("team-%d", (i%images+(i/images)%2)%teams)
		owner := fmt.Sprintf("app-%d", image)
		templates[namespace+owner] = true
		w.add(namespace, owner, fmt.Sprintf("%s-%d", owner, i), image)
	}
	want := auditCounts{Images: images, Scans: images, Verifies: images, Templates: len(templates), Judged: len(templates)}
	if len(templates) != 2*images {
		t.Fatalf("there are %d templates", len(templates))
	}
	a := auditOf(t, w, d)
	passes(t, a, w)
	if d := cmp.Diff(want, w.counts()); d != "" {
		t.Errorf("the first pass (-want +got):\n%s", d)
	}
	w.reset()
	passes(t, a, w)
	if got := w.counts(); got != (auditCounts{}) {
		t.Errorf("a pass with nothing new: %+v", got)
	}
	w.add("team-0", "app-0", "one-more", 0)
	passes(t, a, w)
	if got := w.counts(); got != (auditCounts{}) {
		t.Errorf("one more Pod of a known template: %+v", got)
	}
	w.state, w.bad[imageDigest(7)] = "2", true // a policy has changed
	passes(t, a, w)
	if d := cmp.Diff(want, w.counts()); d != "" {
		t.Errorf("a changed policy (-want +got):\n%s", d)
	}
	if n := len(runningEvents(t, d)); n != 2 || len(w.told) != 2 {
		t.Errorf("%d events, %d Events for the two workloads of the image", n, len(w.told))
	}
	w.reset()
	w.namespaces["team-3"] = `{"metadata":{"name":"team-3","labels":{"tier":"forbidden"}}}`
	passes(t, a, w)
	in3 := 0
	for name := range templates {
		if strings.HasPrefix(name, "team-3app") {
			in3++
		}
	}
	want = auditCounts{Images: in3, Scans: in3, Verifies: in3, Templates: in3, Judged: in3}
	if d := cmp.Diff(want, w.counts()); d != "" {
		t.Errorf("other labels of a namespace (-want +got):\n%s", d)
	}
	w.reset()
	event(t, d, gatehouse.Event{Type: gatehouse.EventSignatureAdded, Repo: "team/app-5"})
	passes(t, a, w)
	want = auditCounts{Images: 1, Scans: 1, Verifies: 1, Templates: 2, Judged: 2}
	if d := cmp.Diff(want, w.counts()); d != "" {
		t.Errorf("a signature of one image (-want +got):\n%s", d)
	}
	// A new flaw, and which tags are immutable, may matter anywhere.
	for _, change := range []gatehouse.EventType{gatehouse.EventVulnNew, gatehouse.EventProjectChanged} {
		w.reset()
		event(t, d, gatehouse.Event{Type: change})
		passes(t, a, w)
		if got := w.counts(); got.Scans != images || got.Judged != 2*images {
			t.Errorf("%s: %+v", change, got)
		}
	}
}

func event(t *testing.T, d *db.DB, e gatehouse.Event) {
	t.Helper()
	if err := d.Write(t.Context(), func(tx *db.Tx) error { return tx.AddEvent(t.Context(), e) }); err != nil {
		t.Fatal(err)
	}
}

// TestToldOncePerChange: a verdict is told when it changes, once, also over a restart in
// the middle; what a Pod leaves behind is nothing.
func TestToldOncePerChange(t *testing.T) {
	w, d := newAuditWorld(), auditDB(t)
	w.add("shop", "web", "web-1", 1)
	w.add("shop", "web", "web-2", 1)
	w.add("shop", "db", "db-1", 2)
	w.add("kube-system", "dns", "dns-1", 3)
	w.bad[imageDigest(1)], w.bad[imageDigest(3)] = true, true
	w.silent = true // the server is killed before the cluster has heard
	a := auditOf(t, w, d)
	if err := a.pass(t.Context(), w); err == nil {
		t.Error("nobody was told, and that is well")
	}
	got := runningEvents(t, d)
	if len(got) != 1 || got[0].Name != "web" || got[0].Pods != 2 || got[0].Before != "" || got[0].Verdict != gatehouse.Deny || got[0].Reasons[0].Code != decide.CodeSeverityExceeded {
		t.Fatalf("events: %+v", got)
	}
	var kept gatehouse.Decision
	err := d.Get(t.Context(), func(tx *db.Tx) (err error) {
		kept, err = tx.Decision(t.Context(), got[0].Decision)
		return err
	})
	if err != nil || kept.Verdict != gatehouse.Deny || len(kept.Tree) == 0 {
		t.Errorf("the decision that explains it: %+v, %v", kept, err)
	}

	w.silent = false
	a = auditOf(t, w, d) // another replica, or after a restart
	for range 3 {
		passes(t, a, w)
		w.at = w.at.Add(runningAll)
	}
	a = auditOf(t, w, d)
	passes(t, a, w)
	if len(w.told) != 1 || len(runningEvents(t, d)) != 1 {
		t.Errorf("an unchanged verdict is told again: %d Events, %d events", len(w.told), len(runningEvents(t, d)))
	}
	if _, ok := w.reports["kube-system"]; ok {
		t.Error("a namespace that is spared has a report")
	}
	writes := w.writes
	passes(t, a, w)
	if w.writes != writes {
		t.Error("an unchanged report is written again")
	}

	w.at, w.bad[imageDigest(1)] = w.at.Add(runningAll), false
	passes(t, a, w)
	if got := runningEvents(t, d); len(got) != 2 || got[1].Before != "deny" || got[1].Verdict != gatehouse.Allow || len(w.told) != 2 || w.told[1]["reason"] != "ImageAllowed" {
		t.Errorf("that it may run again: %+v, %v", got, w.told)
	}
	summary := w.reports["shop"]["summary"].(map[string]any)
	if summary["pass"] != int64(2) || summary["fail"] != int64(0) {
		t.Errorf("the report says %v", summary)
	}

	delete(w.pods, "shop/web-1")
	delete(w.pods, "shop/web-2")
	passes(t, a, w)
	if text := fmt.Sprint(w.reports["shop"]); strings.Contains(text, "web") || !strings.Contains(text, "1 workloads") {
		t.Errorf("Pods that are gone are reported: %s", text)
	}
	delete(w.pods, "shop/db-1")
	passes(t, a, w)
	var rows []db.Running
	err = d.Get(t.Context(), func(tx *db.Tx) (err error) {
		rows, err = tx.Running(t.Context(), db.RunningFilter{}, 10)
		return err
	})
	if err != nil || len(rows) != 0 || len(w.reports) != 0 || len(w.told) != 2 {
		t.Errorf("left of nothing: %v, %v, %v", rows, w.reports, err)
	}
}

// TestWhatCannotBeFoundOut: while a source does not answer, what was known stands; what
// was never known is reported as an error, and told to nobody. Policies that cannot be
// read judge nothing.
func TestWhatCannotBeFoundOut(t *testing.T) {
	w, d := newAuditWorld(), auditDB(t)
	w.foreign = true
	w.add("shop", "web", "web-1", 1)
	a := auditOf(t, w, d)
	passes(t, a, w)
	w.away = true
	w.add("shop", "new", "new-1", 2)
	w.at = w.at.Add(runningAll)
	passes(t, a, w)
	summary := func() map[string]any { return w.reports["shop"]["summary"].(map[string]any) }
	if s := summary(); s["pass"] != int64(1) || s["error"] != int64(1) || s["fail"] != int64(0) || len(w.told) != 0 {
		t.Errorf("while the registry is away: %v, told %v", s, w.told)
	}
	w.reset()
	passes(t, a, w)
	if got := w.counts(); got.Scans != 0 {
		t.Errorf("it is tried again at once: %+v", got)
	}
	// Many images of a registry that is away are not all waited for.
	for i := range 50 {
		w.add("shop", fmt.Sprintf("more-%d", i), fmt.Sprintf("more-%d-1", i), 100+i)
	}
	passes(t, a, w)
	if got := w.counts(); got.Scans == 0 || got.Scans > awayMax+runningParallel || summary()["error"].(int64) < 51 || summary()["pass"] != int64(1) {
		t.Errorf("50 more images of a registry that is away: %+v, %v", got, summary())
	}
	for i := range 50 {
		delete(w.pods, fmt.Sprintf("shop/more-%d-1", i))
	}
	w.away, w.at = false, w.at.Add(runningRetry)
	passes(t, a, w)
	if s := summary(); s["pass"] != int64(2) || s["error"] != int64(0) || len(w.told) != 0 {
		t.Errorf("after the registry came back: %v, told %v", s, w.told)
	}
	w.incomplete, w.state, w.bad[imageDigest(1)] = true, "2", true
	passes(t, a, w)
	if s := summary(); s["pass"] != int64(2) || len(w.told) != 0 {
		t.Errorf("with policies that cannot be read: %v, told %v", s, w.told)
	}
	w.incomplete = false
	passes(t, a, w)
	if s := summary(); s["fail"] != int64(1) || len(w.told) != 1 {
		t.Errorf("with policies that can be read again: %v, told %v", s, w.told)
	}
}

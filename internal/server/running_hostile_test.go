package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

// addOdd has a Pod run that somebody made to be in the way.
func (w *auditWorld) addOdd(t *testing.T, name string, change func(meta, spec map[string]any)) {
	t.Helper()
	o := &kube.Object{}
	if err := json.Unmarshal(fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": %q, "uid": "u"},
		"spec": {"containers": [{"name": "c", "image": "own.example/team/odd@%s"}]}, "status": {"phase": "Running"}}`, name, imageDigest(1)), &o.Object); err != nil {
		t.Fatal(err)
	}
	change(o.Object["metadata"].(map[string]any), o.Object["spec"].(map[string]any))
	w.pods["shop/"+name] = keepPod(o)
}

// TestOddPodsAreInNobodysWay: a Pod that is too large to be judged is denied, and one whose
// owner is no name is told of under its own; the others are judged all the same.
func TestOddPodsAreInNobodysWay(t *testing.T) {
	w, d := newAuditWorld(), auditDB(t)
	w.add("shop", "web", "web-1", 2)
	w.bad[imageDigest(2)] = true
	w.addOdd(t, "large", func(_, spec map[string]any) {
		spec["containers"].([]any)[0].(map[string]any)["args"] = slices.Repeat([]any{""}, 100_001)
	})
	w.addOdd(t, "owned", func(meta, _ map[string]any) {
		meta["ownerReferences"] = []any{map[string]any{"apiVersion": "v1", "kind": "X", "uid": "u", "controller": true, "name": "\x00" + strings.Repeat("x", 1<<20)}}
	})
	a := auditOf(t, w, d)
	passes(t, a, w)
	verdicts := map[string]gatehouse.Verdict{}
	for key, row := range a.rows {
		verdicts[key.Kind+" "+key.Name] = row.Verdict
	}
	if fmt.Sprint(verdicts) != "map[Pod large:deny Pod owned:allow ReplicaSet web:deny]" {
		t.Errorf("what runs: %v", verdicts)
	}
	if text, err := json.Marshal(w.reports["shop"]); err != nil || len(text) > 10_000 {
		t.Errorf("a report of %d bytes: %v", len(text), err)
	}
}

// TestTooManyTemplates: a Pod for whose template there is no room is reported as not known,
// and all is read again once there is room.
func TestTooManyTemplates(t *testing.T) {
	w, d := newAuditWorld(), auditDB(t)
	w.add("shop", "web", "web-1", 1)
	size := len(w.pods["shop/web-1"].(keptPod).Template.Digest()) // more than nothing, less than a template
	budget := running.NewBudget(size)
	a := auditOf(t, w, d)
	a.budget = budget
	whole := w.pods["shop/web-1"].(keptPod)
	w.pods["shop/web-1"] = keptPod{budget.Take(whole.Pod)}
	passes(t, a, w)
	if len(a.rows) != 1 {
		t.Fatalf("%d workloads", len(a.rows))
	}
	for key, row := range a.rows {
		if row.Verdict != gatehouse.Deny || !row.standing.Unknown || key.Name != "web" || len(row.standing.Reasons) != 1 || !strings.Contains(row.standing.Reasons[0].Message, "no room") {
			t.Errorf("%s: %+v", key.Name, row.standing)
		}
	}
	text, err := json.Marshal(w.reports["shop"])
	if err != nil || !strings.Contains(string(text), `"result":"error"`) || !strings.Contains(string(text), "no room") {
		t.Errorf("the report is %s, %v", text, err)
	}
	if !strings.Contains(w.said["keep the templates of all Pods"], "cannot be judged") || !a.anew {
		t.Errorf("the log has %q; read anew: %t", w.said, a.anew)
	}
	w.pods["shop/web-1"] = whole
	passes(t, a, w)
	for key, row := range a.rows {
		if row.Verdict != gatehouse.Allow || len(a.rows) != 1 {
			t.Errorf("%s: %+v", key.Name, row.standing)
		}
	}
	if w.said["keep the templates of all Pods"] != "" || a.anew {
		t.Errorf("the log has %q still", w.said)
	}
}

// TestRunningIsHeard: a verdict that has become another is among the events of the API, for
// those who may read the repositories of the images.
func TestRunningIsHeard(t *testing.T) {
	w, d := newAuditWorld(), auditDB(t)
	w.add("shop", "web", "web-1", 1)
	a := auditOf(t, w, d)
	passes(t, a, w)
	w.state, w.bad[imageDigest(1)] = "2", true
	passes(t, a, w)
	api := images{&Server{db: d, facts: &facts{hosts: newHosts([]string{"own.example"}, "127.0.0.1:1")}}}
	for _, may := range []bool{true, false} {
		v, err := api.Events(t.Context(), 0, 1000, func(repo gatehouse.Repo) bool { return may || repo != "team/app-1" })
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Events []struct {
				Type    string
				Payload struct{ Namespace, Kind, Name, Verdict, Before, Decision string }
			}
			Next int64
		}
		if err := json.Unmarshal(b, &page); err != nil {
			t.Fatal(err)
		}
		var heard []string
		for _, e := range page.Events {
			if e.Type == "running.changed" && e.Payload.Decision != "" {
				heard = append(heard, fmt.Sprintf("%s %s/%s %s -> %s", e.Payload.Kind, e.Payload.Namespace, e.Payload.Name, e.Payload.Before, e.Payload.Verdict))
			}
		}
		want := map[bool]string{true: "[ReplicaSet shop/web allow -> deny]", false: "[]"}
		if fmt.Sprint(heard) != want[may] || page.Next == 0 {
			t.Errorf("who may read it: %t; heard is %v, next is %d", may, heard, page.Next)
		}
	}
}

// TestOneImageIsInNobodysWay: an image of ours that nobody has looked into, time that was
// spent at another registry, and wrong pull secrets keep no other image from being asked
// about; a registry that takes all the time there is does.
func TestOneImageIsInNobodysWay(t *testing.T) {
	unavailable := func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeUnavailable, "not now") }
	waits := func(ctx context.Context) error { <-ctx.Done(); return unavailable(ctx) }
	for name, c := range map[string]struct {
		registry, place string
		spent           time.Duration // before it was asked
		ask             func(context.Context) error
		away            bool
	}{
		"ours, not looked into":      {"own.example", "own.example", 0, unavailable, false},
		"ours, its storage is away":  {"own.example", "own.example", 0, waits, true},
		"another, refuses":           {"r.example", "r.example", 0, unavailable, true},
		"another, takes all time":    {"r.example", "r.example", 0, waits, true},
		"another, no time was left":  {"r.example", "r.example", runningTime - time.Second, waits, false},
		"another, with wrong logins": {"r.example", "r.example of a team", 0, unavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := askOnce(gather.Sources{Own: func(registry string) bool { return registry == "own.example" }})
				for i := range awayMax {
					ctx, cancel := context.WithTimeout(t.Context(), runningTime)
					time.Sleep(c.spent)
					ref := gatehouse.Ref{Registry: c.registry, Repo: "a", Digest: imageDigest(i)}
					if _, err := onceAt(ctx, f, ref, c.place, "q", func() (int, error) { return 0, c.ask(ctx) }); err == nil {
						t.Error("there is an answer")
					}
					cancel()
				}
				ref := gatehouse.Ref{Registry: c.registry, Repo: "a", Digest: imageDigest(awayMax)}
				_, err := once(t.Context(), f, ref, "q", func() (int, error) { return 1, nil })
				if (err != nil) != c.away {
					t.Errorf("the next image: %v", err)
				}
			})
		})
	}
}

// TestWhoHasTimeAsksAgain: an answer that somebody else had no time for is asked for again
// by whoever waited for it.
func TestWhoHasTimeAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := askOnce(gather.Sources{})
		ref := gatehouse.Ref{Registry: "r.example", Repo: "a", Digest: imageDigest(1)}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() {
			_, _ = once(short, f, ref, "q", func() (int, error) { // it is this one that fails
				<-short.Done()
				return 0, gatehouse.Errorf(gatehouse.CodeUnavailable, "no time")
			})
		}()
		synctest.Wait()
		if v, err := once(t.Context(), f, ref, "q", func() (int, error) { return 7, nil }); v != 7 || err != nil {
			t.Errorf("who had time got %d, %v", v, err)
		}
	})
}

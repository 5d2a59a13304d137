package running_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

var (
	one = "sha256:" + strings.Repeat("1", 64)
	two = "sha256:" + strings.Repeat("2", 64)
)

// pod is one Pod of a ReplicaSet, as a node has written into it.
func pod(t testing.TB, name string, change func(map[string]any)) map[string]any {
	t.Helper()
	var obj map[string]any
	err := json.Unmarshal([]byte(fmt.Sprintf(`{
		"metadata": {"name": %q, "generateName": "web-", "namespace": "shop", "uid": "u-%[1]s", "resourceVersion": "7",
			"labels": {"app": "web", "pod-template-hash": "abc"},
			"annotations": {"team": "a", "cni.projectcalico.org/podIP": "10.0.0.%[2]d"},
			"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]},
		"spec": {"nodeName": "node-%[2]d", "containers": [{"name": "a", "image": "r.example/a:v1"}, {"name": "b", "image": "r.example/b@`+two+`"}],
			"initContainers": [{"name": "i", "image": "r.example/i"}]},
		"status": {"phase": "Running", "podIP": "10.0.0.%[2]d", "containerStatuses": [
			{"name": "a", "imageID": "docker-pullable://other.example/a@`+one+`"}, {"name": "b", "imageID": "r.example/b@`+one+`"}],
			"initContainerStatuses": [{"name": "i", "imageID": "sha256:`+strings.Repeat("3", 64)+`"}]}}`, name, len(name))), &obj)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(obj)
	}
	return obj
}

func read(t testing.TB, obj map[string]any) running.Pod {
	t.Helper()
	p, ok := running.Read(obj)
	if !ok {
		t.Fatal("it is no Pod")
	}
	return p
}

// TestPodsOfOneTemplate: what a controller or a node writes into each Pod tells nothing
// apart, and what policies can see does.
func TestPodsOfOneTemplate(t *testing.T) {
	first := read(t, pod(t, "web-x", nil))
	if second := read(t, pod(t, "web-another", nil)); second.Template != first.Template || second.Name == first.Name {
		t.Errorf("two Pods of one ReplicaSet are %+v and %+v", first, second)
	}
	want := running.Workload{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "shop", Name: "web", UID: "rs"}
	if first.Workload != want {
		t.Errorf("the workload is %+v", first.Workload)
	}
	meta := func(o map[string]any) map[string]any { return o["metadata"].(map[string]any) }
	for name, change := range map[string]func(map[string]any){
		"label":      func(o map[string]any) { meta(o)["labels"].(map[string]any)["app"] = "other" },
		"annotation": func(o map[string]any) { meta(o)["annotations"].(map[string]any)["team"] = "b" },
		"image": func(o map[string]any) {
			o["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["image"] = "r.example/a:v2"
		},
		"field": func(o map[string]any) { o["spec"].(map[string]any)["hostNetwork"] = true },
		"what runs": func(o map[string]any) {
			o["status"].(map[string]any)["containerStatuses"].([]any)[0].(map[string]any)["imageID"] = "r.example/a@" + two
		},
	} {
		if other := read(t, pod(t, "web-x", change)); other.Template == first.Template {
			t.Errorf("another %s makes no other template", name)
		}
	}
	same := read(t, pod(t, "web-x", func(o map[string]any) {
		o["status"].(map[string]any)["podIP"] = "10.9.9.9"
		meta(o)["deletionTimestamp"], meta(o)["finalizers"] = "2026-01-01T00:00:00Z", []any{"x"}
	}))
	if same.Template != first.Template {
		t.Error("the life of a Pod makes another template")
	}
	if static := read(t, pod(t, "web-x", func(o map[string]any) {
		meta(o)["ownerReferences"].([]any)[0].(map[string]any)["kind"] = "Node"
	})); static.Workload.Kind != "Pod" || static.Workload.Name != "web-x" || static.Workload.UID != "u-web-x" {
		t.Errorf("the workload of a static Pod is %+v", static.Workload)
	}
	if ended := read(t, pod(t, "web-x", func(o map[string]any) { o["status"].(map[string]any)["phase"] = "Succeeded" })); !ended.Ended {
		t.Error("a Pod that has run runs")
	}
	for _, bad := range []map[string]any{nil, {}, {"metadata": map[string]any{}}, {"metadata": "x", "spec": "y"}} {
		if _, ok := running.Read(bad); ok {
			t.Errorf("%v is a Pod", bad)
		}
	}
}

// TestWhatRunsIsJudged: a tag means the digest that runs, whatever it means today; a
// digest means itself; an image of which no node tells the digest cannot be judged by it.
func TestWhatRunsIsJudged(t *testing.T) {
	p := read(t, pod(t, "web-x", nil))
	req, runs, err := p.Template.Request("shop", []byte(`{}`), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"r.example/a:v1@` + one + `"`, `"r.example/b@` + two + `"`, `"r.example/i"`} {
		if !strings.Contains(string(req.Object), want) {
			t.Errorf("there is no %s in %s", want, req.Object)
		}
	}
	if req.Mutated || req.Operation != "CREATE" || req.Namespace != "shop" || req.Name != "" || strings.Contains(string(req.Object), "nodeName") {
		t.Errorf("the request is %+v", req)
	}
	ref := func(s string) gatehouse.Ref {
		r, err := gatehouse.ParseRef(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, ok, err := runs.Digest(ref("r.example/i")); !ok || gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("an image of unknown digest: %t, %v", ok, err)
	}
	if _, ok, _ := runs.Digest(ref("r.example/new")); ok {
		t.Error("an image that has not run yet runs")
	}
	// Where nothing writes digests, tags stay, and mean what runs.
	req, runs, err = p.Template.Request("shop", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok, err := runs.Digest(ref("r.example/a:v1")); !ok || err != nil || string(d) != one || !req.Mutated || !strings.Contains(string(req.Object), `"r.example/a:v1"`) {
		t.Errorf("unpinned: %s %t %v %s", d, ok, err, req.Object)
	}
	// One tag that runs as two digests is told apart.
	both := read(t, pod(t, "web-x", func(o map[string]any) {
		list := o["spec"].(map[string]any)["containers"].([]any)
		list[1].(map[string]any)["image"] = "r.example/a:v1"
		o["status"].(map[string]any)["containerStatuses"].([]any)[1].(map[string]any)["imageID"] = "r.example/a@" + two
	}))
	if req, _, err = both.Template.Request("shop", nil, false); err != nil || !strings.Contains(string(req.Object), "r.example/a:v1@"+two) {
		t.Errorf("two digests of one tag: %v, %s", err, req.Object)
	}
	if _, _, err := (running.Template{}).Request("shop", nil, true); err == nil {
		t.Error("there is a request of no template")
	}
}

// TestReportIsBounded: however much is wrong, a report stays small, says how much it
// leaves out, and is the same for the same standings in any order.
func TestReportIsBounded(t *testing.T) {
	var all []running.Standing
	for i := range 2_000 {
		s := running.Standing{
			Workload: running.Workload{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: fmt.Sprintf("p-%04d", i), UID: "u"},
			Pods:     1, Decision: "d", Since: time.Unix(int64(1_000_000+i), 0), Verdict: gatehouse.Allow,
		}
		switch i % 3 {
		case 0:
			s.Verdict = gatehouse.Deny
			s.Reasons = []gatehouse.Reason{{Verdict: gatehouse.Deny, Code: "severity-exceeded", Policy: "p", Image: strings.Repeat("i", 5_000), Message: strings.Repeat("ü", 5_000)}}
			s.Unknown = i%2 == 0
		case 1:
			s.Verdict = gatehouse.Warn
			s.Reasons = []gatehouse.Reason{{Verdict: gatehouse.Warn, Code: "scan-old", Policy: "p", Message: "m"}}
		}
		all = append(all, s)
	}
	r := running.Report("shop", all)
	b, err := json.Marshal(r)
	if err != nil || len(b) > 1<<20 {
		t.Errorf("the report has %d bytes, %v", len(b), err)
	}
	want := map[string]any{"pass": int64(666), "fail": int64(333), "error": int64(334), "warn": int64(667), "skip": int64(0)}
	if d := cmp.Diff(want, r["summary"]); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
	results := r["results"].([]any)
	if len(results) != running.ResultsMax+2 {
		t.Errorf("there are %d results", len(results))
	}
	more := results[running.ResultsMax].(map[string]any)
	if more["rule"] != "more" || !strings.HasPrefix(more["message"].(string), "934 more") {
		t.Errorf("what is left out: %v", more)
	}
	if well := results[running.ResultsMax+1].(map[string]any); well["result"] != "pass" || !strings.Contains(well["message"].(string), "666 workloads") {
		t.Errorf("what is well: %v", well)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if d := cmp.Diff(r, running.Report("shop", all)); d != "" {
		t.Errorf("another order, another report:\n%s", d)
	}
}

// TestToldOnce: what is told of is verdict and reasons, not words; an Event of it has
// one name.
func TestToldOnce(t *testing.T) {
	s := running.Standing{
		Workload: running.Workload{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: "shop", Name: strings.Repeat("w", 250), UID: "u"},
		Verdict:  gatehouse.Deny, Since: time.Unix(5, 0), Decision: "abc",
		Reasons: []gatehouse.Reason{{Verdict: gatehouse.Deny, Code: "severity-exceeded", Policy: "p", Image: "i", Message: "2 flaws"}},
	}
	words := s
	words.Reasons = []gatehouse.Reason{s.Reasons[0], s.Reasons[0]}
	words.Reasons[0].Message = "3 flaws"
	if s.Key() != words.Key() {
		t.Error("other words are another verdict")
	}
	other := s
	other.Reasons = append(other.Reasons[:1:1], gatehouse.Reason{Verdict: gatehouse.Deny, Code: "signature-missing", Policy: "q", Image: "i"})
	if s.Key() == other.Key() {
		t.Error("another reason is the same verdict")
	}
	name := func(s running.Standing) string {
		e := running.Event(s, "me")
		return e["metadata"].(map[string]any)["name"].(string)
	}
	if name(s) != name(words) || name(s) == name(other) || len(name(s)) > 253 {
		t.Errorf("names: %s %s %s", name(s), name(words), name(other))
	}
	e := running.Event(s, "me")
	if e["reason"] != running.EventDenied || e["type"] != "Warning" || !strings.Contains(e["message"].(string), "severity-exceeded") || !strings.HasSuffix(e["message"].(string), "gatehouse explain abc") {
		t.Errorf("the Event is %v", e)
	}
	s.Verdict, s.Reasons = gatehouse.Allow, nil
	if e := running.Event(s, "me"); e["type"] != "Normal" || e["reason"] != running.EventAllowed {
		t.Errorf("the Event is %v", e)
	}
}

// TestOwnersAreForeignText: whoever makes a Pod writes what owns it, and the API server
// takes any text. What no object can be called owns nothing: a name of a megabyte, or with
// a character that a database does not take, would keep all others from being told of.
func TestOwnersAreForeignText(t *testing.T) {
	for key, texts := range map[string][]string{
		"name":       {strings.Repeat("x", 254), strings.Repeat("x", 1<<20), "a\x00b", "A", "a/b", "a b", "a\nb", "-a", "a.", "é"},
		"kind":       {strings.Repeat("X", 64), "Replica Set", "Set\x00", "7Set", "Sét"},
		"apiVersion": {"apps/v1/v1", "/v1", "apps/", strings.Repeat("x", 300) + "/v1", "apps/v\x00"},
		"uid":        {strings.Repeat("1", 129), "a\x00", "a b"},
	} {
		for _, text := range texts {
			p := read(t, pod(t, "web-x", func(o map[string]any) {
				o["metadata"].(map[string]any)["ownerReferences"].([]any)[0].(map[string]any)[key] = text
			}))
			if p.Workload != (running.Workload{APIVersion: "v1", Kind: "Pod", Namespace: "shop", Name: "web-x", UID: "u-web-x"}) {
				t.Errorf("with the %s %.20q it is owned by %.200q", key, text, p.Workload)
			}
		}
	}
}

// huge makes a Pod of more values than are judged, and fewer bytes than the API server
// takes.
func huge(o map[string]any) {
	o["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["args"] = slices.Repeat([]any{""}, 100_001)
}

// TestTooLargeToBeJudged: such a Pod is asked about as it is, so that it is denied, and
// not in the way of all others.
func TestTooLargeToBeJudged(t *testing.T) {
	req, runs, err := read(t, pod(t, "web-x", huge)).Template.Request("shop", nil, true)
	if err != nil || runs == nil || len(runs) != 0 || !strings.Contains(string(req.Object), `"r.example/a:v1"`) {
		t.Errorf("%.100s, %v, %v", req.Object, runs, err)
	}
}

// TestTemplatesAreBounded: templates that are no two alike are kept as far as there is
// room, equal ones once; the Pods of the others are there without theirs.
func TestTemplatesAreBounded(t *testing.T) {
	of := func(app string) running.Pod {
		return read(t, pod(t, "web-"+app, func(o map[string]any) {
			o["metadata"].(map[string]any)["labels"].(map[string]any)["app"] = app + strings.Repeat("x", 1000)
		}))
	}
	b := running.NewBudget(5000) // a template has between one and two thousand bytes
	var kept []running.Pod
	for range 10 {
		kept = append(kept, b.Take(of("same")))
	}
	for _, app := range []string{"a", "b", "c", "d", "e"} {
		kept = append(kept, b.Take(of(app)))
	}
	without := 0
	for _, p := range kept {
		if p.Name == "" || p.Template.Zero() {
			t.Errorf("a Pod is gone: %+v", p)
		}
		if p.Template.Unkept() {
			without++
		}
	}
	if without == 0 || without == 5 || kept[9].Template.Unkept() || !kept[14].Template.Unkept() {
		t.Errorf("%d Pods have no template", without)
	}
	if n, room := b.Settle(kept); n != without || room {
		t.Errorf("%d Pods have no template, room %t", n, room)
	}
	if p := b.Take(of("e")); !p.Template.Unkept() {
		t.Error("there is room, and nobody went")
	}
	if n, room := b.Settle(kept[:10]); n != 0 || !room {
		t.Errorf("%d Pods have no template, room %t", n, room)
	}
	if p := b.Take(of("e")); p.Template.Unkept() {
		t.Error("there is no room, and most went")
	}
	if p := b.Take(running.Pod{Name: "ended", Ended: true}); !p.Template.Zero() {
		t.Error("a Pod that has ended has a template")
	}
}

// FuzzRead: a Pod from anywhere is read without harm, twice the same, and what comes of
// it can be asked about.
func FuzzRead(f *testing.F) {
	b, err := json.Marshal(pod(f, "web-x", nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"metadata":{"name":"x"},"spec":{"containers":[{"name":"a","image":""},null,7]},"status":{"containerStatuses":[{"name":"a","imageID":"@"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var obj, again map[string]any
		if json.Unmarshal(b, &obj) != nil || json.Unmarshal(b, &again) != nil {
			return
		}
		p, ok := running.Read(obj)
		q, okAgain := running.Read(again)
		if p != q || ok != okAgain {
			t.Fatalf("read twice: %+v %t, %+v %t", p, ok, q, okAgain)
		}
		if !ok || p.Ended {
			return
		}
		for _, pinned := range []bool{true, false} {
			req, runs, err := p.Template.Request(p.Namespace, nil, pinned)
			if err != nil || !json.Valid(req.Object) || runs == nil {
				t.Fatalf("the request of %s is %+v: %v", b, req, err)
			}
		}
	})
}

// TestManyPodsAreCheap: ten thousand Pods of 300 templates, five kilobytes each as the API
// server has them, cost a few hundred bytes each.
func TestManyPodsAreCheap(t *testing.T) {
	const pods, templates, each = 10_000, 300, 600
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := make([]running.Pod, 0, pods)
	for i := range pods {
		kept = append(kept, read(t, pod(t, fmt.Sprintf("web-%d", i), func(o map[string]any) {
			o["spec"].(map[string]any)["env"] = strings.Repeat("x", 5_000)
			o["metadata"].(map[string]any)["labels"].(map[string]any)["app"] = fmt.Sprint(i % templates)
		})))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc) - templates*7_000
	t.Logf("%d bytes for each Pod, templates apart", used/pods)
	if used > pods*each {
		t.Errorf("%d Pods take %d bytes beside their templates, %d each are allowed", pods, used, each)
	}
	runtime.KeepAlive(kept)
}

package rego_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

func load(t *testing.T, text string) *rego.Policy {
	t.Helper()
	p, problems := rego.Load("rule.rego", []byte(text))
	if p == nil {
		t.Fatal(problems)
	}
	return p
}

func request(object string) gatehouse.Request {
	return gatehouse.Request{
		UID: "u", Operation: "CREATE", Name: "web", Namespace: "shop",
		Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"},
		User: gatehouse.User{Name: "jane", Groups: []string{"devs"}}, Object: []byte(object), Now: time.Unix(1_700_000_000, 0),
	}
}

const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"image":"evil.example/a:1"}]}}`

func messages(j decide.Judgement) []string {
	var all []string
	for _, r := range j.Reasons {
		all = append(all, r.Code+" "+r.Message)
	}
	return all
}

func TestVersions(t *testing.T) {
	v0 := load(t, "package a\ndeny[msg] { msg := input.review.name }\n")
	v1 := load(t, "package a\ndeny contains msg if { msg := input.review.name }\n")
	if v0.RegoVersion() != "v0" || v1.RegoVersion() != "v1" {
		t.Errorf("versions %s, %s", v0.RegoVersion(), v1.RegoVersion())
	}
	for _, p := range []*rego.Policy{v0, v1} {
		if got := messages(p.Judge(context.Background(), request(pod))); !cmp.Equal(got, []string{"rule-denied web"}) {
			t.Error(got)
		}
	}
}

// TestInput reads every field that the linter knows, in all three places.
func TestInput(t *testing.T) {
	fields := map[string]string{
		"review.uid": `"u"`, "review.kind.kind": `"Pod"`, "review.kind.version": `"v1"`, "review.kind.group": `""`,
		"review.operation": `"CREATE"`, "review.name": `"web"`, "review.namespace": `"shop"`,
		"review.userInfo.username": `"jane"`, "review.userInfo.groups[0]": `"devs"`,
		"review.object.kind": `"Pod"`, "request.object.metadata.name": `"web"`, "object.spec.containers[0].image": `"evil.example/a:1"`,
		"review.oldObject": "null", "request.uid": `"u"`, "review.dryRun": "false", "review.subResource": `""`, "review.requestKind.kind": `"Pod"`,
		"review.resource.version": `"v1"`, "request.options": "null",
	}
	for path, want := range fields {
		p := load(t, fmt.Sprintf("package a\ndeny contains \"yes\" if input.%s == %s\n", path, want))
		if j := p.Judge(context.Background(), request(pod)); j.Outcome != decide.Failed {
			t.Errorf("input.%s is not %s", path, want)
		}
	}
}

// TestReview: rules see what the API server wrote of the request, and of objects what
// the request holds.
func TestReview(t *testing.T) {
	req := request(pod)
	req.Review = []byte(`{"uid":"r","dryRun":true,"subResource":"ephemeralcontainers","resource":{"group":"","version":"v1","resource":"pods"},"requestKind":null,
		"userInfo":{"username":"jane","extra":{"scope":["a"]}},"object":{"spec":{"containers":[{"image":"other"}]}},"oldObject":{"a":1},"secret":"x"}`)
	for path, want := range map[string]string{
		"review.uid": `"r"`, "review.dryRun": "true", "review.subResource": `"ephemeralcontainers"`, "request.resource.resource": `"pods"`,
		"review.requestKind.kind": `"Pod"`, "review.userInfo.extra.scope[0]": `"a"`, "review.object.spec.containers[0].image": `"evil.example/a:1"`,
		"review.oldObject": "null", "review.kind.kind": `"Pod"`, "review.name": `"web"`,
	} {
		p := load(t, fmt.Sprintf("package a\ndeny contains \"yes\" if input.%s == %s\n", path, want))
		if j := p.Judge(context.Background(), req); j.Outcome != decide.Failed {
			t.Errorf("input.%s is not %s", path, want)
		}
	}
	req.Review = []byte(`{"uid":`)
	if j := load(t, "package a\ndeny contains \"x\" if false\n").Judge(context.Background(), req); j.Outcome != decide.Failed {
		t.Errorf("a request that is not JSON: %+v", j)
	}
}

func TestYields(t *testing.T) {
	for rule, want := range map[string][]string{
		`deny contains "a" if true`:                         {"rule-denied a"},
		`deny contains {"msg": "a", "details": {}} if true`: {"rule-denied a"},
		`deny contains {"text": "a"} if true`:               {"rule-denied the rule deny yields map[text:a]"},
		`deny contains 7 if true`:                           {"rule-denied the rule deny yields 7"},
		`deny := true`:                                      {"rule-denied the rule deny holds"},
		`deny := false`:                                     nil,
		`deny := "a"`:                                       {"rule-denied a"},
		`deny := ["a", "b"]`:                                {"rule-denied a", "rule-denied b"},
		`deny := []`:                                        nil,
		`deny := null`:                                      {"rule-denied the rule deny yields null"},
		`deny := 0`:                                         {"rule-denied the rule deny yields 0"},
		`deny["a"] := true`:                                 {"rule-denied a"},
		`deny["a"] := false`:                                nil,
		`deny contains "a" if false`:                        nil,
		"deny contains \"a\" if true\nviolation contains \"b\" if true\nwarn contains \"c\" if true": {"rule-denied a", "rule-denied b", "rule-warned c"},
	} {
		j := load(t, "package a\n"+rule+"\n").Judge(context.Background(), request(pod))
		if diff := cmp.Diff(want, messages(j)); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", rule, diff)
		}
		if failed := j.Outcome == decide.Failed; failed != strings.Contains(strings.Join(want, " "), "rule-denied") {
			t.Errorf("%s: outcome %v", rule, j.Outcome)
		}
	}
}

func TestWorkloads(t *testing.T) {
	p := load(t, `package a
deny contains sprintf("%s %s %s %s", [input.review.kind.kind, input.review.object.kind, input.review.object.metadata.name, c.image]) if {
	c := input.review.object.spec.containers[_]
}
`)
	req := request(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"shop"},"spec":{"template":{"spec":{"containers":[{"image":"evil.example/a:1"}]}}}}`)
	req.Kind = gatehouse.ObjectKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	req.Images = []gatehouse.ImageFacts{{Written: "evil.example/a:1", Field: "spec.template.spec.containers[0].image"}}
	j := p.Judge(context.Background(), req)
	if diff := cmp.Diff([]string{"rule-denied Pod Pod shop evil.example/a:1"}, messages(j)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(j.Reasons) != 1 || j.Reasons[0].Field != "spec.template.spec.containers[0].image" || !strings.Contains(j.Reasons[0].Hint, "rule.rego:2") {
		t.Errorf("reason %+v", j.Reasons)
	}
}

// TestEndlessRule asks for far more work than the deadline allows.
func TestEndlessRule(t *testing.T) {
	p := load(t, "package a\ndeny contains \"x\" if count([1 | some i in numbers.range(1, 100000); some k in numbers.range(1, 100000); i == k]) < 0\n")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	j := p.Judge(ctx, request(pod))
	if j.Outcome != decide.Failed || len(j.Reasons) != 1 || j.Reasons[0].Code != decide.CodeRuleError || !strings.Contains(j.Reasons[0].Message, "in time") {
		t.Errorf("%v %+v", j.Outcome, j.Reasons)
	}
}

func TestManyMessages(t *testing.T) {
	p := load(t, "package a\ndeny contains sprintf(\"%d\", [i]) if some i in numbers.range(1, 1000)\n")
	if j := p.Judge(context.Background(), request(pod)); j.Outcome != decide.Failed || len(j.Reasons) != 100 {
		t.Errorf("%v, %d reasons", j.Outcome, len(j.Reasons))
	}
}

// TestClock: rules see the request's time, not the machine's.
func TestClock(t *testing.T) {
	p := load(t, "package a\ndeny contains sprintf(\"%d\", [time.now_ns()]) if true\n")
	if got := messages(p.Judge(context.Background(), request(pod))); !cmp.Equal(got, []string{"rule-denied 1700000000000000000"}) {
		t.Error(got)
	}
}

func TestUnreadableObjectDenies(t *testing.T) {
	p := load(t, "package a\ndeny contains \"x\" if false\n")
	for _, object := range []string{"{", `{"apiVersion":"v1","kind":"Pod"}`} {
		if j := p.Judge(context.Background(), request(object)); j.Outcome != decide.Failed {
			t.Errorf("%s: %v", object, j.Outcome)
		}
	}
}

func TestConcurrent(t *testing.T) {
	p := load(t, "package a\ndeny contains msg if { msg := input.review.name }\n")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 20 {
				req := request(pod)
				req.Name = fmt.Sprint(i)
				if got := messages(p.Judge(context.Background(), req)); !cmp.Equal(got, []string{"rule-denied " + fmt.Sprint(i)}) {
					t.Error(got)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkJudge(b *testing.B) {
	p, problems := rego.Load("rule.rego", []byte("package a\n\ndeny[msg] {\n\tc := input.review.object.spec.containers[_]\n\tnot startswith(c.image, \"registry.example/\")\n\tmsg := c.image\n}\n"))
	if p == nil {
		b.Fatal(problems)
	}
	req := request(pod)
	b.ReportAllocs()
	for b.Loop() {
		if p.Judge(context.Background(), req).Outcome != decide.Failed {
			b.Fatal("not denied")
		}
	}
}

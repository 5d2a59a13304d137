package decide_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

// TestRuleOfPulls: of a pull there is no object. A rule about objects is not about it,
// nor does it have to name a digest, and names are judged all the same.
func TestRuleOfPulls(t *testing.T) {
	const head = "apiVersion: gatehouse.dev/v1alpha1\nkind: ImageRule\nmetadata: {name: rule}\nspec:\n  images: [{glob: \"**\"}]\n"
	for spec, want := range map[string]string{
		"  requireDigest: true\n":                                               "passed",
		"  podSecurity: restricted\n":                                           "passed",
		"  registries: {allow: [a.example]}\n":                                  decide.CodeRegistryUntrusted,
		"  registries: {deny: [r.example]}\n":                                   decide.CodeRegistryDenied,
		"  requireDigest: true\n  match: {excludedNamespaces: [kube-system]}\n": decide.CodeNoMatch,
		"  cel: {validations: [{expression: \"object == null && container == null && image.repository == 'a'\"}]}\n": "passed",
		"  cel: {validations: [{expression: \"object.kind == 'Pod'\"}]}\n":                                           decide.CodeRuleError,
	} {
		set, problems := load.Load([]load.File{{Path: "p.yaml", Data: []byte(head + spec)}}, gatehouse.Deny)
		if !set.Complete {
			t.Fatal(problems)
		}
		ref, err := gatehouse.ParseRef("r.example/a:1")
		if err != nil {
			t.Fatal(err)
		}
		req := gatehouse.Request{UID: "1", Operation: "PULL", Now: time.Unix(1, 0), Images: []gatehouse.ImageFacts{{Written: ref.String(), Image: ref}}}
		d := decide.Decide(context.Background(), set, req)
		if d.Reasons[0].Code != want || (d.Verdict == gatehouse.Allow) != (want == "passed") {
			t.Errorf("%s: %s %+v", spec, d.Verdict, d.Reasons)
		}
	}
}

// TestDryRunFaultsWarn: a policy that is only tried denies nothing, but what fails
// inside of it is not silent.
func TestDryRunFaultsWarn(t *testing.T) {
	for name, p := range map[string]decide.Policy{
		"panic":             scripted{name: "p", mode: decide.DryRun, judge: func() decide.Judgement { panic("x") }},
		"no judgement":      scripted{name: "p", mode: decide.DryRun, judge: func() decide.Judgement { return decide.Judgement{} }},
		"image not judged":  picking{scripted{name: "p", mode: decide.DryRun, judge: yes(0)}, every},
		"need out of range": scripted{name: "p", mode: decide.DryRun, needs: []gatehouse.Need{{Name: "n", Image: 7}}, judge: yes()},
	} {
		set := goodSet()
		set.Policies = append(set.Policies, p)
		if d := decide.Decide(context.Background(), set, goodRequest()); d.Verdict != gatehouse.Warn || d.Reasons[0].Policy != "p" {
			t.Errorf("%s: %s %+v", name, d.Verdict, d.Reasons)
		}
	}
	// It says no, and changes nothing.
	set := goodSet()
	set.Policies = append(set.Policies, scripted{name: "p", mode: decide.DryRun, judge: deny(gatehouse.Deny)})
	d := decide.Decide(context.Background(), set, goodRequest())
	if d.Verdict != gatehouse.Allow || !slices.ContainsFunc(d.Reasons, func(r gatehouse.Reason) bool { return r.Policy == "p" && r.Code == "no" }) {
		t.Errorf("%s %+v", d.Verdict, d.Reasons)
	}
	// It vouches for nothing.
	set.Policies = []decide.Policy{picking{scripted{name: "p", mode: decide.DryRun, judge: yes(0, 1)}, every}, picking{scripted{name: "q", judge: yes(0)}, func(i int) bool { return i == 0 }}}
	if d := decide.Decide(context.Background(), set, goodRequest()); d.Verdict != gatehouse.Deny || d.Reasons[0].Code != decide.CodeNoMatch {
		t.Errorf("%s %+v", d.Verdict, d.Reasons)
	}
}

package decide_test

import (
	"slices"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// whole is an image policy that judges more than images, and wants digests.
type whole struct{ picking }

func (whole) JudgesObject() bool { return true }
func (whole) WantsDigest() bool  { return true }

const running = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"image":"r.example/a:1"},{"image":"r.example/b:1"}]}}`

// update is a request that changes nothing.
func update() gatehouse.Request {
	req := goodRequest()
	req.Operation, req.Object, req.OldObject = "UPDATE", []byte(running), []byte(running)
	req.Images = decide.PolicySet{}.Images(req)
	return req
}

// TestUpdateAsksWhoJudgesTheObject: image policies are not asked about images that an
// update leaves alone, but for those that judge more than images.
func TestUpdateAsksWhoJudgesTheObject(t *testing.T) {
	no := func() decide.Judgement { return decide.Judgement{Outcome: decide.Failed} }
	p := picking{scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: 0}, {Name: "n", Image: 1}}, judge: no}, every}
	set := decide.PolicySet{Complete: true, Policies: []decide.Policy{p}}
	if d := decide.Decide(t.Context(), set, update()); d.Verdict != gatehouse.Allow || len(set.Needs(update())) != 0 {
		t.Errorf("%s %+v, needs %v", d.Verdict, d.Reasons, set.Needs(update()))
	}
	set.Policies[0] = whole{p}
	if d := decide.Decide(t.Context(), set, update()); d.Verdict != gatehouse.Deny || len(set.Needs(update())) != 2 {
		t.Errorf("%s %+v, needs %v", d.Verdict, d.Reasons, set.Needs(update()))
	}
}

// TestUnchangedIsNotBelieved: that an image has not changed is read from the object.
func TestUnchangedIsNotBelieved(t *testing.T) {
	set := goodSet()
	req := goodRequest()
	for i := range req.Images {
		req.Images[i].Unchanged = true
	}
	if d := decide.Decide(t.Context(), set, req); d.Verdict != gatehouse.Deny {
		t.Errorf("%s %+v", d.Verdict, d.Reasons)
	}
}

func TestPins(t *testing.T) {
	needy := picking{scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: 1}}, judge: yes(0, 1)}, every}
	plain := picking{scripted{name: "p", judge: yes(0, 1)}, every}
	panics := picking{scripted{name: "q", judge: yes(0, 1)}, func(int) bool { panic("x") }}
	for name, tt := range map[string]struct {
		policy decide.Policy
		change func(*gatehouse.Request)
		want   []int
	}{
		"who needs facts":      {needy, nil, []int{1}},
		"who needs none":       {plain, nil, nil},
		"who wants digests":    {whole{plain}, nil, []int{0, 1}},
		"an object policy":     {scripted{name: "o", needs: []gatehouse.Need{{Name: "n", Image: 1}}}, nil, nil},
		"a policy that panics": {panics, nil, nil},
		"fixed":                {needy, func(r *gatehouse.Request) { r.Images[1].TagFixed = true }, nil},
		"unchanged":            {needy, func(r *gatehouse.Request) { *r = update() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := goodRequest()
			if tt.change != nil {
				tt.change(&req)
			}
			set := decide.PolicySet{Complete: true, Policies: []decide.Policy{tt.policy}}
			if got := set.Pins(req); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

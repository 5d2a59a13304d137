package decide_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// scripted is a policy that does what a test says: the engine must deny
// whatever a policy does wrong.
type scripted struct {
	name  string
	mode  decide.Mode
	needs []gatehouse.Need
	judge func() decide.Judgement
}

func (p scripted) Name() string                                              { return p.name }
func (p scripted) Mode() decide.Mode                                         { return p.mode }
func (p scripted) Needs(gatehouse.Request) []gatehouse.Need                  { return p.needs }
func (p scripted) Judge(context.Context, gatehouse.Request) decide.Judgement { return p.judge() }

// picking is a scripted image policy.
type picking struct {
	scripted
	picks func(int) bool
}

func (p picking) Picks(req gatehouse.Request) (picks []int) {
	for i := range req.Images {
		if p.picks(i) {
			picks = append(picks, i)
		}
	}
	return picks
}

func yes(images ...int) func() decide.Judgement {
	return func() decide.Judgement { return decide.Judgement{Outcome: decide.Passed, Passed: images} }
}

func every(int) bool { return true }

func goodRequest() gatehouse.Request {
	const object = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"image":"r.example/a:1"},{"image":"r.example/b:1"}]}}`
	req := gatehouse.Request{UID: "1", Operation: "CREATE", Object: []byte(object), Now: time.Unix(1, 0)}
	req.Images = decide.PolicySet{}.Images(req)
	for i := range req.Images {
		req.Images[i].Image.Digest = gatehouse.DigestOf([]byte{byte(i)})
	}
	return req
}

func goodSet() decide.PolicySet {
	return decide.PolicySet{Complete: true, Policies: []decide.Policy{
		picking{scripted{name: "images", judge: yes(0, 1)}, every},
		scripted{name: "object", judge: yes()},
	}}
}

// faults are the ways in which a request that is fine can go wrong. None may
// end in Allow.
var faults = map[string]func(*decide.PolicySet, *gatehouse.Request){
	"zero set":           func(s *decide.PolicySet, _ *gatehouse.Request) { *s = decide.PolicySet{} },
	"not complete":       func(s *decide.PolicySet, _ *gatehouse.Request) { s.Complete = false },
	"no policies":        func(s *decide.PolicySet, _ *gatehouse.Request) { s.Policies = nil },
	"nil policy":         addPolicy(nil),
	"zero judgement":     addPolicy(scripted{name: "p", judge: func() decide.Judgement { return decide.Judgement{} }}),
	"unknown outcome":    addPolicy(scripted{name: "p", judge: func() decide.Judgement { return decide.Judgement{Outcome: 9} }}),
	"negative outcome":   addPolicy(scripted{name: "p", judge: func() decide.Judgement { return decide.Judgement{Outcome: -1} }}),
	"failed, no reason":  addPolicy(scripted{name: "p", judge: func() decide.Judgement { return decide.Judgement{Outcome: decide.Failed} }}),
	"passed with denial": addPolicy(scripted{name: "p", judge: deny(gatehouse.Deny)}),
	"unknown verdict":    addPolicy(scripted{name: "p", judge: deny(42)}),
	"negative verdict":   addPolicy(scripted{name: "p", judge: deny(-1)}),
	"panic in judge":     addPolicy(scripted{name: "p", judge: func() decide.Judgement { panic("x") }}),
	"panic, warn mode":   addPolicy(scripted{name: "p", mode: decide.WarnOnly, judge: func() decide.Judgement { panic("x") }}),
	"panic in picks":     addPolicy(picking{scripted{name: "p", judge: yes(0, 1)}, func(int) bool { panic("x") }}),
	"image not judged":   addPolicy(picking{scripted{name: "p", judge: yes(0)}, every}),
	"no image judged":    addPolicy(picking{scripted{name: "p", judge: yes()}, every}),
	"not applicable":     addPolicy(picking{scripted{name: "p", judge: func() decide.Judgement { return decide.Judgement{Outcome: decide.NotApplicable} }}, every}),
	"other image judged": addPolicy(picking{scripted{name: "p", judge: yes(0, 7)}, every}),
	"need out of range":  addPolicy(scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: 5}}, judge: yes()}),
	"negative need":      addPolicy(scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: -1}}, judge: yes()}),
	"need failed": func(s *decide.PolicySet, r *gatehouse.Request) {
		addPolicy(scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: 1}}, judge: yes()})(s, r)
		r.Images[1].Failed = map[string]*gatehouse.Error{"n": gatehouse.Errorf(gatehouse.CodeUnavailable, "away")}
	},
	"need failed with nil": func(s *decide.PolicySet, r *gatehouse.Request) {
		addPolicy(scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: 1}}, judge: yes()})(s, r)
		r.Images[1].Failed = map[string]*gatehouse.Error{"n": nil}
	},
	"need without digest": func(s *decide.PolicySet, r *gatehouse.Request) {
		addPolicy(scripted{name: "p", needs: []gatehouse.Need{{Name: "n", Image: 1}}, judge: yes()})(s, r)
		r.Images[1].Image.Digest = ""
	},
	"unmatched image": func(s *decide.PolicySet, _ *gatehouse.Request) {
		s.Policies[0] = picking{scripted{name: "images", judge: yes(0)}, func(i int) bool { return i == 0 }}
	},
	"image forgotten":      func(_ *decide.PolicySet, r *gatehouse.Request) { r.Images = r.Images[:1] },
	"no images handed in":  func(_ *decide.PolicySet, r *gatehouse.Request) { r.Images = nil },
	"image added":          func(_ *decide.PolicySet, r *gatehouse.Request) { r.Images = append(r.Images, r.Images[0]) },
	"images swapped":       func(_ *decide.PolicySet, r *gatehouse.Request) { slices.Reverse(r.Images) },
	"another reference":    func(_ *decide.PolicySet, r *gatehouse.Request) { r.Images[0].Image.Repo = "evil" },
	"another registry":     func(_ *decide.PolicySet, r *gatehouse.Request) { r.Images[0].Image.Registry = "evil.example" },
	"another tag":          func(_ *decide.PolicySet, r *gatehouse.Request) { r.Images[0].Image.Tag = "2" },
	"object is not JSON":   func(_ *decide.PolicySet, r *gatehouse.Request) { r.Object = []byte("{") },
	"object is gone":       func(_ *decide.PolicySet, r *gatehouse.Request) { r.Object, r.Images = nil, nil },
	"object of other kind": func(_ *decide.PolicySet, r *gatehouse.Request) { r.Kind.Kind = "ConfigMap" },
	"key twice": func(_ *decide.PolicySet, r *gatehouse.Request) {
		r.Object = []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"r.example/a:1"},{"image":"r.example/b:1"}]},"spec":{"containers":[{"image":"evil"}]}}`)
	},
}

func addPolicy(p decide.Policy) func(*decide.PolicySet, *gatehouse.Request) {
	return func(s *decide.PolicySet, _ *gatehouse.Request) { s.Policies = append(s.Policies, p) }
}

func deny(v gatehouse.Verdict) func() decide.Judgement {
	return func() decide.Judgement {
		return decide.Judgement{Outcome: decide.Passed, Reasons: []gatehouse.Reason{{Verdict: v, Code: "no"}}}
	}
}

func TestGoodRequestIsAllowed(t *testing.T) {
	if d := decide.Decide(context.Background(), goodSet(), goodRequest()); d.Verdict != gatehouse.Allow || len(d.Reasons) == 0 {
		t.Fatalf("%s: %+v", d.Verdict, d.Reasons)
	}
}

func TestFaultsDeny(t *testing.T) {
	for name, inject := range faults {
		t.Run(name, func(t *testing.T) {
			set, req := goodSet(), goodRequest()
			inject(&set, &req)
			d := decide.Decide(context.Background(), set, req)
			if d.Verdict != gatehouse.Deny || len(d.Reasons) == 0 || d.Reasons[0].Verdict != gatehouse.Deny || d.Reasons[0].Code == "" {
				t.Errorf("%s: %+v", d.Verdict, d.Reasons)
			}
		})
	}
}

// TestFaultsTogetherDeny injects several faults in random order, with every
// NoMatch: two wrongs must not make a right.
func TestFaultsTogetherDeny(t *testing.T) {
	var names []string
	for name := range faults {
		names = append(names, name)
	}
	slices.Sort(names)
	const seed = 20261121
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 2_000 {
		set, req := goodSet(), goodRequest()
		var did []string
		for range 1 + r.IntN(3) {
			name := names[r.IntN(len(names))]
			// A fault may find nothing left of what it changes.
			func() {
				defer func() { _ = recover() }()
				faults[name](&set, &req)
				did = append(did, name)
			}()
		}
		if len(did) == 0 {
			continue
		}
		if slices.Contains(did, "images swapped") && len(did) > 1 || slices.Contains(did, "unmatched image") {
			set.NoMatch = gatehouse.Deny // these two are no faults once they are undone, or allowed
		} else {
			set.NoMatch = gatehouse.Verdict(r.IntN(3))
		}
		if twice(did, "images swapped") {
			continue
		}
		if d := decide.Decide(context.Background(), set, req); d.Verdict != gatehouse.Deny {
			t.Fatalf("round %d of seed %d: %v with noMatch %v: %v %+v", i, seed, did, set.NoMatch, d.Verdict, d.Reasons)
		}
	}
}

func twice(list []string, s string) bool {
	n := 0
	for _, v := range list {
		if v == s {
			n++
		}
	}
	return n > 1
}

func TestEndedContextDenies(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := decide.Decide(ctx, goodSet(), goodRequest())
	if d.Verdict != gatehouse.Deny || d.Reasons[0].Code != decide.CodeTimeout {
		t.Errorf("%s: %+v", d.Verdict, d.Reasons)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	set := goodSet()
	for i := range 1_000 {
		set.Policies = append(set.Policies, scripted{name: fmt.Sprintf("p%d", i), judge: deny(gatehouse.Deny)})
	}
	d := decide.Decide(context.Background(), set, goodRequest())
	if d.Verdict != gatehouse.Deny || len(d.Reasons) != 200 || d.Reasons[199].Message != "and 801 more reasons" {
		t.Errorf("%d reasons, the last: %+v", len(d.Reasons), d.Reasons[len(d.Reasons)-1])
	}
}

func TestRefused(t *testing.T) {
	unsettled := scripted{name: "p", needs: []gatehouse.Need{{Name: "n"}}, judge: func() decide.Judgement { return decide.Judgement{} }}
	for name, tt := range map[string]struct {
		policies []decide.Policy
		want     bool
	}{
		"nothing against it":       {[]decide.Policy{picking{unsettled, every}, scripted{name: "o", judge: yes()}}, false},
		"an object policy refuses": {[]decide.Policy{picking{unsettled, every}, scripted{name: "o", judge: deny(gatehouse.Deny)}}, true},
		"one that only warns":      {[]decide.Policy{picking{unsettled, every}, scripted{name: "o", mode: decide.WarnOnly, judge: deny(gatehouse.Deny)}}, false},
		"no policy picks an image": {[]decide.Policy{picking{unsettled, func(i int) bool { return i == 0 }}}, true},
		"it panics":                {[]decide.Policy{picking{unsettled, func(int) bool { panic(errors.New("x")) }}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			req := goodRequest()
			for i := range req.Images {
				req.Images[i].Image.Digest = "" // nothing has been looked up yet
			}
			if got := (decide.PolicySet{Complete: true, Policies: tt.policies}).Refused(context.Background(), req); got != tt.want {
				t.Errorf("Refused = %v, want %v", got, tt.want)
			}
		})
	}
}

// TestPull: a pull has an image and no object.
func TestPull(t *testing.T) {
	ref, err := gatehouse.ParseRef("r.example/a@" + string(gatehouse.DigestOf(nil)))
	if err != nil {
		t.Fatal(err)
	}
	req := gatehouse.Request{UID: "1", Operation: "PULL", Images: []gatehouse.ImageFacts{{Written: ref.String(), Image: ref}}}
	set := goodSet()
	set.Policies[0] = picking{scripted{name: "images", judge: yes(0)}, every}
	if d := decide.Decide(context.Background(), set, req); d.Verdict != gatehouse.Allow || d.Subject != ref.Digest {
		t.Errorf("%s of %s: %+v", d.Verdict, d.Subject, d.Reasons)
	}
	set.Policies[0] = picking{scripted{name: "images", judge: yes()}, every}
	if d := decide.Decide(context.Background(), set, req); d.Verdict != gatehouse.Deny {
		t.Errorf("%s: %+v", d.Verdict, d.Reasons)
	}
}

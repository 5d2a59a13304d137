package decide_test

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// TestReading: an object that was read decides as one that was not, and counts for its
// own request only.
func TestReading(t *testing.T) {
	set := decide.PolicySet{Complete: true, Policies: []decide.Policy{picking{scripted{name: "p", judge: yes(0, 1)}, every}}}
	req := goodRequest()
	read := decide.Read(req)
	if got, want := read.Images(), set.Images(req); !reflect.DeepEqual(got, want) || len(got) != 2 {
		t.Errorf("%+v, want %+v", got, want)
	}
	for name, change := range map[string]func(*gatehouse.Request){
		"the request itself": func(*gatehouse.Request) {},
		"another object":     func(r *gatehouse.Request) { r.Object = bytes.Replace(r.Object, []byte("a:1"), []byte("evil:1"), 1) },
		"a container more": func(r *gatehouse.Request) {
			r.Object = bytes.Replace(r.Object, []byte(`[{`), []byte(`[{"image":"r.example/evil:1"},{`), 1)
		},
		"another kind":    func(r *gatehouse.Request) { r.Kind = gatehouse.ObjectKind{Version: "v1", Kind: "Secret"} },
		"other templates": func(r *gatehouse.Request) { r.Templates = []string{"spec.more"} },
		"no object":       func(r *gatehouse.Request) { r.Object = nil },
	} {
		other := req
		change(&other)
		got, want := read.Decide(context.Background(), set, other), decide.Decide(context.Background(), set, other)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if name == "another object" && got.Verdict != gatehouse.Deny {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

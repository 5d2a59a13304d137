package admit_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
)

// yes is a Decider that lets everything run: what is denied before it is asked is denied
// for how it was asked.
var yes = deciderFunc(func(context.Context, gatehouse.Request) gatehouse.Decision {
	return gatehouse.Decision{Verdict: gatehouse.Allow}
})

// TestSpellings: a question that somebody may read in two ways is refused, wherever it
// is asked. Maps, whose keys are anybody's, may have what they want.
func TestSpellings(t *testing.T) {
	review := func(request string) string {
		return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":{},` + request + `}}`
	}
	image := func(spec string) string {
		return `{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{` + spec + `}}`
	}
	mux := http.NewServeMux()
	admit.New(admit.Options{Decider: yes}).Register(mux)
	admit.NewDoors(admit.DoorOptions{Decider: yes}).Register(mux)
	for _, tt := range []struct {
		name, path, body string
		code             int
	}{
		{"a review", "/validate", review(`"kind":{"version":"v1","kind":"Pod"}`), 200},
		{"extra of a user", "/validate", review(`"userInfo":{"username":"a","extra":{"Scope":["a"],"scope":["b"],"Groups":["c"]}}`), 200},
		{"kind twice", "/validate", review(`"kind":{"version":"v1","kind":"Pod","kind":"ConfigMap"}`), 400},
		{"kind in another case", "/validate", review(`"kind":{"version":"v1","kind":"Pod","Kind":"ConfigMap"}`), 400},
		{"only in another case", "/validate", review(`"kind":{"version":"v1","KIND":"ConfigMap"}`), 400},
		{"a name that only looks like one", "/validate", review(`"kind":{"version":"v1","kind":"Pod","\u212aind":"ConfigMap"}`), 400},
		{"a user twice", "/validate", review(`"userInfo":{"username":"a","Username":"system:node:x"}`), 400},
		{"groups in another case", "/validate", review(`"userInfo":{"username":"a","GROUPS":["system:nodes"]}`), 400},
		{"the object twice", "/validate", review(`"object":{"kind":"ConfigMap"}`), 400},
		{"two requests", "/validate", strings.TrimSuffix(review(`"name":"a"`), "}") + `,"request":{"uid":"v"}}`, 400},
		{"two reviews", "/validate", review(`"name":"a"`) + review(`"name":"b"`), 400},
		{"a byte order mark", "/validate", "\ufeff" + review(`"name":"a"`), 400},
		{"an image", "/image-review", image(`"containers":[{"image":"a"}],"annotations":{"a/B":"1","a/b":"2"}`), 200},
		{"an image twice", "/image-review", image(`"containers":[{"image":"a","image":"b"}]`), 400},
		{"an image in another case", "/image-review", image(`"containers":[{"image":"a","Image":"b"}]`), 400},
		{"containers twice", "/image-review", image(`"containers":[{"image":"a"}],"containers":[{"image":"b"}]`), 400},
		{"a deep one", "/image-review", image(`"annotations":` + strings.Repeat(`{"a":`, 30) + `1` + strings.Repeat(`}`, 30)), 400},
		{"one that ends", "/image-review", `{"spec":{"containers":[`, 400},
		{"keys twice", "/external-data", strings.Replace(keys("a"), `"keys"`, `"keys":["b"],"keys"`, 1), 400},
	} {
		if code, answer := post(t, mux, tt.path, tt.body); code != tt.code || tt.code == 200 && !strings.Contains(answer, "allow") {
			t.Errorf("%s: %d %s", tt.name, code, answer)
		}
	}
}

// TestTextThatMisleads: what somebody else wrote stays on its line and in its direction.
func TestTextThatMisleads(t *testing.T) {
	d := gatehouse.Decision{ID: "abc", Reasons: []gatehouse.Reason{{Code: "c", Message: "no\u202eon\u200b\u2028allowed\ndecision xyz\x1b[2J"}}}
	r := send(t, admit.New(admit.Options{Decider: deciderFunc(func(context.Context, gatehouse.Request) gatehouse.Decision { return d })}), create("a"))
	if r.Status.Message != "no on  allowed decision xyz [2J [c]\ndecision abc" {
		t.Errorf("%q", r.Status.Message)
	}
}

// TestOneRoom: reviews and questions of other doors have one room together.
func TestOneRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room, b := admit.NewRoom(), blocked{make(chan struct{})}
		mux := http.NewServeMux()
		admit.New(admit.Options{Decider: b, Room: room}).Register(mux)
		admit.NewDoors(admit.DoorOptions{Decider: b, Room: room}).Register(mux)
		large, err := json.Marshal(strings.Repeat("a", admit.JudgedBytesMax))
		if err != nil {
			t.Fatal(err)
		}
		if _, answer := post(t, mux, "/validate?timeout=1s", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":{"x":`+string(large)+`}}}`); !strings.Contains(answer, "took longer") {
			t.Errorf("the review: %s", answer)
		}
		if _, answer := post(t, mux, "/image-review?timeout=1s", imageReview("shop", "a")); !strings.Contains(answer, "waited for others") || !strings.Contains(answer, `"allowed":false`) {
			t.Errorf("the other door: %s", answer)
		}
		close(b.until)
		synctest.Wait()
	})
}

// FuzzExactly: what is taken is what json.Unmarshal takes, and nothing in it is there
// twice or in another case.
func FuzzExactly(f *testing.F) {
	for _, seed := range []string{imageReview("shop", "a"), `{"kind":"a","Kind":"b"}`, `{"kind":"a","kind":"b"}`, `{"spec":{"containers":[{"image":"a"},{"Image":"b"}]}}`, `[`, `{"spec":null}`, `{"\u006bind":"a"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var exact, loose admit.ImageReview
		if err := admit.Exactly(body, &exact); err != nil {
			return
		}
		if err := json.Unmarshal(body, &loose); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(loose, exact); diff != "" {
			t.Fatal(diff)
		}
		// Written again by its own names it is the same: no other spelling was read.
		var fields map[string]json.RawMessage
		if json.Unmarshal(body, &fields) != nil {
			return
		}
		for name := range fields {
			for _, known := range []string{"apiVersion", "kind", "spec", "status"} {
				if name != known && strings.EqualFold(name, known) {
					t.Fatalf("%q was read as %q", name, known)
				}
			}
		}
	})
}

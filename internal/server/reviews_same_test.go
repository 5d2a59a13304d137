package server

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestSameReviews: reviews with one key have one digest, and those of one Deployment
// have one key.
func TestSameReviews(t *testing.T) {
	pod := func(name string) reviewed {
		object := `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","name":"` + name + `","uid":"` + name + `"},"spec":{"containers":[{"image":"x.example/a:1"}]}}`
		r := reviewed{verdict: gatehouse.Allow, decision: name, req: gatehouse.Request{
			UID: name, Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Resource: gatehouse.ObjectResource{Version: "v1", Resource: "pods"},
			Operation: "CREATE", Name: name, Namespace: "shop", User: gatehouse.User{Name: "ann"}, Mutated: true, Templates: []string{"spec"},
			Object: []byte(object), NamespaceObject: []byte(`{}`), Now: time.Unix(int64(len(name)), 0),
			Images: []gatehouse.ImageFacts{{Written: "x.example/a:1", Image: gatehouse.Ref{Digest: "sha256:aa"}}},
		}}
		var err error
		r.req.Review, err = json.Marshal(map[string]any{"uid": name, "kind": r.req.Kind, "resource": r.req.Resource, "operation": "CREATE", "name": name, "namespace": "shop",
			"userInfo": r.req.User, "object": json.RawMessage(object), "oldObject": nil})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	var s sameReviews
	key := func(r reviewed) reviewKey {
		t.Helper()
		k, ok := s.keyOf(r)
		if !ok {
			t.Fatalf("%s has no key", r.req.Review)
		}
		return k
	}
	digest := func(r reviewed) gatehouse.Digest {
		t.Helper()
		_, d, err := docOfReview(r)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := pod("web-1")
	if two := pod("web-22"); key(one) != key(two) || digest(one) != digest(two) {
		t.Error("two of one Deployment are not the same")
	}
	replaced := func(old, with string) func(*reviewed) {
		return func(r *reviewed) {
			for _, text := range []*[]byte{&r.req.Review, &r.req.Object} {
				*text = []byte(strings.ReplaceAll(string(*text), old, with))
			}
		}
	}
	for name, change := range map[string]func(*reviewed){
		"verdict":         func(r *reviewed) { r.verdict = gatehouse.Deny },
		"SubResource":     replaced(`"operation"`, `"subResource":"resize","operation"`),
		"Operation":       replaced("CREATE", "UPDATE"),
		"Namespace":       replaced("shop", "till"),
		"User":            replaced("ann", "bob"),
		"Object":          replaced("x.example/a:1", "x.example/b:1"),
		"OldObject":       replaced(`"oldObject":null`, `"oldObject":{"a":1}`),
		"DryRun":          replaced(`"oldObject"`, `"dryRun":true,"oldObject"`),
		"Mutated":         func(r *reviewed) { r.req.Mutated = false },
		"Templates":       func(r *reviewed) { r.req.Templates = []string{"spec", "other"} },
		"NamespaceObject": func(r *reviewed) { r.req.NamespaceObject = []byte(`{"a":1}`) },
		"Images": func(r *reviewed) {
			r.req.Images = []gatehouse.ImageFacts{{Written: "x.example/a:1", Image: gatehouse.Ref{Digest: "sha256:bb"}}}
		},
	} {
		other := pod("web-1")
		if change(&other); key(one) == key(other) {
			t.Errorf("another %s is the same", name)
		}
	}
	// Whoever adds a field to requests has to say here whether reviews differ by it.
	fields := strings.Fields(`UID Kind Resource SubResource Operation DryRun Name Namespace User Object OldObject Review
		NamespaceObject Inventory Mutated Templates Images FeedAt Now`)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[gatehouse.Request]()) {
		if !slices.Contains(fields, f.Name) {
			t.Errorf("keyOf does not know %s", f.Name)
		}
	}
	if _, ok := s.keyOf(reviewed{req: gatehouse.Request{Object: []byte(`{}`)}}); ok {
		t.Error("what came without a review has a key")
	}
	s.put(key(one), digest(one))
	for i := range 2 * sameReviewsMax {
		s.put(reviewKey{1, byte(i), byte(i >> 8)}, digest(one))
		if got, ok := s.digest(key(one)); i < sameReviewsMax && (!ok || got != digest(one)) {
			t.Fatalf("after %d others: %s, %v", i, got, ok)
		}
	}
	if _, ok := s.digest(key(one)); ok || len(s.young)+len(s.old) > 2*sameReviewsMax {
		t.Errorf("known after all that: %v, %d", ok, len(s.young)+len(s.old))
	}
}

// TestReviewsBesideOneTooLarge: a review that is the same as one that is not kept any more
// but for parts that nobody compares, and too large to be read, costs the others nothing.
func TestReviewsBesideOneTooLarge(t *testing.T) {
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	r := &reviews{db: d, age: time.Hour, log: slog.New(slog.DiscardHandler)}
	add := func(name, status string) {
		object := `{"kind":"Pod","metadata":{"name":"` + name + `"},"status":` + status + `}`
		r.add(gatehouse.Request{Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Name: name, Object: []byte(object), Now: time.Now(),
			Review: []byte(`{"uid":"1","name":"` + name + `","object":` + object + `}`)}, gatehouse.Decision{})
	}
	kept := func() (n int) {
		t.Helper()
		err := d.Get(t.Context(), func(tx *db.Tx) error {
			list, err := tx.Reviews(t.Context(), time.Time{}, time.Now().Add(24*time.Hour), "", 10)
			n = len(list)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	add("a", "{}")
	r.flush(t.Context())
	if n := kept(); n != 1 {
		t.Fatalf("%d are kept", n)
	}
	if err := r.prune(t.Context(), time.Now().Add(2*time.Hour)); err != nil || kept() != 0 {
		t.Fatal(err, kept())
	}
	add("a", strings.Repeat("[", 200)+strings.Repeat("]", 200))
	add("b", "{}")
	r.flush(t.Context())
	if n := kept(); n != 1 {
		t.Errorf("%d are kept", n)
	}
}

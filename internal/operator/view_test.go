package operator

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestViewOfACluster follows a real cluster: kinds that come later are read when they
// come, what policies refer to comes along without what is secret, and a kind that
// another program defined is left alone where that is asked for.
func TestViewOfACluster(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	k := e2e.StartKube(t, e2e.KubeOptions{})
	c := clientOf(t, k)
	k.Namespace(t, "home", map[string]string{"team": "x"})
	text := manifest.Type{}
	object := func(fields ...manifest.Field) manifest.Type {
		return manifest.Type{Kind: manifest.Object, Fields: fields}
	}
	rules := Definition{Group: "a.example", Kind: "Rule", Plural: "rules", Singular: "rule", Versions: []string{"v1"},
		Grammar: object(manifest.Field{Name: "metadata", Type: manifest.Metadata()}, manifest.Field{Name: "spec", Type: object(manifest.Field{Name: "secretRef", Type: object(manifest.Field{Name: "name", Type: text})})})}
	foreign := Definition{Group: "b.example", Kind: "Other", Plural: "others", Singular: "other", Versions: []string{"v1"}, Grammar: rules.Grammar}

	v, err := NewView(ViewOptions{Client: c, Namespace: "home", Log: slog.New(slog.DiscardHandler), Kinds: []PolicyKind{
		{Group: "a.example", Plural: "rules", Versions: []string{"v2", "v1"}}, {Group: "b.example", Plural: "*", Versions: []string{"v1"}, OursOnly: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Documents(); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("before anything was read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	defer func() { cancel(); <-done }()
	paths := func() []string {
		docs, err := v.Documents()
		if err != nil {
			return []string{err.Error()}
		}
		return slices.Sorted(maps.Keys(docs))
	}
	eventually(t, "a cluster without policies", func() bool { return len(paths()) == 0 })

	crd := foreign.Object()
	crd.SetLabels(nil)
	if _, err := c.Create(t.Context(), definitions, crd); err != nil {
		t.Fatal(err)
	}
	if left, err := Install(t.Context(), c, []Definition{rules, foreign}); err != nil || !slices.Equal(left, []string{"others.b.example"}) {
		t.Fatalf("left alone are %v, %v", left, err)
	}
	for _, path := range []string{"/apis/a.example/v1/rules", "/apis/b.example/v1/others"} {
		eventually(t, path, func() bool { return k.Call(t, http.MethodGet, path, nil).OK() })
	}
	k.Must(t, http.MethodPost, "/api/v1/namespaces/home/secrets", map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "keys"},
		"stringData": map[string]string{"cosign.pub": "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n", "cosign.key": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "cosign.password": "hunter2"},
	})
	k.Must(t, http.MethodPost, "/api/v1/namespaces/home/configmaps", map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "modules", "labels": map[string]string{labelPolicies: "true"}},
		"data": map[string]string{"a.rego": "package a\n", "notes.txt": "no policy"},
	})
	for path, kind := range map[string]string{"/apis/a.example/v1/rules": "Rule", "/apis/b.example/v1/others": "Other"} {
		version := strings.Split(strings.TrimPrefix(path, "/apis/"), "/")
		k.Must(t, http.MethodPost, path, map[string]any{"apiVersion": version[0] + "/v1", "kind": kind, "metadata": map[string]any{"name": "one"},
			"spec": map[string]any{"secretRef": map[string]any{"name": "keys"}, "unknown": map[string]any{"kept": true}}})
	}
	want := []string{"cluster/ConfigMap/modules/a.rego", "cluster/Rule/one", "reference/Secret/home/keys"}
	eventually(t, "all documents", func() bool { return cmp.Equal(paths(), want) })
	docs, err := v.Documents()
	if err != nil {
		t.Fatal(err)
	}
	if got := docs["cluster/Rule/one"]; !strings.Contains(got, "kept: true") {
		t.Errorf("unknown fields were dropped:\n%s", got)
	}
	if got := docs["reference/Secret/home/keys"]; !strings.Contains(got, "cosign.pub") || strings.Contains(got, "cosign.key") || strings.Contains(got, "password") {
		t.Errorf("of the secret there is:\n%s", got)
	}

	single(t, k, v)
	spaces(t, k, v)
	lookups(t, k, v)

	// What goes is gone.
	k.Must(t, http.MethodDelete, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rules.a.example", nil)
	eventually(t, "the kind is gone", func() bool { return cmp.Equal(paths(), want[:1]) })
}

// single reads Secrets and ConfigMaps one by one.
func single(t *testing.T, k *e2e.Kube, v *View) {
	t.Helper()
	if got, err := v.Secret("keys"); err != nil || len(got) != 3 {
		t.Errorf("the secret has %d entries, %v", len(got), err)
	}
	if got, err := v.ConfigMap("modules"); err != nil || string(got["notes.txt"]) != "no policy" {
		t.Errorf("the map has %v, %v", got, err)
	}
	for _, err := range []error{second(v.Secret("none")), second(v.ConfigMap("none")), second(v.PullSecret(t.Context(), "default", "none"))} {
		if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("what is not there: %v", err)
		}
	}
	k.Must(t, http.MethodPost, "/api/v1/namespaces/default/secrets", map[string]any{"apiVersion": "v1", "kind": "Secret",
		"metadata": map[string]any{"name": "pull"}, "stringData": map[string]string{"a": "b"}})
	if got, err := v.PullSecret(t.Context(), "default", "pull"); err != nil || string(got["a"]) != "b" {
		t.Errorf("a secret of another namespace: %v, %v", got, err)
	}
}

// spaces asks for namespaces.
func spaces(t *testing.T, k *e2e.Kube, v *View) {
	t.Helper()
	// Namespaces are known with their labels, also one that came a moment ago.
	if b, err := v.Namespace(t.Context(), "home"); err != nil || !strings.Contains(string(b), `"team":"x"`) || !strings.Contains(string(b), `"kind":"Namespace"`) {
		t.Errorf("the namespace is %s, %v", b, err)
	}
	k.Namespace(t, "fresh", nil)
	if b, err := v.Namespace(t.Context(), "fresh"); err != nil || !strings.Contains(string(b), "fresh") {
		t.Errorf("a new namespace is %s, %v", b, err)
	}
	if _, err := v.Namespace(t.Context(), "none"); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("a namespace that is not there: %v", err)
	}
}

// lookups follows what policies look up.
func lookups(t *testing.T, k *e2e.Kube, v *View) {
	t.Helper()
	// What policies look up is copied, and follows what changes; objects that stay the
	// same are shared.
	if v.Inventory() != nil {
		t.Error("nothing is looked up, and there is an inventory")
	}
	v.Lookup([]gatehouse.ObjectKind{{Version: "v1", Kind: "Namespace"}})
	find := func(name string) *gatehouse.ClusterObject {
		inv := v.Inventory()
		if inv == nil || !slices.Equal(inv.Kinds, []gatehouse.ObjectKind{{Version: "v1", Kind: "Namespace"}}) {
			return nil
		}
		i := slices.IndexFunc(inv.Objects, func(o *gatehouse.ClusterObject) bool { return o.Name == name })
		if i < 0 {
			return nil
		}
		return inv.Objects[i]
	}
	eventually(t, "the namespaces are in the inventory", func() bool { return find("home") != nil })
	before := find("home")
	k.Namespace(t, "later", nil)
	eventually(t, "a later one, too", func() bool { return find("later") != nil })
	if find("home") != before {
		t.Error("an object that stayed the same is not shared")
	}
	// What is looked up for a while is there when that is told, and gone afterwards.
	release := v.LookupFor(t.Context(), []gatehouse.ObjectKind{{Version: "v1", Kind: "Secret"}})
	if inv := v.Inventory(); len(inv.Kinds) != 2 || !slices.ContainsFunc(inv.Objects, func(o *gatehouse.ClusterObject) bool { return o.Name == "keys" }) {
		t.Errorf("what is looked up for a while is %v", inv.Kinds)
	}
	release()
	eventually(t, "it is no longer", func() bool { return find("home") != nil })
	v.Lookup(nil)
	eventually(t, "nothing is looked up any more", func() bool { return v.Inventory() == nil })
}

func second[T any](_ T, err error) error { return err }

// TestKindsOfACluster: discovery finds what is asked for, by name and by any.
func TestKindsOfACluster(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	c := clientOf(t, e2e.StartKube(t, e2e.KubeOptions{}))
	kinds := func(max int, asked ...gatehouse.ObjectKind) (out []string) {
		t.Helper()
		served, err := c.Kinds(t.Context(), asked, max)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Fatal(err)
		}
		for _, s := range served {
			out = append(out, s.Resource.Group+"/"+s.Resource.Version+"/"+s.Resource.Resource)
		}
		return out
	}
	got := kinds(10, gatehouse.ObjectKind{Version: "v1", Kind: "Namespace"}, gatehouse.ObjectKind{Group: "networking.k8s.io", Version: "*", Kind: "Ingress"},
		gatehouse.ObjectKind{Group: "none.example", Version: "v1", Kind: "X"})
	if !slices.Equal(got, []string{"/v1/namespaces", "networking.k8s.io/v1/ingresses"}) {
		t.Errorf("found %v", got)
	}
	if got := kinds(5, gatehouse.ObjectKind{Group: "*", Version: "*", Kind: "*"}); len(got) != 5 {
		t.Errorf("of everything there is %v", got)
	}
	if got := kinds(5); got != nil {
		t.Errorf("of nothing there is %v", got)
	}
}

package operator

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// namedPod is all that is kept of a Pod here: its names and its label.
type namedPod struct{ namespace, name, label string }

func (p namedPod) KeptName() (namespace, name string) { return p.namespace, p.name }

// TestPodsAndReports follows the Pods of a real cluster, of which little is kept, and
// writes reports and Events into it, each once.
func TestPodsAndReports(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	k := e2e.StartKube(t, e2e.KubeOptions{})
	c := clientOf(t, k)
	k.Namespace(t, "shop", nil)
	v, err := NewView(ViewOptions{Client: c, Namespace: "home", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var told atomic.Int64
	p, err := v.Pods(func(o *kube.Object) kube.Kept {
		return namedPod{o.GetNamespace(), o.GetName(), o.GetLabels()["l"]}
	}, func() { told.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Kept(); err == nil {
		t.Error("Pods are known before anything was read")
	}
	ctx, cancel := context.WithCancel(t.Context())
	viewed, watched := make(chan error, 1), make(chan struct{})
	go func() { viewed <- v.Run(ctx) }()
	go func() { p.Run(ctx); close(watched) }()
	defer func() { cancel(); <-viewed; <-watched }()
	kept := func() string {
		list, err := p.Kept()
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, one := range list {
			out = append(out, fmt.Sprint(one))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	const pods = "/api/v1/namespaces/shop/pods"
	k.Must(t, http.MethodPost, pods, e2e.Pod("a", "x"))
	k.Must(t, http.MethodPost, pods, e2e.Pod("b", "x"))
	eventually(t, "two Pods", func() bool { return kept() == "{shop a } {shop b }" })
	before := told.Load()
	patch := func(name, field, value string) {
		t.Helper()
		o := k.Must(t, http.MethodGet, pods+"/"+name, nil).Body
		k.Must(t, http.MethodPut, pods+"/"+name, []byte(strings.Replace(string(o), `"metadata":{`, fmt.Sprintf(`"metadata":{%q:{"l":%q},`, field, value), 1)))
	}
	patch("a", "annotations", "nobody keeps it")
	patch("b", "labels", "new")
	eventually(t, "the label", func() bool { return kept() == "{shop a } {shop b new}" })
	if n := told.Load() - before; n != 1 {
		t.Errorf("%d changes are told, one matters", n)
	}
	k.Must(t, http.MethodDelete, pods+"/a?gracePeriodSeconds=0", nil)
	eventually(t, "one is gone", func() bool { return kept() == "{shop b new}" })

	// Reports are written where the cluster knows them, and when they differ.
	const path = "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/r"
	version := func() string {
		s := k.Call(t, http.MethodGet, path, nil)
		if !s.OK() {
			return "none"
		}
		_, rest, _ := strings.Cut(string(s.Body), `"resourceVersion":"`)
		rest, _, _ = strings.Cut(rest, `"`)
		return rest
	}
	write := func(r *Reports, namespace string, body map[string]any) {
		t.Helper()
		if err := r.Write(t.Context(), namespace, body); err != nil {
			t.Error(err)
		}
	}
	body := func(n int64) map[string]any { return map[string]any{"summary": map[string]any{"fail": n}} }
	r := v.Reports("r", "")
	if write(r, "shop", body(1)); r.Served() != "" || version() != "none" {
		t.Error("a report of a kind that the cluster does not know")
	}
	crd := Definition{Group: "wgpolicyk8s.io", Kind: "PolicyReport", Plural: "policyreports", Singular: "policyreport", Versions: []string{"v1alpha2"},
		Grammar: manifest.Type{Kind: manifest.Object}}.Object()
	crd.Object["spec"].(map[string]any)["scope"] = "Namespaced"
	k.Must(t, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd.Object)
	eventually(t, "the kind is served", func() bool { return strings.TrimSpace(r.Served()) == "PolicyReport" })
	eventually(t, "it can be written", func() bool { return r.Write(t.Context(), "shop", body(1)) == nil && version() != "none" })
	first := version()
	for range 2 {
		write(r, "shop", body(1))
		write(v.Reports("r", ""), "shop", body(1)) // another replica
		r.Forget()
	}
	if version() != first {
		t.Error("an unchanged report is written again")
	}
	if write(r, "shop", body(2)); version() == first {
		t.Error("a changed report is not written")
	}
	second := version()
	said := func() string { return string(k.Must(t, http.MethodGet, path, nil).Body) }
	k.Must(t, http.MethodPut, path, []byte(strings.Replace(said(), `"fail":2`, `"fail":0`, 1))) // by a tenant, who keeps the rest
	r.Forget()
	if write(r, "shop", body(2)); version() == second || !strings.Contains(said(), `"fail":2`) {
		t.Errorf("what somebody made of a report stays: %s", said())
	}
	if list, err := v.Reports("r", "").Namespaces(t.Context()); err != nil || !slices.Equal(list, []string{"shop"}) {
		t.Errorf("there are reports in %v, %v", list, err)
	}
	write(r, "gone", body(1)) // a namespace that is not there needs none
	if write(r, "shop", nil); version() != "none" {
		t.Error("a report of nothing is there")
	}
	write(r, "shop", nil)

	// An Event of a name is there once.
	event := func() map[string]any {
		return map[string]any{
			"apiVersion": "v1", "kind": "Event", "metadata": map[string]any{"namespace": "shop", "name": "e"},
			"involvedObject": map[string]any{"kind": "Pod", "namespace": "shop", "name": "b"}, "reason": "R", "message": "m",
		}
	}
	for range 2 {
		if err := v.Tell(t.Context(), event()); err != nil {
			t.Error(err)
		}
	}
	if s := k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/events", nil); strings.Count(string(s.Body), `"reason":"R"`) != 1 {
		t.Errorf("Events: %s", s.Body)
	}
}

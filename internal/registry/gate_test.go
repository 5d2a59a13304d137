package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

// asking is a content whose project asks something of pulls.
type asking struct{ gatehouse.Content }

func (a asking) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	m, err := a.Content.ManifestByTag(ctx, repo, tag)
	if err == nil {
		m.Pull = gatehouse.PullEnforce
	}
	return m, err
}

// gate answers what it is told to.
type gate struct {
	warning string
	err     error
	asked   int
}

func (g *gate) Pull(_ context.Context, actor gatehouse.Actor, m *gatehouse.Manifest, tag string) (string, error) {
	g.asked++
	if actor.Name != "reader" || tag != "v1" || len(m.Body) == 0 {
		return "", fmt.Errorf("asked about %s, %q", actor.Name, tag)
	}
	return g.warning, g.err
}

type told struct{}

func (told) Error() string   { return "told" }
func (told) WireDetail() any { return map[string]string{"reason": "because"} }

// TestGate: a manifest whose project asks something of pulls is served when the gate
// says so, with its warning, and not where there is none.
func TestGate(t *testing.T) {
	h := newHouse(t, setup{})
	putManifest(t, h.content, gatehouse.ManifestPut{Repo: "a/b", Tags: []string{"v1"}, MediaType: "application/vnd.oci.image.index.v1+json",
		Body: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)})
	denied := gatehouse.Errorf(gatehouse.CodeDenied, "not signed").WithDetail("DENIED").WithHint("sign it")
	denied.Err = told{}
	for name, c := range map[string]struct {
		gate   registry.Gate
		status int
		has    string
	}{
		"nobody to ask":     {nil, 503, "cannot be told"},
		"allowed":           {&gate{}, 200, ""},
		"denied":            {&gate{err: denied}, 403, `{"errors":[{"code":"DENIED","message":"not signed; sign it","detail":{"reason":"because"}}]}`},
		"cannot be decided": {&gate{err: gatehouse.Errorf(gatehouse.CodeUnavailable, "no answer")}, 503, "no answer"},
		"fails inside":      {&gate{err: fmt.Errorf("secret")}, 500, "internal error"},
	} {
		handler := registry.New(registry.Options{Content: asking{h.content}, Auth: h.auth, Gate: c.gate})
		for _, method := range []string{"GET", "HEAD"} {
			w := ask(handler, method, "/v2/a/b/manifests/v1", "reader", "")
			if w.Code != c.status || method == "GET" && !strings.Contains(w.Body.String(), c.has) || w.Header().Get("Warning") != "" {
				t.Errorf("%s, %s: %d %s", name, method, w.Code, w.Body)
			}
			if got := w.Header().Get("Cache-Control"); c.status == 200 && got != "no-cache" {
				t.Errorf("%s may be kept: %q", name, got)
			}
		}
	}
	g := &gate{warning: "not \"signed\"\nby ä \\"}
	w := ask(registry.New(registry.Options{Content: asking{h.content}, Auth: h.auth, Gate: g}), "GET", "/v2/a/b/manifests/v1", "reader", "")
	if got := w.Header().Get("Warning"); w.Code != 200 || got != `299 - "not \"signed\"?by ? \\"` {
		t.Errorf("%d, warning %s", w.Code, got)
	}
	// Of a project that asks nothing the gate is not asked.
	silent := &gate{}
	w = ask(registry.New(registry.Options{Content: h.content, Auth: h.auth, Gate: silent}), "GET", "/v2/a/b/manifests/v1", "reader", "")
	if w.Code != 200 || silent.asked != 0 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("%d, asked %d times", w.Code, silent.asked)
	}
}

package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// door asks the admission listener.
func (r *running) door(path, body string) string {
	r.t.Helper()
	res, err := r.https.Post(r.webhook+path, "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %d %s %v", path, res.StatusCode, b, err)
	}
	return string(b)
}

// TestDoors: other doors decide by the same policies, as far as these speak of images,
// with tags that mean what they mean in this registry; their decisions are explained.
func TestDoors(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.AdmissionAlwaysDigests, c.AdmissionExemptNamespaces = []string{digestA}, []string{"kube-system", "gatehouse"}
	})
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	r.must("PUT", "/api/v1/policies/names.rego", "package names\ndeny contains msg if {\n\tnot input.review.object.metadata.labels.owner\n\tmsg := \"has no owner\"\n}\n")
	r.must("POST", "/api/v1/advisories?name=x", record)
	digest := r.push("a/b:1")
	r.eventually("the index", func() bool {
		return strings.Contains(r.must("GET", "/api/v1/verdicts?reference=registry.example/a/b:1", ""), `"indexed": true`)
	})
	review := func(namespace, image string) string {
		return r.door("/image-review", fmt.Sprintf(`{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{"namespace":%q,"containers":[{"image":%q}]}}`, namespace, image))
	}
	if s := review("shop", "registry.example/a/b:1"); !strings.Contains(s, `"allowed":true`) {
		t.Errorf("scanned: %s", s)
	}
	denied := review("shop", "registry.example/a/missing:1")
	if !strings.Contains(denied, `"allowed":false`) || strings.Contains(denied, "has no owner") {
		t.Errorf("missing: %s", denied)
	}
	_, id, _ := strings.Cut(denied, `"decision":"`)
	if len(id) < 20 || !strings.Contains(r.must("GET", "/api/v1/decisions/"+id[:20], ""), "registry.example/a/missing:1") {
		t.Errorf("not explained: %s", denied)
	}
	for _, s := range []string{review("gatehouse", "x.example/y:1"), review("shop", "x.example/y@"+digestA)} {
		if !strings.Contains(s, `"allowed":true`) {
			t.Errorf("on the list: %s", s)
		}
	}
	out := r.door("/external-data?value=image", `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":["registry.example/a/b:1"]}}`)
	if !strings.Contains(out, `"value":"registry.example/a/b:1@`+digest+`"`) {
		t.Errorf("external data: %s", out)
	}
}

// TestDoorsWithoutPolicies let nothing through but the list.
func TestDoorsWithoutPolicies(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/object.rego", "package names\ndeny contains msg if {\n\tinput.review.object.kind == \"X\"\n\tmsg := \"x\"\n}\n")
	s := r.door("/image-review", `{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{"containers":[{"image":"x.example/y:1"}]}}`)
	if !strings.Contains(s, `"allowed":false`) || !strings.Contains(s, "no-policies") {
		t.Error(s)
	}
}

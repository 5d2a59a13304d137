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
	if s := review("shop", "registry.example/a/b:1@"+digest); !strings.Contains(s, `"allowed":true`) {
		t.Errorf("scanned: %s", s)
	}
	// A tag may move until it is pulled: the webhook would not let it through either.
	if s := review("shop", "registry.example/a/b:1"); !strings.Contains(s, `"allowed":false`) || !strings.Contains(s, "tag-not-pinned") {
		t.Errorf("by its tag: %s", s)
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
	if out = r.door("/external-data", `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":["registry.example/a/b:1"]}}`); !strings.Contains(out, "tag-not-pinned") {
		t.Errorf("external data of a tag: %s", out)
	}
}

// reviewImage asks as a node or an ImagePolicyWebhook does.
func (r *running) reviewImage(namespace, image string) string {
	return r.door("/image-review", fmt.Sprintf(`{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{"namespace":%q,"containers":[{"image":%q}]}}`, namespace, image))
}

// TestDoorsAskNamedPolicies: policies of objects that the settings name are asked about a
// Pod of the images alone; one that is named and not there is a no.
func TestDoorsAskNamedPolicies(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AdmissionDoorPolicies = []string{"trusted", "RegoRegistries/trusted"} })
	r.must("PUT", "/api/v1/policies/trusted.rego", `package trusted
deny contains msg if {
	input.review.kind.kind == "Pod"
	some c in input.review.object.spec.containers
	not startswith(c.image, "good.example/")
	msg := sprintf("%s is not trusted", [c.image])
}
`)
	r.must("PUT", "/api/v1/policies/owner.rego", "package owner\ndeny contains msg if {\n\tnot input.review.object.metadata.labels.owner\n\tmsg := \"has no owner\"\n}\n")
	if s := r.reviewImage("shop", "good.example/a:1"); !strings.Contains(s, "there is no policy RegoRegistries/trusted") {
		t.Errorf("one is not there: %s", s)
	}
	r.must("PUT", "/api/v1/policies/registries.yaml", `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: regoregistries}
spec:
  crd: {spec: {names: {kind: RegoRegistries}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package regoregistries
      violation[{"msg": msg}] {
        c := input.review.object.spec.containers[_]
        endswith(c.image, ":latest")
        msg := sprintf("%v in %v is the latest", [c.image, input.review.namespace])
      }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: RegoRegistries
metadata: {name: trusted}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}
`)
	for image, want := range map[string]string{
		"good.example/a:1": `"allowed":true`, "evil.example/a:1": "evil.example/a:1 is not trusted", "good.example/a:latest": "good.example/a:latest in shop is the latest",
	} {
		if s := r.reviewImage("shop", image); !strings.Contains(s, want) || strings.Contains(s, "has no owner") {
			t.Errorf("%s: %s", image, s)
		}
	}
	if out := r.door("/external-data", `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":["evil.example/a:1","good.example/a:1"]}}`); strings.Count(out, "is not trusted") != 1 {
		t.Errorf("external data: %s", out)
	}
}

// TestDoorsKnowOtherNames: an image of this registry is judged by whatever name.
func TestDoorsKnowOtherNames(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.NoMatch = "allow" })
	r.must("PUT", "/api/v1/policies/closed.yaml", passes("closed", "registry.example/prod/**", "fail"))
	for _, host := range []string{"registry.example", "registry.example:443", "registry.example:0443", strings.TrimPrefix(r.url, "http://")} {
		if s := r.reviewImage("shop", host+"/prod/a:1"); !strings.Contains(s, "static-fail") {
			t.Errorf("%s: %s", host, s)
		}
	}
}

// TestBreakGlassAtTheNode: a node may pull what a token has let in, while the token holds;
// nothing before it was used, and nobody else's question is answered otherwise.
func TestBreakGlassAtTheNode(t *testing.T) {
	r := closed(t)
	a, b := "x.example/a@"+digestA, "x.example/b@"+digestB
	tok := r.token(map[string]any{})
	if s := r.reviewImage("", a); !strings.Contains(s, `"allowed":false`) {
		t.Errorf("before: %s", s)
	}
	if !r.askAs("ann", "shop", carrying("u1", tok.Token, a)).Allowed {
		t.Fatal("the token is of no use")
	}
	for range 2 {
		if s := r.reviewImage("", a); !strings.Contains(s, `"allowed":true`) || !strings.Contains(s, "the shop is down") {
			t.Errorf("the node: %s", s)
		}
	}
	for name, s := range map[string]string{
		"another namespace": r.reviewImage("prod", a), "another image": r.reviewImage("", b), "its tag": r.reviewImage("", "x.example/a:1"),
		"two images":    r.door("/image-review", `{"apiVersion":"imagepolicy.k8s.io/v1alpha1","kind":"ImageReview","spec":{"containers":[{"image":"`+a+`"},{"image":"`+b+`"}]}}`),
		"external data": r.door("/external-data", `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":["`+a+`"]}}`),
	} {
		if strings.Contains(s, `"allowed":true`) || !strings.Contains(s, "static-fail") {
			t.Errorf("%s: %s", name, s)
		}
	}
	if again := r.askAs("ann", "shop", carrying("u2", tok.Token, a)); again.Allowed {
		t.Errorf("a second Pod: %+v", again)
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

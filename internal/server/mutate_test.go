package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// signedPod is a server with one policy and one image that meets it.
func signedPod(t testing.TB, change func(*config.Config)) (r *running, digest string) {
	t.Helper()
	k := signer(t)
	r = start(t, t.TempDir(), change)
	r.must("PUT", "/api/v1/policies/signed.yaml", signedBy("signed", "registry.example/**", k))
	digest = r.push("a/b:1")
	r.signImage(k, "a/b", digest, sign.Options{})
	return r, digest
}

// TestTagsArePinned: a signed image by its tag is admitted with the digest that the
// mutating webhook has written, and not without.
func TestTagsArePinned(t *testing.T) {
	r, digest := signedPod(t, nil)
	const image = "registry.example/a/b:1"
	if a := r.ask("/validate", image); a.Allowed || !strings.Contains(a.Status.Message, "tag-not-pinned") {
		t.Errorf("by tag: %+v", a)
	}
	pinned := r.pin(image)
	if pinned != image+"@"+digest {
		t.Errorf("pinned as %q", pinned)
	}
	if a := r.ask("/validate", pinned); !a.Allowed {
		t.Errorf("pinned: %+v", a)
	}
	// Whatever moves the tag now, this digest was judged.
	other := r.push("a/b:1")
	if a := r.ask("/validate", image+"@"+other); a.Allowed || !strings.Contains(a.Status.Message, "signature-missing") {
		t.Errorf("the tag has moved: %+v", a)
	}
	if a := r.ask("/validate", pinned); !a.Allowed {
		t.Errorf("the tag has moved away: %+v", a)
	}
	for _, same := range []string{
		image + "@" + digest,             // pinned already
		"registry.example/a/none:1",      // not there
		"elsewhere.example/a:1",          // of no policy
		"registry.example/UPPER/case:1",  // no reference
		"auto",                           // a placeholder that a later webhook fills in
		"registry.example/a/b:1@sha256:", // broken
	} {
		if got := r.pin(same); got != same {
			t.Errorf("%s became %s", same, got)
		}
	}
}

func TestWhatIsMutated(t *testing.T) {
	const deployment = `"uid":"u1","operation":"CREATE","name":"p","namespace":"default","kind":{"group":"apps","version":"v1","kind":"Deployment"},
		"object":{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"p"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"registry.example/a/b:1"}]}}}}`
	for mode, want := range map[string][2]bool{"pods": {true, false}, "all": {true, true}, "off": {false, false}} {
		t.Run(mode, func(t *testing.T) {
			r, _ := signedPod(t, func(c *config.Config) { c.AdmissionMutate = mode })
			if pod := strings.Contains(r.pin("registry.example/a/b:1"), "@"); pod != want[0] {
				t.Errorf("Pod: %v", pod)
			}
			a := r.askAbout("/mutate", deployment)
			if got := strings.Contains(string(a.Patch), "/spec/template/spec/containers/0/image"); !a.Allowed || got != want[1] {
				t.Errorf("Deployment: %s", a.Patch)
			}
			if a := r.askAbout("/validate", deployment); !a.Allowed {
				t.Errorf("Deployment: %+v", a)
			}
		})
	}
}

// TestRuleThatWantsDigests is not met by a tag, but does not keep it from being
// pinned: the rule is asked about what will be stored.
func TestRuleThatWantsDigests(t *testing.T) {
	r, _ := signedPod(t, nil)
	r.must("PUT", "/api/v1/policies/digests.rego", "package digests\n\ndeny contains msg if {\n\tc := input.review.object.spec.containers[_]\n\tnot contains(c.image, \"@sha256:\")\n\tmsg := \"no digest\"\n}\n")
	if a := r.ask("/validate", "registry.example/a/b:1"); a.Allowed || !strings.Contains(a.Status.Message, "no digest") {
		t.Errorf("%+v", a)
	}
	if allowed, message := r.review("registry.example/a/b:1"); !allowed {
		t.Errorf("%s", message)
	}
}

func TestExemptNamespaces(t *testing.T) {
	r, _ := signedPod(t, func(c *config.Config) { c.AdmissionExemptNamespaces = []string{"kube-system", "gatehouse"} })
	for namespace, want := range map[string]bool{"kube-system": true, "gatehouse": true, "kube-system2": false, "": false, "default": false} {
		a := r.askAbout("/validate", fmt.Sprintf(`"uid":"u1","operation":"CREATE","namespace":%q,"kind":{"version":"v1","kind":"Pod"},
			"object":{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"kube-system"},"spec":{"containers":[{"image":"evil.example/x:1"}]}}`, namespace))
		if a.Allowed != want {
			t.Errorf("%q: %+v", namespace, a)
		}
	}
}

// TestTemplatesOfCustomResources: what the settings name is judged.
func TestTemplatesOfCustomResources(t *testing.T) {
	r, _ := signedPod(t, func(c *config.Config) {
		c.AdmissionTemplates = []string{"Fleet.example.com=spec.groups[*].pod", "Fleet.example.com=spec.extra.*"}
	})
	const fleet = `"uid":"u1","operation":"CREATE","namespace":"x","kind":{"group":"example.com","version":"v1","kind":%q},
		"object":{"apiVersion":"example.com/v1","kind":%[1]q,"spec":{"groups":[{},{"pod":{"spec":{"containers":[{"image":"evil.example/x:1"}]}}}],"extra":{"a":"evil.example/y:2"}}}}`
	a := r.askAbout("/validate", strings.TrimSuffix(fmt.Sprintf(fleet, "Fleet"), "}"))
	if a.Allowed || !strings.Contains(a.Status.Message, "spec.groups[1].pod.spec.containers[0].image") || !strings.Contains(a.Status.Message, "spec.extra.a") {
		t.Errorf("%+v", a)
	}
	if a := r.askAbout("/validate", strings.TrimSuffix(fmt.Sprintf(fleet, "Other"), "}")); !a.Allowed {
		t.Errorf("%+v", a)
	}
}

// TestPoliciesOfTheClusterAreChecked when they are put there, also by a server that
// has none yet and so denies everything else.
func TestPoliciesOfTheClusterAreChecked(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	policy := func(spec string) reviewed {
		return r.askAbout("/validate", `"uid":"u1","operation":"CREATE","name":"p","kind":{"group":"policy.sigstore.dev","version":"v1beta1","kind":"ClusterImagePolicy"},
			"object":{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"p","uid":"7","managedFields":[{}],"creationTimestamp":null},"spec":`+spec+`,"status":{}}`)
	}
	if a := policy(`{"images":[{"glob":"**"}],"authorities":[{"static":{"action":"pass"}}]}`); !a.Allowed {
		t.Errorf("good: %+v", a)
	}
	a := policy(`{"images":[{"glob":"**"}],"authorities":[{"static":"pass"}]}`)
	if a.Allowed || !strings.Contains(a.Status.Message, "policy-invalid") || !strings.Contains(a.Status.Message, "spec.authorities[0].static") {
		t.Errorf("bad: %+v", a)
	}
	a = policy(`{"images":[{"glob":"**"}],"authority":[],"mood":"warn"}`)
	if a.Allowed || !strings.Contains(a.Status.Message, "did you mean authorities?; ") {
		t.Errorf("two things are wrong, and run into each other: %+v", a)
	}
}

// TestEveryKindIsCheckedAtItsCreation: one that does not load denies everything, so that
// none of the kinds that are read from a cluster may come in unseen.
func TestEveryKindIsCheckedAtItsCreation(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	for kind, group := range map[string]string{
		"ClusterImagePolicy": "policy.sigstore.dev/v1beta1", "TrustRoot": "policy.sigstore.dev/v1alpha1", "ImageRule": "gatehouse.dev/v1alpha1",
		"ConstraintTemplate": "templates.gatekeeper.sh/v1",
		"ExpansionTemplate":  "expansion.gatekeeper.sh/v1beta1", "SyncSet": "syncset.gatekeeper.sh/v1alpha1",
	} {
		name, version, _ := strings.Cut(group, "/")
		a := r.askAbout("/validate", `"uid":"u1","operation":"CREATE","name":"p","kind":{"group":"`+name+`","version":"`+version+`","kind":"`+kind+`"},
			"object":{"apiVersion":"`+group+`","kind":"`+kind+`","metadata":{"name":"p"},"spec":{"bogus":1}}`)
		if a.Allowed || !strings.Contains(a.Status.Message, "policy-invalid") {
			t.Errorf("%s: %+v", kind, a)
		}
	}
	a := r.askAbout("/validate", `"uid":"u1","operation":"CREATE","name":"p","kind":{"group":"expansion.gatekeeper.sh","version":"v1beta1","kind":"ExpansionTemplate"},
		"object":{"apiVersion":"expansion.gatekeeper.sh/v1beta1","kind":"ExpansionTemplate","metadata":{"name":"p"},"spec":{
		"applyTo":[{"groups":["apps"],"kinds":["Deployment"],"versions":["v1"]}],"templateSource":"spec.template","generatedGVK":{"group":"","version":"v1","kind":"Pod"}}}`)
	if !a.Allowed {
		t.Errorf("a good ExpansionTemplate: %+v", a)
	}
}

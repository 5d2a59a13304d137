package e2e_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// watchedPods are those of the namespace that is judged.
const watchedPods = "/api/v1/namespaces/shop/pods"

// trustedRegistry is the rule of the document that the project was asked for, as it
// stands there.
const trustedRegistry = `package kubernetes.validating.images
deny[msg] {
container := input.review.object.spec.containers[_]
not startswith(container.image, "your-registry.com/")
msg := sprintf("Image '%v' comes from an untrusted registry: %v", [container.image, "your-registry.com"])
}
`

// watched is a cluster that a server looks after, which has made everything that is
// there itself.
type watched struct {
	g     *e2e.Gatehouse
	k     *e2e.Kube
	key   string // PEM
	flags []string

	tagged           string // a signed image, by its tag
	unsigned, digest string // an image that is not signed, by its tag and by its digest
}

// production is the policy of that document with its indentation, and what stands
// beside its images.
func (c *watched) production(name string, with object) object {
	spec := object{
		"images":      []any{object{"glob": "your-registry.com/production/**"}, object{"glob": "your-registry.com/staging/**"}},
		"authorities": []any{object{"key": object{"data": c.key}}},
	}
	maps.Copy(spec, with)
	return object{"apiVersion": "policy.sigstore.dev/v1beta1", "kind": "ClusterImagePolicy", "metadata": object{"name": name}, "spec": spec}
}

// dry offers an object as a dry run.
func (c *watched) dry(t *testing.T, path string, o object) e2e.Status {
	t.Helper()
	return c.k.Call(t, http.MethodPost, path+"?dryRun=All", o)
}

// TestWebhooksOfACluster has a server make its webhook configurations, with the two
// policies that the project was asked for in front of a real API server: bad policies
// are refused, tags pinned in Pods and nowhere else, the glass is broken by those whom the
// cluster allows it, and the cluster goes on while nobody answers.
func TestWebhooksOfACluster(t *testing.T) {
	cosign := tool.Need(t, "cosign")
	tool.Need(t, "crane")
	c := &watched{g: e2e.ReserveGatehouse(t), k: e2e.StartKube(t, e2e.KubeOptions{})}
	c.k.Namespace(t, "gatehouse", nil)
	c.k.Namespace(t, "shop", nil)
	c.g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(c.g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	c.key = string(key)
	// Without the fallback policy, whose answer would come before the webhook's.
	c.flags = []string{"--kubeconfig", c.k.Kubeconfig(), "--webhook-url", c.g.AdmissionURL, "--hostnames", "your-registry.com", "--fallback-policy=false"}
	c.g.Start(t, c.flags...)
	until(t, "the custom resources are served", func() bool { return c.k.Call(t, http.MethodGet, cipPath, nil).OK() })
	until(t, "the webhook configuration is there", func() bool { return c.k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	t.Run("bad policies are refused", c.badPolicies)
	if !t.Run("two policies", c.twoPolicies) {
		return
	}
	t.Run("tags", c.tags)
	t.Run("break-glass", c.breakGlass)
	t.Run("nobody answers", c.nobodyAnswers)
}

// badPolicies: each is refused with the field, what is wrong with it and what was meant.
func (c *watched) badPolicies(t *testing.T) {
	until(t, "policies are judged", func() bool { return !c.dry(t, cipPath, c.production("early", object{"authoritys": "x"})).OK() })
	for name, bad := range map[string]struct {
		with object
		want []string
	}{
		"the document's own": {
			object{"authorities": []any{object{"key": object{"data": c.key}, "static": "your-registry.com/production/**"}}},
			[]string{"spec.authorities[0].static: must be an object {action: pass|fail", `it is the string "your-registry.com/production/**"`, "spec.images[].glob"},
		},
		"a key that is text":    {object{"authorities": []any{object{"key": c.key}}}, []string{"spec.authorities[0].key: must be an object {data}"}},
		"globs that are text":   {object{"images": []any{"**"}}, []string{"spec.images[0]: must be an object {glob}"}},
		"a field written wrong": {object{"authoritys": []any{}}, []string{"spec.authoritys: unknown field", "did you mean authorities?"}},
		"a key that is none":    {object{"authorities": []any{object{"key": object{"data": "mine"}}}}, []string{"spec.authorities[0].key.data"}},
	} {
		o := c.production("bad", bad.with)
		for _, version := range []string{"v1beta1", "v1alpha1"} {
			o["apiVersion"] = "policy.sigstore.dev/" + version
			s := c.dry(t, strings.Replace(cipPath, "v1beta1", version, 1), o)
			for _, want := range bad.want {
				if s.OK() || !strings.Contains(s.Message, want) {
					t.Errorf("%s in %s: %d %s; want %q", name, version, s.Code, s.Message, want)
				}
			}
		}
	}
	rule := object{"apiVersion": "gatehouse.dev/v1alpha1", "kind": "ImageRule", "metadata": object{"name": "bad"}, "spec": object{"registries": "your-registry.com"}}
	if s := c.dry(t, "/apis/gatehouse.dev/v1alpha1/imagerules", rule); s.OK() || !strings.Contains(s.Message, "spec.registries") {
		t.Errorf("a bad ImageRule: %d %s", s.Code, s.Message)
	}
	// What the API server itself refuses, it refuses in words as good.
	if s := c.dry(t, cipPath, c.production("bad", object{"mode": "enforced"})); s.OK() || !strings.Contains(s.Message, `"enforce", "warn"`) {
		t.Errorf("a bad mode: %d %s", s.Code, s.Message)
	}
}

// twoPolicies puts both into the cluster and has both judge.
func (c *watched) twoPolicies(t *testing.T) {
	c.k.Must(t, http.MethodPost, cipPath, c.production("require-production-signature", nil))
	c.k.Must(t, http.MethodPost, "/api/v1/namespaces/gatehouse/configmaps", object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "rules", "labels": object{"gatehouse.dev/policies": "true"}},
		"data": object{"registries.rego": trustedRegistry},
	})
	tagged, _ := signedImage(t, c.g, "production/app")
	unsigned := c.g.Host + "/staging/unsigned:v1"
	crane := tool.Need(t, "crane")
	c.g.Run(t, crane, "append", "--insecure", "-f", c.g.WriteFile(t, "other.tar", oneFile(t, "other")), "-t", unsigned)
	digest := strings.TrimSpace(c.g.Run(t, crane, "digest", "--insecure", unsigned))
	c.tagged = strings.Replace(tagged, c.g.Host, "your-registry.com", 1)
	c.unsigned = strings.Replace(unsigned, c.g.Host, "your-registry.com", 1)
	c.digest = strings.TrimSuffix(c.unsigned, ":v1") + "@" + digest

	evil := e2e.Pod("evil", "my-evil-image.net/backdoor:latest")
	until(t, "both policies judge", func() bool {
		s := c.dry(t, watchedPods, evil)
		return !s.OK() && strings.Contains(s.Message, "comes from an untrusted registry: your-registry.com")
	})
	waitPinned(t, c.k, c.tagged)
	for _, image := range []string{c.unsigned, c.digest} {
		if s := c.dry(t, watchedPods, e2e.Pod("unsigned", image)); s.OK() || !strings.Contains(s.Message, "require-production-signature") {
			t.Errorf("%s is not signed: %d %s", image, s.Code, s.Message)
		}
	}
	both := c.dry(t, watchedPods, e2e.Pod("both", c.tagged, "my-evil-image.net/backdoor:latest"))
	if both.OK() || !strings.Contains(both.Message, "my-evil-image.net/backdoor") {
		t.Errorf("a good image beside a bad one: %d %s", both.Code, both.Message)
	}
}

// tags are written with their digest into Pods, and left as they are in what makes Pods:
// whoever keeps that in a repository finds nothing to undo.
func (c *watched) tags(t *testing.T) {
	pod := c.k.CreatePod(t, "shop", e2e.Pod("app", c.tagged))
	if !pod.OK() {
		t.Fatalf("the signed image is denied: %s", pod.Message)
	}
	if body := string(pod.Body); !strings.Contains(body, `"image":"`+c.tagged+`@sha256:`) || !strings.Contains(body, "gatehouse.dev/original-images") {
		t.Errorf("the Pod was admitted and not pinned: %s", body)
	}
	made := c.k.Must(t, http.MethodPost, "/apis/apps/v1/namespaces/shop/deployments", deployment("app", c.tagged))
	if body := string(made.Body); !strings.Contains(body, `"image":"`+c.tagged+`"`) || strings.Contains(body, "@sha256:") || strings.Contains(body, "original-images") {
		t.Errorf("the Deployment is not as it was written: %s", body)
	}
	const path = watchedPods + "/app/ephemeralcontainers"
	for image, want := range map[string]bool{c.tagged: true, c.unsigned: false} {
		running := decoded(t, c.k.Must(t, http.MethodGet, watchedPods+"/app", nil))
		running["spec"].(object)["ephemeralContainers"] = []any{object{"name": "debug", "image": image, "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}}
		s := c.k.Call(t, http.MethodPut, path+"?dryRun=All", running)
		if s.OK() != want || want && strings.Count(string(s.Body), c.tagged+"@sha256:") < 2 {
			t.Errorf("an ephemeral container of %s: %d %s%s", image, s.Code, s.Message, s.Body)
		}
	}
}

// breakGlass lets those use tokens whom the cluster allows it, and nobody else.
func (c *watched) breakGlass(t *testing.T) {
	const roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/"
	for user, resources := range map[string][]any{"ann": {"breakglasses"}, "bob": {"imagerules"}} {
		c.k.Must(t, http.MethodPost, roles+"roles", object{"metadata": object{"name": user}, "rules": []any{
			object{"apiGroups": []any{""}, "resources": []any{"pods"}, "verbs": []any{"create"}},
			object{"apiGroups": []any{"gatehouse.dev"}, "resources": resources, "verbs": []any{"create"}},
		}})
		c.k.Must(t, http.MethodPost, roles+"rolebindings", object{"metadata": object{"name": user},
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
			"subjects": []any{object{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}},
		})
	}
	try := func(user string) e2e.Status {
		token := strings.TrimSpace(c.g.Run(t, c.g.Binary, "break-glass", "create", "--server", c.g.URL, "-q",
			"--namespace", "shop", "--image", c.digest, "--requester", user, "--reason", "it burns"))
		pod := e2e.Pod("by-"+user, c.digest)
		pod["metadata"].(object)["annotations"] = object{"gatehouse.dev/break-glass": token}
		return c.k.CallAs(t, user, http.MethodPost, watchedPods, pod)
	}
	if s := try("bob"); s.OK() || !strings.Contains(s.Message, "bob may not break the glass in namespace shop") {
		t.Errorf("the cluster does not allow it: %d %s", s.Code, s.Message)
	}
	if s := try("ann"); !s.OK() || !strings.Contains(strings.Join(s.Warnings, "\n"), "it burns") {
		t.Errorf("the cluster allows it: %d %s %q", s.Code, s.Message, s.Warnings)
	}
}

// nobodyAnswers kills the server: what is judged stands still, what the cluster and the
// server itself need to start does not, and when it is back everything goes on.
func (c *watched) nobodyAnswers(t *testing.T) {
	c.g.Kill()
	if s := c.dry(t, watchedPods, e2e.Pod("late", c.tagged)); s.OK() || !strings.Contains(s.Message, "failed calling webhook") {
		t.Errorf("nobody answers, and a Pod is admitted: %d %s", s.Code, s.Message)
	}
	if s := c.dry(t, cipPath, c.production("late", nil)); s.OK() {
		t.Error("nobody answers, and a policy is taken")
	}
	for _, namespace := range []string{"kube-system", "gatehouse"} {
		if s := c.k.CreatePod(t, namespace, e2e.Pod("own", "your-registry.com/gatehouse:v1")); !s.OK() {
			t.Errorf("what %s needs cannot start: %s", namespace, s.Message)
		}
		made := deployment("own", "your-registry.com/gatehouse:v1")
		if s := c.k.Call(t, http.MethodPost, "/apis/apps/v1/namespaces/"+namespace+"/deployments", made); !s.OK() {
			t.Errorf("what %s needs cannot be made: %s", namespace, s.Message)
		}
	}
	c.g.Start(t, c.flags...)
	waitPinned(t, c.k, c.tagged)
	c.k.WaitDenied(t, "shop", e2e.Pod("late", c.unsigned))
	c.k.Must(t, http.MethodDelete, cipPath+"/require-production-signature", nil)
}

// decoded reads an object of the API.
func decoded(t *testing.T, s e2e.Status) (o object) {
	t.Helper()
	if err := json.Unmarshal(s.Body, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

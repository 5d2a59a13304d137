package e2e_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// waitPinned offers a Pod, as a dry run, until the mutating webhook is in force.
func waitPinned(t *testing.T, k *e2e.Kube, image string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if s := k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("first", image)); strings.Contains(string(s.Body), image+"@sha256:") {
			return
		}
	}
	t.Fatal("no digest is written into Pods")
}

type object = map[string]any

// guarded is a cluster that both webhooks watch, and a registry with a signed and an
// unsigned image.
type guarded struct {
	t              *testing.T
	k              *e2e.Kube
	g              *e2e.Gatehouse
	crane          string
	signed         string // by tag
	digest         string // of it
	unsigned, pods string
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	crane := tool.Need(t, "crane")
	c := &guarded{t: t, crane: crane, g: e2e.ReserveGatehouse(t), k: e2e.StartKube(t, e2e.KubeOptions{}), pods: "/api/v1/namespaces/shop/pods"}
	t.Setenv("COSIGN_PASSWORD", "e2e")
	c.g.Run(t, c.g.Binary, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(c.g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	c.g.Start(t, "--policy", c.g.WriteFile(t, "policy/signed.yaml", e2e.KeyPolicy("signed-by-us", c.g.Host+"/shop/**", key)))
	c.signed, c.unsigned = c.push("good:v1"), c.push("evil:v1")
	c.digest = strings.TrimSpace(c.g.Run(t, crane, "digest", "--insecure", c.signed))
	c.g.Run(t, c.g.Binary, "sign", "--key", "cosign.key", c.g.Host+"/shop/good@"+c.digest)
	c.k.Namespace(t, "shop", map[string]string{"policy.sigstore.dev/include": "true"})
	c.k.AddWebhook(t, e2e.Webhook{Name: "gatehouse", URL: c.g.AdmissionURL + "/validate", CA: c.g.AdmissionCA, Workloads: true})
	c.k.AddWebhook(t, e2e.Webhook{Name: "gatehouse", URL: c.g.AdmissionURL + "/mutate", CA: c.g.AdmissionCA, Mutating: true})
	waitPinned(t, c.k, c.signed)
	c.k.WaitDenied(t, "shop", e2e.Pod("first", c.unsigned))
	return c
}

// push pushes an image of one file, another one each time, and returns its name.
func (c *guarded) push(name string) string {
	c.t.Helper()
	layer := c.g.WriteFile(c.t, "layer.tar", oneFile(c.t, name+time.Now().String()))
	c.g.Run(c.t, c.crane, "append", "--insecure", "-f", layer, "-t", c.g.Host+"/shop/"+name)
	return c.g.Host + "/shop/" + name
}

func (c *guarded) get(path string) object {
	c.t.Helper()
	var o object
	if err := json.Unmarshal(c.k.Must(c.t, http.MethodGet, path, nil).Body, &o); err != nil {
		c.t.Fatal(err)
	}
	return o
}

// containers are those of a Pod or a Pod template.
func containers(spec any, list string) []any { l, _ := spec.(object)[list].([]any); return l }

func (c *guarded) wantDenied(what string, s e2e.Status, says string) {
	c.t.Helper()
	if s.OK() || s.Code != http.StatusForbidden || !strings.Contains(s.Message, says) {
		c.t.Errorf("%s: %d %q, want a denial that says %q", what, s.Code, s.Message, says)
	}
}

func (c *guarded) wantAdmitted(what string, s e2e.Status) {
	c.t.Helper()
	if !s.OK() {
		c.t.Errorf("%s: %d %s", what, s.Code, s.Message)
	}
}

// startInjector starts a mutating webhook that adds a sidecar to the Pods that have a
// label, as those of service meshes do.
func startInjector(t *testing.T, image string) (url string, ca []byte) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID    string
				Object struct {
					Metadata struct{ Labels map[string]string }
					Spec     struct{ Containers []struct{ Name string } }
				}
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response := object{"uid": review.Request.UID, "allowed": true}
		pod := review.Request.Object
		has := slices.ContainsFunc(pod.Spec.Containers, func(c struct{ Name string }) bool { return c.Name == "sidecar" })
		if pod.Metadata.Labels["inject"] != "" && !has {
			response["patchType"] = "JSONPatch"
			response["patch"] = fmt.Appendf(nil, `[{"op":"add","path":"/spec/containers/-","value":{"name":"sidecar","image":%q}}]`, image) // []byte is base64 in JSON
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
	}))
	t.Cleanup(s.Close)
	return s.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// TestClusterBypasses tries the ways round the webhooks that an API server offers.
func TestClusterBypasses(t *testing.T) {
	c := newGuarded(t)
	pinned := c.signed + "@" + c.digest
	url, ca := startInjector(t, c.signed)
	t.Run("what another webhook adds later is pinned", func(t *testing.T) {
		c.k.AddWebhook(t, e2e.Webhook{Name: "zz-injector", URL: url, CA: ca, Mutating: true}) // asked after ours
		injected := func(pod object) object {
			pod["metadata"].(object)["labels"] = object{"inject": "yes"}
			return pod
		}
		var list []any
		until(t, "a sidecar is added", func() bool {
			s := c.k.Call(t, http.MethodPost, c.pods+"?dryRun=All", injected(e2e.Pod("beside", pinned)))
			var pod object
			if !s.OK() {
				t.Fatalf("%d %s", s.Code, s.Message)
			}
			if err := json.Unmarshal(s.Body, &pod); err != nil {
				t.Fatal(err)
			}
			list = containers(pod["spec"], "containers")
			return len(list) == 2
		})
		if got := list[1].(object)["image"]; got != pinned {
			t.Errorf("the sidecar of a Pod whose own image is named by digest is %v", got)
		}
		c.wantAdmitted("with a sidecar", c.k.Call(t, http.MethodPost, c.pods, injected(e2e.Pod("beside", pinned))))
	})
	t.Run("a tag is pinned", func(t *testing.T) {
		c.wantAdmitted("by tag", c.k.CreatePod(t, "shop", e2e.Pod("web", c.signed)))
		web := c.get(c.pods + "/web")
		if got := containers(web["spec"], "containers")[0].(object)["image"]; got != pinned {
			t.Errorf("stored with %v, want %s", got, pinned)
		}
		if note := web["metadata"].(object)["annotations"].(object)["gatehouse.dev/original-images"]; note != `{"spec.containers[0].image":"`+c.signed+`"}` {
			t.Errorf("noted: %v", note)
		}
	})
	t.Run("another image in a Pod", func(t *testing.T) {
		web := c.get(c.pods + "/web")
		containers(web["spec"], "containers")[0].(object)["image"] = c.unsigned
		c.wantDenied("unsigned", c.k.Call(t, http.MethodPut, c.pods+"/web", web), "shop/evil")
	})
	t.Run("ephemeral containers", func(t *testing.T) {
		for _, image := range []string{c.unsigned, c.signed} { // one that runs cannot be changed any more
			ok := image == c.signed
			web := c.get(c.pods + "/web")
			web["spec"].(object)["ephemeralContainers"] = []any{object{"name": "debug", "image": image}}
			s := c.k.Call(t, http.MethodPut, c.pods+"/web/ephemeralcontainers", web)
			if !ok {
				c.wantDenied("debug", s, "spec.ephemeralContainers[0].image")
				continue
			}
			c.wantAdmitted("debug", s)
		}
		if got := containers(c.get(c.pods + "/web")["spec"], "ephemeralContainers"); len(got) != 1 || got[0].(object)["image"] != pinned {
			t.Errorf("stored: %v", got)
		}
	})
	t.Run("other places of a Pod", func(t *testing.T) {
		pod := e2e.Pod("init", c.signed)
		pod["spec"].(object)["initContainers"] = []any{object{"name": "i", "image": c.unsigned}}
		c.wantDenied("init container", c.k.CreatePod(t, "shop", pod), "spec.initContainers[0].image")
		pod = e2e.Pod("volume", c.signed)
		pod["spec"].(object)["volumes"] = []any{object{"name": "v", "image": object{"reference": c.unsigned}}}
		c.wantDenied("image volume", c.k.CreatePod(t, "shop", pod), "spec.volumes[0].image.reference")
		c.wantDenied("placeholder", c.k.CreatePod(t, "shop", e2e.Pod("auto", "auto")), "auto")
	})
	t.Run("annotations", func(t *testing.T) {
		pod := e2e.Pod("forged", c.unsigned)
		pod["metadata"].(object)["annotations"] = object{
			"gatehouse.dev/original-images": `{"spec.containers[0].image":"` + c.signed + `"}`,
			"policy.sigstore.dev/verified":  "true", "gatehouse.dev/break-glass": "please",
		}
		c.wantDenied("forged", c.k.CreatePod(t, "shop", pod), "shop/evil")
	})
	t.Run("labels of the namespace", func(t *testing.T) {
		shop := c.get("/api/v1/namespaces/shop")
		delete(shop["metadata"].(object)["labels"].(object), "policy.sigstore.dev/include")
		c.k.Must(t, http.MethodPut, "/api/v1/namespaces/shop", shop)
		c.wantDenied("without its label", c.k.CreatePod(t, "shop", e2e.Pod("unlabelled", c.unsigned)), "shop/evil")
		c.wantAdmitted("kube-system", c.k.CreatePod(t, "kube-system", e2e.Pod("dns", "elsewhere.example/dns:1")))
	})
	t.Run("the tag moves", func(t *testing.T) {
		c.push("good:v1") // another image, which nobody has signed
		c.wantDenied("moved", c.k.CreatePod(t, "shop", e2e.Pod("moved", c.signed)), "signature-missing")
		c.wantAdmitted("its digest", c.k.CreatePod(t, "shop", e2e.Pod("kept", pinned)))
	})
}

// TestClusterWorkloads: what makes Pods is judged when it comes and when its template
// changes, and keeps its tags.
func TestClusterWorkloads(t *testing.T) {
	c := newGuarded(t)
	template := func(image string) object {
		return object{"metadata": object{"labels": object{"app": "a"}}, "spec": object{"restartPolicy": "Always", "containers": []any{object{"name": "c", "image": image}}}}
	}
	once := func(image string) object {
		o := template(image)
		o["spec"].(object)["restartPolicy"] = "Never"
		return o
	}
	selector := object{"matchLabels": object{"app": "a"}}
	kinds := []struct {
		api, resource, kind string
		spec                func(image string) object
	}{
		{"apps/v1", "deployments", "Deployment", func(i string) object { return object{"replicas": 3, "selector": selector, "template": template(i)} }},
		{"apps/v1", "replicasets", "ReplicaSet", func(i string) object { return object{"replicas": 3, "selector": selector, "template": template(i)} }},
		{"apps/v1", "daemonsets", "DaemonSet", func(i string) object { return object{"selector": selector, "template": template(i)} }},
		{"apps/v1", "statefulsets", "StatefulSet", func(i string) object {
			return object{"replicas": 3, "serviceName": "a", "selector": selector, "template": template(i)}
		}},
		{"batch/v1", "jobs", "Job", func(i string) object { return object{"template": once(i)} }},
		{"batch/v1", "cronjobs", "CronJob", func(i string) object {
			return object{"schedule": "0 0 * * *", "jobTemplate": object{"spec": object{"template": once(i)}}}
		}},
	}
	for _, kind := range kinds {
		t.Run(kind.kind, func(t *testing.T) {
			path := "/apis/" + kind.api + "/namespaces/shop/" + kind.resource
			make := func(name, image string) object {
				return object{"apiVersion": kind.api, "kind": kind.kind, "metadata": object{"name": name}, "spec": kind.spec(image)}
			}
			c.wantDenied("unsigned", c.k.Call(t, http.MethodPost, path, make("evil", c.unsigned)), "shop/evil")
			s := c.k.Call(t, http.MethodPost, path, make("good", c.signed))
			c.wantAdmitted("signed", s)
			if strings.Contains(string(s.Body), "@sha256:") {
				t.Errorf("the template was changed: %s", s.Body)
			}
		})
	}
	path := "/apis/apps/v1/namespaces/shop/deployments/good"
	scale := func(image string, replicas int) e2e.Status {
		d := c.get(path)
		spec := d["spec"].(object)
		spec["replicas"] = replicas
		containers(spec["template"].(object)["spec"], "containers")[0].(object)["image"] = image
		return c.k.Call(t, http.MethodPut, path, d)
	}
	c.wantDenied("a scale-down that changes the image", scale(c.unsigned, 1), "shop/evil")
	// The image is no longer what it was: fewer of it may run all the same.
	c.push("good:v1")
	c.wantAdmitted("a scale-down", scale(c.signed, 1))
}

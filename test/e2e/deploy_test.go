package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// apiPaths are the collections of the kinds that deploy/ has; %s is the namespace.
var apiPaths = map[string]string{
	"Namespace":          "/api/v1/namespaces",
	"ServiceAccount":     "/api/v1/namespaces/%s/serviceaccounts",
	"ClusterRole":        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"Role":               "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/roles",
	"RoleBinding":        "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/rolebindings",
	"Service":            "/api/v1/namespaces/%s/services",
	"Deployment":         "/apis/apps/v1/namespaces/%s/deployments",

	"ConfigMap":             "/api/v1/namespaces/%s/configmaps",
	"NetworkPolicy":         "/apis/networking.k8s.io/v1/namespaces/%s/networkpolicies",
	"Ingress":               "/apis/networking.k8s.io/v1/namespaces/%s/ingresses",
	"PodDisruptionBudget":   "/apis/policy/v1/namespaces/%s/poddisruptionbudgets",
	"PersistentVolumeClaim": "/api/v1/namespaces/%s/persistentvolumeclaims",
}

// shipped reads a file of the kustomize base.
func shipped(t *testing.T, name string) (docs []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "kustomize", "base", name))
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(string(b), "\n---\n") {
		var doc map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &doc); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, doc)
	}
	return docs
}

// create sends a manifest to where its kind belongs.
func create(t *testing.T, k *e2e.Kube, doc map[string]any, namespace, query string) e2e.Status {
	t.Helper()
	kind, _ := doc["kind"].(string)
	path, known := apiPaths[kind]
	if !known {
		t.Fatalf("a %s is shipped, which the test does not know", kind)
	}
	if strings.Contains(path, "%s") {
		path = fmt.Sprintf(path, namespace)
	}
	return k.Must(t, http.MethodPost, path+"?fieldValidation=Strict"+query, doc)
}

// behindService makes a Service lead to this machine: without kube-proxy it leads
// somewhere by another name only.
func behindService(t *testing.T, k *e2e.Kube, name string) {
	t.Helper()
	path := "/api/v1/namespaces/gatehouse/services"
	if k.Call(t, http.MethodGet, path+"/"+name, nil).OK() {
		k.Must(t, http.MethodDelete, path+"/"+name, nil)
	}
	k.Must(t, http.MethodPost, path, map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"type": "ExternalName", "externalName": "localhost"},
	})
}

// serviceFlag is the setting that has the webhook reached by the Service.
func serviceFlag(g *e2e.Gatehouse, name string) string {
	return "gatehouse/" + name + ":" + g.AdmissionURL[strings.LastIndex(g.AdmissionURL, ":")+1:]
}

// finePolicy lets images below registry.example/fine run.
const finePolicy = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: fine}
spec:
  images: [{glob: "registry.example/fine/**"}]
  authorities: [{name: all, static: {action: pass}}]
`

// TestInstalledAsShipped installs what deploy/kustomize/base has, and runs the server
// with the rights of its service account and no others, behind the Service that the
// webhook configuration names. Deployments get Pods only of images that may run, and
// what we made in the cluster goes when the installation does.
func TestInstalledAsShipped(t *testing.T) {
	tool.Need(t, "kube-controller-manager")
	cosign := tool.Need(t, "cosign")
	tool.Need(t, "crane")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{Controllers: true})
	for _, name := range []string{"namespace.yaml", "rbac.yaml"} {
		for _, doc := range shipped(t, name) {
			create(t, k, doc, "gatehouse", "")
		}
	}
	for _, doc := range shipped(t, "server.yaml") {
		create(t, k, doc, "gatehouse", "&dryRun=All") // the API server takes it; no node runs it
	}
	k.Namespace(t, "shop", nil)
	behindService(t, k, "gatehouse-webhook")
	g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	g.WriteFile(t, "policy/fine.yaml", []byte(finePolicy))
	g.WriteFile(t, "policy/signed.yaml", e2e.KeyPolicy("signed", g.Host+"/shop/**", key))
	g.Start(t, "--kubeconfig", accountConfig(t, g, k, "gatehouse", "gatehouse"), "--cluster-owner", "gatehouse",
		"--webhook-service", serviceFlag(g, "gatehouse-webhook"), "--policy", filepath.Join(g.Dir, "policy"))
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	until(t, "the fallback policy is there", func() bool { return k.Call(t, http.MethodGet, fallbackPath, nil).OK() })
	k.WaitDenied(t, "shop", e2e.Pod("bad", "registry.example/bad/app"+anyDigest))
	until(t, "the service account of new namespaces is there", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("fine", "registry.example/fine/app"+anyDigest)).OK()
	})
	replicaSetsAreTold(t, k)
	tagsStay(t, g, k)
	// These rights are enough for reports, too.
	k.Must(t, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", reportDefinition("wgpolicyk8s.io", "v1alpha2", "PolicyReport", "policyreports", nil))
	until(t, "there is a report", func() bool {
		return k.Call(t, http.MethodGet, "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/gatehouse-running", nil).OK()
	})
	granted(t, k, "gatehouse", map[string]bool{
		"patch admissionregistration.k8s.io/validatingwebhookconfigurations/gatehouse": true,
		"patch admissionregistration.k8s.io/validatingwebhookconfigurations/another":   false,
		"patch apiextensions.k8s.io/customresourcedefinitions/another.example.com":     false,
		"get secrets gatehouse/gatehouse-webhook":                                      true,
		"get secrets shop/any":             false,
		"list secrets":                     false,
		"list configmaps":                  false,
		"update secrets gatehouse/another": false,
		"create pods shop/":                false,
		"patch policy.sigstore.dev/clusterimagepolicies/signed":        false,
		"patch policy.sigstore.dev/clusterimagepolicies/signed status": true,
		"create wgpolicyk8s.io/policyreports":                          true,
		"patch wgpolicyk8s.io/policyreports/gatehouse-running":         true,
		"patch wgpolicyk8s.io/policyreports/another":                   false,
		"delete openreports.io/reports/gatehouse-running":              true,
		"delete openreports.io/reports/another":                        false,
		"impersonate users/admin":                                      false,
		"bind rbac.authorization.k8s.io/clusterroles/cluster-admin":    false,
	})
	enough(t, filepath.Join(g.Dir, "gatehouse.log"))

	// The chart is removed: its ClusterRole goes, and with it what would deny for ever.
	g.Stop()
	k.Must(t, http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterroles/gatehouse", nil)
	until(t, "nothing of ours denies any more", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("free", "registry.example/bad/app"+anyDigest)).OK()
	})
}

const fallbackPath = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/gatehouse-fallback"

var anyDigest = "@sha256:" + strings.Repeat("ab", 32)

// enough checks that nothing in a log was forbidden.
func enough(t *testing.T, path string) {
	t.Helper()
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "forbidden") {
			t.Errorf("the roles that are shipped are not enough: %s", line)
		}
	}
}

// granted asks the API server what a service account of the namespace gatehouse may do:
// "VERB GROUP/RESOURCE/NAME [SUBRESOURCE]", or "VERB RESOURCE [NAMESPACE/NAME]" of the
// core group.
func granted(t *testing.T, k *e2e.Kube, account string, may map[string]bool) {
	t.Helper()
	for what, want := range may {
		words := strings.Fields(what)
		attributes := map[string]any{"verb": words[0]}
		if group, rest, ok := strings.Cut(words[1], "/"); ok && strings.Contains(group, ".") {
			attributes["group"] = group
			attributes["resource"], attributes["name"], _ = strings.Cut(rest, "/")
			if len(words) > 2 {
				attributes["subresource"] = words[2]
			}
		} else {
			attributes["resource"] = group
			if ok {
				attributes["name"] = rest
			}
			if len(words) > 2 {
				attributes["namespace"], attributes["name"], _ = strings.Cut(words[2], "/")
			}
		}
		s := k.Must(t, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", map[string]any{
			"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
			"spec": map[string]any{
				"user": "system:serviceaccount:gatehouse:" + account, "resourceAttributes": attributes,
				"groups": []any{"system:serviceaccounts", "system:serviceaccounts:gatehouse", "system:authenticated"},
			},
		})
		if got := field(t, s, "status", "allowed"); got != want {
			t.Errorf("%s may %s = %v, want %v", account, what, got, want)
		}
	}
}

// replicaSetsAreTold: a Deployment gets its Pods, and one whose image may not run is
// refused itself. Where the policies have changed since, its ReplicaSet cannot make Pods
// any more: an Event says why, in our words, and when it may again they come.
func replicaSetsAreTold(t *testing.T, k *e2e.Kube) {
	t.Helper()
	create(t, k, deployment("fine", "registry.example/fine/app"+anyDigest), "shop", "")
	podsOf := func(name string) (names []string) {
		for _, p := range items(t, k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/pods?labelSelector=app%3D"+name, nil)) {
			metadata, _ := p["metadata"].(map[string]any)
			if metadata["deletionTimestamp"] == nil {
				names = append(names, fmt.Sprint(metadata["name"]))
			}
		}
		return names
	}
	until(t, "the Pods of a Deployment are there", func() bool { return len(podsOf("fine")) == 1 })
	if s := k.Call(t, http.MethodPost, "/apis/apps/v1/namespaces/shop/deployments", deployment("bad", "registry.example/bad/app"+anyDigest)); s.OK() {
		t.Error("a Deployment of an image that may not run was admitted")
	}

	k.Must(t, http.MethodPost, cipPath, []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: recalled}
spec:
  images: [{glob: "registry.example/fine/**"}]
  authorities: [{name: none, static: {action: fail, message: this image has been recalled}}]
`))
	k.WaitDenied(t, "shop", e2e.Pod("fine", "registry.example/fine/app"+anyDigest))
	k.Must(t, http.MethodDelete, "/api/v1/namespaces/shop/pods/"+podsOf("fine")[0]+"?gracePeriodSeconds=0", nil)
	until(t, "an Event of the ReplicaSet says why there is no Pod", func() bool {
		for _, e := range items(t, k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/events?fieldSelector=involvedObject.kind%3DReplicaSet", nil)) {
			message, _ := e["message"].(string)
			if e["reason"] == "FailedCreate" && strings.Contains(message, "denied the request") && strings.Contains(message, "recalled") {
				return true
			}
		}
		return false
	})
	if names := podsOf("fine"); len(names) > 0 {
		t.Errorf("Pods of an image that was recalled: %v", names)
	}
	k.Must(t, http.MethodDelete, cipPath+"/recalled", nil)
	until(t, "the Pod comes when it may", func() bool { return len(podsOf("fine")) == 1 })
}

// tagsStay: a Deployment keeps the tag that a repository has of it, while its Pods run
// the digest that was verified.
func tagsStay(t *testing.T, g *e2e.Gatehouse, k *e2e.Kube) {
	t.Helper()
	tagged, digested := signedImage(t, g, "shop/app")
	create(t, k, deployment("tagged", tagged), "shop", "")
	pinned := tagged + digested[strings.Index(digested, "@"):]
	image := func(o map[string]any, keys ...string) any {
		for _, key := range append(keys, "spec") {
			o, _ = o[key].(map[string]any)
		}
		containers, _ := o["containers"].([]any)
		if len(containers) == 0 {
			return nil
		}
		return containers[0].(map[string]any)["image"]
	}
	until(t, "the Pods of a Deployment are there", func() bool {
		pods := items(t, k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/pods?labelSelector=app%3Dtagged", nil))
		if len(pods) > 0 && image(pods[0]) != pinned {
			t.Fatalf("a Pod runs %v, want %s", image(pods[0]), pinned)
		}
		return len(pods) == 1
	})
	for _, d := range items(t, k.Must(t, http.MethodGet, "/apis/apps/v1/namespaces/shop/deployments", nil)) {
		metadata, _ := d["metadata"].(map[string]any)
		if got := image(d, "spec", "template"); metadata["name"] == "tagged" && (got != tagged || metadata["generation"] != float64(1)) {
			t.Errorf("the Deployment has %v at generation %v, want %s as it was sent", got, metadata["generation"], tagged)
		}
	}
}

// items are those of a list.
func items(t *testing.T, s e2e.Status) (out []map[string]any) {
	t.Helper()
	list, _ := field(t, s, "items").([]any)
	for _, item := range list {
		if o, ok := item.(map[string]any); ok {
			out = append(out, o)
		}
	}
	return out
}

// deployment is the smallest Deployment that runs the image.
func deployment(name, image string) map[string]any {
	labels := map[string]any{"app": name}
	return map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"replicas": 1, "selector": map[string]any{"matchLabels": labels}, "template": map[string]any{
			"metadata": map[string]any{"labels": labels}, "spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": image}}},
		}},
	}
}

// accountConfig is a kubeconfig with a token of a service account.
func accountConfig(t *testing.T, g *e2e.Gatehouse, k *e2e.Kube, namespace, name string) string {
	t.Helper()
	s := k.Must(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token",
		map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{}})
	token, _ := field(t, s, "status", "token").(string)
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "x",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": k.URL, "certificate-authority-data": k.CA}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "x", "context": map[string]any{"cluster": "c", "user": "u"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return g.WriteFile(t, name+".json", config)
}

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
func create(t *testing.T, k *e2e.Kube, doc map[string]any, namespace, query string) {
	t.Helper()
	kind, _ := doc["kind"].(string)
	path, known := apiPaths[kind]
	if !known {
		t.Fatalf("a %s is shipped, which the test does not know", kind)
	}
	if strings.Contains(path, "%s") {
		path = fmt.Sprintf(path, namespace)
	}
	k.Must(t, http.MethodPost, path+"?fieldValidation=Strict"+query, doc)
}

// TestInstalledAsShipped installs what deploy/kustomize/base has, and runs the server
// with the rights of its service account and no others, behind the Service that the
// webhook configuration names. Deployments get Pods only of images that may run, and
// what we made in the cluster goes when the installation does.
func TestInstalledAsShipped(t *testing.T) {
	tool.Need(t, "kube-controller-manager")
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
	// Without kube-proxy a Service leads somewhere by another name only.
	k.Must(t, http.MethodPost, "/api/v1/namespaces/gatehouse/services", map[string]any{
		"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "gatehouse-webhook"},
		"spec": map[string]any{"type": "ExternalName", "externalName": "localhost"},
	})
	port := g.AdmissionURL[strings.LastIndex(g.AdmissionURL, ":")+1:]
	g.Start(t, "--kubeconfig", accountConfig(t, g, k, "gatehouse", "gatehouse"), "--cluster-owner", "gatehouse",
		"--webhook-service", "gatehouse/gatehouse-webhook:"+port, "--policy", g.WriteFile(t, "policy/fine.yaml", []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: fine}
spec:
  images: [{glob: "registry.example/fine/**"}]
  authorities: [{name: all, static: {action: pass}}]
`)))
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	until(t, "the fallback policy is there", func() bool {
		return k.Call(t, http.MethodGet, "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/gatehouse-fallback", nil).OK()
	})
	digest := "@sha256:" + strings.Repeat("ab", 32)
	k.WaitDenied(t, "shop", e2e.Pod("bad", "registry.example/bad/app"+digest))
	until(t, "the service account of new namespaces is there", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("fine", "registry.example/fine/app"+digest)).OK()
	})

	// A Deployment gets its Pods; one whose image may not run is refused itself.
	create(t, k, deployment("fine", "registry.example/fine/app"+digest), "shop", "")
	until(t, "the Pods of a Deployment are there", func() bool {
		return strings.Contains(string(k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/pods", nil).Body), `"generateName":"fine-`)
	})
	if s := k.Call(t, http.MethodPost, "/apis/apps/v1/namespaces/shop/deployments", deployment("bad", "registry.example/bad/app"+digest)); s.OK() {
		t.Error("a Deployment of an image that may not run was admitted")
	}
	if log, err := os.ReadFile(filepath.Join(g.Dir, "gatehouse.log")); err != nil || strings.Contains(string(log), "forbidden") {
		t.Errorf("the roles that are shipped are not enough, %v:\n%s", err, log)
	}

	// The chart is removed: its ClusterRole goes, and with it what would deny for ever.
	g.Stop()
	k.Must(t, http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterroles/gatehouse", nil)
	until(t, "nothing of ours denies any more", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("free", "registry.example/bad/app"+digest)).OK()
	})
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
	return g.WriteFile(t, "account.json", config)
}

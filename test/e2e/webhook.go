package e2e

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// webhookWait is how long a new webhook configuration may take to be in force:
// the API server learns of it through a watch.
const webhookWait = 30 * time.Second

// Webhook is a webhook for Pods.
type Webhook struct {
	Name          string // of the configuration, "gatehouse"
	URL           string // https://127.0.0.1:PORT/validate
	Service       string // NAMESPACE/NAME that leads there; empty: none
	Mutating      bool
	Workloads     bool   // also what makes Pods
	CA            []byte // PEM
	FailurePolicy string // empty = Fail
	// Skip are namespaces that the webhook does not see.
	Skip []string
}

// AddWebhook creates a ValidatingWebhookConfiguration, or a mutating one. It is not in
// force yet when AddWebhook returns: see WaitDenied.
func (k *Kube) AddWebhook(t testing.TB, w Webhook) {
	t.Helper()
	policy := w.FailurePolicy
	if policy == "" {
		policy = "Fail"
	}
	client := map[string]any{"url": w.URL, "caBundle": w.CA} // []byte is base64 in JSON
	if w.Service != "" {
		client = map[string]any{"service": w.service(t), "caBundle": w.CA}
	}
	hook := map[string]any{
		"name":                    w.Name + ".e2e.gatehouse.dev",
		"clientConfig":            client,
		"admissionReviewVersions": []string{"v1"},
		"sideEffects":             "NoneOnDryRun",
		"failurePolicy":           policy,
		"timeoutSeconds":          10,
		"rules":                   []any{rule("", "pods", "pods/ephemeralcontainers")},
	}
	if w.Workloads {
		hook["rules"] = append(hook["rules"].([]any), rule("apps", "deployments", "statefulsets", "daemonsets", "replicasets"), rule("batch", "jobs", "cronjobs"))
	}
	kind := "ValidatingWebhookConfiguration"
	if w.Mutating {
		kind, hook["reinvocationPolicy"] = "MutatingWebhookConfiguration", "IfNeeded"
	}
	if len(w.Skip) > 0 {
		hook["namespaceSelector"] = map[string]any{"matchExpressions": []any{map[string]any{
			"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": w.Skip,
		}}}
	}
	k.Must(t, http.MethodPost, "/apis/admissionregistration.k8s.io/v1/"+strings.ToLower(kind)+"s", map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
		"metadata": map[string]any{"name": w.Name}, "webhooks": []any{hook},
	})
}

// service is where the URL leads to, by the Service.
func (w Webhook) service(t testing.TB) map[string]any {
	t.Helper()
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	namespace, name, _ := strings.Cut(w.Service, "/")
	return map[string]any{"namespace": namespace, "name": name, "port": port, "path": u.Path}
}

func rule(group string, resources ...string) map[string]any {
	return map[string]any{
		"apiGroups": []string{group}, "apiVersions": []string{"v1"}, "operations": []string{"CREATE", "UPDATE"}, "resources": resources,
	}
}

// RemoveWebhook deletes a validating webhook that AddWebhook created.
func (k *Kube) RemoveWebhook(t testing.TB, name string) {
	t.Helper()
	k.Must(t, http.MethodDelete, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/"+name, nil)
}

// WaitDenied offers a Pod, as a dry run, until the API server refuses it, and
// returns that answer. It fails the test if the Pod is admitted all along.
func (k *Kube) WaitDenied(t testing.TB, namespace string, pod any) Status {
	t.Helper()
	var s Status
	for deadline := time.Now().Add(webhookWait); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		s = k.Call(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", pod)
		if !s.OK() {
			return s
		}
	}
	t.Fatalf("the Pod is still admitted after %s: %s", webhookWait, s.Body)
	return s
}

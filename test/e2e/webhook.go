package e2e

import (
	"net/http"
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
	Mutating      bool
	Workloads     bool   // also what makes Pods
	CA            []byte // PEM
	FailurePolicy string // empty = Fail
	Condition     string // in CEL; empty: none
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
	hook := map[string]any{
		"name":                    w.Name + ".e2e.gatehouse.dev",
		"clientConfig":            map[string]any{"url": w.URL, "caBundle": w.CA}, // []byte is base64 in JSON
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
	if w.Condition != "" {
		hook["matchConditions"] = []any{map[string]any{"name": "condition", "expression": w.Condition}}
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

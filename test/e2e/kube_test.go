package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestKube: the control plane of the tests is a real one. It calls a webhook
// over TLS with the CA that it was given, hands the denial and the warnings on,
// and refuses when the webhook is away.
func TestKube(t *testing.T) {
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "shop", nil)

	var version struct{ GitVersion string }
	if err := json.Unmarshal(k.Must(t, http.MethodGet, "/version", nil).Body, &version); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(version.GitVersion, "v1.") {
		t.Errorf("the API server calls itself %q", version.GitVersion)
	}
	if s := k.CreatePod(t, "shop", e2e.Pod("before", "docker.io/evil:1")); !s.OK() {
		t.Fatalf("without a webhook: %d %s", s.Code, s.Message)
	}

	caPEM, certPEM, keyPEM, err := e2e.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	hook := httptest.NewUnstartedServer(http.HandlerFunc(denyEvil))
	hook.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	hook.StartTLS()
	defer hook.Close()
	k.AddWebhook(t, e2e.Webhook{Name: "probe", URL: hook.URL + "/validate", CA: caPEM, Skip: []string{"kube-system"}})

	denied := k.WaitDenied(t, "shop", e2e.Pod("after", "docker.io/evil:1"))
	if denied.Code != http.StatusForbidden || !strings.Contains(denied.Message, "evil is not welcome") {
		t.Errorf("denied with %d %q, want 403 and the webhook's own words", denied.Code, denied.Message)
	}
	admitted := k.CreatePod(t, "shop", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: good}\nspec: {containers: [{name: c, image: good}]}\n"))
	if !admitted.OK() || len(admitted.Warnings) != 1 || admitted.Warnings[0] != `take "care"` {
		t.Errorf("a good Pod: %d %s, warnings %q", admitted.Code, admitted.Message, admitted.Warnings)
	}
	if s := k.CreatePod(t, "kube-system", e2e.Pod("free", "docker.io/evil:1")); !s.OK() {
		t.Errorf("a namespace that the webhook does not see: %d %s", s.Code, s.Message)
	}

	hook.Close()
	if s := k.CreatePod(t, "shop", e2e.Pod("late", "good")); s.OK() || !strings.Contains(s.Message, "failed calling webhook") {
		t.Errorf("with the webhook away: %d %q, want a refusal", s.Code, s.Message)
	}
}

// denyEvil is the far end of the control plane under test, not a part of
// Gatehouse.
func denyEvil(w http.ResponseWriter, r *http.Request) {
	var review struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Request    json.RawMessage `json:"request,omitempty"`
		Response   map[string]any  `json:"response,omitempty"`
	}
	var request struct{ UID string }
	if json.NewDecoder(r.Body).Decode(&review) != nil || json.Unmarshal(review.Request, &request) != nil {
		http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
		return
	}
	evil := strings.Contains(string(review.Request), `"image":"docker.io/evil:1"`)
	review.Response = map[string]any{"uid": request.UID, "allowed": !evil, "warnings": []string{`take "care"`}}
	if evil {
		review.Response["status"] = map[string]any{"code": 403, "message": "evil is not welcome"}
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review) // the API server tells of a broken answer
}

// TestKubeStartFails: a control plane that cannot start says why instead of
// hanging, and leaves nothing behind.
func TestKubeStartFails(t *testing.T) {
	etcd, apiserver := tool.Need(t, "etcd"), tool.Need(t, "kube-apiserver")
	k, err := e2e.TryKube(t, etcd, apiserver, e2e.KubeOptions{Flags: []string{"--no-such-flag"}})
	if err == nil {
		t.Fatalf("started at %s with an unknown flag", k.URL)
	}
	if !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("the error does not show the log: %v", err)
	}
}

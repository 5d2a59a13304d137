package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const (
	clusterWait = 60 * time.Second // for what controllers do
	cipPath     = "/apis/policy.sigstore.dev/v1beta1/clusterimagepolicies"
	hooksPath   = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/gatehouse"
	pinsPath    = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gatehouse"
	secretPath  = "/api/v1/namespaces/gatehouse/secrets/gatehouse-webhook"
)

// until asks until the answer is the one that is waited for.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(clusterWait); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("%s: not so after %s", what, clusterWait)
}

// field reads a field of an object of the API, by its keys.
func field(t *testing.T, s e2e.Status, keys ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(s.Body, &v); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// signedImage pushes an image and signs it by digest; it returns its name with the tag
// v1, and with the digest.
func signedImage(t *testing.T, g *e2e.Gatehouse, name string) (tagged, digested string) {
	t.Helper()
	crane, cosign := tool.Need(t, "crane"), tool.Need(t, "cosign")
	tagged = g.Host + "/" + name + ":v1"
	g.Run(t, crane, "append", "--insecure", "-f", g.WriteFile(t, "layer.tar", oneFile(t, name)), "-t", tagged)
	digested = g.Host + "/" + name + "@" + strings.TrimSpace(g.Run(t, crane, "digest", "--insecure", tagged))
	config := g.WriteFile(t, "signing-config.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}`))
	g.Run(t, cosign, "sign", "--yes", "--key", "cosign.key", "--signing-config", config, digested)
	return tagged, digested
}

// TestClusterIsKeptInStep is the way of an installation: the server makes the custom
// resources, takes policies over from them, tells what became of each, and makes the
// webhook configurations once it answers; when it is gone they keep the door shut, and
// the fallback policy says no by itself.
func TestClusterIsKeptInStep(t *testing.T) {
	cosign := tool.Need(t, "cosign")
	tool.Need(t, "crane")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	k.Namespace(t, "kube-system-like", nil)
	g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--kubeconfig", k.Kubeconfig(), "--webhook-url", g.AdmissionURL, "--webhook-overlap", "0s",
		"--admission-exempt-namespaces", "kube-system,kube-system-like"}
	g.Start(t, flags...)

	until(t, "the custom resources are served", func() bool { return k.Call(t, http.MethodGet, cipPath, nil).OK() })
	k.Must(t, http.MethodPost, cipPath, e2e.KeyPolicy("signed-by-us", g.Host+"/shop/**", key))
	until(t, "the policy counts", func() bool {
		return strings.Contains(string(k.Must(t, http.MethodGet, cipPath+"/signed-by-us", nil).Body), `"type":"ConfigMapUpdated"`)
	})
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })

	_, signed := signedImage(t, g, "shop/app")
	unsigned := g.Host + "/shop/unsigned:v1"
	g.Run(t, tool.Need(t, "crane"), "append", "--insecure", "-f", g.WriteFile(t, "other.tar", oneFile(t, "other")), "-t", unsigned)

	denied := k.WaitDenied(t, "shop", e2e.Pod("first", unsigned))
	if !strings.Contains(denied.Message, "signed-by-us") {
		t.Errorf("the denial does not name the policy of the cluster: %s", denied.Message)
	}
	if s := k.CreatePod(t, "shop", e2e.Pod("signed", signed)); !s.OK() {
		t.Errorf("the signed image is denied: %s", s.Message)
	}
	for _, free := range []string{"gatehouse", "kube-system-like"} {
		if s := k.CreatePod(t, free, e2e.Pod("free", unsigned)); !s.OK() {
			t.Errorf("namespace %s is judged: %s", free, s.Message)
		}
	}

	// What somebody breaks is made whole again.
	for _, path := range []string{hooksPath, pinsPath} {
		k.Must(t, http.MethodDelete, path, nil)
		until(t, "the configuration is back", func() bool { return k.Call(t, http.MethodGet, path, nil).OK() })
	}

	// With nobody there the door is shut, and stays so without any webhook.
	until(t, "the fallback policy is there", func() bool {
		return k.Call(t, http.MethodGet, "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/gatehouse-fallback", nil).OK()
	})
	g.Stop()
	if s := k.CreatePod(t, "shop", e2e.Pod("alone", signed)); s.OK() {
		t.Error("a Pod was admitted with nobody there")
	}
	k.Must(t, http.MethodDelete, hooksPath, nil)
	k.Must(t, http.MethodDelete, pinsPath, nil)
	until(t, "the signed image is admitted by the fallback", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("fallback", signed)).OK()
	})
	if s := k.CreatePod(t, "shop", e2e.Pod("stranger", "docker.io/library/nginx:1")); s.OK() || !strings.Contains(s.Message, "fallback") {
		t.Errorf("an image that no policy names runs while nobody is there: %d %s", s.Code, s.Message)
	}
	// A Pod that runs already can still change.
	running := k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/pods/signed", nil)
	if s := k.Call(t, http.MethodPut, "/api/v1/namespaces/shop/pods/signed", running.Body); !s.OK() {
		t.Errorf("a Pod that runs cannot change: %s", s.Message)
	}

	// It comes back, and everything with it.
	g.Start(t, flags...)
	until(t, "the configuration is made again", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	k.WaitDenied(t, "shop", e2e.Pod("again", unsigned))
}

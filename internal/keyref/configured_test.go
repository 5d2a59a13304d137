package keyref

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

func TestConfiguredCluster(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("token", "of-the-pod\n")
	file("ca.crt", "a certificate")
	config := file("config", `
clusters: [{name: c, cluster: {server: "https://10.0.0.1:6443"}}]
users: [{name: u, user: {tokenFile: token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`)
	env := func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.9", "KUBERNETES_SERVICE_PORT": "443"}[name]
	}
	c, err := configured(t.Context(), config, Options{Local: true}, dir)
	if err != nil || c.URL != "https://10.0.0.1:6443" || c.Token != "of-the-pod" {
		t.Errorf("a file gives %+v, %v", c, err)
	}
	c, err = configured(t.Context(), InCluster, Options{Local: true, Getenv: env}, dir)
	if err != nil || c.URL != "https://10.0.0.9:443" || c.Token != "of-the-pod" || string(c.CAs) != "a certificate" {
		t.Errorf("a pod gives %+v, %v", c, err)
	}
	if _, err := configured(t.Context(), InCluster, Options{Local: true}, dir); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(gatehouse.HintOf(err), "kubeconfig") {
		t.Errorf("outside of a pod: %v", err)
	}
	if _, err := configured(t.Context(), filepath.Join(dir, "missing"), Options{Local: true}, dir); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := configured(t.Context(), config, Options{}, dir); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
		t.Errorf("without Local: %v", err)
	}
}

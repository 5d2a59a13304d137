package keyref

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func kubeconfigFor(exec string) []byte {
	return []byte(`{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],"clusters":[{"name":"a","cluster":{"server":"https://a.example"}}],
		"users":[{"name":"a","user":{"exec":` + exec + `}}]}`)
}

func script(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
}

// TestLoginProgram logs in as EKS, AKS and GKE have it.
func TestLoginProgram(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "good", `case "$KUBERNETES_EXEC_INFO" in *'"kind":"ExecCredential"'*) ;; *) exit 9;; esac
echo "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"$PREFIX-$1\"}}"`)
	script(t, dir, "empty", `echo '{"kind":"ExecCredential","status":{}}'`)
	script(t, dir, "junk", `echo '<html>'`)
	script(t, dir, "certificate", `echo '{"kind":"ExecCredential","status":{"clientCertificateData":"x","clientKeyData":"y"}}'`)
	script(t, dir, "fails", `echo "please run login" >&2; exit 1`)
	open := func(exec string) (*Cluster, error) {
		var k kubeconfig
		if err := k.parse(kubeconfigFor(exec), filepath.Join(dir, "config")); err != nil {
			t.Fatal(err)
		}
		return k.cluster(t.Context(), Options{Local: true})
	}
	c, err := open(`{"command":"./good","args":["b"],"env":[{"name":"PREFIX","value":"a"}],"apiVersion":"client.authentication.k8s.io/v1"}`)
	if err != nil || c.Token != "a-b" {
		t.Errorf("%+v, %v", c, err)
	}
	for exec, want := range map[string]string{
		`{"command":"./empty"}`: "neither a token", `{"command":"./junk"}`: "not an ExecCredential", `{"command":"./certificate"}`: "PEM",
		`{"command":"./fails","installHint":"get it at a.example"}`: "please run login) (get it at a.example",
		`{"command":"no-such-program"}`:                             "no-such-program", `{"command":"./good","interactiveMode":"Always"}`: "terminal", `{}`: "login program",
	} {
		if _, err := open(exec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", exec, err)
		}
	}
}

// TestPod finds the cluster of the pod that we run in.
func TestPod(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
	o := Options{Local: true, Getenv: func(k string) string { return env[k] }}
	if _, err := findCluster(t.Context(), o, dir); err == nil || !strings.Contains(err.Error(), "no Kubernetes cluster") {
		t.Errorf("without a service account: %v", err)
	}
	for name, text := range map[string]string{"token": "tok\n", "ca.crt": "pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := findCluster(t.Context(), o, dir)
	if err != nil || c.URL != "https://[fd00::1]:443" || c.Token != "tok" || string(c.CAs) != "pem" {
		t.Errorf("%+v, %v", c, err)
	}
	delete(env, "KUBERNETES_SERVICE_HOST")
	if _, err := findCluster(t.Context(), o, dir); err == nil {
		t.Error("in no pod")
	}
}

package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestKeysInACluster keeps a signing key in a secret of a real API server, where
// both we and the stock cosign sign with it.
func TestKeysInACluster(t *testing.T) {
	crane, cosign := tool.Need(t, "crane"), tool.Need(t, "cosign")
	k := e2e.StartKube(t, e2e.KubeOptions{})
	g := e2e.ReserveGatehouse(t)
	g.Start(t)
	t.Setenv("KUBECONFIG", k.Kubeconfig())
	k.Namespace(t, "ci", nil)
	image := func(name string) string {
		t.Helper()
		ref := g.Host + "/shop/" + name + ":v1"
		g.Run(t, crane, "append", "--insecure", "-f", g.WriteFile(t, name+".tar", oneFile(t, name)), "-t", ref)
		return g.Host + "/shop/" + name + "@" + strings.TrimSpace(g.Run(t, crane, "digest", "--insecure", ref))
	}
	offline := g.WriteFile(t, "signing-config.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}`))

	// Made by us, used by both.
	g.Run(t, g.Binary, "generate-key-pair", "k8s://ci/ours")
	secret := func(name string) map[string]any {
		t.Helper()
		var doc map[string]any
		if err := json.Unmarshal(k.Must(t, "GET", "/api/v1/namespaces/ci/secrets/"+name, nil).Body, &doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	data := secret("ours")["data"].(map[string]any)
	if len(data) != 3 || data["cosign.password"] != base64.StdEncoding.EncodeToString([]byte("e2e")) {
		t.Errorf("the secret is not of cosign's form: %v", data)
	}
	ours, theirs := image("ours"), image("theirs")
	g.Run(t, g.Binary, "sign", "--key", "k8s://ci/ours", ours)
	g.Run(t, cosign, "sign", "--yes", "--key", "k8s://ci/ours", "--signing-config", offline, theirs)
	for _, ref := range []string{ours, theirs} {
		g.Run(t, g.Binary, "verify", "--key", "k8s://ci/ours", ref)
		g.Run(t, g.Binary, "verify", "--key", "cosign.pub", ref)
		g.Run(t, cosign, "verify", "--insecure-ignore-tlog", "--key", "k8s://ci/ours", ref)
	}

	// Made by cosign.
	if err := os.Remove(filepath.Join(g.Dir, "cosign.pub")); err != nil {
		t.Fatal(err)
	}
	g.Run(t, cosign, "generate-key-pair", "k8s://ci/theirs")
	third := image("third")
	g.Run(t, g.Binary, "sign", "--key", "k8s://ci/theirs", third)
	g.Run(t, cosign, "verify", "--insecure-ignore-tlog", "--key", "cosign.pub", third)
	if got := g.Run(t, g.Binary, "public-key", "--key", "k8s://ci/theirs"); got != string(mustRead(t, filepath.Join(g.Dir, "cosign.pub"))) {
		t.Errorf("another public key: %s", got)
	}
	keptUnlessAsked(t, k, g, secret)
}

// keptUnlessAsked overwrites secrets that hold a key.
func keptUnlessAsked(t *testing.T, k *e2e.Kube, g *e2e.Gatehouse, secret func(name string) map[string]any) {
	t.Helper()
	o := keyref.Options{Cluster: &keyref.Cluster{URL: k.URL, CAs: k.CA, Token: k.Token}}
	before := secret("ours")["data"].(map[string]any)["cosign.key"]
	if err := failing(g, g.Binary, "generate-key-pair", "--output-key-prefix", "again", "k8s://ci/ours"); err == nil {
		t.Error("a key was overwritten unasked")
	}
	if secret("ours")["data"].(map[string]any)["cosign.key"] != before {
		t.Error("the key is gone")
	}
	k.Must(t, "POST", "/api/v1/namespaces/ci/secrets", map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "mixed", "labels": map[string]string{"team": "shop"}},
		"stringData": map[string]string{"other": "kept"},
	})
	for _, name := range []string{"mixed", "mixed"} { // an open secret is changed, a closed one replaced
		g.Run(t, g.Binary, "generate-key-pair", "--yes", "--output-key-prefix", "mixed", "k8s://ci/"+name)
		s := secret(name)
		if s["data"].(map[string]any)["other"] != base64.StdEncoding.EncodeToString([]byte("kept")) ||
			s["metadata"].(map[string]any)["labels"].(map[string]any)["team"] != "shop" {
			t.Errorf("what was beside the key is gone: %v", s)
		}
		got, err := keyref.Public(t.Context(), "k8s://ci/"+name, o)
		if err != nil || string(got) != string(mustRead(t, filepath.Join(g.Dir, "mixed.pub"))) {
			t.Errorf("%s, %v", got, err)
		}
	}
	g.Run(t, g.Binary, "generate-key-pair", "--yes", "--output-key-prefix", "ours", "k8s://ci/ours")
	if secret("ours")["data"].(map[string]any)["cosign.key"] == before {
		t.Error("--yes kept the key")
	}
	if _, err := keyref.Signer(t.Context(), "k8s://ci/none", o); err == nil || !strings.Contains(err.Error(), "no such secret") {
		t.Errorf("%v", err)
	}
	o.Cluster.Token = "wrong"
	if _, err := keyref.Signer(t.Context(), "k8s://ci/ours", o); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("%v", err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// failing runs a command of which it is asked whether it fails.
func failing(g *e2e.Gatehouse, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Dir = g.Dir
	cmd.Env = append(os.Environ(), "HOME="+g.Dir, "COSIGN_PASSWORD=e2e")
	return cmd.Run()
}

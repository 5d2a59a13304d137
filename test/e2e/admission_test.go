package e2e_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestClusterAdmitsWhatCosignSigned is the whole way with real ends: crane
// pushes, the stock cosign signs in both of its formats, and a kube-apiserver
// that asks our webhook admits the signed Pods and no other.
func TestClusterAdmitsWhatCosignSigned(t *testing.T) {
	crane, cosign := tool.Need(t, "crane"), tool.Need(t, "cosign")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})

	g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	g.Start(t, "--policy", g.WriteFile(t, "policy/signed.yaml", e2e.KeyPolicy("signed-by-us", g.Host+"/shop/**", key)))

	digest := map[string]string{}
	for _, name := range []string{"bundle", "legacy", "unsigned", "other-key"} {
		layer := g.WriteFile(t, name+".tar", oneFile(t, name))
		g.Run(t, crane, "append", "--insecure", "-f", layer, "-t", g.Host+"/shop/"+name+":v1")
		digest[name] = g.Host + "/shop/" + name + "@" + strings.TrimSpace(g.Run(t, crane, "digest", "--insecure", g.Host+"/shop/"+name+":v1"))
	}
	offline := g.WriteFile(t, "signing-config.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}`))
	g.Run(t, cosign, "sign", "--yes", "--key", "cosign.key", "--signing-config", offline, digest["bundle"])
	g.Run(t, cosign, "sign", "--yes", "--key", "cosign.key", "--new-bundle-format=false",
		"--use-signing-config=false", "--tlog-upload=false", digest["legacy"])
	g.Run(t, cosign, "generate-key-pair", "--output-key-prefix", "stranger")
	g.Run(t, cosign, "sign", "--yes", "--key", "stranger.key", "--signing-config", offline, digest["other-key"])

	k.Namespace(t, "shop", nil)
	k.AddWebhook(t, e2e.Webhook{Name: "gatehouse", URL: g.AdmissionURL + "/validate", CA: g.AdmissionCA})
	k.AddWebhook(t, e2e.Webhook{Name: "gatehouse", URL: g.AdmissionURL + "/mutate", CA: g.AdmissionCA, Mutating: true})
	waitPinned(t, k, g.Host+"/shop/bundle:v1")
	denied := k.WaitDenied(t, "shop", e2e.Pod("first", g.Host+"/shop/unsigned:v1"))
	for _, want := range []string{"signed-by-us", "/shop/unsigned"} {
		if !strings.Contains(denied.Message, want) {
			t.Errorf("the denial does not name %q: %s", want, denied.Message)
		}
	}
	tests := []struct {
		name   string
		images []string
		says   string // part of the denial; empty = admitted
	}{
		{"bundle-by-digest", []string{digest["bundle"]}, ""},
		{"legacy-by-digest", []string{digest["legacy"]}, ""},
		{"bundle-by-tag", []string{g.Host + "/shop/bundle:v1"}, ""},
		{"two-signed", []string{digest["bundle"], digest["legacy"]}, ""},
		{"unsigned", []string{digest["unsigned"]}, "shop/unsigned"},
		{"one-of-two-unsigned", []string{digest["bundle"], digest["unsigned"]}, "containers[1]"},
		{"signed-by-another-key", []string{digest["other-key"]}, "shop/other-key"},
		{"no-policy-matches", []string{g.Host + "/elsewhere/app:v1"}, "no matching policies"},
		{"no-such-image", []string{g.Host + "/shop/missing:v1"}, "shop/missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := k.CreatePod(t, "shop", e2e.Pod(tt.name, tt.images...))
			switch {
			case tt.says == "" && !s.OK():
				t.Errorf("denied: %d %s", s.Code, s.Message)
			case tt.says != "" && s.OK():
				t.Error("admitted")
			case tt.says != "" && (s.Code != http.StatusForbidden || !strings.Contains(s.Message, tt.says)):
				t.Errorf("denied with %d %q, want 403 and %q", s.Code, s.Message, tt.says)
			}
		})
	}
}

// oneFile is a layer that holds one small file.
func oneFile(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

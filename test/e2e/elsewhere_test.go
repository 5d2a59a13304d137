package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestAdmissionElsewhere: a cluster that has no Gatehouse but `gatehouse admission`
// judges by its own policies, and by what a server far away has signed. The server is
// killed, and the cluster goes on; it is away for too long, and the cluster says so; it
// comes back, and all is well.
func TestAdmissionElsewhere(t *testing.T) {
	cosign := tool.Need(t, "cosign")
	crane := tool.Need(t, "crane")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	g.Start(t) // it knows of no cluster
	tagged, signed := signedImage(t, g, "shop/app")
	unsigned := g.Host + "/shop/unsigned:v1"
	g.Run(t, crane, "append", "--insecure", "-f", g.WriteFile(t, "other.tar", oneFile(t, "other")), "-t", unsigned)

	far := g.ReserveAdmission(t)
	flags := []string{"--kubeconfig", k.Kubeconfig(), "--webhook-url", far.AdmissionURL, "--webhook-overlap", "0s"}
	far.Start(t, flags...)
	until(t, "the custom resources are served", func() bool { return k.Call(t, http.MethodGet, cipPath, nil).OK() })
	k.Must(t, http.MethodPost, cipPath, e2e.KeyPolicy("signed-by-us", g.Host+"/shop/**", key))
	until(t, "the policy counts", func() bool {
		return strings.Contains(string(k.Must(t, http.MethodGet, cipPath+"/signed-by-us", nil).Body), `"type":"ConfigMapUpdated"`)
	})
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	if denied := k.WaitDenied(t, "shop", e2e.Pod("unsigned", unsigned)); !strings.Contains(denied.Message, "signed-by-us") {
		t.Errorf("the denial does not name the policy: %s", denied.Message)
	}
	if s := k.CreatePod(t, "shop", e2e.Pod("signed", signed)); !s.OK() {
		t.Fatalf("the signed image is denied: %s", s.Message)
	}

	g.Kill()
	awaits := func(name string, admitted bool, want string) {
		t.Helper()
		var s e2e.Status
		until(t, name, func() bool {
			s = k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("dry", signed))
			return s.OK() == admitted && strings.Contains(s.Message+strings.Join(s.Warnings, "\n"), want)
		})
	}
	awaits("the age of what is known is told", true, "does not answer: judged by what was known")
	if s := k.CreatePod(t, "shop", e2e.Pod("alone", signed)); !s.OK() {
		t.Errorf("the signed image is denied while the server is away: %s", s.Message)
	}
	if s := k.CreatePod(t, "shop", e2e.Pod("tagged", tagged)); s.OK() {
		t.Error("a tag was resolved while nobody could tell what it names")
	}
	far.Stop()
	if s := k.CreatePod(t, "shop", e2e.Pod("nobody", signed)); s.OK() {
		t.Error("a Pod was admitted with nobody there")
	}
	far.Start(t, flags...)
	awaits("what is known outlives the process", true, "does not answer")
	far.Stop()
	far.Start(t, append(flags, "--admission-max-stale", "1s")...)
	awaits("the server was away for too long", false, "older than admission-max-stale (1s)")

	g.Start(t)
	awaits("the server is back", true, "")
	if s := k.CreatePod(t, "shop", e2e.Pod("again", signed)); !s.OK() {
		t.Errorf("the signed image is denied: %s", s.Message)
	}
}

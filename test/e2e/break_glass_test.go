package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
)

// TestBreakGlassInACluster: in front of a real API server a token lets one Pod of its
// image in, which can be changed afterwards, and no second one; denials are explained,
// and what happened can be judged by other policies.
func TestBreakGlassInACluster(t *testing.T) {
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	const closed = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: everything}
spec:
  images: [{glob: "**"}]
  authorities: [{static: {action: fail, message: "nothing runs here"}}]
`
	g.Start(t, "--policy", g.WriteFile(t, "policy/closed.yaml", []byte(closed)))
	k.Namespace(t, "shop", nil)
	k.AddWebhook(t, e2e.Webhook{Name: "gatehouse", URL: g.AdmissionURL + "/validate", CA: g.AdmissionCA})
	const image = "x.example/app@sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	denied := k.WaitDenied(t, "shop", e2e.Pod("first", image))
	id := denied.Message[strings.LastIndex(denied.Message, " ")+1:]
	if out := g.Run(t, g.Binary, "explain", "--server", g.URL, id); !strings.Contains(out, "how it was come to") || !strings.Contains(out, "failed   policy everything") || !strings.Contains(out, "nothing runs here") {
		t.Errorf("explain %s: %s", id, out)
	}

	carrying := func(name, token string) map[string]any {
		pod := e2e.Pod(name, image)
		pod["metadata"].(map[string]any)["annotations"] = map[string]string{"gatehouse.dev/break-glass": token}
		return pod
	}
	token := strings.TrimSpace(g.Run(t, g.Binary, "break-glass", "create", "--server", g.URL, "-q",
		"--namespace", "shop", "--image", image, "--requester", "admin", "--reason", "it burns"))
	if s := k.CreatePod(t, "shop", carrying("made-up", "gbg_AAAAAAAAAAAAAAAAAAAAAAAAAA")); s.OK() || !strings.Contains(s.Message, "a token is unknown") {
		t.Errorf("a made-up token: %d %s", s.Code, s.Message)
	}
	k.Namespace(t, "elsewhere", nil)
	if s := k.CreatePod(t, "elsewhere", carrying("elsewhere", token)); s.OK() || !strings.Contains(s.Message, "another namespace") {
		t.Errorf("another namespace: %d %s", s.Code, s.Message)
	}
	in := k.CreatePod(t, "shop", carrying("one", token))
	if !in.OK() || !strings.Contains(strings.Join(in.Warnings, "\n"), "it burns") {
		t.Fatalf("the token: %d %s %q", in.Code, in.Message, in.Warnings)
	}
	if s := k.CreatePod(t, "shop", carrying("two", token)); s.OK() || !strings.Contains(s.Message, "has been used") {
		t.Errorf("a second Pod: %d %s", s.Code, s.Message)
	}
	var pod map[string]any
	if err := json.Unmarshal(in.Body, &pod); err != nil {
		t.Fatal(err)
	}
	pod["metadata"].(map[string]any)["labels"] = map[string]string{"changed": "yes"}
	if s := k.Call(t, http.MethodPut, "/api/v1/namespaces/shop/pods/one", pod); !s.OK() {
		t.Errorf("the Pod cannot be changed: %d %s", s.Code, s.Message)
	}
	if out := g.Run(t, g.Binary, "break-glass", "list", "--server", g.URL); !strings.Contains(out, "used") || strings.Contains(out, token) {
		t.Errorf("the list: %s", out)
	}

	open := g.WriteFile(t, "new/open.yaml", []byte(strings.Replace(closed, `{action: fail, message: "nothing runs here"}`, `{action: pass}`, 1)))
	if out := g.Run(t, g.Binary, "policy", "simulate", "--server", g.URL, "--since", "1h", open); !strings.Contains(out, "deny -> allow  Pod shop/one") {
		t.Errorf("simulate: %s", out)
	}
}

package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// nowhere is the kubeconfig of a cluster that nothing answers for.
const nowhere = `
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: x, context: {cluster: c}}]
current-context: x
`

// TestPoliciesOfACluster: before the cluster was read nobody knows what is allowed, and
// what it said last counts while it is away, over a restart.
func TestPoliciesOfACluster(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.Kubeconfig = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0", kubeconfig
	cfg.WebhookService = "front/webhook"
	env := func(key string) string {
		return map[string]string{"GATEHOUSE_ADMIN_PASSWORD": "correct horse battery"}[key]
	}
	open := func() *Server {
		s, err := New(t.Context(), cfg, env, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const good = `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"p"},
		"spec":{"images":[{"glob":"**"}],"authorities":[{"name":"a","static":{"action":"pass"}}]}}`
	pod := gatehouse.Request{
		Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Operation: "CREATE", Name: "p", Namespace: "n",
		Object: []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"registry.example/a@sha256:` + strings.Repeat("ab", 32) + `"}]}}`),
	}
	verdict := func(s *Server) gatehouse.Verdict {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return s.decider.Decide(ctx, pod).Verdict
	}
	s := open()
	if d := s.decider.Decide(t.Context(), pod); d.Verdict != gatehouse.Deny || !strings.Contains(fmt.Sprint(d.Reasons), "the policies of the cluster have not been read yet") {
		t.Errorf("before the cluster was read: %s because %+v", d.Verdict, d.Reasons)
	}
	ready := func(s *Server) string {
		w := httptest.NewRecorder()
		s.webhookReadiness(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		return w.Body.String()
	}
	if got := ready(s); !strings.Contains(got, "[-]cluster failed") {
		t.Errorf("before the cluster was read the webhook is ready: %s", got)
	}
	for _, namespace := range []string{"gatehouse", "front", "kube-system"} {
		own := pod
		own.Namespace = namespace
		if got := s.decider.Decide(t.Context(), own).Verdict; got != gatehouse.Allow {
			t.Errorf("what %s needs to start: %s", namespace, got)
		}
	}
	if err := s.kubernetes.take(t.Context(), map[string]string{"cluster/ClusterImagePolicy/p": good, "reference/Secret/gatehouse/keys": `{"a":"YQ=="}`}); err != nil {
		t.Fatal(err)
	}
	if got := verdict(s); got != gatehouse.Allow {
		t.Errorf("with the policy of the cluster: %s", got)
	}
	if got := ready(s); !strings.Contains(got, "[+]cluster ok") {
		t.Errorf("the webhook is not ready: %s", got)
	}
	s.close()

	s = open()
	defer s.close()
	if got := verdict(s); got != gatehouse.Allow {
		t.Errorf("after a restart, the cluster away: %s", got)
	}
	api := s.policies.api(s.decider)
	listed, err := api.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if list := listed.(map[string]any)["policies"].([]listedPolicy); len(list) != 1 || list[0].Name != "cluster/ClusterImagePolicy/p" {
		t.Errorf("the policies are %+v", list)
	}
	// A name that the cluster has taken is refused to others.
	if _, err := api.Put(t.Context(), gatehouse.Actor{Name: "admin"}, "other.yaml", []byte(good)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("the same name by the API: %v", err)
	}
	// One that waits for its Secret keeps nobody from changing others.
	waits := strings.NewReplacer(`"p"`, `"waits"`, `"static":{"action":"pass"}`, `"key":{"secretRef":{"name":"none"}}`).Replace(good)
	if err := s.kubernetes.take(t.Context(), map[string]string{"cluster/ClusterImagePolicy/waits": waits}); err != nil {
		t.Fatal(err)
	}
	admin := gatehouse.Actor{Name: "admin"}
	if _, err := api.Put(t.Context(), admin, "other.yaml", []byte(good)); err != nil {
		t.Errorf("put beside one that waits: %v", err)
	}
	if err := api.Delete(t.Context(), admin, "other.yaml"); err != nil {
		t.Errorf("delete beside one that waits: %v", err)
	}
	if listed, err = api.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := listed.(map[string]any)["policies"].([]listedPolicy); len(list) != 1 || len(list[0].Problems) != 1 || !strings.HasPrefix(list[0].Problems[0].Message, "Secret none cannot be read") {
		t.Errorf("the policies are %+v", list)
	}
	// One that cannot be read denies everything, and its status says why.
	if err := s.kubernetes.take(t.Context(), map[string]string{"cluster/ClusterImagePolicy/p": strings.Replace(good, `"pass"`, `"perhaps"`, 1)}); err != nil {
		t.Fatal(err)
	}
	if got := verdict(s); got != gatehouse.Deny {
		t.Errorf("with a broken policy: %s", got)
	}
	status, err := s.kubernetes.status(t.Context())
	if err != nil || !strings.Contains(status["cluster/ClusterImagePolicy/p"].Problem, "static.action") {
		t.Errorf("its status is %+v, %v", status, err)
	}
	if f, err := s.kubernetes.fallback(t.Context()); err != nil || !f.Keep {
		t.Errorf("the fallback of a broken set is %+v, %v", f, err)
	}
	if err := s.kubernetes.take(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if f, err := s.kubernetes.fallback(t.Context()); err != nil || f.Keep || !f.Open {
		t.Errorf("the fallback of no policies is %+v, %v", f, err)
	}
	var docs []db.ClusterDocument
	err = s.db.Get(t.Context(), func(tx *db.Tx) (err error) {
		docs, _, err = tx.ClusterDocuments(t.Context())
		return err
	})
	if err != nil || len(docs) != 0 {
		t.Errorf("documents are left: %v, %v", docs, err)
	}
}

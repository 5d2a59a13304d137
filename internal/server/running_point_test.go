package server

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

const scopedConstraint = `apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: refuseall}
spec:
  crd: {spec: {names: {kind: RefuseAll}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package refuseall
      violation[{"msg": "never"}] { true }
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: RefuseAll
metadata: {name: at-one-point}
spec:
  enforcementAction: scoped
  scopedEnforcementActions:
  - {action: deny, enforcementPoints: [{name: POINT}]}
`

// TestConstraintsOfAudit: a constraint that is scoped to audit counts for what runs and
// for no review; one that is scoped to the webhook the other way round. Another set is
// made when the policies have changed, and only then.
func TestConstraintsOfAudit(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.Kubeconfig = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0", kubeconfig
	s, err := New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	put := func(point string) {
		t.Helper()
		docs := map[string]string{}
		for i, doc := range strings.Split(strings.Replace(scopedConstraint, "POINT", point, 1), "\n---\n") {
			docs["cluster/Kind/"+string(rune('a'+i))+".yaml"] = doc
		}
		err := s.db.Write(t.Context(), func(tx *db.Tx) error {
			_, err := tx.SetClusterDocuments(t.Context(), gatehouse.System("cluster"), docs)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	audit := &auditPolicies{policies: s.policies}
	pod := gatehouse.Request{
		Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Operation: "CREATE", Name: "p", Namespace: "n", NamespaceObject: []byte(`{"metadata":{"name":"n"}}`),
		Object: []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n"},"spec":{"containers":[{"name":"c","image":"registry.example/a@sha256:` + strings.Repeat("ab", 32) + `"}]}}`),
	}
	verdicts := func() (webhook, running gatehouse.Verdict, state string) {
		t.Helper()
		set, err := s.policies.Set(t.Context())
		if err != nil || !set.Complete {
			t.Fatalf("%+v, %v", set, err)
		}
		at, state, err := audit.set(t.Context())
		if err != nil || !at.Complete {
			t.Fatalf("%+v, %v", at, err)
		}
		judge := func(set decide.PolicySet) gatehouse.Verdict {
			req := pod
			req.Images = set.Images(req)
			return decide.Decide(context.Background(), set, req).Verdict
		}
		return judge(set), judge(at), state
	}
	put("audit.gatekeeper.sh")
	webhook, running, first := verdicts()
	if webhook != gatehouse.Allow || running != gatehouse.Deny {
		t.Errorf("scoped to audit: a review is answered by %s, what runs by %s", webhook, running)
	}
	if _, _, state := verdicts(); state != first {
		t.Error("nothing has changed, and the state is another one")
	}
	put("validation.gatekeeper.sh")
	webhook, running, second := verdicts()
	if webhook != gatehouse.Deny || running != gatehouse.Allow || second == first {
		t.Errorf("scoped to the webhook: a review is answered by %s, what runs by %s", webhook, running)
	}
}

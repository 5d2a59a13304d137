package server

import (
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
)

const referringInCluster = `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"p"},
	"spec":{"images":[{"glob":"**"}],"authorities":[{"name":"a","key":{"secretRef":{"name":"keys","namespace":"other"}}}],
	"policy":{"type":"rego","configMapRef":{"name":"rules","key":"a"}}}}`

const keyPEM = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC
VqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==
-----END PUBLIC KEY-----
`

// clusterless opens servers, one after the other with the same data, whose cluster does
// not answer.
func clusterless(t *testing.T) (open func() *Server) {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nowhere), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.Kubeconfig = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0", kubeconfig
	env := func(key string) string {
		return map[string]string{"GATEHOUSE_ADMIN_PASSWORD": "correct horse battery"}[key]
	}
	return func() *Server {
		s, err := New(t.Context(), cfg, env, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// TestReferencesOfACluster: what policies refer to counts as the database has it, on
// every replica and while the cluster is away; without it a policy denies what it speaks
// of, and the others go on.
func TestReferencesOfACluster(t *testing.T) {
	open := clusterless(t)
	const path = "cluster/ClusterImagePolicy/p"
	secret := operator.Reference{Kind: "Secret", Namespace: "gatehouse", Name: "keys"}
	configMap := operator.Reference{Kind: "ConfigMap", Namespace: "gatehouse", Name: "rules"}
	docs := map[string]string{path: referringInCluster}
	problem := func(s *Server) string {
		t.Helper()
		status, err := s.kubernetes.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		set, err := s.policies.Set(t.Context())
		if err != nil || !set.Complete {
			t.Errorf("the set is whole: %v, %v", set.Complete, err)
		}
		return status[path].Problem
	}
	take := func(s *Server) {
		t.Helper()
		if err := s.kubernetes.take(t.Context(), docs); err != nil {
			t.Fatal(err)
		}
	}

	s := open()
	take(s)
	if got := problem(s); !strings.Contains(got, "secretRef") {
		t.Errorf("without the Secret: %q", got)
	}
	if named := s.policies.named(); !slices.Contains(named, secret) {
		t.Errorf("the policies name %v", named)
	}
	docs[secret.Path()] = "kind: Secret\napiVersion: v1\ndata:\n  any.pub: " + base64.StdEncoding.EncodeToString([]byte(keyPEM)) + "\n"
	docs[configMap.Path()] = "kind: ConfigMap\napiVersion: v1\ndata:\n  a: |\n    package sigstore\n    isCompliant { true }\n"
	take(s)
	if got := problem(s); got != "" {
		t.Errorf("with all of it: %s", got)
	}
	first, err := s.policies.Set(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	docs[configMap.Path()] = strings.Replace(docs[configMap.Path()], "true", "false", 1)
	take(s)
	if second, err := s.policies.Set(t.Context()); err != nil || second.Digest == first.Digest {
		t.Errorf("another ConfigMap makes the same set, %v", err)
	}
	s.close()

	s = open()
	defer s.close()
	if got := problem(s); got != "" {
		t.Errorf("after a restart: %s", got)
	}
	// What the cluster has to repair keeps nobody from adding other policies.
	delete(docs, secret.Path())
	take(s)
	const other = `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"q"},
		"spec":{"images":[{"glob":"**"}],"authorities":[{"name":"a","static":{"action":"pass"}}]}}`
	api := s.policies.api(s.decider)
	if _, err := api.Put(t.Context(), gatehouse.Actor{Name: "admin"}, "a.yaml", []byte(other)); err != nil {
		t.Errorf("a good policy beside it: %v", err)
	}
	if _, err := api.Put(t.Context(), gatehouse.Actor{Name: "admin"}, "b.yaml", []byte(strings.Replace(other, `"q"`, `"p"`, 1))); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a name that the cluster has: %v", err)
	}
}

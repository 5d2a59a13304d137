package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// rendered is what the chart makes of values, document by document.
func rendered(t *testing.T, home string, values ...string) (docs []map[string]any) {
	t.Helper()
	args := []string{"template", "gatehouse", filepath.Join("..", "..", "deploy", "charts", "gatehouse"), "--namespace", "gatehouse", "--kube-version", "1.35.0"}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	cmd := exec.CommandContext(t.Context(), tool.Need(t, "helm"), args...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.Output()
	if err != nil {
		text := ""
		if e, ok := err.(*exec.ExitError); ok {
			text = string(e.Stderr)
		}
		t.Fatalf("helm template %q: %v\n%s", values, err, text)
	}
	for text := range strings.SplitSeq(string(out), "\n---\n") {
		var doc map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &doc); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if doc != nil {
			docs = append(docs, doc)
		}
	}
	return docs
}

// rights flattens the rules of a role: group, resource, name and verb of each.
func rights(doc map[string]any) map[string]bool {
	out := map[string]bool{}
	rules, _ := doc["rules"].([]any)
	for _, r := range rules {
		rule, _ := r.(map[string]any)
		list := func(key string) []any {
			l, _ := rule[key].([]any)
			if len(l) == 0 {
				return []any{"*"}
			}
			return l
		}
		for _, group := range list("apiGroups") {
			for _, resource := range list("resources") {
				for _, name := range list("resourceNames") {
					for _, verb := range list("verbs") {
						// The chart's role is called after its namespace.
						n := strings.Replace(fmt.Sprint(name), "gatehouse-gatehouse", "gatehouse", 1)
						out[fmt.Sprintf("%v/%v/%s %v", group, resource, n, verb)] = true
					}
				}
			}
		}
	}
	return out
}

// allRights are those of all roles of a kind.
func allRights(docs []map[string]any, kind string) (out []string) {
	all := map[string]bool{}
	for _, d := range docs {
		if d["kind"] == kind {
			maps.Copy(all, rights(d))
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// TestChart renders the chart with its defaults and with everything turned on, and
// offers the result to an API server that takes nothing it does not know. The settings
// that it makes are ones that the server takes, and its roles are those of the kustomize
// base, which TestInstalledAsShipped runs with.
func TestChart(t *testing.T) {
	tool.Need(t, "helm")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	digest := "sha256:" + strings.Repeat("ab", 32)
	for name, values := range map[string][]string{
		"default": nil,
		"everything": {
			"operator.separate=true", "replicaCount=3", "database.secretName=db", "storage.url=s3://bucket/x?endpoint=https://s3.example",
			"storage.secretName=s3", "tls.secretName=tls", "networkPolicy.enabled=true", "networkPolicy.apiServerCIDRs={10.0.0.0/24}",
			"webhook.hostNetwork=true", "webhook.namespaces=policy.sigstore.dev/include=true", "webhook.resources={services,networking.k8s.io/ingresses}",
			"image.digest=" + digest, "policies.a\\.rego=package a", "config.no-match=warn", "config.listen=127.0.0.1:1", "podLabels.a=b", "podAnnotations.a=b",
			"serviceMonitor.enabled=true", "serviceMonitor.labels.a=b", "imagePullSecrets[0].name=pull",
		},
	} {
		t.Run(name, func(t *testing.T) {
			docs := rendered(t, g.Dir, values...)
			for _, doc := range docs {
				if doc["kind"] == "ServiceMonitor" {
					continue // a custom resource that this cluster does not have
				}
				create(t, k, doc, "gatehouse", "&dryRun=All")
				if data, ok := doc["data"].(map[string]any); ok && data["gatehouse.yaml"] != nil {
					settings := g.WriteFile(t, name+".yaml", []byte(data["gatehouse.yaml"].(string)))
					g.Run(t, g.Binary, "config", "check", "--syntax-only", "--config", settings)
					if !strings.Contains(data["gatehouse.yaml"].(string), "listen: 0.0.0.0:5000") {
						t.Errorf("the chart's own settings do not win:\n%s", data["gatehouse.yaml"])
					}
				}
			}
			for _, kind := range []string{"ClusterRole", "Role"} {
				if diff := cmp.Diff(allRights(shipped(t, "rbac.yaml"), kind), allRights(docs, kind)); diff != "" {
					t.Errorf("the %ss of the chart are not those of the base (-base +chart):\n%s", kind, diff)
				}
			}
		})
	}
}

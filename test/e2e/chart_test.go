package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
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

// chart is the path of the chart.
func chart(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "deploy", "charts", "gatehouse"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// render is what helm template writes for values, or its message.
func render(t *testing.T, home string, values ...string) (string, error) {
	t.Helper()
	args := []string{"template", "gatehouse", chart(t), "--namespace", "gatehouse", "--kube-version", "1.35.0"}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	cmd := exec.CommandContext(t.Context(), tool.Need(t, "helm"), args...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.Output()
	if e, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	return string(out), err
}

// rendered is what the chart makes of values, document by document.
func rendered(t *testing.T, home string, values ...string) (docs []map[string]any) {
	t.Helper()
	out, err := render(t, home, values...)
	if err != nil {
		t.Fatalf("helm template %q: %v", values, err)
	}
	for text := range strings.SplitSeq(out, "\n---\n") {
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

// allRights are those of all roles of a kind, without what one for any name or resource has already.
func allRights(docs []map[string]any, kind string) (out []string) {
	all := map[string]bool{}
	for _, d := range docs {
		if d["kind"] == kind {
			maps.Copy(all, rights(d))
		}
	}
	maps.DeleteFunc(all, func(right string, _ bool) bool {
		at, verb, _ := strings.Cut(right, " ")
		group, _, _ := strings.Cut(at, "/")
		for _, wider := range []string{at[:strings.LastIndexByte(at, '/')] + "/* " + verb, group + "/*/* " + verb} {
			if wider != right && all[wider] {
				return true
			}
		}
		return false
	})
	return slices.Sorted(maps.Keys(all))
}

// facts are what documents say of each object, without what only tells where they come
// from, and without the rules of roles, which are compared one by one.
func facts(docs []map[string]any) map[string]any {
	out := map[string]any{}
	for _, d := range docs {
		o, _ := plain(d).(map[string]any)
		metadata, _ := o["metadata"].(map[string]any)
		for _, key := range []string{"labels", "annotations", "namespace"} {
			delete(metadata, key)
		}
		delete(o, "rules")
		if o["kind"] != "ConfigMap" && o["kind"] != "Namespace" {
			out[fmt.Sprint(o["kind"], "/", metadata["name"])] = o
		}
	}
	return out
}

// plain copies a value without what a release adds to it.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, item := range v {
			if key == "app.kubernetes.io/instance" || strings.HasPrefix(key, "checksum/") {
				continue
			}
			if p := plain(item); key != "annotations" || len(p.(map[string]any)) > 0 {
				out[key] = p
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = plain(item)
		}
		return out
	case string:
		return strings.ReplaceAll(v, "gatehouse-gatehouse", "gatehouse") // the chart's role is called after its namespace
	}
	return v
}

// base is what kustomize makes of deploy/kustomize/base: the files that it names, in
// its namespace and with its tag of the image. The second is the settings.
func base(t *testing.T) (docs []map[string]any, settings string) {
	t.Helper()
	var k struct {
		Namespace string
		Resources []string
		Generator []struct {
			Name  string
			Files []string
		} `json:"configMapGenerator"`
		Images []struct{ Name, NewTag string }
	}
	dir := filepath.Join("..", "..", "deploy", "kustomize", "base")
	b, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err == nil {
		err = yaml.Unmarshal(b, &k)
	}
	if err != nil || k.Namespace != "gatehouse" || len(k.Generator) != 1 || len(k.Images) != 1 {
		t.Fatalf("kustomization.yaml says %+v, %v", k, err)
	}
	for _, name := range k.Resources {
		docs = append(docs, shipped(t, name)...)
	}
	for _, d := range docs {
		if d["kind"] == "Deployment" {
			spec := d["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			container := spec["containers"].([]any)[0].(map[string]any)
			if container["image"] != k.Images[0].Name {
				t.Errorf("the image %v is not the one that gets a tag", container["image"])
			}
			container["image"] = k.Images[0].Name + ":" + k.Images[0].NewTag
		}
	}
	if settings = k.Generator[0].Files[0]; k.Generator[0].Name != "gatehouse" {
		t.Errorf("the settings are in %s", k.Generator[0].Name)
	}
	b, err = os.ReadFile(filepath.Join(dir, settings))
	if err != nil {
		t.Fatal(err)
	}
	return docs, string(b)
}

// settingsOf is what the chart has the server read.
func settingsOf(t *testing.T, docs []map[string]any) string {
	t.Helper()
	for _, d := range docs {
		if data, ok := d["data"].(map[string]any); ok && data["gatehouse.yaml"] != nil {
			return data["gatehouse.yaml"].(string)
		}
	}
	t.Fatal("the chart has no settings")
	return ""
}

// everything turns all on that the chart has.
func everything() []string {
	return []string{
		"operator.separate=true", "replicaCount=3", "database.secretName=db", "storage.url=s3://bucket/x?endpoint=https://s3.example",
		"storage.secretName=s3", "keys.secretName=keys", "admin.secretName=admin", "tls.secretName=tls",
		"networkPolicy.enabled=true", "networkPolicy.apiServerCIDRs={10.0.0.0/24}",
		"ingress.enabled=true", "ingress.host=registry.example", "ingress.className=nginx", "ingress.tlsSecretName=web", "ingress.annotations.a=b",
		"webhook.hostNetwork=true", "webhook.namespaces=policy.sigstore.dev/include=true", "webhook.resources={services,networking.k8s.io/ingresses}",
		"image.digest=sha256:" + strings.Repeat("ab", 32), "policies.a\\.rego=package a", "config.no-match=warn", "config.listen=127.0.0.1:1",
		"config.cluster-manage=true", "podLabels.a=b", "podAnnotations.a=b", "serviceAccount.annotations.a=b", "nodeSelector.a=b",
		"tolerations[0].operator=Exists", "serviceMonitor.enabled=true", "serviceMonitor.labels.a=b", "imagePullSecrets[0].name=pull",
	}
}

// far is gatehouse admission instead of a server.
func far(key string) []string {
	return []string{
		"elsewhere.server=https://registry.example", "elsewhere.factsKey=" + key, "elsewhere.ca=-----BEGIN CERTIFICATE-----",
		"elsewhere.loginSecretName=login", "elsewhere.maxStale=12h",
	}
}

// TestChart renders the chart with its defaults and with everything turned on, and
// offers the result to an API server that takes nothing it does not know. Its defaults
// are what the kustomize base says, to the letter; the settings that it makes are ones
// that the server takes; its pods are as a namespace asks that enforces the strictest
// standard; and what cannot work is refused with a reason.
func TestChart(t *testing.T) {
	helm := tool.Need(t, "helm")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"})
	g.Run(t, helm, "lint", "--strict", chart(t))

	bases, baseSettings := base(t)
	for name, values := range map[string][]string{"default": nil, "everything": everything(), "elsewhere": far("-----BEGIN PUBLIC KEY-----")} {
		t.Run(name, func(t *testing.T) {
			docs := rendered(t, g.Dir, values...)
			for _, doc := range docs {
				if doc["kind"] == "ServiceMonitor" {
					continue // a custom resource that this cluster does not have
				}
				s := create(t, k, doc, "gatehouse", "&dryRun=All")
				// The node's network is the one thing that the standard forbids.
				if len(s.Warnings) > 0 && !strings.Contains(fmt.Sprint(values), "hostNetwork") {
					t.Errorf("%v: %q", doc["kind"], s.Warnings)
				}
			}
			settings := g.WriteFile(t, name+".yaml", []byte(settingsOf(t, docs)))
			for _, own := range []string{"listen: 0.0.0.0:5000", fmt.Sprintf("cluster-manage: %v", name != "everything")} {
				if printed := g.Run(t, g.Binary, "config", "print", "--config", settings); !strings.Contains(printed, "\n"+own+"\n") {
					t.Errorf("the chart's own setting %q does not win:\n%s", own, settingsOf(t, docs))
				}
			}
			for _, kind := range []string{"ClusterRole", "Role"} {
				if diff := cmp.Diff(allRights(bases, kind), allRights(docs, kind)); diff != "" {
					t.Errorf("the %ss of the chart are not those of the base (-base +chart):\n%s", kind, diff)
				}
			}
			if len(values) > 0 {
				return
			}
			if diff := cmp.Diff(facts(bases), facts(docs)); diff != "" {
				t.Errorf("the chart is not the base (-base +chart):\n%s", diff)
			}
			inForce := func(text string) string {
				return g.Run(t, g.Binary, "config", "print", "--config", g.WriteFile(t, "print.yaml", []byte(plain(text).(string))))
			}
			if diff := cmp.Diff(inForce(baseSettings), inForce(settingsOf(t, docs))); diff != "" {
				t.Errorf("the chart's settings are not the base's (-base +chart):\n%s", diff)
			}
		})
	}
	for reason, values := range map[string][]string{
		"replicas share rows":  {"replicaCount=2"},
		"signing-passphrase":   {"database.secretName=db", "storage.url=s3://b/x"},
		"timeoutSeconds":       {"webhook.timeoutSeconds=60"},
		"nosuchvalue":          {"nosuchvalue=1"},
		"name of the registry": {"ingress.enabled=true"},
		"whom to believe":      {"elsewhere.server=https://registry.example"},
		"elsewhere/server":     {"elsewhere.server=http://registry.example", "elsewhere.factsKey=-----BEGIN PUBLIC KEY-----"},
		"that is followed":     {"elsewhere.factsKey=-----BEGIN PUBLIC KEY-----"},
	} {
		if _, err := render(t, g.Dir, values...); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want %q", values, err, reason)
		}
	}
}

// TestChartInstalled has helm install the chart, with the operator apart, and runs the
// two programs with what it made: the settings, and the rights of their accounts, of
// which neither has those of the other. What the operator keeps outlives it, a new
// authority reaches a server that runs on, and helm uninstall leaves nothing that denies.
func TestChartInstalled(t *testing.T) {
	helm := tool.Need(t, "helm")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{Controllers: true})
	k.Namespace(t, "shop", nil)
	g.Run(t, helm, "install", "gatehouse", chart(t), "--namespace", "gatehouse", "--create-namespace",
		"--kubeconfig", k.Kubeconfig(), "--set", "operator.separate=true")
	data, _ := field(t, k.Must(t, http.MethodGet, "/api/v1/namespaces/gatehouse/configmaps/gatehouse", nil), "data").(map[string]any)
	flags := []string{"--config", g.WriteFile(t, "gatehouse.yaml", fmt.Append(nil, data["gatehouse.yaml"])),
		// Nothing here knows the names of Services.
		"--webhook-service=", "--webhook-url", g.AdmissionURL, "--cluster-namespace", "gatehouse"}
	health := e2e.FreeAddress(t)
	log := filepath.Join(g.Dir, "operator.log")
	operator, err := e2e.Start(t, e2e.Program{Name: g.Binary, Log: log, Args: append([]string{"operator",
		"--kubeconfig", accountConfig(t, g, k, "gatehouse", "gatehouse-operator"), "--metrics-listen", health, "--webhook-overlap", "0s"}, flags...)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the operator is ready", func() bool {
		resp, err := http.Get("http://" + health + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	until(t, "the certificate is there", func() bool { return k.Call(t, http.MethodGet, secretPath, nil).OK() })
	if s := k.Call(t, http.MethodGet, hooksPath, nil); s.Code != http.StatusNotFound {
		t.Errorf("nobody answers, and the webhook configuration is there: %d", s.Code)
	}
	g.Start(t, append([]string{"--kubeconfig", accountConfig(t, g, k, "gatehouse", "gatehouse"),
		"--metrics-listen", "127.0.0.1:0", "--policy", g.WriteFile(t, "policy/fine.yaml", []byte(finePolicy))}, flags...)...)
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	until(t, "the fallback policy is there", func() bool { return k.Call(t, http.MethodGet, fallbackPath, nil).OK() })
	fine, bad := e2e.Pod("fine", "registry.example/fine/app"+anyDigest), e2e.Pod("bad", "registry.example/bad/app"+anyDigest)
	k.WaitDenied(t, "shop", bad)

	// A new authority reaches the server, which runs on.
	before, err := shake(g, bundleOf(t, k))
	if err != nil {
		t.Fatal(err)
	}
	g.Run(t, g.Binary, "operator", "rotate", "--kubeconfig", k.Kubeconfig())
	until(t, "a certificate of a new authority is served", func() bool {
		now, err := shake(g, bundleOf(t, k))
		return err == nil && now != before
	})
	k.Must(t, http.MethodDelete, hooksPath, nil)
	until(t, "the configuration is back", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })

	// A template of Gatekeeper gets the kind of its constraints.
	until(t, "templates are served", func() bool { return k.Call(t, http.MethodGet, templatesPath, nil).OK() })
	k.Must(t, http.MethodPost, templatesPath, []byte(`{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":"nothing"},
		"spec":{"crd":{"spec":{"names":{"kind":"Nothing"}}},"targets":[{"target":"admission.k8s.gatekeeper.sh","rego":"package nothing\nviolation[{\"msg\": msg}] {\n msg := input.parameters.never\n}"}]}}`))
	until(t, "its constraints are served", func() bool {
		return k.Call(t, http.MethodGet, "/apis/constraints.gatekeeper.sh/v1beta1/nothing", nil).OK()
	})

	// Without the operator everything stays as it is.
	operator.Stop()
	k.WaitDenied(t, "shop", bad)
	until(t, "a Pod may run", func() bool { return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", fine).OK() })
	k.Must(t, http.MethodPost, cipPath, []byte(strings.Replace(finePolicy, "name: fine", "name: more", 1)))
	until(t, "the policy counts", func() bool {
		return strings.Contains(string(k.Must(t, http.MethodGet, cipPath+"/more", nil).Body), `"type":"ConfigMapUpdated"`)
	})
	enough(t, log)
	enough(t, filepath.Join(g.Dir, "gatehouse.log"))
	shared := map[string]bool{
		"list secrets": false, "get secrets shop/any": false, "create pods shop/": false,
		"patch policy.sigstore.dev/clusterimagepolicies/any": false,
	}
	apart := map[string]bool{ // what the operator may, and the server may not
		"patch admissionregistration.k8s.io/validatingwebhookconfigurations/gatehouse":                  true,
		"patch apiextensions.k8s.io/customresourcedefinitions/clusterimagepolicies.policy.sigstore.dev": true,
		"update secrets gatehouse/gatehouse-webhook":                                                    true,
		"patch admissionregistration.k8s.io/validatingadmissionpolicies/gatehouse-fallback":             false,
		"list policy.sigstore.dev/clusterimagepolicies":                                                 false,
		"get secrets gatehouse/another":                                                                 false,
		"patch policy.sigstore.dev/clusterimagepolicies/any status":                                     false,
	}
	granted(t, k, "gatehouse", shared)
	granted(t, k, "gatehouse-operator", shared)
	granted(t, k, "gatehouse-operator", apart)
	for what, may := range apart {
		apart[what] = !may
	}
	granted(t, k, "gatehouse", apart)

	g.Stop()
	g.Run(t, helm, "uninstall", "gatehouse", "--namespace", "gatehouse", "--kubeconfig", k.Kubeconfig())
	until(t, "nothing of ours denies any more", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", bad).OK()
	})
	if !k.Call(t, http.MethodGet, cipPath+"/more", nil).OK() {
		t.Error("policies went with the chart")
	}
}

// TestChartElsewhere has helm install admission that follows a server somewhere else, and
// runs the program with what the chart made: its arguments, its settings, the key that it
// believes, the account at the server, and the rights of its own. A Pod of a signed image
// is admitted, one of another is not.
func TestChartElsewhere(t *testing.T) {
	helm := tool.Need(t, "helm")
	cosign := tool.Need(t, "cosign")
	tool.Need(t, "crane")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{Controllers: true})
	k.Namespace(t, "shop", nil)
	g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	g.Start(t) // it knows of no cluster
	_, signed := signedImage(t, g, "shop/app")
	away := g.ReserveAdmission(t)
	args := []string{"install", "gatehouse", chart(t), "--namespace", "gatehouse", "--create-namespace", "--kubeconfig", k.Kubeconfig(),
		"--set", "elsewhere.server=https://registry.example", "--set-file", "elsewhere.factsKey=" + away.Key, "--set", "elsewhere.loginSecretName=far"}
	g.Run(t, helm, args...)
	data := func(name, entry string) []byte {
		entries, _ := field(t, k.Must(t, http.MethodGet, "/api/v1/namespaces/gatehouse/configmaps/"+name, nil), "data").(map[string]any)
		text, _ := entries[entry].(string)
		return []byte(text)
	}
	deployment := string(k.Must(t, http.MethodGet, "/apis/apps/v1/namespaces/gatehouse/deployments/gatehouse", nil).Body)
	for _, says := range []string{`"args":["admission","--config","/etc/gatehouse/gatehouse.yaml"`, `"secretName":"far","items":[{"key":".dockerconfigjson","path":"config.json"}]`} {
		if !strings.Contains(deployment, says) {
			t.Errorf("the Deployment does not say %s: %s", says, deployment)
		}
	}
	settings := data("gatehouse", "gatehouse.yaml")
	for _, says := range []string{"facts-server: https://registry.example\n", "facts-key: /etc/gatehouse/facts/facts.pub\n",
		"registry-login-file: /etc/gatehouse/login/config.json\n", "admission-max-stale: 24h\n"} {
		if !strings.Contains(string(settings), says) {
			t.Errorf("the settings do not say %q:\n%s", says, settings)
		}
	}
	// Where the paths and names of a Pod are others here, flags say so.
	away.Start(t, "--config", g.WriteFile(t, "far.yaml", settings), "--facts-key", g.WriteFile(t, "far.pub", data("gatehouse-facts", "facts.pub")),
		"--kubeconfig", accountConfig(t, g, k, "gatehouse", "gatehouse"), "--metrics-listen", "127.0.0.1:0",
		"--webhook-service=", "--webhook-url", away.AdmissionURL, "--cluster-namespace", "gatehouse")
	until(t, "the custom resources are served", func() bool { return k.Call(t, http.MethodGet, cipPath, nil).OK() })
	k.Must(t, http.MethodPost, cipPath, e2e.KeyPolicy("signed", g.Host+"/shop/**", key))
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	k.WaitDenied(t, "shop", e2e.Pod("bad", "registry.example/bad/app"+anyDigest))
	until(t, "a signed image may run", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", e2e.Pod("signed", signed)).OK()
	})
	log := filepath.Join(g.Dir, "admission.log")
	enough(t, log)
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "admission follows a server") || strings.Contains(string(b), "has not been read yet") {
		t.Errorf("the log of the start is %v:\n%s", err, b)
	}
}

package e2e_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// reportDefinition is a custom resource of reports as its standard describes it: words
// of few, and no fields but those that there are.
func reportDefinition(group, version, kind, plural string, more map[string]any) map[string]any {
	type object = map[string]any
	text, number := object{"type": "string"}, object{"type": "integer"}
	texts := func(words ...string) object { return object{"type": "string", "enum": words} }
	reference := object{"type": "object", "properties": object{"apiVersion": text, "kind": text, "namespace": text, "name": text, "uid": text}}
	result := object{"type": "object", "required": []string{"policy"}, "properties": object{
		"source": text, "policy": text, "rule": text, "category": text, "message": text, "scored": object{"type": "boolean"},
		"severity": texts("critical", "high", "low", "medium", "info"), "result": texts("pass", "fail", "warn", "error", "skip"),
		"timestamp": object{"type": "object", "required": []string{"seconds", "nanos"}, "properties": object{
			"seconds": object{"type": "integer", "format": "int64"}, "nanos": object{"type": "integer", "format": "int32"}}},
		"resources":  object{"type": "array", "items": reference},
		"properties": object{"type": "object", "additionalProperties": text},
	}}
	properties := object{
		"apiVersion": text, "kind": text, "metadata": object{"type": "object"}, "scope": reference,
		"summary": object{"type": "object", "properties": object{"pass": number, "fail": number, "warn": number, "error": number, "skip": number}},
		"results": object{"type": "array", "items": result},
	}
	for k, v := range more {
		properties[k] = v
	}
	return object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": plural + "." + group},
		"spec": object{
			"group": group, "scope": "Namespaced", "names": object{"kind": kind, "plural": plural, "singular": strings.ToLower(kind), "listKind": kind + "List"},
			"versions": []any{object{"name": version, "served": true, "storage": true, "schema": object{"openAPIV3Schema": object{"type": "object", "properties": properties}}}},
		},
	}
}

// report is what both kinds of reports have.
type report struct {
	Source   string `json:"source"`
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Summary map[string]int `json:"summary"`
	Results []struct {
		Source, Policy, Rule, Result, Severity, Message string
		Resources                                       []struct{ Kind, Name, UID string }
		Properties                                      map[string]string
	} `json:"results"`
}

// has reports whether a result says so of a workload.
func (r report) has(kind, name, rule, result string) bool {
	for _, one := range r.Results {
		if one.Rule == rule && one.Result == result && len(one.Resources) == 1 && one.Resources[0].Kind == kind && one.Resources[0].Name == name {
			return true
		}
	}
	return false
}

// npmLayer is a layer with one package.
func npmLayer(t *testing.T, name, version string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := fmt.Sprintf(`{"name":%q,"version":%q}`, name, version)
	if err := w.WriteHeader(&tar.Header{Name: "app/node_modules/" + name + "/package.json", Mode: 0o644, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// runs writes into the status of a Pod what its node would: the digest that runs.
func runs(t *testing.T, k *e2e.Kube, namespace, name, imageID string) {
	t.Helper()
	path := "/api/v1/namespaces/" + namespace + "/pods/" + name
	var pod map[string]any
	if err := json.Unmarshal(k.Must(t, http.MethodGet, path, nil).Body, &pod); err != nil {
		t.Fatal(err)
	}
	pod["status"] = map[string]any{"phase": "Running", "containerStatuses": []any{map[string]any{
		"name": "c0", "image": "x", "imageID": imageID, "ready": true, "restartCount": 0, "state": map[string]any{"running": map[string]any{}},
	}}}
	k.Must(t, http.MethodPut, path+"/status", pod)
}

// TestWhatRunsIsJudgedAgain: Pods that run are judged again by the digests that run, when
// an advisory, a policy or a signature changes; reports, Events, the API and the outbox
// say so, each change once, also over a restart; nothing is stopped.
func TestWhatRunsIsJudgedAgain(t *testing.T) {
	crane, cosign := tool.Need(t, "crane"), tool.Need(t, "cosign")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	for _, namespace := range []string{"gatehouse", "shop"} {
		k.Namespace(t, namespace, nil)
	}
	const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldValidation=Strict"
	k.Must(t, http.MethodPost, crds, reportDefinition("wgpolicyk8s.io", "v1alpha2", "PolicyReport", "policyreports", nil))
	g.Run(t, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--kubeconfig", k.Kubeconfig()}
	g.Start(t, flags...)
	reports := func(group, plural string) (r report) {
		s := k.Call(t, http.MethodGet, "/apis/"+group+"/namespaces/shop/"+plural+"/gatehouse-running", nil)
		if s.OK() {
			if err := json.Unmarshal(s.Body, &r); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	policyReport := func() report { return reports("wgpolicyk8s.io/v1alpha2", "policyreports") }
	events := func(reason string) (n int) {
		var list struct {
			Items []struct{ Reason, Message string }
		}
		if err := json.Unmarshal(k.Must(t, http.MethodGet, "/api/v1/namespaces/shop/events", nil).Body, &list); err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Items {
			if e.Reason == reason {
				n++
			}
		}
		return n
	}

	// An image runs by its tag; the tag has moved on since.
	app := g.Host + "/shop/app:v1"
	g.Run(t, crane, "append", "--insecure", "-f", g.WriteFile(t, "layer.tar", npmLayer(t, "leftpad", "1.0.0")), "-t", app)
	digest := strings.TrimSpace(g.Run(t, crane, "digest", "--insecure", app))
	g.Run(t, crane, "append", "--insecure", "-f", g.WriteFile(t, "other.tar", npmLayer(t, "rightpad", "1.0.0")), "-t", app)
	if strings.TrimSpace(g.Run(t, crane, "digest", "--insecure", app)) == digest {
		t.Fatal("the tag has not moved")
	}
	flaw := func(id, name string) {
		t.Helper()
		g.Run(t, g.Binary, "db", "import", "--server", g.URL, g.WriteFile(t, id+".json", fmt.Appendf(nil,
			`{"schema_version":"1.6.0","id":%q,"modified":"2026-01-01T00:00:00Z","severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
			"affected":[{"package":{"ecosystem":"npm","name":%q},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`, id, name)))
	}
	flaw("CVE-2026-1", "neither")
	until(t, "the custom resources are served", func() bool {
		return k.Call(t, http.MethodGet, "/apis/gatehouse.dev/v1alpha1/imagerules", nil).OK()
	})
	k.Must(t, http.MethodPost, "/apis/gatehouse.dev/v1alpha1/imagerules", fmt.Appendf(nil, `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: no-flaws}
spec:
  images: [{glob: "%s/**"}]
  vulnerabilities: {maxSeverity: HIGH}
`, g.Host))
	pod := e2e.Pod("web-1", app)
	pod["metadata"] = map[string]any{"name": "web-1", "ownerReferences": []any{map[string]any{
		"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "5a9cd1a6-25cb-4d34-9d1f-8b1f1e1f0a11", "controller": true,
	}}}
	k.Must(t, http.MethodPost, "/api/v1/namespaces/shop/pods", pod)
	runs(t, k, "shop", "web-1", g.Host+"/shop/app@"+digest)
	until(t, "what runs is well", func() bool { r := policyReport(); return r.Summary["pass"] == 1 && r.Summary["fail"] == 0 })
	if events("ImageDenied")+events("ImageAllowed") != 0 {
		t.Error("there is an Event of what was never wrong")
	}

	// A flaw of what the tag means today is none of what runs.
	flaw("CVE-2026-2", "rightpad")
	flaw("CVE-2026-3", "leftpad")
	until(t, "an advisory is told of", func() bool {
		return policyReport().has("ReplicaSet", "web", "severity-exceeded", "fail") && events("ImageDenied") == 1
	})
	said := policyReport().Results[0]
	if !strings.Contains(said.Message, "CVE-2026-3") || strings.Contains(said.Message, "CVE-2026-2") || said.Properties["digest"] != digest || said.Policy != "no-flaws" || said.Severity != "high" {
		t.Errorf("the report says %+v", said)
	}
	if tree := g.Run(t, g.Binary, "explain", "--server", g.URL, said.Properties["decision"]); !strings.Contains(tree, "no-flaws") {
		t.Errorf("the decision is explained by %s", tree)
	}

	// The other kind of reports comes, and has the same.
	k.Must(t, http.MethodPost, crds, reportDefinition("openreports.io", "v1alpha1", "Report", "reports", map[string]any{"source": map[string]any{"type": "string"}}))
	openReport := func() report { return reports("openreports.io/v1alpha1", "reports") }
	until(t, "the other kind of reports is there", func() bool { return openReport().has("ReplicaSet", "web", "severity-exceeded", "fail") })
	if openReport().Source != "gatehouse" {
		t.Error("nobody made the report")
	}

	// Another policy: an unsigned image is wrong for one more reason, until it is signed.
	k.Must(t, http.MethodPost, cipPath, e2e.KeyPolicy("signed-by-us", g.Host+"/shop/**", key))
	until(t, "a policy is told of", func() bool {
		return policyReport().has("ReplicaSet", "web", "signature-missing", "fail") && events("ImageDenied") == 2
	})
	config := g.WriteFile(t, "signing-config.json", []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json"}`))
	g.Run(t, cosign, "sign", "--yes", "--key", "cosign.key", "--signing-config", config, g.Host+"/shop/app@"+digest)
	until(t, "a signature is told of", func() bool {
		r := policyReport()
		return !r.has("ReplicaSet", "web", "signature-missing", "fail") && r.has("ReplicaSet", "web", "severity-exceeded", "fail") && events("ImageDenied") == 3
	})

	// A restart tells nothing again, and writes nothing that is so already.
	version := policyReport().Metadata.ResourceVersion
	g.Stop()
	g.Start(t, flags...)
	second := e2e.Pod("second", g.Host+"/shop/app@"+digest)
	k.Must(t, http.MethodPost, "/api/v1/namespaces/gatehouse/pods", second) // ours is spared
	k.Must(t, http.MethodPost, "/api/v1/namespaces/shop/pods", second)
	until(t, "one more is told of", func() bool {
		return policyReport().has("Pod", "second", "severity-exceeded", "fail") && events("ImageDenied") == 4
	})
	if policyReport().Metadata.ResourceVersion == version {
		t.Error("the report has not been written")
	}
	if k.Call(t, http.MethodGet, "/apis/wgpolicyk8s.io/v1alpha2/namespaces/gatehouse/policyreports/gatehouse-running", nil).OK() {
		t.Error("our own namespace has a report")
	}

	// The policy goes: it may run again. What is deleted is not reported.
	k.Must(t, http.MethodDelete, "/apis/gatehouse.dev/v1alpha1/imagerules/no-flaws", nil)
	until(t, "both may run again", func() bool { return policyReport().Summary["pass"] == 2 && events("ImageAllowed") == 2 })
	for _, name := range []string{"web-1", "second"} {
		if s := k.Call(t, http.MethodGet, "/api/v1/namespaces/shop/pods/"+name, nil); !s.OK() {
			t.Errorf("%s was stopped: %s", name, s.Message)
		}
		k.Must(t, http.MethodDelete, "/api/v1/namespaces/shop/pods/"+name+"?gracePeriodSeconds=0", nil)
	}
	until(t, "there is nothing to report", func() bool {
		return !k.Call(t, http.MethodGet, "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/gatehouse-running", nil).OK() &&
			!k.Call(t, http.MethodGet, "/apis/openreports.io/v1alpha1/namespaces/shop/reports/gatehouse-running", nil).OK()
	})
}

package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// followed is a server that takes its policies from a cluster, with what its tests share.
type followed struct {
	*testing.T
	*e2e.Gatehouse
	k    *e2e.Kube
	free string // an image that a policy lets pass
	n    int    // of Pods so far
}

const (
	templatesPath = "/apis/templates.gatekeeper.sh/v1/constrainttemplates"
	rulesPath     = "/apis/gatehouse.dev/v1alpha1/imagerules"
	objectsPath   = "/api/v1/namespaces/gatehouse/"
)

// pod asks whether a Pod with the image and labels would be admitted.
func (f *followed) pod(image string, labels map[string]string) e2e.Status {
	f.Helper()
	f.n++
	pod := e2e.Pod(fmt.Sprintf("p%d", f.n), image)
	pod["metadata"].(map[string]any)["labels"] = labels
	return f.k.Call(f.T, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", pod)
}

func (f *followed) admitted(what, image string, labels map[string]string) {
	f.Helper()
	until(f.T, what, func() bool { return f.pod(image, labels).OK() })
}

func (f *followed) denied(what, image string, labels map[string]string, says string) {
	f.Helper()
	until(f.T, what+", because "+says, func() bool {
		s := f.pod(image, labels)
		return !s.OK() && strings.Contains(s.Message, says)
	})
}

func (f *followed) object(kind, name string, more map[string]any) map[string]any {
	o := map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name}}
	for k, v := range more {
		o[k] = v
	}
	return o
}

// TestClusterHoldsThePolicies: what policies are made of in a cluster counts from when it
// is there, and no longer than it is: keys in Secrets, policies in ConfigMaps,
// Gatekeeper's templates and constraints with what they look up, Rego modules, and names
// that the API server judges by itself.
func TestClusterHoldsThePolicies(t *testing.T) {
	tool.Need(t, "crane")
	tool.Need(t, "cosign")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	g.Run(t, tool.Need(t, "cosign"), "generate-key-pair")
	f := &followed{T: t, Gatehouse: g, k: k, free: g.Host + "/free/app@sha256:" + strings.Repeat("0a", 32)}
	g.Start(t, "--kubeconfig", k.Kubeconfig(), "--webhook-url", g.AdmissionURL)
	until(t, "the custom resources are served", func() bool {
		return k.Call(t, http.MethodGet, cipPath, nil).OK() && k.Call(t, http.MethodGet, templatesPath, nil).OK() && k.Call(t, http.MethodGet, rulesPath, nil).OK()
	})
	k.Must(t, http.MethodPost, cipPath, f.cip("free", g.Host+"/free/**", `{"name":"all","static":{"action":"pass"}}`, ""))
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	f.admitted("a Pod that a policy lets pass", f.free, nil)

	for name, test := range map[string]func(*followed){
		"a key in a Secret": keyInSecret, "a policy in a ConfigMap": policyInConfigMap, "a template and its constraint": gatekeeper,
		"a template that looks up": lookingUp, "a Rego module": regoModule, "a template that changes": changing,
		"a ConfigMap that cannot be read": brokenMap,
	} {
		t.Run(name, func(t *testing.T) {
			inner := *f
			inner.T = t
			test(&inner)
			f.n = inner.n
		})
	}
	t.Run("names without a server", func(t *testing.T) { // the last: the server ends
		inner := *f
		inner.T = t
		namesAlone(&inner)
	})
}

func (f *followed) cip(name, glob, authority, policy string) []byte {
	if policy != "" {
		policy = `,"policy":` + policy
	}
	return fmt.Appendf(nil, `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":%q},
		"spec":{"images":[{"glob":%q}],"authorities":[%s]%s}}`, name, glob, authority, policy)
}

// keyInSecret: the key of a policy lies in a Secret that comes after it, is changed, and
// goes.
func keyInSecret(f *followed) {
	_, signed := signedImage(f.T, f.Gatehouse, "keys/app")
	key, err := os.ReadFile(filepath.Join(f.Dir, "cosign.pub"))
	if err != nil {
		f.Fatal(err)
	}
	f.k.Must(f.T, http.MethodPost, cipPath, f.cip("key-in-secret", f.Host+"/keys/**", `{"name":"ours","key":{"secretRef":{"name":"signers"}}}`, ""))
	f.denied("before its Secret is there", signed, nil, "key-in-secret")
	f.admitted("other images meanwhile", f.free, nil)
	secret := func(pub []byte) map[string]any {
		encode := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
		return f.object("Secret", "signers", map[string]any{"data": map[string]string{
			"cosign.pub": encode(pub), "cosign.key": encode([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----")), "cosign.password": encode([]byte("hunter2")),
		}})
	}
	f.k.Must(f.T, http.MethodPost, objectsPath+"secrets", secret(key))
	f.admitted("with its Secret", signed, nil)
	until(f.T, "the status says so", func() bool {
		return strings.Contains(string(f.k.Must(f.T, http.MethodGet, cipPath+"/key-in-secret", nil).Body), `"reason":"Loaded"`)
	})
	f.k.Must(f.T, http.MethodPut, objectsPath+"secrets/signers", secret([]byte(otherKey)))
	f.denied("with the key of others", signed, nil, "key-in-secret")
	f.k.Must(f.T, http.MethodPut, objectsPath+"secrets/signers", secret(key))
	f.admitted("with its key again", signed, nil)
	f.k.Must(f.T, http.MethodDelete, objectsPath+"secrets/signers", nil)
	f.denied("without its Secret", signed, nil, "key-in-secret")
	f.k.Must(f.T, http.MethodDelete, cipPath+"/key-in-secret", nil)
}

const otherKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC
VqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==
-----END PUBLIC KEY-----
`

// policyInConfigMap: what a ClusterImagePolicy says over all authorities lies in a
// ConfigMap.
func policyInConfigMap(f *followed) {
	image := strings.Replace(f.free, "/free/", "/maps/", 1)
	text := func(answer string) map[string]any {
		return f.object("ConfigMap", "compliance", map[string]any{"data": map[string]string{"all.rego": "package sigstore\nisCompliant { " + answer + " }\n"}})
	}
	f.k.Must(f.T, http.MethodPost, objectsPath+"configmaps", text("1 == 1"))
	f.k.Must(f.T, http.MethodPost, cipPath, f.cip("in-map", f.Host+"/maps/**", `{"name":"all","static":{"action":"pass"}}`,
		`{"type":"rego","configMapRef":{"name":"compliance","key":"all.rego"}}`))
	f.admitted("by the ConfigMap", image, nil)
	f.k.Must(f.T, http.MethodPut, objectsPath+"configmaps/compliance", text("1 == 2"))
	f.denied("by the ConfigMap as it is now", image, nil, "in-map")
	f.k.Must(f.T, http.MethodDelete, cipPath+"/in-map", nil)
}

// template posts a ConstraintTemplate and waits until its constraints are served.
func (f *followed) template(kind, annotations, schema, rego string) (constraints string) {
	f.Helper()
	lower := strings.ToLower(kind)
	code, err := json.Marshal(rego)
	if err != nil {
		f.Fatal(err)
	}
	f.k.Must(f.T, http.MethodPost, templatesPath, fmt.Appendf(nil, `{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":%q,"annotations":{%s}},
		"spec":{"crd":{"spec":{"names":{"kind":%q},"validation":{"openAPIV3Schema":%s}}},"targets":[{"target":"admission.k8s.gatekeeper.sh","rego":%s}]}}`,
		lower, annotations, kind, schema, code))
	constraints = "/apis/constraints.gatekeeper.sh/v1beta1/" + lower
	until(f.T, "constraints of "+kind+" are served", func() bool { return f.k.Call(f.T, http.MethodGet, constraints, nil).OK() })
	return constraints
}

func constraintOf(kind, name, parameters string) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":%q,"metadata":{"name":%q},
		"spec":{"match":{"kinds":[{"apiGroups":[""],"kinds":["Pod"]}],"namespaces":["shop"]},"parameters":%s}}`, kind, name, parameters)
}

// gatekeeper: a template makes the kind of its constraints, with its schema; a
// constraint counts, its status says so, and a simulation knows of it.
func gatekeeper(f *followed) {
	constraints := f.template("NeedsLabel", "", `{"type":"object","properties":{"label":{"type":"string"}}}`, `package needslabel
violation[{"msg": msg}] {
	not input.review.object.metadata.labels[input.parameters.label]
	msg := sprintf("the label %v is missing", [input.parameters.label])
}`)
	if s := f.k.Call(f.T, http.MethodPost, constraints, constraintOf("NeedsLabel", "wrong", `{"label":7}`)); s.OK() || !strings.Contains(s.Message, "spec.parameters.label") {
		f.Errorf("parameters of the wrong sort: %d %s", s.Code, s.Message)
	}
	f.k.Must(f.T, http.MethodPost, constraints, constraintOf("NeedsLabel", "owner", `{"label":"owner"}`))
	f.denied("without the label", f.free, nil, "the label owner is missing")
	f.admitted("with the label", f.free, map[string]string{"owner": "ann"})
	for path, says := range map[string]string{templatesPath + "/needslabel": `"created":true`, constraints + "/owner": `"enforced":true`} {
		until(f.T, path+" says "+says, func() bool { return strings.Contains(string(f.k.Must(f.T, http.MethodGet, path, nil).Body), says) })
	}
	if owner := string(f.k.Must(f.T, http.MethodGet, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/needslabel.constraints.gatekeeper.sh", nil).Body); !strings.Contains(owner, `"ownerReferences":[{"apiVersion":"templates.gatekeeper.sh/v1"`) {
		f.Errorf("the definition does not go with its template: %s", owner)
	}
	// What was reviewed so far would have come out otherwise.
	if s := f.k.CreatePod(f.T, "shop", e2e.Pod("unlabelled", f.free)); s.OK() {
		f.Error("a Pod without the label was admitted")
	}
	softer := strings.Replace(string(constraintOf("NeedsLabel", "owner", `{"label":"owner"}`)), `"spec":{`, `"spec":{"enforcementAction":"dryrun",`, 1)
	out := f.Gatehouse.Run(f.T, f.Binary, "policy", "simulate", "--server", f.URL, "--since", "1h", f.WriteFile(f.T, "instead/owner.yaml", []byte(softer)))
	if !strings.Contains(out, "deny -> allow  Pod shop/unlabelled") {
		f.Errorf("simulate: %s", out)
	}
	f.k.Must(f.T, http.MethodDelete, constraints+"/owner", nil)
	f.admitted("without the constraint", f.free, nil)
}

// changing: a constraint that comes before its template is not known to the API server,
// and whoever tries again succeeds. A template that takes other parameters later is
// stored with a warning; its constraint denies what it matches until it fits, and says so.
func changing(f *followed) {
	const kind, rego = "Capped", "package capped\nviolation[{\"msg\": \"more than the cap\"}] {\n\tinput.parameters.cap == input.review.object.metadata.labels.size\n}"
	path := "/apis/constraints.gatekeeper.sh/v1beta1/capped"
	one := constraintOf(kind, "one", `{"cap":"big"}`)
	if s := f.k.Call(f.T, http.MethodPost, path, one); s.Code != http.StatusNotFound {
		f.Errorf("a constraint without its template: %d %s", s.Code, s.Message)
	}
	schema := func(of string) string { return `{"type":"object","properties":{"cap":{"type":"` + of + `"}}}` }
	f.template(kind, "", schema("string"), rego)
	var s e2e.Status
	until(f.T, "the constraint is taken when it is tried again", func() bool { s = f.k.Call(f.T, http.MethodPost, path, one); return s.OK() })
	f.denied("by the constraint", f.free, map[string]string{"size": "big"}, "more than the cap")
	f.admitted("what it says nothing of", f.free, nil)

	there := f.k.Must(f.T, http.MethodGet, templatesPath+"/capped", nil)
	s = f.k.Must(f.T, http.MethodPut, templatesPath+"/capped", []byte(strings.Replace(string(there.Body), `"cap":{"type":"string"}`, `"cap":{"type":"integer"}`, 1)))
	if !strings.Contains(fmt.Sprint(s.Warnings), "a constraint does not fit") {
		f.Errorf("whoever changes the template is not warned: %q", s.Warnings)
	}
	f.denied("with a template that takes others", f.free, nil, "Capped/one")
	f.denied("with the parameter", f.free, nil, "its parameters do not fit the template capped: spec.parameters.cap: must be a")
	until(f.T, "the status of the constraint says so", func() bool {
		body := string(f.k.Must(f.T, http.MethodGet, path+"/one", nil).Body)
		return strings.Contains(body, `"enforced":false`) && strings.Contains(body, "spec.parameters.cap: must be a")
	})
	until(f.T, "the template itself is fine", func() bool {
		return strings.Contains(string(f.k.Must(f.T, http.MethodGet, templatesPath+"/capped", nil).Body), `"created":true`)
	})
	until(f.T, "the constraint is taken with other parameters", func() bool {
		now := f.k.Must(f.T, http.MethodGet, path+"/one", nil)
		return f.k.Call(f.T, http.MethodPut, path+"/one", []byte(strings.Replace(string(now.Body), `"cap":"big"`, `"cap":7`, 1))).OK()
	})
	f.admitted("what it says nothing of, again", f.free, nil)
	until(f.T, "the status of the constraint is good again", func() bool {
		return strings.Contains(string(f.k.Must(f.T, http.MethodGet, path+"/one", nil).Body), `"enforced":true`)
	})
	f.k.Must(f.T, http.MethodDelete, path+"/one", nil)
}

// lookingUp: what a template looks up is what the cluster has now.
func lookingUp(f *followed) {
	constraints := f.template("QuietTeam", `"metadata.gatekeeper.sh/requires-sync-data":"[[{\"groups\":[\"\"],\"versions\":[\"v1\"],\"kinds\":[\"Namespace\"]}]]"`, `{"type":"object"}`, `package quietteam
violation[{"msg": msg}] {
	data.inventory.cluster["v1"]["Namespace"][name].metadata.labels["freeze"]
	msg := sprintf("the namespace %v is frozen", [name])
}`)
	f.k.Must(f.T, http.MethodPost, constraints, constraintOf("QuietTeam", "freeze", `{}`))
	f.k.Namespace(f.T, "elsewhere", map[string]string{"freeze": "yes"})
	f.denied("while another namespace is frozen", f.free, nil, "the namespace elsewhere is frozen")
	thawed := f.k.Must(f.T, http.MethodGet, "/api/v1/namespaces/elsewhere", nil)
	f.k.Must(f.T, http.MethodPut, "/api/v1/namespaces/elsewhere", []byte(strings.Replace(string(thawed.Body), `"freeze":"yes"`, `"thawed":"yes"`, 1)))
	f.admitted("since none is", f.free, nil)
	f.k.Must(f.T, http.MethodDelete, constraints+"/freeze", nil)
	// A constraint of everything judges policies, too, by the same knowledge of the cluster.
	f.k.Must(f.T, http.MethodPost, constraints, []byte(`{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":"QuietTeam","metadata":{"name":"everything"}}`))
	until(f.T, "it counts", func() bool {
		return strings.Contains(string(f.k.Must(f.T, http.MethodGet, constraints+"/everything", nil).Body), `"enforced":true`)
	})
	f.admitted("since none is, by both", f.free, nil)
	f.k.Must(f.T, http.MethodPost, constraints, constraintOf("QuietTeam", "another", `{}`))
	f.k.Must(f.T, http.MethodDelete, constraints+"/another", nil)
	f.k.Must(f.T, http.MethodDelete, constraints+"/everything", nil)
}

// regoModule: the entries of a labelled ConfigMap are policies.
func regoModule(f *followed) {
	const rego = "package nightly\nimport rego.v1\ndeny contains msg if {\n\tinput.request.object.metadata.labels.channel == \"nightly\"\n\tmsg := \"nightly builds do not run here\"\n}\n"
	o := f.object("ConfigMap", "modules", map[string]any{"data": map[string]string{"nightly.rego": rego, "readme.txt": "no policy"}})
	o["metadata"] = map[string]any{"name": "modules", "labels": map[string]string{"gatehouse.dev/policies": "true"}}
	f.k.Must(f.T, http.MethodPost, objectsPath+"configmaps", o)
	f.denied("by the module", f.free, map[string]string{"channel": "nightly"}, "nightly builds do not run here")
	f.admitted("others", f.free, nil)
	f.k.Must(f.T, http.MethodDelete, objectsPath+"configmaps/modules", nil)
	f.admitted("without the module", f.free, map[string]string{"channel": "nightly"})
}

// policies is the server's own list of them.
func (f *followed) policies() string {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodGet, f.URL+"/api/v1/policies", nil)
	if err != nil {
		f.Fatal(err)
	}
	req.SetBasicAuth("admin", e2e.AdminPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		f.Fatalf("the list of policies: %d %v", resp.StatusCode, err)
	}
	return string(b)
}

// brokenMap: a ConfigMap with a policy that cannot be read denies everything. The denial
// names it, and so does the list of policies; an Event says it where people look.
func brokenMap(f *followed) {
	o := f.object("ConfigMap", "half", map[string]any{"data": map[string]string{"half.rego": "package half\ndeny contains"}})
	o["metadata"] = map[string]any{"name": "half", "labels": map[string]string{"gatehouse.dev/policies": "true"}}
	f.k.Must(f.T, http.MethodPost, objectsPath+"configmaps", o)
	f.denied("everything", f.free, nil, "cluster/ConfigMap/half/half.rego:")
	until(f.T, "an Event of the ConfigMap says why", func() bool {
		for _, e := range items(f.T, f.k.Must(f.T, http.MethodGet, objectsPath+"events?fieldSelector=involvedObject.kind%3DConfigMap,involvedObject.name%3Dhalf", nil)) {
			message, _ := e["message"].(string)
			if e["type"] == "Warning" && e["reason"] == "PolicyInvalid" && strings.Contains(message, "half.rego") {
				return true
			}
		}
		return false
	})
	if listed := f.policies(); !strings.Contains(listed, `"cluster/ConfigMap/half/half.rego"`) || !strings.Contains(listed, `"problems": [`) {
		f.Errorf("the list of policies does not say what is wrong: %s", listed)
	}
	f.k.Must(f.T, http.MethodDelete, objectsPath+"configmaps/half", nil)
	f.admitted("without the ConfigMap", f.free, nil)
}

// namesAlone: what an ImageRule says of names holds without a server and without its
// webhook; what a dry run says does not.
func namesAlone(f *followed) {
	rule := func(name, spec string) {
		f.k.Must(f.T, http.MethodPost, rulesPath, []byte(`{"apiVersion":"gatehouse.dev/v1alpha1","kind":"ImageRule","metadata":{"name":"`+name+`"},"spec":`+spec+`}`))
	}
	rule("trusted", `{"images":[{"glob":"**"}],"registries":{"allow":["`+f.Host+`"],"deny":["`+f.Host+`/free/old/**"]}}`)
	rule("by-digest", `{"images":[{"glob":"`+f.Host+`/free/**"}],"requireDigest":true}`)
	rule("dry", `{"mode":"dryRun","images":[{"glob":"**"}],"registries":{"deny":["`+f.Host+`/**"]}}`)
	fallback := "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/gatehouse-fallback"
	until(f.T, "the fallback policy speaks of all that is said of names", func() bool {
		s := f.k.Call(f.T, http.MethodGet, fallback, nil)
		return s.OK() && strings.Contains(string(s.Body), "(trusted)") && strings.Contains(string(s.Body), "(by-digest)")
	})
	f.Stop()
	for _, kind := range []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations"} {
		f.k.Call(f.T, http.MethodDelete, "/apis/admissionregistration.k8s.io/v1/"+kind+"/gatehouse", nil)
	}
	digest := f.free[strings.Index(f.free, "@"):]
	f.admitted("a trusted image by its digest", f.free, nil)
	for image, says := range map[string]string{
		f.Host + "/free/app:v1":              "must be given by its digest (by-digest)",
		f.Host + "/free/old/app" + digest:    "is denied by name (trusted)",
		"registry.example/free/app" + digest: "is of no registry that is trusted (trusted)",
	} {
		f.denied(image, image, nil, says)
	}
}

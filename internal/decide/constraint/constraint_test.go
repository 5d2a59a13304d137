package constraint_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// document parses one YAML document.
func document(t testing.TB, text string) *manifest.Document {
	t.Helper()
	docs, problems := manifest.Split("t.yaml", []byte(text))
	if len(docs) != 1 || len(problems) > 0 {
		t.Fatalf("%d documents, %v", len(docs), problems)
	}
	if p := docs[0].Parse(); p != nil {
		t.Fatal(p)
	}
	return &docs[0]
}

// template is a template of the kind Any around code, which is indented by two.
func template(code string) string {
	return "apiVersion: templates.gatekeeper.sh/v1\nkind: ConstraintTemplate\nmetadata: {name: any}\nspec:\n  crd: {spec: {names: {kind: Any}}}\n" +
		"  targets:\n  - target: admission.k8s.gatekeeper.sh\n" + code
}

const always = `    rego: |
      package any
      violation[{"msg": "no"}] { true }
`

// policy makes a constraint any with this spec, in JSON.
func policy(t testing.TB, code, spec string, more ...string) *constraint.Policy {
	t.Helper()
	l := constraint.NewLibrary(constraint.PointWebhook)
	for _, text := range append([]string{template(code)}, more...) {
		if bad := decide.Errors(l.Add(document(t, text))); len(bad) > 0 {
			t.Fatal(bad)
		}
	}
	p, problems := l.Constraint(document(t, "apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Any\nmetadata: {name: any}\nspec: "+spec+"\n"))
	if bad := decide.Errors(problems); len(bad) > 0 {
		t.Fatal(bad)
	}
	return p
}

func request(t testing.TB, object string) gatehouse.Request {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	return gatehouse.Request{UID: "1", Operation: "CREATE", Object: b, Now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
}

// TestMatch is a table of what a constraint can ask of an object.
func TestMatch(t *testing.T) {
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web, tier: front}}}`
	const generated = `{apiVersion: v1, kind: Pod, metadata: {generateName: web-, namespace: shop}}`
	const role = `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: admin}}`
	const namespace = `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {strict: "true"}}}`
	for _, tt := range []struct {
		match, object string
		want          bool
	}{
		{`{}`, pod, true},
		{`{kinds: [{apiGroups: [""], kinds: [Pod]}]}`, pod, true},
		{`{kinds: [{apiGroups: ["*"], kinds: ["*"]}]}`, pod, true},
		{`{kinds: [{kinds: [Pod]}]}`, pod, true},
		{`{kinds: [{apiGroups: [""]}]}`, pod, true},
		{`{kinds: [{apiGroups: [apps], kinds: [Pod]}]}`, pod, false},
		{`{kinds: [{apiGroups: [apps], kinds: [Deployment]}, {apiGroups: [""], kinds: [Pod]}]}`, pod, true},
		{`{kinds: [{apiGroups: [""], kinds: [pod]}]}`, pod, false},
		{`{scope: Namespaced}`, pod, true},
		{`{scope: Cluster}`, pod, false},
		{`{scope: "*"}`, pod, true},
		{`{scope: Cluster}`, role, true},
		{`{scope: Namespaced}`, role, false},
		{`{scope: Cluster}`, namespace, true},
		{`{namespaces: [shop]}`, pod, true},
		{`{namespaces: [other, "sh*"]}`, pod, true},
		{`{namespaces: ["*op"]}`, pod, true},
		{`{namespaces: ["*ho*"]}`, pod, true},
		{`{namespaces: [sho]}`, pod, false},
		{`{namespaces: [shop]}`, role, true},
		{`{namespaces: [shop]}`, namespace, true},
		{`{namespaces: [other]}`, namespace, false},
		{`{excludedNamespaces: [shop]}`, pod, false},
		{`{excludedNamespaces: ["kube-*"]}`, pod, true},
		{`{excludedNamespaces: [shop]}`, role, true},
		{`{excludedNamespaces: [shop]}`, namespace, false},
		{`{labelSelector: {}}`, pod, true},
		{`{labelSelector: {matchLabels: {app: web}}}`, pod, true},
		{`{labelSelector: {matchLabels: {app: web, tier: back}}}`, pod, false},
		{`{labelSelector: {matchExpressions: [{key: app, operator: In, values: [db, web]}]}}`, pod, true},
		{`{labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db, web]}]}}`, pod, false},
		{`{labelSelector: {matchExpressions: [{key: none, operator: NotIn, values: [db]}]}}`, pod, true},
		{`{labelSelector: {matchExpressions: [{key: app, operator: Exists}, {key: none, operator: DoesNotExist}]}}`, pod, true},
		{`{labelSelector: {matchExpressions: [{key: none, operator: Exists}]}}`, pod, false},
		{`{namespaceSelector: {matchLabels: {team: a}}}`, pod, true},
		{`{namespaceSelector: {matchLabels: {team: b}}}`, pod, false},
		{`{namespaceSelector: {matchLabels: {team: b}}}`, role, true},
		{`{namespaceSelector: {matchLabels: {strict: "true"}}}`, namespace, true},
		{`{namespaceSelector: {matchLabels: {strict: "false"}}}`, namespace, false},
		{`{name: web-1}`, pod, true},
		{`{name: "web-*"}`, pod, true},
		{`{name: "*-1"}`, pod, true},
		{`{name: web}`, pod, false},
		{`{name: "web-*"}`, generated, true},
		{`{name: "db-*"}`, generated, false},
		{`{name: "*-1"}`, generated, false},
		{`{source: Original}`, pod, true},
		{`{source: Generated}`, pod, false},
		{`{source: All}`, pod, true},
	} {
		req := request(t, tt.object)
		req.NamespaceObject = []byte(`{"kind":"Namespace","metadata":{"name":"shop","labels":{"team":"a"}}}`)
		got, err := policy(t, always, `{match: `+tt.match+`}`).Violations(t.Context(), req)
		if err != nil || (len(got) == 1) != tt.want {
			t.Errorf("%s of %s: %v, %v", tt.match, tt.object, got, err)
		}
	}
}

// TestMatchesWhatWas: an object that is changed out of a constraint's reach is still
// in it, and so is one that is deleted.
func TestMatchesWhatWas(t *testing.T) {
	p := policy(t, always, `{match: {labelSelector: {matchLabels: {a: b}}}}`)
	req := request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)
	req.Operation, req.OldObject = "UPDATE", request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {a: b}}}`).Object
	if got, err := p.Violations(t.Context(), req); err != nil || len(got) != 1 {
		t.Errorf("an update: %v, %v", got, err)
	}
	req.Operation, req.Object = "DELETE", nil
	if got, err := p.Violations(t.Context(), req); err != nil || len(got) != 1 {
		t.Errorf("a deletion: %v, %v", got, err)
	}
	only := policy(t, "    operations: [CREATE]\n"+always, `{}`)
	if got, err := only.Violations(t.Context(), req); err != nil || len(got) != 0 {
		t.Errorf("a deletion for a template of creations: %v, %v", got, err)
	}
}

// TestExempt: namespaces that Config takes out are out of reach.
func TestExempt(t *testing.T) {
	const config = "apiVersion: config.gatekeeper.sh/v1alpha1\nkind: Config\nmetadata: {name: config}\nspec: {match: [{excludedNamespaces: [\"kube-*\"], processes: [%s]}]}\n"
	for process, want := range map[string]int{`"*"`: 0, "webhook": 0, "audit": 1, "mutation-webhook": 1} {
		p := policy(t, always, `{}`, fmt.Sprintf(config, process))
		got, err := p.Violations(t.Context(), request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: kube-system}}`))
		if err != nil || len(got) != want {
			t.Errorf("%s: %v, %v", process, got, err)
		}
	}
}

// TestInventory: a template finds what the cluster holds, in the latest snapshot, and
// denies where the kind that it looks up is not there.
func TestInventory(t *testing.T) {
	const code = `    rego: |
      package any
      violation[{"msg": msg}] {
        other := data.inventory.namespace[ns]["networking.k8s.io/v1"]["Ingress"][name]
        other.spec.host == input.review.object.spec.host
        [ns, name] != [input.review.namespace, input.review.name]
        msg := sprintf("%v is that of %v/%v", [other.spec.host, ns, name])
      }
      violation[{"msg": msg}] {
        class := data.inventory.cluster["networking.k8s.io/v1"].IngressClass[name]
        class.spec.forbidden
        msg := sprintf("the class %v is forbidden", [name])
      }
`
	p := policy(t, code, `{}`)
	req := request(t, `{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: shop}, spec: {host: x.example}}`)
	ingress := gatehouse.ObjectKind{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}
	class := gatehouse.ObjectKind{Group: "networking.k8s.io", Version: "v1", Kind: "IngressClass"}
	object := func(kind gatehouse.ObjectKind, ns, name, spec string) *gatehouse.ClusterObject {
		return &gatehouse.ClusterObject{Kind: kind, Namespace: ns, Name: name, Object: fmt.Appendf(nil, `{"spec":%s}`, spec)}
	}
	both := []gatehouse.ObjectKind{ingress, class}
	first := []*gatehouse.ClusterObject{object(ingress, "shop", "a", `{"host":"x.example"}`), object(ingress, "other", "b", `{"host":"y.example"}`)}
	for i, tt := range []struct {
		inventory *gatehouse.ClusterInventory
		want      []string
		says      string
	}{
		{nil, nil, "looks up every Ingress of the cluster, which are not known"},
		{&gatehouse.ClusterInventory{Kinds: both[:1]}, nil, "looks up every IngressClass of the cluster"},
		{&gatehouse.ClusterInventory{Kinds: both, Objects: first}, nil, ""},
		{&gatehouse.ClusterInventory{Kinds: both, Objects: append(slices.Clone(first), object(ingress, "other", "c", `{"host":"x.example"}`))}, []string{"x.example is that of other/c"}, ""},
		{&gatehouse.ClusterInventory{Kinds: both, Objects: append(slices.Clone(first), object(class, "", "c", `{"forbidden":true}`))}, []string{"the class c is forbidden"}, ""},
		{&gatehouse.ClusterInventory{Kinds: both, Objects: append(slices.Clone(first), &gatehouse.ClusterObject{Kind: class, Name: "bad", Object: []byte("{")})}, nil, ""},
		{&gatehouse.ClusterInventory{Kinds: both, Objects: first}, nil, ""},
	} {
		req.Inventory = tt.inventory
		got, err := p.Violations(t.Context(), req)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.says == "") || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
	l := constraint.NewLibrary(constraint.PointWebhook)
	l.Add(document(t, template(code)))
	if got := l.Lookups(); len(got) != 0 {
		t.Errorf("a template that no constraint uses looks up %v", got)
	}
	l.Constraint(document(t, "apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Any\nmetadata: {name: any}\n"))
	if got := l.Lookups(); !slices.Equal(got, both) {
		t.Errorf("it looks up %v", got)
	}
}

// TestLookupsAreSaid: the annotation goes before what the code shows.
func TestLookupsAreSaid(t *testing.T) {
	const said = `[[{"groups": ["extensions"], "versions": ["v1beta1"], "kinds": ["Ingress"]}, {"groups": ["networking.k8s.io"], "versions": ["v1"], "kinds": ["Ingress"]}]]`
	for i, text := range []string{said, `"` + said + `"`, "\n  " + said + "\n", said} {
		name := "requires-sync-data"
		if i == 3 {
			name = "requiresSyncData" // as templates had it first
		}
		doc := strings.Replace(template("    rego: |\n      package any\n      violation[{\"msg\": \"x\"}] { data.inventory.namespace[_][_].Ingress[_] }\n"),
			"{name: any}", fmt.Sprintf("{name: any, annotations: {metadata.gatekeeper.sh/%s: %q}}", name, text), 1)
		l := constraint.NewLibrary(constraint.PointWebhook)
		if problems := l.Add(document(t, doc)); len(problems) > 0 {
			t.Fatal(problems)
		}
		p, _ := l.Constraint(document(t, "apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Any\nmetadata: {name: any}\n"))
		req := request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)
		req.Inventory = &gatehouse.ClusterInventory{Kinds: []gatehouse.ObjectKind{{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"}}}
		if got, err := p.Violations(t.Context(), req); err != nil || len(got) != 0 {
			t.Errorf("one of the two is there: %v, %v", got, err)
		}
		req.Inventory = &gatehouse.ClusterInventory{Kinds: []gatehouse.ObjectKind{{Version: "v1", Kind: "Pod"}}}
		if _, err := p.Violations(t.Context(), req); err == nil {
			t.Error("none of the two is there, and nobody minds")
		}
		if got := l.Lookups(); len(got) != 2 {
			t.Errorf("it looks up %v", got)
		}
	}
}

// TestFaults: what a template cannot answer denies, unless its constraint never does,
// and is never silent.
func TestFaults(t *testing.T) {
	const spins = `    rego: |
      package any
      violation[{"msg": "x"}] { numbers.range(1, 3000)[a]; numbers.range(1, 3000)[b]; numbers.range(1, 3000)[c]; a + b + c == 0 }
`
	const conflict = `    rego: |
      package any
      f(x) = 1 { true }
      f(x) = 2 { true }
      violation[{"msg": "x"}] { f(1) == 1 }
`
	cel := func(policy string) string {
		return "    code:\n    - engine: K8sNativeValidation\n      source:\n        failurePolicy: " + policy + "\n        validations: [{expression: object.not.there == 1}]\n"
	}
	for _, tt := range []struct {
		code, spec string
		want       gatehouse.Verdict
		says       string
	}{
		{spins, `{}`, gatehouse.Deny, "could not be evaluated in time"},
		{conflict, `{}`, gatehouse.Deny, "could not be evaluated: "},
		{conflict, `{enforcementAction: warn}`, gatehouse.Warn, "could not be evaluated: "},
		{conflict, `{enforcementAction: dryrun}`, gatehouse.Warn, "could not be evaluated: "},
		{cel("Fail"), `{}`, gatehouse.Deny, "resulted in error: no such key: not"},
		{cel("Ignore"), `{}`, gatehouse.Warn, "failurePolicy is Ignore: no such key: not"},
		{"    rego: |\n      package any\n      violation[{\"msg\": 1}] { true }\n", `{}`, gatehouse.Deny, "has no text msg"},
		{"    rego: |\n      package any\n      violation[\"text\"] { true }\n", `{}`, gatehouse.Deny, "has no text msg"},
		{"    rego: |\n      package any\n      violation = true\n", `{}`, gatehouse.Deny, "has no text msg"},
	} {
		p := policy(t, tt.code, tt.spec)
		set := decide.PolicySet{Complete: true, Policies: []decide.Policy{p}}
		d := decide.Decide(t.Context(), set, request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`))
		if d.Verdict != tt.want || !strings.Contains(d.Reasons[0].Message, tt.says) {
			t.Errorf("%s %s: %v %+v, want %v %s", tt.code, tt.spec, d.Verdict, d.Reasons, tt.want, tt.says)
		}
	}
}

// TestEndlessExpansion ends.
func TestEndlessExpansion(t *testing.T) {
	const loop = "apiVersion: expansion.gatekeeper.sh/v1beta1\nkind: ExpansionTemplate\nmetadata: {name: loop}\nspec:\n" +
		"  applyTo: [{groups: [\"\"], versions: [v1], kinds: [Pod]}]\n  templateSource: spec\n  generatedGVK: {version: v1, kind: Pod}\n"
	p := policy(t, always, `{}`, loop)
	deep := `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: ` + strings.Repeat("{spec: ", 40) + "{}" + strings.Repeat("}", 40) + "}"
	if _, err := p.Violations(t.Context(), request(t, deep)); err == nil {
		t.Error("there is no end to it")
	}
	if _, err := p.Violations(t.Context(), request(t, `{apiVersion: v1, kind: Pod, metadata: {name: a}}`)); err == nil || !strings.Contains(err.Error(), "has no spec") {
		t.Errorf("a Pod without what it brings about: %v", err)
	}
}

// TestReview: rules see the request as the API server sent it.
func TestReview(t *testing.T) {
	const code = `    rego: |
      package any
      violation[{"msg": msg}] {
        r := input.review
        msg := json.marshal([r.userInfo.extra.reason, r.dryRun, r.options.kind, r.requestKind.kind, r.oldObject, r.object.metadata.name, r.subResource])
      }
`
	req := request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)
	req.Review = []byte(`{"uid":"1","kind":{"group":"","version":"v1","kind":"ConfigMap"},"requestKind":{"kind":"X"},"subResource":"scale","operation":"CREATE",
		"userInfo":{"extra":{"reason":["r"]}},"dryRun":true,"options":{"kind":"CreateOptions"},"object":{"ignored":true}}`)
	got, err := policy(t, code, `{}`).Violations(t.Context(), req)
	if want := `[["r"],true,"CreateOptions","X",null,"a","scale"]`; err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("%v, %v", got, err)
	}
	req.Review = []byte(`[]`)
	if _, err := policy(t, code, `{}`).Violations(t.Context(), req); err == nil {
		t.Error("a request that is a list is taken")
	}
}

// TestRegoV1: a template may say that it is written in Rego v1.
func TestRegoV1(t *testing.T) {
	p := policy(t, "    code:\n    - engine: Rego\n      source:\n        version: v1\n        rego: |\n          package any\n          violation contains {\"msg\": msg} if {\n            some k in object.keys(input.parameters)\n            msg := k\n          }\n",
		`{parameters: {a: 1, b: 2}}`)
	if got, err := p.Violations(t.Context(), request(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`)); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func documents(f *testing.F) (out []string) {
	for _, pattern := range []string{"../load/testdata/constraint*.txtar", "../testdata/constraint*.txtar"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatal("no seeds")
		}
		for _, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			for _, part := range txtar.Parse(data).Files {
				if strings.HasSuffix(part.Name, ".yaml") {
					out = append(out, string(part.Data))
				}
			}
		}
	}
	return out
}

// FuzzDocuments: whatever the documents say, reading them ends with policies or with
// problems that have a place, and asking those ends too.
func FuzzDocuments(f *testing.F) {
	for _, text := range documents(f) {
		f.Add([]byte(text))
	}
	object, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "a", "namespace": "b"}, "spec": map[string]any{"containers": []any{}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := constraint.NewLibrary(constraint.PointWebhook)
		docs, _ := manifest.Split("f.yaml", data)
		var constraints []*manifest.Document
		for i := range docs {
			if docs[i].Parse() != nil || !constraint.Reads(docs[i].Field("apiVersion")) {
				continue
			}
			if constraint.IsConstraint(docs[i].Field("apiVersion")) {
				constraints = append(constraints, &docs[i])
				continue
			}
			for _, p := range l.Add(&docs[i]) {
				if p.Message == "" || p.Path == "" || p.Line == 0 {
					t.Errorf("a problem without a place: %+v", p)
				}
			}
		}
		for _, doc := range constraints {
			p, problems := l.Constraint(doc)
			if (p == nil) != (len(decide.Wrong(problems)) > 0) {
				t.Errorf("a policy with problems, or none without: %v", problems)
			}
			if p != nil {
				_ = p.Judge(t.Context(), gatehouse.Request{Operation: "CREATE", Object: object})
			}
		}
	})
}

// FuzzObjects: whatever the object, a constraint answers.
func FuzzObjects(f *testing.F) {
	for _, seed := range []string{`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"}}}`, `{"kind":"Namespace"}`, `{"metadata":[]}`, `{}`, `[]`} {
		f.Add([]byte(seed), []byte(`{"uid":"1","kind":{}}`))
	}
	code := "    code:\n    - engine: K8sNativeValidation\n      source:\n        validations: [{expression: \"has(object.metadata) && object.metadata.name != ''\", messageExpression: \"string(object.kind)\"}]\n"
	cel := policy(f, code, `{match: {namespaceSelector: {}, labelSelector: {matchLabels: {a: b}}, name: "a*"}}`)
	rego := policy(f, strings.Replace(always, "true", "input.review.object.metadata.labels[_] != 1", 1), `{}`)
	f.Fuzz(func(t *testing.T, object, review []byte) {
		for _, p := range []*constraint.Policy{cel, rego} {
			if j := p.Judge(t.Context(), gatehouse.Request{Operation: "UPDATE", Object: object, OldObject: object, Review: review, NamespaceObject: object}); j.Outcome == decide.Unjudged {
				t.Error("no judgement")
			}
		}
	})
}

// BenchmarkDecide judges one Pod by fifty constraints, of which each second matches.
func BenchmarkDecide(b *testing.B) {
	for name, code := range map[string]string{
		"rego": "    rego: |\n      package any\n      violation[{\"msg\": msg}] {\n        c := input.review.object.spec.containers[_]\n        not startswith(c.image, input.parameters.prefix)\n        msg := c.image\n      }\n",
		"cel":  "    code:\n    - engine: K8sNativeValidation\n      source:\n        validations: [{expression: \"variables.anyObject.spec.containers.all(c, c.image.startsWith(variables.params.prefix))\"}]\n",
	} {
		b.Run(name, func(b *testing.B) {
			l := constraint.NewLibrary(constraint.PointWebhook)
			if bad := decide.Errors(l.Add(document(b, template(code)))); len(bad) > 0 {
				b.Fatal(bad)
			}
			set := decide.PolicySet{Complete: true}
			for i := range 50 {
				kind := []string{"Pod", "Service"}[i%2]
				p, problems := l.Constraint(document(b, fmt.Sprintf("apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Any\nmetadata: {name: c%d}\nspec: {match: {kinds: [{apiGroups: [\"\"], kinds: [%s]}]}, parameters: {prefix: registry.example/}}\n", i, kind)))
				if p == nil {
					b.Fatal(problems)
				}
				set.Policies = append(set.Policies, p)
			}
			req := request(b, `{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: b, labels: {app: web}}, spec: {containers: [{name: a, image: "registry.example/a:1", env: [{name: x, value: y}]}, {name: b, image: "registry.example/b:1", resources: {limits: {memory: 1Gi}}}]}}`)
			req.Images = set.Images(req)
			b.ReportAllocs()
			for b.Loop() {
				if d := decide.Decide(b.Context(), set, req); d.Verdict != gatehouse.Allow {
					b.Fatal(d.Reasons)
				}
			}
		})
	}
}

// BenchmarkInventory looks one object up among ten thousand.
func BenchmarkInventory(b *testing.B) {
	p := policy(b, "    rego: |\n      package any\n      violation[{\"msg\": \"x\"}] {\n        other := data.inventory.namespace[input.review.namespace][\"v1\"].ConfigMap[input.review.name]\n        other.data.key == \"never\"\n      }\n", `{}`)
	kind := gatehouse.ObjectKind{Version: "v1", Kind: "ConfigMap"}
	inv := &gatehouse.ClusterInventory{Kinds: []gatehouse.ObjectKind{kind}}
	for i := range 10_000 {
		inv.Objects = append(inv.Objects, &gatehouse.ClusterObject{
			Kind: kind, Namespace: fmt.Sprintf("n%d", i%100), Name: fmt.Sprintf("c%d", i),
			Object: fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c%d","labels":{"a":"b"}},"data":{"key":"value","other":"%d"}}`, i, i),
		})
	}
	req := request(b, `{apiVersion: v1, kind: ConfigMap, metadata: {name: c0, namespace: n0}}`)
	req.Inventory = inv
	if _, err := p.Violations(b.Context(), req); err != nil { // it is converted once
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Violations(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRequestWithoutReview: what is known of a request is there although the API server's
// own words are not.
func TestRequestWithoutReview(t *testing.T) {
	p := policy(t, `    rego: |
      package any
      violation[{"msg": msg}] {
        r := input.review
        msg := sprintf("%v %v/%v %v", [r.resource.resource, r.resource.version, r.subResource, r.dryRun])
      }
`, `{}`)
	req := request(t, `{apiVersion: v1, kind: Pod, metadata: {name: a}}`)
	req.Resource, req.SubResource, req.DryRun = gatehouse.ObjectResource{Version: "v1", Resource: "pods"}, "ephemeralcontainers", true
	if got, err := p.Violations(t.Context(), req); err != nil || len(got) != 1 || got[0] != "pods v1/ephemeralcontainers true" {
		t.Errorf("%+v, %v", got, err)
	}
}

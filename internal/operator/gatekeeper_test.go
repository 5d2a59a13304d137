package operator

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
)

const templateText = `{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":"k8sowner","uid":"u","generation":3},
	"spec":{"crd":{"spec":{"names":{"kind":"K8sOwner","shortNames":["own"]},"validation":{"openAPIV3Schema":SCHEMA}}}}}`

func parametersOf(t *testing.T, schema string) string {
	t.Helper()
	text := []byte(templateText)
	text = []byte(string(text[:len(text)-len(`SCHEMA}}}}}`)]) + schema + `}}}}}`)
	d, ok := ConstraintDefinition(objectOf(t, string(text)), constraint.SchemaConstraint())
	if !ok {
		t.Fatalf("no definition for %s", text)
	}
	b, err := json.Marshal(d.OpenAPI["properties"].(map[string]any)["spec"].(map[string]any)["properties"].(map[string]any)["parameters"])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestConstraintsHaveTheSchemaOfTheirTemplate: in the form that the API server takes.
func TestConstraintsHaveTheSchemaOfTheirTemplate(t *testing.T) {
	const kept = `"x-kubernetes-preserve-unknown-fields":true`
	for schema, want := range map[string]string{
		`null`: `{"type":"object",` + kept + `}`,
		`{"type":"object","properties":{"labels":{"type":"array","items":{"type":"string"}}},"required":["labels"]}`:                                                   `{"properties":{"labels":{"items":{"type":"string"},"type":"array"}},"required":["labels"],"type":"object"}`,
		`{"properties":{"a":{"items":{"type":"string"}},"b":{},"c":{"additionalProperties":{"type":"integer"}}}}`:                                                      `{"properties":{"a":{"items":{"type":"string"},"type":"array"},"b":{` + kept + `},"c":{"additionalProperties":{"type":"integer"},"type":"object",` + kept + `}},"type":"object",` + kept + `}`,
		`{"type":"object","properties":{"p":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"}]},"q":{"anyOf":[{"type":"string"}]},"r":{"type":"array"}}}`: `{"properties":{"p":{"x-kubernetes-int-or-string":true},"q":{` + kept + `},"r":{` + kept + `}},"type":"object"}`,
		`{"type":"object"}`: `{"type":"object",` + kept + `}`,
	} {
		if diff := cmp.Diff(want, parametersOf(t, schema)); diff != "" {
			t.Errorf("%s: %s", schema, diff)
		}
	}
}

func TestDefinitionOfConstraints(t *testing.T) {
	o := objectOf(t, `{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":"k8sowner","uid":"u"},
		"spec":{"crd":{"spec":{"names":{"kind":"K8sOwner","shortNames":["own"]}}}}}`)
	d, ok := ConstraintDefinition(o, constraint.SchemaConstraint())
	if !ok {
		t.Fatal("no definition")
	}
	crd := d.Object()
	if crd.GetName() != "k8sowner.constraints.gatekeeper.sh" || !ours(crd) || len(crd.GetOwnerReferences()) != 1 || crd.GetOwnerReferences()[0].UID != "u" {
		t.Errorf("the definition is %s", toJSON(t, crd))
	}
	o.SetName("other") // Gatekeeper refuses such a template, too
	if _, ok := ConstraintDefinition(o, constraint.SchemaConstraint()); ok {
		t.Error("a template whose name is not its kind has a definition")
	}
}

// TestConstraintsDoNotHideOtherPolicies: whoever names a kind of constraints as one of
// ours gets no other policy out of the way.
func TestConstraintsDoNotHideOtherPolicies(t *testing.T) {
	a := objectOf(t, `{"apiVersion":"gatehouse.dev/v1alpha1","kind":"ImageRule","metadata":{"name":"a"}}`)
	b := objectOf(t, `{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":"ImageRule","metadata":{"name":"a"}}`)
	if documentPath(a) == documentPath(b) || documentPath(a) != "cluster/ImageRule/a" {
		t.Errorf("%s and %s", documentPath(a), documentPath(b))
	}
}

// TestGatekeeperStatus: what waits for a template or a constraint sees what it waits for.
func TestGatekeeperStatus(t *testing.T) {
	o := objectOf(t, `{"apiVersion":"templates.gatekeeper.sh/v1","kind":"ConstraintTemplate","metadata":{"name":"k8sowner","uid":"u","generation":3}}`)
	write := func(s Status) (patch map[string]any, changed bool) {
		patch, changed = s.gatekeeperStatus(o)
		b, err := json.Marshal(patch) // as the API server gives it back
		if err != nil {
			t.Fatal(err)
		}
		o.Object["status"] = objectOf(t, `{"kind":"x","apiVersion":"v1","status":`+string(b)+`}`).Object["status"]
		return patch, changed
	}
	if patch, changed := write(Status{}); !changed || patch["created"] != true {
		t.Errorf("%v, %v", patch, changed)
	}
	if _, changed := write(Status{}); changed {
		t.Error("the same again is a change")
	}
	if patch, changed := write(Status{Problem: "no"}); !changed || patch["created"] != false {
		t.Errorf("%v, %v", patch, changed)
	}
	o = objectOf(t, `{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":"K8sOwner","metadata":{"name":"k","uid":"u","generation":1}}`)
	if patch, _ := write(Status{}); patch["byPod"].([]any)[0].(map[string]any)["enforced"] != true || patch["created"] != nil {
		t.Errorf("%v", patch)
	}
}

// TestUnasked: a constraint about what nobody asks us is told so.
func TestUnasked(t *testing.T) {
	w := &Webhook{URL: "https://gatehouse.example", Resources: []string{"services", "networking.k8s.io/ingresses"}, Policies: []PolicyKind{{Group: "gatehouse.dev", Plural: "imagerules"}}}
	for kinds, want := range map[string]string{
		`[]`:                                   "true",
		`[{"apiGroups":[""],"kinds":["Pod"]}]`: "true",
		`[{"apiGroups":["apps"],"kinds":["Deployment"]},{"apiGroups":["policy"],"kinds":["PodDisruptionBudget"]}]`: "true policy/poddisruptionbudgets",
		`[{"apiGroups":["policy"],"kinds":["PodDisruptionBudget"]}]`:                                               "false policy/poddisruptionbudgets",
		`[{"apiGroups":["extensions","networking.k8s.io"],"kinds":["Ingress"]}]`:                                   "true",
		`[{"apiGroups":["networking.k8s.io"],"kinds":["NetworkPolicy"]}]`:                                          "false networking.k8s.io/networkpolicies",
		`[{"apiGroups":[""],"kinds":["Service","Namespace"]}]`:                                                     "true namespaces",
		`[{"apiGroups":["*"],"kinds":["CronJob"]}]`:                                                                "true",
		`[{"apiGroups":["*"],"kinds":["*"]}]`:                                                                      "true",
		`[{"apiGroups":["gatehouse.dev"],"kinds":["ImageRule"]}]`:                                                  "true",
	} {
		o := objectOf(t, `{"apiVersion":"constraints.gatekeeper.sh/v1beta1","kind":"K8sOwner","metadata":{"name":"k","uid":"u"},"spec":{"match":{"kinds":`+kinds+`}}}`)
		resources, some := w.unasked(o)
		if got := strings.TrimSpace(fmt.Sprint(some, " ", strings.Join(resources, " "))); got != want {
			t.Errorf("%s: %s, want %s", kinds, got, want)
		}
		patch, _ := Status{Unasked: resources, Idle: !some}.gatekeeperStatus(o)
		by := patch["byPod"].([]any)[0].(map[string]any)
		if by["enforced"] != some || (by["errors"] != nil) != (len(resources) > 0) {
			t.Errorf("%s: %v", kinds, by)
		}
		if resources, some = (&Webhook{}).unasked(o); len(resources) > 0 || !some {
			t.Errorf("%s: others make the configurations: %v, %v", kinds, resources, some)
		}
	}
}

// TestContentOfDefinitions: the same definition has the same mark each time, another
// schema another one.
func TestContentOfDefinitions(t *testing.T) {
	mark := func(schema map[string]any) string {
		d := Definition{Group: "g.example", Kind: "K", Plural: "ks", Versions: []string{"v1"}, OpenAPI: schema, Labels: map[string]string{"b": "c", "a": "b"}}
		return d.Object().GetLabels()["gatehouse.dev/content"]
	}
	first := mark(map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}, "b": map[string]any{"type": "string"}}})
	for range 10 {
		if again := mark(map[string]any{"type": "object", "properties": map[string]any{"b": map[string]any{"type": "string"}, "a": map[string]any{"type": "string"}}}); again != first || first == "" {
			t.Fatalf("the same definition has the marks %q and %q", first, again)
		}
	}
	if other := mark(map[string]any{"type": "object"}); other == first {
		t.Error("another schema has the same mark")
	}
}

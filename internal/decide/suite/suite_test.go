package suite_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/decide/suite"
)

// TestSuites runs the suites of testdata, in which everything must pass.
func TestSuites(t *testing.T) {
	fsys := os.DirFS("testdata")
	suites, err := suite.Find(fsys, ".")
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, s := range suites {
		if s.Unknown != "" {
			t.Errorf("%s: %s", s.Path, s.Unknown)
		}
		for _, r := range suite.Run(t.Context(), fsys, s, time.Now()) {
			if r.Err != nil {
				t.Errorf("%s %s/%s: %v", s.Path, r.Test, r.Case, r.Err)
			}
			if !r.Skipped {
				passed++
			}
		}
	}
	if len(suites) < 1 || passed < 6 {
		t.Errorf("only %d suites with %d cases", len(suites), passed)
	}
}

// files is a suite whose one case is about a ConfigMap that a rule denies.
func files(change func(fstest.MapFS)) fstest.MapFS {
	m := fstest.MapFS{
		"a/suite.yaml": {Data: []byte(`kind: Suite
apiVersion: test.gatekeeper.sh/v1alpha1
tests:
- name: t
  template: ../template.yaml
  constraint: constraint.yaml
  cases:
  - {name: c, object: object.yaml, assertions: [{violations: yes, message: "^no a$"}]}
`)},
		"template.yaml": {Data: []byte(`apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: never}
spec:
  crd: {spec: {names: {kind: Never}}}
  targets:
  - target: admission.k8s.gatekeeper.sh
    rego: |
      package never
      violation[{"msg": msg}] { msg := sprintf("no %v", [input.review.object.metadata.name]) }
`)},
		"a/constraint.yaml": {Data: []byte("apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: Never\nmetadata: {name: never}\n")},
		"a/object.yaml":     {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	}
	if change != nil {
		change(m)
	}
	return m
}

// TestWhatFails tells each thing that can be wrong with a case.
func TestWhatFails(t *testing.T) {
	replace := func(file, old, new string) func(fstest.MapFS) {
		return func(m fstest.MapFS) {
			was := string(m[file].Data)
			if !strings.Contains(was, old) {
				t.Fatalf("%s has no %s", file, old)
			}
			m[file].Data = []byte(strings.Replace(was, old, new, 1))
		}
	}
	for name, tt := range map[string]struct {
		change func(fstest.MapFS)
		says   string // empty: passes
	}{
		"nothing":               {nil, ""},
		"no violations wanted":  {replace("a/suite.yaml", "violations: yes", "violations: no"), `got 1 violations containing "^no a$" but want none: got messages ["no a"]`},
		"another message":       {replace("a/suite.yaml", "^no a$", "^no b$"), `got 0 violations containing "^no b$" but want at least 1`},
		"another number":        {replace("a/suite.yaml", "violations: yes, ", "violations: 2, "), "but want exactly 2"},
		"a wrong number":        {replace("a/suite.yaml", "violations: yes, ", "violations: some, "), `violations is "some"`},
		"a wrong expression":    {replace("a/suite.yaml", "^no a$", "("), "no regular expression"},
		"no assertions":         {replace("a/suite.yaml", `[{violations: yes, message: "^no a$"}]`, "[]"), "has no assertions"},
		"no object":             {replace("a/suite.yaml", "object: object.yaml, ", ""), "names no object"},
		"an object not there":   {replace("a/suite.yaml", "object.yaml", "x.yaml"), "couldn't read a/x.yaml: file does not exist"},
		"two objects":           {replace("a/object.yaml", "kind", "kind: X\n---\nkind"), "holds 2 objects"},
		"no template":           {replace("a/suite.yaml", "  template: ../template.yaml\n", ""), "names no template"},
		"no constraint":         {replace("a/suite.yaml", "  constraint: constraint.yaml\n", ""), "names no constraint"},
		"not a template":        {replace("template.yaml", "kind: ConstraintTemplate", "kind: X"), "is no ConstraintTemplate"},
		"not a constraint":      {replace("a/constraint.yaml", "constraints.gatekeeper.sh/v1beta1", "v1"), "is no constraint"},
		"of another template":   {replace("a/constraint.yaml", "kind: Never", "kind: Ever"), "there is no ConstraintTemplate of the kind Ever"},
		"a template is broken":  {replace("template.yaml", "package never", "package"), "template.yaml:10: spec.targets[0].rego: Rego error"},
		"no valid constraint":   {replace("a/suite.yaml", "  cases:", "  invalid: true\n  cases:"), "the constraint is valid"},
		"a review of nothing":   {replace("a/object.yaml", "apiVersion: v1\nkind: ConfigMap", "apiVersion: admission.k8s.io/v1\nkind: AdmissionReview"), "has no request"},
		"a review of no object": {replace("a/object.yaml", "apiVersion: v1\nkind: ConfigMap", "request: {uid: a}\napiVersion: admission.k8s.io/v1\nkind: AdmissionReview"), "neither object nor oldObject"},
		"no expansion there":    {replace("a/suite.yaml", "  cases:", "  expansion: x.yaml\n  cases:"), "couldn't read a/x.yaml: file does not exist"},
		"not an expansion":      {replace("a/suite.yaml", "  cases:", "  expansion: object.yaml\n  cases:"), "a/object.yaml:1 is no ExpansionTemplate"},
		"an unknown field":      {replace("a/object.yaml", "apiVersion: v1\nkind: ConfigMap", "request: {objekt: {}}\napiVersion: admission.k8s.io/v1\nkind: AdmissionReview"), `no field "objekt"`},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := files(tt.change)
			suites, err := suite.Find(fsys, "a/suite.yaml")
			if err != nil {
				t.Fatal(err)
			}
			res := suite.Run(t.Context(), fsys, suites[0], time.Time{})
			if len(res) != 1 || (res[0].Err == nil) != (tt.says == "") || !strings.Contains(fmt.Sprint(res[0].Err), tt.says) {
				t.Errorf("%+v, want %q", res, tt.says)
			}
		})
	}
}

func TestFind(t *testing.T) {
	fsys := files(nil)
	if s, err := suite.Find(fsys, "."); err != nil || len(s) != 1 || s[0].Path != "a/suite.yaml" {
		t.Errorf("%v: %+v", err, s)
	}
	for target, says := range map[string]string{"a/object.yaml": "holds no Suite", "b": "couldn't read b"} {
		if _, err := suite.Find(fsys, target); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", target, err)
		}
	}
	fsys["a/suite.yaml"].Data = append(fsys["a/suite.yaml"].Data, "  mispelt: 1\n"...)
	if s, err := suite.Find(fsys, "a"); err != nil || !strings.Contains(s[0].Unknown, "mispelt") {
		t.Errorf("%v: %+v", err, s)
	}
}

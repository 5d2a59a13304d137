package rego_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

func TestCompliance(t *testing.T) {
	const statement = `{"predicateType":"p","predicate":{"n":1,"list":["a"]}}`
	for name, c := range map[string]struct {
		module string
		want   decide.Answer
		err    string
	}{
		"holds, v0":     {module: "package sigstore\nisCompliant { input.predicate.n == 1 }", want: decide.Answer{Compliant: true}},
		"holds, v1":     {module: "package sigstore\nisCompliant if input.predicate.n == 1", want: decide.Answer{Compliant: true}},
		"undefined":     {module: "package sigstore\nisCompliant { input.predicate.n == 2 }", want: decide.Answer{Errors: []string{"isCompliant does not hold"}}},
		"default false": {module: "package sigstore\ndefault isCompliant = false\nisCompliant { input.x }", want: decide.Answer{Errors: []string{"isCompliant does not hold"}}},
		"empty set":     {module: "package sigstore\nisCompliant[r] { input.x; r := {\"result\": true} }", want: decide.Answer{Errors: []string{"isCompliant does not hold"}}},
		"result with words": {module: "package sigstore\nisCompliant[r] { r := {\"result\": input.predicate.n == 2, \"error\": \"n is not 2\", \"warning\": \"w\"} }",
			want: decide.Answer{Errors: []string{"n is not 2"}, Warnings: []string{"w"}}},
		"one of two results is no": {module: "package sigstore\nisCompliant[r] { r := {\"result\": true} }\nisCompliant[r] { r := {\"result\": false} }",
			want: decide.Answer{Errors: []string{"isCompliant yields a result that is not true"}}},
		"a text":              {module: "package sigstore\nisCompliant := \"yes\"", want: decide.Answer{Errors: []string{"isCompliant yields yes, not true or false"}}},
		"result as text":      {module: "package sigstore\nisCompliant[r] { r := {\"result\": \"true\"} }", want: decide.Answer{Errors: []string{"isCompliant yields a result that is not true"}}},
		"a set of texts":      {module: "package sigstore\nisCompliant[r] { r := \"x\" }", want: decide.Answer{Errors: []string{"isCompliant yields x, not an object with result"}}},
		"a builtin fails":     {module: "package sigstore\nisCompliant { to_number(\"x\") == 1 }", err: "to_number"},
		"two values":          {module: "package sigstore\nisCompliant := 1\nisCompliant := 2 { true }", err: "conflict"},
		"time of the request": {module: "package sigstore\nisCompliant { time.now_ns() == 1000000000 }", want: decide.Answer{Compliant: true}},
	} {
		t.Run(name, func(t *testing.T) {
			m, problems := rego.LoadCompliance("p.yaml", c.module)
			if m == nil {
				t.Fatal(problems)
			}
			got, err := m.Eval(t.Context(), []byte(statement), time.Unix(1, 0))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || got.Compliant {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Errorf("(-want +got):\n%s%v", d, err)
			}
		})
	}
	m, _ := rego.LoadCompliance("p.yaml", "package sigstore\nisCompliant { true }")
	if got, err := m.Eval(t.Context(), []byte("{"), time.Time{}); err == nil || got.Compliant {
		t.Errorf("no JSON: %+v, %v", got, err)
	}
}

func TestComplianceRefused(t *testing.T) {
	for module, want := range map[string]string{
		"package other\nisCompliant { true }":                                             "package of the module is not sigstore",
		"package sigstore\nallow { true }":                                                "no rule isCompliant",
		"package sigstore\nisCompliant(x) { x }":                                          "no rule isCompliant",
		"package sigstore\nisCompliant { http.send({\"url\": \"https://a.example\"}).x }": "http.send is not available",
		"package sigstore\nisCompliant {":                                                 "syntax error",
		"package sigstore\n" + strings.Repeat("#\n", 1<<19):                               "allowed",
		"": "empty",
	} {
		if m, problems := rego.LoadCompliance("p.yaml", module); m != nil || len(problems) == 0 || !strings.Contains(problems[0].Message, want) {
			t.Errorf("%.60q: %v", module, problems)
		}
	}
}

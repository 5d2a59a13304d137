package expr_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/expr"
)

// decode reads JSON as policies do, with numbers kept.
func decode(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return expr.Value(v)
}

func admission(t testing.TB) *expr.Env {
	t.Helper()
	e, err := expr.New(expr.Options{Admission: true, Inner: []string{"secret"}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestLanguage is what Kubernetes documents of its CEL, one line each.
func TestLanguage(t *testing.T) {
	e := admission(t)
	for _, v := range [][2]string{
		{"containers", "object.spec.containers"},
		{"images", "variables.containers.map(c, c.image)"},
		{"unused", "object.there.is.none"},
	} {
		if err := e.Variable(v[0], v[1]); err != nil {
			t.Fatal(err)
		}
	}
	object := decode(t, `{"kind":"Pod","metadata":{"name":"web","labels":{"a":"b"}},"spec":{"replicas":3,"ratio":0.5,"containers":[{"name":"c","image":"x/y:1","ports":[80,443]},{"name":"d","image":"z"}]}}`)
	for expression, want := range map[string]bool{
		`size(variables.images) == 2 && variables.images[1] == "z"`:                                      true,
		`object.spec.replicas == 3 && object.spec.ratio < 1 && object.spec.replicas > object.spec.ratio`: true,
		`object.spec.containers.exists(c, has(c.ports) && 443 in c.ports)`:                               true,
		`object.spec.containers.all(c, has(c.ports))`:                                                    false,
		`object.spec.?missing.orValue("none") == "none"`:                                                 true,
		`object.metadata.?labels[?"a"].hasValue()`:                                                       true,
		`quantity("1Gi").isGreaterThan(quantity("500Mi"))`:                                               true,
		`isIP("10.0.0.1") && cidr("10.0.0.0/8").containsIP("10.0.0.1")`:                                  true,
		`url("https://registry.example/v2").getHost() == "registry.example"`:                             true,
		`"registry.example/a:1".find("[^/]+$") == "a:1"`:                                                 true,
		`["a", "b"].join("-") == "a-b" && "A".lowerAscii() == "a" && "a,b".split(",").size() == 2`:       true,
		`sets.contains([1, 2, 3], [2])`:                                                                  true,
		`[3, 1, 2].isSorted()`:                                                                           false,
		`[1, 2, 3].sum() == 6 && [1, 2].max() == 2`:                                                      true,
		`semver("1.2.3").isLessThan(semver("1.10.0"))`:                                                   true,
		`format.dns1123Label().validate("good-name").hasValue()`:                                         false,
		`oldObject == null`: true,
		`request.userInfo.username == "jane" && "dev" in request.userInfo.groups`: true,
		`has(request.subResource)`:                                false,
		`namespaceObject.metadata.labels["team"] == "a"`:          true,
		`[1, 2].transformMapEntry(i, v, {v: i}).size() == 2`:      true,
		`object.spec.containers.map(c, c.name).indexOf("d") == 1`: true,
	} {
		p, err := e.Compile(expression, expr.Bool)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		s := e.Scope(t.Context(), map[string]any{
			expr.Object: object, expr.OldObject: nil,
			expr.Request:   decode(t, `{"kind":{"kind":"Pod"},"operation":"CREATE","userInfo":{"username":"jane","groups":["dev"]}}`),
			expr.Namespace: decode(t, `{"metadata":{"name":"n","labels":{"team":"a"}}}`),
		})
		if got, err := s.Bool(t.Context(), p); err != nil || got != want {
			t.Errorf("%s = %v, %v", expression, got, err)
		}
	}
}

// TestRefused: what cannot work is told when the expression is compiled, and where.
func TestRefused(t *testing.T) {
	e := admission(t)
	if err := e.Variable("known", "1"); err != nil {
		t.Fatal(err)
	}
	for expression, says := range map[string]string{
		``:                                  "is empty",
		`objekt.spec`:                       "1:1: undeclared reference to 'objekt'",
		`variables.unknown == 1`:            "undefined field 'unknown'",
		`variables.known == "text"`:         "no matching overload",
		`request.objekt == 1`:               "undefined field 'objekt'",
		`secret == 1`:                       "undeclared reference to 'secret'",
		`1`:                                 "must yield true or false (bool), it yields int",
		`object.a.matches("(")`:             "invalid matches argument",
		`true &&`:                           "1:8: Syntax error",
		strings.Repeat("(", 10_000) + "1":   "expression",
		strings.Repeat("true && ", 3_000):   "20000 are allowed",
		`authorizer.path("/").check("get")`: "undeclared reference to 'authorizer'",
	} {
		if _, err := e.Compile(expression, expr.Bool); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40s: %v, want %s", expression, err, says)
		}
	}
	for name, expression := range map[string]string{"known": "1", "no name": "1", "": "1"} {
		if err := e.Variable(name, expression); err == nil {
			t.Errorf("the variable %q is taken", name)
		}
	}
	if err := e.Variable("fromInside", "secret == 1"); err != nil {
		t.Error(err)
	}
	if _, err := e.Compile(`"a"`, expr.Text); err != nil {
		t.Error(err)
	}
}

// TestErrors: what is not there, and what is not known, is an error and not a no.
func TestErrors(t *testing.T) {
	e := admission(t)
	if err := e.Variable("deep", "object.not.there"); err != nil {
		t.Fatal(err)
	}
	unknown := errors.New("nobody knows the namespace")
	for expression, says := range map[string]string{
		`object.not.there == 1`:                  "no such key: not",
		`variables.deep == 1`:                    "variable deep: no such key: not",
		`namespaceObject.metadata.name == "a"`:   "nobody knows the namespace",
		`object.list[5] == 1`:                    "index out of bounds",
		`quantity(object.text).isInteger()`:      "quantities must match",
		`object.text + object.number == "a1"`:    "no such overload",
		`object.dyn`:                             "",
		`1 / object.zero == 1`:                   "division by zero",
		`timestamp(object.text) == timestamp(0)`: "",
	} {
		p, err := e.Compile(expression, expr.Bool)
		if err != nil {
			continue // some are refused before, which is as good
		}
		s := e.Scope(t.Context(), map[string]any{expr.Object: decode(t, `{"text":"a","number":1,"zero":0,"list":[],"dyn":"x"}`), expr.Namespace: unknown})
		if ok, err := s.Bool(t.Context(), p); ok || err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s = %v, %v, want %s", expression, ok, err, says)
		}
	}
}

// TestBudget: what costs too much ends, in one expression and in many.
func TestBudget(t *testing.T) {
	e, err := expr.New(expr.Options{Admission: true, Budget: 1_500_000})
	if err != nil {
		t.Fatal(err)
	}
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 100), ",") + "]"
	object := decode(t, `{"l":`+list+`}`)
	ends := func(expression string, times int) error {
		p, err := e.Compile(expression, expr.Bool)
		if err != nil {
			t.Fatal(err)
		}
		s := e.Scope(t.Context(), map[string]any{expr.Object: object})
		for range times {
			if _, err := s.Bool(t.Context(), p); err != nil {
				return err
			}
		}
		return nil
	}
	if err := ends("object.l.all(a, object.l.all(b, object.l.all(c, a + b + c > 0)))", 1); err == nil {
		t.Error("a million rounds are done")
	}
	if err := ends("object.l.all(a, object.l.all(b, a + b > 0))", 1); err != nil {
		t.Errorf("ten thousand are not: %v", err)
	}
	if err := ends("object.l.all(a, object.l.all(b, a + b > 0))", 100); !errors.Is(err, expr.ErrBudget) {
		t.Errorf("a hundred times ten thousand: %v", err)
	}
}

func TestEndedContext(t *testing.T) {
	e := admission(t)
	p, err := e.Compile("object.l.all(a, a == 1)", expr.Bool)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 1_000), ",") + "]"
	s := e.Scope(ctx, map[string]any{expr.Object: decode(t, `{"l":`+list+`}`)})
	if ok, err := s.Bool(ctx, p); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", ok, err)
	}
}

// FuzzCompile: no expression breaks the compiler, and whatever compiles ends.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{`object.a == 1`, `variables.known + 1 == 2`, `[1].all(a, a > 0)`, `object.?a.orValue(1) in [1]`, `"a".matches("^a$")`, `cidr("::/0").ip()`, `{1: 2}[1] == 2`} {
		f.Add(seed)
	}
	e := admission(f)
	if err := e.Variable("known", "1"); err != nil {
		f.Fatal(err)
	}
	object := decode(f, `{"a":1,"b":["x",{"c":null}],"d":1.5}`)
	f.Fuzz(func(t *testing.T, expression string) {
		p, err := e.Compile(expression, expr.Bool)
		if err != nil {
			if strings.Contains(err.Error(), "\n\n") || err.Error() == "" {
				t.Errorf("the error is %q", err)
			}
			return
		}
		s := e.Scope(t.Context(), map[string]any{expr.Object: object})
		_, _ = s.Bool(t.Context(), p)
	})
}

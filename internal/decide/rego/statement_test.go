package rego_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

func TestStatementRules(t *testing.T) {
	const statement = `{"predicateType":"x","predicate":{"n":12345678901234567890,"level":3}}`
	for name, c := range map[string]struct {
		module, why string
	}{
		"v0":               {"package signature\n\nallow {\n\tinput.predicate.level >= 3\n}\n", ""},
		"v1":               {"package signature\n\nallow if input.predicate.level >= 3\n", ""},
		"whole numbers":    {"package signature\n\nallow {\n\tinput.predicate.n == 12345678901234567890\n}\n", ""},
		"no":               {"package signature\n\nallow {\n\tinput.predicate.level >= 4\n}\n", "undefined"},
		"false":            {"package signature\n\ndefault allow = false\n", "is false"},
		"not a truth":      {"package signature\n\nallow = \"yes\"\n", "is yes"},
		"another package":  {"package other\n\nallow = true\n", "undefined"},
		"allows by object": {"package signature\n\nallow[x] {\n\tx := \"y\"\n}\n", "is"},
	} {
		rules, err := rego.LoadStatementRules(map[string][]byte{"p.rego": []byte(c.module)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		why, err := rules.Judge(t.Context(), []byte(statement))
		if err != nil || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: %q, %v", name, why, err)
		}
	}
	for name, module := range map[string]string{
		"broken":  "package signature\n\nallow {",
		"network": "package signature\n\nallow { http.send({\"method\":\"get\",\"url\":\"http://x\"}).status_code == 200 }",
	} {
		if _, err := rego.LoadStatementRules(map[string][]byte{"p.rego": []byte(module)}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Several files are one policy, and one that fails while it is evaluated is no.
	rules, err := rego.LoadStatementRules(map[string][]byte{
		"a.rego": []byte("package signature\n\nallow { data.lib.good }\n"), "b.rego": []byte("package lib\n\ngood { to_number(input.predicateType) > 0 }\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if why, err := rules.Judge(t.Context(), []byte(statement)); err == nil && why == "" {
		t.Error("a builtin that fails allows")
	}
	if _, err := rules.Judge(t.Context(), []byte("{")); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("%v", err)
	}
}

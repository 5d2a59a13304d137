package cue_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cue"
)

const statement = `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://example.com/p/v1",
	"predicate":{"n":3,"who":"ci","at":"2026-03-01T12:00:00Z","list":["a","b"],"big":9007199254740993,"quoted \\(key)":1}}`

func eval(t *testing.T, policy, document string) (decide.Answer, error) {
	t.Helper()
	p, problems := cue.Load("p.yaml", policy)
	if p == nil {
		t.Fatal(problems)
	}
	return p.Eval(t.Context(), []byte(document), time.Time{})
}

func TestEval(t *testing.T) {
	const failed = "failed to evaluate the policy with error: "
	for name, c := range map[string]struct {
		policy string
		errors []string // nil: complies
	}{
		"values":               {policy: `predicateType: "https://example.com/p/v1", predicate: {n: 3, who: =~"^c"}`},
		"another value":        {`predicate: who: "me"`, []string{failed + `predicate.who: conflicting values "ci" and "me"`}},
		"a bound":              {policy: `predicate: n: <5`},
		"beyond a bound":       {`predicate: n: <3`, []string{failed + `predicate.n: invalid value 3 (out of bound <3)`}},
		"two contradictions":   {`predicate: {n: 4, who: "me"}`, []string{failed + `predicate.n: conflicting values 3 and 4`, failed + `predicate.who: conflicting values "ci" and "me"`}},
		"a time":               {policy: "import \"time\"\nbefore: time.Parse(time.RFC3339, \"2026-04-01T00:00:00Z\")\npredicate: at: <before"},
		"too late":             {"import \"time\"\npredicate: at: <time.Parse(time.RFC3339, \"2026-02-01T00:00:00Z\")", []string{failed + `predicate.at: invalid value "2026-03-01T12:00:00Z" (out of bound <"2026-02-01T00:00:00Z")`}},
		"a count":              {policy: "import l \"list\"\npredicate: list: l.MaxItems(2) & l.MinItems(2)"},
		"too many":             {"import l \"list\"\npredicate: list: l.MaxItems(1)", []string{failed + `predicate.list: invalid value ["a","b"] (does not satisfy list.MaxItems(1)): len(list) > MaxItems(1) (2 > 1)`}},
		"absent is no no":      {policy: `predicate: other: "x"`},
		"absent and asked for": {`predicate: other!: "x"`, []string{failed + `predicate.other: field is required but not present`}},
		"closed":               {`predicate: close({n: int, at: _, list: _, big: _, "quoted \\(key)": _})`, []string{failed + `predicate.who: field not allowed`}},
		"large numbers":        {policy: `predicate: big: 9007199254740993`},
		"of two forms":         {policy: `predicate: who: "ci" | "cd"`},
		"a condition":          {"x: predicate\npredicate: {...}\nif x.n > 2 { bad: 1, bad: 2 }", []string{failed + "bad: conflicting values 2 and 1"}},
		"a name that reads so": {policy: `predicate: "quoted \\(key)": 1`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := eval(t, c.policy, statement)
			if err != nil || got.Compliant != (c.errors == nil) {
				t.Fatalf("%+v, %v", got, err)
			}
			if d := cmp.Diff(c.errors, got.Errors); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestDocuments: what is no document of a statement is a no, and never a panic.
func TestDocuments(t *testing.T) {
	for _, document := range []string{
		"", "{", "x: 1", `{"a": 1} {"b": 2}`, `{"a": "\(1+1)"}`, strings.Repeat("[", 300) + strings.Repeat("]", 300), `{"predicate": 1, "predicate": {}}`,
		`{"n": ` + strings.Repeat(" ", cue.DocumentSizeMax) + `1}`, "\xff", `{"a":"` + "\xff" + `"}`,
	} {
		if got, err := eval(t, `predicate: {...}`, document); err == nil && got.Compliant {
			t.Errorf("%.40q complies", document)
		}
	}
}

func TestRefused(t *testing.T) {
	for policy, want := range map[string]string{
		"":                                   "says nothing",
		"// only a comment":                  "says nothing",
		"import \"list\"":                    "says nothing",
		"predicate: {":                       "CUE syntax error",
		"a: 1\na: 2":                         "CUE error: a: conflicting values",
		"a: b":                               "reference \"b\" not found",
		"import \"tool/exec\"\na: exec.Run":  "tool/exec is not available",
		"import \"tool/file\"\na: file.Read": "tool/file is not available",
		"import \"example.com/x\"\na: x.Y":   "example.com/x is not available",
		"import \"nosuch\"\na: nosuch.Y":     "CUE",
		"@extern(embed)\na: _ @embed(file=\"p\")": "@extern is not available",
		strings.Repeat("//", 1<<19) + "\na: 1":    "allowed",
	} {
		if p, problems := cue.Load("p.yaml", policy); p != nil || len(problems) == 0 || !strings.Contains(problems[0].Message, want) {
			t.Errorf("%.60q: %v", policy, problems)
		}
	}
}

// TestLines: problems say where in the policy they are.
func TestLines(t *testing.T) {
	if _, problems := cue.Load("p.yaml", "a: 1\n\nimport \"tool/exec\"\n"); len(problems) != 1 {
		t.Errorf("%v", problems)
	}
	if _, problems := cue.Load("p.yaml", "a: 1\nb: {\n"); len(problems) == 0 || problems[0].Line < 2 {
		t.Errorf("%v", problems)
	}
}

// TestConcurrent evaluates one policy many times at once; what one document says
// must not leak into the next.
func TestConcurrent(t *testing.T) {
	p, problems := cue.Load("p.yaml", `predicate: who: "ci"`)
	if p == nil {
		t.Fatal(problems)
	}
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			document, want := `{"predicate":{"who":"ci"}}`, true
			if i%3 == 0 {
				document, want = `{"predicate":{"who":"me"}}`, false
			}
			if got, err := p.Eval(t.Context(), []byte(document), time.Time{}); err != nil || got.Compliant != want {
				t.Errorf("%d: %+v, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func FuzzEval(f *testing.F) {
	f.Add(`predicate: n: <5`, statement)
	f.Add(`import "list"`+"\n"+`a: list.MaxItems(1)`, `{"a":[1,2]}`)
	f.Add(`a: {b: a}`, `{"a":{"b":1}}`)
	f.Fuzz(func(t *testing.T, policy, document string) {
		p, problems := cue.Load("p.yaml", policy)
		if (p == nil) == (len(problems) == 0) {
			t.Fatalf("%v %v", p, problems)
		}
		if p == nil {
			return
		}
		if got, err := p.Eval(t.Context(), []byte(document), time.Time{}); err == nil && !got.Compliant && len(got.Errors) == 0 {
			t.Error("no, without a reason")
		}
	})
}

func BenchmarkEval(b *testing.B) {
	p, _ := cue.Load("p.yaml", "import \"time\"\nbefore: time.Parse(time.RFC3339, \"2026-04-01T00:00:00Z\")\npredicate: {at: <before, n: <5, who: \"ci\"}")
	for b.Loop() {
		if got, err := p.Eval(b.Context(), []byte(statement), time.Time{}); err != nil || !got.Compliant {
			b.Fatal(got, err)
		}
	}
}

package operator

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
)

// TestNamesTag: a Pod is spared by the mutating webhook where there is nothing to write,
// and only there; no Pod makes the expression fail, which would refuse it.
func TestNamesTag(t *testing.T) {
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType))
	if err != nil {
		t.Fatal(err)
	}
	ast, issues := env.Compile(NamesTag)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	page, err := os.ReadFile("../../docs/admission.md")
	if err != nil || !strings.Contains(words(string(page)), words(NamesTag)) {
		t.Errorf("docs/admission.md shows another condition (%v)", err)
	}
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for spec, want := range map[string]bool{
		`{"containers":[{"image":"a:1"}]}`:                                                                     true,
		`{"containers":[{"image":"a"}]}`:                                                                       true,
		`{"containers":[{"image":"a@` + digest + `"}]}`:                                                        false,
		`{"containers":[{"image":"a:1@` + digest + `"},{"image":"b@` + digest + `"}]}`:                         false,
		`{"containers":[{"image":"a@` + digest + `"},{"image":"b:1"}]}`:                                        true,
		`{"containers":[{"image":"a@` + digest + `"}],"initContainers":[{"image":"b:1"}]}`:                     true,
		`{"containers":[{"image":"a@` + digest + `"}],"ephemeralContainers":[{"image":"b:1"}]}`:                true,
		`{"containers":[{"image":"a@` + digest + `"}],"initContainers":null,"ephemeralContainers":[]}`:         false,
		`{"containers":[{"image":"a@` + digest + `"}],"volumes":[{"name":"v","image":{"reference":"b:1"}}]}`:   true,
		`{"containers":[{"image":"a@` + digest + `"}],"volumes":[{"name":"v","image":{}}]}`:                    true,
		`{"containers":[{"image":"a@` + digest + `"}],"volumes":[{"image":{"reference":"b@` + digest + `"}}]}`: false,
		`{"containers":[{"image":"a@` + digest + `"}],"volumes":[{"name":"v","emptyDir":{}},{"image":null}]}`:  false,
		`{"containers":[{"image":"a@` + digest + `"}],"volumes":null}`:                                         false,
		`{"containers":[{"name":"none"}]}`:                                                                     true,
		`{"containers":null}`:                                                                                  false,
		`{}`:                                                                                                   false,
	} {
		var object any
		if err := json.Unmarshal([]byte(`{"kind":"Pod","spec":`+spec+`}`), &object); err != nil {
			t.Fatal(err)
		}
		out, _, err := program.Eval(map[string]any{"object": object})
		if err != nil || out.Value() != want {
			t.Errorf("%s: %v, %v", spec, out, err)
		}
	}
}

package load_test

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestCheck judges own.yaml as the API server sends it, beside the other files, and
// compares what its client is told: the refusal, then the warnings.
func TestCheck(t *testing.T) {
	text.Run(t, "testdata/check/*.txtar", 8, func(t *testing.T, a *txtar.Archive) string {
		var own []byte
		var beside []load.File
		for _, f := range a.Files {
			switch f.Name {
			case "want":
			case "own.yaml":
				var err error
				if own, err = yaml.YAMLToJSON(f.Data); err != nil {
					t.Fatal(err)
				}
			default:
				beside = append(beside, load.File{Path: f.Name, Data: f.Data})
			}
		}
		absent := gatehouse.Errorf(gatehouse.CodeNotFound, "it is not there")
		o := load.Loader{Outside: cip.Outside{
			Namespace: "gatehouse-system",
			Secret:    func(string, string) (map[string][]byte, error) { return nil, absent },
			ConfigMap: func(string, string) (map[string]string, error) { return nil, absent },
			Remote: func(string, string) ([]byte, error) {
				return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server does not answer")
			},
			Key: func(string) (string, error) { return "", gatehouse.Errorf(gatehouse.CodeDenied, "not asked") },
		}}
		refusal, warnings := load.Refusal(o.Check("cluster/own", own, beside))
		if refusal == "" {
			refusal = "stored"
		}
		for _, w := range warnings {
			refusal += "\nwarning: " + w
		}
		return refusal + "\n"
	})
}

func TestCheckOfNothing(t *testing.T) {
	for _, document := range []string{"", "x", "[]", "{}", "a: b\n---\na: b", `{"kind":"Pod","apiVersion":"v1"}`, strings.Repeat("#", 2<<20)} {
		if refusal, _ := load.Refusal(load.Loader{}.Check("own", []byte(document), nil)); refusal == "" {
			t.Errorf("%.30q is stored", document)
		}
	}
}

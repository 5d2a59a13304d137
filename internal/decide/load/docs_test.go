package load_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

var example = regexp.MustCompile("(?s)<!-- policy: (\\S+) -->\n```\\w+\n(.*?)```")

// TestDocs loads the policies of docs/policies.md, and finds every reason code
// there that the code has.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	var files []load.File
	for _, m := range example.FindAllSubmatch(doc, -1) {
		files = append(files, load.File{Path: string(m[1]), Data: m[2]})
	}
	set, problems := load.Load(files, gatehouse.Deny)
	if len(files) != 9 || !set.Complete || len(problems) > 0 {
		t.Errorf("%d examples, complete=%v: %v", len(files), set.Complete, problems)
	}
	f, err := parser.ParseFile(token.NewFileSet(), "../reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes++
		if !strings.Contains(string(doc), "`"+code+"`") {
			t.Errorf("docs/policies.md does not explain the reason code %s", code)
		}
		return true
	})
	if codes < 20 {
		t.Fatalf("found only %d codes", codes)
	}
}

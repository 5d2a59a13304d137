package tool

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema compiles the JSON schema that the tool of that name is, or skips the test
// as [Need] does. Formats are checked. A schema that its module keeps in Go's source
// is taken from there.
func Schema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	b, err := os.ReadFile(Need(t, name))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.HasPrefix(b, []byte("package ")) {
		b = literal(t, name, b)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	at := "https://schema.test/" + name + ".json"
	if err := c.AddResource(at, doc); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	s, err := c.Compile(at)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s
}

// CheckJSON fails the test where data does not conform to s.
func CheckJSON(t testing.TB, s *jsonschema.Schema, data []byte) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("not valid: %v", err)
	}
}

// literal returns the only string literal of a Go file.
func literal(t testing.TB, name string, source []byte) (out []byte) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			s, err := strconv.Unquote(lit.Value)
			if err != nil || out != nil {
				t.Fatalf("%s: not the one literal that was expected (%v)", name, err)
			}
			out = []byte(s)
		}
		return true
	})
	return out
}

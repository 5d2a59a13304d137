package report_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/report"
)

type schema struct {
	Properties map[string]schema
	Required   []string
	Items      *schema
}

// TestSchemaIsWhatIsPrinted compares docs/report.schema.json with the struct
// that is printed: the same fields, and required is what is never left out.
func TestSchemaIsWhatIsPrinted(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "report.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	compare(t, "report", s, reflect.TypeFor[report.Report]())
}

func compare(t *testing.T, at string, s schema, typ reflect.Type) {
	t.Helper()
	seen := map[string]bool{}
	for i := range typ.NumField() {
		name, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		seen[name] = true
		p, ok := s.Properties[name]
		if !ok {
			t.Errorf("%s.%s is printed but not in the schema", at, name)
			continue
		}
		if optional := strings.HasPrefix(options, "omit"); slices.Contains(s.Required, name) == optional {
			t.Errorf("%s.%s: required is %v in the schema", at, name, optional)
		}
		field := typ.Field(i).Type
		if field.Kind() == reflect.Slice && p.Items != nil {
			p, field = *p.Items, field.Elem()
		}
		if field.Kind() == reflect.Struct && len(p.Properties) > 0 {
			compare(t, at+"."+name, p, field)
		}
	}
	for name := range s.Properties {
		if !seen[name] {
			t.Errorf("%s.%s is in the schema but never printed", at, name)
		}
	}
}

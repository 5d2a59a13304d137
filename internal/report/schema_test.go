package report_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/report"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// everything is a report in which every field that can be is filled in.
func everything() report.Report {
	r := sample(report.Filter{ShowSuppressed: true})
	r.Target = report.Target{
		Reference: "registry.example/a/b:1", Digest: baseLayer, Platform: "linux/amd64", Source: "remote",
		Index: appLayer, Platforms: []string{"linux/amd64", "linux/arm64/v9"},
	}
	eol, day := true, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	r.OS.EOL, r.OS.EOLDate = &eol, day
	r.Database = report.Database{Source: "osv", UpdatedAt: day, Digest: baseLayer, OldestFeed: "osv/npm", OldestAt: day}
	for i := range r.Findings {
		r.Findings[i].Published, r.Findings[i].FirstSeen = day, day
	}
	r.SecondOpinions = []report.SecondOpinion{{Source: "clair", Available: true, AskedAt: day, AnsweredAt: day, Scanner: "Clair", Both: 1}}
	return r
}

// nothing is the report of an empty directory.
func nothing() report.Report {
	return report.New(report.Target{Reference: "/empty", Source: "directory"}, report.Database{}, gatehouse.Inventory{Complete: true}, nil, report.Filter{})
}

// TestConformsToSchemas holds what is written against the formats' own schemas.
func TestConformsToSchemas(t *testing.T) {
	reports := map[string]report.Report{"everything": everything(), "nothing": nothing()}
	t.Run("sarif", func(t *testing.T) {
		s := tool.Schema(t, "sarif-schema")
		for name, r := range reports {
			t.Run(name, func(t *testing.T) { tool.CheckJSON(t, s, []byte(render(t, "sarif", r, report.Options{}))) })
		}
	})
	t.Run("json", func(t *testing.T) {
		t.Setenv("GATEHOUSE_REPORT_SCHEMA", filepath.Join("..", "..", "docs", "report.schema.json"))
		s := tool.Schema(t, "report-schema")
		for name, r := range reports {
			t.Run(name, func(t *testing.T) { tool.CheckJSON(t, s, []byte(render(t, "json", r, report.Options{}))) })
		}
	})
}

// TestSchemasCanFail: a schema that takes everything would prove nothing.
func TestSchemasCanFail(t *testing.T) {
	text := strings.Replace(render(t, "sarif", everything(), report.Options{}), `"ruleId"`, `"ruleid"`, 1)
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if tool.Schema(t, "sarif-schema").Validate(doc) == nil {
		t.Error("SARIF with a field that there is not is valid")
	}
}

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

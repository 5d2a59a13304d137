package lang_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/packagejson"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

func TestNPM(t *testing.T) {
	pkg := func(name, version string, licenses ...string) []gatehouse.Package {
		return []gatehouse.Package{{Type: "npm", Name: name, Version: version, Licenses: licenses}}
	}
	tests := []struct {
		name, in string
		want     []gatehouse.Package
	}{
		{"usual", `{"name": "lodash", "version": "4.17.4", "license": "MIT"}`, pkg("lodash", "4.17.4", "MIT")},
		{"scoped", `{"name": "@babel/core", "version": "7.0.0"}`, pkg("@babel/core", "7.0.0")},
		{"byte order mark", "\xef\xbb\xbf" + `{"name": "a", "version": "1.0.0"}`, pkg("a", "1.0.0")},
		{"version with v", `{"name": "a", "version": "v1.0.0"}`, pkg("a", "1.0.0")},
		{"old licences", `{"name": "a", "version": "1.0.0", "licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}`, pkg("a", "1.0.0", "MIT", "GPL-2.0")},
		{"licence object", `{"name": "a", "version": "1.0.0", "license": {"type": "MIT"}}`, pkg("a", "1.0.0", "MIT")},
		{"fields of unexpected types", `{"name": "a", "version": "1.0.0", "contributors": "me", "dependencies": [], "author": 7}`, pkg("a", "1.0.0")},
		{"fields that hide it from others", `{"name": "a", "version": "1.0.0", "contributes": {}, "unity": "1", "engines": {"vscode": "*"}}`, pkg("a", "1.0.0")},
		{"names in capitals", `{"name": "a", "version": "1.0.0", "Version": "9.9.9", "NAME": "b"}`, pkg("a", "1.0.0")},
		{"twice", `{"name": "a", "version": "1.0.0", "version": "2.0.0"}`, pkg("a", "2.0.0")},
		{"marker", `{"type": "module"}`, nil},
		{"no version", `{"name": "a"}`, nil},
		{"version is a number", `{"name": "a", "version": 1}`, nil},
		{"list", `[]`, nil},
	}
	for _, test := range tests {
		got, err := lang.NPM(section(test.in))
		if err != nil && test.in[0] == '{' {
			t.Errorf("%s: %v", test.name, err)
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
	for _, in := range []string{"", "{", `{"name": "a", "version": "1.0.0"} x`, strings.Repeat("[", 100_000)} {
		if got, err := lang.NPM(section(in)); err == nil {
			t.Errorf("%.20q: %+v", in, got)
		}
	}
	if _, err := lang.NPM(section(strings.Repeat(" ", lang.NPMSizeMax+1))); err == nil {
		t.Error("a file beyond the bound was read")
	}
}

// FuzzNPM compares with osv-scalibr: what it finds, we find.
func FuzzNPM(f *testing.F) {
	f.Add([]byte(`{"name": "a", "version": "1.0.0", "license": ["MIT"]}`))
	f.Add([]byte(`{"name": "a", "version": "1.0.0", "engines": ["node"], "author": {"name": "x"}}`))
	e, err := packagejson.New(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := lang.NPM(section(b))
		want, oracleErr := e.Extract(context.Background(), &filesystem.ScanInput{Path: "package.json", Reader: section(b)})
		if oracleErr != nil || len(want.Packages) == 0 || strings.TrimSpace(want.Packages[0].Name) == "" {
			return
		}
		version := strings.TrimLeft(strings.TrimSpace(want.Packages[0].Version), "=v ")
		if version == "" {
			return
		}
		if err != nil || len(got) != 1 || got[0].Name != strings.TrimSpace(want.Packages[0].Name) || got[0].Version != version {
			t.Errorf("%+v %v, osv-scalibr: %+v", got, err, want.Packages[0])
		}
	})
}

package lang_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

func TestPython(t *testing.T) {
	metadata := "Metadata-Version: 2.1\nName: Jinja2\nVersion: 2.11.1\nSummary: templates\nRequires-Dist: MarkupSafe\n\nName: ghost\nVersion: 9\n"
	tests := []struct {
		name, path, body string
		want             []string
	}{
		{"dist-info", "lib/Jinja2-2.11.1.dist-info/METADATA", metadata, []string{"Jinja2 2.11.1"}},
		{"egg-info directory", "lib/x.egg-info/PKG-INFO", metadata, []string{"Jinja2 2.11.1"}},
		{"egg-info file", "lib/x.egg-info", metadata, []string{"Jinja2 2.11.1"}},
		{"egg", "lib/x.egg", string(zipOf(t, text("x/a.py", ""), text("EGG-INFO/PKG-INFO", metadata))), []string{"Jinja2 2.11.1"}},
		{"egg without metadata", "lib/x.egg", string(zipOf(t, text("x/a.py", ""))), []string{}},
	}
	for _, test := range tests {
		got, err := lang.Python(t.Context(), test.path, section(test.body), archiveLimits())
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if d := cmp.Diff(test.want, names(got)); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
		if len(got) > 0 && got[0].Type != "pypi" {
			t.Errorf("%s: type %s", test.name, got[0].Type)
		}
	}
	bad := map[string]string{
		"lib/x.dist-info/METADATA":   "Version: 1\n\n",
		"lib/y.dist-info/METADATA":   "Name: " + strings.Repeat("x", 100_000) + "\n",
		"lib/big.dist-info/METADATA": strings.Repeat("A: b\n", lang.PythonSizeMax/5+1),
		"lib/x.egg":                  string(zipOf(t, member{"EGG-INFO/PKG-INFO", make([]byte, lang.PythonSizeMax+1)})),
	}
	for path, body := range bad {
		if got, err := lang.Python(t.Context(), path, section(body), archiveLimits()); err == nil {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestGem(t *testing.T) {
	spec := "# -*- encoding: utf-8 -*-\n# stub: rack 2.2.3 ruby lib\n\nGem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  s.version = \"2.2.3\"\n\n  s.require_paths = [\"lib\".freeze]\nend\n"
	got, err := lang.Gem(t.Context(), "specifications/rack-2.2.3.gemspec", section(spec))
	if err != nil || len(got) != 1 || got[0].Type != "gem" || got[0].Name != "rack" || got[0].Version != "2.2.3" {
		t.Errorf("%+v %v", got, err)
	}
	for _, in := range []string{"", "\x04\x08marshalled", "Gem::Specification.new do |s|\n s.name = 'x'\nend\n"} {
		if got, err := lang.Gem(t.Context(), "x.gemspec", section(in)); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

func TestDotNet(t *testing.T) {
	in := `{"runtimeTarget": {"name": ".NETCoreApp,Version=v6.0"}, "libraries": {
		"MyApp/1.0.0": {"type": "project"}, "Newtonsoft.Json/12.0.1": {"type": "package"},
		"runtimepack.Microsoft.NETCore.App.Runtime.linux-x64/6.0.1": {"type": "runtimepack"}}}`
	got, err := lang.DotNet(t.Context(), "app/MyApp.deps.json", section("\xef\xbb\xbf"+in))
	want := []string{"Microsoft.NETCore.App.Runtime.linux-x64 6.0.1", "Newtonsoft.Json 12.0.1"}
	if d := cmp.Diff(want, names(got)); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for _, other := range []string{`{}`, `[]`, `{"libraries": {}}`, `{"entries": ["a.js"]}`, `{`, `{"libraries": "x"}`} {
		if got, err := lang.DotNet(t.Context(), "editor.deps.json", section(other)); !errors.Is(err, lang.ErrOther) {
			t.Errorf("%q: %+v %v", other, got, err)
		}
	}
	if got, err := lang.DotNet(t.Context(), "x.deps.json", section(`{"runtimeTarget": {}, "libraries": {}}`)); err != nil || len(got) != 0 {
		t.Errorf("no libraries: %+v %v", got, err)
	}
}

func TestComposer(t *testing.T) {
	list := `[{"name": "symfony/http-kernel", "version": "v4.4.0", "license": ["MIT"]}, {"name": "x"}, {"name": "monolog/monolog", "version": "1.0.0"}]`
	want := []string{"monolog/monolog 1.0.0", "symfony/http-kernel v4.4.0"}
	for _, in := range []string{list, `{"packages": ` + list + `, "dev": true}`, `{"dev": {"a": []}, "packages": ` + list + `}`} {
		got, err := lang.Composer(section(in), 10)
		if d := cmp.Diff(want, names(got)); d != "" || err != nil {
			t.Errorf("%.20q: %v %s", in, err, d)
		}
	}
	if got, err := lang.Composer(section(list), 1); err == nil || len(got) != 1 {
		t.Errorf("bound of 1: %d, %v", len(got), err)
	}
	for _, in := range []string{"", "7", "{", `{"packages": 1}`, `{"dev": 1}`, `[{"name": 1}]`, list[:80]} {
		if got, err := lang.Composer(section(in), 10); err == nil {
			t.Errorf("%.20q: %+v", in, got)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("Name: a\nVersion: 1\n\n"))
	f.Add([]byte("Gem::Specification.new do |s|\n s.name='x'\n s.version = '1'\n"))
	f.Add([]byte(`{"runtimeTarget": {}, "libraries": {"a/1": {"type": "package"}}}`))
	f.Add([]byte(`{"packages": [{"name": "a", "version": "1"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx := context.Background()
		_, _ = lang.Python(ctx, "x.dist-info/METADATA", section(b), archiveLimits())
		_, _ = lang.Gem(ctx, "x.gemspec", section(b))
		_, _ = lang.DotNet(ctx, "x.deps.json", section(b))
		if p, _ := lang.Composer(section(b), 10); len(p) > 10 {
			t.Errorf("%d packages", len(p))
		}
	})
}

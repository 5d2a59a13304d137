package lang_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

// TestGoMainVersion: the version of the program itself, from what the go command
// and its flags left in it.
func TestGoMainVersion(t *testing.T) {
	const module = "example.test/app"
	for _, test := range []struct{ name, version, ldflags, want string }{
		{"installed", "v1.2.3", "", "1.2.3"},
		{"installed counts before flags", "v1.2.3", "-X main.version=9.9.9", "1.2.3"},
		{"tag of a changed tree", "v1.2.3+dirty", "", "1.2.3"},
		{"between tags", "v1.2.4-0.20260101000000-0123456789ab", "", "1.2.4-0.20260101000000-0123456789ab"},
		{"no tag", "v0.0.0-20260101000000-0123456789ab", "", ""},
		{"working tree", "(devel)", "", ""},
		{"linked", "(devel)", "-s -w -X main.version=v1.2.3 -X main.commit=abc", "1.2.3"},
		{"linked with quotes", "(devel)", `-X 'main.Version=1.2.3' -extldflags "-static"`, "1.2.3"},
		{"linked with an equals sign", "(devel)", "-X=example.test/app/internal/version.gitVersion=v2.0.0-rc.1", "2.0.0-rc.1"},
		{"main counts before others", "(devel)", "-X example.test/app/cmd.Version=3.0.0 -X main.version=1.0.0", "1.0.0"},
		{"of a dependency", "(devel)", "-X k8s.io/component-base/version.gitVersion=v1.30.0", ""},
		{"module that begins alike", "(devel)", "-X example.test/app2/version.Version=v1.30.0", ""},
		{"no version", "(devel)", "-X main.version=nightly -X main.version=0123456789abcdef", ""},
		{"another variable", "(devel)", "-X main.schemaVersionMin=1.2.3", ""},
		{"two that differ", "(devel)", "-X main.version=1.0.0 -X main.Version=2.0.0", ""},
		{"no tag but linked", "v0.0.0-20260101000000-0123456789ab", "-X main.version=1.2.3", "1.2.3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			info := "path\t" + module + "\nmod\t" + module + "\t" + test.version + "\t\n"
			if test.ldflags != "" {
				info += "build\t-ldflags=" + quoted(test.ldflags) + "\n"
			}
			got, err := lang.Executable(section(elfOf(".go.buildinfo", goInfo("go1.24.1", info))))
			if err != nil || len(got) != 2 || got[1].Name != module || got[1].Version != test.want {
				t.Errorf("%v %v, want %q", names(got), err, test.want)
			}
		})
	}
}

// TestGoPlatform: what a program was built for, unless it is no such word.
func TestGoPlatform(t *testing.T) {
	for settings, want := range map[string]string{
		"build\tGOARCH=amd64\nbuild\tGOOS=linux\nbuild\tGOAMD64=v1\n": "linux/amd64",
		"build\tGOOS=linux\n":                         "",
		"build\tGOOS=../..\nbuild\tGOARCH=amd64\n":    "",
		"build\tGOOS=plan9\nbuild\tGOARCH=386\nbuild": "",
	} {
		info := "path\texample.test/app\nmod\texample.test/app\tv1.0.0\t\ndep\texample.test/lib\tv1.1.0\t\n" + settings
		got, err := lang.Executable(section(elfOf(".go.buildinfo", goInfo("go1.24.1", info))))
		if err != nil {
			t.Errorf("%q: %v", settings, err)
		}
		for _, p := range got {
			if p.Arch != want {
				t.Errorf("%q: %s is for %q, want %q", settings, p.Name, p.Arch, want)
			}
		}
		if len(got) != 3 && want != "" {
			t.Errorf("%q: %v", settings, names(got))
		}
	}
}

// quoted is how the go command writes a setting with quotes or blanks.
func quoted(s string) string { return "\"" + strings.ReplaceAll(s, `"`, `\"`) + "\"" }

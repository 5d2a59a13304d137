package dpkg_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse/internal/index/dpkg"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestParse runs testdata/*.txtar: "status" or "split" is the file, "want" one
// line per package: name version arch source sourceversion, then the error.
func TestParse(t *testing.T) {
	text.Run(t, "testdata/*.txtar", 1, func(_ *testing.T, a *txtar.Archive) string {
		return describe(string(a.Files[0].Data), a.Files[0].Name == "split")
	})
}

func describe(in string, split bool) string {
	packages, err := dpkg.Parse(strings.NewReader(in), split, 100)
	var b strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&b, "%s %s %s %s %s\n", p.Name, p.Version, p.Arch, p.SourceName(), p.SourceVer())
	}
	if err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
	}
	return b.String()
}

const installed = "Package: %s\nStatus: install ok installed\nVersion: 1\n\n"

func TestParseBounds(t *testing.T) {
	many := strings.Repeat(fmt.Sprintf(installed, "a"), 5)
	if p, err := dpkg.Parse(strings.NewReader(many), false, 3); !errors.Is(err, dpkg.ErrTooMany) || len(p) != 3 {
		t.Errorf("bound of 3: %d packages, %v", len(p), err)
	}
	long := strings.Repeat("x", 70_000)
	// A long line of a field that nobody needs is passed over.
	if p, err := dpkg.Parse(strings.NewReader("Description: "+long+"\n"+fmt.Sprintf(installed, "a")), false, 9); err != nil || len(p) != 1 {
		t.Errorf("long description: %d packages, %v", len(p), err)
	}
	// One of a field that is needed is told, and the next package is read.
	in := strings.Replace(fmt.Sprintf(installed, "a"), "1\n", long+"\n", 1) + fmt.Sprintf(installed, "b")
	if p, err := dpkg.Parse(strings.NewReader(in), false, 9); err == nil || len(p) != 1 || p[0].Name != "b" {
		t.Errorf("long version: %+v, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fmt.Sprintf(installed, "a"), false)
	f.Add("Package: a\nVersion: 1:2-3\nSource: b (4)\n", true)
	f.Fuzz(func(t *testing.T, in string, split bool) {
		packages, _ := dpkg.Parse(strings.NewReader(in), split, 50)
		if len(packages) > 50 {
			t.Errorf("%d packages", len(packages))
		}
		for _, p := range packages {
			if p.Name == "" || p.Version == "" || strings.ContainsAny(p.Name+p.Version, "\n") {
				t.Errorf("package %+v", p)
			}
		}
	})
}

func TestFiles(t *testing.T) {
	for _, test := range []struct {
		base  string
		split bool
		want  string
	}{
		{"libc6:amd64.list", false, "libc6"}, {"bash.list", false, "bash"}, {"bash.md5sums", false, ""}, {"bash.md5sums", true, "bash"},
		{"bash", true, ""}, {"libssl3", true, ""}, {"format", false, ""},
	} {
		if got := dpkg.ListPackage(test.base, test.split); got != test.want {
			t.Errorf("%s: %q, want %q", test.base, got, test.want)
		}
	}
	read := func(in string, split bool) (files []string) {
		if err := dpkg.Files(strings.NewReader(in), split, func(f string) { files = append(files, f) }); err != nil {
			t.Fatal(err)
		}
		return files
	}
	if d := cmp.Diff([]string{"/.", "/usr/bin/with  blanks", "/last"}, read("/.\n\n/usr/bin/with  blanks\n"+strings.Repeat("x", 100_000)+"\n/last", false)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"usr/bin/a", "usr/share/b  c"}, read("00  usr/bin/a\n11  usr/share/b  c\nbad\n", true)); d != "" {
		t.Error(d)
	}
}

package apk_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/apk"
)

const database = `C:Q1X2rXa3sfSkMzF5vG1Q==
P:musl
V:1.2.5-r0
A:x86_64
S:407278
I:667648
T:the musl c library
U:https://musl.libc.org/
L:MIT
o:musl
m:Timo Teras
t:1710492480
c:39eb1cf
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1LKbWsIYW3hLhmZJ4=

P:libcrypto3
V:3.3.2-r0
A:x86_64
L:Apache-2.0
o:openssl
F:V:ghost
R:P:ghost

P:last
V:1
`

func TestParse(t *testing.T) {
	want := []gatehouse.Package{
		{Type: "apk", Name: "musl", Version: "1.2.5-r0", Arch: "x86_64", Licenses: []string{"MIT"}},
		{Type: "apk", Name: "libcrypto3", Version: "3.3.2-r0", Arch: "x86_64", Source: "openssl", Licenses: []string{"Apache-2.0"}},
		{Type: "apk", Name: "last", Version: "1"},
	}
	for name, in := range map[string]string{
		"as is": database, "with CRLF": strings.ReplaceAll(database, "\n", "\r\n"), "without last newline": strings.TrimSuffix(database, "\n"),
		"with blank lines": "\n\n" + database + "\n\n",
	} {
		got, err := apk.Parse(strings.NewReader(in), 100, nil)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	if got, err := apk.Parse(strings.NewReader(""), 100, nil); err != nil || len(got) != 0 {
		t.Errorf("empty: %v %v", got, err)
	}
}

// TestOwns: files belong to the package above them.
func TestOwns(t *testing.T) {
	in := "P:py3-jinja2\nV:1\nF:usr\nF:usr/lib/python3.12/site-packages/jinja2-3.1.4.dist-info\nM:0:0:755\nR:METADATA\na:0:0:644\nZ:Q1x=\nR:RECORD\n\nP:busybox\nV:2\nF:bin\nR:busybox\nF:\nR:top\n\n"
	var got []string
	if _, err := apk.Parse(strings.NewReader(in), 9, func(file, pkg string) { got = append(got, pkg+" "+file) }); err != nil {
		t.Fatal(err)
	}
	dir := "py3-jinja2 usr/lib/python3.12/site-packages/jinja2-3.1.4.dist-info/"
	if d := cmp.Diff([]string{dir + "METADATA", dir + "RECORD", "busybox bin/busybox", "busybox top"}, got); d != "" {
		t.Error(d)
	}
}

// TestOwnsIsBounded: a database of 3 MB that stands for 4 GB of paths.
func TestOwnsIsBounded(t *testing.T) {
	in := "P:a\nV:1\nF:" + strings.Repeat("x", 4000) + "\n" + strings.Repeat("R:\n", 1_000_000)
	n := 0
	if _, err := apk.Parse(strings.NewReader(in), 9, func(file, _ string) { n += len(file) }); err != nil {
		t.Fatal(err)
	}
	if n == 0 || n > 64<<20 {
		t.Errorf("%d bytes of paths", n)
	}
}

func TestParseRefuses(t *testing.T) {
	if p, err := apk.Parse(strings.NewReader(database), 2, nil); !errors.Is(err, apk.ErrTooMany) || len(p) != 2 {
		t.Errorf("bound of 2: %d packages, %v", len(p), err)
	}
	for name, in := range map[string]string{
		"no version":   "P:a\n\n",
		"no name":      "V:1\n\n",
		"long version": "P:a\nV:" + strings.Repeat("x", 70_000) + "\n\n",
		"binary form":  "ADB.\x00\x00",
	} {
		if p, err := apk.Parse(strings.NewReader(in), 10, nil); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if p, err := apk.Parse(strings.NewReader("P:bad\n\nP:good\nV:1\n\n"), 10, nil); err == nil || len(p) != 1 || p[0].Name != "good" {
		t.Errorf("behind a bad entry: %+v %v", p, err)
	}
	// A long line of a field that nobody needs is passed over.
	if p, err := apk.Parse(strings.NewReader("P:a\np:"+strings.Repeat("x", 70_000)+"\nV:1\n\n"), 10, nil); err != nil || len(p) != 1 {
		t.Errorf("long provides: %+v %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(database)
	f.Fuzz(func(t *testing.T, in string) {
		packages, _ := apk.Parse(strings.NewReader(in), 50, func(string, string) {})
		if len(packages) > 50 {
			t.Errorf("%d packages", len(packages))
		}
		for _, p := range packages {
			if p.Name == "" || p.Version == "" {
				t.Errorf("package %+v", p)
			}
		}
	})
}

// TestParseHides: apk-tools takes a line of one character for the end of a
// package, and what it would find in two packages is not folded into one.
func TestParseHides(t *testing.T) {
	got, err := apk.Parse(strings.NewReader("P:openssl\nV:1.0\nx\nP:good\nV:2\n"), 100, nil)
	if err != nil || len(got) != 2 || got[0].Name != "openssl" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, in := range []string{"P:openssl\nV:1.0\nP:good\n", "P:openssl\nV:1.0\nV:2.0\n"} {
		if got, err := apk.Parse(strings.NewReader(in), 100, nil); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

package dpkg_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/index/dpkg"
)

func TestCopyright(t *testing.T) {
	const format = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
	for _, test := range []struct {
		name, in string
		want     []string
	}{
		{"machine-readable", format + "Upstream-Name: x\n\nFiles: *\nCopyright: 2020 A\n License: not this\nLicense: LGPL-2.1+ or MPL-2.0\n\n" +
			"Files: src/a.c\nLicense: Expat\n Permission is hereby granted\n\nFiles: debian/*\nCopyright: B\nLicense: GPL-3\n\nLicense: Expat\n text\n",
			[]string{"Expat", "LGPL-2.1+ or MPL-2.0"}},
		{"free text", "This package was debianized by X.\n\nOn Debian systems see `/usr/share/common-licenses/GPL-2'.\nAlso /usr/share/common-licenses/LGPL-2.1. License: no field\n",
			[]string{"GPL-2", "LGPL-2.1"}},
		{"free text that says Format", "Format of this file: none\nLicense: x\n", nil},
		{"nothing", "", nil},
		{"many", format + strings.Repeat("License: ", 1) + strings.Repeat("x", 500) + "\n", nil},
	} {
		got, err := dpkg.Copyright(strings.NewReader(test.in))
		if d := cmp.Diff(test.want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", test.name, err, d)
		}
	}
	var many strings.Builder
	many.WriteString(format)
	for i := range 100 {
		many.WriteString("License: l" + strings.Repeat("x", i) + "\n")
	}
	if got, err := dpkg.Copyright(strings.NewReader(many.String())); err != nil || len(got) != 32 {
		t.Errorf("%d licences, %v", len(got), err)
	}
}

// TestCopyrightOfThisSystem reads the files that Debian has: every one without
// an error, and most with a licence.
func TestCopyrightOfThisSystem(t *testing.T) {
	files, err := filepath.Glob("/usr/share/doc/*/copyright")
	if err != nil || len(files) < 50 {
		t.Skipf("this is no Debian: %d copyright files", len(files))
	}
	known := 0
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		got, err := dpkg.Copyright(f)
		f.Close()
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if len(got) > 0 {
			known++
		}
	}
	if known*10 < len(files)*8 {
		t.Errorf("of %d copyright files only %d name a licence", len(files), known)
	}
}

func FuzzCopyright(f *testing.F) {
	f.Add("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: MIT\n")
	f.Add("see /usr/share/common-licenses/GPL-2\n")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := dpkg.Copyright(strings.NewReader(in))
		if err != nil || len(got) > 32 {
			t.Errorf("%d, %v", len(got), err)
		}
		for _, l := range got {
			if l == "" || len(l) > 200 {
				t.Errorf("%q", l)
			}
		}
		_ = dpkg.Files(strings.NewReader(in), true, func(string) {})
	})
}

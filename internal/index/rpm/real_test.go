package rpm_test

import (
	"bytes"
	gocmp "cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/index/rpm"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm/rpmtest"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestRealTool has the real rpmdb write a database and compares with what the
// real rpm then says is installed. Debian's rpm writes SQLite only; for the
// other forms there are the real databases of TestDatabases.
func TestRealTool(t *testing.T) {
	rpmdb, rpmTool := tool.Need(t, "rpmdb"), tool.Need(t, "rpm")
	dir := t.TempDir()
	run := func(stdin []byte, program string, args ...string) []string {
		t.Helper()
		cmd := exec.Command(program, append([]string{"--define", "_db_backend sqlite", "--dbpath", dir}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, stderr.String())
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		slices.Sort(lines)
		return lines
	}
	run(nil, rpmdb, "--initdb")
	run(realHeaders(), rpmdb, "--importdb")
	want := run(nil, rpmTool, "-qa", "--qf", `%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{VENDOR} %{LICENSE} %|MODULARITYLABEL?{%{MODULARITYLABEL}}:{-}|\n`)
	wantFiles := run(nil, rpmTool, "-qa", "--qf", `[%{=NAME} %{FILENAMES}\n]`)

	b, err := os.ReadFile(filepath.Join(dir, "rpmdb.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	var rows, files []string
	packages, err := rpm.Parse(bytes.NewReader(b), int64(len(b)), 1000, func(file, pkg string) { files = append(files, pkg+" "+file) })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		rows = append(rows, strings.Join([]string{p.Name, p.Version, p.Arch, p.Vendor, strings.Join(p.Licenses, ""), gocmp.Or(p.Modularity, "-")}, " "))
	}
	slices.Sort(rows)
	slices.Sort(files)
	if d := cmp.Diff(want, rows); d != "" {
		t.Errorf("-rpm +ours:\n%s", d)
	}
	if d := cmp.Diff(wantFiles, files); d != "" {
		t.Errorf("files: -rpm +ours:\n%s", d)
	}
}

// realHeaders is a list of package headers as rpmdb --importdb takes it.
func realHeaders() []byte {
	var out []byte
	for i, vendor := range []string{"AlmaLinux", "Red Hat, Inc.", "SUSE LLC <https://www.suse.com/>"} {
		for j := range 40 {
			tags := []rpmtest.Tag{
				{Tag: 1000, Text: fmt.Sprintf("p%d-%02d", i, j)}, {Tag: 1001, Text: fmt.Sprintf("%d.%d", i, j)}, {Tag: 1002, Text: "4.el9_2"},
			}
			if j%3 == 0 {
				tags = append(tags, rpmtest.Tag{Tag: 1003, Nums: []uint32{uint32(j)}})
			}
			tags = append(tags, rpmtest.Tag{Tag: 1011, Text: vendor}, rpmtest.Tag{Tag: 1014, Text: "GPLv2+ and MIT"},
				rpmtest.Tag{Tag: 1021, Text: "linux"}, rpmtest.Tag{Tag: 1022, Text: "x86_64"}, rpmtest.Tag{Tag: 1044, Text: fmt.Sprintf("p%d-%d.%d-4.el9_2.src.rpm", i, i, j)})
			tags = append(tags, rpmtest.Files(
				[2]string{"/usr/bin/", fmt.Sprintf("tool%d%d", i, j)}, [2]string{fmt.Sprintf("/usr/lib/python3.9/site-packages/p%d_%d.dist-info/", i, j), "METADATA"},
				[2]string{"/usr/bin/", fmt.Sprintf("other%d%d", i, j)})...)
			if j%5 == 0 {
				tags = append(tags, rpmtest.Tag{Tag: 5096, Text: "nodejs:18:9020020230327152102:rhel9"})
			}
			out = append(out, "\x8e\xad\xe8\x01\x00\x00\x00\x00"...)
			out = append(out, rpmtest.Header(tags...)...)
		}
	}
	return out
}

// TestFiles: who owns a file, in every form of a header, and in headers that lie.
func TestFiles(t *testing.T) {
	owned := func(blob []byte) []string {
		var list []string
		b := rpmtest.NDB(blob)
		if _, err := rpm.Parse(bytes.NewReader(b), int64(len(b)), 10, func(file, pkg string) { list = append(list, pkg+" "+file) }); err != nil {
			t.Fatal(err)
		}
		return list
	}
	files := rpmtest.Files([2]string{"/usr/bin/", "a"}, [2]string{"/etc/", "b"}, [2]string{"/usr/bin/", "c"})
	if d := cmp.Diff([]string{"p /usr/bin/a", "p /etc/b", "p /usr/bin/c"}, owned(rpmtest.Package("p", "1", "1", files...))); d != "" {
		t.Error(d)
	}
	old := rpmtest.Tag{Tag: 1027, List: []string{"/bin/sh", "/etc/x"}}
	if d := cmp.Diff([]string{"p /bin/sh", "p /etc/x"}, owned(rpmtest.Package("p", "1", "1", old))); d != "" {
		t.Errorf("whole paths: %s", d)
	}
	for name, lie := range map[string][]rpmtest.Tag{
		"folder that is not there":  {{Tag: 1116, Nums: []uint32{9, 9}}, {Tag: 1117, List: []string{"a", "b"}}, {Tag: 1118, List: []string{"/"}}},
		"fewer numbers than names":  {{Tag: 1117, List: make([]string, 1000)}, {Tag: 1118, List: []string{"/"}}, {Tag: 1116, Nums: []uint32{0}}},
		"folder longer than a path": {{Tag: 1116, Nums: []uint32{0}}, {Tag: 1117, List: []string{"a"}}, {Tag: 1118, List: []string{"/" + strings.Repeat("x", 5000)}}},
		"no folders":                {{Tag: 1116, Nums: []uint32{0}}, {Tag: 1117, List: []string{"a"}}},
	} {
		if got := owned(rpmtest.Package("p", "1", "1", lie...)); len(got) != 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestFilesAreBounded: a header of 6 MB that stands for 4 GB of paths.
func TestFilesAreBounded(t *testing.T) {
	names := make([]string, 1_000_000)
	lie := []rpmtest.Tag{{Tag: 1116, Nums: make([]uint32, len(names))}, {Tag: 1117, List: names}, {Tag: 1118, List: []string{"/" + strings.Repeat("x", 4000)}}}
	b := rpmtest.NDB(rpmtest.Package("p", "1", "1", lie...))
	var bytesOfPaths int64
	if _, err := rpm.Parse(bytes.NewReader(b), int64(len(b)), 10, func(file, _ string) { bytesOfPaths += int64(len(file)) }); err != nil {
		t.Fatal(err)
	}
	if bytesOfPaths == 0 || bytesOfPaths > 64<<20 {
		t.Errorf("%d bytes of paths", bytesOfPaths)
	}
}

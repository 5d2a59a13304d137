package index_test

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestFindingsOfLayers runs testdata/findings/*.txtar, as TestCompose does. want
// has the findings of files and the files with digests that the image has.
//
//	secret PATH NAME      a text file with a token of that name
//	mode PATH MODE        a file of that octal mode
//	dir PATH MODE         a directory of that octal mode
//	file PATH             a text file without anything
//	script PATH WORD      a script
//	symlink PATH TARGET | link PATH TARGET
//	whiteout PATH         PATH is created as an empty file as written
func TestFindingsOfLayers(t *testing.T) {
	text.Run(t, "testdata/findings/*.txtar", 1, func(t *testing.T, a *txtar.Archive) string {
		return printFindings(layersIn(t, a, findingEntry))
	})
}

// tokenOf is a token as GitHub's, made of name.
func tokenOf(name string) string {
	return "ghp_" + (name + strings.Repeat("a1B2c3D4e5F6", 4))[:36]
}

func findingEntry(t *testing.T, f []string) entry {
	t.Helper()
	mode := func(s string) int64 {
		m, err := strconv.ParseInt(s, 8, 64)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	switch f[0] {
	case "secret":
		return entry{name: f[1], body: "login = " + tokenOf(f[2]) + "\n"}
	case "mode":
		return entry{name: f[1], body: "text\n", mode: mode(f[2])}
	case "dir":
		return entry{name: f[1] + "/", kind: tar.TypeDir, mode: mode(f[2])}
	case "script":
		return entry{name: f[1], body: "#!/bin/sh\n" + f[2] + "\n", mode: 0o755}
	case "file", "whiteout":
		return entry{name: f[1], body: "text\n"}
	case "symlink":
		return entry{name: f[1], kind: tar.TypeSymlink, link: f[2], mode: 0o777}
	case "link":
		return entry{name: f[1], kind: tar.TypeLink, link: f[2]}
	}
	t.Fatalf("unknown entry %q", f)
	return entry{}
}

func printFindings(layers []gatehouse.LayerInventory) string {
	var b strings.Builder
	number := func(d gatehouse.Digest) int {
		for i, l := range layers {
			if l.DiffID == d {
				return i
			}
		}
		return -1
	}
	inv := index.Compose(layers, gatehouse.ImageConfig{}, "")
	for _, f := range inv.Findings {
		if f.Location.Origin != "file" {
			continue
		}
		state := ""
		if f.Location.Deleted {
			state = " deleted"
		}
		fmt.Fprintf(&b, "%s %s layer %d%s\n", f.ID, f.Package.Path, number(f.Package.Layer), state)
	}
	for _, f := range inv.Files {
		fmt.Fprintf(&b, "file %s %d layer %d\n", f.Path, f.Size, number(f.Layer))
	}
	return b.String()
}

// TestNodeapp: what is wrong with the configuration of a real image.
func TestNodeapp(t *testing.T) {
	_, inv := indexImage(t, loadImage(t, "nodeapp.tar"))
	type row struct{ ID, Origin, Name string }
	got := map[row]bool{}
	for _, f := range inv.Findings {
		got[row{f.ID, f.Location.Origin, f.Location.Name}] = true
		if strings.Contains(f.Location.Excerpt, "IOSFODNN7") || strings.Contains(f.Location.Excerpt, "K7MDENG") {
			t.Errorf("the excerpt %q shows a key", f.Location.Excerpt)
		}
	}
	want := map[row]bool{
		{"GHM001", "config", "User"}: true, {"GHM002", "config", "Healthcheck"}: true, {"GHM007", "config", "ExposedPorts"}: true,
		{"GHM003", "env", "AWS_ACCESS_KEY_ID"}: true, {"GHM003", "env", "AWS_SECRET_ACCESS_KEY"}: true,
		{"aws-access-key-id", "env", "AWS_ACCESS_KEY_ID"}: true, {"aws-secret-access-key", "env", "AWS_SECRET_ACCESS_KEY"}: true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestRealImagesHaveNoFileFindings: files of distributions are no findings.
func TestRealImagesHaveNoFileFindings(t *testing.T) {
	for _, name := range []string{"alpine-3.20.3.tar", "debian-bookworm.tar", "alma8.tar"} {
		_, inv := indexImage(t, loadImage(t, name))
		for _, f := range inv.Findings {
			if f.Location.Origin == "file" {
				t.Errorf("%s: %s in %s: %s", name, f.ID, f.Package.Path, f.Location.Excerpt)
			}
		}
	}
}

// TestFiles: what is hashed, and with which digest.
func TestFiles(t *testing.T) {
	elf, zip := "\x7fELF"+strings.Repeat("x", 200_000), "PK\x03\x04"+strings.Repeat("y", 100)
	inv := layerOf(t, index.Limits{MemoryMax: 1000}, tarOf(t,
		entry{name: "usr/bin/tool", body: elf, mode: 0o755}, entry{name: "usr/lib/libx.so", body: elf},
		entry{name: "app/run", body: "#!/bin/sh\n", mode: 0o755}, entry{name: "app/x.ps1", body: "Get-Item"}, entry{name: "app/x.zip", body: zip},
		entry{name: "app/x.txt", body: "text"}, entry{name: "app/empty", mode: 0o755}, entry{name: "app/x.tar.gz", body: "\x1f\x8bxx"}, entry{name: "app/man.1.gz", body: "\x1f\x8bxx"},
		entry{name: "usr/bin/alias", kind: tar.TypeLink, link: "usr/bin/tool", mode: 0o755}))
	got := map[string]gatehouse.Digest{}
	for _, f := range inv.Files {
		got[f.Path] = f.Digest
	}
	want := map[string]gatehouse.Digest{
		"usr/bin/tool": digest([]byte(elf)), "usr/bin/alias": digest([]byte(elf)), "usr/lib/libx.so": digest([]byte(elf)), "app/run": digest([]byte("#!/bin/sh\n")),
		"app/x.ps1": digest([]byte("Get-Item")), "app/x.zip": digest([]byte(zip)), "app/x.tar.gz": digest([]byte("\x1f\x8bxx")),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSkip(t *testing.T) {
	skip, err := index.NewSkip([]string{"/usr/share", "**/testdata"}, []string{"app/*.tmp", "**/skip.me"})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{
		"usr/share/x", "usr/share/doc/x", "usr/shared/x", "app/testdata/x", "testdata/x", "a/b/testdata/c/x", "app/testdata2",
		"app/a.tmp", "app/b/a.tmp", "skip.me", "a/b/skip.me", "skip.me.not",
	}
	var entries []entry
	for _, name := range names {
		entries = append(entries, entry{name: name, body: "t = " + tokenOf("x") + "\n"})
	}
	what := index.All()
	what.Skip = skip
	layer, err := index.Layer(t.Context(), strings.NewReader(string(tarOf(t, entries...))), index.Limits{}, what)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range layer.Findings {
		got = append(got, f.Package.Path)
	}
	if d := cmp.Diff([]string{"app/b/a.tmp", "app/testdata2", "skip.me.not", "usr/shared/x"}, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"", "..", "/", "[", "../x"} {
		if _, err := index.NewSkip([]string{bad}, nil); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestRootfsFindings: a directory is looked at as a layer is.
func TestRootfsFindings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "app/config.ini", "token = "+tokenOf("x")+"\n")
	write(t, dir, "etc/passwd", "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n")
	write(t, dir, "app/run", "#!/bin/sh\n")
	layer, err := index.Rootfs(t.Context(), rootOf(t, dir), index.Limits{}, index.All())
	if err != nil {
		t.Fatal(err)
	}
	inv := index.Compose([]gatehouse.LayerInventory{layer}, gatehouse.ImageConfig{}, "")
	var got []string
	for _, f := range inv.Findings {
		got = append(got, f.ID+" "+f.Package.Path)
	}
	if d := cmp.Diff([]string{"github-pat app/config.ini", "GHM104 etc/passwd"}, got); d != "" {
		t.Error(d)
	}
	if len(inv.Files) != 1 || inv.Files[0].Path != "app/run" {
		t.Errorf("%+v", inv.Files)
	}
}

func rootOf(t *testing.T, dir string) fs.FS {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root.FS()
}

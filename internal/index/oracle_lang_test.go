package index_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor/filesystem"
	"github.com/google/osv-scalibr/extractor/filesystem/language/golang/gobinary"
	"github.com/google/osv-scalibr/extractor/filesystem/language/javascript/packagejson"
	"github.com/google/osv-scalibr/extractor/filesystem/language/python/wheelegg"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// TestLanguagesAgainstScalibr indexes what this system has installed of npm,
// Python and Go, as far as it has, and gives the same files to osv-scalibr's
// extractors.
func TestLanguagesAgainstScalibr(t *testing.T) {
	for _, test := range []struct {
		name, dir string
		build     func(*cpb.PluginConfig) (filesystem.Extractor, error)
	}{
		{"npm", "/usr/lib/node_modules", packagejson.New}, {"npm", "/usr/share/nodejs", packagejson.New},
		{"python", "/usr/lib/python3/dist-packages", wheelegg.New}, {"executable", goBin(t), gobinary.New},
	} {
		t.Run(test.name+" "+filepath.Base(test.dir), func(t *testing.T) {
			if _, err := os.Stat(test.dir); err != nil {
				t.Log(err) // Go's is there wherever this test runs
				return
			}
			root, err := os.OpenRoot(filepath.Dir(test.dir)) // node_modules is part of the name
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			layer, err := index.Rootfs(t.Context(), prefixed(t, root, filepath.Base(test.dir)), index.Limits{}, index.Packages())
			if err != nil {
				t.Fatal(err)
			}
			oracle, err := test.build(&cpb.PluginConfig{})
			if err != nil {
				t.Fatal(err)
			}
			compared, refused := 0, 0
			for _, set := range layer.Sets {
				if set.Extractor != test.name {
					continue
				}
				want, ok := scalibrOn(t, oracle, root, set.Path)
				if !ok {
					refused++ // a field that nobody needs has a type that it does not expect
					continue
				}
				compared++
				if d := cmp.Diff(want, rowsOfSet(set)); d != "" {
					t.Errorf("%s: -osv-scalibr +ours:\n%s", set.Path, d)
				}
			}
			t.Logf("%d files compared, %d refused by osv-scalibr", compared, refused)
			if test.name == "executable" && compared == 0 {
				t.Error("no executable of Go was compared")
			}
			if refused > compared/4 {
				t.Errorf("osv-scalibr refuses %d files and reads %d", refused, compared)
			}
		})
	}
}

// goBin is where the go command lies.
func goBin(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "bin")
}

// prefixed copies one folder of root, without links, into a file system where it
// has its name: Rootfs leaves nothing out of it.
func prefixed(t *testing.T, root *os.Root, folder string) fstest.MapFS {
	t.Helper()
	const filesMax, sizeMax = 20_000, 64 << 20
	files := fstest.MapFS{}
	err := filepath.WalkDir(filepath.Join(root.Name(), folder), func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(files) > filesMax {
			return nil
		}
		info, err := d.Info()
		base := filepath.Base(name)
		wanted := base == "package.json" || base == "METADATA" || base == "PKG-INFO" || filepath.Ext(base) == ".egg-info" || folder == "bin"
		if err != nil || !wanted || info.Size() > sizeMax {
			return nil
		}
		rel, err := filepath.Rel(root.Name(), name)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(name)
		files[filepath.ToSlash(rel)] = &fstest.MapFile{Data: body, Mode: info.Mode()}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// scalibrOn returns the rows that osv-scalibr reads from a file; ok is false for
// one that it refuses.
func scalibrOn(t *testing.T, e filesystem.Extractor, root *os.Root, name string) (rows []string, ok bool) {
	t.Helper()
	f, err := root.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	body, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	found, err := e.Extract(t.Context(), &filesystem.ScanInput{FS: fstest.MapFS{}, Path: name, Info: info, Reader: bytes.NewReader(body)})
	if err != nil {
		return nil, false
	}
	rows = []string{}
	for _, p := range found.Packages {
		if p.Name == "go" { // its name of the standard library
			p.Name = "stdlib"
		}
		if p.Version == "(devel)" {
			p.Version = ""
		}
		rows = append(rows, p.Name+" "+p.Version)
	}
	slices.Sort(rows)
	return rows, true
}

func rowsOfSet(set gatehouse.PackageSet) []string {
	rows := []string{}
	for _, p := range set.Packages {
		rows = append(rows, p.Name+" "+p.Version)
	}
	slices.Sort(rows)
	return rows
}

package index_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

func write(t *testing.T, root, name, body string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRootfs indexes a directory whose links lead out of it, and beside a pipe
// on which a careless reader would wait for ever.
func TestRootfs(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, "node_modules/ghost/package.json", npmBody("ghost", "1.0.0"))
	write(t, outside, "installed", apkBody("ghost=1"))
	write(t, dir, "etc/os-release", "ID=alpine\nVERSION_ID=3.20.1\n")
	write(t, dir, "usr/lib/apk/db/installed", apkBody("musl=1"))
	write(t, dir, "app/node_modules/a/package.json", npmBody("a", "1.0.0"))
	write(t, dir, "proc/node_modules/p/package.json", npmBody("p", "1.0.0"))
	for link, target := range map[string]string{
		"app/node_modules/out": filepath.Join(outside, "node_modules/ghost"),
		"lib":                  "usr/lib",
		"srv":                  "..",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "var/lib/dpkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "var/lib/dpkg/status"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	layer, err := index.Rootfs(t.Context(), root.FS(), index.Limits{}, index.All())
	if err != nil {
		t.Fatal(err)
	}
	inv := index.Compose([]gatehouse.LayerInventory{layer}, gatehouse.ImageConfig{}, "")
	want := gatehouse.Inventory{
		Indexer: index.All().Version(), Complete: true,
		Distro: gatehouse.Distro{ID: "alpine", VersionID: "3.20.1"},
		Packages: []gatehouse.Package{
			{Type: "npm", Name: "a", Version: "1.0.0", Path: "app/node_modules/a/package.json"},
			{Type: "apk", Name: "musl", Version: "1", Arch: "x86_64", Path: "usr/lib/apk/db/installed"},
		},
	}
	if d := cmp.Diff(want, inv); d != "" {
		t.Error(d)
	}
}

// failingFS fails for some names.
type failingFS struct{ fstest.MapFS }

func (f failingFS) Open(name string) (fs.File, error) {
	if name == "locked" || name == "app/node_modules/bad/package.json" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.MapFS.Open(name)
}

func (f failingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == "locked" {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrPermission}
	}
	return f.MapFS.ReadDir(name)
}

func TestRootfsTellsWhatCannotBeRead(t *testing.T) {
	files := failingFS{fstest.MapFS{
		"app/node_modules/a/package.json":   {Data: []byte(npmBody("a", "1.0.0"))},
		"app/node_modules/bad/package.json": {Data: []byte(npmBody("bad", "1.0.0"))},
		"locked/x":                          {},
	}}
	inv, err := index.Rootfs(t.Context(), files, index.Limits{}, index.All())
	if err != nil || inv.Complete || len(inv.Sets) != 1 || len(inv.Incomplete) != 2 ||
		!hasReason(inv.Incomplete, `"locked"`) || !hasReason(inv.Incomplete, `"app/node_modules/bad/package.json"`) {
		t.Errorf("%v %+v", err, inv)
	}
}

func TestRootfsEnds(t *testing.T) {
	many := fstest.MapFS{}
	for i := range 600 {
		many[string(rune('a'+i%26))+"/"+string(rune('0'+i/26))] = &fstest.MapFile{}
	}
	if inv, err := index.Rootfs(t.Context(), many, index.Limits{EntriesMax: 100}, index.Analysis{}); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge || inv.Complete {
		t.Errorf("bound of 100 entries: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if inv, err := index.Rootfs(ctx, many, index.Limits{}, index.Analysis{}); !errors.Is(err, context.Canceled) || inv.Complete {
		t.Errorf("cancelled: %v", err)
	}
	if inv, err := index.Rootfs(t.Context(), os.DirFS("/nonexistent"), index.Limits{}, index.Analysis{}); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || inv.Complete {
		t.Errorf("no directory: %v", err)
	}
}

package disk_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/blobtest"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
)

func open(t *testing.T, dir string) *disk.Store {
	t.Helper()
	s, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	dirs := map[blob.Store]string{}
	blobtest.Run(t, func(t *testing.T) blob.Store {
		dir := filepath.Join(t.TempDir(), "data")
		s := open(t, dir)
		dirs[s] = dir
		return s
	}, func(t *testing.T, s blob.Store) blob.Store {
		again := open(t, dirs[s])
		dirs[again] = dirs[s]
		return again
	})
}

// TestLayout keeps the promise of the data directory: unfinished bytes lie
// under uploads/ only, finished ones under blobs/ only.
func TestLayout(t *testing.T) {
	dir := t.TempDir()
	s, key := open(t, dir), blob.NewKey(time.Now())
	w, err := s.Write(t.Context(), key, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "bytes")
	wantFiles(t, dir, "uploads/*", 1)
	wantFiles(t, dir, "blobs/*/*", 0)
	if _, err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), key, 5, nil); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "uploads/*", 0)
	wantFiles(t, dir, "blobs/"+key, 1)
	f, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := f.(*os.File); !ok {
		t.Errorf("Open returned %T: sendfile needs an *os.File", f)
	}
}

func wantFiles(t *testing.T, dir, pattern string, want int) {
	t.Helper()
	got, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != want {
		t.Errorf("%s matches %v, want %d files", pattern, got, want)
	}
}

// TestForeignFiles: what others left in the directory is neither listed nor in
// the way.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	s, key := open(t, dir), blob.NewKey(time.Now())
	if _, err := blob.Put(t.Context(), s, key, strings.NewReader("ours")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"blobs/lost+found", "uploads/lost+found"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"blobs/README", "blobs/lost+found/#123", "uploads/x", "uploads/.nfs0001", "blobs/" + key[:3] + "short"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("theirs"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.List(t.Context(), "", 10)
	if err != nil || len(list) != 1 || list[0].Key != key {
		t.Errorf("List = %v, %v, want the one object", list, err)
	}
}

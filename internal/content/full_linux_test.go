package content_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestDiskFull fills the file system under bytes and rows alike: pushes fail
// with a clear error, nothing is stored by half, and the registry goes on when
// there is room again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	c, d, err := openDir(t.Context(), place{dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	s := &contenttest.Suite{T: t, C: c}
	kept := s.Push("a/b", contenttest.Image{Config: "{}", Layers: []string{"a layer that was there before"}}, "v1")
	// Bytes.
	u := s.Start("a/b", "")
	n, err := u.Append(t.Context(), 0, strings.NewReader(strings.Repeat("x", 16<<20)))
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !errors.Is(err, syscall.ENOSPC) || gatehouse.HintOf(err) == "" {
		t.Fatalf("Append on a full disk = %v", err)
	}
	if n != 0 || u.Offset() != 0 {
		t.Errorf("the offset is %d after a failed append", n)
	}
	if err := u.Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSound(t, c)
	// Rows.
	text := strings.Repeat("y", content.InlineMax-8)
	for i := 0; ; i++ {
		if i > 1000 {
			t.Fatal("the disk does not fill")
		}
		if err := pushBlob(t.Context(), c, text+string(rune('0'+i))); err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || gatehouse.HintOf(err) == "" {
				t.Fatalf("a push into a full database = %v (hint %q)", err, gatehouse.HintOf(err))
			}
			break
		}
	}
	if m, err := c.ManifestByTag(t.Context(), "a/b", "v1"); err != nil || m.Digest != kept.Digest {
		t.Errorf("reading while the disk is full: %v", err)
	}
	// Room again.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if _, err := push(t.Context(), c); err != nil {
		t.Fatalf("there is room again, but: %v", err)
	}
	wantSound(t, c)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := db.OpenSQLite(t.Context(), filepath.Join(dir, "gatehouse.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

package disk_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// TestFull fills a real file system.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	s := open(t, dir)
	_, err := blob.Put(t.Context(), s, blob.NewKey(time.Now()), bytes.NewReader(make([]byte, 4<<20)))
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Put on a full disk = %v (code %s)", err, gatehouse.CodeOf(err))
	}
	if gatehouse.HintOf(err) == "" {
		t.Error("the error has no hint")
	}
	list, err := s.List(t.Context(), "", 10)
	if err != nil || len(list) != 0 {
		t.Fatalf("a failed Put left %v, %v", list, err)
	}
	// A sitting that fails gives its room back, and the earlier one stays.
	key := blob.NewKey(time.Now())
	w, err := s.Write(t.Context(), key, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "first")
	state, err := w.Close(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w, err = s.Write(t.Context(), key, 5, state); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 4<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Write on a full disk = %v", err)
	}
	w.Abort()
	if _, err := blob.Put(t.Context(), s, blob.NewKey(time.Now()), bytes.NewReader(make([]byte, 512<<10))); err != nil {
		t.Fatalf("there is room again, but Put = %v", err)
	}
	if err := s.Publish(t.Context(), key, 5, state); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestDatabaseHasOneWriter: who changes the file waits for others that do, and
// what a process left that was killed goes.
func TestDatabaseHasOneWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "advisories.db")
	if err := os.Mkdir(path+tempPattern+"old", 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	a := &app{stderr: &said, stdout: io.Discard, getenv: func(string) string { return "" }}
	first, err := a.openDatabase(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + tempPattern + "old"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.openDatabase(gone, path); !errors.Is(err, context.Canceled) {
		t.Errorf("a second writer while the first one has it: %v", err)
	}
	if !strings.Contains(said.String(), "waiting for another gatehouse") {
		t.Errorf("it says %q", said.String())
	}
	first.close()
	// Many at once: each is alone.
	var all sync.WaitGroup
	var inside sync.Mutex
	for range 8 {
		all.Go(func() {
			a := &app{stderr: io.Discard, stdout: io.Discard, getenv: func(string) string { return "" }}
			d, err := a.openDatabase(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if !inside.TryLock() {
				t.Error("two have the database")
			} else {
				inside.Unlock()
			}
			d.close()
		})
	}
	all.Wait()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "advisories.db.lock" {
		t.Errorf("left: %v, %v", files, err)
	}
}

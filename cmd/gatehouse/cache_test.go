package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestCacheIsBounded: a full folder loses its older half, and of versions only
// the newest stay.
func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	a := &app{getenv: func(string) string { return "" }}
	f := a.folder(dir, "layers", "one", 10)
	old := time.Now().Add(-time.Hour)
	for i := range 10 {
		name := fmt.Sprintf("%d.json", i)
		f.put(name, i)
		at := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(filepath.Join(f.dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	f.put("new.json", 11)
	var got int
	if f.get("4.json", &got) || !f.get("5.json", &got) || !f.get("new.json", &got) || got != 11 {
		left, _ := os.ReadDir(f.dir)
		t.Errorf("left are %v", left)
	}
	for i := range 2 * versionsKept {
		a.folder(dir, "layers", fmt.Sprint(i), 10).put("x.json", i)
	}
	left, err := os.ReadDir(filepath.Join(dir, "layers"))
	if err != nil || len(left) != versionsKept {
		t.Errorf("%d versions are left, want %d", len(left), versionsKept)
	}
	if !a.folder(dir, "layers", fmt.Sprint(2*versionsKept-1), 10).get("x.json", &got) {
		t.Error("the newest version is gone")
	}
	if (folder{}).get("x", &got) { // no directory: nothing is known, and nothing fails
		t.Error("something is known without a directory")
	}
	folder{}.put("x", 1)
}

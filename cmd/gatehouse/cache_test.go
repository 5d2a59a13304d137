package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

// TestInputIdentity: a layout has another identity as soon as one of its files is
// another, whatever its name and size are.
func TestInputIdentity(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("files have identities on Linux only")
	}
	dir := t.TempDir()
	blob := filepath.Join(dir, "blobs", "sha256", "0123")
	if err := os.MkdirAll(filepath.Dir(blob), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settled := func() (id string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); id == ""; time.Sleep(10 * time.Millisecond) {
			if id = inputIdentity(dir); time.Now().After(end) {
				t.Fatal("it does not settle")
			}
		}
		return id
	}
	write(filepath.Join(dir, "index.json"), "{}")
	write(blob, "one")
	if id := inputIdentity(dir); id != "" {
		t.Errorf("without oci-layout, and just written, it is %s", id)
	}
	write(filepath.Join(dir, "oci-layout"), "{}")
	first := settled()
	if again := inputIdentity(dir); again != first {
		t.Errorf("nothing changed: %s, then %s", first, again)
	}
	write(blob, "two")
	second := settled()
	write(filepath.Join(filepath.Dir(blob), "4567"), "more")
	third := settled()
	if second == first || third == second {
		t.Errorf("changes are not seen: %s, %s, %s", first, second, third)
	}
	if id := inputIdentity(filepath.Join(dir, "nothing")); id != "" {
		t.Errorf("what is not there is %s", id)
	}
}

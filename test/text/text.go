// Package text runs tests whose cases are text: files in txtar form that hold what
// goes in, under names of the test's own, and in the part "want" what has to come
// out. Adding a case is adding a file.
package text

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the want parts of testdata")

// Run runs f as a subtest for each file that pattern matches, of which there must
// be at least so many, and compares what it returns with the part "want". With
// -update it rewrites that part instead.
func Run(t *testing.T, pattern string, least int, f func(t *testing.T, a *txtar.Archive) string) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) < least {
		t.Fatalf("%s: %d cases, want %d at least: %v", pattern, len(paths), least, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := Part(a, "want")
			if want == nil {
				t.Fatal("there is no part want")
			}
			got := f(t, a)
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want.Data), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// Part returns the part of that name, nil where there is none.
func Part(a *txtar.Archive, name string) *txtar.File {
	for i := range a.Files {
		if a.Files[i].Name == name {
			return &a.Files[i]
		}
	}
	return nil
}

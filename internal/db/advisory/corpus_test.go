package advisory_test

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
)

// shared finds the folder of real advisories and images, which is no part of
// this project.
func shared(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SHARED")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for !exists(filepath.Join(root, "go.mod")) {
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared")
	}
	if data := filepath.Join(dir, "data"); exists(data) {
		return data
	}
	t.Skip("shared/data is not here: " + dir)
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// feeds streams every zip of the corpus.
func feeds(t testing.TB, dir string) iter.Seq2[gatehouse.Advisory, error] {
	t.Helper()
	zips, err := filepath.Glob(filepath.Join(dir, "osv", "*.zip"))
	if err != nil || len(zips) == 0 {
		t.Fatal("no zips: ", err)
	}
	return func(yield func(gatehouse.Advisory, error) bool) {
		for _, name := range zips {
			if !feedOne(t, name, yield) {
				return
			}
		}
	}
}

func feedOne(t testing.TB, name string, yield func(gatehouse.Advisory, error) bool) bool {
	f, err := os.Open(name)
	if err != nil {
		t.Error(err)
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Error(err)
		return false
	}
	for a, err := range osv.Read(context.Background(), filepath.Base(name), f, info.Size(), osv.DefaultLimits()) {
		if !yield(a, err) {
			return false
		}
	}
	return true
}

func TestCorpus(t *testing.T) {
	dir := shared(t)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "advisories.db")
	start := time.Now()
	m, err := advisory.Build(ctx, path, "", advisory.Info{BuiltAt: start, Source: "corpus"}, feeds(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records, %d names, %d bytes, built in %v", m.Records, m.Names, info.Size(), time.Since(start).Round(time.Millisecond))
	if m.Records != 23922 {
		t.Errorf("%d records, the corpus has 23,922", m.Records)
	}
	covered := map[string]bool{}
	for _, s := range m.Spaces {
		covered[s.Name] = s.Covered
	}
	for space, want := range map[string]bool{
		"Debian:12": true, "Alpine:v3.10": true, "AlmaLinux:9": true, "npm": true, "Go": true, "Maven": true,
		"NuGet": false, "SwiftURL": false, // only mentioned by records of other ecosystems
	} {
		if covered[space] != want {
			t.Errorf("%s covered: %v, want %v", space, covered[space], want)
		}
	}
	// One more record on top of all of them.
	start = time.Now()
	next := filepath.Join(filepath.Dir(path), "next.db")
	m, err = advisory.Build(ctx, next, path, advisory.Info{BuiltAt: start, Parent: m.Digest}, one(gatehouse.Advisory{
		ID: "CVE-2099-0001", Affected: []gatehouse.Affected{{Space: "Debian:12", Name: "openssl", Versions: []string{"1"}}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("one more record in %v", time.Since(start).Round(time.Millisecond))
	if m.Records != 23923 || m.Changed != 1 {
		t.Errorf("%d records, %d names changed, want 23923 and 1", m.Records, m.Changed)
	}
	// All feeds read again over what has them: nothing is new, and the file
	// does not grow.
	start = time.Now()
	again := filepath.Join(filepath.Dir(path), "again.db")
	m, err = advisory.Build(ctx, again, path, advisory.Info{Parent: m.Digest}, feeds(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the same again in %v", time.Since(start).Round(time.Millisecond))
	after, err := os.Stat(again)
	if err != nil || after.Size() > info.Size()+info.Size()/50 {
		t.Errorf("%v: grew from %d to %d bytes", err, info.Size(), after.Size())
	}
	if m.Changed != 0 || m.Records != 23922 {
		t.Errorf("%d of %d names changed in %d records", m.Changed, m.Names, m.Records)
	}
}

func one(list ...gatehouse.Advisory) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		for _, a := range list {
			if !yield(a, nil) {
				return
			}
		}
	}
}

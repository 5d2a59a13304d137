package feed_test

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed"
)

// shared finds the folder of real advisories and images, which is no part of
// this project.
func shared(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("shared/data is not here: ", err)
	}
	return dir
}

// publications opens every zip of the corpus as the whole of its ecosystem, and
// the catalog.
func publications(t testing.TB, dir string) []gatehouse.Publication {
	t.Helper()
	zips, err := filepath.Glob(filepath.Join(dir, "osv", "*.zip"))
	if err != nil || len(zips) == 0 {
		t.Fatal("no zips: ", err)
	}
	var out []gatehouse.Publication
	for _, name := range append(zips, filepath.Join(dir, "kev", "known_exploited_vulnerabilities.json.zip")) {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		f, err := feed.Open(context.Background(), filepath.Base(name), file, info.Size(), feed.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if f.Format == gatehouse.FormatOSV {
			f.Feed, f.Whole = "osv/"+filepath.Base(name), true
		}
		out = append(out, f.Publication)
	}
	return out
}

// TestCorpus builds generations of real feeds, in three steps: all of them, one
// record more, and all of them once more.
func TestCorpus(t *testing.T) {
	dir := shared(t)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "advisories.db")
	m, size := build(t, path, "", publications(t, dir)...)
	t.Logf("%d records, %d names, %d bytes", m.Records, m.Names, size)
	if m.Records != 23922 || len(m.Feeds) != 11 || m.Shared != 0 {
		t.Errorf("%d records of %d feeds, %d ids in several; the corpus has 23,922 of ten ecosystems, and a catalog", m.Records, len(m.Feeds), m.Shared)
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
	f, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log4shell := []gatehouse.Finding{{ID: "GHSA-jfh8-c2jp-5v3q", Aliases: []string{"CVE-2021-44228"}}}
	if err := f.Enrich(ctx, log4shell); err != nil || log4shell[0].KEV == nil {
		t.Errorf("Log4Shell is not known to be exploited: %v", err)
	}
	next := filepath.Join(filepath.Dir(path), "next.db")
	m, _ = build(t, next, path, gatehouse.Publication{Feed: "osv", Format: gatehouse.FormatOSV, Records: slice(gatehouse.Advisory{
		ID: "CVE-2099-0001", Affected: []gatehouse.Affected{{Space: "Debian:12", Name: "openssl", Versions: []string{"1"}}},
	})})
	if m.Records != 23923 || m.Changed != 1 {
		t.Errorf("%d records, %d names changed, want 23923 and 1", m.Records, m.Changed)
	}
	// All feeds read again over what has them: nothing is new, and the file
	// does not grow.
	m, after := build(t, filepath.Join(filepath.Dir(path), "again.db"), path, publications(t, dir)...)
	if after > size+size/50 {
		t.Errorf("grew from %d to %d bytes", size, after)
	}
	if m.Changed != 0 || m.Records != 23922 {
		t.Errorf("%d of %d names changed in %d records", m.Changed, m.Names, m.Records)
	}
}

func build(t *testing.T, path, prev string, pubs ...gatehouse.Publication) (advisory.Meta, int64) {
	t.Helper()
	start := time.Now()
	m, err := advisory.BuildAll(context.Background(), path, prev, advisory.Info{BuiltAt: start, Parent: gatehouse.DigestOf([]byte(prev))}, pubs)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s in %v", filepath.Base(path), time.Since(start).Round(time.Millisecond))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return m, info.Size()
}

func slice(list ...gatehouse.Advisory) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		for a := range slices.Values(list) {
			if !yield(a, nil) {
				return
			}
		}
	}
}

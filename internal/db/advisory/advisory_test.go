package advisory_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/google/go-cmp/cmp"
)

var built = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// adv makes a record that is repaired in version 2 of the named packages, each
// "space name".
func adv(id string, change func(*gatehouse.Advisory), names ...string) gatehouse.Advisory {
	a := gatehouse.Advisory{ID: id, Source: "osv", Modified: built.Add(-time.Hour)}
	for _, n := range names {
		space, name, _ := strings.Cut(n, " ")
		a.Affected = append(a.Affected, gatehouse.Affected{Space: space, Name: name, Ranges: []gatehouse.Range{
			{Type: "ECOSYSTEM", Events: []gatehouse.RangeEvent{{Introduced: "0"}, {Fixed: "2"}}},
		}})
	}
	if change != nil {
		change(&a)
	}
	return a
}

func aliases(l ...string) func(*gatehouse.Advisory) {
	return func(a *gatehouse.Advisory) { a.Aliases = l }
}

func upstream(l ...string) func(*gatehouse.Advisory) {
	return func(a *gatehouse.Advisory) { a.Upstream = l }
}

func rated(s gatehouse.Severity, l ...string) func(*gatehouse.Advisory) {
	return func(a *gatehouse.Advisory) { a.Severity, a.SeveritySource, a.Aliases = s, "ghsa", l }
}

// generation builds on prev ("" for none) and opens the result.
func generation(t testing.TB, prev string, recs ...gatehouse.Advisory) (*advisory.File, string) {
	t.Helper()
	dir := t.TempDir()
	if prev != "" {
		dir = filepath.Dir(prev)
	}
	path := filepath.Join(dir, fmt.Sprintf("%d.db", len(files(t, dir))))
	info := advisory.Info{BuiltAt: built, Source: filepath.Base(path)}
	if prev != "" {
		info.Parent = gatehouse.DigestOf([]byte(prev))
	}
	if _, err := advisory.Build(context.Background(), path, prev, info, one(recs...)); err != nil {
		t.Fatal(err)
	}
	f, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func ids(t *testing.T, list []gatehouse.Advisory, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		out = append(out, a.ID)
	}
	slices.Sort(out)
	return out
}

func TestRoundTrip(t *testing.T) {
	ctx := context.Background()
	whole := gatehouse.Advisory{
		ID: "DSA-1-1", Source: "osv", Feed: "osv", Aliases: []string{"ALIAS-1"}, Upstream: []string{"CVE-2024-0001"}, Related: []string{"CVE-2024-0009"},
		Summary: "a summary", Details: "some\ndetails", Severity: gatehouse.SeverityHigh, SeveritySource: "debian",
		CVSS:       []gatehouse.CVSS{{Version: "3.1", Vector: "CVSS:3.1/AV:N", Score: 7.5, Source: "debian"}},
		References: []string{"https://example.test"}, Published: built, Modified: built, Withdrawn: built,
		Affected: []gatehouse.Affected{
			{Space: "AlmaLinux:8", Name: "a", Versions: []string{"1", "2"}, Status: "will_not_fix", Modules: []string{"a:1"}, Informational: "notice"},
			{Space: "Debian:12", Name: "a", Versions: []string{"1"}, Severity: gatehouse.SeverityLow, Arches: []string{"x86_64", "linux/*"}},
			{Space: "Debian:12", Name: "b", Ranges: []gatehouse.Range{{Type: "SEMVER", Events: []gatehouse.RangeEvent{{Introduced: "0"}, {LastAffected: "1"}, {Limit: "*"}}}}},
			{Space: "Debian:12", Name: "b", Ranges: []gatehouse.Range{{Type: "ECOSYSTEM", Events: []gatehouse.RangeEvent{{Introduced: "3"}, {Fixed: "4"}}}}},
		},
	}
	f, _ := generation(t, "", whole)
	got, err := f.Record(ctx, "DSA-1-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole, got); diff != "" {
		t.Errorf("Record -want +got:\n%s", diff)
	}
	list, err := f.For(ctx, "Debian:12", "b")
	if err != nil || len(list) != 1 {
		t.Fatalf("%d records, %v", len(list), err)
	}
	want := gatehouse.Advisory{ID: whole.ID, Source: whole.Source, Feed: whole.Feed, Aliases: whole.Aliases, Upstream: whole.Upstream, Related: whole.Related, Withdrawn: whole.Withdrawn, Affected: whole.Affected[2:]}
	if diff := cmp.Diff(want, list[0]); diff != "" {
		t.Errorf("For -want +got:\n%s", diff)
	}
	if _, err := f.Record(ctx, "DSA-2"); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("an unknown record: %v", err)
	}
	if list, err := f.For(ctx, "Debian:12", "nothing"); err != nil || len(list) != 0 {
		t.Errorf("an unknown package: %d records, %v", len(list), err)
	}
}

func TestNamed(t *testing.T) {
	ctx := context.Background()
	f, _ := generation(t, "",
		adv("GHSA-1", aliases("CVE-2024-0001", "CVE-2024-0002"), "npm a"),
		adv("DEBIAN-CVE-2024-0001", upstream("CVE-2024-0001"), "Debian:12 a"),
		adv("DSA-1-1", upstream("CVE-2024-0001", "CVE-2024-0002"), "Debian:12 a"),
		adv("ALSA-1", func(a *gatehouse.Advisory) { a.Related = []string{"CVE-2024-0001"} }, "AlmaLinux:8 a"),
	)
	for name, want := range map[string][]string{
		"CVE-2024-0001": {"DEBIAN-CVE-2024-0001", "GHSA-1"}, // those about this flaw, not those that cover it among others
		"CVE-2024-0002": {"GHSA-1"},
		"GHSA-1":        {"GHSA-1"},
		"DSA-1-1":       {"DSA-1-1"},
		"CVE-1":         nil,
	} {
		got, err := f.Named(ctx, name)
		if diff := cmp.Diff(want, ids(t, got, err)); diff != "" {
			t.Errorf("Named(%s) -want +got:\n%s", name, diff)
		}
	}
}

// TestReplace puts records over a generation: what they said before is gone,
// in every space, and the old file still says it.
func TestReplace(t *testing.T) {
	ctx := context.Background()
	first, path := generation(t, "",
		adv("X-1", aliases("CVE-2024-0001"), "npm a", "Maven g:a"), adv("X-2", nil, "npm a"), adv("X-3", nil, "npm c"))
	second, _ := generation(t, path, adv("X-1", aliases("CVE-2024-0002"), "PyPI b"), adv("X-4", nil, "npm a"), adv("X-4", nil, "npm d"))
	for _, c := range []struct {
		f           *advisory.File
		space, name string
		want        []string
	}{
		{first, "npm", "a", []string{"X-1", "X-2"}}, {first, "Maven", "g:a", []string{"X-1"}}, {first, "PyPI", "b", nil}, {first, "npm", "d", nil},
		{second, "npm", "a", []string{"X-2"}}, {second, "Maven", "g:a", nil}, {second, "PyPI", "b", []string{"X-1"}},
		{second, "npm", "c", []string{"X-3"}}, {second, "npm", "d", []string{"X-4"}}, // the later X-4 won
	} {
		got, err := c.f.For(ctx, c.space, c.name)
		if diff := cmp.Diff(c.want, ids(t, got, err)); diff != "" {
			t.Errorf("For(%s, %s) -want +got:\n%s", c.space, c.name, diff)
		}
	}
	got, err := second.Named(ctx, "CVE-2024-0001")
	if diff := cmp.Diff([]string(nil), ids(t, got, err)); diff != "" {
		t.Errorf("the old alias still leads to %s", diff)
	}
	want := advisory.Meta{
		Parent: gatehouse.DigestOf([]byte(path)), BuiltAt: built, UpdatedAt: built.Add(-time.Hour), Records: 4, Names: 4, Changed: 4,
		Spaces:  []advisory.Space{{"PyPI", 1, true}, {"npm", 3, true}},
		Sources: []string{"0.db", "1.db"},
		Feeds: []advisory.Feed{
			{Name: "osv", Format: "osv", Source: "1.db", Records: 4, UpdatedAt: built.Add(-time.Hour), ImportedAt: built},
		},
	}
	if diff := cmp.Diff(want, second.Meta()); diff != "" {
		t.Errorf("Meta -want +got:\n%s", diff)
	}
}

func TestCovers(t *testing.T) {
	f, path := generation(t, "",
		adv("X-1", nil, "Debian:11 a", "Debian:12 a"), adv("X-2", nil, "Maven g:a", "NuGet b"), adv("X-3", nil, "Maven g:b"), adv("CGA-1", nil, "Wolfi a", "Chainguard a"))
	check := func(f *advisory.File, want map[string]bool) {
		t.Helper()
		for space, covered := range want {
			if got, err := f.Covers(context.Background(), space); got != covered || err != nil {
				t.Errorf("Covers(%s) = %v, %v, want %v", space, got, err, covered)
			}
		}
	}
	check(f, map[string]bool{"Debian:11": true, "Debian:12": true, "Debian:13": false, "Maven": true, "NuGet": false, "Wolfi": true, "Chainguard": true, "": false})
	// The only record of Maven's own goes over to npm.
	f, _ = generation(t, path, adv("X-3", nil, "npm b"))
	check(f, map[string]bool{"Maven": false, "npm": true})
}

// TestNothingByHalf lets the stream fail: there is no new file, no left-over,
// and the previous generation is as it was.
func TestNothingByHalf(t *testing.T) {
	_, prev := generation(t, "", adv("X-1", nil, "npm a"))
	before, err := os.ReadFile(prev)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("record 2 is malformed")
	canceled, cancel := context.WithCancel(context.Background())
	for what, c := range map[string]struct {
		ctx  context.Context
		prev string
		recs iter.Seq2[gatehouse.Advisory, error]
		want error
	}{
		"malformed record": {context.Background(), prev, then(adv("X-2", nil, "npm b"), broken), broken},
		"from nothing":     {context.Background(), "", then(adv("X-2", nil, "npm b"), broken), broken},
		"canceled": {canceled, prev, func(yield func(gatehouse.Advisory, error) bool) {
			cancel()
			yield(adv("X-2", nil, "npm b"), nil)
		}, context.Canceled},
		"no parent": {context.Background(), prev + ".missing", one(), os.ErrNotExist},
	} {
		dst := filepath.Join(filepath.Dir(prev), "new.db")
		_, err := advisory.Build(c.ctx, dst, c.prev, advisory.Info{BuiltAt: built}, c.recs)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", what, err, c.want)
		}
		if got := files(t, filepath.Dir(prev)); len(got) != 1 {
			t.Errorf("%s: left %q", what, got)
		}
	}
	after, err := os.ReadFile(prev)
	if err != nil || string(before) != string(after) {
		t.Errorf("the previous generation changed: %v", err)
	}
}

func then(a gatehouse.Advisory, err error) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		if yield(a, nil) {
			yield(gatehouse.Advisory{}, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	_, good := generation(t, "", adv("X-1", nil, "npm a"))
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.db")
	execute(t, foreign, "CREATE TABLE t(x)")
	future := filepath.Join(dir, "future.db")
	write(t, future, whole)
	execute(t, future, "PRAGMA user_version = 99")
	program := filepath.Join(dir, "program.db")
	write(t, program, whole)
	execute(t, program, "CREATE TRIGGER t AFTER DELETE ON changed BEGIN DELETE FROM record; END")
	for name, b := range map[string][]byte{"empty.db": nil, "text.db": []byte("hello"), "cut.db": whole[:len(whole)/3], "head.db": whole[:100]} {
		write(t, filepath.Join(dir, name), b)
	}
	for _, name := range files(t, dir) {
		f, err := advisory.Open(filepath.Join(dir, name))
		if err == nil {
			// A file that lost its end may open; reading it must say so.
			_, err = f.For(context.Background(), "npm", "a")
			f.Close()
		}
		if err == nil {
			t.Errorf("%s is taken for an advisory file", name)
			continue
		}
		if name != "cut.db" && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := advisory.Build(context.Background(), filepath.Join(dir, "new"), filepath.Join(dir, name), advisory.Info{}, one(adv("X-2", nil, "npm a"))); err == nil {
			t.Errorf("%s is built upon", name)
		}
	}
	_, err = advisory.Open(filepath.Join(dir, "missing.db"))
	if gatehouse.CodeOf(err) != gatehouse.CodeNotFound || !strings.Contains(gatehouse.HintOf(err), "db import") {
		t.Errorf("a missing file: %v, hint %q", err, gatehouse.HintOf(err))
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, name, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnly makes sure that nothing appears beside a file that is read, and
// that odd paths work.
func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd ?#%20 name")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a?mode=rw.db")
	m, err := advisory.Build(context.Background(), path, "", advisory.Info{BuiltAt: built}, one(adv("X-1", nil, "npm a")))
	if err != nil {
		t.Fatal(err)
	}
	f, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if list, err := f.For(context.Background(), "npm", "a"); err != nil || len(list) != 1 {
		t.Errorf("%d records, %v", len(list), err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("beside the file: %q", got)
	}
	b, err := os.ReadFile(path)
	if err != nil || !m.Digest.Matches(b) {
		t.Errorf("the digest %s is not the file's: %v", m.Digest, err)
	}
}

// TestConcurrentReaders reads one file from many goroutines, through a cache
// that is too small for all documents.
func TestConcurrentReaders(t *testing.T) {
	var recs []gatehouse.Advisory
	for i := range 160 {
		recs = append(recs, adv(fmt.Sprintf("X-%d", i), func(a *gatehouse.Advisory) { a.Details = strings.Repeat("x", 60<<10) }, fmt.Sprintf("npm p%d", i)))
	}
	f, _ := generation(t, "", recs...)
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range recs {
				n := (i*7 + w*31) % len(recs)
				list, err := f.Named(ctx, fmt.Sprintf("X-%d", n))
				if err != nil || len(list) != 1 || list[0].ID != fmt.Sprintf("X-%d", n) {
					t.Errorf("Named(X-%d): %d, %v", n, len(list), err)
				}
				list, err = f.For(ctx, "npm", fmt.Sprintf("p%d", n))
				if err != nil || len(list) != 1 {
					t.Errorf("For(p%d): %d, %v", n, len(list), err)
				}
			}
		})
	}
	wg.Wait()
	if n, bytes := f.CachedDocs(); n == 0 || n >= len(recs) || bytes > advisory.DocCacheBytes {
		t.Errorf("%d documents and %d bytes are cached, the bound is %d bytes", n, bytes, advisory.DocCacheBytes)
	}
}

// FuzzDecode looks for panics and for work out of proportion in what a damaged
// or foreign file holds.
func FuzzDecode(f *testing.F) {
	f.Add(advisory.EncodeEntry(adv("X-1", nil, "npm a").Affected))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x07})
	f.Add(advisory.EncodeEntry(adv("X-1", func(a *gatehouse.Advisory) { a.Affected[0].Severity, a.Affected[0].Arches = 3, []string{"x86_64"} }, "npm a").Affected))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := advisory.DecodeEntry(advisory.Name{Space: "npm", Name: "a"}, b)
		if err == nil {
			again, err := advisory.DecodeEntry(advisory.Name{Space: "npm", Name: "a"}, advisory.EncodeEntry(list))
			if err != nil || len(again) != len(list) {
				t.Fatalf("%x: %d entries, and %d after a round (%v)", b, len(list), len(again), err)
			}
		}
		if _, err := advisory.DecodeTable(b); err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Fatal(err)
		}
		if _, err := advisory.DecodeCore("X-1", b); err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Fatal(err)
		}
	})
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

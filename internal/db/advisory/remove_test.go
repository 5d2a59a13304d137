package advisory_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/google/go-cmp/cmp"
)

// without builds a generation upon prev that lacks feeds.
func without(t *testing.T, prev string, feeds ...string) (*advisory.File, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "next.db")
	_, err := advisory.BuildAll(context.Background(), path, prev,
		advisory.Info{BuiltAt: built, Parent: gatehouse.DigestOf([]byte(prev)), Remove: feeds}, nil)
	if err != nil {
		return nil, path, err
	}
	f, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path, nil
}

// TestRemoveFeed: a feed goes with its records, what they said of severities, and
// nothing else; what is left is as if it had never been there.
func TestRemoveFeed(t *testing.T) {
	debian := func() gatehouse.Publication {
		return whole("osv/Debian", adv("DSA-1", upstream("CVE-2024-0001"), "Debian:12 zlib"), adv("SAME-1", nil, "Debian:12 bash"))
	}
	day := built.Add(-24 * time.Hour)
	kev := gatehouse.Publication{Feed: "kev", Format: "kev", Whole: true, UpdatedAt: day, KEV: map[string]gatehouse.KEV{"CVE-2024-0001": {Added: day}}}
	never, _ := publish(t, "", debian())
	_, path := publish(t, "", debian(), kev,
		whole("osv/npm", adv("GHSA-1", rated(gatehouse.SeverityHigh, "CVE-2024-0001"), "npm left-pad"), adv("SAME-1", nil, "Debian:12 bash")))
	f, path, err := without(t, path, "osv/npm")
	if err != nil {
		t.Fatal(err)
	}
	wantFor(t, f, map[string][]string{
		"npm left-pad": {}, "Debian:12 bash": {"osv/Debian SAME-1"}, "Debian:12 zlib": {"osv/Debian DSA-1"},
	})
	// zlib's finding had its severity from the record of npm.
	if d := cmp.Diff([]string{"Debian:12 bash", "Debian:12 zlib", "npm left-pad"}, changed(t, f)); d != "" {
		t.Errorf("to match anew, -want +got:\n%s", d)
	}
	m := f.Meta()
	if _, there := m.Feed("osv/npm"); there || m.Records != 2 || m.Shared != 0 || len(m.Overlays()) != 1 || cmp.Diff([]string{"osv/Debian.zip"}, m.Sources) != "" {
		t.Errorf("%+v", m)
	}
	if covered, err := f.Covers(context.Background(), "npm"); covered || err != nil {
		t.Errorf("npm is covered: %v, %v", covered, err)
	}
	if got := diff(t, never, f); len(got) != 0 {
		t.Errorf("it differs from one that never had the feed in %q", got)
	}
	if f, path, err = without(t, path, "kev"); err != nil {
		t.Fatal(err)
	}
	one := []gatehouse.Finding{{ID: "CVE-2024-0001"}}
	if err := f.Enrich(context.Background(), one); err != nil || one[0].KEV != nil || len(f.Meta().Overlays()) != 0 {
		t.Errorf("the list of what is exploited stayed: %+v, %v", one, err)
	}
	if f, path, err = without(t, path, "osv/Debian"); err != nil || f.Meta().Records != 0 || len(f.Meta().Feeds) != 0 || len(f.Meta().Spaces) != 0 {
		t.Errorf("%+v, %v", f.Meta(), err)
	}
	if _, _, err := without(t, path, "osv/Debian"); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("a feed that is gone: %v", err)
	}
	f, _ = publish(t, path, debian())
	if got := diff(t, never, f); len(got) != 0 {
		t.Errorf("come again, it differs in %q", got)
	}
}

func TestNamedFeeds(t *testing.T) {
	m := advisory.Meta{Feeds: []advisory.Feed{{Name: "nvd/2002"}, {Name: "nvd/2003"}, {Name: "osv"}, {Name: "osv/Debian"}}}
	for names, want := range map[string]string{
		"osv": "osv", "osv/": "osv/Debian", "nvd/": "nvd/2002 nvd/2003", "nvd/2003,nvd/": "nvd/2003 nvd/2002", "osv/Debian": "osv/Debian",
	} {
		got, err := m.Named(strings.Split(names, ","))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", names, got, err)
		}
	}
	for _, bad := range []string{"", "/", "nvd", "nv", "osv/Debian/", "kev"} {
		if got, err := m.Named([]string{bad}); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

// TestKilledBuild: what a build leaves whose process was killed is found and
// removed, and nothing else is.
func TestKilledBuild(t *testing.T) {
	dir := t.TempDir()
	dst := filepath.Join(dir, "advisories.db")
	records := func(yield func(gatehouse.Advisory, error) bool) {
		for _, name := range files(t, dir) { // as it lies there at the moment of the kill
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, end := range []string{"", "-journal"} {
				write(t, filepath.Join(dir, strings.Replace(name, ".tmp", "0.tmp"+end, 1)), b)
			}
		}
		yield(adv("X-1", nil, "npm a"), nil)
	}
	if _, err := advisory.Build(context.Background(), dst, "", advisory.Info{BuiltAt: built}, records); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, ".other.db.1.tmp"), nil)
	if got := files(t, dir); len(got) != 4 {
		t.Fatalf("there are %q", got)
	}
	if err := advisory.Clean(dst); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{".other.db.1.tmp", "advisories.db"}, files(t, dir)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestFullDisk: a full disk is told as one, by SQLite and by the system.
func TestFullDisk(t *testing.T) {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "full.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, full := db.Exec("PRAGMA max_page_count=4; CREATE TABLE t(b BLOB); INSERT INTO t VALUES(zeroblob(100000))")
	_, other := db.Exec("SELECT 1 FROM nothing")
	for name, c := range map[string]struct {
		err  error
		code gatehouse.Code
	}{
		"SQLite":          {full, gatehouse.CodeUnavailable},
		"a query":         {other, gatehouse.CodeInternal},
		"the system":      {&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, gatehouse.CodeUnavailable},
		"a rename":        {&os.LinkError{Op: "rename", Err: syscall.EROFS}, gatehouse.CodeUnavailable},
		"a record's":      {gatehouse.Errorf(gatehouse.CodeInvalid, "malformed: %w", full), gatehouse.CodeInvalid},
		"a context's end": {context.Canceled, gatehouse.CodeOf(context.Canceled)},
	} {
		if got := advisory.Unwritten(c.err); gatehouse.CodeOf(got) != c.code || !errors.Is(got, c.err) {
			t.Errorf("%s: %v is %v", name, c.err, got)
		}
	}
	if advisory.Unwritten(nil) != nil {
		t.Error("nothing is an error")
	}
}

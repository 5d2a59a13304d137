package advisory_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/google/go-cmp/cmp"
)

// publish builds a generation of publications upon prev and opens it.
func publish(t testing.TB, prev string, pubs ...gatehouse.Publication) (*advisory.File, string) {
	t.Helper()
	path, err := tryPublish(t, prev, pubs...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

func tryPublish(t testing.TB, prev string, pubs ...gatehouse.Publication) (path string, err error) {
	t.Helper()
	dir := t.TempDir()
	if prev != "" {
		dir = filepath.Dir(prev)
	}
	path = filepath.Join(dir, fmt.Sprintf("%d.db", len(files(t, dir))))
	info := advisory.Info{BuiltAt: built}
	if prev != "" {
		info.Parent = gatehouse.DigestOf([]byte(prev))
	}
	_, err = advisory.BuildAll(context.Background(), path, prev, info, pubs)
	return path, err
}

// whole is a publication of all that a feed has.
func whole(feed string, recs ...gatehouse.Advisory) gatehouse.Publication {
	return gatehouse.Publication{Feed: feed, Format: "osv", Whole: true, Source: feed + ".zip", Version: "v1", Records: one(recs...)}
}

func part(feed string, recs ...gatehouse.Advisory) gatehouse.Publication {
	p := whole(feed, recs...)
	p.Whole = false
	return p
}

func wantFor(t *testing.T, f *advisory.File, want map[string][]string) {
	t.Helper()
	for at, ids := range want {
		space, name, _ := strings.Cut(at, " ")
		list, err := f.For(context.Background(), space, name)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, a := range list {
			got = append(got, a.Feed+" "+a.ID)
		}
		if d := cmp.Diff(ids, got); d != "" {
			t.Errorf("For(%s) -want +got:\n%s", at, d)
		}
	}
}

// TestFeedsAreApart: a feed that is published whole loses what it no longer has,
// and no other feed's records, although they have the same ids.
func TestFeedsAreApart(t *testing.T) {
	first, p1 := publish(t, "", whole("osv/npm", adv("X-1", nil, "npm a"), adv("X-2", nil, "npm b")), whole("trivy-db", adv("X-2", nil, "npm b"), adv("X-3", nil, "npm c")))
	wantFor(t, first, map[string][]string{"npm a": {"osv/npm X-1"}, "npm c": {"trivy-db X-3"}})
	second, p2 := publish(t, p1, whole("osv/npm", adv("X-1", nil, "npm a"), adv("X-4", nil, "npm d")))
	wantFor(t, second, map[string][]string{"npm a": {"osv/npm X-1"}, "npm b": {"trivy-db X-2"}, "npm c": {"trivy-db X-3"}, "npm d": {"osv/npm X-4"}})
	if d := cmp.Diff([]string{"npm b", "npm d"}, changed(t, second)); d != "" {
		t.Errorf("Changed -want +got:\n%s", d)
	}
	if d := cmp.Diff([]string{"npm b", "npm d"}, diff(t, first, second)); d != "" {
		t.Errorf("Diff -want +got:\n%s", d)
	}
	third, _ := publish(t, p2, part("osv/npm", adv("X-5", nil, "npm a")))
	wantFor(t, third, map[string][]string{"npm a": {"osv/npm X-1", "osv/npm X-5"}, "npm d": {"osv/npm X-4"}})
	want := []advisory.Feed{
		{Name: "osv/npm", Format: "osv", Source: "osv/npm.zip", Version: "v1", Records: 3, UpdatedAt: built.Add(-time.Hour), ImportedAt: built},
		{Name: "trivy-db", Format: "osv", Source: "trivy-db.zip", Version: "v1", Whole: true, Records: 2, UpdatedAt: built.Add(-time.Hour), ImportedAt: built},
	}
	if d := cmp.Diff(want, third.Meta().Feeds); d != "" {
		t.Errorf("Feeds -want +got:\n%s", d)
	}
	if m := third.Meta(); m.Records != 5 || m.Names != 4 {
		t.Errorf("%d records of %d names", m.Records, m.Names)
	}
}

// TestVanished: what a vanished record said is matched again, also where it only
// rated.
func TestVanished(t *testing.T) {
	first, p1 := publish(t, "",
		whole("nvd", adv("CVE-2024-0002", rated(gatehouse.SeverityHigh)), adv("CVE-2024-0009", nil)),
		whole("osv/Debian", adv("DSA-1", upstream("CVE-2024-0002"), "Debian:12 d"), adv("DSA-2", nil, "Debian:12 e", "Debian:11 e")))
	second, _ := publish(t, p1, whole("nvd", adv("CVE-2024-0009", nil)))
	if d := cmp.Diff([]string{"Debian:12 d"}, changed(t, second)); d != "" {
		t.Errorf("a rating is gone: -want +got:\n%s", d)
	}
	third, _ := publish(t, p1, whole("osv/Debian", adv("DSA-1", upstream("CVE-2024-0002"), "Debian:12 d")))
	if d := cmp.Diff([]string{"Debian:11 e", "Debian:12 e"}, changed(t, third)); d != "" {
		t.Errorf("a record is gone: -want +got:\n%s", d)
	}
	if d := cmp.Diff([]string{"Debian:11 e", "Debian:12 e"}, diff(t, first, third)); d != "" {
		t.Errorf("Diff -want +got:\n%s", d)
	}
	if covered, _ := third.Covers(context.Background(), "Debian:11"); covered {
		t.Error("Debian:11 is covered without any record")
	}
	if list, err := third.Named(context.Background(), "DSA-2"); err != nil || len(list) != 0 {
		t.Errorf("DSA-2 is still there: %d, %v", len(list), err)
	}
}

// TestSameRecordTwice: one and the same record of two feeds undoes nothing, and
// what was imported by hand holds until the feed itself has something newer.
func TestSameRecordTwice(t *testing.T) {
	ctx := context.Background()
	published := adv("X-1", aliases("CVE-2024-0001"), "npm a")
	first, p1 := publish(t, "", whole("osv/npm", published), part("osv", published))
	if first.Meta().Names != 1 || first.Meta().Shared != 1 {
		t.Errorf("%d names, %d shared", first.Meta().Names, first.Meta().Shared)
	}
	wantFor(t, first, map[string][]string{"npm a": {"osv/npm X-1"}})
	corrected := adv("X-1", func(a *gatehouse.Advisory) {
		aliases("CVE-2024-0001")(a)
		a.Summary, a.Modified, a.Affected[0].Ranges[0].Events[1].Fixed = "corrected", built, "3"
	}, "npm a")
	second, p2 := publish(t, p1, part("osv", corrected))
	wantFor(t, second, map[string][]string{"npm a": {"osv X-1"}})
	list, err := second.Named(ctx, "CVE-2024-0001")
	if err != nil || len(list) != 1 || list[0].Summary != "corrected" || list[0].Feed != "osv" {
		t.Errorf("Named: %+v, %v", list, err)
	}
	if a, err := second.Record(ctx, "X-1"); err != nil || a.Summary != "corrected" {
		t.Errorf("Record: %+v, %v", a, err)
	}
	if d := cmp.Diff([]string{"npm a"}, changed(t, second)); d != "" {
		t.Errorf("Changed -want +got:\n%s", d)
	}
	// Of another format it is another record.
	foreign := adv("X-1", func(a *gatehouse.Advisory) { a.Source = "trivydb" }, "npm a")
	third, _ := publish(t, p2, whole("trivy-db", foreign))
	wantFor(t, third, map[string][]string{"npm a": {"osv X-1", "trivy-db X-1"}})
}

// TestBrokenFeeds leave nothing behind and the old generation as it was.
func TestBrokenFeeds(t *testing.T) {
	_, p1 := publish(t, "", whole("osv/npm", adv("X-1", nil, "npm a")))
	broken := whole("osv/npm")
	broken.Records = then(adv("X-2", nil, "npm b"), errors.New("cut short"))
	for what, pubs := range map[string][]gatehouse.Publication{
		"empty":          {whole("osv/npm")},
		"empty, of more": {whole("osv/PyPI", adv("X-9", nil, "PyPI a")), whole("osv/npm")},
		"broken":         {broken},
		"whole twice":    {whole("osv/npm", adv("X-1", nil, "npm a")), whole("osv/npm", adv("X-2", nil, "npm a"))},
		"no lines":       {{Feed: "kev", Format: "kev", KEV: map[string]gatehouse.KEV{}}},
	} {
		if _, err := tryPublish(t, p1, pubs...); err == nil {
			t.Errorf("%s: no error", what)
		}
		if left := files(t, filepath.Dir(p1)); len(left) != 1 {
			t.Errorf("%s: there is %q", what, left)
		}
	}
}

// TestEnrich lays KEV and EPSS over findings; replacing them changes no name.
func TestEnrich(t *testing.T) {
	ctx := context.Background()
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	kev := map[string]gatehouse.KEV{"CVE-2024-0001": {Added: day, Due: day.AddDate(0, 0, 21), Ransomware: true}, "CVE-1999-0001": {Added: day}}
	epss := map[string]gatehouse.EPSS{"CVE-2024-0001": {Score: 0.97321, Percentile: 0.99998}, "CVE-2024-123456": {Score: 0.00001}, "CVE-2023-0001": {Score: 1, Percentile: 1}}
	_, p1 := publish(t, "", whole("osv/npm", adv("X-1", aliases("CVE-2024-0001"), "npm a")))
	f, p2 := publish(t, p1,
		gatehouse.Publication{Feed: "kev", Format: "kev", Whole: true, UpdatedAt: day, KEV: kev},
		gatehouse.Publication{Feed: "epss", Format: "epss", Whole: true, UpdatedAt: day, EPSS: epss})
	if got := changed(t, f); len(got) != 0 {
		t.Errorf("tables change names: %q", got)
	}
	if got := f.Meta().Overlays(); len(got) != 2 || got[0] != gatehouse.OverlayKEV || got[1] != gatehouse.OverlayEPSS {
		t.Errorf("overlays %q", got)
	}
	wantFor(t, f, map[string][]string{"npm a": {"osv/npm X-1"}})
	ask := func(f *advisory.File) []gatehouse.Finding {
		stale := &gatehouse.EPSS{Score: 0.5}
		list := []gatehouse.Finding{{ID: "CVE-2024-0001"}, {ID: "GHSA-1", Aliases: []string{"GO-1", "CVE-1999-0001"}}, {ID: "CVE-2024-123456"}, {ID: "CVE-2020-0001", EPSS: stale}, {ID: "aws-access-key-id"}}
		if err := f.Enrich(ctx, list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	k1, k2, e1, e2 := kev["CVE-2024-0001"], kev["CVE-1999-0001"], epss["CVE-2024-0001"], epss["CVE-2024-123456"]
	want := []gatehouse.Finding{
		{ID: "CVE-2024-0001", KEV: &k1, EPSS: &e1}, {ID: "GHSA-1", Aliases: []string{"GO-1", "CVE-1999-0001"}, KEV: &k2},
		{ID: "CVE-2024-123456", EPSS: &e2}, {ID: "CVE-2020-0001"}, {ID: "aws-access-key-id"},
	}
	if d := cmp.Diff(want, ask(f)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got, ok := f.Meta().Feed("epss"); !ok || got.Records != 3 || !got.UpdatedAt.Equal(day) || f.Meta().Records != 1 {
		t.Errorf("%+v, %v; %d records in all", got, ok, f.Meta().Records)
	}
	// The catalog of the next day lost one line; the scores stay.
	delete(kev, "CVE-1999-0001")
	f, p3 := publish(t, p2, gatehouse.Publication{Feed: "kev", Format: "kev", Whole: true, KEV: kev})
	want[1].KEV = nil
	if d := cmp.Diff(want, ask(f)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	// Records that come later leave both alone.
	f, _ = publish(t, p3, part("osv", adv("X-9", nil, "npm z")))
	if d := cmp.Diff(want, ask(f)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// oldFormat is a file that a Gatehouse made that knew no feeds: X-1 about npm a
// and b, X-2 about Debian's a.
func oldFormat(t *testing.T) string {
	t.Helper()
	packed, err := os.Open("testdata/format1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "0.db")
	write(t, path, b)
	return path
}

// TestOldFormat reads a file of the format before as it is, and builds upon it:
// what does not change is not matched again.
func TestOldFormat(t *testing.T) {
	ctx := context.Background()
	path := oldFormat(t)
	old, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	wantFor(t, old, map[string][]string{"npm a": {"osv X-1"}, "Debian:12 a": {"osv X-2"}})
	if got := old.Meta().Overlays(); len(got) != 0 {
		t.Errorf("overlays %q", got)
	}
	if list, err := old.Named(ctx, "CVE-2024-0001"); err != nil || len(list) != 1 || list[0].Feed != "osv" {
		t.Errorf("Named: %+v, %v", list, err)
	}
	if err := old.Enrich(ctx, []gatehouse.Finding{{ID: "CVE-2024-0001"}}); err != nil {
		t.Error(err)
	}
	if f, ok := old.Meta().Feed("osv"); !ok || f.Records != 2 {
		t.Errorf("feeds %+v", old.Meta().Feeds)
	}
	again := adv("X-1", func(a *gatehouse.Advisory) {
		rated(gatehouse.SeverityHigh, "CVE-2024-0001")(a)
		a.Summary, a.Modified = "first", built
	}, "npm a", "npm b")
	f, p2 := publish(t, path, part("osv", again), whole("trivy-db", adv("X-3", nil, "npm c")))
	if d := cmp.Diff([]string{"npm c"}, changed(t, f)); d != "" {
		t.Errorf("Changed -want +got:\n%s", d)
	}
	if d := cmp.Diff([]string{"npm c"}, diff(t, old, f)); d != "" {
		t.Errorf("Diff -want +got:\n%s", d)
	}
	wantFor(t, f, map[string][]string{"npm a": {"osv X-1"}, "npm b": {"osv X-1"}, "npm c": {"trivy-db X-3"}, "Debian:12 a": {"osv X-2"}})
	// A record of the old format is replaced.
	f, _ = publish(t, p2, part("osv", adv("X-2", nil, "Debian:12 b")))
	if d := cmp.Diff([]string{"Debian:12 a", "Debian:12 b"}, changed(t, f)); d != "" {
		t.Errorf("Changed -want +got:\n%s", d)
	}
	if f.Meta().Records != 3 {
		t.Errorf("%d records", f.Meta().Records)
	}
}

package advisory_test

import (
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
)

// TestOldest: the age of a database is that of its most neglected feed. Quiet
// parts of a group are not old, unless their source has not been heard of.
func TestOldest(t *testing.T) {
	now := time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	feed := func(name string, days int) advisory.Feed {
		return advisory.Feed{Name: name, Format: gatehouse.FormatOSV, Records: 1, UpdatedAt: ago(days)}
	}
	kev := feed("kev", 900)
	kev.Format = gatehouse.FormatKEV
	empty := feed("nvd/2026", 800)
	empty.Records = 0
	for name, c := range map[string]struct {
		feeds []advisory.Feed
		seen  map[string]int // days ago
		want  string
		days  int
	}{
		"nothing":                     {},
		"tables are none":             {feeds: []advisory.Feed{kev, empty}},
		"one":                         {feeds: []advisory.Feed{feed("trivy-db", 3), kev}, want: "trivy-db", days: 3},
		"a fresh one hides no old":    {feeds: []advisory.Feed{feed("osv/Debian", 0), feed("trivy-db", 30)}, want: "trivy-db", days: 30},
		"a quiet part":                {feeds: []advisory.Feed{feed("osv/CRAN", 300), feed("osv/Debian", 1)}, want: "osv", days: 1},
		"a part that fails":           {feeds: []advisory.Feed{feed("osv/CRAN", 300), feed("osv/Debian", 1)}, seen: map[string]int{"osv/CRAN": 9, "osv/Debian": 0}, want: "osv/CRAN", days: 9},
		"all parts heard of":          {feeds: []advisory.Feed{feed("osv/CRAN", 300), feed("osv/Debian", 1)}, seen: map[string]int{"osv/CRAN": 0, "osv/Debian": 0}, want: "osv", days: 1},
		"heard of, but itself old":    {feeds: []advisory.Feed{feed("trivy-db", 30)}, seen: map[string]int{"trivy-db": 0}, want: "trivy-db", days: 30},
		"newer than when it was seen": {feeds: []advisory.Feed{feed("trivy-db", 1)}, seen: map[string]int{"trivy-db": 5}, want: "trivy-db", days: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var seen func(string) time.Time
			if c.seen != nil {
				seen = func(feed string) (at time.Time) {
					if days, ok := c.seen[feed]; ok {
						at = ago(days)
					}
					return at
				}
			}
			got, at, ok := advisory.Meta{Feeds: c.feeds}.Oldest(seen)
			if got != c.want || ok != (c.want != "") || ok && !at.Equal(ago(c.days)) {
				t.Errorf("%q of %s, %v; want %q of %d days ago", got, at, ok, c.want, c.days)
			}
		})
	}
}

// TestAdvisoryOfTomorrow: a record that says it was changed in the future does not
// make the database look fresh, now or ever.
func TestAdvisoryOfTomorrow(t *testing.T) {
	ahead := adv("CVE-2026-1", func(a *gatehouse.Advisory) { a.Modified = built.AddDate(70, 0, 0) }, "Debian:12 zlib")
	p := whole("osv/Debian", ahead)
	p.UpdatedAt = built.AddDate(1, 0, 0)
	f, path := publish(t, "", p, part("osv", ahead))
	if m := f.Meta(); !m.UpdatedAt.Equal(built) {
		t.Errorf("the database is of %s, built at %s", m.UpdatedAt, built)
	}
	for _, feed := range f.Meta().Feeds {
		if !feed.UpdatedAt.Equal(built) {
			t.Errorf("%s is of %s", feed.Name, feed.UpdatedAt)
		}
	}
	f, _ = publish(t, path, whole("osv/Debian", adv("CVE-2026-1", nil, "Debian:12 zlib")))
	if m := f.Meta(); m.UpdatedAt.After(built) {
		t.Errorf("the next database is of %s", m.UpdatedAt)
	}
}

// TestForeignNames: what a file says of itself cannot steer a terminal, whoever
// made it.
func TestForeignNames(t *testing.T) {
	for name, feed := range map[string]string{"escape": "osv/\x1b]0;x\x07", "line": "osv\nosv", "no text": "osv/\xff"} {
		if _, err := tryPublish(t, "", whole(feed, adv("X-1", nil, "npm a"))); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: built, %v", name, err)
		}
	}
	odd := whole("osv/npm", adv("X-1", nil, "npm a"))
	odd.Source, odd.Version = "a\nb\xff.zip", "etag:\"\xe9\""
	f, path := publish(t, "", odd)
	if got, _ := f.Meta().Feed("osv/npm"); got.Source != "a?b?.zip" || got.Version != `etag:"?"` {
		t.Errorf("%+v", got)
	}
	execute(t, path, `UPDATE meta SET json = replace(json, 'osv/npm', 'osv/\u001b[2J')`)
	if f, err := advisory.Open(path); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("%v, %v", f, err)
	}
}

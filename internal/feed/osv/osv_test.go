package osv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	got, err := osv.Parse([]byte(`{
		"schema_version": "1.7.0", "id": "GHSA-r6j9-8759-g62w", "new_field": {"of": ["the", "future"]},
		"modified": "2024-03-13T05:36:14.612715+01:00", "published": "2020-02-04T22:39:19Z",
		"aliases": ["CVE-2019-10172", "CVE-2019-10172", ""], "upstream": ["X-1"], "related": ["CGA-2wfh"],
		"summary": "XXE\nin jackson\u001b[31m", "details": "line one\nline two\u202e",
		"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H"}, {"type": "CVSS_V3", "score": "rubbish"}],
		"database_specific": {"severity": "MODERATE"},
		"affected": [
			{"package": {"ecosystem": "PyPI", "name": "Zope.Interface"}, "versions": ["1.0", "1.1"],
			 "ranges": [{"type": "GIT", "repo": "https://example.test", "events": [{"introduced": "0"}]},
			            {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"last_affected": "1.9.13"}]}]},
			{"ranges": [{"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "abc"}]}]},
			{"package": {"ecosystem": "npm", "name": "no-versions-at-all"}}
		],
		"references": [{"type": "WEB", "url": "https://example.test/a"}, {"type": "WEB", "url": "javascript:alert(1)"}]
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := gatehouse.Advisory{
		ID: "GHSA-r6j9-8759-g62w", Source: "osv",
		Aliases: []string{"CVE-2019-10172"}, Upstream: []string{"X-1"}, Related: []string{"CGA-2wfh"},
		Summary: "XXE in jackson[31m", Details: "line one\nline two",
		Severity: gatehouse.SeverityMedium, SeveritySource: "ghsa",
		CVSS:       []gatehouse.CVSS{{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:H/A:H", Score: 9.1, Source: "ghsa"}},
		References: []string{"https://example.test/a"},
		Published:  time.Date(2020, 2, 4, 22, 39, 19, 0, time.UTC), Modified: time.Date(2024, 3, 13, 4, 36, 14, 612715000, time.UTC),
		Affected: []gatehouse.Affected{{Space: "PyPI", Name: "zope-interface", Versions: []string{"1.0", "1.1"},
			Ranges: []gatehouse.Range{{Type: "ECOSYSTEM", Events: []gatehouse.RangeEvent{{Introduced: "0"}, {LastAffected: "1.9.13"}}}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMalformed(t *testing.T) {
	affected := func(s string) string { return `{"id":"X-1","affected":[` + s + `]}` }
	event := func(s string) string {
		return affected(`{"package":{"ecosystem":"npm","name":"a"},"ranges":[{"type":"SEMVER","events":[` + s + `]}]}`)
	}
	for record, want := range map[string]string{
		``:                                      "no OSV record",
		`[]`:                                    "no OSV record",
		`{"id":"X-1"`:                           "no OSV record",
		`{}`:                                    "no id",
		`{"id":"a\nb"}`:                         "control character",
		`{"id":7}`:                              "no OSV record",
		`{"id":"X-1","modified":"yesterday"}`:   `X-1: modified "yesterday" is not a time`,
		`{"id":"X-1","withdrawn":"2024"}`:       "withdrawn",
		`{"id":"X-1","schema_version":"2.0.0"}`: "is not 1.x",
		`{"id":"` + strings.Repeat("x", 257) + `"}`:                                       "longer than 256 bytes",
		`{"id":"X-1","aliases":["a\u0000"]}`:                                              "aliases",
		affected(`{"package":{"ecosystem":"npm"}}`):                                       "affected[0]: package needs both",
		affected(`{"package":{"name":"a"}}`):                                              "package needs both",
		affected(`{"package":{"ecosystem":"npm","name":"a"},"ranges":[{"type":"HASH"}]}`): `ranges[0]: type "HASH"`,
		event(``):                                   "introduced",
		event(`{"fixed":"1"}`):                      "no event says where",
		event(`{}`):                                 "events[0] needs exactly one",
		event(`{"introduced":"0","fixed":"1"}`):     "exactly one",
		event(`{"introduced":"0"},{"fixed":""}`):    "empty version",
		event(`{"introduced":"0"},{"fixed":"\t1"}`): "control character",
	} {
		_, err := osv.Parse([]byte(record))
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n\terror %v\n\twant one that says %q", record, err, want)
		}
	}
}

func TestSeverity(t *testing.T) {
	for _, c := range []struct{ record, want, source string }{
		{`{"id":"ALSA-1","summary":"Important: curl security update"}`, "HIGH", "almalinux"},
		{`{"id":"ALSA-1","summary":"Moderate: curl: something"}`, "MEDIUM", "almalinux"},
		{`{"id":"RLSA-1","summary":"Critical: x"}`, "CRITICAL", "rocky"},
		{`{"id":"CVE-1","summary":"Low: is how this title starts"}`, "UNKNOWN", ""},
		{`{"id":"ALSA-1","summary":"httpd: something"}`, "UNKNOWN", ""},
		{`{"id":"UBUNTU-CVE-1","severity":[{"type":"Ubuntu","score":"negligible"}]}`, "NEGLIGIBLE", "ubuntu"},
		{`{"id":"DEBIAN-CVE-1","affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ecosystem_specific":{"urgency":"unimportant"}}]}`, "UNKNOWN", ""},
		{`{"id":"DEBIAN-CVE-1","affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"ecosystem_specific":{"urgency":"not yet assigned"}}]}`, "UNKNOWN", ""},
		{`{"id":"RETIREJS-x","affected":[{"package":{"ecosystem":"npm","name":"a"},"ecosystem_specific":{"severity":"high"}}]}`, "HIGH", "retire.js"},
		{`{"id":"RUBYSEC-x","database_specific":{"cvss_score_v3":9.8}}`, "CRITICAL", "rubysec"},
		{`{"id":"RUBYSEC-x","database_specific":{"cvss_score_v2":10.0}}`, "HIGH", "rubysec"},
		{`{"id":"RUBYSEC-x","database_specific":{"cvss_score_v2":10.0,"cvss_score_v4":2.1}}`, "LOW", "rubysec"},
		{`{"id":"CVE-1","severity":[{"type":"CVSS_V2","score":"AV:N/AC:L/Au:N/C:C/I:C/A:C"}]}`, "HIGH", "nvd"},
		{`{"id":"CVE-1","severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},{"type":"CVSS_V4","score":"CVSS:4.0/AV:L/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N"}]}`, "LOW", "nvd"},
		{`{"id":"CVE-1","severity":[{"type":"CVSS_V3","score":"CVSS:3.0/AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:N"}]}`, "NEGLIGIBLE", "nvd"},
		{`{"id":"GHSA-1","database_specific":{"severity":"LOW"},"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}`, "LOW", "ghsa"},
		{`{"id":"GHSA-1","database_specific":{"severity":{"not":"a word"}}}`, "UNKNOWN", ""},
		{`{"id":"MAL-2024-1"}`, "CRITICAL", "ossf-malicious-packages"},
	} {
		a, err := osv.Parse([]byte(c.record))
		if err != nil {
			t.Errorf("%s: %v", c.record, err)
			continue
		}
		if a.Severity.String() != c.want || a.SeveritySource != c.source {
			t.Errorf("%s\n\t%s of %q, want %s of %q", c.record, a.Severity, a.SeveritySource, c.want, c.source)
		}
	}
}

func TestModules(t *testing.T) {
	record := func(summary, fixed, purl string) string {
		return `{"id":"ALSA-1","summary":"` + summary + `","affected":[{"package":{"ecosystem":"AlmaLinux:8","name":"a","purl":"` + purl +
			`"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"` + fixed + `"}]}]}]}`
	}
	for _, c := range []struct {
		summary, fixed, purl string
		want                 []string
	}{
		{"Important: nodejs:16 security update", "1:16-1.module_el8.5.0+1+a", "", []string{"nodejs:16"}},
		{"Low: virt:rhel and virt-devel:rhel security and bug fix update", "1-1.module_el8.5.0+1+a", "", []string{"virt:rhel", "virt-devel:rhel"}},
		{"Important: nodejs:16 security update", "1:16-1.el8", "", nil},
		{"Important: 389-ds security update", "1-1.module_el8.5.0+1+a", "", nil},
		{"x", "1-1.el9", "pkg:rpm/redhat/nodejs?rpmmod=nodejs:18", []string{"nodejs:18"}},
		{"x", "1-1.el9", "pkg:rpm/redhat/nodejs?arch=src&rpmmod=nodejs%3A18", []string{"nodejs:18"}},
	} {
		a, err := osv.Parse([]byte(record(c.summary, c.fixed, c.purl)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, a.Affected[0].Modules); diff != "" {
			t.Errorf("%s, %s -want +got:\n%s", c.summary, c.fixed, diff)
		}
	}
}

func TestTextIsCut(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	a, err := osv.Parse([]byte(`{"id":"X-1","summary":"` + long + `","details":"` + long + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Summary) > 2<<10 || len(a.Details) > 65<<10 {
		t.Errorf("summary of %d and details of %d bytes", len(a.Summary), len(a.Details))
	}
}

// FuzzParse looks for panics, and for records that pass although they hold what
// must not get in.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":"X-1","modified":"2024-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"a"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1"}]}],"versions":["1"]}]}`))
	f.Add([]byte(`{"id":"ALSA-1","summary":"Important: nodejs:16 security update","related":["CVE-2024-0001"],"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]}`))
	f.Add([]byte(`{"id":"X","severity":[{"type":"CVSS_V4","score":"CVSS:4.0/AV:L/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N"}],"database_specific":{"cvss_score_v2":1e9}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := osv.Parse(b)
		if err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if a.ID == "" || strings.ContainsAny(a.ID+a.Summary, "\x00\x1b\n") {
			t.Fatalf("%q passes as %q, %q", b, a.ID, a.Summary)
		}
		for _, e := range a.Affected {
			if e.Name == "" || e.Space == "" || len(e.Ranges)+len(e.Versions) == 0 {
				t.Fatalf("%q passes with %+v", b, e)
			}
			for _, r := range e.Ranges {
				for _, ev := range r.Events {
					if ev == (gatehouse.RangeEvent{}) {
						t.Fatalf("%q passes with an empty event", b)
					}
				}
			}
		}
	})
}

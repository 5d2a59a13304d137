package nvd_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/nvd"
	"github.com/google/go-cmp/cmp"
)

// file is in the form of the API and of the yearly files, shortened.
const file = `{"resultsPerPage":3,"startIndex":0,"totalResults":3,"format":"NVD_CVE","version":"2.0","timestamp":"2026-01-01T00:00:01.123",
"vulnerabilities":[
{"cve":{"id":"CVE-2024-0001","sourceIdentifier":"cve@mitre.org","published":"2024-01-02T03:04:05.123","lastModified":"2024-05-06T07:08:09.000","vulnStatus":"Analyzed",
 "cveTags":[{"sourceIdentifier":"cve@mitre.org","tags":["disputed"]}],
 "descriptions":[{"lang":"es","value":"Un fallo"},{"lang":"en","value":"A flaw.\u001b[2J"}],
 "metrics":{
  "cvssMetricV40":[{"source":"security-advisories@github.com","type":"Secondary","cvssData":{"version":"4.0","vectorString":"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N","baseScore":9.3}}],
  "cvssMetricV31":[
   {"source":"nvd@nist.gov","type":"Primary","cvssData":{"version":"3.1","vectorString":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N","baseScore":7.5,"baseSeverity":"HIGH"}},
   {"source":"secalert@redhat.com","type":"Secondary","cvssData":{"version":"3.1","vectorString":"nonsense"}}],
  "cvssMetricV2":[{"source":"nvd@nist.gov","type":"Primary","cvssData":{"version":"2.0","vectorString":"AV:N/AC:L/Au:N/C:P/I:N/A:N","baseScore":5.0},"baseSeverity":"MEDIUM"}]},
 "weaknesses":[{"source":"nvd@nist.gov","description":[{"lang":"en","value":"CWE-79"}]}],
 "configurations":[{"nodes":[{"operator":"OR","cpeMatch":[{"vulnerable":true,"criteria":"cpe:2.3:a:x:y:*:*:*:*:*:*:*:*"}]}]}],
 "references":[{"url":"https://a.example","source":"x"},{"url":"https://a.example"},{"url":"javascript:alert(1)"}]}},
{"cve":{"id":"CVE-2024-0002","published":"2024-01-02T03:04:05.123","lastModified":"2024-05-06T07:08:09.000","vulnStatus":"Rejected",
 "descriptions":[{"lang":"en","value":"Rejected reason: not used"}],"metrics":{},"references":[]}},
{"cve":{"id":"CVE-2024-0003","published":"2024-01-02T03:04:05.123","lastModified":"2024-05-06T07:08:09.000","vulnStatus":"Awaiting Analysis","descriptions":[],
 "metrics":{"cvssMetricV31":[{"source":"134c704f-9b21-4f2e-91b3-4a467353bcc0","cvssData":{"vectorString":"CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:H"}}]}}}
]}`

func read(s string, limits nvd.Limits) (out []gatehouse.Advisory, err error) {
	for a, err := range nvd.Read(context.Background(), strings.NewReader(s), limits) {
		if err != nil {
			return out, err
		}
		out = append(out, a)
	}
	return out, nil
}

func TestRead(t *testing.T) {
	got, err := read(file, nvd.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	published, modified := time.Date(2024, 1, 2, 3, 4, 5, 123e6, time.UTC), time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	want := []gatehouse.Advisory{
		{
			ID: "CVE-2024-0001", Source: "nvd", Details: "** DISPUTED ** A flaw.[2J", Severity: gatehouse.SeverityHigh, SeveritySource: "nvd",
			CVSS: []gatehouse.CVSS{
				{Version: "4.0", Vector: "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", Score: 9.3, Source: "ghsa"},
				{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", Score: 7.5, Source: "nvd"},
				{Version: "2.0", Vector: "AV:N/AC:L/Au:N/C:P/I:N/A:N", Score: 5, Source: "nvd"},
			},
			References: []string{"https://a.example"}, Published: published, Modified: modified,
		},
		{ID: "CVE-2024-0002", Source: "nvd", Details: "Rejected reason: not used", Published: published, Modified: modified, Withdrawn: modified},
		{
			ID: "CVE-2024-0003", Source: "nvd", Severity: gatehouse.SeverityMedium, SeveritySource: "cisa-adp", Published: published, Modified: modified,
			CVSS: []gatehouse.CVSS{{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:H", Score: 5.9, Source: "cisa-adp"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMalformed(t *testing.T) {
	for change, want := range map[string]string{
		`CVE-2024-0002|GHSA-1`:                         "number 2",
		`2024-05-06T07|2024-05-06 07`:                  "lastModified",
		`"vulnerabilities":|"none":`:                   "no vulnerability",
		`"metrics":{},|"metrics":7,`:                   "number 2",
		`"startIndex":0|"startIndex":`:                 "JSON",
		`"vulnerabilities":[|"vulnerabilities":{"a":[`: "should be",
	} {
		from, to, _ := strings.Cut(change, "|")
		_, err := read(strings.Replace(file, from, to, 1), nvd.DefaultLimits())
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", change, err, want)
		}
	}
	for n := 0; n < len(file)-1; n += 97 {
		if _, err := read(file[:n], nvd.DefaultLimits()); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	if _, err := read(file+"{}", nvd.DefaultLimits()); err == nil {
		t.Error("a second document after the first is passed over")
	}
}

func TestLimits(t *testing.T) {
	long := strings.Replace(file, "A flaw.", strings.Repeat("A flaw.", 10<<10), 1)
	for what, c := range map[string]struct {
		s string
		l nvd.Limits
	}{
		"records": {file, nvd.Limits{Records: 2, RecordBytes: 1 << 20, TotalBytes: 1 << 20}},
		"record":  {long, nvd.Limits{Records: 9, RecordBytes: 1 << 10, TotalBytes: 1 << 20}},
		"all":     {file, nvd.Limits{Records: 9, RecordBytes: 1 << 20, TotalBytes: 1 << 10}},
		"nothing": {file, nvd.Limits{}},
	} {
		if _, err := read(c.s, c.l); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A long file of short records needs no more memory than one of them.
	var b strings.Builder
	b.WriteString(`{"vulnerabilities":[`)
	for i := range 5000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"cve":{"id":"CVE-2024-%d","descriptions":[{"lang":"en","value":%q}]}}`, 10000+i, strings.Repeat("x", 100))
	}
	b.WriteString("]}")
	if list, err := read(b.String(), nvd.Limits{Records: 5000, RecordBytes: 64 << 10, TotalBytes: 1 << 20}); err != nil || len(list) != 5000 {
		t.Errorf("%d records, %v", len(list), err)
	}
}

// FuzzRead looks for panics and for records that are no CVE's.
func FuzzRead(f *testing.F) {
	f.Add(file)
	f.Add(`{"vulnerabilities":[{"cve":{"id":"CVE-2024-0001"}}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		list, err := read(s, nvd.Limits{Records: 100, RecordBytes: 1 << 16, TotalBytes: 1 << 20})
		if code := gatehouse.CodeOf(err); err != nil && code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
			t.Fatal(err)
		}
		for _, a := range list {
			if !strings.HasPrefix(a.ID, "CVE-") || len(a.Affected) > 0 {
				t.Fatalf("%+v passes", a)
			}
		}
	})
}

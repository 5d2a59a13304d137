package kev_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/kev"
	"github.com/google/go-cmp/cmp"
)

const catalog = `{"title":"t","catalogVersion":"2026.03.01","dateReleased":"2026-03-01T10:00:00.1234Z","count":2,"vulnerabilities":[
{"cveID":"CVE-2024-0001","dateAdded":"2026-02-01","dueDate":"2026-02-22","knownRansomwareCampaignUse":"Known","notes":"x"},
{"cveID":"CVE-2024-123456","dateAdded":"2026-02-02","dueDate":"","knownRansomwareCampaignUse":"Unknown"}]}`

func date(month time.Month, day int) time.Time {
	return time.Date(2026, month, day, 0, 0, 0, 0, time.UTC)
}

func TestRead(t *testing.T) {
	got, released, err := kev.Read(strings.NewReader(catalog))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]gatehouse.KEV{
		"CVE-2024-0001":   {Added: date(2, 1), Due: date(2, 22), Ransomware: true},
		"CVE-2024-123456": {Added: date(2, 2)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if released.Format(time.DateTime) != "2026-03-01 10:00:00" {
		t.Errorf("released %v", released)
	}
}

func TestMalformed(t *testing.T) {
	for change, want := range map[string]string{
		`"count":2/"count":3`:               "says that it has 3",
		`CVE-2024-0001/GHSA-1`:              "vulnerabilities[0]",
		`2026-02-02/yesterday`:              "not a date",
		`2026-02-22/22.2.2026`:              "not a date",
		`2026-03-01T10/2026-03-01-10`:       "dateReleased",
		`]}/]`:                              "no KEV catalog",
		`"vulnerabilities"/"vulnerability"`: "holds no vulnerability",
	} {
		from, to, _ := strings.Cut(change, "/")
		_, _, err := kev.Read(strings.NewReader(strings.Replace(catalog, from, to, 1)))
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", change, err, want)
		}
	}
	endless := strings.NewReader(`{"title":"` + strings.Repeat("x", 65<<20))
	if _, _, err := kev.Read(endless); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("a title of 65 MiB: %v", err)
	}
}

// FuzzRead looks for panics and for lines that pass although they are no CVE's.
func FuzzRead(f *testing.F) {
	f.Add(catalog)
	f.Add(`{"vulnerabilities":[{}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		table, _, err := kev.Read(strings.NewReader(s))
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Fatal(err)
		}
		for id, k := range table {
			if !strings.HasPrefix(id, "CVE-") || k.Added.IsZero() {
				t.Fatalf("%q passes with %+v", id, k)
			}
		}
	})
}

package epss_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/epss"
	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	const scores = "cve,epss,percentile\nCVE-1999-0001,0.01141,0.77532\nCVE-2024-123456,1,1e-05\n"
	want := map[string]gatehouse.EPSS{
		"CVE-1999-0001": {Score: 0.01141, Percentile: 0.77532}, "CVE-2024-123456": {Score: 1, Percentile: 0.00001},
	}
	for head, day := range map[string]string{
		"#model_version:v2025.03.14,score_date:2025-05-01T00:00:00+0000\n": "2025-05-01",
		"#model_version:v2025.03.14,score_date:2025-05-01T12:55:00Z\r\n":   "2025-05-01",
		"": "0001-01-01",
	} {
		got, at, err := epss.Read(strings.NewReader(head + scores))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if at.Format(time.DateOnly) != day {
			t.Errorf("%q is of %v", head, at)
		}
	}
}

func TestMalformed(t *testing.T) {
	const head = "cve,epss,percentile\n"
	for text, want := range map[string]string{
		"":                               "no score",
		head:                             "no score",
		"CVE-2024-0001,0.5,0.9\n":        "line 1",
		head + "CVE-2024-0001,0.5\n":     "line 2",
		head + "CVE-2024-0001,0.5,":      "line 2", // cut short
		head + "CVE-2024-0001,1.5,0.9":   "between 0 and 1",
		head + "CVE-2024-0001,NaN,0.9":   "between 0 and 1",
		head + "CVE-2024-0001,-0.1,0.9":  "between 0 and 1",
		head + "GHSA-1,0.5,0.9":          "not a CVE",
		"#score_date:yesterday\n" + head: "score_date",
		head + strings.Repeat("x", 5000): "longer than",
	} {
		_, _, err := epss.Read(strings.NewReader(text))
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want one that says %q", text, err, want)
		}
	}
}

// FuzzRead looks for panics and for scores that are none.
func FuzzRead(f *testing.F) {
	f.Add("#model_version:v1,score_date:2025-05-01T00:00:00+0000\ncve,epss,percentile\nCVE-1999-0001,0.01141,0.77532\n")
	f.Fuzz(func(t *testing.T, s string) {
		table, _, err := epss.Read(strings.NewReader(s))
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Fatal(err)
		}
		for id, e := range table {
			if !(e.Score >= 0 && e.Score <= 1 && e.Percentile >= 0 && e.Percentile <= 1) {
				t.Fatalf("%s has %+v", id, e)
			}
		}
	})
}

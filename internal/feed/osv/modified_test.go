package osv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/google/go-cmp/cmp"
)

func changes(s string) (out []osv.Change, err error) {
	for c, err := range osv.ReadChanges(strings.NewReader(s)) {
		if err != nil {
			return out, err
		}
		out = append(out, c)
	}
	return out, nil
}

func TestReadChanges(t *testing.T) {
	got, err := changes("2026-08-21T10:00:00.5Z,npm/GHSA-1\n2026-08-21T10:00:00Z,GHSA-2\r\n2026-08-20T00:00:00Z,Red Hat/RHSA-2024:0001\n")
	at := time.Date(2026, 8, 21, 10, 0, 0, 0, time.UTC)
	want := []osv.Change{
		{Modified: at.Add(500 * time.Millisecond), Ecosystem: "npm", ID: "GHSA-1"}, {Modified: at, ID: "GHSA-2"},
		{Modified: at.Add(-34 * time.Hour), Ecosystem: "Red Hat", ID: "RHSA-2024:0001"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	for text, want := range map[string]string{
		"":                               "empty",
		"GHSA-1\n":                       "line 1",
		"yesterday,GHSA-1\n":             "not a time",
		"2026-08-21T10:00:00Z,\n":        "no id",
		"2026-08-21T10:00:00Z,a/..\n":    "no id",
		"2026-08-21T10:00:00Z,../../x\n": "no id",
		"2026-08-21T10:00:00Z,a?b\n":     "no id",
		"2026-08-21T10:00:00Z,a\x00b\n":  "control character",
		"2026-08-20T10:00:00Z,GHSA-1\n2026-08-21T10:00:00Z,GHSA-2\n":      "line 2: it is newer",
		"2026-08-21T10:00:00Z," + strings.Repeat("x", 3000) + "\n":        "longer than",
		"2026-08-21T10:00:00Z,GHSA-1\n2026-08-21T10:00:00Z,GHSA-2\n2026-": "line 3",
	} {
		if _, err := changes(text); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: error %v, want one that says %q", text, err, want)
		}
	}
}

// FuzzReadChanges looks for panics and for ids that lead out of their folder.
func FuzzReadChanges(f *testing.F) {
	f.Add("2026-08-21T10:00:00.5Z,npm/GHSA-1\n2026-08-20T10:00:00Z,GHSA-2\n")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := changes(s)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Fatal(err)
		}
		for _, c := range list {
			if c.ID == "" || c.ID == ".." || strings.ContainsAny(c.ID+c.Ecosystem, "/?#\n") {
				t.Fatalf("%q passes as %+v", s, c)
			}
		}
	})
}

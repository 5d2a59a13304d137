package field_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                          "plain",
		"a\nb\tc\r":                      "a b c ",
		"red \x1b[31malert\x07":          "red [31malert",
		"turn\u202earound\u2066":         "turnaround",
		"bad \xff byte":                  "bad  byte",
		strings.Repeat("x", 2<<10):       strings.Repeat("x", field.SummaryMax) + "…",
		strings.Repeat("ä", 1<<10) + "x": strings.Repeat("ä", field.SummaryMax/2) + "…",
	} {
		if got := field.Text(in, field.SummaryMax, false); got != want || !utf8.ValidString(got) {
			t.Errorf("Text(%.40q) = %.40q, want %.40q", in, got, want)
		}
	}
	if got := field.Text("a\n\tb\r", field.DetailsMax, true); got != "a\n\tb " {
		t.Errorf("lines: %q", got)
	}
}

func TestScore(t *testing.T) {
	for vector, want := range map[string]struct {
		version string
		score   float64
	}{
		// The scores are those of FIRST's calculators.
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":                    {"3.1", 9.8},
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H/":                   {"3.1", 9.8},
		"CVSS:3.0/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N":                    {"3.0", 5.5},
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": {"4.0", 9.3},
		"AV:N/AC:L/Au:N/C:P/I:P/A:P":                                      {"2.0", 7.5},
		"":                                                                {"", 0},
		"CVSS:3.1/AV:N":                                                   {"", 0},
		"CVSS:5.0/AV:N":                                                   {"", 0},
		strings.Repeat("AV:N/", 200) + "":                                 {"", 0},
	} {
		c, ok := field.Score(vector)
		if ok != (want.version != "") || c.Version != want.version || ok && c.Score != want.score {
			t.Errorf("Score(%.60q) = %+v, %v, want %+v", vector, c, ok, want)
		}
	}
}

func TestReferences(t *testing.T) {
	got := field.References([]string{"https://a", "javascript:alert(1)", "http://b", "https://a", "https://c\x1b", "ftp://d"})
	if want := []string{"https://a", "http://b"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	var many []string
	for i := range 100 {
		many = append(many, "https://x/"+strings.Repeat("y", i))
	}
	if got := field.References(many); len(got) != field.ReferencesMax {
		t.Errorf("%d of 100 are kept", len(got))
	}
}

func TestCVE(t *testing.T) {
	for id, want := range map[string]bool{
		"CVE-1999-0001": true, "CVE-2024-1234567": true,
		"": false, "CVE-": false, "CVE-24-0001": false, "CVE-2024-1": false, "CVE-2024-12a4": false, "cve-2024-0001": false, "CVE-2024-0001\n": false, "CVE-2024-0001-1": false,
	} {
		if got := field.CVE(id) == nil; got != want {
			t.Errorf("CVE(%q) is right: %v, want %v", id, got, want)
		}
	}
}

// TestCheck: what steers a terminal is in no name, in whichever form.
func TestCheck(t *testing.T) {
	for _, good := range []string{"", "GHSA-1", "a/b", "../c", "größe", "@scope/名前", "1.0\u00a0"} {
		if err := field.Check("id", good, 100); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"a\x1b[2J", "a\nb", "a\x00", "a\x7f", "a\u009b2J", "a\u0085b", "evil\u202egnp.exe", "a\u2066b", strings.Repeat("x", 101)} {
		if err := field.Check("id", bad, 100); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		} else if strings.ContainsAny(err.Error(), "\x1b\n\x00\x7f\u009b\u0085\u202e\u2066") {
			t.Errorf("the error says it: %q", err)
		}
	}
}

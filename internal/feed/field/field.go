// Package field checks and normalises single fields of published records, which
// all formats have in common: names, times, texts, web addresses, scores. What
// comes out can be printed and compared without harm.
package field

import (
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	gocvss20 "github.com/pandatix/go-cvss/20"
	gocvss30 "github.com/pandatix/go-cvss/30"
	gocvss31 "github.com/pandatix/go-cvss/31"
	gocvss40 "github.com/pandatix/go-cvss/40"
)

// What one record may hold at most. All are far above what is published.
const (
	IDMax         = 256
	NameMax       = 1024     // of a package, a version, an address
	DetailsMax    = 64 << 10 // bytes, longer text is cut
	SummaryMax    = 1 << 10  // bytes, longer text is cut
	ReferencesMax = 64       // further ones are dropped
	vectorMax     = 512      // bytes of a CVSS vector
)

// Check keeps control characters, what turns text around, and excess out of what is
// printed and compared. Errors: CodeInvalid.
func Check(what, s string, lengthMax int) error {
	if len(s) > lengthMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s %q is longer than %d bytes", what, Clip(s), lengthMax)
	}
	for _, c := range s {
		if c < ' ' || c >= 0x7f && c < 0xa0 || isBidi(c) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s %q holds a control character", what, Clip(s))
		}
	}
	return nil
}

// Text cuts s to a length in bytes and takes out what could steer a terminal.
// Line breaks become blanks unless lines are wanted.
func Text(s string, lengthMax int, lines bool) string {
	if len(s) > lengthMax {
		s = s[:lengthMax] + "…"
	}
	return strings.Map(func(c rune) rune {
		switch {
		case lines && (c == '\n' || c == '\t'):
			return c
		case c == '\n' || c == '\t' || c == '\r':
			return ' '
		case c < ' ' || c >= 0x7f && c < 0xa0 || c == '\uFFFD' || isBidi(c):
			return -1
		}
		return c
	}, s)
}

// isBidi reports the characters that turn text around (Trojan Source).
func isBidi(c rune) bool { return c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 }

// Clip shortens what an error message shows.
func Clip(s string) string {
	const shown = 80
	if len(s) > shown {
		return s[:shown] + "…"
	}
	return s
}

// References keeps web addresses, each once.
func References(list []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range list {
		if len(out) == ReferencesMax {
			break
		}
		if IsWeb(s) && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// IsWeb reports whether s is an address that a report may show as a link.
func IsWeb(s string) bool {
	return (strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")) && Check("", s, NameMax) == nil
}

// Time reads a time of RFC 3339; an empty one is zero. Errors: CodeInvalid.
func Time(what, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s %q is not a time such as 2026-01-31T12:00:00Z", what, Clip(s))
	}
	return t.UTC(), nil
}

// words are the severities as vendors name them.
var words = map[string]gatehouse.Severity{
	"critical": gatehouse.SeverityCritical,
	"high":     gatehouse.SeverityHigh, "important": gatehouse.SeverityHigh,
	"medium": gatehouse.SeverityMedium, "moderate": gatehouse.SeverityMedium,
	"low":        gatehouse.SeverityLow,
	"negligible": gatehouse.SeverityNegligible, "unimportant": gatehouse.SeverityNegligible, "none": gatehouse.SeverityNegligible,
}

// Severity reads a vendor's word, in any case; unknown words are
// SeverityUnknown.
func Severity(word string) gatehouse.Severity { return words[strings.ToLower(word)] }

// Score reads a CVSS vector of any version and computes its score. ok is false
// for what is none, which is left out of a record: its rest is still of use.
func Score(vector string) (c gatehouse.CVSS, ok bool) {
	if len(vector) > vectorMax {
		return c, false
	}
	vector = strings.TrimSuffix(vector, "/") // as GitHub has it now and then
	c.Vector = vector
	switch {
	case strings.HasPrefix(vector, "CVSS:4.0/"):
		if v, err := gocvss40.ParseVector(vector); err == nil {
			c.Version, c.Score = "4.0", v.Score()
		}
	case strings.HasPrefix(vector, "CVSS:3.1/"):
		if v, err := gocvss31.ParseVector(vector); err == nil {
			c.Version, c.Score = "3.1", v.EnvironmentalScore()
		}
	case strings.HasPrefix(vector, "CVSS:3.0/"):
		if v, err := gocvss30.ParseVector(vector); err == nil {
			c.Version, c.Score = "3.0", v.EnvironmentalScore()
		}
	default:
		if v, err := gocvss20.ParseVector(vector); err == nil {
			c.Version, c.Score = "2.0", v.EnvironmentalScore()
		}
	}
	return c, c.Version != ""
}

// CVE checks that s is the id of a CVE. Errors: CodeInvalid.
func CVE(s string) error {
	rest, ok := strings.CutPrefix(s, "CVE-")
	year, number, cut := strings.Cut(rest, "-")
	if !ok || !cut || len(year) != 4 || len(number) < 4 || len(number) > 12 || strings.Trim(year+number, "0123456789") != "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not the id of a CVE", Clip(s))
	}
	return nil
}

// Package osv reads advisories in the OSV format (ossf.github.io/osv-schema,
// version 1.x): one record, an array of records, or a zip of them as OSV.dev
// publishes per ecosystem.
//
// In go foreign bytes, out come [gatehouse.Advisory] values, or the first error
// with the name of the file and what is wrong with it: a reader that stops at
// an error lets the caller refuse the whole import, so that nothing is stored
// by half. Fields that this package does not know are ignored; ranges over git
// commits are dropped, since packages have no commits.
package osv

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Source is what [gatehouse.Advisory] names as its feed.
const Source = "osv"

// What one record may hold at most. All are far above what is published.
const (
	idLengthMax      = 256
	nameLengthMax    = 1024
	detailsLengthMax = 64 << 10 // bytes, longer text is cut
	summaryLengthMax = 1 << 10  // bytes, longer text is cut
	referencesMax    = 64       // further ones are dropped
	aliasesMax       = 4096
	platformsMax     = 256 // a record with more is taken to be about all
)

// record is an OSV record; [record.advisory] checks and normalises it.
type record struct {
	SchemaVersion string      `json:"schema_version"`
	ID            string      `json:"id"`
	Modified      string      `json:"modified"`
	Published     string      `json:"published"`
	Withdrawn     string      `json:"withdrawn"`
	Aliases       []string    `json:"aliases"`
	Upstream      []string    `json:"upstream"`
	Related       []string    `json:"related"`
	Summary       string      `json:"summary"`
	Details       string      `json:"details"`
	Severity      []severity  `json:"severity"`
	Affected      []affected  `json:"affected"`
	References    []reference `json:"references"`
	Database      struct {
		Severity    any      `json:"severity"`
		CVSSScoreV2 *float64 `json:"cvss_score_v2"`
		CVSSScoreV3 *float64 `json:"cvss_score_v3"`
		CVSSScoreV4 *float64 `json:"cvss_score_v4"`
	} `json:"database_specific"`
}

type severity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

type reference struct {
	URL string `json:"url"`
}

type affected struct {
	Package *struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
		PURL      string `json:"purl"`
	} `json:"package"`
	Ranges   []versionRange `json:"ranges"`
	Versions []string       `json:"versions"`
	Severity []severity     `json:"severity"`
	Specific struct {
		Severity any `json:"severity"`
		Urgency  any `json:"urgency"`
		Imports  any `json:"imports"`
	} `json:"ecosystem_specific"`
	Database struct {
		Informational any `json:"informational"`
	} `json:"database_specific"`
}

type versionRange struct {
	Type   string `json:"type"`
	Events []struct {
		Introduced   *string `json:"introduced"`
		Fixed        *string `json:"fixed"`
		LastAffected *string `json:"last_affected"`
		Limit        *string `json:"limit"`
	} `json:"events"`
}

// Parse reads one record. Errors: CodeInvalid, whose message says what is wrong
// with it.
func Parse(b []byte) (gatehouse.Advisory, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no OSV record: %w", err)
	}
	a, err := r.advisory()
	if err != nil && r.ID != "" {
		return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "record %s: %w", clip(r.ID), err)
	}
	return a, err
}

func (r *record) advisory() (gatehouse.Advisory, error) {
	if err := r.check(); err != nil {
		return gatehouse.Advisory{}, err
	}
	a := gatehouse.Advisory{
		ID: r.ID, Source: Source,
		Summary: text(r.Summary, summaryLengthMax, false), Details: text(r.Details, detailsLengthMax, true),
	}
	var err error
	if a.Modified, err = timestamp("modified", r.Modified); err != nil {
		return gatehouse.Advisory{}, err
	}
	if a.Published, err = timestamp("published", r.Published); err != nil {
		return gatehouse.Advisory{}, err
	}
	if a.Withdrawn, err = timestamp("withdrawn", r.Withdrawn); err != nil {
		return gatehouse.Advisory{}, err
	}
	for _, names := range []struct {
		from []string
		to   *[]string
		what string
	}{{r.Aliases, &a.Aliases, "aliases"}, {r.Upstream, &a.Upstream, "upstream"}, {r.Related, &a.Related, "related"}} {
		if *names.to, err = ids(names.from, names.what); err != nil {
			return gatehouse.Advisory{}, err
		}
	}
	for _, ref := range r.References {
		if len(a.References) < referencesMax && isWebAddress(ref.URL) {
			a.References = append(a.References, ref.URL)
		}
	}
	for i := range r.Affected {
		one, err := r.Affected[i].affected(r)
		if err != nil {
			return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "affected[%d]: %w", i, err)
		}
		if one.Name != "" {
			a.Affected = append(a.Affected, one)
		}
	}
	rate(r, &a)
	return a, nil
}

func (r *record) check() error {
	if major, _, _ := strings.Cut(r.SchemaVersion, "."); r.SchemaVersion != "" && major != "1" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "schema_version %q is not 1.x, which is what can be read", clip(r.SchemaVersion))
	}
	if r.ID == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the record has no id")
	}
	return checkName("id", r.ID, idLengthMax)
}

// ids checks a list of names of flaws and returns it without repetitions.
func ids(list []string, what string) ([]string, error) {
	if len(list) > aliasesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has %d entries, at most %d are read", what, len(list), aliasesMax)
	}
	seen := map[string]bool{}
	var out []string
	for _, id := range list {
		if err := checkName(what, id, idLengthMax); err != nil {
			return nil, err
		}
		if id != "" && !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out, nil
}

// checkName keeps control characters out of what is printed and compared.
func checkName(what, s string, lengthMax int) error {
	if len(s) > lengthMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s %q is longer than %d bytes", what, clip(s), lengthMax)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s %q holds a control character", what, clip(s))
		}
	}
	return nil
}

func timestamp(what, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s %q is not a time such as 2026-01-31T12:00:00Z", what, clip(s))
	}
	return t.UTC(), nil
}

func isWebAddress(s string) bool {
	return (strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")) && checkName("", s, nameLengthMax) == nil
}

// text cuts s to a length in bytes and takes out what could steer a terminal.
func text(s string, lengthMax int, lines bool) string {
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

func clip(s string) string {
	const shown = 80
	if len(s) > shown {
		return s[:shown] + "…"
	}
	return s
}

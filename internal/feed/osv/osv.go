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

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// Source is what [gatehouse.Advisory] names as its feed.
const Source = "osv"

// What one record may hold at most. All are far above what is published.
const (
	aliasesMax   = 4096
	platformsMax = 256 // a record with more is taken to be about all
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
		return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "record %s: %w", field.Clip(r.ID), err)
	}
	return a, err
}

func (r *record) advisory() (gatehouse.Advisory, error) {
	if err := r.check(); err != nil {
		return gatehouse.Advisory{}, err
	}
	a := gatehouse.Advisory{
		ID: r.ID, Source: Source,
		Summary: field.Text(r.Summary, field.SummaryMax, false), Details: field.Text(r.Details, field.DetailsMax, true),
	}
	var err error
	if a.Modified, err = field.Time("modified", r.Modified); err != nil {
		return gatehouse.Advisory{}, err
	}
	if a.Published, err = field.Time("published", r.Published); err != nil {
		return gatehouse.Advisory{}, err
	}
	if a.Withdrawn, err = field.Time("withdrawn", r.Withdrawn); err != nil {
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
		if len(a.References) < field.ReferencesMax && field.IsWeb(ref.URL) {
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
		return gatehouse.Errorf(gatehouse.CodeInvalid, "schema_version %q is not 1.x, which is what can be read", field.Clip(r.SchemaVersion))
	}
	if r.ID == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the record has no id")
	}
	return field.Check("id", r.ID, field.IDMax)
}

// ids checks a list of names of flaws and returns it without repetitions.
func ids(list []string, what string) ([]string, error) {
	if len(list) > aliasesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has %d entries, at most %d are read", what, len(list), aliasesMax)
	}
	seen := map[string]bool{}
	var out []string
	for _, id := range list {
		if err := field.Check(what, id, field.IDMax); err != nil {
			return nil, err
		}
		if id != "" && !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out, nil
}

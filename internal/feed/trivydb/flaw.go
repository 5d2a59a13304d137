package trivydb

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// bucketFlaws holds texts, severities and scores by the flaw's id.
const bucketFlaws = "vulnerability"

// flaw is a value of that bucket.
type flaw struct {
	Title, Description string
	VendorSeverity     map[string]int
	CVSS               map[string]struct {
		V2Vector, V3Vector, V40Vector string
	}
	References       []string
	PublishedDate    *time.Time
	LastModifiedDate *time.Time
}

// severities by number, as the database counts them.
var severities = [...]gatehouse.Severity{
	gatehouse.SeverityUnknown, gatehouse.SeverityLow, gatehouse.SeverityMedium, gatehouse.SeverityHigh, gatehouse.SeverityCritical,
}

func severity(n int) gatehouse.Severity {
	if n < 0 || n >= len(severities) {
		return gatehouse.SeverityUnknown
	}
	return severities[n]
}

// sourceNames are the sources that we know by another name.
var sourceNames = map[string]string{
	"alma": "almalinux", "redhat-oval": "redhat", "oracle-oval": "oracle", "suse-cvrf": "suse", "cbl-mariner": "azure",
	"ruby-advisory-db": "rubysec", "php-security-advisories": "friendsofphp", "govulndb": "go",
}

func sourceName(id string) string {
	if name, ok := sourceNames[id]; ok {
		return name
	}
	return field.Text(id, field.IDMax, false)
}

// ratings is who rates a flaw how, by the database's name of the source.
type ratings map[string]int

// overall is the order in which a rating stands for those who have none of
// their own: NVD's, then whoever looks at flaws as such, then distributions.
var overall = []string{"nvd", "ghsa", "redhat", "ubuntu", "debian"}

// pick returns the rating of the flaw as such.
func (r ratings) pick() (gatehouse.Severity, string) {
	for _, id := range slices.Concat(overall, slices.Sorted(maps.Keys(r))) {
		if s := severity(r[id]); s != gatehouse.SeverityUnknown {
			return s, sourceName(id)
		}
	}
	return gatehouse.SeverityUnknown, ""
}

func parseFlaw(id string, value []byte) (f flaw, err error) {
	if err := json.Unmarshal(value, &f); err != nil {
		return f, gatehouse.Errorf(gatehouse.CodeInvalid, "the vulnerability %s is malformed: %w", field.Clip(id), err)
	}
	return f, nil
}

// describe puts texts, scores and times of a flaw into a record.
func (f flaw) describe(a *gatehouse.Advisory) {
	a.Summary = field.Text(f.Title, field.SummaryMax, false)
	a.Details = field.Text(f.Description, field.DetailsMax, true)
	a.References = field.References(f.References)
	if f.PublishedDate != nil {
		a.Published = f.PublishedDate.UTC()
	}
	if f.LastModifiedDate != nil {
		a.Modified = f.LastModifiedDate.UTC()
	}
	for _, source := range slices.Sorted(maps.Keys(f.CVSS)) {
		v := f.CVSS[source]
		for _, vector := range []string{v.V40Vector, v.V3Vector, v.V2Vector} {
			if c, ok := field.Score(vector); ok && vector != "" {
				c.Source = sourceName(source)
				a.CVSS = append(a.CVSS, c)
			}
		}
	}
}

// allFlaws gives one record per CVE and collects who rates what how. Ids that
// are no CVE's are a publisher's own records, which take their texts from here.
func (r *reading) allFlaws() (map[string]ratings, error) {
	b, ok, err := r.open(bucketFlaws)
	if err != nil || !ok {
		return nil, err
	}
	r.flaws = b
	rated := map[string]ratings{}
	same := map[string]ratings{} // most flaws are rated as others are
	n := 0
	err = b.each(func(key, value []byte, isBucket bool) error {
		if isBucket {
			return nil
		}
		if n++; n > r.db.limits.Flaws {
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "the database holds more than %d vulnerabilities", r.db.limits.Flaws)
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		id := string(key)
		if err := field.Check("vulnerability", id, field.IDMax); err != nil {
			return err
		}
		f, err := parseFlaw(id, value)
		if err != nil {
			return err
		}
		if len(f.VendorSeverity) > 0 {
			rated[id] = intern(same, f.VendorSeverity)
		}
		if !isCVE(id) {
			return nil
		}
		a := gatehouse.Advisory{ID: id, Source: Source}
		a.Severity, a.SeveritySource = ratings(f.VendorSeverity).pick()
		f.describe(&a)
		if !r.yield(a, nil) {
			return errStop
		}
		return nil
	})
	return rated, err
}

// intern returns one map for all that are equal.
func intern(same map[string]ratings, m map[string]int) ratings {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(k)
		b.WriteByte(0)
		b.WriteByte(byte(m[k]))
	}
	if r, ok := same[b.String()]; ok {
		return r
	}
	same[b.String()] = m
	return m
}

func isCVE(id string) bool { return strings.HasPrefix(id, "CVE-") }

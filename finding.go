package gatehouse

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Severity orders how bad a finding is. The zero value is unknown, which no
// filter may drop silently and which a policy treats as high unless it says
// otherwise.
type Severity int

const (
	SeverityUnknown Severity = iota
	SeverityNegligible
	SeverityLow
	SeverityMedium
	SeverityHigh
	SeverityCritical
)

var severityNames = [...]string{"UNKNOWN", "NEGLIGIBLE", "LOW", "MEDIUM", "HIGH", "CRITICAL"}

// Severities lists all severities, worst first, unknown last: the order in
// which reports are sorted.
func Severities() []Severity {
	return []Severity{SeverityCritical, SeverityHigh, SeverityMedium, SeverityLow, SeverityNegligible, SeverityUnknown}
}

func (s Severity) String() string {
	if s < 0 || int(s) >= len(severityNames) {
		return "UNKNOWN"
	}
	return severityNames[s]
}

// ParseSeverity accepts the names of [Severity.String] in any case.
// Errors: CodeInvalid.
func ParseSeverity(s string) (Severity, error) {
	for i, name := range severityNames {
		if strings.EqualFold(s, name) {
			return Severity(i), nil
		}
	}
	return 0, Errorf(CodeInvalid, "severity %q is unknown", clip(s)).
		WithHint("use %s", strings.Join(severityNames[:], ", "))
}

// MarshalJSON writes the name.
func (s Severity) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads the name; an unknown name is an error.
func (s *Severity) UnmarshalJSON(b []byte) error {
	var name string
	if err := json.Unmarshal(b, &name); err != nil {
		return err
	}
	v, err := ParseSeverity(name)
	*s = v
	return err
}

// Advisory is one published record of a flaw, normalised from any feed.
type Advisory struct {
	ID       string   `json:"id"`                 // "DSA-5417-1", "CVE-2023-0464", "GO-2023-1571"
	Aliases  []string `json:"aliases,omitempty"`  // the same flaw under other names
	Upstream []string `json:"upstream,omitempty"` // the flaws that this record covers (OSV 1.7)
	Related  []string `json:"related,omitempty"`
	Source   string   `json:"source"` // format of the feed: "osv", "trivydb", "nvd"
	// Feed names the publication that the record came with ("osv/Debian",
	// "trivy-db", "nvd"). A record is told by Feed and ID; a feed that is
	// published whole replaces all of its own records and no others.
	Feed     string   `json:"feed,omitempty"`
	Summary  string   `json:"summary,omitempty"`
	Details  string   `json:"details,omitempty"`
	Severity Severity `json:"severity"` // of this record, before other records are asked
	// SeveritySource names who rated it; empty while unknown.
	SeveritySource string     `json:"severitySource,omitempty"`
	CVSS           []CVSS     `json:"cvss,omitempty"`
	References     []string   `json:"references,omitempty"`
	Published      time.Time  `json:"published,omitzero"`
	Modified       time.Time  `json:"modified,omitzero"`
	Withdrawn      time.Time  `json:"withdrawn,omitzero"` // not zero: the record no longer holds
	Affected       []Affected `json:"affected"`
}

// CVSS is one score with its vector ("CVSS:3.1/AV:N/…").
type CVSS struct {
	Version string  `json:"version"` // "2.0", "3.0", "3.1", "4.0"
	Vector  string  `json:"vector"`
	Score   float64 `json:"score"` // 0 to 10
	Source  string  `json:"source,omitempty"`
}

// Severity rates the score on the qualitative scale of CVSS 3.x and 4.0
// (section 5); for 2.0 on NVD's, which has no critical.
func (c CVSS) Severity() Severity {
	switch {
	case c.Version == "":
		return SeverityUnknown
	case c.Score >= 9 && c.Version != "2.0":
		return SeverityCritical
	case c.Score >= 7:
		return SeverityHigh
	case c.Score >= 4:
		return SeverityMedium
	case c.Score > 0 || c.Version == "2.0":
		return SeverityLow
	}
	return SeverityNegligible
}

// Affected says which versions of one package an advisory speaks of.
type Affected struct {
	// Space is the ecosystem with its release as OSV writes it: "npm", "Go",
	// "Debian:12", "Alpine:v3.10", "AlmaLinux:8".
	Space  string  `json:"space"`
	Name   string  `json:"name"` // as normalised for the ecosystem (PyPI: PEP 503)
	Ranges []Range `json:"ranges,omitempty"`
	// Versions are affected besides the ranges, compared as written.
	Versions []string `json:"versions,omitempty"`
	// Status is "" or one of affected, not_affected, under_investigation,
	// will_not_fix, fix_deferred, end_of_life. A distribution's not_affected
	// overrules what other records say of the same flaw in its packages; without
	// ranges and versions it holds for all versions.
	Status string `json:"status,omitempty"`
	// Modules are rpm module streams ("nodejs:16") that it is limited to.
	Modules []string `json:"modules,omitempty"`
	// Arches are what it is limited to of architectures as packages have them:
	// "x86_64" of an rpm, "windows/*" or "linux/386" (GOOS/GOARCH) of Go.
	Arches []string `json:"arches,omitempty"`
	// Severity is the publisher's own rating for this package in this release,
	// where it differs from package to package (Debian, Ubuntu); it goes before
	// the record's.
	Severity Severity `json:"severity,omitempty"`
	// Informational records (unmaintained, notice) are not vulnerabilities.
	Informational string `json:"informational,omitempty"`
}

// Range is a list of events on the line of versions (OSV schema,
// affected[].ranges[]). Type is SEMVER or ECOSYSTEM; GIT ranges are dropped by
// the feeds.
type Range struct {
	Type   string       `json:"type"`
	Events []RangeEvent `json:"events"`
}

// RangeEvent has exactly one field set. Introduced "0" is before every version.
type RangeEvent struct {
	Introduced   string `json:"introduced,omitempty"`
	Fixed        string `json:"fixed,omitempty"`
	LastAffected string `json:"lastAffected,omitempty"`
	Limit        string `json:"limit,omitempty"`
}

// Kind is what a finding is about.
type Kind string

const (
	KindVulnerability Kind = "vulnerability"
	KindSecret        Kind = "secret"
	KindMisconfig     Kind = "misconfig"
	KindMalware       Kind = "malware"
	KindLicense       Kind = "license"
)

// Status of a finding's fix.
const (
	StatusAffected    = "affected" // no fixed version is known
	StatusFixed       = "fixed"    // FixedVersion repairs it
	StatusWillNotFix  = "will_not_fix"
	StatusFixDeferred = "fix_deferred"
	StatusEndOfLife   = "end_of_life"
)

// Status of an advisory's entry that is no finding.
const (
	StatusNotAffected        = "not_affected"
	StatusUnderInvestigation = "under_investigation"
)

// Finding is one thing wrong with one package at one place. Records that speak
// of the same flaw are folded into one finding with all their names.
type Finding struct {
	ID             string    `json:"id"`      // the CVE where there is one
	Aliases        []string  `json:"aliases"` // every other name, sorted
	Kind           Kind      `json:"kind"`
	Package        Package   `json:"package"`
	FixedVersion   string    `json:"fixedVersion"` // empty: none known
	Status         string    `json:"status"`
	Severity       Severity  `json:"severity"`
	SeveritySource string    `json:"severitySource"`
	CVSS           []CVSS    `json:"cvss"`
	Title          string    `json:"title"`
	Description    string    `json:"description"`
	References     []string  `json:"references"`
	Published      time.Time `json:"published,omitzero"`
	FirstSeen      time.Time `json:"firstSeen,omitzero"` // of this image, by this server
	// KnownSince is when this server first knew it of this version of the package, in
	// whatever image: building an image again does not change it. Zero: not known.
	KnownSince time.Time `json:"knownSince,omitzero"`
	// EPSS and KEV are applied on reading: a new score matches nothing again.
	EPSS *EPSS `json:"epss,omitempty"`
	KEV  *KEV  `json:"kev,omitempty"`
	// Resolution says how to repair what no newer version repairs: secrets,
	// misconfiguration, malware, licences.
	Resolution string `json:"resolution,omitempty"`
	// Location is set where the finding is about a file or the configuration
	// and not about a package. Package then holds Path and Layer only.
	Location *Location `json:"location,omitempty"`
	// Suppressed says why the finding does not count. It stays visible.
	Suppressed *Suppression `json:"suppressed,omitempty"`
	// Assessed is what a VEX statement says of a finding that counts all the
	// same: Status is "under_investigation" or "affected".
	Assessed *Suppression `json:"assessed,omitempty"`
}

// Location is where in an image something stands that is no package.
type Location struct {
	// Origin is "file", "env", "label", "history", "config" or "image".
	Origin string `json:"origin"`
	// Name is the variable, the label or the step; empty for files.
	Name string `json:"name,omitempty"`
	// StartLine and EndLine count from 1; 0 = not a line of text.
	StartLine int `json:"startLine,omitempty"`
	EndLine   int `json:"endLine,omitempty"`
	// Excerpt shows the place. What is secret in it is masked before it gets
	// here: the secret itself is never stored.
	Excerpt string `json:"excerpt,omitempty"`
	// Deleted: an upper layer hides the file, and whoever pulls the image can
	// still read it.
	Deleted bool `json:"deleted,omitempty"`
}

// EPSS is FIRST's estimate that a flaw will be exploited in the next 30 days.
type EPSS struct {
	Score      float64 `json:"score"`      // probability, 0 to 1
	Percentile float64 `json:"percentile"` // 0 to 1
}

// KEV is an entry of CISA's catalog of known exploited vulnerabilities.
type KEV struct {
	Added      time.Time `json:"added"`
	Due        time.Time `json:"due,omitzero"`
	Ransomware bool      `json:"ransomware,omitempty"`
}

// Who suppresses a finding.
const (
	SuppressedByVEX        = "vex"
	SuppressedByIgnoreFile = "ignorefile"
	SuppressedByException  = "exception"
	SuppressedByBaseline   = "baseline" // it was there before (--fail-on new)
)

// Suppression is why a finding does not count.
type Suppression struct {
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
	Status  string    `json:"status,omitempty"` // of VEX: "not_affected", "fixed"
	Source  string    `json:"source,omitempty"` // file, digest of the VEX document, id of the exception
	Author  string    `json:"author,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// Fixable reports whether a fixed version exists.
func (f Finding) Fixable() bool { return f.FixedVersion != "" }

// SortFindings puts findings into the order of reports: worst first, unknown
// last, then by package, version, path and id.
func SortFindings(findings []Finding) {
	rank := map[Severity]int{}
	for i, s := range Severities() {
		rank[s] = i
	}
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(rank[a.Severity], rank[b.Severity]),
			cmp.Compare(a.Package.Name, b.Package.Name),
			cmp.Compare(a.Package.Version, b.Package.Version),
			cmp.Compare(a.Package.Path, b.Package.Path),
			cmp.Compare(a.ID, b.ID),
		)
	})
}

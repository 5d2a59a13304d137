// Package report turns an inventory and its findings into what people and
// machines read: a table or the stable JSON document of docs/report.schema.json.
// It decides nothing and fetches nothing.
package report

import (
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// SchemaVersion of the JSON document. It grows when a field changes its
// meaning or goes; new fields do not change it.
const SchemaVersion = 1

// Report is the result of one scan.
type Report struct {
	SchemaVersion     int       `json:"schemaVersion"`
	Target            Target    `json:"target"`
	Database          Database  `json:"database"`
	OS                OS        `json:"os"`
	Complete          bool      `json:"complete"`
	IncompleteReasons []string  `json:"incompleteReasons"`
	Packages          []Package `json:"packages,omitempty"`
	Findings          []Finding `json:"findings"`
	Summary           Summary   `json:"summary"`
	// Outside counts findings of unknown severity that the filter left out.
	UnknownOutsideFilter int `json:"-"`
}

// Target says what was scanned.
type Target struct {
	Reference string           `json:"reference"`
	Digest    gatehouse.Digest `json:"digest"` // empty for a directory
	Platform  string           `json:"platform"`
}

// Database says by which advisories.
type Database struct {
	Source    string           `json:"source"`
	UpdatedAt time.Time        `json:"updatedAt,omitzero"`
	Digest    gatehouse.Digest `json:"digest"`
}

// OS is the distribution of the target.
type OS struct {
	Family  string `json:"family"`
	Version string `json:"version"`
	// EOL tells that the distribution gets no more fixes; null = not known.
	EOL *bool `json:"eol"`
}

// Package is a package at its place.
type Package struct {
	Name    string           `json:"name"`
	Version string           `json:"version"`
	Type    string           `json:"type"`
	PURL    string           `json:"purl"`
	Path    string           `json:"path"`
	Layer   gatehouse.Digest `json:"layer"`
}

// Finding is one row.
type Finding struct {
	ID             string             `json:"id"`
	Aliases        []string           `json:"aliases"`
	Kind           gatehouse.Kind     `json:"kind"`
	Package        Package            `json:"package"`
	FixedVersion   string             `json:"fixedVersion"`
	Status         string             `json:"status"`
	Severity       gatehouse.Severity `json:"severity"`
	SeveritySource string             `json:"severitySource"`
	CVSS           []gatehouse.CVSS   `json:"cvss"`
	EPSS           *float64           `json:"epss"` // probability, 0 to 1; null = not known
	KEV            bool               `json:"kev"`
	Title          string             `json:"title"`
	Description    string             `json:"description"`
	References     []string           `json:"references"`
	FirstSeen      time.Time          `json:"firstSeen,omitzero"`
}

// Summary counts the findings listed, by severity.
type Summary struct {
	Critical   int `json:"critical"`
	High       int `json:"high"`
	Medium     int `json:"medium"`
	Low        int `json:"low"`
	Negligible int `json:"negligible"`
	Unknown    int `json:"unknown"`
}

// Add counts one finding.
func (s *Summary) Add(sev gatehouse.Severity) {
	switch sev {
	case gatehouse.SeverityCritical:
		s.Critical++
	case gatehouse.SeverityHigh:
		s.High++
	case gatehouse.SeverityMedium:
		s.Medium++
	case gatehouse.SeverityLow:
		s.Low++
	case gatehouse.SeverityNegligible:
		s.Negligible++
	default:
		s.Unknown++
	}
}

// Total is the number of findings counted.
func (s Summary) Total() int {
	return s.Critical + s.High + s.Medium + s.Low + s.Negligible + s.Unknown
}

// Filter says which findings to list. The zero Filter lists all.
type Filter struct {
	Severities    []gatehouse.Severity // empty = all
	IgnoreUnfixed bool
}

func (f Filter) lists(finding gatehouse.Finding) bool {
	if f.IgnoreUnfixed && !finding.Fixable() {
		return false
	}
	return len(f.Severities) == 0 || slices.Contains(f.Severities, finding.Severity)
}

// New makes the report of one inventory. Findings of unknown severity that the
// filter leaves out are counted, never dropped silently.
func New(target Target, database Database, inv gatehouse.Inventory, findings []gatehouse.Finding, filter Filter) Report {
	r := Report{
		SchemaVersion: SchemaVersion, Target: target, Database: database,
		OS:       OS{Family: inv.Distro.ID, Version: inv.Distro.VersionID},
		Complete: inv.Complete, IncompleteReasons: slices.Clone(inv.Incomplete), Findings: []Finding{},
	}
	if r.IncompleteReasons == nil {
		r.IncompleteReasons = []string{}
	}
	for _, f := range findings {
		if !filter.lists(f) {
			if f.Severity == gatehouse.SeverityUnknown && (!filter.IgnoreUnfixed || f.Fixable()) {
				r.UnknownOutsideFilter++
			}
			continue
		}
		r.Findings = append(r.Findings, newFinding(f, inv.Distro))
		r.Summary.Add(f.Severity)
	}
	return r
}

// WithPackages adds the whole package list.
func (r Report) WithPackages(inv gatehouse.Inventory) Report {
	r.Packages = make([]Package, 0, len(inv.Packages))
	for _, p := range inv.Packages {
		r.Packages = append(r.Packages, newPackage(p, inv.Distro))
	}
	return r
}

func newPackage(p gatehouse.Package, distro gatehouse.Distro) Package {
	return Package{Name: p.Name, Version: p.Version, Type: p.Type, PURL: p.PURL(distro), Path: p.Path, Layer: p.Layer}
}

func newFinding(f gatehouse.Finding, distro gatehouse.Distro) Finding {
	return Finding{
		ID: f.ID, Aliases: orEmpty(f.Aliases), Kind: f.Kind, Package: newPackage(f.Package, distro), FixedVersion: f.FixedVersion,
		Status: f.Status, Severity: f.Severity, SeveritySource: f.SeveritySource, CVSS: orEmpty(f.CVSS), Title: f.Title,
		Description: f.Description, References: orEmpty(f.References), FirstSeen: f.FirstSeen,
	}
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Package report turns an inventory and its findings into what people and
// machines read: a table, the stable JSON document of docs/report.schema.json,
// SARIF, JUnit, GitHub's dependency snapshot, and what a template makes of it.
// It decides nothing and fetches nothing. Bills of materials are written by
// sbom.
//
// Names, titles and paths come from images and feeds that nobody has vetted:
// each format escapes them for its readers.
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
	SchemaVersion     int      `json:"schemaVersion"`
	Target            Target   `json:"target"`
	Database          Database `json:"database"`
	OS                OS       `json:"os"`
	Complete          bool     `json:"complete"`
	IncompleteReasons []string `json:"incompleteReasons"`
	// NotCompared are packages that no advisory can be compared with: without a
	// version, or of another vendor than the distribution.
	NotCompared []string  `json:"notCompared,omitempty"`
	Layers      []Layer   `json:"layers,omitempty"`
	Packages    []Package `json:"packages,omitempty"`
	Findings    []Finding `json:"findings"`
	Summary     Summary   `json:"summary"`
	// Suppressed counts the findings within the filter that VEX, an ignore file,
	// an exception or a baseline takes back. The summary does not count them.
	Suppressed int `json:"suppressed"`
	// SecondOpinions are what other scanners say of the image, in a server's
	// report. They change neither findings nor summary.
	SecondOpinions []SecondOpinion `json:"secondOpinions,omitempty"`
	// UnknownOutsideFilter counts findings of unknown severity that the filter
	// left out.
	UnknownOutsideFilter int `json:"-"`
}

// SecondOpinion counts what another scanner found beside what we found.
type SecondOpinion struct {
	Source string `json:"source"`
	// Available: the scanner answered when it was asked last. What it said before
	// is shown all the same.
	Available  bool      `json:"available"`
	Error      string    `json:"error,omitempty"`
	AskedAt    time.Time `json:"askedAt"`
	AnsweredAt time.Time `json:"answeredAt,omitzero"` // zero: never
	Scanner    string    `json:"scanner,omitempty"`
	Version    string    `json:"version,omitempty"`
	Incomplete []string  `json:"incomplete,omitempty"`
	Both       int       `json:"both"`
	OnlyOurs   int       `json:"onlyOurs"`
	OnlyTheirs int       `json:"onlyTheirs"`
}

// Target says what was scanned.
type Target struct {
	Reference string           `json:"reference"`
	Digest    gatehouse.Digest `json:"digest"` // empty for a directory
	Platform  string           `json:"platform"`
	// Source is where the bytes were read: "remote", "docker", "containerd",
	// "podman", "file", "directory", "sbom"; empty in a server's report.
	Source string `json:"source,omitempty"`
	// Index is the digest of the index that the image was chosen from, Platforms
	// what that offers; both empty where there was none. Only one platform was
	// looked at.
	Index     gatehouse.Digest `json:"index,omitempty"`
	Platforms []string         `json:"platforms,omitempty"`
}

// Others lists the platforms of the index that were not looked at.
func (t Target) Others() []string {
	return slices.DeleteFunc(slices.Clone(t.Platforms), func(p string) bool { return p == t.Platform })
}

// Database says by which advisories.
type Database struct {
	Source    string    `json:"source"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	// OldestFeed is the source of advisories that is the most out of date, and
	// OldestAt of when it is; left out where that is not known.
	OldestFeed string           `json:"oldestFeed,omitempty"`
	OldestAt   time.Time        `json:"oldestAt,omitzero"`
	Digest     gatehouse.Digest `json:"digest"`
	// Overlays are as in gatehouse.ImageFacts.
	Overlays []string `json:"-"`
}

// OS is the distribution of the target.
type OS struct {
	Family  string `json:"family"`
	Version string `json:"version"`
	// EOL tells that the distribution gets no more fixes; null = not known.
	EOL *bool `json:"eol"`
	// EOLDate is the day after which there are no more fixes, if it is known.
	EOLDate time.Time `json:"eolDate,omitzero"`
}

// Layer is one layer of the image, lowest first.
type Layer struct {
	DiffID gatehouse.Digest `json:"diffID"`
	Step   string           `json:"step"` // of the image's history, as its author has it
	Base   bool             `json:"base"` // of the base image, as far as that can be told
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
	EPSSPercentile *float64           `json:"epssPercentile,omitempty"`
	KEV            bool               `json:"kev"`
	KEVAdded       time.Time          `json:"kevAdded,omitzero"`
	KEVDue         time.Time          `json:"kevDue,omitzero"`
	Title          string             `json:"title"`
	Description    string             `json:"description"`
	Resolution     string             `json:"resolution"` // how to repair what no newer version repairs
	References     []string           `json:"references"`
	Published      time.Time          `json:"published,omitzero"`
	FirstSeen      time.Time          `json:"firstSeen,omitzero"`
	// Location is set where the finding is about a file or the configuration.
	Location *gatehouse.Location `json:"location,omitempty"`
	// Step and Base tell of the layer that brought it; Base is null where that
	// is not known.
	Step       string                 `json:"step"`
	Base       *bool                  `json:"base"`
	Suppressed *gatehouse.Suppression `json:"suppressed,omitempty"`
	// Assessed is what VEX says of a finding that counts all the same.
	Assessed *gatehouse.Suppression `json:"assessed,omitempty"`
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

// New makes the report of one inventory. Findings of unknown severity that the
// filter leaves out are counted, never dropped silently, and so are suppressed
// ones that it does not list.
func New(target Target, database Database, inv gatehouse.Inventory, findings []gatehouse.Finding, filter Filter) Report {
	r := Report{
		SchemaVersion: SchemaVersion, Target: target, Database: database,
		OS:       OS{Family: inv.Distro.ID, Version: inv.Distro.VersionID},
		Complete: inv.Complete, IncompleteReasons: append([]string{}, inv.Incomplete...), Findings: []Finding{},
	}
	origins := map[gatehouse.Digest]gatehouse.LayerOrigin{}
	for _, l := range inv.Layers {
		origins[l.DiffID] = l
		r.Layers = append(r.Layers, Layer{DiffID: l.DiffID, Step: l.CreatedBy, Base: l.Base})
	}
	for _, f := range findings {
		if !filter.Lists(f) {
			if f.Suppressed == nil && filter.unknownOutside(f) {
				r.UnknownOutsideFilter++
			}
			continue
		}
		if f.Suppressed != nil {
			r.Suppressed++
			if !filter.ShowSuppressed {
				continue
			}
		} else {
			r.Summary.Add(f.Severity)
		}
		r.Findings = append(r.Findings, newFinding(f, inv.Distro, origins))
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

// Gating returns how many findings count against a gate: those listed that
// nothing suppresses.
func (r Report) Gating() int { return r.Summary.Total() }

func newPackage(p gatehouse.Package, distro gatehouse.Distro) Package {
	out := Package{Name: p.Name, Version: p.Version, Type: p.Type, Path: p.Path, Layer: p.Layer}
	if p.Name != "" {
		out.PURL = p.PURL(distro)
	}
	return out
}

func newFinding(f gatehouse.Finding, distro gatehouse.Distro, origins map[gatehouse.Digest]gatehouse.LayerOrigin) Finding {
	out := Finding{
		ID: f.ID, Aliases: orEmpty(f.Aliases), Kind: f.Kind, Package: newPackage(f.Package, distro), FixedVersion: f.FixedVersion,
		Status: f.Status, Severity: f.Severity, SeveritySource: f.SeveritySource, CVSS: orEmpty(f.CVSS), Title: f.Title,
		Description: f.Description, Resolution: f.Resolution, References: orEmpty(f.References), Published: f.Published,
		FirstSeen: f.FirstSeen, Location: f.Location, Suppressed: f.Suppressed, Assessed: f.Assessed,
	}
	if f.EPSS != nil {
		out.EPSS, out.EPSSPercentile = &f.EPSS.Score, &f.EPSS.Percentile
	}
	if f.KEV != nil {
		out.KEV, out.KEVAdded, out.KEVDue = true, f.KEV.Added, f.KEV.Due
	}
	if l, ok := origins[f.Package.Layer]; ok {
		out.Step, out.Base = l.CreatedBy, &l.Base
	}
	return out
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

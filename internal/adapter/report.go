package adapter

import (
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const linksMax = 50 // of one vulnerability

// NewReport puts the vulnerabilities of an image into Harbor's words. Packages
// that are installed in several places are one item with all their paths. What
// makes the image incomplete is an item of its own, the worst there is.
func NewReport(a Artifact, s Scanner, at time.Time, inv gatehouse.Inventory, found []gatehouse.Finding) Report {
	r := Report{GeneratedAt: at.UTC(), Artifact: a, Scanner: s, Severity: "Unknown", Vulnerabilities: []Item{}}
	type key struct{ id, name, version string }
	seen := map[key]int{}
	worst := gatehouse.SeverityUnknown
	for _, f := range found {
		if f.Kind != gatehouse.KindVulnerability && f.Kind != "" {
			continue
		}
		worst = max(worst, f.Severity)
		k := key{f.ID, f.Package.Name, f.Package.Version}
		if i, had := seen[k]; had {
			at := r.Vulnerabilities[i].Attributes
			at["paths"] = append(at["paths"].([]string), f.Package.Path)
			continue
		}
		seen[k] = len(r.Vulnerabilities)
		r.Vulnerabilities = append(r.Vulnerabilities, item(f, inv.Distro))
	}
	if len(found) > 0 {
		r.Severity = severity(worst)
	}
	if !inv.Complete {
		r.Severity = severity(gatehouse.SeverityCritical)
		r.Vulnerabilities = slices.Insert(r.Vulnerabilities, 0, incomplete(inv))
	}
	return r
}

func incomplete(inv gatehouse.Inventory) Item {
	why := strings.Join(inv.Incomplete, "; ")
	if why == "" {
		why = "not everything in the image could be read"
	}
	return Item{
		ID: IncompleteID, Package: "image", Version: inv.Subject.Short(), Severity: severity(gatehouse.SeverityCritical), Links: []string{},
		Description: "This is no vulnerability: not everything could be looked at, so that what is listed may not be all there is. " + why,
		Attributes:  map[string]any{"incomplete": inv.Incomplete},
	}
}

func item(f gatehouse.Finding, distro gatehouse.Distro) Item {
	p := f.Package
	out := Item{
		ID: f.ID, Package: p.Name, Version: p.Version, FixVersion: f.FixedVersion, Severity: severity(f.Severity),
		Description: f.Description, Links: []string{}, CVSS: preferred(f),
		Attributes: map[string]any{
			"status": f.Status, "severity_source": f.SeveritySource, "aliases": append([]string{}, f.Aliases...),
			"purl": p.PURL(distro), "paths": []string{p.Path}, "cvss": append([]gatehouse.CVSS{}, f.CVSS...),
		},
	}
	if out.Description == "" {
		out.Description = f.Title
	}
	if f.EPSS != nil {
		out.Attributes["epss"] = f.EPSS
	}
	if f.KEV != nil {
		out.Attributes["kev"] = f.KEV
	}
	for _, link := range f.References {
		if len(out.Links) < linksMax && (strings.HasPrefix(link, "https://") || strings.HasPrefix(link, "http://")) {
			out.Links = append(out.Links, link)
		}
	}
	return out
}

// preferred chooses among the scores: those of the source that rated the
// finding, else the first.
func preferred(f gatehouse.Finding) *CVSS {
	var out CVSS
	choose := func(major string) (score *float64, vector string) {
		for _, c := range f.CVSS {
			if strings.HasPrefix(c.Version, major) && (score == nil || c.Source == f.SeveritySource) {
				n := c.Score
				score, vector = &n, c.Vector
			}
		}
		return score, vector
	}
	out.ScoreV3, out.VectorV3 = choose("3.")
	out.ScoreV2, out.VectorV2 = choose("2.")
	if out == (CVSS{}) {
		return nil
	}
	return &out
}

// severity is the word of the API: "High".
func severity(s gatehouse.Severity) string {
	name := s.String()
	return name[:1] + strings.ToLower(name[1:])
}

// ParseSeverity reads a severity in the words of the API; what it does not know
// is unknown.
func ParseSeverity(s string) gatehouse.Severity {
	out, err := gatehouse.ParseSeverity(strings.ToUpper(s))
	if err != nil {
		return gatehouse.SeverityUnknown
	}
	return out
}

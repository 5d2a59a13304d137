package report

import (
	"cmp"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// What a template sees: a list of results with the names that Trivy gives them,
// so that templates written for Trivy work as they are. Fields that Gatehouse
// knows and Trivy does not have names of their own (EPSS, KEV, Step, Base).
// The function "report" of a template gives the whole [Report].
type (
	trivyResult struct {
		Target, Class, Type string
		Packages            []trivyPackage
		Vulnerabilities     []trivyVulnerability
		MisconfSummary      *trivySummary
		Misconfigurations   []trivyMisconfiguration
		Secrets             []trivySecret
		Licenses            []trivyLicense
	}
	trivyPackage struct {
		ID, Name, Version, Release, Arch, SrcName, SrcVersion, SrcRelease, FilePath, Relationship string
		Epoch, SrcEpoch                                                                           int
		Indirect, Dev                                                                             bool
		Licenses, DependsOn                                                                       []string
		Identifier                                                                                trivyIdentifier
		Layer                                                                                     trivyLayer
	}
	trivyIdentifier struct{ PURL, UID, BOMRef string }
	trivyLayer      struct {
		Size                      int64
		Digest, DiffID, CreatedBy string
	}
	trivySource struct{ ID, Name, URL string }
	trivyCVSS   struct {
		V2Vector, V3Vector, V40Vector string
		V2Score, V3Score, V40Score    float64
	}
	// Vulnerability is embedded, so that both .Severity and
	// .Vulnerability.Severity are found, as in Trivy's own templates.
	Vulnerability struct {
		Title, Description, Severity    string
		CweIDs                          []string
		VendorSeverity                  map[string]string
		CVSS                            map[string]trivyCVSS
		References                      []string
		PublishedDate, LastModifiedDate *time.Time
		Custom                          any
	}
	trivyVulnerability struct {
		VulnerabilityID                            string
		VendorIDs                                  []string
		PkgID, PkgName, PkgPath                    string
		PkgIdentifier                              trivyIdentifier
		InstalledVersion, FixedVersion, Status     string
		Layer                                      trivyLayer
		SeveritySource, PrimaryURL, Fingerprint    string
		DataSource                                 *trivySource
		Aliases                                    []string
		EPSS                                       *float64
		KEV                                        bool
		Step                                       string
		Base                                       bool
		SuppressedBy, SuppressedReason, FirstPlace string
		Vulnerability
	}
	trivySummary          struct{ Successes, Failures, Exceptions int }
	trivyMisconfiguration struct {
		Type, ID, AVDID, Title, Description, Message, Namespace, Query string
		Resolution, Severity, PrimaryURL, Status                       string
		References, Aliases                                            []string
		Layer                                                          trivyLayer
		CauseMetadata                                                  trivyCause
	}
	trivyCause struct {
		Resource, Provider, Service string
		StartLine, EndLine          int
		Code                        trivyCode
		Occurrences                 []trivyOccurrence
		RenderedCause               struct{ Raw, Highlighted string }
	}
	trivyOccurrence struct {
		Resource, Filename string
		Location           struct{ StartLine, EndLine int }
	}
	trivySecret struct {
		RuleID, Category, Severity, Title, Match string
		StartLine, EndLine, Offset               int
		Code                                     trivyCode
		Layer                                    trivyLayer
		Deleted                                  bool
	}
	trivyCode struct{ Lines []trivyLine }
	trivyLine struct {
		Number                           int
		Content, Annotation, Highlighted string
		IsCause, Truncated               bool
		FirstCause, LastCause            bool
	}
	trivyLicense struct {
		Severity, Category, PkgName, FilePath, Name, Text, Link string
		Confidence                                              float64
	}
)

// trivyResults makes the list. What is suppressed is left out: templates do not
// expect it.
func trivyResults(r Report) []trivyResult {
	byKind := map[gatehouse.Kind][]Finding{}
	for _, f := range r.Findings {
		if f.Suppressed == nil {
			kind := cmp.Or(f.Kind, gatehouse.KindVulnerability)
			byKind[kind] = append(byKind[kind], f)
		}
	}
	out := trivyPackages(r, byKind[gatehouse.KindVulnerability])
	add := func(class, kind string, fill func(*trivyResult, Finding), list []Finding) {
		at := map[string]int{}
		for _, f := range list {
			target := cmp.Or(f.Package.Path, r.Target.Reference)
			i, ok := at[target]
			if !ok {
				i = len(out)
				at[target] = i
				out = append(out, trivyResult{Target: target, Class: class, Type: kind})
			}
			fill(&out[i], f)
		}
	}
	// Trivy has no malware: a template that knows misconfigurations shows it.
	add("config", "malware", trivyMisconfig("malware"), byKind[gatehouse.KindMalware])
	add("secret", "", trivySecretOf, byKind[gatehouse.KindSecret])
	add("config", "dockerfile", trivyMisconfig("dockerfile"), byKind[gatehouse.KindMisconfig])
	add("license", "", trivyLicenseOf, byKind[gatehouse.KindLicense])
	return out
}

// trivyPackages makes one result per group of packages, the operating system's
// also where nothing is wrong with it, as Trivy does.
func trivyPackages(r Report, vulnerabilities []Finding) []trivyResult {
	var out []trivyResult
	at := map[string]int{}
	result := func(g group) *trivyResult {
		i, ok := at[g.class+g.name]
		if !ok {
			i = len(out)
			at[g.class+g.name] = i
			out = append(out, trivyResult{Target: g.name, Class: g.class, Type: g.kind})
		}
		return &out[i]
	}
	if r.OS.Family != "" {
		result(group{name: targetName(r), class: "os-pkgs", kind: r.OS.Family})
	}
	for _, g := range groupsOf(r, vulnerabilities) {
		res := result(g)
		for _, f := range g.list {
			res.Vulnerabilities = append(res.Vulnerabilities, trivyVulnerabilityOf(f))
		}
	}
	for _, p := range r.Packages {
		res := result(groupOf(r, p))
		res.Packages = append(res.Packages, trivyPackage{
			ID: p.Name + "@" + p.Version, Name: p.Name, Version: p.Version, FilePath: p.Path,
			Identifier: trivyIdentifier{PURL: p.PURL}, Layer: trivyLayer{DiffID: string(p.Layer)},
		})
	}
	return out
}

func trivyVulnerabilityOf(f Finding) trivyVulnerability {
	v := trivyVulnerability{
		VulnerabilityID: f.ID, VendorIDs: f.Aliases, Aliases: f.Aliases, PkgID: f.Package.Name + "@" + f.Package.Version,
		PkgName: f.Package.Name, PkgPath: f.Package.Path, PkgIdentifier: trivyIdentifier{PURL: f.Package.PURL},
		InstalledVersion: f.Package.Version, FixedVersion: f.FixedVersion, Status: f.Status, Layer: trivyLayerOf(f),
		SeveritySource: f.SeveritySource, PrimaryURL: PrimaryURL(f.ID, f.References), EPSS: f.EPSS, KEV: f.KEV, Step: Step(f.Step),
		Base: f.Base != nil && *f.Base, FirstPlace: Place(f),
		Vulnerability: Vulnerability{
			Title: f.Title, Description: f.Description, Severity: trivySeverity(f.Severity), References: f.References,
			CVSS: map[string]trivyCVSS{}, VendorSeverity: map[string]string{},
		},
	}
	if operating(f.Package.Type) { // Trivy's path is that of a language package
		v.PkgPath = ""
	}
	if f.SeveritySource != "" {
		v.VendorSeverity[f.SeveritySource] = v.Severity
	}
	if !f.Published.IsZero() {
		v.PublishedDate = &f.Published
	}
	for _, c := range f.CVSS {
		source := cmp.Or(c.Source, f.SeveritySource, "unknown")
		s := v.CVSS[source]
		switch c.Version[:min(1, len(c.Version))] {
		case "2":
			s.V2Vector, s.V2Score = c.Vector, c.Score
		case "4":
			s.V40Vector, s.V40Score = c.Vector, c.Score
		default:
			s.V3Vector, s.V3Score = c.Vector, c.Score
		}
		v.CVSS[source] = s
	}
	return v
}

func trivyLayerOf(f Finding) trivyLayer {
	return trivyLayer{DiffID: string(f.Package.Layer), CreatedBy: f.Step}
}

// trivySeverity is the word that Trivy has for a severity: it knows no
// negligible.
func trivySeverity(s gatehouse.Severity) string {
	if s == gatehouse.SeverityNegligible {
		return "LOW"
	}
	return s.String()
}

func trivyMisconfig(kind string) func(*trivyResult, Finding) {
	return func(r *trivyResult, f Finding) {
		m := trivyMisconfiguration{
			Type: kind, ID: f.ID, AVDID: f.ID, Title: f.Title, Description: f.Description, Message: cmp.Or(f.Description, f.Title),
			Resolution: f.Resolution, Severity: trivySeverity(f.Severity), PrimaryURL: PrimaryURL(f.ID, f.References), Status: "FAIL",
			References: f.References, Layer: trivyLayerOf(f), CauseMetadata: trivyCause{Provider: kind, Service: "general"},
		}
		if l := f.Location; l != nil {
			m.CauseMetadata.Resource = Place(f)
			m.CauseMetadata.StartLine, m.CauseMetadata.EndLine, m.CauseMetadata.Code = l.StartLine, l.EndLine, trivyCodeOf(l)
		}
		if r.MisconfSummary == nil {
			r.MisconfSummary = &trivySummary{}
		}
		r.MisconfSummary.Failures++
		r.Misconfigurations = append(r.Misconfigurations, m)
	}
}

func trivySecretOf(r *trivyResult, f Finding) {
	s := trivySecret{RuleID: f.ID, Category: "general", Severity: trivySeverity(f.Severity), Title: f.Title, Layer: trivyLayerOf(f)}
	if l := f.Location; l != nil {
		s.Match, s.StartLine, s.EndLine, s.Deleted, s.Code = l.Excerpt, l.StartLine, l.EndLine, l.Deleted, trivyCodeOf(l)
	}
	r.Secrets = append(r.Secrets, s)
}

func trivyCodeOf(l *gatehouse.Location) trivyCode {
	if l.Excerpt == "" {
		return trivyCode{}
	}
	var c trivyCode
	for i, text := range strings.Split(l.Excerpt, "\n") {
		c.Lines = append(c.Lines, trivyLine{Number: l.StartLine + i, Content: text, Highlighted: text, IsCause: true})
	}
	c.Lines[0].FirstCause, c.Lines[len(c.Lines)-1].LastCause = true, true
	return c
}

func trivyLicenseOf(r *trivyResult, f Finding) {
	r.Licenses = append(r.Licenses, trivyLicense{
		Severity: trivySeverity(f.Severity), Category: f.Title, PkgName: f.Package.Name, FilePath: f.Package.Path, Name: f.ID,
		Link: PrimaryURL(f.ID, f.References), Confidence: 1,
	})
}

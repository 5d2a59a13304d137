package report

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// informationURI is where a reader of a report learns what made it.
const informationURI = "https://github.com/gatehouse-dev/gatehouse"

// The parts of a SARIF 2.1.0 log that GitHub's code scanning reads.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool                   `json:"tool"`
		Invocations []sarifInvocation           `json:"invocations"`
		BaseIDs     map[string]sarifDescription `json:"originalUriBaseIds"`
		ColumnKind  string                      `json:"columnKind"`
		Results     []sarifResult               `json:"results"`
		Properties  map[string]any              `json:"properties,omitempty"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID            string         `json:"id"`
		Name          string         `json:"name"`
		Short         sarifText      `json:"shortDescription"`
		Full          sarifText      `json:"fullDescription"`
		HelpURI       string         `json:"helpUri,omitempty"`
		Help          sarifText      `json:"help"`
		Configuration sarifLevel     `json:"defaultConfiguration"`
		Properties    map[string]any `json:"properties"`
	}
	sarifLevel struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifDescription struct {
		Description sarifText `json:"description"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
		Properties   map[string]any     `json:"properties,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
		Message  sarifText     `json:"message"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI       string `json:"uri"`
		URIBaseID string `json:"uriBaseId"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn"`
		EndLine     int `json:"endLine"`
		EndColumn   int `json:"endColumn"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification,omitempty"`
	}
)

// What GitHub shows of a description, in characters.
const sarifShortMax = 1024

func writeSARIF(w io.Writer, r Report, o Options) error {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{Name: "Gatehouse", Version: o.Version, InformationURI: informationURI, Rules: []sarifRule{}}},
		BaseIDs: map[string]sarifDescription{"ROOTPATH": {sarifText{
			Text: "the root of the scanned file system: " + r.Target.Reference,
		}}},
		ColumnKind: "unicodeCodePoints", Results: []sarifResult{},
		Invocations: []sarifInvocation{{Successful: r.Complete}},
		Properties:  map[string]any{"target": r.Target, "database": r.Database, "os": r.OS, "complete": r.Complete},
	}
	for _, why := range r.IncompleteReasons {
		run.Invocations[0].Notifications = append(run.Invocations[0].Notifications,
			sarifNotification{Level: "error", Message: sarifText{Text: "incomplete: " + why}})
	}
	rules := map[string]int{}
	for _, f := range r.Findings {
		key := string(f.Kind) + f.ID
		i, ok := rules[key]
		if !ok {
			i = len(run.Tool.Driver.Rules)
			rules[key] = i
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, newSARIFRule(f))
		}
		run.Results = append(run.Results, newSARIFResult(r, f, i))
	}
	return encode(w, sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func newSARIFRule(f Finding) sarifRule {
	title := cmp.Or(f.Title, f.ID)
	full := cmp.Or(f.Description, title)
	help := sarifHelp(f)
	return sarifRule{
		ID: f.ID, Name: sarifName(f), Short: sarifText{Text: clip(title, sarifShortMax)}, Full: sarifText{Text: clip(full, sarifShortMax)},
		HelpURI: PrimaryURL(f.ID, f.References), Help: help, Configuration: sarifLevel{sarifLevelOf(f.Severity)},
		Properties: map[string]any{
			"tags":      []string{string(f.Kind), "security", f.Severity.String()},
			"precision": "very-high", "security-severity": fmt.Sprintf("%.1f", Score(f)),
		},
	}
}

// sarifName is the class of a rule, in Trivy's words.
func sarifName(f Finding) string {
	switch f.Kind {
	case gatehouse.KindSecret:
		return "Secret"
	case gatehouse.KindMisconfig:
		return "Misconfiguration"
	case gatehouse.KindLicense:
		return "License"
	case gatehouse.KindMalware:
		return "Malware"
	}
	if operating(f.Package.Type) {
		return "OsPackageVulnerability"
	}
	return "LanguageSpecificPackageVulnerability"
}

func sarifHelp(f Finding) sarifText {
	rows := [][2]string{{"Severity", f.Severity.String()}}
	if f.Package.Name != "" {
		rows = append(rows, [2]string{"Package", f.Package.Name}, [2]string{"Fixed version", cmp.Or(f.FixedVersion, "none")})
	}
	if len(f.Aliases) > 0 {
		rows = append(rows, [2]string{"Also known as", strings.Join(f.Aliases, ", ")})
	}
	if f.KEV {
		rows = append(rows, [2]string{"Exploited", "yes, in CISA's catalog"})
	}
	if f.EPSS != nil {
		rows = append(rows, [2]string{"EPSS", fmt.Sprintf("%.1f %%", *f.EPSS*100)})
	}
	if f.Resolution != "" {
		rows = append(rows, [2]string{"How to fix", f.Resolution})
	}
	var text, head, rule, cells strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&text, "%s: %s\n", row[0], row[1])
		head.WriteString("| " + row[0] + " ")
		rule.WriteString("| --- ")
		cells.WriteString("| " + markdown(row[1]) + " ")
	}
	md := fmt.Sprintf("**%s**\n\n%s|\n%s|\n%s|\n\n%s", markdown(f.ID), head.String(), rule.String(), cells.String(), markdown(f.Description))
	if u := PrimaryURL(f.ID, f.References); u != "" {
		md += "\n\n<" + u + ">"
		text.WriteString(u + "\n")
	}
	return sarifText{Text: f.ID + "\n" + text.String() + f.Description, Markdown: md}
}

// markdown keeps foreign text from becoming structure, links or images.
func markdown(s string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "<", "&lt;", "!", "\\!",
		"\r", " ").Replace(strings.Join(strings.Split(s, "\n"), " "))
}

func newSARIFResult(r Report, f Finding, rule int) sarifResult {
	start, end := 1, 1
	if f.Location != nil && f.Location.StartLine > 0 {
		start = f.Location.StartLine
		end = max(f.Location.EndLine, start)
	}
	res := sarifResult{
		RuleID: f.ID, RuleIndex: rule, Level: sarifLevelOf(f.Severity), Message: sarifText{Text: sarifMessage(f)},
		Locations: []sarifLocation{{
			Physical: sarifPhysical{
				Artifact: sarifArtifact{URI: pathURI(cmp.Or(f.Package.Path, repository(r.Target.Reference), "image")), URIBaseID: "ROOTPATH"},
				Region:   sarifRegion{StartLine: start, StartColumn: 1, EndLine: end, EndColumn: 1},
			},
			Message: sarifText{Text: Place(f)},
		}},
		Fingerprints: fingerprints(r, f),
		Properties:   map[string]any{"purl": f.Package.PURL, "layer": f.Package.Layer, "step": f.Step, "base": f.Base, "status": f.Status},
	}
	if s := f.Suppressed; s != nil {
		res.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: strings.TrimSpace(s.By + ": " + Cause(*s))}}
	}
	return res
}

func sarifMessage(f Finding) string {
	var b strings.Builder
	switch {
	case f.Package.Name != "":
		fmt.Fprintf(&b, "Package: %s\nInstalled version: %s\n", f.Package.Name, f.Package.Version)
		if f.Kind == gatehouse.KindVulnerability {
			fmt.Fprintf(&b, "Fixed version: %s\n", cmp.Or(f.FixedVersion, "none"))
		}
	default:
		fmt.Fprintf(&b, "Where: %s\n", Place(f))
		if f.Location != nil && f.Location.Excerpt != "" {
			fmt.Fprintf(&b, "Found: %s\n", line(f.Location.Excerpt))
		}
	}
	fmt.Fprintf(&b, "%s: %s\nSeverity: %s", f.Kind, f.ID, f.Severity)
	if f.Title != "" {
		fmt.Fprintf(&b, "\n%s", f.Title)
	}
	return b.String()
}

// fingerprints tell GitHub that a finding of the next build is the same one: by
// what it is and where, not by version or layer, which each build changes.
func fingerprints(r Report, f Finding) map[string]string {
	parts := []string{repository(r.Target.Reference), string(f.Kind), f.ID, f.Package.Type, f.Package.Name, f.Package.Path}
	if f.Location != nil {
		parts = append(parts, f.Location.Origin, f.Location.Name, f.Location.Excerpt)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	id := hex.EncodeToString(sum[:16])
	return map[string]string{"primaryLocationLineHash": id + ":1", "gatehouse/v1": id}
}

func sarifLevelOf(s gatehouse.Severity) string {
	switch s {
	case gatehouse.SeverityCritical, gatehouse.SeverityHigh:
		return "error"
	case gatehouse.SeverityMedium:
		return "warning"
	}
	return "note"
}

// Score is the number that GitHub sorts by: the highest CVSS 3 or 4 score that
// lies in the range of the severity, else the middle of that range, so that the
// number never contradicts the word.
func Score(f Finding) float64 {
	low, high, middle := 0.0, 10.0, 0.0
	switch f.Severity {
	case gatehouse.SeverityCritical:
		low, high, middle = 9.0, 10.0, 9.5
	case gatehouse.SeverityHigh:
		low, high, middle = 7.0, 8.9, 8.0
	case gatehouse.SeverityMedium:
		low, high, middle = 4.0, 6.9, 5.5
	case gatehouse.SeverityLow:
		low, high, middle = 0.1, 3.9, 2.0
	case gatehouse.SeverityNegligible:
		low, high, middle = 0.1, 0.1, 0.1
	}
	best := 0.0
	for _, c := range f.CVSS {
		if !strings.HasPrefix(c.Version, "2") && c.Score >= low && c.Score <= high {
			best = max(best, c.Score)
		}
	}
	if best > 0 {
		return best
	}
	return middle
}

// repository is the reference without tag and digest, the part that stays from
// build to build.
func repository(reference string) string {
	if ref, err := gatehouse.ParseRef(reference); err == nil {
		return string(ref.Repo)
	}
	return strings.TrimPrefix(reference, "/")
}

// pathURI is a path relative to the root as a relative URI reference.
func pathURI(p string) string {
	u := url.URL{Path: strings.TrimPrefix(p, "/")}
	return strings.TrimPrefix(u.String(), "./")
}

// PrimaryURL is the page that says most about a flaw, "" for none.
func PrimaryURL(id string, references []string) string {
	switch prefix, _, _ := strings.Cut(id, "-"); prefix {
	case "CVE":
		return "https://www.cve.org/CVERecord?id=" + url.QueryEscape(id)
	case "GHSA":
		return "https://github.com/advisories/" + url.PathEscape(id)
	case "GO", "RUSTSEC", "PYSEC", "MAL", "OSV", "DSA", "DLA", "USN", "ALSA", "RLSA", "RHSA", "ALPINE":
		return "https://osv.dev/vulnerability/" + url.PathEscape(id)
	}
	for _, r := range references {
		if u, err := url.Parse(r); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
			return u.String()
		}
	}
	return ""
}

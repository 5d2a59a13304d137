package report

import (
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// Filter says which findings to list. The zero Filter lists all that nothing
// suppresses.
type Filter struct {
	Severities []gatehouse.Severity // empty = all
	Kinds      []gatehouse.Kind     // empty = all
	// IgnoreUnfixed leaves out vulnerabilities without a fixed version.
	IgnoreUnfixed bool
	// IgnoreStatus leaves out vulnerabilities with one of these states.
	IgnoreStatus []string
	// IgnoreLicenses leaves out licences by SPDX id.
	IgnoreLicenses []string
	// ShowSuppressed lists what is suppressed, with the cause. It never counts.
	ShowSuppressed bool
}

// Lists reports whether the filter lets f through, suppressed or not.
func (f Filter) Lists(finding gatehouse.Finding) bool {
	return f.Excludes(finding) == ""
}

// Excludes says which part of the filter leaves a finding out, "" for none.
func (f Filter) Excludes(finding gatehouse.Finding) string {
	if why := f.otherThanSeverity(finding); why != "" {
		return why
	}
	if len(f.Severities) > 0 && !slices.Contains(f.Severities, finding.Severity) {
		return "--severity leaves out " + finding.Severity.String()
	}
	return ""
}

func (f Filter) otherThanSeverity(finding gatehouse.Finding) string {
	kind := finding.Kind
	if kind == "" {
		kind = gatehouse.KindVulnerability
	}
	switch {
	case len(f.Kinds) > 0 && !slices.Contains(f.Kinds, kind):
		return "--scanners leaves out findings of kind " + string(kind)
	case kind == gatehouse.KindLicense && slices.Contains(f.IgnoreLicenses, finding.ID):
		return "--ignored-licenses names " + finding.ID
	case kind != gatehouse.KindVulnerability:
		return ""
	case f.IgnoreUnfixed && !finding.Fixable():
		return "--ignore-unfixed leaves out what no version repairs"
	case slices.Contains(f.IgnoreStatus, finding.Status):
		return "--ignore-status names " + finding.Status
	}
	return ""
}

// unknownOutside reports whether only an unknown severity keeps finding out.
func (f Filter) unknownOutside(finding gatehouse.Finding) bool {
	return finding.Severity == gatehouse.SeverityUnknown && f.otherThanSeverity(finding) == ""
}

package rule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// limit is what a rule allows of findings of one kind. The zero limit allows all.
type limit struct {
	kind         gatehouse.Kind
	limited      bool // worst holds
	worst        gatehouse.Severity
	unknown      gatehouse.Severity // what an unknown severity counts as
	fixableOnly  bool               // what has no fix exceeds neither worst nor epss
	exploited    bool               // deny what is known to be exploited
	epss         *float64           // deny what is more probable than this
	deny, ignore map[string]bool    // ids in upper case; "*" in deny is every id
	// What has been known for less than grace exceeds neither worst nor epss. It is
	// known since this server saw it in this version of the package, or since the
	// advisory was published.
	grace     time.Duration
	published bool
}

func (l limit) noun() string {
	switch l.kind {
	case gatehouse.KindMisconfig:
		return "misconfiguration"
	case gatehouse.KindLicense:
		return "licence"
	}
	return string(l.kind)
}

func (l limit) plural() string {
	switch l.kind {
	case gatehouse.KindVulnerability:
		return "vulnerabilities"
	case gatehouse.KindMalware:
		return "malware"
	}
	return l.noun() + "s"
}

func (l limit) onlyFixable() string {
	if l.fixableOnly {
		return " that has a fix"
	}
	return ""
}

// exceeds reports whether a finding is worse, or more probable, than the limit allows.
func (l limit) exceeds(f gatehouse.Finding) (worse, probable bool) {
	return l.limited && l.severity(f) > l.worst, l.epss != nil && f.EPSS != nil && f.EPSS.Score > *l.epss
}

// graced reports whether the grace period of a finding is not over. Without it being
// known when it began there is none.
func (l limit) graced(f gatehouse.Finding, now time.Time) bool {
	since := f.KnownSince
	if l.published {
		since = f.Published
	}
	return l.grace > 0 && !since.IsZero() && !since.After(now.Add(skewMax)) && now.Sub(since) < l.grace
}

// judge returns a reason for each way in which findings go beyond the limit, notes of
// what does not count yet, how many findings of the kind do not exceed it, and how many
// are suppressed.
func (l limit) judge(findings []gatehouse.Finding, now time.Time) (reasons, notes []gatehouse.Reason, lesser, suppressed int) {
	var worse, exploited, probable, denied, graced []gatehouse.Finding
	for _, f := range findings {
		// A finding without a kind is from before kinds: it is a vulnerability.
		if f.Kind != l.kind && (f.Kind != "" || l.kind != gatehouse.KindVulnerability) {
			continue
		}
		bad, likely := l.exceeds(f)
		switch {
		case f.Suppressed != nil:
			suppressed++
		case named(l.ignore, f):
			lesser++
		case named(l.deny, f) || l.deny["*"]:
			denied = append(denied, f)
		case l.exploited && f.KEV != nil:
			exploited = append(exploited, f)
		case l.fixableOnly && !f.Fixable():
			lesser++
		case !bad && !likely:
			lesser++
		case l.graced(f, now):
			graced = append(graced, f)
		case bad:
			worse = append(worse, f)
		default:
			probable = append(probable, f)
		}
	}
	if len(graced) > 0 {
		r := l.reason(decide.CodeGracePeriod, graced, fmt.Sprintf("not counted yet, within the grace period of %s", days(l.grace)))
		r.Verdict, r.Hint = gatehouse.Allow, ""
		notes = append(notes, r)
	}
	if len(worse) > 0 {
		verb := l.plural() + " exceed"
		if len(worse) == 1 {
			verb = l.noun() + " exceeds"
		}
		reasons = append(reasons, l.reason(decide.CodeSeverityExceeded, worse, fmt.Sprintf("%s the maximum severity %s", verb, l.worst)))
	}
	if len(exploited) > 0 {
		reasons = append(reasons, l.reason(decide.CodeKnownExploited, exploited, counted(exploited, "vulnerability is", "vulnerabilities are")+" known to be exploited"))
	}
	if len(probable) > 0 {
		reasons = append(reasons, l.reason(decide.CodeEPSSExceeded, probable,
			fmt.Sprintf("%s more likely to be exploited than %v", counted(probable, "vulnerability is", "vulnerabilities are"), *l.epss)))
	}
	if len(denied) > 0 {
		reasons = append(reasons, l.reason(decide.CodeFindingDenied, denied, counted(denied, l.noun()+" is", l.plural()+" are")+" denied by the rule"))
	}
	return reasons, notes, lesser, suppressed
}

// days writes whole days as such, and other times without what is zero.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func counted(list []gatehouse.Finding, one, many string) string {
	if len(list) == 1 {
		return one
	}
	return many
}

func (l limit) severity(f gatehouse.Finding) gatehouse.Severity {
	if f.Severity == gatehouse.SeverityUnknown {
		return l.unknown
	}
	return f.Severity
}

// named reports whether set has the finding's id or one of its aliases.
func named(set map[string]bool, f gatehouse.Finding) bool {
	return set[strings.ToUpper(f.ID)] || slices.ContainsFunc(f.Aliases, func(id string) bool { return set[strings.ToUpper(id)] })
}

// namedMax bounds the findings that one reason names.
const namedMax = 5

// reason names the worst of bad, and what would help.
func (l limit) reason(code string, bad []gatehouse.Finding, what string) gatehouse.Reason {
	slices.SortStableFunc(bad, func(a, b gatehouse.Finding) int {
		return cmp.Or(cmp.Compare(l.severity(b), l.severity(a)), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Package.Name, b.Package.Name))
	})
	var names, updates []string
	for _, f := range bad {
		if len(names) == namedMax {
			names = append(names, fmt.Sprintf("and %d more", len(bad)-namedMax))
			break
		}
		names = append(names, describe(f))
		if up := f.Package.Name + " to " + f.FixedVersion; f.Fixable() && !slices.Contains(updates, up) {
			updates = append(updates, up)
		}
	}
	r := gatehouse.Reason{Verdict: gatehouse.Deny, Code: code, Message: fmt.Sprintf("%d %s: %s", len(bad), what, strings.Join(names, "; "))}
	switch {
	case len(updates) > 0:
		r.Hint = "update " + strings.Join(updates, ", ") + " and build the image again"
	case l.kind == gatehouse.KindVulnerability:
		r.Hint = "no fix is known: use another base image, or ignore the id in the rule"
	case bad[0].Resolution != "":
		r.Hint = bad[0].Resolution
	default:
		r.Hint = "remove it and build the image again, or ignore the id in the rule"
	}
	return r
}

// describe names one finding and its place.
func describe(f gatehouse.Finding) string {
	s := fmt.Sprintf("%s (%s)", f.ID, f.Severity)
	switch {
	case f.Package.Name != "":
		s += fmt.Sprintf(" in %s %s", f.Package.Name, f.Package.Version)
	case f.Package.Path != "":
		s += " in " + f.Package.Path
		if f.Location != nil && f.Location.StartLine > 0 {
			s += fmt.Sprintf(":%d", f.Location.StartLine)
		}
	case f.Location != nil && f.Location.Name != "":
		s += " in " + f.Location.Origin + " " + f.Location.Name
	case f.Location != nil:
		s += " in the " + f.Location.Origin
	}
	if f.Fixable() {
		s += ", fixed in " + f.FixedVersion
	}
	return s
}

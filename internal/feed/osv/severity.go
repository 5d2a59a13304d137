package osv

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// databases names who stands behind the records of an id prefix; an unknown
// prefix names itself in lower case.
var databases = map[string]string{
	"ALSA": "almalinux", "ALBA": "almalinux", "ALEA": "almalinux",
	"CVE": "nvd", "DSA": "debian", "DLA": "debian", "DTSA": "debian",
	"CGA": "chainguard", "MAL": "ossf-malicious-packages", "NSWG": "nodejs-security-wg",
	"RETIREJS": "retire.js", "RHSA": "redhat", "RHBA": "redhat", "RHEA": "redhat",
	"RLSA": "rocky", "RLBA": "rocky", "RLEA": "rocky", "RXSA": "rocky", "USN": "ubuntu", "LSN": "ubuntu",
}

func database(id string) string {
	prefix, _, _ := strings.Cut(id, "-")
	if name, ok := databases[prefix]; ok {
		return name
	}
	return strings.ToLower(prefix)
}

// rate sets a's severity, its source and its CVSS vectors from all places where
// databases put them. The database's own word goes before a score.
func rate(r *record, a *gatehouse.Advisory) {
	source := database(a.ID)
	worst := gatehouse.SeverityUnknown
	say := func(s string) { worst = max(worst, field.Severity(s)) }
	scores := func(list []severity) {
		for _, s := range list {
			if c, ok := score(s); ok {
				c.Source = source
				a.CVSS = addCVSS(a.CVSS, c)
			} else if !strings.HasPrefix(s.Type, "CVSS") {
				say(s.Score) // Ubuntu's priority
			}
		}
	}
	say(word(r.Database.Severity))
	scores(r.Severity)
	for i := range r.Affected {
		if source != "debian" { // whose words hold for the one package in the one release
			say(word(r.Affected[i].Specific.Severity))
			say(word(r.Affected[i].Specific.Urgency))
		}
		scores(r.Affected[i].Severity)
	}
	if worst == gatehouse.SeverityUnknown && source != "nvd" {
		// "Important: curl security update"
		if first, _, ok := strings.Cut(a.Summary, ":"); ok {
			say(first)
		}
	}
	if worst == gatehouse.SeverityUnknown {
		worst = fromScores(r, a.CVSS)
	}
	if worst == gatehouse.SeverityUnknown && strings.HasPrefix(a.ID, "MAL-") {
		worst = gatehouse.SeverityCritical // the package itself is the attack
	}
	if a.Severity = worst; worst != gatehouse.SeverityUnknown {
		a.SeveritySource = source
	}
}

// fromScores rates by the newest CVSS version that there is: vectors first,
// then bare base scores (RubySec has only those).
func fromScores(r *record, list []gatehouse.CVSS) gatehouse.Severity {
	best := gatehouse.CVSS{}
	for _, c := range list {
		if c.Version > best.Version || c.Version == best.Version && c.Score > best.Score {
			best = c
		}
	}
	if best.Version != "" {
		return best.Severity()
	}
	for _, bare := range []struct {
		version string
		score   *float64
	}{{"4.0", r.Database.CVSSScoreV4}, {"3.1", r.Database.CVSSScoreV3}, {"2.0", r.Database.CVSSScoreV2}} {
		if bare.score != nil {
			return gatehouse.CVSS{Version: bare.version, Score: *bare.score}.Severity()
		}
	}
	return gatehouse.SeverityUnknown
}

func addCVSS(list []gatehouse.CVSS, c gatehouse.CVSS) []gatehouse.CVSS {
	for _, have := range list {
		if have.Vector == c.Vector {
			return list
		}
	}
	return append(list, c)
}

// score reads one entry of a severity list.
func score(s severity) (gatehouse.CVSS, bool) {
	if !strings.HasPrefix(s.Type, "CVSS") && !strings.HasPrefix(s.Score, "CVSS:") {
		return gatehouse.CVSS{}, false
	}
	return field.Score(s.Score)
}

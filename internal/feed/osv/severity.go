package osv

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	gocvss20 "github.com/pandatix/go-cvss/20"
	gocvss30 "github.com/pandatix/go-cvss/30"
	gocvss31 "github.com/pandatix/go-cvss/31"
	gocvss40 "github.com/pandatix/go-cvss/40"
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

// words are the severities as vendors name them.
var words = map[string]gatehouse.Severity{
	"critical": gatehouse.SeverityCritical,
	"high":     gatehouse.SeverityHigh, "important": gatehouse.SeverityHigh,
	"medium": gatehouse.SeverityMedium, "moderate": gatehouse.SeverityMedium,
	"low":        gatehouse.SeverityLow,
	"negligible": gatehouse.SeverityNegligible, "unimportant": gatehouse.SeverityNegligible, "none": gatehouse.SeverityNegligible,
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
	say := func(s string) { worst = max(worst, words[strings.ToLower(s)]) }
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
		return rating(best.Version, best.Score)
	}
	for _, bare := range []struct {
		version string
		score   *float64
	}{{"4.0", r.Database.CVSSScoreV4}, {"3.1", r.Database.CVSSScoreV3}, {"2.0", r.Database.CVSSScoreV2}} {
		if bare.score != nil {
			return rating(bare.version, *bare.score)
		}
	}
	return gatehouse.SeverityUnknown
}

// rating is the qualitative scale of CVSS 3.x and 4.0, section 5; for 2.0 it is
// NVD's, which has no critical.
func rating(version string, score float64) gatehouse.Severity {
	switch {
	case score >= 9 && version != "2.0":
		return gatehouse.SeverityCritical
	case score >= 7:
		return gatehouse.SeverityHigh
	case score >= 4:
		return gatehouse.SeverityMedium
	case score > 0 || version == "2.0":
		return gatehouse.SeverityLow
	}
	return gatehouse.SeverityNegligible
}

func addCVSS(list []gatehouse.CVSS, c gatehouse.CVSS) []gatehouse.CVSS {
	for _, have := range list {
		if have.Vector == c.Vector {
			return list
		}
	}
	return append(list, c)
}

// score reads a vector and computes its score; a vector that is none is left
// out, since the rest of the record is still of use.
func score(s severity) (gatehouse.CVSS, bool) {
	v := s.Score
	switch {
	case len(v) > 512:
	case s.Type == "CVSS_V4" || strings.HasPrefix(v, "CVSS:4.0/"):
		if c, err := gocvss40.ParseVector(v); err == nil {
			return gatehouse.CVSS{Version: "4.0", Vector: v, Score: c.Score()}, true
		}
	case strings.HasPrefix(v, "CVSS:3.1/"):
		if c, err := gocvss31.ParseVector(v); err == nil {
			return gatehouse.CVSS{Version: "3.1", Vector: v, Score: c.EnvironmentalScore()}, true
		}
	case strings.HasPrefix(v, "CVSS:3.0/"):
		if c, err := gocvss30.ParseVector(v); err == nil {
			return gatehouse.CVSS{Version: "3.0", Vector: v, Score: c.EnvironmentalScore()}, true
		}
	case s.Type == "CVSS_V2":
		if c, err := gocvss20.ParseVector(v); err == nil {
			return gatehouse.CVSS{Version: "2.0", Vector: v, Score: c.EnvironmentalScore()}, true
		}
	}
	return gatehouse.CVSS{}, false
}

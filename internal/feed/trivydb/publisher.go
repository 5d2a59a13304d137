package trivydb

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// publisher is who stands behind the records of some buckets.
type publisher struct {
	// prefix of its records' ids; own are those of ids that it gave itself, and
	// which therefore need none.
	prefix string
	own    []string
	rated  []string // its names among those who rate flaws, best first
	format format
}

// format is how a publisher's advisories are written.
type format int

const (
	formatOS       format = iota // repaired versions
	formatRedHat                 // repaired versions by product, named by CPE
	formatLanguage               // version constraints
)

// distributions by the name in front of the release in their buckets' names.
var distributions = map[string]publisher{
	"alma":         {prefix: "ALMALINUX", own: []string{"ALSA-"}, rated: []string{"alma"}},
	"alpine":       {prefix: "ALPINE", rated: []string{"alpine"}},
	"amazon linux": {prefix: "AMAZON", own: []string{"ALAS"}, rated: []string{"amazon"}},
	"azure linux":  {prefix: "AZURELINUX", rated: []string{"azure"}},
	"cbl-mariner":  {prefix: "MARINER", rated: []string{"cbl-mariner"}},
	"chainguard":   {prefix: "CHAINGUARD", own: []string{"CGA-"}, rated: []string{"chainguard"}},
	"debian":       {prefix: "DEBIAN", own: []string{"DSA-", "DLA-", "DTSA-", "TEMP-"}, rated: []string{"debian"}},
	"echo":         {prefix: "ECHO", rated: []string{"echo"}},
	"minimos":      {prefix: "MINIMOS", rated: []string{"minimos"}},
	"oracle linux": {prefix: "ORACLE", own: []string{"ELSA-"}, rated: []string{"oracle-oval"}},
	"photon os":    {prefix: "PHOTON", own: []string{"PHSA-"}, rated: []string{"photon"}},
	"rocky":        {prefix: "ROCKY", own: []string{"RLSA-"}, rated: []string{"rocky"}},
	"ubuntu":       {prefix: "UBUNTU", own: []string{"USN-", "LSN-"}, rated: []string{"ubuntu"}},
	"wolfi":        {prefix: "WOLFI", own: []string{"CGA-"}, rated: []string{"wolfi"}},
}

var (
	suse   = publisher{prefix: "SUSE", own: []string{"SUSE-", "openSUSE-"}, rated: []string{"suse-cvrf"}}
	redHat = publisher{prefix: "REDHAT", own: []string{"RHSA-", "RHBA-", "RHEA-"}, rated: []string{"redhat", "redhat-oval"}, format: formatRedHat}
)

// languagePublishers by the id of the data source, whose own name stands for the
// others' prefix.
var languagePublishers = map[string]publisher{
	"bitnami":                 {prefix: "BIT", own: []string{"BIT-"}},
	"ghsa":                    {prefix: "GHSA", own: []string{"GHSA-"}},
	"glad":                    {prefix: "GLAD", own: []string{"GMS-"}},
	"govulndb":                {prefix: "GO", own: []string{"GO-"}},
	"julia":                   {prefix: "JLSEC", own: []string{"JLSEC-"}},
	"nodejs-security-wg":      {prefix: "NSWG", own: []string{"NSWG-"}},
	"osv":                     {prefix: "OSV", own: []string{"OSV-", "PYSEC-", "RUSTSEC-"}},
	"php-security-advisories": {prefix: "FRIENDSOFPHP"},
	"ruby-advisory-db":        {prefix: "RUBYSEC"},
}

// bucketRedHat is the one platform without a release in its name: its products
// are told by the advisories.
const bucketRedHat = "Red Hat"

// platform is a bucket of advisories.
type platform struct {
	bucket string
	space  string // OSV ecosystem; empty for Red Hat
	publisher
}

// platformOf tells what a bucket of the uppermost level is about. source is the
// id of its data source. ok is false for what holds no advisories, and for
// distributions that nobody here matches.
func platformOf(name, source string) (p platform, ok bool) {
	p.bucket = name
	if name == bucketRedHat {
		p.publisher = redHat
		return p, true
	}
	if language, _, ok := strings.Cut(name, "::"); ok {
		p.space = gatehouse.LanguageSpace(language)
		if p.publisher, ok = languagePublishers[source]; !ok {
			p.publisher = publisher{prefix: strings.ToUpper(field.Text(source, field.IDMax, false))}
		}
		if p.prefix == "" {
			p.prefix = "TRIVYDB"
		}
		p.rated, p.format = []string{source}, formatLanguage
		return p, p.space != ""
	}
	family, version := name, ""
	if at := strings.LastIndexByte(name, ' '); at >= 0 {
		family, version = name[:at], name[at+1:]
	}
	family = strings.ToLower(family)
	p.space = gatehouse.SpaceOf(family, version)
	if p.publisher, ok = distributions[family]; !ok {
		p.publisher = suse
		ok = strings.HasPrefix(p.space, "SUSE:") || strings.HasPrefix(p.space, "openSUSE:")
	}
	return p, ok && p.space != ""
}

// recordID names the record of a publisher about a flaw: by its own id for it if
// it has one, else by the flaw's, so that no two publishers share a record.
func (p publisher) recordID(flaw string, vendorIDs []string) string {
	for _, id := range append([]string{flaw}, vendorIDs...) {
		if slices.ContainsFunc(p.own, func(prefix string) bool { return strings.HasPrefix(id, prefix) }) {
			return id
		}
	}
	return p.prefix + "-" + flaw
}

// rating is the publisher's own word on a flaw.
func (p publisher) rating(r ratings) (gatehouse.Severity, string) {
	for _, source := range p.rated {
		if s := severity(r[source]); s != gatehouse.SeverityUnknown {
			return s, sourceName(source)
		}
	}
	return gatehouse.SeverityUnknown, ""
}

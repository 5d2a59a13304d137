package update

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Where feeds are published.
const (
	osvBase  = "https://osv-vulnerabilities.storage.googleapis.com"
	nvdBase  = "https://nvd.nist.gov/feeds/json/cve/2.0"
	kevURL   = "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"
	epssURL  = "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz"
	nvdFirst = 2002 // the first yearly file, which holds everything before
)

// TrivyRepositories are tried in turn for Trivy's database, as Trivy does.
func TrivyRepositories() []string {
	return []string{"mirror.gcr.io/aquasec/trivy-db:2", "ghcr.io/aquasecurity/trivy-db:2"}
}

// Default are the feeds of `gatehouse db update` where none are named: one
// download of some 60 MB that covers all distributions and languages with the
// severities of many, and two small files beside it.
func Default() []string { return []string{"trivy-db", "kev", "epss"} }

// Feed names as they are typed.
const (
	NameOSV   = "osv"
	NameTrivy = "trivy-db"
	NameNVD   = "nvd"
	NameKEV   = "kev"
	NameEPSS  = "epss"
	// NameGatehouse is a whole database, as `gatehouse db export` pushes it.
	NameGatehouse = "gatehouse"
)

// Ecosystems are the directories of OSV.dev that "osv" stands for: those whose
// packages are found in images. Others can be named.
func Ecosystems() []string {
	return []string{
		"AlmaLinux", "Alpaquita", "Alpine", "Azure Linux", "Bitnami", "Chainguard", "CRAN", "crates.io", "Debian", "Go",
		"Hackage", "Hex", "Julia", "Mageia", "Maven", "MinimOS", "npm", "NuGet", "openEuler", "openSUSE", "Packagist", "Pub",
		"PyPI", "Red Hat", "Rocky Linux", "RubyGems", "SUSE", "SwiftURL", "Ubuntu", "Wolfi",
	}
}

// Spec is one entry of the list of feeds, parsed: NAME or NAME=URL.
type Spec struct {
	name, part string // "osv", "Debian"
	url        *url.URL
	repos      []string // of an OCI artifact, tried in turn
}

// entriesMax bounds the list of feeds.
const entriesMax = 1000

// Parse reads the list of feeds:
//
//	osv             all of [Ecosystems], from OSV.dev
//	osv/ECOSYSTEM   one of them, or another of OSV.dev's directories
//	trivy-db        Trivy's database, from the first of repositories that answers
//	nvd, nvd/YEAR   NVD's yearly files, for severities
//	kev, epss       CISA's list and FIRST's scores
//	gatehouse=REF   another Gatehouse's whole database, alone
//
// Behind each may stand =URL, an https, http or file address of a mirror: for osv
// and nvd the directory, else the file; trivy-db takes a repository or a file.
// Errors: CodeInvalid.
func Parse(entries, repositories []string) ([]Spec, error) {
	if len(entries) > entriesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%d feeds are named, %d at most", len(entries), entriesMax)
	}
	if len(repositories) == 0 {
		repositories = TrivyRepositories()
	}
	var out []Spec
	for _, entry := range entries {
		s, err := parse(strings.TrimSpace(entry), repositories)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o Spec) bool { return o.name == s.name && o.part == s.part }) {
			return nil, invalid(entry, "it is named twice")
		}
		out = append(out, s)
	}
	for _, s := range out {
		if s.name == NameGatehouse && len(out) > 1 {
			return nil, invalid(NameGatehouse, "it is a whole database, so that no other feed can stand beside it")
		}
	}
	return out, nil
}

func invalid(entry, why string) *gatehouse.Error {
	name, _, _ := strings.Cut(entry, "=") // an address may hold a password
	return gatehouse.Errorf(gatehouse.CodeInvalid, "feed %q: %s", name, why).
		WithHint("write osv, osv/ECOSYSTEM, trivy-db, nvd, kev or epss, with =URL behind it for a mirror; or gatehouse=HOST/NAME[:TAG] alone")
}

func parse(entry string, repositories []string) (Spec, error) {
	head, where, mirrored := strings.Cut(entry, "=")
	var s Spec
	s.name, s.part, _ = strings.Cut(head, "/")
	switch s.name {
	case NameOSV:
		if s.part == "." || s.part == ".." || strings.ContainsAny(s.part, `/\?#%`) {
			return s, invalid(entry, "that is no ecosystem")
		}
	case NameNVD:
		if year, err := strconv.Atoi(s.part); s.part != "" && (err != nil || year < nvdFirst || year > 9999) {
			return s, invalid(entry, "what follows nvd/ is no year from "+strconv.Itoa(nvdFirst)+" on")
		}
	case NameTrivy, NameKEV, NameEPSS, NameGatehouse:
		if strings.Contains(head, "/") {
			return s, invalid(entry, "it has no parts")
		}
	default:
		return s, invalid(entry, "there is no such feed")
	}
	if strings.HasSuffix(head, "/") {
		return s, invalid(entry, "nothing follows the slash")
	}
	where, artifact := strings.CutPrefix(where, "oci://")
	if s.name == NameGatehouse {
		if where == "" || strings.Contains(where, "://") {
			return s, invalid(entry, "what follows = is no reference in a registry")
		}
		ref, err := ParseRepository(where, "latest")
		s.repos = []string{ref.String()}
		return s, err
	}
	if s.name == NameTrivy && (!mirrored || artifact || !strings.Contains(where, "://")) {
		if mirrored {
			repositories = []string{where}
		}
		s.repos = slices.Clone(repositories)
		for i, r := range s.repos {
			ref, err := ParseRepository(r, "2")
			if err != nil {
				return s, err
			}
			s.repos[i] = ref.String()
		}
		return s, nil
	}
	if !mirrored {
		where = map[string]string{NameOSV: osvBase, NameNVD: nvdBase, NameKEV: kevURL, NameEPSS: epssURL}[s.name]
	}
	var err error
	if s.url, err = address(entry, where); err != nil {
		return s, err
	}
	if s.name == NameOSV && s.part == "" && strings.HasSuffix(s.url.Path, ".zip") {
		return s, invalid(entry, "a single file needs the name of its ecosystem: osv/ECOSYSTEM=…")
	}
	return s, nil
}

// address reads the URL of a mirror.
func address(entry, where string) (*url.URL, error) {
	u, err := url.Parse(where)
	switch {
	case err != nil || u.Opaque != "":
		return nil, invalid(entry, "what follows = is no URL")
	case u.User != nil:
		return nil, invalid(entry, "the URL holds credentials, which would show in logs and states")
	case u.Fragment != "":
		return nil, invalid(entry, "the URL has a fragment")
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path) && u.RawQuery == "":
		return u, nil
	case (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		return u, nil
	}
	return nil, invalid(entry, "a mirror is https://HOST/…, http://HOST/… or file:///DIRECTORY")
}

// ParseRepository parses the reference of an OCI artifact, with oci:// before it
// or not. Without a tag it has the one that is given. Errors: CodeInvalid.
func ParseRepository(s, tag string) (gatehouse.Ref, error) {
	s = strings.TrimPrefix(s, "oci://")
	last := s[strings.LastIndex(s, "/")+1:]
	if !strings.ContainsAny(last, ":@") {
		s += ":" + tag
	}
	ref, err := gatehouse.ParseRef(s)
	if err != nil {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "repository %q: %w", s, err).WithHint("write HOST/NAME[:TAG]")
	}
	return ref, nil
}

// Feed is one publication: what it holds is replaced as a whole.
type Feed struct {
	Name string // "osv/Debian", "trivy-db", "nvd/2024", "kev", "epss", "gatehouse"
	kind string // the first part of the name
	url  *url.URL
	// repos are tried in turn, instead of url.
	repos []string
	// optional: it is one of a group, and where it is not published nobody is to
	// blame.
	optional bool
	sizeMax  int64
	err      error // why it cannot even be asked for
}

// Source says for people where the feed comes from.
func (f Feed) Source() string {
	if f.url == nil {
		return strings.Join(f.repos, ", ")
	}
	u := *f.url
	u.RawQuery = "" // which may hold a key
	return u.String()
}

// FileName is what the feed's file is called, for readers that go by it.
func (f Feed) FileName() string {
	if f.url == nil {
		return "trivy-db.tar.gz"
	}
	if f.kind == NameOSV {
		return strings.TrimPrefix(f.Name, "osv/") + "/" + path.Base(f.url.Path)
	}
	return path.Base(f.url.Path)
}

// Feeds is the list of feeds that specs stand for at a time, by name: years and
// the directories of a mirror come and go.
func Feeds(specs []Spec, now time.Time) []Feed {
	var out []Feed
	add := func(f Feed) {
		if !slices.ContainsFunc(out, func(o Feed) bool { return o.Name == f.Name }) {
			out = append(out, f)
		}
	}
	// A part that is named stands above the group that it is of.
	ordered := slices.Clone(specs)
	slices.SortStableFunc(ordered, func(a, b Spec) int { return min(len(b.part), 1) - min(len(a.part), 1) })
	for _, s := range ordered {
		for _, f := range s.feeds(now) {
			add(f)
		}
	}
	slices.SortStableFunc(out, func(a, b Feed) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s Spec) feeds(now time.Time) []Feed {
	switch s.name {
	case NameOSV:
		return s.osv()
	case NameNVD:
		if s.part != "" {
			return []Feed{s.nvd(s.part, false)}
		}
		var out []Feed
		for year := nvdFirst; year <= now.UTC().Year(); year++ {
			// NIST puts the year's first file up with its first record.
			out = append(out, s.nvd(strconv.Itoa(year), year == now.UTC().Year()))
		}
		return out
	case NameTrivy:
		return []Feed{{Name: s.name, kind: s.name, url: s.url, repos: s.repos, sizeMax: trivySizeMax}}
	case NameGatehouse:
		return []Feed{{Name: s.name, kind: s.name, repos: s.repos, sizeMax: DatabaseSizeMax}}
	}
	return []Feed{{Name: s.name, kind: s.name, url: s.url, sizeMax: overlaySizeMax}}
}

func (s Spec) nvd(year string, optional bool) Feed {
	return Feed{Name: "nvd/" + year, kind: NameNVD, url: s.url.JoinPath("nvdcve-2.0-" + year + ".json.gz"), optional: optional, sizeMax: nvdSizeMax}
}

func (s Spec) osv() []Feed {
	one := func(ecosystem string, u *url.URL, optional bool) Feed {
		return Feed{Name: "osv/" + ecosystem, kind: NameOSV, url: u, optional: optional, sizeMax: osvSizeMax}
	}
	switch {
	case strings.HasSuffix(s.url.Path, ".zip"):
		return []Feed{one(s.part, s.url, false)}
	case s.part != "":
		return []Feed{one(s.part, s.url.JoinPath(s.part, "all.zip"), false)}
	}
	names := Ecosystems()
	if s.url.Scheme == "file" {
		var err error
		if names, err = mirrored(s.url.Path); err != nil {
			return []Feed{{Name: NameOSV, kind: NameOSV, url: s.url, err: err}}
		}
	}
	var out []Feed
	for _, name := range names {
		out = append(out, one(name, s.url.JoinPath(name, "all.zip"), s.url.Scheme != "file"))
	}
	return out
}

// mirrored lists the ecosystems of a mirror directory: DIRECTORY/NAME/all.zip.
func mirrored(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't read the mirror of osv: %w", err)
	}
	var out []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "all.zip")); err == nil && len(out) < entriesMax {
			out = append(out, e.Name())
		}
	}
	if len(out) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the mirror of osv at %s is empty", dir).
			WithHint("it holds ECOSYSTEM/all.zip, as OSV.dev publishes them")
	}
	return out, nil
}

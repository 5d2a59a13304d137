package match

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Matcher matches many packages against one generation of advisories and
// remembers what it has looked up, so that a thousand versions of one package
// cost one look. It is for one batch of work and not safe for concurrent use.
type Matcher struct {
	adv     Advisories
	records map[Key][]*record
	named   map[string][]gatehouse.Advisory
	hits    []hit // room for one package's
}

// remembered is how many look-ups of each kind a Matcher keeps before it
// forgets all and starts over.
const remembered = 10_000

// NewMatcher returns a Matcher over adv.
func NewMatcher(adv Advisories) *Matcher {
	return &Matcher{adv: adv, records: map[Key][]*record{}, named: map[string][]gatehouse.Advisory{}}
}

// record is an advisory with what it says of one package name.
type record struct {
	adv     gatehouse.Advisory
	flaws   []string             // CVE ids that it covers
	entries []gatehouse.Affected // of the name
	// denials are entries of the name that say "not affected".
	denials []gatehouse.Affected
	topic   string // number of the topic of Amazon's extras, where it is about one
	os      bool   // of a distribution's own feed
}

// hit is a record that speaks of the package, though perhaps to say that this
// version is not affected.
type hit struct {
	*record // shared, not to be changed
	key     Key
	v       *installed
	flaws   []string             // of the record, less those that another one overrules
	entries []gatehouse.Affected // of the record, less those of other builds of the package
	affects bool                 // the installed version
	denies  bool                 // says that the installed version is not affected, whatever others say
}

// Package matches one package under the keys that [Keys] gave for it, all at
// once, so that a record found under two of them is one. It needs no
// distribution: a finding can hang on a package version that many images
// share. The findings stand in the order of [Sort]. Errors are those of the
// store of advisories.
func (m *Matcher) Package(ctx context.Context, p gatehouse.Package, keys []Key) ([]gatehouse.Finding, error) {
	hits, affected := m.hits[:0], false
	for _, k := range keys {
		v, err := newInstalled(p, k)
		if err != nil {
			return nil, err
		}
		if v.version == "" {
			continue // Unmatchable tells of it
		}
		records, err := m.recordsFor(ctx, k, p.OS())
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if h, ok := newHit(r, k, v); ok {
				hits = append(hits, h)
				affected = affected || h.affects
			}
		}
	}
	m.hits = hits
	if !affected {
		return nil, nil
	}
	slices.SortStableFunc(hits, func(a, b hit) int {
		return cmp.Or(strings.Compare(a.adv.ID, b.adv.ID), strings.Compare(a.adv.Feed, b.adv.Feed))
	})
	var out []gatehouse.Finding
	for _, g := range group(authoritative(hits)) {
		f, ok, err := m.finding(ctx, p, g)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, f)
		}
	}
	Sort(out)
	return out, nil
}

// recordsFor returns the records of a key that can be vulnerabilities:
// withdrawn ones, informational ones (RustSec's "unmaintained") and bug fixes
// are dropped.
func (m *Matcher) recordsFor(ctx context.Context, k Key, os bool) ([]*record, error) {
	if list, ok := m.records[k]; ok {
		return list, nil
	}
	all, err := m.adv.For(ctx, k.Space, k.Name)
	if err != nil {
		return nil, err
	}
	var out []*record
	for _, a := range all {
		r := &record{adv: a, os: os, flaws: flaws(a, os), topic: topicNumber(a.ID)}
		if !a.Withdrawn.IsZero() || len(r.flaws) == 0 && isBugFix(a.ID) {
			continue
		}
		for _, e := range a.Affected {
			switch {
			case e.Space != k.Space || e.Name != k.Name || e.Informational != "" || e.Status == gatehouse.StatusUnderInvestigation:
			case e.Status == gatehouse.StatusNotAffected:
				r.denials = append(r.denials, e)
			default:
				r.entries = append(r.entries, e)
			}
		}
		if len(r.entries)+len(r.denials) > 0 {
			out = append(out, r)
		}
	}
	if len(m.records) >= remembered {
		clear(m.records)
	}
	m.records[k] = out
	return out, nil
}

// newHit keeps the entries that speak of packages built as v was.
func newHit(r *record, k Key, v *installed) (hit, bool) {
	h := hit{record: r, key: k, v: v, flaws: r.flaws, entries: r.entries}
	other := func(e gatehouse.Affected) bool { return !v.concerns(r.topic, e) }
	if slices.ContainsFunc(r.entries, other) {
		h.entries = slices.DeleteFunc(slices.Clone(r.entries), other)
	}
	h.affects = slices.ContainsFunc(h.entries, v.affects)
	h.denies = !h.affects && r.os && slices.ContainsFunc(r.denials, func(e gatehouse.Affected) bool {
		return !other(e) && (len(e.Ranges)+len(e.Versions) == 0 || v.affects(e))
	})
	return h, len(h.entries) > 0 || h.denies
}

var (
	cveInName     = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,}$`)
	bugFixPattern = regexp.MustCompile(`^(?:AL|RH|RL|EL)(?:BA|EA)-`)
)

// isCVE reports whether a name is of the form CVE-2024-0001; all names of all
// records pass by here, which is why it is no regular expression.
func isCVE(name string) bool {
	rest, ok := strings.CutPrefix(name, "CVE-")
	year, number, cut := strings.Cut(rest, "-")
	return ok && cut && len(year) == 4 && len(number) >= 4 && strings.Trim(year+number, "0123456789") == ""
}

// isBugFix reports the errata of the RHEL family that are bug fixes or
// enhancements.
func isBugFix(id string) bool { return bugFixPattern.MatchString(id) }

// flaws returns the CVE ids that a record covers. Distributions name them as
// upstream, older ones only in their own id; AlmaLinux and Rocky Linux call
// them related, which in all other databases means something else.
func flaws(a gatehouse.Advisory, os bool) []string {
	var out []string
	add := func(names ...string) {
		for _, n := range names {
			if isCVE(n) && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	add(a.ID)
	add(a.Aliases...)
	add(a.Upstream...)
	if len(out) == 0 {
		add(cveInName.FindString(a.ID))
	}
	if len(out) == 0 && os {
		add(a.Related...)
	}
	return out
}

// flaw is one group of records: those of one CVE, or of one flaw without any.
type flaw struct {
	id   string
	hits []hit // all that speak of it, also those that say "not affected"
}

// group folds records by the flaw that they speak of and returns the flaws that
// the package has, by id.
//
// A record stands under each CVE that it covers, whether it calls them aliases
// or upstream: databases that write one record for several CVEs (RustSec,
// retire.js) call them aliases too, yet a CVE is one flaw by definition, and
// ignoring one must not hide another. A record without a CVE joins those that
// share one of its other names (GHSA, GO, …).
func group(hits []hit) []flaw {
	// What does not hold for the version only matters for its names, and those
	// only to records without a CVE of their own.
	nameless := func(h hit) bool { return h.affects && len(h.flaws) == 0 }
	var byName map[string][]string // a name that is no CVE → CVEs of the records that bear it
	if slices.ContainsFunc(hits, nameless) {
		byName = map[string][]string{}
		for _, h := range hits {
			for _, n := range ownNames(h.adv) {
				byName[n] = append(byName[n], h.flaws...)
			}
		}
	}
	groups := map[string]*flaw{}
	join := func(id string, h hit) {
		if groups[id] == nil {
			groups[id] = &flaw{id: id}
		}
		groups[id].hits = append(groups[id].hits, h)
	}
	var bare []hit // without any CVE
	for _, h := range hits {
		cves := h.flaws
		if len(cves) == 0 && byName != nil {
			for _, n := range ownNames(h.adv) {
				cves = append(cves, byName[n]...)
			}
			slices.Sort(cves)
			cves = slices.Compact(cves)
			if len(cves) == 0 {
				bare = append(bare, h)
			}
		}
		for _, cve := range cves {
			if h.affects {
				join(cve, h)
			}
		}
	}
	for _, set := range connected(bare) {
		for _, h := range set {
			join(bestName(set), h)
		}
	}
	var out []flaw
	for _, g := range groups {
		if slices.ContainsFunc(g.hits, func(h hit) bool { return h.affects }) {
			out = append(out, *g)
		}
	}
	slices.SortFunc(out, func(a, b flaw) int { return strings.Compare(a.id, b.id) })
	return out
}

// ownNames are the names of a record itself that are no CVE.
func ownNames(a gatehouse.Advisory) []string {
	var out []string
	for _, n := range append([]string{a.ID}, a.Aliases...) {
		if !isCVE(n) {
			out = append(out, n)
		}
	}
	return out
}

// connected divides records into sets that share names, directly or through
// others.
func connected(hits []hit) [][]hit {
	parent := make([]int, len(hits))
	var find func(i int) int
	find = func(i int) int {
		if parent[i] != i {
			parent[i] = find(parent[i])
		}
		return parent[i]
	}
	bearer := map[string]int{}
	for i, h := range hits {
		parent[i] = i
		for _, n := range ownNames(h.adv) {
			if j, ok := bearer[n]; ok {
				parent[find(i)] = find(j)
			} else {
				bearer[n] = i
			}
		}
	}
	index := map[int]int{}
	var out [][]hit
	for i, h := range hits {
		root := find(i)
		if _, ok := index[root]; !ok {
			index[root] = len(out)
			out = append(out, nil)
		}
		out[index[root]] = append(out[index[root]], h)
	}
	return out
}

// bestName is the name of a flaw without a CVE: GitHub's if there is one, else
// the first record's own.
func bestName(set []hit) string {
	var ghsa, ids []string
	for _, h := range set {
		ids = append(ids, h.adv.ID)
		for _, n := range ownNames(h.adv) {
			if strings.HasPrefix(n, "GHSA-") {
				ghsa = append(ghsa, n)
			}
		}
	}
	if len(ghsa) > 0 {
		return slices.Min(ghsa)
	}
	return slices.Min(ids)
}

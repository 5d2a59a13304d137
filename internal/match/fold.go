package match

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// matcher holds what one call has looked up already.
type matcher struct {
	adv   Advisories
	named map[string][]gatehouse.Advisory
}

// hit is one record that may speak of the package.
type hit struct {
	adv     gatehouse.Advisory
	key     Key
	v       installed
	flaws   []string             // CVE ids that it covers
	entries []gatehouse.Affected // that speak of this package's stream at all
	affects bool                 // the installed version
	os      bool                 // of a distribution's own feed
}

// pkg matches p under all of its keys at once, so that a record found under two
// of them is one.
func (m *matcher) pkg(ctx context.Context, p gatehouse.Package, keys []Key) ([]gatehouse.Finding, error) {
	var hits []hit
	seen := map[string]bool{}
	for _, k := range keys {
		order, err := version.For(k.Space)
		if err != nil {
			return nil, err
		}
		v := installed{order: order, version: comparable(p, k), module: stream(p.Modularity)}
		v.modular = v.module != "" || p.Type == "rpm" && strings.Contains(p.Version, moduleMark)
		if v.version == "" {
			continue // Unmatchable tells of it
		}
		v.unordered = order.Valid(v.version) != nil
		records, err := m.adv.For(ctx, k.Space, k.Name)
		if err != nil {
			return nil, err
		}
		for _, a := range records {
			h, ok := newHit(a, k, v, p.OS())
			if id := a.ID + "\x00" + k.Space; ok && !seen[id] {
				seen[id] = h.affects // a second key may still find it
				hits = append(hits, h)
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return strings.Compare(a.adv.ID, b.adv.ID) })
	hits = authoritative(hits)
	var out []gatehouse.Finding
	for _, g := range group(hits) {
		f, err := m.finding(ctx, p, g)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// newHit drops records that are no vulnerabilities: withdrawn ones,
// informational ones (RustSec's "unmaintained") and bug fixes.
func newHit(a gatehouse.Advisory, k Key, v installed, os bool) (hit, bool) {
	h := hit{adv: a, key: k, v: v, os: os, flaws: flaws(a, os)}
	if !a.Withdrawn.IsZero() || len(h.flaws) == 0 && isBugFix(a.ID) {
		return h, false
	}
	for _, e := range a.Affected {
		if e.Space == k.Space && e.Name == k.Name && e.Informational == "" && e.Status != "not_affected" && v.sameModule(e) {
			h.entries = append(h.entries, e)
			h.affects = h.affects || v.affects(e)
		}
	}
	return h, len(h.entries) > 0
}

var (
	cvePattern    = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,}$`)
	cveInName     = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,}$`)
	bugFixPattern = regexp.MustCompile(`^(?:AL|RH|RL|EL)(?:BA|EA)-`)
)

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
			if cvePattern.MatchString(n) && !slices.Contains(out, n) {
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

// authoritative drops what Debian's tracker says of a CVE for which there is an
// advisory (DSA, DLA) for the same package and release: the advisory's version
// is the one that was built for that release.
func authoritative(hits []hit) []hit {
	ruled := map[string]bool{}
	for _, h := range hits {
		if isDebianAdvisory(h.adv.ID) {
			for _, cve := range h.flaws {
				ruled[h.key.Space+"\x00"+h.key.Name+"\x00"+cve] = true
			}
		}
	}
	if len(ruled) == 0 {
		return hits
	}
	var out []hit
	for _, h := range hits {
		if strings.HasPrefix(h.adv.ID, "DEBIAN-") {
			h.flaws = slices.DeleteFunc(slices.Clone(h.flaws), func(cve string) bool {
				return ruled[h.key.Space+"\x00"+h.key.Name+"\x00"+cve]
			})
			if len(h.flaws) == 0 {
				continue
			}
		}
		out = append(out, h)
	}
	return out
}

func isDebianAdvisory(id string) bool {
	return strings.HasPrefix(id, "DSA-") || strings.HasPrefix(id, "DLA-") || strings.HasPrefix(id, "DTSA-")
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
	byName := map[string][]string{} // a name that is no CVE → CVEs of the records that bear it
	for _, h := range hits {
		for _, n := range ownNames(h.adv) {
			byName[n] = append(byName[n], h.flaws...)
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
		if len(cves) == 0 {
			for _, n := range ownNames(h.adv) {
				cves = append(cves, byName[n]...)
			}
			slices.Sort(cves)
			cves = slices.Compact(cves)
		}
		for _, cve := range cves {
			join(cve, h)
		}
		if len(cves) == 0 {
			bare = append(bare, h)
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
		if !cvePattern.MatchString(n) {
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

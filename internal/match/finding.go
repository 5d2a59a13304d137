package match

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// What one finding carries of texts; the records have the rest.
const (
	referencesMax = 16
	fixesMax      = 256 // candidates looked at for the version that repairs
)

// finding puts together what all records say of one flaw of p. ok is false for
// one that turns out to be none: its CVE was rejected.
func (m *Matcher) finding(ctx context.Context, p gatehouse.Package, g flaw) (f gatehouse.Finding, ok bool, err error) {
	f = gatehouse.Finding{
		ID: g.id, Kind: gatehouse.KindVulnerability, Package: p, Aliases: aliases(g),
		FixedVersion: fixedVersion(g),
	}
	f.Status = status(g, f.FixedVersion)
	for _, h := range g.hits {
		if h.affects && strings.HasPrefix(h.adv.ID, "MAL-") {
			f.Kind = gatehouse.KindMalware
		}
	}
	records, rejected, err := m.told(ctx, g, f.Aliases)
	if err != nil || rejected && onlyDistributions(g) {
		return f, false, err
	}
	f.Severity, f.SeveritySource = resolve(g, records)
	describe(&f, records)
	return f, true, nil
}

// onlyDistributions reports whether nobody but distributions speaks of a flaw,
// who keep listing what its numbering authority has taken back.
func onlyDistributions(g flaw) bool {
	return !slices.ContainsFunc(g.hits, func(h hit) bool { return h.affects && !h.os })
}

// aliases returns every other name of the flaw: the records that speak of it,
// and what they call it. Other CVEs of the same record are other flaws.
func aliases(g flaw) []string {
	out := []string{}
	for _, h := range g.hits {
		if !h.affects {
			continue
		}
		names := ownNames(h.adv)
		if len(h.flaws) == 1 {
			for _, n := range h.adv.Upstream {
				if !isCVE(n) {
					names = append(names, n)
				}
			}
		}
		out = append(out, names...)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(n string) bool { return n == g.id })
}

// fixedVersion returns the lowest version that repairs the flaw by all records
// that speak of it. Where they contradict each other so that none does, it is
// the highest that any of them names; "" where none names any.
func fixedVersion(g flaw) string {
	var candidates []string
	var affecting []hit
	for _, h := range g.hits {
		if !h.affects {
			continue
		}
		affecting = append(affecting, h)
		for _, e := range h.entries {
			if h.v.affects(e) {
				candidates = append(candidates, h.v.fixes(e)...)
			}
		}
	}
	if len(candidates) == 0 {
		return ""
	}
	order := affecting[0].v.order
	slices.SortFunc(candidates, func(a, b string) int {
		if c, err := order.Compare(a, b); err == nil && c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	candidates = slices.Compact(candidates)
	for _, c := range candidates[:min(len(candidates), fixesMax)] {
		if !slices.ContainsFunc(affecting, func(h hit) bool { return h.affectsAlso(c) }) {
			return c
		}
	}
	return candidates[len(candidates)-1]
}

// affectsAlso reports whether the record speaks of another version of the same
// package, in the same module stream.
func (h hit) affectsAlso(v string) bool {
	other := *h.v
	other.version, other.unordered = v, false
	return slices.ContainsFunc(h.entries, func(e gatehouse.Affected) bool {
		return slices.Contains(e.Versions, v) || slices.ContainsFunc(e.Ranges, other.inRange)
	})
}

// status is what is known of the repair.
func status(g flaw, fixed string) string {
	if fixed != "" {
		return gatehouse.StatusFixed
	}
	for _, h := range g.hits {
		for _, e := range h.entries {
			if h.v.affects(e) && e.Status != "" {
				return e.Status
			}
		}
	}
	return gatehouse.StatusAffected
}

// told is a record with what it has to do with the finding.
type told struct {
	gatehouse.Advisory
	exact bool // speaks of this one flaw only
	hit   bool // speaks of the package
	os    bool // of the distribution that built the package
}

// told returns all records that have something to say of the flaw, best
// first: those that matched, and those that share its CVE or GHSA name.
// rejected tells that the CVE itself was withdrawn.
func (m *Matcher) told(ctx context.Context, g flaw, aliases []string) (out []told, rejected bool, err error) {
	type identity struct{ feed, id string }
	seen := map[identity]bool{}
	add := func(a gatehouse.Advisory, t told) {
		if !a.Withdrawn.IsZero() {
			rejected = rejected || a.ID == g.id && isCVE(a.ID)
			return
		}
		if id := (identity{a.Feed, a.ID}); !seen[id] {
			seen[id] = true
			t.Advisory = a
			out = append(out, t)
		}
	}
	// By the flaw's names most of the records that matched are found as well.
	var others []gatehouse.Advisory
	for _, name := range append([]string{g.id}, aliases...) {
		if name != g.id && !strings.HasPrefix(name, "GHSA-") {
			continue
		}
		list, err := m.lookup(ctx, name)
		if err != nil {
			return nil, false, err
		}
		others = append(others, list...)
	}
	vendors := map[string]bool{}
	for _, h := range g.hits {
		if !h.affects {
			continue
		}
		full, err := m.full(ctx, h.adv, others)
		if err != nil {
			return nil, false, err
		}
		if h.os {
			vendors[prefix(h.adv.ID)] = true
		}
		add(full, told{exact: len(h.flaws) <= 1, hit: true, os: h.os})
	}
	for _, a := range others {
		add(a, told{exact: len(flaws(a, false)) <= 1, os: !isCVE(a.ID) && vendors[prefix(a.ID)]})
	}
	slices.SortStableFunc(out, func(a, b told) int {
		return cmp.Or(a.rank()-b.rank(), strings.Compare(a.ID, b.ID), strings.Compare(a.Feed, b.Feed))
	})
	return out, rejected, nil
}

// The order of whose rating counts.
const (
	rankVendor = iota // the distribution that built the package
	rankGHSA
	rankNVD
	rankHit   // another record of the package (RustSec, PyPA, …)
	rankOther // one that only shares the name
)

// rank says how much a record's own rating counts. Who rated is told by the
// record itself: one and the same may carry ratings of others along.
func (t told) rank() int {
	switch {
	case t.SeveritySource == "ghsa" || t.SeveritySource == "" && strings.HasPrefix(t.ID, "GHSA-"):
		return rankGHSA
	case t.SeveritySource == "nvd" || t.SeveritySource == "" && isCVE(t.ID):
		return rankNVD
	case t.os:
		return rankVendor
	case t.hit:
		return rankHit
	}
	return rankOther
}

// prefix is what a database begins its ids with; most distributions have several,
// and their records in Trivy DB begin with the distribution's name.
func prefix(id string) string {
	p, _, _ := strings.Cut(id, "-")
	switch p {
	case "DSA", "DLA", "DTSA":
		return "DEBIAN"
	case "USN", "LSN":
		return "UBUNTU"
	case "RHSA", "RHBA", "RHEA":
		return "REDHAT"
	case "ALSA", "ALBA", "ALEA":
		return "ALMALINUX"
	case "RLSA", "RLBA", "RLEA", "RXSA":
		return "ROCKY"
	case "ELSA", "ELBA":
		return "ORACLE"
	case "openSUSE":
		return "SUSE"
	}
	return p
}

// full returns a record with its texts, from those at hand if it is among them;
// what For gave stands in for one that Named does not know.
func (m *Matcher) full(ctx context.Context, a gatehouse.Advisory, others []gatehouse.Advisory) (gatehouse.Advisory, error) {
	same := func(b gatehouse.Advisory) bool { return b.ID == a.ID && b.Feed == a.Feed }
	if i := slices.IndexFunc(others, same); i >= 0 {
		return others[i], nil
	}
	list, err := m.lookup(ctx, a.ID)
	if err != nil {
		return a, err
	}
	if i := slices.IndexFunc(list, same); i >= 0 {
		return list[i], nil
	}
	return a, nil
}

func (m *Matcher) lookup(ctx context.Context, name string) ([]gatehouse.Advisory, error) {
	if list, ok := m.named[name]; ok {
		return list, nil
	}
	list, err := m.adv.Named(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(m.named) >= remembered {
		clear(m.named)
	}
	m.named[name] = list
	return list, nil
}

// rating is what one source says of how bad a flaw is.
type rating struct {
	severity gatehouse.Severity
	source   string
	rank     int
}

// resolve takes the severity from the best rank that gives one, the worst of
// those that stand equal. What a distribution says of the very package goes
// before what it says of the flaw, and a word before a score.
func resolve(g flaw, records []told) (gatehouse.Severity, string) {
	var all []rating
	for _, h := range g.hits {
		if !h.affects {
			continue
		}
		rank := rankHit
		if h.os {
			rank = rankVendor - 1
		}
		for _, e := range h.entries {
			if e.Severity != gatehouse.SeverityUnknown && h.v.affects(e) {
				all = append(all, rating{e.Severity, publisher(h), rank})
			}
		}
	}
	for _, r := range records {
		if r.Severity != gatehouse.SeverityUnknown {
			all = append(all, rating{r.Severity, r.SeveritySource, r.rank()})
		}
	}
	best := pick(all)
	// Scores of others that came along with a record stand in where GitHub or
	// NVD themselves gave no word.
	for _, r := range records {
		if !r.exact {
			continue
		}
		for _, c := range newest(r.CVSS) {
			rank, ok := scoreRanks[c.Source]
			if ok && rank < best.rank {
				best = pick([]rating{best, {c.Severity(), c.Source, rank}})
			}
		}
	}
	return best.severity, best.source
}

// scoreRanks are the sources whose scores count without a word of theirs.
var scoreRanks = map[string]int{"ghsa": rankGHSA, "nvd": rankNVD}

func pick(all []rating) rating {
	best := rating{rank: rankOther + 1}
	for _, r := range all {
		if r.severity != gatehouse.SeverityUnknown && (r.rank < best.rank || r.rank == best.rank && r.severity > best.severity) {
			best = r
		}
	}
	return best
}

// newest keeps of each source the scores of its newest CVSS version.
func newest(scores []gatehouse.CVSS) []gatehouse.CVSS {
	return slices.DeleteFunc(slices.Clone(scores), func(c gatehouse.CVSS) bool {
		return slices.ContainsFunc(scores, func(o gatehouse.CVSS) bool { return o.Source == c.Source && o.Version > c.Version })
	})
}

// publisher names who rated an entry of a distribution's record.
func publisher(h hit) string {
	if !h.os {
		return h.adv.SeveritySource
	}
	b := base(h.key.Space)
	if name, ok := publishers[b]; ok {
		return name
	}
	return strings.ToLower(strings.ReplaceAll(b, " ", "-"))
}

// publishers are the distributions that feeds call by a name that is not their
// space in lower case.
var publishers = map[string]string{
	"Amazon Linux": "amazon", "Azure Linux": "azure", "Oracle Linux": "oracle", "Photon OS": "photon",
	"Red Hat": "redhat", "Rocky Linux": "rocky", "openSUSE": "suse",
}

// disputed is how CVE marks flaws that somebody says are none.
const disputed = "** DISPUTED **"

// describe fills in texts and scores. A record that speaks of this flaw alone
// describes it better than an advisory that covers many.
func describe(f *gatehouse.Finding, records []told) {
	f.CVSS, f.References = []gatehouse.CVSS{}, []string{}
	for _, exact := range []bool{true, false} {
		for _, r := range records {
			if r.exact != exact {
				continue
			}
			if f.Title == "" {
				f.Title = r.Summary
			}
			if f.Description == "" {
				f.Description = r.Details
			}
			if !r.Published.IsZero() && (f.Published.IsZero() || exact && r.Published.Before(f.Published)) {
				f.Published = r.Published
			}
		}
	}
	if f.Title == "" {
		f.Title, _, _ = strings.Cut(f.Description, "\n")
	}
	if strings.HasPrefix(f.Description, disputed) && !strings.HasPrefix(f.Title, disputed) {
		f.Title = strings.TrimSpace(disputed + " " + f.Title)
	}
	for _, r := range records {
		for _, c := range r.CVSS {
			if !slices.Contains(f.CVSS, c) && (r.exact || r.hit) {
				f.CVSS = append(f.CVSS, c)
			}
		}
		for _, u := range r.References {
			if len(f.References) < referencesMax && !slices.Contains(f.References, u) {
				f.References = append(f.References, u)
			}
		}
	}
}

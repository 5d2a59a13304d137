package match

import (
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

// finding puts together what all records say of one flaw of p.
func (m *Matcher) finding(ctx context.Context, p gatehouse.Package, g flaw) (gatehouse.Finding, error) {
	f := gatehouse.Finding{
		ID: g.id, Kind: gatehouse.KindVulnerability, Package: p, Aliases: aliases(g),
		FixedVersion: fixedVersion(g),
	}
	f.Status = status(g, f.FixedVersion)
	for _, h := range g.hits {
		if h.affects && strings.HasPrefix(h.adv.ID, "MAL-") {
			f.Kind = gatehouse.KindMalware
		}
	}
	records, err := m.told(ctx, g, f.Aliases)
	if err != nil {
		return f, err
	}
	f.Severity, f.SeveritySource = resolve(records)
	describe(&f, records)
	return f, nil
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

// told is a record with how near it stands to the finding; the lower the rank,
// the more its word counts.
type told struct {
	gatehouse.Advisory
	rank  int
	exact bool // speaks of this one flaw only
	hit   bool // speaks of the package
}

// The order of whose rating counts.
const (
	rankVendor = iota // the distribution that built the package
	rankGHSA
	rankNVD
	rankHit   // another record of the package (RustSec, PyPA, …)
	rankOther // one that only shares the name
)

// told returns all records that have something to say of the flaw, best
// first: those that matched, and those that share its CVE or GHSA name.
func (m *Matcher) told(ctx context.Context, g flaw, aliases []string) ([]told, error) {
	var out []told
	seen := map[string]bool{}
	add := func(a gatehouse.Advisory, t told) {
		if seen[a.ID] || !a.Withdrawn.IsZero() {
			return
		}
		seen[a.ID] = true
		t.Advisory = a
		switch {
		case t.rank == rankVendor:
		case strings.HasPrefix(a.ID, "GHSA-"):
			t.rank = rankGHSA
		case isCVE(a.ID):
			t.rank = rankNVD
		}
		out = append(out, t)
	}
	vendors := map[string]bool{}
	for _, h := range g.hits {
		if !h.affects {
			continue
		}
		full, err := m.full(ctx, h.adv)
		if err != nil {
			return nil, err
		}
		t := told{rank: rankHit, exact: len(h.flaws) <= 1, hit: true}
		if h.os {
			t.rank = rankVendor
			vendors[prefix(h.adv.ID)] = true
		}
		add(full, t)
	}
	for _, name := range append([]string{g.id}, aliases...) {
		if name != g.id && !strings.HasPrefix(name, "GHSA-") {
			continue
		}
		list, err := m.lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, a := range list {
			t := told{rank: rankOther, exact: len(flaws(a, false)) <= 1}
			if len(vendors) > 0 && vendors[prefix(a.ID)] {
				t.rank = rankVendor
			}
			add(a, t)
		}
	}
	slices.SortStableFunc(out, func(a, b told) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
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

// full returns a record with its texts; what For gave stands in for one that
// Named does not know.
func (m *Matcher) full(ctx context.Context, a gatehouse.Advisory) (gatehouse.Advisory, error) {
	list, err := m.lookup(ctx, a.ID)
	if err != nil {
		return a, err
	}
	for _, b := range list {
		if b.ID == a.ID {
			return b, nil
		}
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

// resolve takes the severity from the best rank that gives one, the worst of
// those that stand equal.
func resolve(records []told) (gatehouse.Severity, string) {
	for i, r := range records {
		if r.Severity == gatehouse.SeverityUnknown {
			continue
		}
		best, source := r.Severity, r.SeveritySource
		for _, s := range records[i+1:] {
			if s.rank == r.rank && s.Severity > best {
				best, source = s.Severity, s.SeveritySource
			}
		}
		return best, source
	}
	return gatehouse.SeverityUnknown, ""
}

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

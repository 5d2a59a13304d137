package match

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// saying is a CVE of a package by one of its names in one distribution.
type saying struct{ base, name, cve string }

// authoritative drops from the records of distributions what a better placed
// one of the same distribution overrules, CVE by CVE, and all records that then
// say nothing against the package. Those of languages stay: one that does not
// hold for the version may still know a flaw's other names.
func authoritative(hits []hit) []hit {
	if !slices.ContainsFunc(hits, func(h hit) bool { return h.os }) {
		return hits
	}
	said := map[saying][]*hit{}
	for i := range hits {
		h := &hits[i]
		if !h.os {
			continue
		}
		for _, cve := range h.flaws {
			at := saying{base(h.key.Space), h.key.Name, cve}
			said[at] = append(said[at], h)
		}
	}
	var out []hit
	for i := range hits {
		h := hits[i]
		if !h.affects && h.os {
			continue
		}
		overruled := func(cve string) bool {
			return slices.ContainsFunc(said[saying{base(h.key.Space), h.key.Name, cve}], func(o *hit) bool { return overrules(o, &hits[i]) })
		}
		if h.os && slices.ContainsFunc(h.flaws, overruled) {
			h.flaws = slices.DeleteFunc(slices.Clone(h.flaws), overruled)
			if len(h.flaws) == 0 {
				continue
			}
		}
		out = append(out, h)
	}
	return out
}

// overrules reports whether a is right where a and b say different things of
// one CVE. It holds for at most one of two records, so that they cannot both
// go.
func overrules(a, b *hit) bool {
	if pa, pb := a.standing(), b.standing(); pa != pb {
		return pa > pb
	}
	// Two feeds tell of one distribution, and one of them has not heard of the
	// repair.
	return a.adv.Feed != b.adv.Feed && a.key.Space == b.key.Space && a.names() && !b.names()
}

// standing says how near a record is to the package as it was built.
func (h *hit) standing() int {
	n := 0
	if h.denies && !ofOtherProduct(h.v.version, h.key.Space) {
		n += 4 // the distribution looked at it, and says no
	}
	if !h.affects && builtForStream(h.v.version, h.key.Space) {
		n += 2 // repaired in the very stream that the package comes from
	}
	if isDebianAdvisory(h.adv.ID) {
		n++ // names what was built for this release; the tracker may not
	}
	return n
}

// names reports whether the record names a repaired version.
func (h *hit) names() bool {
	for _, e := range h.entries {
		for _, r := range e.Ranges {
			if slices.ContainsFunc(r.Events, func(e gatehouse.RangeEvent) bool { return e.Fixed != "" }) {
				return true
			}
		}
	}
	return false
}

func base(space string) string {
	b, _, _ := strings.Cut(space, ":")
	return b
}

func isDebianAdvisory(id string) bool {
	return strings.HasPrefix(id, "DSA-") || strings.HasPrefix(id, "DLA-") || strings.HasPrefix(id, "DTSA-")
}

package match

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Comparison is one look at a package by one record that speaks of a flaw, told
// so that a person can follow it.
type Comparison struct {
	Package gatehouse.Package `json:"package"`
	Space   string            `json:"space"`   // where the record stands
	Name    string            `json:"name"`    // what the record calls the package
	Record  string            `json:"record"`  // id
	Feed    string            `json:"feed"`    // that published it
	Version string            `json:"version"` // of the package, as it was compared
	Ranges  []string          `json:"ranges"`  // "introduced 0, fixed 1.2.3"
	// Affected is the answer of this record alone.
	Affected bool   `json:"affected"`
	Rule     string `json:"rule"` // why, in words
}

// comparisonsMax bounds an explanation.
const comparisonsMax = 1000

// Explain tells what the records that call a flaw by one of these names say of
// the packages of one image. It says what was compared, not what was found: a
// record may be overruled by another one, see [Findings]. Errors are those of
// adv.
func Explain(ctx context.Context, distro gatehouse.Distro, pkgs []gatehouse.Package, adv Advisories, names []string) ([]Comparison, error) {
	var out []Comparison
	places := PlacesOf(distro)
	for _, p := range pkgs {
		for _, k := range places.Keys(p) {
			records, err := adv.For(ctx, k.Space, k.Name)
			if err != nil {
				return nil, err
			}
			for _, a := range records {
				if !called(a, names) {
					continue
				}
				if len(out) >= comparisonsMax {
					return out, nil
				}
				c, err := compare(p, k, a)
				if err != nil {
					return nil, err
				}
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// called reports whether a record speaks of a flaw by one of its names.
func called(a gatehouse.Advisory, names []string) bool {
	for _, n := range names {
		if a.ID == n || slices.Contains(a.Aliases, n) || slices.Contains(a.Upstream, n) || slices.Contains(a.Related, n) ||
			strings.HasSuffix(a.ID, "-"+n) && isCVE(n) {
			return true
		}
	}
	return false
}

func compare(p gatehouse.Package, k Key, a gatehouse.Advisory) (Comparison, error) {
	c := Comparison{Package: p, Space: k.Space, Name: k.Name, Record: a.ID, Feed: a.Feed, Version: comparedVersion(p, k), Ranges: []string{}}
	v, err := newInstalled(p, k)
	if err != nil {
		return c, err
	}
	var entries []gatehouse.Affected
	for _, e := range a.Affected {
		if e.Space == k.Space && e.Name == k.Name {
			entries = append(entries, e)
			c.Ranges = append(c.Ranges, rangesText(e)...)
		}
	}
	switch {
	case !a.Withdrawn.IsZero():
		c.Rule = "the record was withdrawn on " + a.Withdrawn.Format("2006-01-02")
	case len(flaws(a, p.OS())) == 0 && isBugFix(a.ID):
		c.Rule = "the record is a bug fix or an enhancement, no vulnerability"
	case c.Version == "":
		c.Rule = "the package has no version that can be compared"
	case v.unordered && !slices.ContainsFunc(entries, v.affects):
		c.Rule = fmt.Sprintf("%q is no version by the rules of %s", c.Version, v.order.Name())
	default:
		c.Affected, c.Rule = v.judge(a, entries)
	}
	return c, nil
}

// judge says what the entries of one record hold of v, by the rule that decides.
func (v *installed) judge(a gatehouse.Advisory, entries []gatehouse.Affected) (bool, string) {
	why := "the record has no entry for this package"
	for _, e := range entries {
		switch {
		case e.Informational != "":
			why = fmt.Sprintf("the record only informs (%s)", e.Informational)
		case e.Status == gatehouse.StatusNotAffected:
			why = "the publisher says that the package is not affected"
		case !v.concerns(topicNumber(a.ID), e):
			why = "the record speaks of another module stream, architecture or build of the package"
		case v.affects(e):
			if len(v.fixes(e)) == 0 {
				return true, strings.TrimSpace("affected, and no version that repairs it is known " + strings.ReplaceAll(e.Status, "_", " "))
			}
			return true, "affected, repaired in " + v.fixes(e)[0]
		default:
			why = v.outside(e)
		}
	}
	return false, why
}

// outside says on which side of the ranges v stands.
func (v *installed) outside(e gatehouse.Affected) string {
	for _, r := range e.Ranges {
		for _, ev := range r.Events {
			if ev.Fixed == "0" {
				return "the publisher says that no version is affected"
			}
			if ev.Fixed == "" {
				continue
			}
			if c, err := v.orderOf(r).Compare(v.version, ev.Fixed); err == nil && c >= 0 {
				return fmt.Sprintf("%s is repaired: it is not lower than %s", v.version, ev.Fixed)
			}
		}
	}
	return v.version + " is in none of the affected ranges"
}

// rangesText writes the ranges and versions of an entry as people read them.
func rangesText(e gatehouse.Affected) []string {
	var out []string
	for _, r := range e.Ranges {
		var parts []string
		for _, ev := range r.Events {
			for _, p := range []struct{ word, at string }{
				{"introduced", ev.Introduced}, {"fixed", ev.Fixed}, {"last affected", ev.LastAffected}, {"limit", ev.Limit},
			} {
				if p.at != "" {
					parts = append(parts, p.word+" "+p.at)
				}
			}
		}
		out = append(out, strings.Join(parts, ", "))
	}
	if n := len(e.Versions); n > 0 {
		const shown = 5
		text := "versions " + strings.Join(e.Versions[:min(n, shown)], ", ")
		if n > shown {
			text += fmt.Sprintf(" and %d more", n-shown)
		}
		out = append(out, text)
	}
	return out
}

// Package match says what is wrong with packages: packages and published
// advisories go in, findings come out. It is pure: the advisories are read
// through an interface that is handed in, the same input gives the same output
// in the same order, and nothing is logged or kept.
//
// The rules, each with its cases in testdata: operating system packages are
// compared by the name and version that their distribution's advisories speak
// of; records of the same flaw are folded into one finding, and a record that
// covers several CVEs gives one for each; what is withdrawn, informational or a
// bug fix is no finding; the severity is the distribution's own where it gives
// one, then GitHub's, then NVD's.
package match

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// Advisories is what matching asks of a store of advisories. Implementations
// are safe for concurrent use, and what they return must not be changed.
type Advisories interface {
	// For returns the records that speak of a package, in any order, each with
	// at least its Affected entries of that space and name. Texts (Details,
	// References) may be missing. None is no error.
	For(ctx context.Context, space, name string) ([]gatehouse.Advisory, error)
	// Named returns the records that are called id, or give it as an alias or
	// as their only upstream, whatever package they speak of, with ratings and
	// texts. Affected may be missing.
	Named(ctx context.Context, id string) ([]gatehouse.Advisory, error)
	// Covers reports whether the advisories of an OSV ecosystem with its
	// release ("Alpine:v3.10", "npm") are loaded at all: without them, no
	// finding means nothing.
	Covers(ctx context.Context, space string) (bool, error)
}

// FindingsMax bounds the findings of one image: packages at a hundred thousand
// paths, each with hundreds of flaws, are an attack.
const FindingsMax = 100_000

// Result is the answer for one image.
type Result struct {
	// Findings by severity, worst first and unknown last, then by package.
	Findings []gatehouse.Finding
	// Uncovered says, a sentence each, for which distribution or ecosystem no
	// advisories are loaded. An image with any is incomplete.
	Uncovered []string
	// Unmatched says, a sentence each, which single packages cannot be compared
	// with any advisory: no version, or one of another vendor.
	Unmatched []string
}

// Findings matches the packages of one image. Errors are those of adv, and
// CodeTooLarge for more than FindingsMax findings.
func Findings(ctx context.Context, distro gatehouse.Distro, pkgs []gatehouse.Package, adv Advisories) (Result, error) {
	m, places := NewMatcher(adv), PlacesOf(distro)
	covered := coverage{adv: adv, places: places, spaces: map[string]bool{}, reasons: map[string]bool{}}
	done := map[string][]gatehouse.Finding{}
	owners := ownersAt(places, pkgs)
	var out Result
	for _, p := range pkgs {
		if reported, err := owners.Reported(ctx, p, adv); err != nil {
			return Result{}, err
		} else if reported {
			continue
		}
		keys := places.Keys(p)
		if p.Name == "" {
			continue
		}
		if err := covered.check(ctx, p, keys); err != nil {
			return Result{}, err
		}
		if len(keys) == 0 {
			continue
		}
		id := identity(p, keys)
		found, known := done[id]
		if !known {
			var err error
			if found, err = m.Package(ctx, p, keys); err != nil {
				return Result{}, err
			}
			done[id] = found
		}
		if len(out.Findings)+len(found) > FindingsMax {
			return Result{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "there are more than %d findings", FindingsMax)
		}
		for _, f := range found {
			f.Package = p
			out.Findings = append(out.Findings, f)
		}
	}
	out.Uncovered, out.Unmatched = sortedKeys(covered.reasons), Unmatched(distro, pkgs)
	Sort(out.Findings)
	return out, nil
}

// Package is [Matcher.Package] for a single package.
func Package(ctx context.Context, p gatehouse.Package, keys []Key, adv Advisories) ([]gatehouse.Finding, error) {
	return NewMatcher(adv).Package(ctx, p, keys)
}

// Unmatched says, a sentence each, which of an image's packages no advisory can
// be compared with, whatever is loaded, and which of the repositories that it
// was built from nobody knows the advisories of. It is told beside the findings:
// nothing was found wrong with what nothing was compared with.
func Unmatched(distro gatehouse.Distro, pkgs []gatehouse.Package) []string {
	out, places := map[string]bool{}, PlacesOf(distro)
	owners := ownersAt(places, pkgs)
	for _, p := range pkgs {
		if owners.MayBeReported(p) {
			continue
		}
		if why := unmatchable(p, places.Keys(p), distro); why != "" {
			out[why] = true
		}
	}
	for _, name := range distro.ContentSets {
		if _, known := contentSet(name, "", ""); !known {
			out[fmt.Sprintf("the advisories for the repository %s, which the image names, are not known", name)] = true
		}
	}
	return sortedKeys(out)
}

// unmatchable says why no advisory can be compared with p, "" if one can:
// "golang example.test/app has no version that can be compared".
func unmatchable(p gatehouse.Package, keys []Key, distro gatehouse.Distro) string {
	if p.Name == "" {
		return fmt.Sprintf("a package of type %s has no name (%s)", p.Type, p.Path)
	}
	if p.Type == "rpm" && !ownVendor(p.Vendor, distro) {
		return fmt.Sprintf("%s %s is not from the distribution but from %s", p.Type, p.Name, p.Vendor)
	}
	if kernelText(p) {
		return fmt.Sprintf("%s %s holds text of the kernel, whose flaws are not in it", p.Type, p.Name)
	}
	for _, k := range keys {
		o, err := version.For(k.Space)
		if err == nil && o.Valid(comparedVersion(p, k)) != nil {
			return fmt.Sprintf("%s %s has no version that can be compared", p.Type, p.Name)
		}
	}
	return ""
}

// Sort puts findings in the order of reports: severity, worst first and unknown
// last, then package, path and id.
func Sort(list []gatehouse.Finding) {
	slices.SortStableFunc(list, func(a, b gatehouse.Finding) int {
		if a.Severity != b.Severity {
			return int(b.Severity) - int(a.Severity)
		}
		for _, pair := range [...][2]string{
			{a.Package.Name, b.Package.Name}, {a.Package.Version, b.Package.Version},
			{a.Package.Type, b.Package.Type}, {a.Package.Path, b.Package.Path}, {a.ID, b.ID},
		} {
			if c := strings.Compare(pair[0], pair[1]); c != 0 {
				return c
			}
		}
		return 0
	})
}

// identity is what of a package decides its findings: binary packages of one
// source and copies at many paths are matched once.
func identity(p gatehouse.Package, keys []Key) string {
	parts := []string{p.Type, p.Arch, stream(p.Modularity)}
	if p.Type == "rpm" {
		parts = append(parts, p.Version) // which says who built it, and for what
	}
	for _, k := range keys {
		parts = append(parts, k.Space, k.Name, comparedVersion(p, k))
	}
	return strings.Join(parts, "\x00")
}

// coverage collects for what no advisories are loaded.
type coverage struct {
	adv     Advisories
	places  Places
	spaces  map[string]bool // asked before
	reasons map[string]bool
}

func (c *coverage) check(ctx context.Context, p gatehouse.Package, keys []Key) error {
	if len(keys) == 0 {
		if why := c.unknown(p); why != "" {
			c.reasons[why] = true
		}
		return nil
	}
	for _, k := range keys {
		has, asked := c.spaces[k.Space]
		if !asked {
			var err error
			if has, err = c.adv.Covers(ctx, k.Space); err != nil {
				return err
			}
			c.spaces[k.Space] = has
		}
		if has {
			return nil // one of several repositories is enough to know the release
		}
	}
	c.reasons[fmt.Sprintf("no advisories for %s are loaded", keys[0].Space)] = true
	return nil
}

// unknown says why p has no key.
func (c *coverage) unknown(p gatehouse.Package) string {
	distro := c.places.distro
	switch {
	case !p.OS():
		return fmt.Sprintf("no advisories for packages of type %s are known", p.Type)
	case distro.ID == "":
		return fmt.Sprintf("the distribution of its %s packages is unknown", p.Type)
	case len(c.places.spaces) == 0:
		return fmt.Sprintf("no advisories for the distribution %s are known", strings.TrimSpace(distro.ID+" "+distro.VersionID))
	case !packages(distro, p.Type):
		return fmt.Sprintf("no advisories for %s packages on %s are known", p.Type, distro.ID)
	}
	return ""
}

func sortedKeys(set map[string]bool) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

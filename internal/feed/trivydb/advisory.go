package trivydb

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// advisoryBytesMax bounds one advisory's JSON; real ones stay below 100 KiB.
const advisoryBytesMax = 4 << 20

// advisory is a value in a package's bucket: what one publisher says of one
// package and one flaw. Distributions and languages fill different fields.
type advisory struct {
	VendorIDs    []string
	Status       int
	Severity     int
	Arches       []string
	FixedVersion string
	Entries      []struct {
		FixedVersion string
		Arches       []string
		Status       int
		VendorIDs    []string
		// Of Red Hat: the flaws that an erratum repairs, and the numbers of the
		// products that it is for.
		Cves []struct {
			ID       string
			Severity int
		}
		Affected []int
	}

	VulnerableVersions []string
	PatchedVersions    []string
	UnaffectedVersions []string
}

// statuses by number, as the database counts them; those that say nothing
// beside the version are "".
var statuses = [...]string{
	"", gatehouse.StatusNotAffected, gatehouse.StatusAffected, "", gatehouse.StatusUnderInvestigation,
	gatehouse.StatusWillNotFix, gatehouse.StatusFixDeferred, gatehouse.StatusEndOfLife,
}

func status(n int) string {
	if n < 0 || n >= len(statuses) {
		return ""
	}
	return statuses[n]
}

// said is what one value says, in our words. Many packages have equal values, so
// that it is shared and must not be changed.
type said struct {
	affected []gatehouse.Affected // without names; without spaces where spaces is nil
	spaces   [][]string           // of Red Hat's entries
	vendors  []string
	covers   []string // flaws
}

func parseAdvisory(value string, f format, products []string) (*said, error) {
	if len(value) > advisoryBytesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "it is longer than %d bytes", advisoryBytesMax)
	}
	var a advisory
	if err := json.Unmarshal([]byte(value), &a); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "it is malformed: %w", err)
	}
	out := &said{}
	for _, id := range a.VendorIDs {
		if err := field.Check("id", id, field.IDMax); err != nil {
			return nil, err
		}
		out.vendors = append(out.vendors, id)
	}
	var err error
	switch {
	case f == formatLanguage:
		err = out.language(a)
	case len(a.Entries) > 0:
		err = out.entries(a, f, products)
	case f == formatRedHat:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "it has no entries")
	default:
		err = out.add(a.FixedVersion, a.Status, a.Severity, a.Arches)
	}
	return out, err
}

func (s *said) language(a advisory) error {
	ranges, versions, err := affectedVersions(a.VulnerableVersions, a.PatchedVersions, a.UnaffectedVersions)
	if err != nil {
		return err
	}
	s.affected = append(s.affected, gatehouse.Affected{Ranges: ranges, Versions: versions})
	return nil
}

// entries reads advisories whose repaired versions differ by architecture, by
// flavour (Oracle's ksplice and FIPS builds) or by product.
func (s *said) entries(a advisory, f format, products []string) error {
	for _, e := range a.Entries {
		rated := 0 // where all of its flaws are rated the same
		for i, c := range e.Cves {
			if err := field.Check("id", c.ID, field.IDMax); err != nil {
				return err
			}
			if c.ID != "" && !slices.Contains(s.covers, c.ID) {
				s.covers = append(s.covers, c.ID)
			}
			if i == 0 {
				rated = c.Severity
			} else if c.Severity != rated {
				rated = 0
			}
		}
		if f == formatRedHat {
			spaces := productSpaces(e.Affected, products)
			if len(spaces) == 0 {
				continue // for products of nobody's image
			}
			s.spaces = append(s.spaces, spaces)
		}
		if err := s.add(e.FixedVersion, e.Status, rated, e.Arches); err != nil {
			return err
		}
		for _, id := range e.VendorIDs {
			if err := field.Check("id", id, field.IDMax); err != nil {
				return err
			}
			if !slices.Contains(s.vendors, id) {
				s.vendors = append(s.vendors, id)
			}
		}
	}
	return nil
}

// add adds what is affected up to a repaired version, or altogether.
func (s *said) add(fixed string, st, rated int, arches []string) error {
	if err := field.Check("version", fixed, field.NameMax); err != nil {
		return err
	}
	for _, arch := range arches {
		if err := field.Check("architecture", arch, field.IDMax); err != nil {
			return err
		}
	}
	one := gatehouse.Affected{Ranges: []gatehouse.Range{everything()}, Severity: severity(rated), Arches: arches}
	if fixed != "" {
		one.Ranges[0].Events = append(one.Ranges[0].Events, gatehouse.RangeEvent{Fixed: fixed})
	} else {
		one.Status = status(st)
	}
	s.affected = append(s.affected, one)
	return nil
}

// repositories of one product, in the order of which stands for the others:
// whoever reads one of them reads all, and an erratum is for all that hold its
// packages.
var repositories = []string{"baseos", "appstream", "crb", "", "server", "workstation", "client", "computenode"}

// productSpaces returns the ecosystems of numbered products, one for each product
// whatever number of its repositories are named.
func productSpaces(numbers []int, products []string) []string {
	byProduct := map[string][]string{} // → repositories
	for _, n := range numbers {
		if n < 0 || n >= len(products) || products[n] == "" {
			continue
		}
		product, repository, _ := strings.Cut(products[n], "::")
		byProduct[product] = append(byProduct[product], repository)
	}
	var out []string
	for product, list := range byProduct {
		at := slices.IndexFunc(repositories, func(r string) bool { return slices.Contains(list, r) })
		if at >= 0 {
			list = repositories[at : at+1]
		}
		for _, repository := range list {
			space := product
			if repository != "" {
				space += "::" + repository
			}
			out = append(out, space)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

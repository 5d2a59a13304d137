package index

import (
	"fmt"
	"slices"
	"strings"
)

// Analysis is what a walk looks for. The zero Analysis finds nothing; [All] is
// what a registry looks for. It may be used by several walks at once.
type Analysis struct {
	// Extractors read packages; the first that wants a path gets it.
	Extractors []Extractor
	// Inspectors look at files as their bytes pass; all that want a file get
	// it, whether or not an extractor reads it as well.
	Inspectors []Inspector
	// Skip names what is not looked at.
	Skip Skip
}

// All returns everything there is to look for.
func All() Analysis { return Analysis{Extractors: Extractors(), Inspectors: Inspectors()} }

// Packages looks for packages only.
func Packages() Analysis { return Analysis{Extractors: Extractors()} }

// Source returns [All] for directories with source code: lock files are read as
// well.
func Source() Analysis { return Analysis{Extractors: SourceExtractors(), Inspectors: Inspectors()} }

// Version names everything that the answer for equal bytes depends on, other
// than limits. Inventories of different versions are not comparable; it becomes
// [gatehouse.LayerInventory].Indexer.
func (a Analysis) Version() string {
	var b strings.Builder
	fmt.Fprintf(&b, "gatehouse/%d", walkVersion)
	for _, e := range a.Extractors {
		fmt.Fprintf(&b, " %s/%d", e.Name(), e.Version())
	}
	for _, i := range a.Inspectors {
		fmt.Fprintf(&b, " %s/%d", i.Name(), i.Version())
	}
	if s := a.Skip.String(); s != "" {
		b.WriteString(" skip " + s)
	}
	return b.String()
}

// Without returns a without the inspectors of these names.
func (a Analysis) Without(inspectors ...string) Analysis {
	var kept []Inspector
	for _, i := range a.Inspectors {
		if !slices.Contains(inspectors, i.Name()) {
			kept = append(kept, i)
		}
	}
	a.Inspectors = kept
	return a
}

// walkVersion changes when the walk itself would give another answer for equal
// bytes and an equal Analysis.
const walkVersion = 3

package index_test

import (
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// TestStack: one heavy layer after the other is taken until they are too heavy
// together; the largest that a layer can be fits alone.
func TestStack(t *testing.T) {
	heavy := gatehouse.LayerInventory{Sets: []gatehouse.PackageSet{{Packages: make([]gatehouse.Package, 200_000)}}, Paths: make([]byte, 16<<20)}
	var s index.Stack
	taken := 0
	for s.Next() == nil && taken < 1000 {
		s.Add(heavy)
		taken++
	}
	if taken < 2 || taken > 10 || gatehouse.CodeOf(s.Next()) != gatehouse.CodeTooLarge {
		t.Errorf("%d heavy layers were taken", taken)
	}
	s, taken = index.Stack{}, 0
	for s.Next() == nil && taken < 1000 {
		s.Add(gatehouse.LayerInventory{})
		taken++
	}
	if taken != 512 {
		t.Errorf("%d empty layers were taken", taken)
	}
}

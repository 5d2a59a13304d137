package index

import "github.com/gatehouse-dev/gatehouse"

// An image may name as many layers as a manifest holds, the same one again and
// again, and each may have as much in its inventory as the limits of a layer allow.
// So that one image cannot take all memory, its layers are weighed before they are
// laid over each other.
const (
	// layersMax is the most layers of an image; overlayfs takes 500.
	layersMax = 512
	// stackMax bounds the inventories of all layers together, in bytes.
	stackMax = 512 * mib
)

// Stack weighs the layers of one image. The zero Stack is ready for use.
type Stack struct {
	layers int
	bytes  int64
}

// Next counts a layer that is about to be read. Errors: CodeTooLarge when there are
// too many, or when those before it fill the stack: the layer is then to be left
// out of what [Compose] gets, and told.
func (s *Stack) Next() error {
	if s.layers++; s.layers > layersMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has more than %d layers", layersMax)
	}
	if s.bytes > stackMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the image's layers hold more than %d bytes of packages, findings and paths", stackMax)
	}
	return nil
}

// Add weighs a layer that was read.
func (s *Stack) Add(l gatehouse.LayerInventory) { s.bytes += weight(l) }

// weight estimates what it takes to keep l and to go through it.
func weight(l gatehouse.LayerInventory) int64 {
	const perPackage, perSet, perFinding, perFile, perPath, perPathByte = 512, 256, 1024, 256, 128, 8
	n := perSet*len(l.Sets) + perFinding*len(l.Findings) + perFile*len(l.Files) + perPathByte*len(l.Paths) +
		perPath*(len(l.Whiteouts)+len(l.Opaques)+len(l.Replaced)+len(l.Licenses))
	for _, s := range l.Sets {
		n += perPackage * len(s.Packages)
	}
	return int64(n)
}

package index

import (
	"cmp"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// HiddenSet names a set that upper layers hide: Set is its index in
// layers[Layer].Sets.
type HiddenSet struct {
	Layer int
	Set   int
}

// Hidden returns the sets that do not show in the image made of layers, lowest
// layer first. It is a pure function of the layers' lists (image-spec layer.md,
// "Applying Changesets"): a set is hidden when a layer above it
//
//   - has a set at its path: last writer wins;
//   - deletes it or a directory above it (whiteout);
//   - makes a directory above it, or its own path, opaque;
//   - puts something that is not a directory at its path or above it.
//
// Result is in order of Layer, then Set.
func Hidden(layers []gatehouse.LayerInventory) []HiddenSet {
	var hidden []HiddenSet
	over := cover{at: map[string]bool{}, below: map[string]bool{}}
	for i := len(layers) - 1; i >= 0; i-- {
		for j, set := range layers[i].Sets {
			if over.hides(set.Path) {
				hidden = append(hidden, HiddenSet{Layer: i, Set: j})
			}
		}
		over.add(layers[i])
	}
	slices.SortFunc(hidden, func(a, b HiddenSet) int {
		return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Set, b.Set))
	})
	return hidden
}

// cover is what the layers looked at so far hide of those below them.
type cover struct {
	at    map[string]bool // hidden themselves, and everything below
	below map[string]bool // opaque: everything below; a file there is none any more
	all   bool            // the root is opaque
}

func (c *cover) add(l gatehouse.LayerInventory) {
	for _, p := range l.Whiteouts {
		c.at[p] = true
	}
	for _, p := range l.Replaced {
		c.at[p] = true
	}
	for _, s := range l.Sets {
		c.at[s.Path] = true
	}
	for _, p := range l.Opaques {
		c.below[p] = true
		c.all = c.all || p == ""
	}
}

func (c *cover) hides(path string) bool {
	if c.all || c.at[path] || c.below[path] {
		return true
	}
	for dir := range parents(path) {
		if c.at[dir] || c.below[dir] {
			return true
		}
	}
	return false
}

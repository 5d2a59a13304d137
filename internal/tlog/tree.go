package tlog

import (
	"fmt"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/gatehouse-dev/gatehouse"
)

// Hash is a SHA-256 of a leaf or a node, as RFC 6962 section 2.1 makes them.
type Hash = merkle.Hash

// Tree is a tree: how many leaves it has, and its root.
type Tree = merkle.Tree

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// LeafHash is the hash of the leaf that an entry makes.
func LeafHash(entry []byte) Hash { return merkle.RecordHash(entry) }

// emptyTree is the tree without leaves.
func emptyTree() Tree {
	h, err := merkle.TreeHash(0, nil)
	if err != nil {
		panic(err) // it reads nothing
	}
	return Tree{N: 0, Hash: h}
}

// edge is the right edge of a tree: at each level the hashes of the tile that is
// not full. It is all that is needed to let the tree grow.
type edge struct {
	size   int64
	levels [][]Hash
}

// hashTile is a tile of hashes.
type hashTile struct {
	level  int
	index  int64
	hashes []Hash
}

func (t hashTile) bytes() []byte {
	out := make([]byte, 0, len(t.hashes)*merkle.HashSize)
	for _, h := range t.hashes {
		out = append(out, h[:]...)
	}
	return out
}

// append lets the tree grow and returns every tile that changed, each once and as
// it is afterwards: full ones first.
func (e *edge) append(leaves []Hash) (changed []hashTile) {
	touched := 0 // levels below this one changed
	for _, leaf := range leaves {
		h := leaf
		for level := 0; ; level++ {
			touched = max(touched, level+1)
			if level == len(e.levels) {
				e.levels = append(e.levels, nil)
			}
			e.levels[level] = append(e.levels[level], h)
			if len(e.levels[level]) < tileWidth {
				break
			}
			changed = append(changed, hashTile{level, e.size >> (tileHeight * (level + 1)), e.levels[level]})
			h = subtree(e.levels[level])
			e.levels[level] = nil
		}
		e.size++
	}
	for level := range touched {
		if hashes := e.levels[level]; len(hashes) > 0 {
			changed = append(changed, hashTile{level, e.size >> (tileHeight * (level + 1)), append([]Hash(nil), hashes...)})
		}
	}
	return changed
}

// tree returns the tree: RFC 6962 splits it into the complete subtrees of its
// edge, the largest on the left, which are joined from the right.
func (e *edge) tree() Tree {
	var parts []Hash
	for level := len(e.levels) - 1; level >= 0; level-- {
		rest := e.levels[level]
		for width := tileWidth / 2; width > 0; width /= 2 {
			if len(rest) >= width {
				parts = append(parts, subtree(rest[:width]))
				rest = rest[width:]
			}
		}
	}
	if len(parts) == 0 {
		return emptyTree()
	}
	root := parts[len(parts)-1]
	for i := len(parts) - 2; i >= 0; i-- {
		root = merkle.NodeHash(parts[i], root)
	}
	return Tree{N: e.size, Hash: root}
}

// subtree is the root over as many hashes as a power of two.
func subtree(hashes []Hash) Hash {
	row := append([]Hash(nil), hashes...)
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = merkle.NodeHash(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

// loadEdge reads the right edge of a tree, tile by tile, and checks that it is
// that of the tree. CodeDamaged: it is not, so that what is stored is damaged.
func loadEdge(tree Tree, read func(Tile) ([]byte, error)) (*edge, error) {
	e := &edge{size: tree.N}
	for level := 0; tree.N>>(tileHeight*level) > 0; level++ {
		width := int(tree.N >> (tileHeight * level) & (tileWidth - 1))
		e.levels = append(e.levels, nil)
		if width == 0 {
			continue
		}
		t := Tile{Level: level, Index: tree.N >> (tileHeight * (level + 1)), Width: width}
		data, err := read(t)
		if err != nil {
			return nil, err
		}
		if len(data) != width*merkle.HashSize {
			return nil, damaged("%s has %d bytes, not %d", t.Path(), len(data), width*merkle.HashSize)
		}
		for i := range width {
			e.levels[level] = append(e.levels[level], Hash(data[i*merkle.HashSize:(i+1)*merkle.HashSize]))
		}
	}
	if got := e.tree(); got.Hash != tree.Hash {
		return nil, damaged("the tiles of the tree of %d entries have the root %s, not %s", tree.N, got.Hash, tree.Hash)
	}
	return e, nil
}

func damaged(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeDamaged, "the transparency log is damaged: %s", fmt.Sprintf(format, args...))
}

package tlog

import "context"

// Edge is the right edge of a tree, for tests.
type Edge struct{ e edge }

// Append adds leaves and hands over the tiles that changed.
func (e *Edge) Append(leaves []Hash, each func(Tile, []byte)) Tree {
	for _, t := range e.e.append(leaves) {
		each(Tile{t.level, t.index, len(t.hashes)}, t.bytes())
	}
	return e.e.tree()
}

// LoadEdge loads the edge of a tree.
func LoadEdge(tree Tree, read func(Tile) ([]byte, error)) (*Edge, error) {
	e, err := loadEdge(tree, read)
	if err != nil {
		return nil, err
	}
	return &Edge{*e}, nil
}

// SetHook calls hook between the steps of the sequencer.
func (l *Log) SetHook(hook func(ctx context.Context, step string)) { l.hook = hook }

// ParseBundle splits a bundle.
var ParseBundle = parseBundle

// AppendEntry writes one entry of a bundle.
var AppendEntry = appendEntry

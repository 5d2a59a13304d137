package tlog

import (
	"context"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
)

// Copy copies a log into a directory and proves it on the way: the hash tiles are
// computed from the entries, and their root must be that of the signed
// checkpoint. What the directory holds of an earlier copy is not read again from
// the source, but its entries must be those that the new checkpoint covers. The
// checkpoint is written last, so that a copy that broke off is an earlier copy.
// progress may be nil.
//
// CodeDenied: the checkpoint is not signed by the log, the entries do not give
// its root, or the tree does not begin with the one that was copied before.
func Copy(ctx context.Context, from Source, to Dir, log note.Verifier, progress func(done, of int64)) (Checkpoint, error) {
	signed, err := from.Checkpoint(ctx)
	if err != nil {
		return Checkpoint{}, err
	}
	c, _, err := OpenCheckpoint(signed, log.Name(), log)
	if err != nil {
		return c, err
	}
	e, err := startOfCopy(ctx, from, to, log, c.Tree)
	if err != nil {
		return c, err
	}
	if err := walk(ctx, from, e, c.Tree, func(t Tile, data []byte) error {
		if progress != nil && t.Level == EntriesLevel {
			progress(t.Index*tileWidth+int64(t.Width), c.Tree.N)
		}
		return to.write(t.Path(), data)
	}); err != nil {
		return c, err
	}
	return c, to.write("checkpoint", signed)
}

// startOfCopy returns the edge from which a copy goes on.
func startOfCopy(ctx context.Context, from Source, to Dir, log note.Verifier, tree Tree) (*edge, error) {
	signed, err := to.Checkpoint(ctx)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return &edge{}, nil
	}
	if err != nil {
		return nil, err
	}
	before, _, err := OpenCheckpoint(signed, log.Name(), log)
	if err != nil {
		return nil, err
	}
	if _, err := Consistency(ctx, from, before.Tree, tree); err != nil {
		return nil, err
	}
	// From the beginning of the bundle that was not full.
	whole := &edge{size: before.Tree.N &^ (tileWidth - 1)}
	e, err := loadEdge(before.Tree, func(t Tile) ([]byte, error) { return to.Tile(ctx, t) })
	if err != nil {
		return nil, err
	}
	if whole.levels = e.levels; len(whole.levels) > 0 {
		whole.levels[0] = nil
	}
	return whole, nil
}

// Check reads the whole log and proves that its entries give its tree, and that
// its hash tiles are those that its entries give. CodeDenied: they are not.
func Check(ctx context.Context, from Source, tree Tree) error {
	return walk(ctx, from, &edge{}, tree, func(t Tile, data []byte) error {
		if t.Level == EntriesLevel {
			return nil
		}
		has, err := from.Tile(ctx, t)
		if err == nil && string(has) != string(data) {
			err = gatehouse.Errorf(gatehouse.CodeDenied, "%s does not have the hashes of the entries", t.Path())
		}
		return err
	})
}

// walk reads the entries from the edge on, bundle by bundle, and hands over each
// bundle and each tile that they give. In the end the tree must be tree.
func walk(ctx context.Context, from Source, e *edge, tree Tree, each func(Tile, []byte) error) error {
	for e.size < tree.N {
		t := Tile{Level: EntriesLevel, Index: e.size / tileWidth, Width: int(min(tileWidth, tree.N-e.size))}
		bundle, err := from.Tile(ctx, t)
		if err != nil {
			return err
		}
		entries, err := parseBundle(bundle, t.Width)
		if err != nil {
			return err
		}
		if err := each(t, bundle); err != nil {
			return err
		}
		leaves := make([]Hash, len(entries))
		for i, entry := range entries {
			leaves[i] = LeafHash(entry)
		}
		for _, h := range e.append(leaves) {
			if len(h.hashes) < tileWidth {
				continue // it may still grow
			}
			if err := each(Tile{h.level, h.index, tileWidth}, h.bytes()); err != nil {
				return err
			}
		}
	}
	if err := e.rest(each); err != nil {
		return err
	}
	if got := e.tree(); got.Hash != tree.Hash {
		return gatehouse.Errorf(gatehouse.CodeDenied, "the %d entries have the root %s, and the checkpoint says %s", tree.N, got.Hash, tree.Hash)
	}
	return nil
}

// rest hands over the tiles that are not full.
func (e *edge) rest(each func(Tile, []byte) error) error {
	for level, hashes := range e.levels {
		if len(hashes) == 0 {
			continue
		}
		h := hashTile{level, e.size >> (tileHeight * (level + 1)), hashes}
		if err := each(Tile{h.level, h.index, len(h.hashes)}, h.bytes()); err != nil {
			return err
		}
	}
	return nil
}

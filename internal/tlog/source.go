package tlog

import (
	"context"
	"errors"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/gatehouse-dev/gatehouse"
)

// Source is where a log is read, laid out as C2SP tlog-tiles has it: this log's
// rows ([Log]), a server ([HTTP]), a directory ([Dir]). What it returns is not to
// be trusted before it has been compared with a signed checkpoint.
type Source interface {
	// Checkpoint returns the newest signed checkpoint. CodeNotFound: there is none.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Tile returns the content of a tile, which is of the width that was asked
	// for. CodeNotFound: there is none, or it is not as wide.
	Tile(ctx context.Context, t Tile) ([]byte, error)
}

// Aged is a source that tells when its checkpoint came out.
type Aged interface {
	// CheckpointAt is Checkpoint with the time, the zero time where it is not known.
	CheckpointAt(ctx context.Context) (signed []byte, at time.Time, err error)
}

// Inclusion proves that the tree of a source has the leaf at index. Everything
// that it reads is checked against the root of the tree.
func Inclusion(ctx context.Context, from Source, tree Tree, index int64) (proof []Hash, leaf Hash, err error) {
	if index < 0 || index >= tree.N {
		return nil, leaf, gatehouse.Errorf(gatehouse.CodeNotFound, "the log has %d entries, and none with the index %d", tree.N, index)
	}
	read := merkle.TileHashReader(tree, tiles{ctx, from})
	hashes, err := read.ReadHashes([]int64{merkle.StoredHashIndex(0, index)})
	if err != nil {
		return nil, leaf, unproven(err)
	}
	proof, err = merkle.ProveRecord(tree.N, index, read)
	return proof, hashes[0], unproven(err)
}

// Consistency proves that the new tree of a source begins with the old one.
// CodeDenied: it does not, or what the source has does not fit the new tree.
func Consistency(ctx context.Context, from Source, old, new Tree) (proof []Hash, err error) {
	switch {
	case old.N > new.N:
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "the log has shrunk from %d to %d entries", old.N, new.N)
	case old.N == new.N && old.Hash != new.Hash:
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "the log has two trees of %d entries, with the roots %s and %s", old.N, old.Hash, new.Hash)
	case old.N == 0 || old.N == new.N:
		return nil, nil
	}
	proof, err = merkle.ProveTree(new.N, old.N, merkle.TileHashReader(new, tiles{ctx, from}))
	if err != nil {
		return nil, unproven(err)
	}
	return proof, CheckConsistency(proof, old, new)
}

// CheckConsistency checks a proof that the new tree begins with the old one.
// CodeDenied: it proves nothing like that.
func CheckConsistency(proof []Hash, old, new Tree) error {
	bad := old.N > new.N
	switch {
	case bad:
	case old.N == 0:
		bad = len(proof) != 0
	case old.N == new.N:
		bad = len(proof) != 0 || old.Hash != new.Hash
	default:
		bad = merkle.CheckTree(proof, new.N, new.Hash, old.N, old.Hash) != nil
	}
	if bad {
		return gatehouse.Errorf(gatehouse.CodeDenied, "the tree of %d entries is not shown to begin with the one of %d entries that was seen before", new.N, old.N)
	}
	return nil
}

// CheckInclusion checks a proof that a leaf is at index in a tree.
func CheckInclusion(proof []Hash, tree Tree, index int64, leaf Hash) error {
	if index < 0 || index >= tree.N || merkle.CheckRecord(proof, tree.N, tree.Hash, index, leaf) != nil {
		return gatehouse.Errorf(gatehouse.CodeDenied, "the entry is not shown to be at index %d of the tree of %d entries", index, tree.N)
	}
	return nil
}

// unproven is the error of a proof that could not be made: errors of the source
// are passed on, any other means that its tiles do not fit the tree.
func unproven(err error) error {
	var ge *gatehouse.Error
	if err == nil || errors.As(err, &ge) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "the tiles do not fit the checkpoint: %w", err)
}

// tiles is a source in the words of x/mod, which has data tiles at level -1 as
// well, but reads none.
type tiles struct {
	ctx  context.Context // of the one call that reads
	from Source
}

// Height implements merkle.TileReader.
func (tiles) Height() int { return tileHeight }

// ReadTiles implements merkle.TileReader.
func (t tiles) ReadTiles(list []merkle.Tile) ([][]byte, error) {
	out := make([][]byte, len(list))
	for i, m := range list {
		var err error
		if out[i], err = t.from.Tile(t.ctx, Tile{Level: m.L, Index: m.N, Width: m.W}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// SaveTiles implements merkle.TileReader.
func (tiles) SaveTiles([]merkle.Tile, [][]byte) {}

// prove is [Consistency] for an old tree whose root is not known here.
func prove(ctx context.Context, from Source, size int64, tree Tree) ([]Hash, error) {
	proof, err := merkle.ProveTree(tree.N, size, merkle.TileHashReader(tree, tiles{ctx, from}))
	return proof, unproven(err)
}

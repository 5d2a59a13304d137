package tlog_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// TestOracle: Tessera's client reads the tiles, finds each entry included, each
// tree consistent with those before, and the entries what was added.
func TestOracle(t *testing.T) {
	h := start(t, tlog.Options{Interval: time.Millisecond})
	ctx := t.Context()
	var trees []tlog.Tree
	added := map[string]int64{}
	var mu sync.Mutex
	for round := range 6 {
		var wg sync.WaitGroup
		for i := range 130 {
			wg.Go(func() {
				entry := fmt.Appendf(nil, "entry %d of round %d %s", i, round, bytes.Repeat([]byte("x"), i*7))
				in, err := h.AddAndWait(ctx, entry)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				added[string(entry)] = in.Index
			})
		}
		wg.Wait()
		trees = append(trees, h.checkpoint().Tree)
	}
	last := trees[len(trees)-1]
	if last.N != 6*130 || int(last.N) != len(added) {
		t.Fatalf("%d entries in the tree, %d added", last.N, len(added))
	}
	readTile := func(ctx context.Context, level, index uint64, p uint8) ([]byte, error) {
		width := int(p)
		if p == 0 {
			width = 256
		}
		return h.Tile(ctx, tlog.Tile{Level: int(level), Index: int64(index), Width: width})
	}
	h.proves(readTile, trees, added)
	h.hasEntries(last, added)
	for _, tile := range []tlog.Tile{{Level: 0, Index: 3, Width: 13}, {Level: 0, Index: 3, Width: 256}, {Level: 0, Index: 4, Width: 1},
		{Level: 1, Index: 0, Width: 4}, {Level: 5, Index: 0, Width: 1}, {Level: -1, Index: 3, Width: 13}, {Level: -1, Index: 1 << 61, Width: 256}} {
		if _, err := h.Tile(ctx, tile); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("%s: %v", tile.Path(), err)
		}
	}
	if err := tlog.Check(ctx, h, last); err != nil {
		t.Error(err)
	}
}

// proves has Tessera's client prove each entry and each tree in the last one.
func (h *harness) proves(readTile client.TileFetcherFunc, trees []tlog.Tree, added map[string]int64) {
	t, ctx, last := h.t, h.t.Context(), trees[len(trees)-1]
	t.Helper()
	prover, err := client.NewProofBuilder(ctx, uint64(last.N), readTile)
	if err != nil {
		t.Fatal(err)
	}
	for entry, index := range added {
		hashes, err := prover.InclusionProof(ctx, uint64(index))
		if err != nil {
			t.Fatal(err)
		}
		leaf := rfc6962.DefaultHasher.HashLeaf([]byte(entry))
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), uint64(last.N), leaf, hashes, last.Hash[:]); err != nil {
			t.Fatalf("entry %d: %v", index, err)
		}
	}
	for _, old := range trees {
		hashes, err := prover.ConsistencyProof(ctx, uint64(old.N), uint64(last.N))
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old.N), uint64(last.N), hashes, old.Hash[:], last.Hash[:]); err != nil {
			t.Errorf("from %d: %v", old.N, err)
		}
		if _, err := tlog.Consistency(ctx, h, old, last); err != nil {
			t.Errorf("from %d: %v", old.N, err)
		}
		forged := old
		forged.Hash[0] ^= 1
		if _, err := tlog.Consistency(ctx, h, forged, last); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			t.Errorf("from another tree of %d: %v", old.N, err)
		}
	}
}

// hasEntries has Tessera's client read the entries.
func (h *harness) hasEntries(last tlog.Tree, added map[string]int64) {
	t, ctx := h.t, h.t.Context()
	t.Helper()
	for n := int64(0); n*256 < last.N; n++ {
		width := min(256, last.N-n*256)
		bundle, err := client.GetEntryBundle(ctx, func(ctx context.Context, index uint64, p uint8) ([]byte, error) {
			return h.Tile(ctx, tlog.Tile{Level: tlog.EntriesLevel, Index: int64(index), Width: int(width)})
		}, uint64(n), uint64(last.N))
		if err != nil || len(bundle.Entries) != int(width) {
			t.Fatalf("bundle %d: %d entries %v", n, len(bundle.Entries), err)
		}
		for i, entry := range bundle.Entries {
			if index, ok := added[string(entry)]; !ok || index != n*256+int64(i) {
				t.Fatalf("entry %d is %q", n*256+int64(i), entry)
			}
		}
	}
}

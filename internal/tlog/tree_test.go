package tlog_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// stored is a tree as x/mod keeps it: all hashes, by their index.
type stored []merkle.Hash

func (s *stored) add(t *testing.T, n int64, leaf merkle.Hash) {
	t.Helper()
	hashes, err := merkle.StoredHashesForRecordHash(n, leaf, *s)
	if err != nil {
		t.Fatal(err)
	}
	*s = append(*s, hashes...)
}

func (s stored) ReadHashes(indexes []int64) ([]merkle.Hash, error) {
	out := make([]merkle.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(s)) {
			return nil, fmt.Errorf("no hash %d", x)
		}
		out[i] = s[x]
	}
	return out, nil
}

// TestTreeIsThatOfXMod: whatever the batches are, the root is that of x/mod's
// own tree at each size, and the tiles are those that it lists and cuts.
func TestTreeIsThatOfXMod(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int64{700, 70_000} {
		var want stored
		var e tlog.Edge
		tiles := map[tlog.Tile][]byte{}
		for size := int64(0); size < most; {
			batch := 1 + random.Int64N(most/40)
			if random.IntN(4) == 0 {
				batch = 256 - size%256 // to the end of a tile
			}
			var leaves []tlog.Hash
			for i := range batch {
				leaf := tlog.LeafHash(fmt.Append(nil, "entry ", size+i))
				want.add(t, size+i, leaf)
				leaves = append(leaves, leaf)
			}
			changed := map[tlog.Tile][]byte{}
			tree := e.Append(leaves, func(tile tlog.Tile, data []byte) {
				changed[tile] = data
				tiles[tlog.Tile{Level: tile.Level, Index: tile.Index, Width: 0}] = data
			})
			for _, m := range merkle.NewTiles(8, size, size+batch) {
				data, err := merkle.ReadTileData(m, want)
				if err != nil {
					t.Fatal(err)
				}
				if got := changed[tlog.Tile{Level: m.L, Index: m.N, Width: m.W}]; !bytes.Equal(got, data) {
					t.Fatalf("from %d to %d: tile %s differs", size, size+batch, m.Path())
				}
			}
			size += batch
			root, err := merkle.TreeHash(size, want)
			if err != nil || tree != (tlog.Tree{N: size, Hash: root}) {
				t.Fatalf("%d entries: tree %v, want %v %v", size, tree, root, err)
			}
			again, err := tlog.LoadEdge(tree, func(tile tlog.Tile) ([]byte, error) {
				data := tiles[tlog.Tile{Level: tile.Level, Index: tile.Index}]
				return data[:min(len(data), tile.Width*32)], nil
			})
			if err != nil {
				t.Fatalf("%d entries: %v", size, err)
			}
			e = *again
		}
	}
}

// TestDamagedEdge: a tree does not grow from tiles that are not its own.
func TestDamagedEdge(t *testing.T) {
	var e tlog.Edge
	var tile []byte
	tree := e.Append([]tlog.Hash{{1}, {2}, {3}}, func(_ tlog.Tile, data []byte) { tile = data })
	for name, data := range map[string][]byte{
		"changed": append([]byte{9}, tile[1:]...), "short": tile[:64], "long": append(tile[:96:96], tile[:32]...), "gone": nil,
	} {
		_, err := tlog.LoadEdge(tree, func(tlog.Tile) ([]byte, error) { return data, nil })
		if gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTilePaths(t *testing.T) {
	for path, want := range map[string]tlog.Tile{
		"tile/0/000":                  {Level: 0, Index: 0, Width: 256},
		"tile/63/x001/x234/067.p/255": {Level: 63, Index: 1234067, Width: 255},
		"tile/entries/x001/000.p/1":   {Level: tlog.EntriesLevel, Index: 1000, Width: 1},
	} {
		got, err := tlog.ParseTile(path)
		if err != nil || got != want || want.Path() != path {
			t.Errorf("%s: %+v %v; %s", path, got, err, want.Path())
		}
	}
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/0000", "tile/0/x000/001", "tile/00/001", "tile/64/000", "tile/-1/000", "tile/+1/000",
		"tile/0/001.p/0", "tile/0/001.p/256", "tile/0/001.p/01", "tile/0/001.p/", "tile/0/001.p/5/", "tile/0/001/", "tile//001", "tile/0/x001", "tile/0/1x1",
		"tile/0/xx01/001", "tile/8/0/000", "tile/entries/001.p/5.p/5", "tile/0/x999/x999/x999/x999/x999/x999/x999/999", "TILE/0/000", "tile/0/000 ",
	} {
		if got, err := tlog.ParseTile(path); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%q is taken for %+v (%v)", path, got, err)
		}
	}
}

func FuzzParseTile(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/255")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, path string) {
		tile, err := tlog.ParseTile(path)
		if err == nil && (tile.Path() != path || tile.Index < 0 || tile.Width < 1 || tile.Width > 256 || tile.Level < -1 || tile.Level > 63) {
			t.Fatalf("%q became %+v, which is %q", path, tile, tile.Path())
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0}, 2)
	f.Fuzz(func(t *testing.T, bundle []byte, n int) {
		entries, err := tlog.ParseBundle(bundle, n&0x1ff)
		if err != nil {
			return
		}
		var again []byte
		for _, entry := range entries {
			again = tlog.AppendEntry(again, entry)
		}
		if !bytes.Equal(again, bundle) || len(entries) != n&0x1ff {
			t.Fatalf("%x became %d entries, which are %x", bundle, len(entries), again)
		}
	})
}

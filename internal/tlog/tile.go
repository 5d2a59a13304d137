package tlog

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// EntryMax is the size of the largest entry, in bytes: C2SP tlog-tiles counts
// them in 16 bits.
const EntryMax = 1<<16 - 1

// Tile names a tile, as C2SP tlog-tiles does.
type Tile struct {
	Level int // 0 to 63; EntriesLevel: a bundle of entries
	Index int64
	Width int // how many hashes or entries; 256 is a full tile
}

// EntriesLevel is the level of tiles that hold entries.
const EntriesLevel = -1

const levelMax = 63

// Full reports whether the tile has all that it will ever have.
func (t Tile) Full() bool { return t.Width == tileWidth }

// Path returns the path of the tile below the URL of the log, without a slash in
// front: "tile/0/x001/234.p/5".
func (t Tile) Path() string {
	level := "entries"
	if t.Level != EntriesLevel {
		level = strconv.Itoa(t.Level)
	}
	n := fmt.Sprintf("%03d", t.Index%1000)
	for rest := t.Index / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	if t.Full() {
		return "tile/" + level + "/" + n
	}
	return "tile/" + level + "/" + n + ".p/" + strconv.Itoa(t.Width)
}

// ParseTile reads what [Tile.Path] writes, and nothing else. Errors: CodeInvalid.
func ParseTile(path string) (Tile, error) {
	t := Tile{Width: tileWidth}
	bad := func() (Tile, error) {
		return Tile{}, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no path of a tile").
			WithHint("tiles are at tile/LEVEL/N, tile/LEVEL/N.p/WIDTH and tile/entries/N (c2sp.org/tlog-tiles)")
	}
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 64 {
		return bad()
	}
	level, rest, _ := strings.Cut(rest, "/")
	if t.Level = EntriesLevel; level != "entries" {
		n, err := strconv.ParseUint(level, 10, 8)
		if err != nil || n > levelMax {
			return bad()
		}
		t.Level = int(n)
	}
	n, width, partial := strings.Cut(rest, ".p/")
	if partial {
		w, err := strconv.ParseUint(width, 10, 8)
		if err != nil || w == 0 {
			return bad()
		}
		t.Width = int(w)
	}
	for _, digits := range strings.Split(n, "/") {
		d, err := strconv.ParseUint(strings.TrimPrefix(digits, "x"), 10, 10)
		if err != nil || t.Index > (1<<62)/1000 {
			return bad()
		}
		t.Index = t.Index*1000 + int64(d)
	}
	if t.Path() != path { // one name for each
		return bad()
	}
	return t, nil
}

// appendEntry writes one entry of a bundle.
func appendEntry(bundle, entry []byte) []byte {
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
}

// parseBundle splits a bundle into n entries. Errors: CodeInvalid.
func parseBundle(bundle []byte, n int) ([][]byte, error) {
	var out [][]byte
	for len(out) < n {
		if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the bundle breaks off after %d of %d entries", len(out), n)
		}
		size := int(binary.BigEndian.Uint16(bundle))
		out, bundle = append(out, bundle[2:2+size]), bundle[2+size:]
	}
	if len(bundle) > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the bundle has %d bytes after its %d entries", len(bundle), n)
	}
	return out, nil
}

package trivydb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/trivydb"
)

// readAll reads a database that may be damaged, and fails the test where the
// error is not one that says so.
func readAll(t *testing.T, b []byte) error {
	t.Helper()
	limits := trivydb.Limits{FileBytes: 1 << 20, Entries: 10_000, Flaws: 10_000}
	db, err := trivydb.Open(bytes.NewReader(b), int64(len(b)), limits)
	if err == nil {
		_, err = read(db)
	}
	if code := gatehouse.CodeOf(err); err != nil && code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
		t.Fatalf("error %v of code %s", err, code)
	}
	return err
}

// TestDamaged changes bytes at random, in headers of pages and elements above
// all: whatever the file says, reading it ends, and ends well or with an error.
func TestDamaged(t *testing.T) {
	whole := files(t, archive(t))["trivy.db"]
	random := rand.New(rand.NewPCG(1, 2))
	failed := 0
	for range 3000 {
		b := bytes.Clone(whole)
		for range 1 + random.IntN(4) {
			at := 8192 + random.IntN(len(b)-8192)
			if random.IntN(2) == 0 {
				at = at &^ 4095
				at += random.IntN(64) // the page's header and first elements
			}
			b[at] = byte(random.IntN(256))
		}
		if readAll(t, b) != nil {
			failed++
		}
	}
	if failed < 100 {
		t.Errorf("only %d of 3000 damaged files are refused: the test does not damage what matters", failed)
	}
}

func TestCutShort(t *testing.T) {
	whole := files(t, archive(t))["trivy.db"]
	used := int(binary.LittleEndian.Uint64(whole[16+40:])) * 4096 // bbolt grows files ahead
	for size := 0; size < used; size += 1000 {
		if readAll(t, whole[:size]) == nil {
			t.Errorf("%d of %d bytes are taken for a whole database", size, used)
		}
	}
}

// TestCircles links pages to themselves and to each other.
func TestCircles(t *testing.T) {
	whole := files(t, archive(t))["trivy.db"]
	pages := len(whole) / 4096
	for id := 2; id < pages; id++ {
		b := bytes.Clone(whole)
		p := b[id*4096:]
		// A branch whose children are all pages.
		binary.LittleEndian.PutUint64(p, uint64(id))
		binary.LittleEndian.PutUint16(p[8:], 1)
		binary.LittleEndian.PutUint16(p[10:], 200)
		binary.LittleEndian.PutUint32(p[12:], 0)
		for i := range 200 {
			e := p[16+16*i:]
			binary.LittleEndian.PutUint32(e, 0)
			binary.LittleEndian.PutUint32(e[4:], 4)
			binary.LittleEndian.PutUint64(e[8:], uint64(2+i%(pages-2)))
		}
		_ = readAll(t, b) // ends
	}
}

// TestForeign refuses what is bbolt, but not this database.
func TestForeign(t *testing.T) {
	whole := files(t, archive(t))["trivy.db"]
	for what, c := range map[string]struct{ from, to, want string }{
		"no vulnerabilities": {"vulnerability", "vulnerabilitx", "not Trivy's database"},
		"schema 1":           {"wolfi", "trivy", "schema version 1"},
	} {
		err := readAll(t, bytes.ReplaceAll(whole, []byte(c.from), []byte(c.to)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	old := bytes.Clone(whole)
	for at := range []int{0, 4096} { // another format of bbolt, with a right checksum
		m := old[at*4096+16:]
		binary.LittleEndian.PutUint32(m[4:], 1)
		sum := fnv.New64a()
		sum.Write(m[:56])
		binary.LittleEndian.PutUint64(m[56:], sum.Sum64())
	}
	if readAll(t, old) == nil {
		t.Error("a file of another bbolt format is read")
	}
}

func TestStops(t *testing.T) {
	whole := files(t, archive(t))["trivy.db"]
	db := open(t, whole)
	for n := range 2 {
		for range db.Records(context.Background()) {
			break // must not go on to yield
		}
		if list, err := read(db); err != nil || len(list) == 0 {
			t.Errorf("reading number %d: %d records, %v", n, len(list), err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range db.Records(ctx) {
		if err == nil {
			t.Error("it reads after the end of the context")
		}
	}
}

// FuzzOpen looks for panics, endless work and errors of another kind.
func FuzzOpen(f *testing.F) {
	f.Add(files(f, archive(f))["trivy.db"])
	f.Fuzz(func(t *testing.T, b []byte) { _ = readAll(t, b) })
}

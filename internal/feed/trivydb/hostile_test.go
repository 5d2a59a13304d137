package trivydb_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
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
	limits := trivydb.Limits{FileBytes: 1 << 20, Entries: 10_000, Affected: 10_000, TextBytes: 1 << 20, Flaws: 10_000}
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
	const rounds = 600
	failed := 0
	for range rounds {
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
	if failed < rounds/30 {
		t.Errorf("only %d of %d damaged files are refused: the test does not damage what matters", failed, rounds)
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
		seal(old[at*4096:])
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

// FuzzOpen looks for panics, endless work and errors of another kind. The
// checksums of the meta pages are put right, so that what they say is tried too.
func FuzzOpen(f *testing.F) {
	f.Add(tiny())
	if err := errOf(tiny()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for at := 0; at+80 <= len(b) && at <= tinyPage; at += tinyPage {
			seal(b[at:])
		}
		_ = readAll(t, b)
	})
}

func errOf(b []byte) error {
	db, err := trivydb.Open(bytes.NewReader(b), int64(len(b)), trivydb.DefaultLimits())
	if err == nil {
		_, err = read(db)
	}
	return err
}

// seal writes a meta page's checksum.
func seal(page []byte) {
	sum := fnv.New64a()
	sum.Write(page[16:72])
	binary.LittleEndian.PutUint64(page[72:], sum.Sum64())
}

const tinyPage = 512

// element of a page.
type element struct {
	key, value string
	flags      uint32 // or a branch's child
}

const leaf, branch = 2, 1

// bucketAt is the value of a bucket whose root is a page; 0 is one that follows.
func bucketAt(root uint64) string {
	return string(binary.LittleEndian.AppendUint64(nil, root)) + strings.Repeat("\x00", 8)
}

func page(id uint64, flags uint16, list ...element) []byte {
	p := make([]byte, 16+16*len(list))
	binary.LittleEndian.PutUint64(p, id)
	binary.LittleEndian.PutUint16(p[8:], flags)
	binary.LittleEndian.PutUint16(p[10:], uint16(len(list)))
	for i, e := range list {
		h := p[16+16*i:]
		pos := uint32(len(p) - 16 - 16*i)
		if flags == branch {
			binary.LittleEndian.PutUint32(h, pos)
			binary.LittleEndian.PutUint32(h[4:], uint32(len(e.key)))
			binary.LittleEndian.PutUint64(h[8:], uint64(e.flags))
		} else {
			binary.LittleEndian.PutUint32(h, e.flags)
			binary.LittleEndian.PutUint32(h[4:], pos)
			binary.LittleEndian.PutUint32(h[8:], uint32(len(e.key)))
			binary.LittleEndian.PutUint32(h[12:], uint32(len(e.value)))
		}
		p = append(append(p, e.key...), e.value...)
	}
	binary.LittleEndian.PutUint32(p[12:], uint32((len(p)-1)/tinyPage)) // overflow
	return p
}

// database is a file of pages from number 2 on; one with overflow takes the
// numbers behind its own.
func database(pages ...[]byte) []byte {
	var body []byte
	for _, p := range pages {
		body = append(body, append(p, make([]byte, (tinyPage-len(p)%tinyPage)%tinyPage)...)...)
	}
	var out []byte
	for i := range 2 {
		m := make([]byte, tinyPage)
		binary.LittleEndian.PutUint64(m, uint64(i))
		binary.LittleEndian.PutUint16(m[8:], 4)
		binary.LittleEndian.PutUint32(m[16:], 0xED0CDAED)
		binary.LittleEndian.PutUint32(m[20:], 2)
		binary.LittleEndian.PutUint32(m[24:], tinyPage)
		binary.LittleEndian.PutUint64(m[32:], 2)                            // root
		binary.LittleEndian.PutUint64(m[56:], uint64(2+len(body)/tinyPage)) // high-water mark
		binary.LittleEndian.PutUint64(m[64:], uint64(i))                    // transaction
		seal(m)
		out = append(out, m...)
	}
	return append(out, body...)
}

// tiny is a database of seven small pages, with every kind of page and bucket:
// the real ones are too large to be fuzzed.
func tiny() []byte {
	packages := page(0, leaf, element{"CVE-2024-0001", `{"FixedVersion":"1"}`, 0})
	return database(
		page(2, leaf, element{"debian 12", bucketAt(3), 1}, element{"vulnerability", bucketAt(4), 1}),
		page(3, leaf, element{"openssl", bucketAt(0) + string(packages), 1}),
		page(4, branch, element{"CVE-2024-0001", "", 5}, element{"GHSA-1", "", 6}),
		page(5, leaf, element{"CVE-2024-0001", `{"Title":"a","VendorSeverity":{"nvd":3}}`, 0}),
		page(6, leaf, element{"GHSA-1", `{"Title":"b"}`, 0}),
	)
}

// TestLookups: records without number, for each of which the same huge page would
// be read.
func TestLookups(t *testing.T) {
	forged := func(records int) []byte {
		var flaws []element
		for i := range records {
			flaws = append(flaws, element{fmt.Sprintf("DSA-%04d", i), `{"FixedVersion":"1"}`, 0})
		}
		const at = 3
		packages := page(at, leaf, element{"openssl", bucketAt(0) + string(page(0, leaf, flaws...)), 1})
		next := at + uint64(len(packages)-1)/tinyPage + 1
		return database(
			page(2, leaf, element{"debian 12", bucketAt(at), 1}, element{"vulnerability", bucketAt(next), 1}),
			packages,
			page(next, leaf, element{"DSA-0000", `{"Title":"` + strings.Repeat("x", 100*tinyPage) + `"}`, 0}),
		)
	}
	if err := errOf(forged(2)); err != nil {
		t.Errorf("a long text: %v", err)
	}
	if err := errOf(forged(500)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), "too large to look") {
		t.Errorf("the same long page again and again: %v", err)
	}
}

// TestManyProducts: a few entries for many products are many packages.
func TestManyProducts(t *testing.T) {
	var products, cpes []string
	for i := range 100 {
		products = append(products, fmt.Sprint(i))
	}
	for i := range 100 {
		cpes = append(cpes, fmt.Sprintf(`"cpe:/a:redhat:enterprise_linux:%d::appstream"`, i))
	}
	says := `{"Entries":[{"FixedVersion":"1","Affected":[` + strings.Join(products, ",") + `],"Cves":[{"ID":"CVE-2024-0001"}]}]}`
	var names, list []element
	for i, cpe := range cpes {
		list = append(list, element{fmt.Sprintf("%03d", i), cpe, 0})
	}
	for i := range 40 {
		names = append(names, element{fmt.Sprintf("p%03d", i), bucketAt(0) + string(page(0, leaf, element{"RHSA-2024:0001", says, 0})), 1})
	}
	const at = 3
	packages := page(at, leaf, names...)
	next := at + uint64(len(packages)-1)/tinyPage + 1
	numbers := page(next, leaf, element{"cpe", bucketAt(0) + string(page(0, leaf, list...)), 1})
	last := next + uint64(len(numbers)-1)/tinyPage + 1
	b := database(
		page(2, leaf, element{"Red Hat", bucketAt(at), 1}, element{"Red Hat CPE", bucketAt(next), 1}, element{"vulnerability", bucketAt(last), 1}),
		packages, numbers, page(last, leaf, element{"CVE-2024-0001", `{"Title":"a"}`, 0}))
	limits := trivydb.DefaultLimits()
	for affected, want := range map[int]gatehouse.Code{4000: "", 3999: gatehouse.CodeTooLarge} {
		limits.Affected = affected
		db, err := trivydb.Open(bytes.NewReader(b), int64(len(b)), limits)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := read(db); gatehouse.CodeOf(err) != want {
			t.Errorf("%d: %v", affected, err)
		}
	}
}

func TestLimits(t *testing.T) {
	whole := files(t, archive(t))["trivy.db"]
	for what, change := range map[string]func(*trivydb.Limits){
		"file":     func(l *trivydb.Limits) { l.FileBytes = int64(len(whole)) - 1 },
		"entries":  func(l *trivydb.Limits) { l.Entries = 2 },
		"texts":    func(l *trivydb.Limits) { l.TextBytes = 20 },
		"affected": func(l *trivydb.Limits) { l.Affected = 1 },
		"flaws":    func(l *trivydb.Limits) { l.Flaws = 3 },
		"all":      func(l *trivydb.Limits) { *l = trivydb.Limits{} },
	} {
		limits := trivydb.DefaultLimits()
		change(&limits)
		db, err := trivydb.Open(bytes.NewReader(whole), int64(len(whole)), limits)
		if err == nil {
			_, err = read(db)
		}
		if gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("%s: %v", what, err)
		}
	}
}

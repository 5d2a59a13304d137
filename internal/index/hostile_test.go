package index_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

func writeZeros(out io.Writer, size int64) error {
	w := tar.NewWriter(out)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: size, Mode: 0o644}); err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for ; size > 0; size -= int64(len(block)) {
		if _, err := w.Write(block[:min(size, int64(len(block)))]); err != nil {
			return err
		}
	}
	return w.Close()
}

// TestLayerLimitsPerEntry: what breaks the bound of one entry is told, and the
// walk goes on to the package behind it.
func TestLayerLimitsPerEntry(t *testing.T) {
	limits := index.Limits{PathMax: 200, DepthMax: 10, FileMax: 1000, SetPackagesMax: 2}
	tests := []struct {
		name  string
		entry entry
		want  string
	}{
		{"long path", entry{name: strings.Repeat("x", 201)}, "longer than 200 bytes"},
		{"deep path", entry{name: strings.Repeat("d/", 10) + "x"}, "more than 10 parts"},
		{"path leaves the root", entry{name: "../../etc/passwd"}, "path leaves the root"},
		{"whiteout leaves the root", entry{name: "../.wh.etc"}, "path leaves the root"},
		{"large file", entry{name: "app/node_modules/x/package.json", body: strings.Repeat(" ", 1001)}, "larger than 1000"},
		{"too many packages", entry{name: "lib/apk/db/installed", body: apkBody("a=1", "b=1", "c=1")}, "too many packages"},
		{"corrupt package.json", entry{name: "app/node_modules/x/package.json", body: `{"name": "x",`}, "npm file could not be read"},
		{"corrupt jar", entry{name: "x.jar", body: "PK\x03\x04 PK\x05\x06" + strings.Repeat("\xff", 18)}, "java file could not be read"},
		{"corrupt rpmdb", entry{name: "var/lib/rpm/rpmdb.sqlite", body: "SQLite format 3\x00" + strings.Repeat("\xff", 600)}, "rpm file could not be read"},
		{"unknown rpmdb", entry{name: "var/lib/rpm/Packages", body: strings.Repeat("x", 100)}, "no RPM database of a known form"},
		{"log of rpmdb", entry{name: "var/lib/rpm/rpmdb.sqlite-wal", body: "x"}, "write-ahead log"},
		{"corrupt metadata", entry{name: "x-1.dist-info/METADATA", body: "Name: x\n\n"}, "python file could not be read"},
		{"unknown type", entry{name: "x", kind: 'Z'}, "unknown type"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inv := layerOf(t, limits, tarOf(t, test.entry, entry{name: "srv/node_modules/good/package.json", body: npmBody("good", "1.0.0")}))
			if inv.Complete || !hasReason(inv.Incomplete, test.want) {
				t.Errorf("complete %v, reasons %q, want %q", inv.Complete, inv.Incomplete, test.want)
			}
			if !slices.ContainsFunc(inv.Sets, func(s gatehouse.PackageSet) bool {
				return len(s.Packages) == 1 && s.Packages[0].Name == "good"
			}) {
				t.Errorf("the walk did not go on: %+v", inv.Sets)
			}
			for _, s := range inv.Sets {
				if strings.Contains(s.Path, "..") || s.Packages == nil {
					t.Errorf("set %+v", s)
				}
			}
		})
	}
}

// TestLayerLimitsPerLayer hits each bound of a whole layer that does not end
// the walk.
func TestLayerLimitsPerLayer(t *testing.T) {
	var many []entry
	for i := range 300 {
		name := fmt.Sprintf("p%03d", i)
		many = append(many, entry{name: "app/node_modules/" + name + "/package.json", body: npmBody(name, "1.0.0")},
			entry{name: "links/" + name, kind: tar.TypeSymlink, link: "x"}, entry{name: "gone/.wh." + name})
	}
	blob := gzipped(t, tarOf(t, many...))
	tests := []struct {
		limits index.Limits
		want   string
	}{
		{index.Limits{SetsMax: 10}, "more than 10 files with packages"},
		{index.Limits{PackagesMax: 10}, "more than 10 packages"},
		{index.Limits{PackageBytesMax: 500}, "more than 500 bytes of text"},
		{index.Limits{PathBytesMax: 4000}, "more paths than 4000 bytes"},
		{index.Limits{BodiesMax: 1000}, "more than 1000 bytes in this layer"},
	}
	for _, test := range tests {
		inv := layerOf(t, test.limits, blob)
		if inv.Complete || !hasReason(inv.Incomplete, test.want) {
			t.Errorf("complete %v, reasons %q, want %q", inv.Complete, inv.Incomplete, test.want)
		}
		packages := 0
		for _, s := range inv.Sets {
			packages += len(s.Packages)
		}
		if packages > 60 {
			t.Errorf("%s: %d packages were kept", test.want, packages)
		}
		if len(inv.Incomplete) > 60 {
			t.Errorf("%s: %d reasons", test.want, len(inv.Incomplete))
		}
	}
	if inv := layerOf(t, index.Limits{}, blob); !inv.Complete || len(inv.Sets) != 300 || len(inv.Replaced) != 300 || len(inv.Whiteouts) != 300 {
		t.Errorf("within the bounds: complete %v, %d sets, %d replaced, %d whiteouts", inv.Complete, len(inv.Sets), len(inv.Replaced), len(inv.Whiteouts))
	}
}

// TestLayerEntries: three million entries are cut at the bound.
func TestLayerEntries(t *testing.T) {
	r := &endlessTar{header: tarOf(t, entry{name: "x"})[:512]}
	limits := index.Limits{EntriesMax: 100_000}
	inv, err := index.Layer(t.Context(), r, limits, index.All())
	if gatehouse.CodeOf(err) != gatehouse.CodeTooLarge || !hasReason(inv.Incomplete, "more than 100000 entries") {
		t.Errorf("%v %q", err, inv.Incomplete)
	}
	if r.blocks > 110_000+100_000 {
		t.Errorf("%d blocks were read", r.blocks)
	}
}

// endlessTar repeats one header for ever.
type endlessTar struct {
	header []byte
	blocks int
}

func (r *endlessTar) Read(p []byte) (int, error) {
	n := 0
	for ; len(p)-n >= len(r.header); r.blocks++ {
		n += copy(p[n:], r.header)
	}
	return n, nil
}

// TestLayerSpooledFile reads a file beyond MemoryMax from disk, and leaves
// nothing behind.
func TestLayerSpooledFile(t *testing.T) {
	dir := t.TempDir()
	body := apkBody("a=1") + "F:" + strings.Repeat("x", 200_000) + "\n" + apkBody("b=2")
	inv := layerOf(t, index.Limits{MemoryMax: 1000, TempDir: dir}, tarOf(t,
		entry{name: "lib/apk/db/installed", body: body}, entry{name: "usr/lib/apk/db/installed", body: body[:5000] + "\n"}))
	if !inv.Complete || len(inv.Sets) != 2 || len(inv.Sets[0].Packages) != 2 || len(inv.Sets[1].Packages) != 1 {
		t.Errorf("%+v", inv)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestLayerDiskFails: a disk that is full is no fault of the layer.
func TestLayerDiskFails(t *testing.T) {
	blob := tarOf(t, entry{name: "lib/apk/db/installed", body: strings.Repeat("x", 5000)})
	_, err := index.Layer(t.Context(), bytes.NewReader(blob), index.Limits{MemoryMax: 1000, TempDir: "/nonexistent"}, index.All())
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("%v (%s)", err, gatehouse.CodeOf(err))
	}
}

// sparse is a GNU sparse file (old format) of size bytes without any data.
func sparse(name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x00")
	copy(h[124:], "00000000000\x00") // bytes in the archive
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", size, 0))
	putOctal(h[483:], size)
	fixChecksum(h)
	return h
}

// putOctal writes a size, in base 256 where octal does not reach.
func putOctal(field []byte, v int64) {
	if v < 1<<33 {
		copy(field, fmt.Sprintf("%011o\x00", v))
		return
	}
	for i := 11; i >= 0; i-- {
		field[i] = byte(v)
		v >>= 8
	}
	field[0] |= 0x80
}

// TestLayerSparse: a sparse file costs what it says it holds, not what is in
// the stream; a package database of 10 GB is not read.
func TestLayerSparse(t *testing.T) {
	good := tarOf(t, entry{name: "srv/node_modules/good/package.json", body: npmBody("good", "1.0.0")})
	t.Run("10 GB database", func(t *testing.T) {
		inv := layerOf(t, index.Limits{}, append(sparse("var/lib/dpkg/status", 10<<30), good...))
		if inv.Complete || !hasReason(inv.Incomplete, "file of 10737418240 bytes is larger") || len(inv.Sets) != 2 {
			t.Errorf("%+v", inv)
		}
	})
	t.Run("many of them", func(t *testing.T) {
		var blob []byte
		for i := range 100 {
			blob = append(blob, sparse(fmt.Sprintf("%d.jar", i), 10<<20)...)
		}
		inv := layerOf(t, index.Limits{BodiesMax: 30 << 20}, append(blob, good...))
		if inv.Complete || !hasReason(inv.Incomplete, "more than 31457280 bytes in this layer") {
			t.Errorf("%q", inv.Incomplete)
		}
	})
	t.Run("nobody's file", func(t *testing.T) {
		if inv := layerOf(t, index.Limits{}, append(sparse("data.img", 4<<30), good...)); !inv.Complete || len(inv.Sets) != 1 {
			t.Errorf("%+v", inv)
		}
	})
}

// TestLayerPAXSize: the size of a PAX record counts, as it does for runtimes;
// what a scanner that trusts the header would take for an entry is content.
func TestLayerPAXSize(t *testing.T) {
	inner := tarOf(t, entry{name: "app/node_modules/ghost/package.json", body: npmBody("ghost", "1.0.0")})
	blob := tarOf(t, entry{name: "data", body: string(inner)}, entry{name: "srv/node_modules/good/package.json", body: npmBody("good", "1.0.0")})
	spoofed := paxSized(t, blob, len(inner))
	inv := layerOf(t, index.Limits{}, spoofed)
	if len(inv.Sets) != 1 || inv.Sets[0].Packages[0].Name != "good" {
		t.Errorf("%+v", inv.Sets)
	}
}

// paxSized puts a PAX record with the true size before the first entry, whose
// own header then says 0.
func paxSized(t *testing.T, blob []byte, size int) []byte {
	t.Helper()
	record := fmt.Sprintf("size=%d\n", size)
	line := fmt.Sprintf("%d %s", len(record)+3, record)
	pax := tarOf(t, entry{name: "PaxHeaders.0/data", body: line})[:1024]
	pax[156] = 'x'
	first := bytes.Clone(blob)
	copy(first[124:], "00000000000\x00")
	fixChecksum(pax)
	fixChecksum(first)
	return append(pax, first...)
}

// fixChecksum computes a tar header's checksum anew.
func fixChecksum(h []byte) {
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h[:512] {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// panicking is an extractor that panics.
type panicking struct{}

func (panicking) Name() string                                { return "panicking" }
func (panicking) Version() int                                { return 1 }
func (panicking) Wants(p string, _ int64, _ fs.FileMode) bool { return strings.HasSuffix(p, ".bad") }
func (panicking) FileMax() int64                              { return 100 }
func (panicking) Extract(context.Context, index.File) (gatehouse.PackageSet, error) {
	panic("index out of range")
}

func TestLayerSurvivesPanic(t *testing.T) {
	blob := tarOf(t, entry{name: "x.bad", body: "x"}, entry{name: "srv/node_modules/good/package.json", body: npmBody("good", "1.0.0")})
	inv, err := index.Layer(t.Context(), bytes.NewReader(blob), index.Limits{}, index.Analysis{Extractors: append([]index.Extractor{panicking{}}, index.Extractors()...)})
	if err != nil || inv.Complete || !hasReason(inv.Incomplete, "panicked: index out of range") || len(inv.Sets) != 2 {
		t.Errorf("%v %+v", err, inv)
	}
}

// TestLayerMemory: what a layer costs in memory does not grow with it.
func TestLayerMemory(t *testing.T) {
	blob := zeros(t, 256<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	layerOf(t, index.Limits{RatioMax: 1 << 30}, blob)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}

// lateReader notices when it is read after its time.
type lateReader struct {
	io.Reader
	over, late atomic.Bool
}

func (r *lateReader) Read(p []byte) (int, error) {
	if r.over.Load() {
		r.late.Store(true)
	}
	return r.Reader.Read(p)
}

// TestLayerLeavesReaderAlone: the reader may be closed once Layer is back, also
// when it stopped in the middle.
func TestLayerLeavesReaderAlone(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		r := &lateReader{Reader: &endlessTar{header: tarOf(t, entry{name: "x"})[:512]}}
		if _, err := index.Layer(t.Context(), r, index.Limits{EntriesMax: 10}, index.Analysis{}); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Fatal(err)
		}
		r.over.Store(true)
		runtime.Gosched()
		if r.late.Load() {
			t.Fatal("the reader was read after Layer had returned")
		}
	}
	for range 10_000 { // a goroutine that is done may still be counted
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

// TestLayerEscapes: links and devices lead nowhere. What a link names outside of
// the layer is not opened, and a file behind a link keeps its name as written.
func TestLayerEscapes(t *testing.T) {
	inv := layerOf(t, index.Limits{}, tarOf(t,
		entry{name: "etc", kind: tar.TypeSymlink, link: "/etc"}, entry{name: "etc/passwd", body: "toor:x:0:0:::\n"},
		entry{name: "up", kind: tar.TypeSymlink, link: "../../../.."}, entry{name: "up/etc/shadow", body: "root::0:::::\n"},
		entry{name: "stolen", kind: tar.TypeLink, link: "../../../../etc/shadow"}, entry{name: "loop", kind: tar.TypeLink, link: "loop"},
		entry{name: "app/disk", kind: tar.TypeBlock, mode: 0o600}, entry{name: "dev/mem", kind: tar.TypeChar, mode: 0o666},
		entry{name: "srv/node_modules/good/package.json", body: npmBody("good", "1.0.0")}))
	var got []string
	for _, f := range inv.Findings {
		got = append(got, f.ID+" "+f.Package.Path)
	}
	if want := []string{"GHM115 app/disk", "GHM104 etc/passwd"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if len(inv.Files) != 0 || len(inv.Sets) != 1 {
		t.Errorf("%+v %+v", inv.Files, inv.Sets)
	}
}

// TestLayerLinkToLowerLayer: a hard link may give a file of a lower layer
// another name, under which it shows although it is deleted.
func TestLayerLinkToLowerLayer(t *testing.T) {
	honest := layerOf(t, index.Limits{}, tarOf(t, entry{name: "a", body: "x"}, entry{name: "b", kind: tar.TypeLink, link: "a"},
		entry{name: "c", kind: tar.TypeLink, link: "b"}))
	if !honest.Complete {
		t.Errorf("%q", honest.Incomplete)
	}
	inv := layerOf(t, index.Limits{}, tarOf(t, entry{name: "x", kind: tar.TypeLink, link: "usr/bin/below"}, entry{name: "usr/bin/.wh.below"}))
	if inv.Complete || !hasReason(inv.Incomplete, `"x": hard link to "usr/bin/below", which is not in this layer`) {
		t.Errorf("%q", inv.Incomplete)
	}
}

// TestLayerXattrs: extended attributes as large as archives may have them cost
// nothing; capabilities are told.
func TestLayerXattrs(t *testing.T) {
	big := paxHeader(t, "SCHILY.xattr.user.x", strings.Repeat("x", 900<<10))
	capable := paxHeader(t, "SCHILY.xattr.security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00")
	blob := append(bytes.Repeat(big[:len(big)-1024], 50), capable...)
	inv := layerOf(t, index.Limits{}, blob)
	if !inv.Complete || len(inv.Findings) != 1 || inv.Findings[0].ID != "GHM116" {
		t.Errorf("%q %+v", inv.Incomplete, inv.Findings)
	}
}

// TestLayerNamesAreNotUTF8: two names that are not UTF-8 stay two names.
func TestLayerNamesAreNotUTF8(t *testing.T) {
	lower := layerOf(t, index.Limits{}, gnuTar(t, "a\xff/node_modules/x/package.json", npmBody("x", "1.0.0")))
	upper := layerOf(t, index.Limits{}, gnuTar(t, ".wh.a\xfe", ""))
	if len(lower.Sets) != 1 || len(upper.Whiteouts) != 1 {
		t.Fatalf("%+v %+v", lower, upper)
	}
	if h := index.Hidden([]gatehouse.LayerInventory{lower, upper}); len(h) != 0 {
		t.Errorf("the whiteout of another name hides: %+v", h)
	}
}

func gnuTar(t *testing.T, name, body string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(body)), Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

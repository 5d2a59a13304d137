package index_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

func digest(b []byte) gatehouse.Digest {
	sum := sha256.Sum256(b)
	return gatehouse.NewDigest(gatehouse.SHA256, sum[:])
}

func zstded(t testing.TB, b []byte, options ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// TestLayerFormats reads the same archive in every form, and checks that both
// digests cover every byte.
func TestLayerFormats(t *testing.T) {
	plain := tarOf(t, entry{name: "app/node_modules/a/package.json", body: npmBody("a", "1.0.0")}, entry{name: "big", body: string(make([]byte, 3<<20))})
	half := len(plain) / 2
	padded := append(bytes.Clone(plain), make([]byte, 1<<20+512)...)
	skippable := append([]byte{0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}, zstded(t, plain)...)
	tests := []struct {
		name        string
		blob, plain []byte
	}{
		{"tar", plain, plain},
		{"tar with padding behind its end", padded, padded},
		{"gzip", gzipped(t, plain), plain},
		{"gzip with padding behind the end of the tar", gzipped(t, padded), padded},
		{"gzip of two members", append(gzipped(t, plain[:half]), gzipped(t, plain[half:])...), plain},
		{"gzip with an empty last member", append(gzipped(t, plain), gzipped(t, nil)...), plain},
		{"zstd", zstded(t, plain), plain},
		{"zstd of two frames", append(zstded(t, plain[:half]), zstded(t, plain[half:])...), plain},
		{"zstd behind a skippable frame", skippable, plain},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(test.blob), iotest.HalfReader(bytes.NewReader(test.blob)), iotest.DataErrReader(bytes.NewReader(test.blob))} {
				inv, err := index.Layer(t.Context(), r, index.Limits{}, index.All())
				if err != nil || !inv.Complete {
					t.Fatalf("%v %q", err, inv.Incomplete)
				}
				if inv.DiffID != digest(test.plain) || inv.Blob != digest(test.blob) || inv.Size != int64(len(test.plain)) {
					t.Errorf("diffID %s blob %s size %d, want %s %s %d", inv.DiffID, inv.Blob, inv.Size, digest(test.plain), digest(test.blob), len(test.plain))
				}
				want := []gatehouse.PackageSet{{
					Path: "app/node_modules/a/package.json", Extractor: "npm",
					Packages: []gatehouse.Package{{Type: "npm", Name: "a", Version: "1.0.0"}},
				}}
				if d := cmp.Diff(want, inv.Sets); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// TestLayerRefused: what is no layer is an error in words that can be shown,
// and the inventory beside it is not complete.
func TestLayerRefused(t *testing.T) {
	plain := tarOf(t, entry{name: "app/node_modules/a/package.json", body: npmBody("a", "1.0.0")}, entry{name: "z", body: string(make([]byte, 9000))})
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 3)
	}
	z := gzipped(t, append(plain[:len(plain)-1024:len(plain)-1024], noise...))
	flipped := bytes.Clone(z)
	flipped[len(flipped)/2] ^= 0x40
	badHeader := bytes.Clone(plain)
	copy(badHeader[1024+148:], "99999999")
	xattr := paxHeader(t, "SCHILY.xattr.user.x", strings.Repeat("x", 2<<20))
	tests := []struct {
		name string
		blob []byte
		want string
	}{
		{"extended attribute of 2 MiB", xattr, "corrupt after 0 entries"},
		{"nothing", nil, "layer is not gzip, zstd or tar"},
		{"text", []byte("<html>not found</html>"), "layer is not gzip, zstd or tar"},
		{"a block of text", bytes.Repeat([]byte("text "), 1000), "layer is not gzip, zstd or tar"},
		{"xz", append([]byte("\xfd7zXZ\x00"), noise...), "layer is not gzip, zstd or tar"},
		{"gzip magic alone", []byte{0x1f, 0x8b}, "layer is truncated"},
		{"truncated gzip", z[:len(z)/2], "layer is truncated"},
		{"gzip without its checksum", gzipped(t, plain)[:len(gzipped(t, plain))-4], "layer is truncated"},
		{"flipped bit in gzip", flipped, "layer is corrupt"},
		{"noise behind gzip", append(gzipped(t, plain), "noise"...), "layer is"},
		{"truncated zstd", zstded(t, plain)[:40], "layer is truncated"},
		{"truncated tar", plain[:530], "corrupt after 1 entries"},
		{"gzip of a tar truncated in a file nobody wants", gzipped(t, plain[:6000]), "corrupt after 2 entries"},
		{"bad header in tar", badHeader, "corrupt after 1 entries"},
		{"gzip of text", gzipped(t, bytes.Repeat([]byte("text "), 1000)), "corrupt after 0 entries"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inv, err := index.Layer(t.Context(), bytes.NewReader(test.blob), index.Limits{}, index.All())
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !bytes.Contains([]byte(err.Error()), []byte(test.want)) {
				t.Errorf("error %v (%s), want %q", err, gatehouse.CodeOf(err), test.want)
			}
			if inv.Complete || len(inv.Incomplete) == 0 {
				t.Errorf("complete %v, reasons %q", inv.Complete, inv.Incomplete)
			}
		})
	}
}

// paxHeader is a tar of one file with one PAX record, which may be larger than
// archive/tar would write.
func paxHeader(t *testing.T, key, value string) []byte {
	t.Helper()
	record := " " + key + "=" + value + "\n"
	length := len(record) + len(fmt.Sprint(len(record)+8))
	pax := tarOf(t, entry{name: "PaxHeaders.0/x", body: fmt.Sprint(length) + record})
	pax = pax[:len(pax)-1024]
	pax[156] = tar.TypeXHeader
	fixChecksum(pax)
	return append(pax, tarOf(t, entry{name: "x"})...)
}

// TestLayerCorruptTarKeepsDigests: a corrupt archive in a whole stream is known
// by its digests, and what was found before is kept.
func TestLayerCorruptTarKeepsDigests(t *testing.T) {
	plain := tarOf(t, entry{name: "app/node_modules/a/package.json", body: npmBody("a", "1.0.0")}, entry{name: "z"})
	copy(plain[1024+512+148:], "99999999")
	inv, err := index.Layer(t.Context(), bytes.NewReader(gzipped(t, plain)), index.Limits{}, index.All())
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || inv.DiffID != digest(plain) || len(inv.Sets) != 1 || inv.Complete {
		t.Errorf("%v %+v", err, inv)
	}
}

func TestLayerTellsDataBehindTheEnd(t *testing.T) {
	first := tarOf(t, entry{name: "a"})
	second := tarOf(t, entry{name: "app/node_modules/b/package.json", body: npmBody("b", "1.0.0")})
	inv := layerOf(t, index.Limits{}, append(first, second...))
	if inv.Complete || !hasReason(inv.Incomplete, "behind the end of the tar archive") {
		t.Errorf("complete %v, reasons %q", inv.Complete, inv.Incomplete)
	}
	if len(inv.Sets) != 0 {
		t.Errorf("sets behind the end: %+v", inv.Sets)
	}
}

// TestLayerReaderFails: a blob that cannot be read is not the layer's fault.
func TestLayerReaderFails(t *testing.T) {
	blob := gzipped(t, tarOf(t, entry{name: "a", body: string(make([]byte, 1<<20))}))
	broken := errors.New("disk is broken")
	for _, at := range []int{0, 5, len(blob) / 2, len(blob) - 1} {
		r := io.MultiReader(bytes.NewReader(blob[:at]), iotest.ErrReader(broken))
		inv, err := index.Layer(t.Context(), r, index.Limits{}, index.All())
		if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !errors.Is(err, broken) {
			t.Errorf("at %d: %v (%s)", at, err, gatehouse.CodeOf(err))
		}
		if inv.Complete || inv.DiffID != "" || inv.Blob != "" {
			t.Errorf("at %d: %+v", at, inv)
		}
	}
}

func TestLayerHonoursContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := &cancelReader{cancel: cancel, after: 3}
	inv, err := index.Layer(ctx, endless, index.Limits{}, index.All())
	if !errors.Is(err, context.Canceled) || inv.Complete {
		t.Errorf("%v %+v", err, inv)
	}
}

// cancelReader is an endless tar of zeros, which never ends, that cancels.
type cancelReader struct {
	cancel func()
	after  int
}

func (r *cancelReader) Read(p []byte) (int, error) {
	if r.after--; r.after == 0 {
		r.cancel()
	}
	clear(p)
	return len(p), nil
}

func TestLayerBomb(t *testing.T) {
	limits := index.Limits{UncompressedMax: 64 << 20, RatioAfter: 8 << 20, RatioMax: 100}
	t.Run("ratio", func(t *testing.T) { bomb(t, limits, 32<<20, "more than 100 to 1") })
	limits.RatioMax = 1 << 40
	t.Run("size", func(t *testing.T) { bomb(t, limits, 128<<20, "larger than 67108864 bytes") })
	t.Run("within", func(t *testing.T) {
		layerOf(t, limits, zeros(t, 60<<20))
	})
	t.Run("zstd window", func(t *testing.T) {
		big := zstded(t, tarOf(t, entry{name: "z", body: string(make([]byte, 20<<20))}), zstd.WithWindowSize(16<<20), zstd.WithSingleSegment(false))
		_, err := index.Layer(t.Context(), bytes.NewReader(big), index.Limits{WindowMax: 1 << 20}, index.Analysis{})
		if gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("%v (%s)", err, gatehouse.CodeOf(err))
		}
	})
}

func bomb(t *testing.T, limits index.Limits, size int64, want string) {
	t.Helper()
	inv, err := index.Layer(t.Context(), bytes.NewReader(zeros(t, size)), limits, index.All())
	if gatehouse.CodeOf(err) != gatehouse.CodeTooLarge || !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("error %v, want %q", err, want)
	}
	if inv.Complete || inv.DiffID != "" || !hasReason(inv.Incomplete, want) {
		t.Errorf("%+v", inv)
	}
}

// zeros is a gzip layer with one file of size zeros.
func zeros(t *testing.T, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeZeros(w, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

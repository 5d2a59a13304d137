package unpack_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

func gzipped(t *testing.T, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gunzip(b []byte, bytesMax int64) (string, error) {
	r, err := unpack.Gunzip(bytes.NewReader(b), bytesMax)
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	return string(out), err
}

func TestGunzip(t *testing.T) {
	b := gzipped(t, strings.Repeat("x", 1000))
	if s, err := gunzip(b, 1000); err != nil || len(s) != 1000 {
		t.Errorf("at its limit: %d bytes, %v", len(s), err)
	}
	if s, err := gunzip(b, 999); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge || len(s) != 999 {
		t.Errorf("beyond its limit: %d bytes, %v", len(s), err)
	}
	for n := range b {
		if _, err := gunzip(b[:n], 1000); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	flipped := bytes.Clone(b)
	flipped[len(b)-6] ^= 1 // its checksum
	if _, err := gunzip(flipped, 1000); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a wrong checksum: %v", err)
	}
}

func TestZip(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"a", "b", strings.Repeat("c", 60000)} {
		if _, err := z.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	open := func(b []byte, directoryMax int64) (*zip.Reader, error) {
		return unpack.Zip(bytes.NewReader(b), int64(len(b)), directoryMax)
	}
	if z, err := open(whole, 100_000); err != nil || len(z.File) != 3 {
		t.Errorf("%v", err)
	}
	if _, err := open(whole, 50_000); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("beyond the limit of the directory: %v", err)
	}
	if _, err := open(whole[:len(whole)-10], 100_000); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("cut short: %v", err)
	}
	if !unpack.IsZip(whole) || unpack.IsZip([]byte("PK")) || unpack.IsGzip(whole) {
		t.Error("zips are not told")
	}
}

// TestForgedZip64: the short end record names a small directory and the long one,
// which archive/zip believes where the number of entries is 65535, a large one.
func TestForgedZip64(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for range 3 {
		if _, err := z.Create(strings.Repeat("c", 60000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	short := whole[len(whole)-22:]
	length, offset := binary.LittleEndian.Uint32(short[12:]), binary.LittleEndian.Uint32(short[16:])
	le := binary.LittleEndian
	long := append([]byte("PK\x06\x06"), make([]byte, 52)...)
	le.PutUint64(long[4:], 44)
	le.PutUint64(long[24:], 3)
	le.PutUint64(long[32:], 3)
	le.PutUint64(long[40:], uint64(length))
	le.PutUint64(long[48:], uint64(offset))
	locator := append([]byte("PK\x06\x07"), make([]byte, 16)...)
	le.PutUint64(locator[8:], uint64(len(whole)-22))
	le.PutUint32(locator[16:], 1)
	end := bytes.Clone(short)
	le.PutUint16(end[8:], 0xffff)
	le.PutUint16(end[10:], 0xffff)
	le.PutUint32(end[12:], 0)
	le.PutUint32(end[16:], uint32(len(whole)-22))
	forged := bytes.Join([][]byte{whole[:len(whole)-22], long, locator, end}, nil)
	if z, err := zip.NewReader(bytes.NewReader(forged), int64(len(forged))); err != nil || len(z.File) != 3 {
		t.Fatalf("archive/zip does not believe it: %v", err)
	}
	const commentMax = 1<<16 - 1
	le.PutUint16(forged[len(forged)-2:], commentMax)
	withComment := append(bytes.Clone(forged), make([]byte, commentMax)...)
	le.PutUint16(forged[len(forged)-2:], 0)
	for name, b := range map[string][]byte{"forged": forged, "with the longest comment": withComment} {
		if _, err := unpack.Zip(bytes.NewReader(b), int64(len(b)), 50_000); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("%s: a directory of %d bytes, of which 50000 are allowed: %v", name, length, err)
		}
	}
	if _, err := unpack.Zip(bytes.NewReader(forged), int64(len(forged)), 500_000); err != nil {
		t.Errorf("within the limit: %v", err)
	}
}

// TestJSON reads lists of one document piece by piece.
func TestJSON(t *testing.T) {
	read := func(s string, totalMax, pieceMax int64) (list []int, err error) {
		d := unpack.NewJSON(strings.NewReader(s), totalMax, pieceMax)
		err = d.Object(func(key string) error {
			if key != "list" {
				return d.Skip()
			}
			return d.Array(func() error {
				var n int
				err := d.Decode(&n)
				list = append(list, n)
				return err
			})
		})
		return list, err
	}
	for s, want := range map[string]int{
		`{}`:                              0,
		"\xef\xbb\xbf" + `{"list":[1,2]}`: 2,
		` {"a":{"list":[9]},"list":[1,2,3],"b":[[]]} `:   3,
		`{"list":[],"list":[1]}`:                         1,
		`{"list":[` + strings.Repeat("1,", 9999) + `1]}`: 10000,
	} {
		if list, err := read(s, 1<<20, 1<<10); err != nil || len(list) != want {
			t.Errorf("%.40q: %d elements, %v", s, len(list), err)
		}
	}
	for s, code := range map[string]gatehouse.Code{
		``: gatehouse.CodeInvalid, `[]`: gatehouse.CodeInvalid, `{"list":{}}`: gatehouse.CodeInvalid, `{"list":["a"]}`: gatehouse.CodeInvalid,
		`{"list":[1`: gatehouse.CodeInvalid, `{"list":[1]`: gatehouse.CodeInvalid, `{"list":[1]}}`: gatehouse.CodeInvalid, `{"list":[1]}{}`: gatehouse.CodeInvalid,
		`{"a":"` + strings.Repeat("x", 200<<10) + `"}`:              gatehouse.CodeTooLarge, // one piece
		`{"list":[` + strings.Repeat("1,", 600<<10) + `1]}`:         gatehouse.CodeTooLarge, // all of it
		strings.Repeat(`{"a":`, 20000) + strings.Repeat("}", 20000): gatehouse.CodeInvalid,  // deeper than encoding/json goes
	} {
		if _, err := read(s, 1<<20, 64<<10); gatehouse.CodeOf(err) != code {
			t.Errorf("%.40q: %v, want %s", s, err, code)
		}
	}
}

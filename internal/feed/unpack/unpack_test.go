package unpack_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
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

package osv_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/google/go-cmp/cmp"
)

func record(id string) string { return fmt.Sprintf(`{"id":%q,"modified":"2024-01-01T00:00:00Z"}`, id) }

// pack makes a zip of names and contents.
func pack(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = io.WriteString(w, files[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(b []byte, limits osv.Limits) (ids []string, err error) {
	for a, err := range osv.Read(context.Background(), "all.zip", bytes.NewReader(b), int64(len(b)), limits) {
		if err != nil {
			return ids, err
		}
		ids = append(ids, a.ID)
	}
	return ids, nil
}

func TestRead(t *testing.T) {
	for what, b := range map[string][]byte{
		"zip":                pack(t, "X-1.json", record("X-1"), "README.md", "hello", "sub/X-2.JSON", record("X-2")),
		"array":              []byte(" [" + record("X-1") + ",\n" + record("X-2") + "]\n"),
		"array behind a BOM": []byte("\xef\xbb\xbf[" + record("X-1") + "," + record("X-2") + "]"),
	} {
		ids, err := read(b, osv.DefaultLimits())
		if diff := cmp.Diff([]string{"X-1", "X-2"}, ids); diff != "" || err != nil {
			t.Errorf("%s: %v %s", what, err, diff)
		}
	}
	ids, err := read([]byte("\n"+record("X-1")+"\n"), osv.DefaultLimits())
	if diff := cmp.Diff([]string{"X-1"}, ids); diff != "" || err != nil {
		t.Errorf("one record: %v %s", err, diff)
	}
}

func TestReadMalformed(t *testing.T) {
	whole := pack(t, "X-1.json", record("X-1"), "X-2.json", record("X-2"))
	flipped := bytes.Clone(whole)
	flipped[len("PK\x03\x04")+30+8] ^= 0xff // inside the first record's bytes
	for what, c := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":                {nil, "neither a zip nor JSON"},
		"text":                   {[]byte("hello"), "neither a zip nor JSON"},
		"html":                   {[]byte("<html>"), "neither a zip nor JSON"},
		"zip without records":    {pack(t, "README.md", "hello"), "holds no .json record"},
		"empty zip":              {pack(t), "holds no .json record"},
		"zip cut short":          {whole[:len(whole)-30], "no whole zip"},
		"zip damaged":            {flipped, "X-1.json"},
		"bad record":             {pack(t, "X-1.json", record("X-1"), "X-2.json", `{"id":"X-2","affected":[{"package":{}}]}`), `all.zip: "X-2.json": record X-2: affected[0]`},
		"record that is no JSON": {pack(t, "X-1.json", `<xml>`), `all.zip: "X-1.json": this is no OSV record`},
		"array cut short":        {[]byte("[" + record("X-1") + ","), "cut short"},
		"array cut in a record":  {[]byte("[" + record("X-1") + `,{"id":`), "record number 2"},
		"array without end":      {[]byte("[" + record("X-1")), "cut short after record number 1"},
		"empty array":            {[]byte("[]"), "holds no record"},
		"records in a row":       {[]byte(record("X-1") + record("X-2")), "something follows"},
		"array of words":         {[]byte(`["X-1"]`), "record number 1"},
		"bad record in array":    {[]byte("[" + record("X-1") + `,{}]`), "record number 2: the record has no id"},
	} {
		_, err := read(c.b, osv.DefaultLimits())
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", what, err, c.want)
		}
	}
}

func TestReadLimits(t *testing.T) {
	two := pack(t, "X-1.json", record("X-1"), "X-2.json", record("X-2"))
	bomb := pack(t, "X-1.json", `{"id":"X-1","details":"`+strings.Repeat("0", 1<<20)+`"}`)
	lying := bytes.Clone(bomb)
	// The size in the directory is a claim; say that the record is tiny.
	at := bytes.LastIndex(lying, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(lying[at+24:], 10)
	array := []byte("[" + record("X-1") + "," + record("X-2") + "]")
	wide := []byte(`[{"id":"X-1","details":"` + strings.Repeat("0", 1<<20) + `"}]`)
	all := osv.DefaultLimits()
	with := func(change func(*osv.Limits)) osv.Limits {
		l := all
		change(&l)
		return l
	}
	for what, c := range map[string]struct {
		b      []byte
		limits osv.Limits
		code   gatehouse.Code
	}{
		"records of a zip":     {two, with(func(l *osv.Limits) { l.Records = 1 }), gatehouse.CodeTooLarge},
		"records of an array":  {array, with(func(l *osv.Limits) { l.Records = 1 }), gatehouse.CodeTooLarge},
		"one record of a zip":  {bomb, with(func(l *osv.Limits) { l.RecordBytes = 1 << 10 }), gatehouse.CodeTooLarge},
		"a record's claim":     {lying, with(func(l *osv.Limits) { l.RecordBytes = 1 << 10 }), gatehouse.CodeInvalid}, // archive/zip sees the lie first
		"one record of a list": {wide, with(func(l *osv.Limits) { l.RecordBytes = 1 << 10 }), gatehouse.CodeTooLarge},
		"all of a zip":         {two, with(func(l *osv.Limits) { l.TotalBytes = 60 }), gatehouse.CodeTooLarge},
		"all of an array":      {array, with(func(l *osv.Limits) { l.TotalBytes = 60 }), gatehouse.CodeTooLarge},
		"directory of a zip":   {pack(t, strings.Repeat("x", 60000)+".json", record("X-1"), strings.Repeat("y", 60000)+".json", record("X-2")), with(func(l *osv.Limits) { l.DirectoryBytes = 100 }), gatehouse.CodeTooLarge},
		"nothing is allowed":   {two, osv.Limits{}, gatehouse.CodeTooLarge},
	} {
		_, err := read(c.b, c.limits)
		if gatehouse.CodeOf(err) != c.code {
			t.Errorf("%s: error %v, want %s", what, err, c.code)
		}
	}
	for what, b := range map[string][]byte{"zip": two, "array": array} {
		if _, err := read(b, with(func(l *osv.Limits) { l.Records = 2 })); err != nil {
			t.Errorf("%s at its limit: %v", what, err)
		}
	}
}

// TestReadStops makes sure that an end of the context or of the reader's
// interest ends the work.
func TestReadStops(t *testing.T) {
	b := pack(t, "X-1.json", record("X-1"), "X-2.json", record("X-2"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := 0
	for _, err := range osv.Read(ctx, "all.zip", bytes.NewReader(b), int64(len(b)), osv.DefaultLimits()) {
		if n++; n == 1 && err != nil || n == 2 && !errors.Is(err, context.Canceled) || n > 2 {
			t.Errorf("record %d: %v", n, err)
		}
		cancel()
	}
	for range osv.Read(context.Background(), "all.zip", bytes.NewReader(b), int64(len(b)), osv.DefaultLimits()) {
		break // must not go on to yield
	}
	if n != 2 {
		t.Errorf("%d results after the end of the context, want a record and an error", n)
	}
}

// FuzzRead looks for panics and endless work in zips and arrays.
func FuzzRead(f *testing.F) {
	f.Add(pack(f, "X-1.json", record("X-1")))
	f.Add([]byte("[" + record("X-1") + "," + record("X-2") + "]"))
	f.Add([]byte(record("X-1")))
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	limits := osv.Limits{Records: 100, RecordBytes: 1 << 12, TotalBytes: 1 << 16, DirectoryBytes: 1 << 16}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for _, err := range osv.Read(context.Background(), "fuzz", bytes.NewReader(b), int64(len(b)), limits) {
			if n++; n > limits.Records+1 {
				t.Fatal("more results than records are allowed")
			}
			if code := gatehouse.CodeOf(err); err != nil && code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
				t.Fatalf("error %v", err)
			}
		}
		if n == 0 {
			t.Fatal("neither a record nor an error")
		}
	})
}

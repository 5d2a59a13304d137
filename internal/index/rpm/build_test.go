package rpm_test

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// tag is one entry of a package header under test.
type tag struct {
	tag  uint32
	text string
	num  uint32
}

// headerOf makes a package header.
func headerOf(tags ...tag) []byte {
	var index, data bytes.Buffer
	for _, e := range tags {
		kind := uint32(6)
		if e.text == "" {
			kind = 4
			for data.Len()%4 != 0 {
				data.WriteByte(0)
			}
		}
		for _, v := range []uint32{e.tag, kind, uint32(data.Len()), 1} {
			index.Write(binary.BigEndian.AppendUint32(nil, v))
		}
		if kind == 4 {
			data.Write(binary.BigEndian.AppendUint32(nil, e.num))
		} else {
			data.WriteString(e.text + "\x00")
		}
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	out = binary.BigEndian.AppendUint32(out, uint32(data.Len()))
	return append(append(out, index.Bytes()...), data.Bytes()...)
}

func packageOf(name, version string, more ...tag) []byte {
	return headerOf(append([]tag{{tag: 1000, text: name}, {tag: 1001, text: version}, {tag: 1002, text: "1.el9"}}, more...)...)
}

// sqliteOf makes a database with SQLite itself.
func sqliteOf(t testing.TB, pageSize int, blobs ...[]byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rpmdb.sqlite")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	statements := []string{
		fmt.Sprintf("PRAGMA page_size = %d", pageSize),
		"CREATE TABLE 'Name' (key 'TEXT' NOT NULL, hnum INTEGER NOT NULL)",
		"CREATE TABLE IF NOT EXISTS 'Packages' ( hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL )",
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blobs {
		if _, err := tx.Exec("INSERT INTO Packages (hnum, blob) VALUES (?, ?)", i+1, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ndbOf makes a database of one slot page.
func ndbOf(blobs ...[]byte) []byte {
	le := binary.LittleEndian
	out := make([]byte, 4096)
	copy(out, "RpmP")
	le.PutUint32(out[12:], 1)
	for at := 32; at < len(out); at += 16 {
		copy(out[at:], "Slot")
	}
	for i, b := range blobs {
		slot := out[32+16*i:]
		le.PutUint32(slot[4:], uint32(i+1))
		le.PutUint32(slot[8:], uint32(len(out)/16))
		out = append(out, "BlbS"...)
		out = le.AppendUint32(out, uint32(i+1))
		out = le.AppendUint32(out, 0)
		out = le.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
		for len(out)%16 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// bdbOf makes a hash database of 512-byte pages: metadata, one hash page with
// an off-page value per blob, and the chains of overflow pages.
func bdbOf(blobs ...[]byte) []byte {
	const page = 512
	le := binary.LittleEndian
	hash := make([]byte, page)
	hash[25] = 13
	le.PutUint16(hash[20:], uint16(2*len(blobs)))
	next := uint32(2)
	var overflow []byte
	for i, b := range blobs {
		at := page - 16*(i+1)
		le.PutUint16(hash[26+4*i:], uint16(at))
		le.PutUint16(hash[26+4*i+2:], uint16(at))
		hash[at] = 3
		le.PutUint32(hash[at+4:], next)
		le.PutUint32(hash[at+8:], uint32(len(b)))
		for len(b) > 0 {
			p := make([]byte, page)
			p[25] = 7
			n := copy(p[26:], b)
			b = b[n:]
			next++
			if len(b) > 0 {
				le.PutUint32(p[16:], next)
			}
			le.PutUint16(p[22:], uint16(n))
			overflow = append(overflow, p...)
		}
	}
	meta := make([]byte, page)
	le.PutUint32(meta[12:], 0x061561)
	le.PutUint32(meta[20:], page)
	meta[25] = 8
	le.PutUint32(meta[32:], next-1)
	return append(append(meta, hash...), overflow...)
}

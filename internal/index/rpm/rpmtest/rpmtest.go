// Package rpmtest makes RPM databases for tests: package headers, and each of
// the three forms that hold them.
package rpmtest

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the form of rpm 4.16 and later is made by SQLite itself
)

// Tag is one entry of a package header: a text, a list of texts, or numbers.
type Tag struct {
	Tag  uint32
	Text string
	List []string
	Nums []uint32
}

// Types of an entry.
const (
	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8
)

// Header makes a package header.
func Header(tags ...Tag) []byte {
	var index, data bytes.Buffer
	for _, e := range tags {
		kind, count := uint32(typeString), 1
		switch {
		case e.Nums != nil:
			kind, count = typeInt32, len(e.Nums)
			for data.Len()%4 != 0 {
				data.WriteByte(0)
			}
		case e.List != nil:
			kind, count = typeStringArray, len(e.List)
		}
		for _, v := range []uint32{e.Tag, kind, uint32(data.Len()), uint32(count)} {
			index.Write(binary.BigEndian.AppendUint32(nil, v))
		}
		for _, n := range e.Nums {
			data.Write(binary.BigEndian.AppendUint32(nil, n))
		}
		for _, s := range e.List {
			data.WriteString(s + "\x00")
		}
		if kind == typeString {
			data.WriteString(e.Text + "\x00")
		}
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	out = binary.BigEndian.AppendUint32(out, uint32(data.Len()))
	return append(append(out, index.Bytes()...), data.Bytes()...)
}

// Package makes the header of a package.
func Package(name, version, release string, more ...Tag) []byte {
	return Header(append([]Tag{{Tag: 1000, Text: name}, {Tag: 1001, Text: version}, {Tag: 1002, Text: release}}, more...)...)
}

// Files are the tags that list a package's files, given by folder ("/usr/bin/")
// and name.
func Files(paths ...[2]string) []Tag {
	var dirs, bases []string
	var indexes []uint32
	at := map[string]uint32{}
	for _, p := range paths {
		if _, ok := at[p[0]]; !ok {
			at[p[0]] = uint32(len(dirs))
			dirs = append(dirs, p[0])
		}
		indexes, bases = append(indexes, at[p[0]]), append(bases, p[1])
	}
	return []Tag{{Tag: 1116, Nums: indexes}, {Tag: 1117, List: bases}, {Tag: 1118, List: dirs}}
}

// SQLite makes a database with SQLite itself.
func SQLite(t testing.TB, pageSize int, blobs ...[]byte) []byte {
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

// NDB makes a database of one slot page.
func NDB(blobs ...[]byte) []byte {
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

// BDB makes a hash database of 512-byte pages: metadata, one hash page with an
// off-page value per blob, and the chains of overflow pages.
func BDB(blobs ...[]byte) []byte {
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

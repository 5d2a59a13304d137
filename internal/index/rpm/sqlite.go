package rpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// The part of the SQLite file format (sqlite.org/fileformat2.html) that
// reading every row of one table needs: table b-trees, records and overflow
// pages. Indexes, the free list and the write-ahead log are not looked at: a
// database in WAL mode whose log is gone or empty is whole without it.
const (
	sqliteMagic       = "SQLite format 3\x00"
	sqliteHeader      = 100
	sqliteInterior    = 0x05
	sqliteLeaf        = 0x0d
	sqliteTable       = "Packages"
	sqliteSchemaMax   = 1 << 20 // bytes of one row of sqlite_schema
	sqliteDepthMax    = 32      // a b-tree of 2^32 pages has fewer levels
	sqliteColumnsMax  = 64
	sqliteBlobColumn  = 1 // Packages(hnum INTEGER PRIMARY KEY, blob BLOB)
	sqliteNameColumn  = 1 // sqlite_schema(type, name, tbl_name, rootpage, sql)
	sqliteRootColumn  = 3
	sqliteSQLColumn   = 4
	sqliteUsableLeast = 480 // file format, "Reserved bytes per page"
)

// packagesTable is the statement that makes the table, without blanks and quotes:
// RPM asks for the column named blob, and here it is the second.
var packagesTable = regexp.MustCompile(`^createtablepackages\(hnumintegerprimarykey(autoincrement)?,blobblob(notnull)?\)$`)

func plainSQL(sql []byte) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n'\"`[]", r) {
			return -1
		}
		return r
	}, string(sql)))
}

type sqlite struct {
	r        io.ReaderAt
	pageSize int64
	usable   int64
	pages    uint32 // page numbers go from 1 to pages
	// used marks the pages that were read: each belongs to one place of one
	// tree, so that all work is bounded by the size of the file.
	used []bool
}

func readSQLite(r io.ReaderAt, size int64, each func([]byte) error) error {
	db, err := openSQLite(r, size)
	if err != nil {
		return err
	}
	root := uint32(0)
	err = db.walk(1, 0, sqliteSchemaMax, func(record []byte) error {
		columns, err := parseRecord(record)
		if err != nil || len(columns) <= sqliteSQLColumn {
			return errors.Join(err, errors.New("SQLite schema is corrupt"))
		}
		if string(columns[0].data) == "table" && string(columns[sqliteNameColumn].data) == sqliteTable {
			if !packagesTable.MatchString(plainSQL(columns[sqliteSQLColumn].data)) {
				return fmt.Errorf("SQLite table %s is not as RPM makes it: %.200q", sqliteTable, columns[sqliteSQLColumn].data)
			}
			if root != 0 {
				return fmt.Errorf("SQLite database has two tables %s", sqliteTable)
			}
			root = uint32(columns[sqliteRootColumn].integer())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return fmt.Errorf("SQLite database has no table %s", sqliteTable)
	}
	return db.walk(root, 0, headerMax, func(record []byte) error {
		columns, err := parseRecord(record)
		if err != nil {
			return err
		}
		if len(columns) <= sqliteBlobColumn {
			return errors.New("SQLite row has no blob")
		}
		return each(columns[sqliteBlobColumn].data)
	})
}

func openSQLite(r io.ReaderAt, size int64) (*sqlite, error) {
	head := make([]byte, sqliteHeader)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("SQLite header: %w", asTruncated(err))
	}
	pageSize := int64(binary.BigEndian.Uint16(head[16:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	if pageSize < 512 || pageSize&(pageSize-1) != 0 {
		return nil, fmt.Errorf("SQLite page size %d", pageSize)
	}
	usable := pageSize - int64(head[20])
	if usable < sqliteUsableLeast {
		return nil, fmt.Errorf("SQLite page has %d usable bytes", usable)
	}
	if encoding := binary.BigEndian.Uint32(head[56:]); encoding > 1 {
		return nil, fmt.Errorf("SQLite text encoding %d", encoding)
	}
	pages := size / pageSize
	if pages == 0 || pages > pagesMax {
		return nil, fmt.Errorf("SQLite database of %d pages", pages)
	}
	return &sqlite{r: r, pageSize: pageSize, usable: usable, pages: uint32(pages), used: make([]bool, pages+1)}, nil
}

func (db *sqlite) read(no uint32) ([]byte, error) {
	if no == 0 || no > db.pages {
		return nil, fmt.Errorf("SQLite page %d is outside of the file", no)
	}
	if db.used[no] {
		return nil, fmt.Errorf("SQLite page %d is used twice", no)
	}
	db.used[no] = true
	page := make([]byte, db.pageSize)
	if _, err := db.r.ReadAt(page, int64(no-1)*db.pageSize); err != nil {
		return nil, fmt.Errorf("SQLite page %d: %w", no, asTruncated(err))
	}
	return page[:db.usable], nil
}

// walk calls each with every record of the table b-tree below page no, in
// order of row id.
func (db *sqlite) walk(no uint32, depth int, recordMax int64, each func([]byte) error) error {
	if depth > sqliteDepthMax {
		return errors.New("SQLite b-tree is too deep")
	}
	page, err := db.read(no)
	if err != nil {
		return err
	}
	head := 0
	if no == 1 {
		head = sqliteHeader
	}
	kind, cells := page[head], int(binary.BigEndian.Uint16(page[head+3:]))
	pointers := head + 8
	if kind == sqliteInterior {
		pointers += 4
	} else if kind != sqliteLeaf {
		return fmt.Errorf("SQLite page %d has type %d", no, kind)
	}
	if pointers+2*cells > len(page) {
		return fmt.Errorf("SQLite page %d has %d cells", no, cells)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(page[pointers+2*i:]))
		if at+4 > len(page) {
			return fmt.Errorf("SQLite page %d points behind its end", no)
		}
		if kind == sqliteInterior {
			err = db.walk(binary.BigEndian.Uint32(page[at:]), depth+1, recordMax, each)
		} else {
			err = db.cell(page[at:], recordMax, each)
		}
		if err != nil {
			return err
		}
	}
	if kind == sqliteInterior {
		return db.walk(binary.BigEndian.Uint32(page[head+8:]), depth+1, recordMax, each)
	}
	return nil
}

// cell reads one cell of a leaf: size of the record, row id, record, and the
// first overflow page where the record does not fit.
func (db *sqlite) cell(cell []byte, recordMax int64, each func([]byte) error) error {
	size, n := varint(cell)
	_, m := varint(cell[n:])
	if n == 0 || m == 0 || size < 0 || size > recordMax || size > int64(db.pages)*db.pageSize {
		return fmt.Errorf("SQLite record of %d bytes", size)
	}
	cell = cell[n+m:]
	local := db.local(size)
	if local > int64(len(cell)) {
		return errors.New("SQLite record leaves its page")
	}
	if local == size {
		return each(cell[:size])
	}
	if local+4 > int64(len(cell)) {
		return errors.New("SQLite record leaves its page")
	}
	record := append(make([]byte, 0, size), cell[:local]...)
	next := binary.BigEndian.Uint32(cell[local:])
	for int64(len(record)) < size {
		page, err := db.read(next)
		if err != nil {
			return err
		}
		part := min(int64(len(page)-4), size-int64(len(record)))
		record = append(record, page[4:4+part]...)
		next = binary.BigEndian.Uint32(page)
	}
	return each(record)
}

// local is how much of a record is in the b-tree page itself (file format,
// "Cell Payload Overflow Pages", for table leaves).
func (db *sqlite) local(size int64) int64 {
	most := db.usable - 35
	if size <= most {
		return size
	}
	least := (db.usable-12)*32/255 - 23
	if k := least + (size-least)%(db.usable-4); k <= most {
		return k
	}
	return least
}

type column struct {
	kind int64
	data []byte
}

// integer is the value of a column of an integer type.
func (c column) integer() int64 {
	switch c.kind {
	case 8:
		return 0
	case 9:
		return 1
	}
	if c.kind < 1 || c.kind > 6 {
		return 0
	}
	v := int64(int8(c.data[0]))
	for _, b := range c.data[1:] {
		v = v<<8 | int64(b)
	}
	return v
}

// parseRecord splits a record into columns (file format, "Record Format").
func parseRecord(record []byte) ([]column, error) {
	size, n := varint(record)
	if n == 0 || size < int64(n) || size > int64(len(record)) {
		return nil, errors.New("SQLite record header is corrupt")
	}
	kinds, body := record[n:size], record[size:]
	var columns []column
	for len(kinds) > 0 {
		kind, n := varint(kinds)
		length := serialSize(kind)
		if n == 0 || length < 0 || length > int64(len(body)) || len(columns) >= sqliteColumnsMax {
			return nil, errors.New("SQLite record is corrupt")
		}
		columns = append(columns, column{kind, body[:length]})
		kinds, body = kinds[n:], body[length:]
	}
	return columns, nil
}

// serialSize is the length in bytes of a value of a serial type, -1 for one
// that does not exist.
func serialSize(kind int64) int64 {
	sizes := [...]int64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}
	switch {
	case kind < 0 || kind == 10 || kind == 11:
		return -1
	case kind < int64(len(sizes)):
		return sizes[kind]
	}
	return (kind - 12) / 2 // even: blob, odd: text
}

// varint reads SQLite's big-endian variable-length integer; n is 0 where b is
// too short.
func varint(b []byte) (v int64, n int) {
	var u uint64
	for i := range min(len(b), 9) {
		if i == 8 {
			return int64(u<<8 | uint64(b[i])), 9
		}
		u = u<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return int64(u), i + 1
		}
	}
	return 0, 0
}

package rpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Berkeley DB, hash access method, versions 8 and 9 (libdb src/dbinc/db_page.h),
// in either byte order: a metadata page, then pages with a header of 26 bytes.
// A package header is mostly too large for its page, so that its value is an
// off-page entry that names a chain of overflow pages; a value of up to a quarter
// of a page stands in the page itself.
const (
	bdbHashMagic    = 0x00061561
	bdbPageHeader   = 26
	bdbTypeUnsorted = 2  // hash page before 4.6
	bdbTypeOverflow = 7  // part of an off-page value
	bdbTypeMeta     = 8  // hash metadata
	bdbTypeHash     = 13 // hash page
	bdbKeyData      = 1  // type of an entry: the value itself
	bdbOffPage      = 3  // the place of a value in overflow pages
	bdbOffPageSize  = 12
)

// isBDB looks for the magic, at 12, in either byte order.
func isBDB(head []byte) bool {
	return len(head) >= 16 &&
		(binary.LittleEndian.Uint32(head[12:]) == bdbHashMagic || binary.BigEndian.Uint32(head[12:]) == bdbHashMagic)
}

type bdb struct {
	r        io.ReaderAt
	order    binary.ByteOrder
	pageSize int64
	pages    uint32
	used     []bool // overflow pages that a chain took: each belongs to one
	page     []byte // buffer of readBDB
	over     []byte // buffer of value
}

func readBDB(r io.ReaderAt, size int64, each func([]byte) error) error {
	db, err := openBDB(r, size)
	if err != nil {
		return err
	}
	for no := uint32(1); no < db.pages; no++ {
		if err := db.read(no, db.page); err != nil {
			return err
		}
		if t := db.page[25]; t != bdbTypeHash && t != bdbTypeUnsorted {
			continue
		}
		if err := db.values(no, each); err != nil {
			return err
		}
	}
	return nil
}

func openBDB(r io.ReaderAt, size int64) (*bdb, error) {
	meta := make([]byte, 72)
	if _, err := r.ReadAt(meta, 0); err != nil {
		return nil, fmt.Errorf("BDB metadata: %w", err)
	}
	db := &bdb{r: r, order: binary.LittleEndian}
	if binary.BigEndian.Uint32(meta[12:]) == bdbHashMagic {
		db.order = binary.BigEndian
	}
	db.pageSize = int64(db.order.Uint32(meta[20:]))
	if meta[24] != 0 {
		return nil, errors.New("BDB is encrypted")
	}
	if meta[25] != bdbTypeMeta {
		return nil, fmt.Errorf("BDB page 0 has type %d", meta[25])
	}
	if s := db.pageSize; s < 512 || s > 65536 || s&(s-1) != 0 {
		return nil, fmt.Errorf("BDB page size %d", s)
	}
	last := int64(db.order.Uint32(meta[32:]))
	if last >= pagesMax || (last+1)*db.pageSize > size {
		return nil, fmt.Errorf("BDB of %d pages does not fit into %d bytes", last+1, size)
	}
	// Berkeley DB goes by the buckets of its table and not by that number, so
	// that whoever writes it could leave pages out.
	pages := size / db.pageSize
	if pages > pagesMax {
		return nil, fmt.Errorf("BDB of %d pages", pages)
	}
	db.pages = uint32(pages)
	db.used = make([]bool, db.pages)
	db.page, db.over = make([]byte, db.pageSize), make([]byte, db.pageSize)
	return db, nil
}

func (db *bdb) read(no uint32, page []byte) error {
	if _, err := db.r.ReadAt(page, int64(no)*db.pageSize); err != nil {
		return fmt.Errorf("BDB page %d: %w", no, asTruncated(err))
	}
	return nil
}

// values goes through the pairs of key and value of the hash page in db.page.
func (db *bdb) values(no uint32, each func([]byte) error) error {
	entries := int(db.order.Uint16(db.page[20:]))
	if entries%2 != 0 || bdbPageHeader+2*entries > len(db.page) {
		return fmt.Errorf("BDB page %d has %d entries", no, entries)
	}
	for i := 1; i < entries; i += 2 {
		at := int(db.order.Uint16(db.page[bdbPageHeader+2*i:]))
		if at >= len(db.page) {
			return fmt.Errorf("BDB page %d points behind its end", no)
		}
		switch db.page[at] {
		case bdbOffPage:
		case bdbKeyData:
			if err := db.inline(i, at, each); err != nil {
				return err
			}
			continue
		default:
			return fmt.Errorf("BDB page %d has an entry of type %d", no, db.page[at])
		}
		if at+bdbOffPageSize > len(db.page) {
			return fmt.Errorf("BDB page %d points behind its end", no)
		}
		first, length := db.order.Uint32(db.page[at+4:]), int64(db.order.Uint32(db.page[at+8:]))
		value, err := db.value(first, length)
		if err != nil {
			return err
		}
		if err := each(value); err != nil {
			return err
		}
	}
	return nil
}

// inline takes the entry i at a place of the page. Entries are packed from the end
// of the page, so that each ends where the one before it begins.
func (db *bdb) inline(i, at int, each func([]byte) error) error {
	end := len(db.page)
	if i > 0 {
		end = int(db.order.Uint16(db.page[bdbPageHeader+2*(i-1):]))
	}
	const numberMax = 8 // the database's own number, under the key 0
	if end > len(db.page) || end <= at {
		return errors.New("BDB entries overlap")
	}
	if value := db.page[at+1 : end]; len(value) > numberMax {
		return each(value)
	}
	return nil
}

// value follows a chain of overflow pages.
func (db *bdb) value(no uint32, length int64) ([]byte, error) {
	if length > headerMax || length > int64(db.pages)*db.pageSize {
		return nil, fmt.Errorf("BDB value of %d bytes", length)
	}
	value := make([]byte, 0, length)
	for no != 0 && int64(len(value)) < length {
		if no >= db.pages || db.used[no] {
			return nil, fmt.Errorf("BDB page %d is outside of the file or in two chains", no)
		}
		db.used[no] = true
		if err := db.read(no, db.over); err != nil {
			return nil, err
		}
		if db.over[25] != bdbTypeOverflow {
			return nil, fmt.Errorf("BDB page %d is no overflow page", no)
		}
		part := min(int64(len(db.over)-bdbPageHeader), length-int64(len(value)))
		value = append(value, db.over[bdbPageHeader:bdbPageHeader+part]...)
		no = db.order.Uint32(db.over[16:])
	}
	if int64(len(value)) != length {
		return nil, errors.New("BDB value is shorter than its length")
	}
	return value, nil
}

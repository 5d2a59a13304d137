package rpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// NDB, rpm's own "new" database (rpm lib/backend/ndb/rpmpkg.c), little endian:
// a header of 32 bytes, slots of 16 bytes up to the end of the last slot page,
// then blobs in blocks of 16 bytes.
const (
	ndbMagic      = "RpmP"
	ndbSlotMagic  = "Slot"
	ndbBlobMagic  = "BlbS"
	ndbPage       = 4096
	ndbSlotSize   = 16
	ndbBlock      = 16
	ndbSlotsStart = 32
	ndbPagesMax   = 2048 // slot pages: 524,286 packages
)

func readNDB(r io.ReaderAt, size int64, each func([]byte) error) error {
	head := make([]byte, ndbSlotsStart)
	if _, err := r.ReadAt(head, 0); err != nil {
		return fmt.Errorf("NDB header: %w", err)
	}
	version, slotPages := binary.LittleEndian.Uint32(head[4:]), int64(binary.LittleEndian.Uint32(head[12:]))
	if version != 0 || slotPages == 0 || slotPages > ndbPagesMax || slotPages*ndbPage > size {
		return fmt.Errorf("NDB version %d with %d slot pages is not readable", version, slotPages)
	}
	slots := make([]byte, slotPages*ndbPage-ndbSlotsStart)
	if _, err := r.ReadAt(slots, ndbSlotsStart); err != nil {
		return fmt.Errorf("NDB slots: %w", err)
	}
	// Blobs cannot overlap, so that all of them together are not larger than
	// the file; slots that all point at one large blob would be.
	left := size
	for ; len(slots) > 0; slots = slots[ndbSlotSize:] {
		if string(slots[:4]) != ndbSlotMagic {
			return errors.New("NDB slot without its magic")
		}
		index, block := binary.LittleEndian.Uint32(slots[4:]), int64(binary.LittleEndian.Uint32(slots[8:]))
		if index == 0 {
			continue // free
		}
		blob, err := readNDBBlob(r, size, block*ndbBlock, index)
		if err != nil {
			return err
		}
		if left -= int64(len(blob)) + ndbBlock; left < 0 {
			return errors.New("NDB blobs overlap")
		}
		if err := each(blob); err != nil {
			return err
		}
	}
	return nil
}

func readNDBBlob(r io.ReaderAt, size, at int64, index uint32) ([]byte, error) {
	head := make([]byte, 16)
	if _, err := r.ReadAt(head, at); err != nil {
		return nil, fmt.Errorf("NDB blob %d: %w", index, err)
	}
	if string(head[:4]) != ndbBlobMagic || binary.LittleEndian.Uint32(head[4:]) != index {
		return nil, fmt.Errorf("NDB blob %d is not where its slot says", index)
	}
	length := int64(binary.LittleEndian.Uint32(head[12:]))
	if length > headerMax || at+16+length > size {
		return nil, fmt.Errorf("NDB blob %d has %d bytes", index, length)
	}
	blob := make([]byte, length)
	if _, err := r.ReadAt(blob, at+16); err != nil && !(err == io.EOF && length == 0) {
		return nil, fmt.Errorf("NDB blob %d: %w", index, asTruncated(err))
	}
	return blob, nil
}

func asTruncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

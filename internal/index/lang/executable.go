package lang

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// goReadMax is what reading the build information of one executable may
	// cost in bytes: headers, section table and the information itself, which
	// is a few hundred KiB in the largest programs.
	goReadMax = 4 << 20
	// goMagic starts Go's build information (debug/buildinfo), aligned to
	// goMagicAlign bytes.
	goMagic      = "\xff Go buildinf:"
	goSection    = ".go.buildinfo"
	goMagicAlign = 16
)

// IsExecutable reports whether a file with these first bytes is an ELF, PE or
// Mach-O file.
func IsExecutable(head []byte) bool {
	for _, magic := range []string{
		"\x7fELF", "MZ",
		"\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}

// Executable reads what a Go or a Rust (cargo-auditable) program was built
// from. Errors: ErrOther for a program of neither kind; one that is packed, so
// that nobody can tell, is refused.
func Executable(r *io.SectionReader) ([]gatehouse.Package, error) {
	marks, err := findMarks(r)
	if err != nil {
		return nil, err
	}
	if marks.golang {
		packages, err := goPackages(r)
		if err != nil || len(packages) > 0 {
			return packages, err
		}
		if marks.golangAligned && !marks.rust {
			return nil, errors.New("build information of Go cannot be read")
		}
	}
	if marks.rust {
		return rustPackages(r)
	}
	if isPacked(r) {
		return nil, errors.New("the program is packed or has lost its section table, so that nobody can tell what it was built from")
	}
	return nil, ErrOther
}

type marks struct{ golang, golangAligned, rust bool }

// findMarks tells cheaply what an executable may be, since to parse every
// executable of a distribution would not be: an ELF file by the names of its
// sections, which both linkers keep, and where one that Go's would have is not
// there, by the data that a program is loaded with, as Go itself does; any other
// file, or one that lost its section table, by looking for the marks themselves.
func findMarks(r *io.SectionReader) (marks, error) {
	names := elfSectionNames(r)
	if names == nil {
		return scanMarks(r)
	}
	m := marks{golang: bytes.Contains(names, []byte(goSection)), rust: bytes.Contains(names, []byte(rustSection))}
	m.golangAligned = m.golang
	if m.golang {
		return m, nil
	}
	for _, part := range elfData(r) {
		found, err := scanMarks(part)
		if err != nil {
			return m, err
		}
		m.golang, m.golangAligned = m.golang || found.golang, m.golangAligned || found.golangAligned
	}
	return m, nil
}

// elfData returns the parts of a 64-bit little-endian ELF file that are loaded to be
// written to (System V ABI, "Program Header"), as far as they do not overlap.
func elfData(r *io.SectionReader) []*io.SectionReader {
	const headSize, entrySize, entriesMax, load, write, execute = 64, 56, 64, 1, 2, 1
	h := make([]byte, headSize)
	if _, err := r.ReadAt(h, 0); err != nil {
		return nil
	}
	le := binary.LittleEndian
	table, size, count := le.Uint64(h[32:]), le.Uint16(h[54:]), le.Uint16(h[56:])
	if table > 1<<40 || size != entrySize {
		return nil
	}
	var parts []*io.SectionReader
	left := uint64(r.Size())
	p := make([]byte, entrySize)
	for i := range min(count, entriesMax) {
		if _, err := r.ReadAt(p, int64(table)+int64(i)*entrySize); err != nil {
			return parts
		}
		at, length := le.Uint64(p[8:]), le.Uint64(p[32:])
		if le.Uint32(p) != load || le.Uint32(p[4:])&(write|execute) != write || at >= uint64(r.Size()) {
			continue
		}
		length = min(length, uint64(r.Size())-at, left)
		left -= length
		parts = append(parts, io.NewSectionReader(r, int64(at), int64(length)))
	}
	return parts
}

// isPacked knows programs that unpack themselves: by UPX's mark, or an ELF program
// without a section table, which only packers and people take away.
func isPacked(r io.ReaderAt) bool {
	const headSize, execType, libraryType = 1024, 2, 3
	head := make([]byte, headSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return true
	}
	head = head[:n]
	switch {
	case len(head) < 64:
		return false
	case bytes.HasPrefix(head, []byte("MZ")):
		return bytes.Contains(head, []byte("UPX0")) || bytes.Contains(head, []byte("UPX!"))
	case !bytes.HasPrefix(head, []byte("\x7fELF")):
		return false
	case bytes.Contains(head, []byte("UPX!")):
		return true
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	kind, table := order.Uint16(head[16:]), order.Uint64(head[40:])
	if head[4] == 1 { // 32 bits
		table = uint64(order.Uint32(head[32:]))
	}
	return table == 0 && (kind == execType || kind == libraryType)
}

// elfSectionNames returns the table of section names of a 64-bit little-endian
// ELF file (System V ABI, "ELF Header" and "Section Header"), nil for any
// other and where it is missing or makes no sense.
func elfSectionNames(r io.ReaderAt) []byte {
	const headSize, sectionSize, namesMax = 64, 64, 64 << 10
	h := make([]byte, headSize)
	if _, err := r.ReadAt(h, 0); err != nil || string(h[:6]) != "\x7fELF\x02\x01" {
		return nil
	}
	le := binary.LittleEndian
	table, size, count, names := le.Uint64(h[40:]), le.Uint16(h[58:]), le.Uint16(h[60:]), le.Uint16(h[62:])
	if table == 0 || table > 1<<40 || size != sectionSize || names == 0 || names >= count {
		return nil
	}
	s := make([]byte, sectionSize)
	if _, err := r.ReadAt(s, int64(table)+int64(names)*sectionSize); err != nil {
		return nil
	}
	at, length := le.Uint64(s[24:]), le.Uint64(s[32:])
	if at > 1<<40 || length == 0 || length > namesMax {
		return nil
	}
	text := make([]byte, length)
	if _, err := r.ReadAt(text, int64(at)); err != nil && err != io.EOF {
		return nil
	}
	return text
}

func scanMarks(r *io.SectionReader) (marks, error) {
	const window, overlap = 64 << 10, 32
	var m marks
	buf := make([]byte, min(window, r.Size()))
	for at := int64(0); at < r.Size(); at += window - overlap {
		n, err := r.ReadAt(buf[:min(window, r.Size()-at)], at)
		if err != nil && err != io.EOF {
			return m, err
		}
		part := buf[:n]
		m.rust = m.rust || bytes.Contains(part, []byte(rustSection))
		for from := 0; !m.golangAligned; {
			i := bytes.Index(part[from:], []byte(goMagic))
			if i < 0 {
				break
			}
			m.golang = true
			m.golangAligned = (at+int64(from+i))%goMagicAlign == 0
			from += i + 1
		}
	}
	return m, nil
}

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
// from. Errors: ErrOther for a program of neither kind.
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
	return nil, ErrOther
}

type marks struct{ golang, golangAligned, rust bool }

// findMarks tells cheaply what an executable may be, since to parse every
// executable of a distribution would not be: an ELF file by the names of its
// sections, which both linkers keep, and any other, or one that lost its
// section table, by looking for the marks themselves.
func findMarks(r *io.SectionReader) (marks, error) {
	if names := elfSectionNames(r); names != nil {
		m := marks{golang: bytes.Contains(names, []byte(goSection)), rust: bytes.Contains(names, []byte(rustSection))}
		m.golangAligned = m.golang
		return m, nil
	}
	return scanMarks(r)
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

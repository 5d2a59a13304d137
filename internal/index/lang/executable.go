package lang

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	cpb "github.com/google/osv-scalibr/binary/proto/config_go_proto"
	"github.com/google/osv-scalibr/extractor/filesystem/language/golang/gobinary"

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
func Executable(ctx context.Context, name string, r *io.SectionReader) ([]gatehouse.Package, error) {
	marks, err := findMarks(r)
	if err != nil {
		return nil, err
	}
	if marks.golang {
		packages, err := goPackages(ctx, name, r)
		if err != nil || len(packages) > 0 {
			return packages, err
		}
		if marks.golangAligned && !marks.rust {
			return nil, errors.New("Go build information cannot be read")
		}
	}
	if marks.rust {
		return rustPackages(r)
	}
	return nil, ErrOther
}

type marks struct{ golang, golangAligned, rust bool }

// findMarks looks for the two marks in one pass, which is far cheaper than to
// parse every executable of a distribution.
func findMarks(r *io.SectionReader) (marks, error) {
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

// goPackages returns the main module, its dependencies and the standard
// library, the latter as package "stdlib", as Go's vulnerability database
// calls it. Versions have no "v". A main module built from a working tree has
// no version; a dependency replaced by a local directory is not a package.
func goPackages(ctx context.Context, name string, r *io.SectionReader) ([]gatehouse.Package, error) {
	b := &budget{r: r, left: goReadMax}
	content := struct {
		io.Reader
		io.ReaderAt
	}{r, b}
	found, err := run(ctx, gobinary.New, &cpb.PluginConfig{}, name, content, r.Size())
	if b.spent {
		return nil, errors.New("Go build information needs more reading than is allowed")
	}
	packages := found[:0]
	for _, p := range found {
		switch {
		case p.Name == "go":
			p.Name = "stdlib"
			if p.Version == "" || p.Version[0] < '0' || p.Version[0] > '9' {
				p.Version = "" // "devel +1234abc": no release
			}
		case p.Version == "(devel)":
			p.Version = ""
		case strings.HasPrefix(p.Name, "./"), strings.HasPrefix(p.Name, "../"), strings.HasPrefix(p.Name, "/"):
			continue
		}
		packages = append(packages, p)
	}
	return packages, err
}

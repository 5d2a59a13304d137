package lang

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// rustSection holds cargo-auditable's list, JSON in zlib.
	rustSection = ".dep-v0"
	// rustReadMax is what the headers and the section may cost in bytes,
	// rustListMax the list itself; 1,000 crates are 200 KiB.
	rustReadMax = 8 << 20
	rustListMax = 2 << 20
)

// rustPackages reads the runtime dependencies of a program that was built with
// cargo-auditable.
//
// osv-scalibr's extractor is not used: its reader of the section inflates
// without a bound.
func rustPackages(r *io.SectionReader) ([]gatehouse.Package, error) {
	b := &budget{r: r, left: rustReadMax}
	section, err := rustDeps(b, r.Size())
	if b.spent {
		return nil, errors.New("dependency list of Rust needs more reading than is allowed")
	}
	if err != nil || section == nil {
		// The mark stood somewhere in the program, not among its sections.
		return nil, ErrOther
	}
	z, err := zlib.NewReader(bytes.NewReader(section))
	if err != nil {
		return nil, fmt.Errorf("dependency list of Rust: %w", err)
	}
	list, err := io.ReadAll(io.LimitReader(z, rustListMax+1))
	if err != nil {
		return nil, fmt.Errorf("dependency list of Rust: %w", err)
	}
	if len(list) > rustListMax {
		return nil, fmt.Errorf("dependency list of Rust is larger than %d bytes", rustListMax)
	}
	var deps struct {
		Packages []struct {
			Name, Version, Kind string
		} `json:"packages"`
	}
	if err := json.Unmarshal(list, &deps); err != nil {
		return nil, fmt.Errorf("dependency list of Rust: %w", err)
	}
	var packages []gatehouse.Package
	for _, d := range deps.Packages {
		if d.Kind == "" || d.Kind == "runtime" {
			packages = append(packages, gatehouse.Package{Type: "cargo", Name: d.Name, Version: d.Version})
		}
	}
	return packages, nil
}

// rustDeps returns the section, nil where there is none.
func rustDeps(r io.ReaderAt, size int64) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		f, err := elf.NewFile(r)
		if err != nil {
			return nil, err
		}
		if s := f.Section(rustSection); s != nil && s.Size <= uint64(min(size, rustReadMax)) {
			return s.Data()
		}
	case bytes.HasPrefix(head, []byte("MZ")):
		f, err := pe.NewFile(r)
		if err != nil {
			return nil, err
		}
		if s := f.Section(rustSection); s != nil {
			return s.Data()
		}
	default:
		f, err := macho.NewFile(r)
		if err != nil {
			return nil, err
		}
		if s := f.Section(rustSection); s != nil && s.Size <= uint64(min(size, rustReadMax)) {
			return s.Data()
		}
	}
	return nil, nil
}

// Package apk reads the database of installed packages of Alpine's package
// manager (lib/apk/db/installed, apk-tools version 2 text) into packages. It
// knows no distribution.
package apk

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// lineMax is the longest line in bytes of a field that is read. Longer lines
// of other fields are skipped.
const lineMax = 64 << 10

// pathMax is the longest path of a file in bytes, pathBytesMax what all paths of
// a database may have together: a folder is named once for many files.
const (
	pathMax      = 4096
	pathBytesMax = 64 << 20
)

// ErrTooMany says that max packages were read and more follow.
var ErrTooMany = errors.New("too many packages")

// Parse reads an installed database. Packages that were read before an error
// are returned with it. owns, which may be nil, is told of the files with the
// package that installed them, within pathBytesMax.
func Parse(r io.Reader, max int, owns func(file, pkg string)) ([]gatehouse.Package, error) {
	lines := bufio.NewReaderSize(r, lineMax)
	if head, _ := lines.Peek(3); string(head) == "ADB" {
		return nil, errors.New("database is of apk-tools 3's binary form, which is not read")
	}
	var packages []gatehouse.Package
	var firstErr error
	left := pathBytesMax
	p := entry{left: &left}
	flush := func() error {
		defer func() { p = entry{left: &left} }()
		if !p.any {
			return nil
		}
		if len(packages) >= max {
			return ErrTooMany
		}
		if p.bad || p.name == "" || p.version == "" {
			// One bad entry does not hide the others.
			firstErr = cmp.Or(firstErr, fmt.Errorf("package %.80q %.80q has a field that is missing, longer than %d bytes or there twice", p.name, p.version, lineMax))
			return nil
		}
		packages = append(packages, p.pkg())
		return nil
	}
	for {
		line, err := lines.ReadSlice('\n')
		long := err == bufio.ErrBufferFull
		if long {
			line = bytes.Clone(line[:2])
			for err == bufio.ErrBufferFull {
				_, err = lines.ReadSlice('\n')
			}
		}
		if err != nil && err != io.EOF {
			return packages, err
		}
		// apk takes any line that is too short for a field for the end of a package.
		if line := bytes.TrimRight(line, "\r\n"); len(line) < 2 {
			if err := flush(); err != nil {
				return packages, err
			}
		} else {
			p.field(line, long)
			if owns != nil && !long {
				p.file(line, owns)
			}
		}
		if err == io.EOF {
			return packages, cmp.Or(flush(), firstErr)
		}
	}
}

type entry struct {
	name, version, arch, origin, license string

	folder   string // of the files that follow
	left     *int   // bytes of paths that may still be made
	any, bad bool
}

// file takes the lines F (a folder) and R (a file in it), which follow the
// package's own.
func (e *entry) file(line []byte, owns func(file, pkg string)) {
	value, isFile := bytes.CutPrefix(line, []byte("R:"))
	if isFile {
		if n := len(e.folder) + len(value); n <= pathMax && n <= *e.left {
			*e.left -= n
			owns(path.Join(e.folder, string(value)), e.name)
		}
	} else if value, isFolder := bytes.CutPrefix(line, []byte("F:")); isFolder {
		e.folder = string(value)
	}
}

// field takes one line, a letter, a colon and a value. Those of files (F, R, a,
// Z, M) are the bulk and are passed over.
func (e *entry) field(line []byte, long bool) {
	if len(line) < 2 || line[1] != ':' {
		return
	}
	var to *string
	switch line[0] {
	case 'P':
		to = &e.name
	case 'V':
		to = &e.version
	case 'A':
		to = &e.arch
	case 'o':
		to = &e.origin
	case 'L':
		to = &e.license
	default:
		return
	}
	e.any = true
	if long {
		e.bad = e.bad || line[0] != 'L'
		return
	}
	value := bytes.TrimSpace(line[2:])
	if (line[0] == 'P' || line[0] == 'V') && *to != "" {
		e.bad = true // two packages in one would be one less
		return
	}
	*to = string(value)
}

func (e *entry) pkg() gatehouse.Package {
	p := gatehouse.Package{Type: "apk", Name: e.name, Version: e.version, Arch: e.arch}
	if e.origin != e.name {
		p.Source = e.origin
	}
	if l := strings.TrimSpace(e.license); l != "" {
		p.Licenses = []string{l}
	}
	return p
}

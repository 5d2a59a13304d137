// Package dpkg reads the status database of Debian's package manager
// (deb822(5), dpkg(1) "PACKAGE STATES") into packages. It knows no
// distribution, follows no other file and keeps nothing of a paragraph but the
// fields it needs.
package dpkg

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// lineMax is the longest line in bytes of a field that is read. Longer lines of
// other fields are skipped.
const lineMax = 64 << 10

// ErrTooMany says that max packages were read and more follow.
var ErrTooMany = errors.New("too many packages")

// Parse reads the paragraphs of a status file. In a main database (split is
// false) a package without a Status field is not installed; in a file of
// status.d, as distroless images have, one that is listed is installed.
//
// A package counts as installed when its files are there: in the states
// installed, unpacked, half-configured, triggers-awaited and triggers-pending,
// whatever is wanted of it ("hold ok installed" is installed). Packages that
// were read before an error are returned with it.
func Parse(r io.Reader, split bool, max int) ([]gatehouse.Package, error) {
	lines := bufio.NewReaderSize(r, lineMax)
	var packages []gatehouse.Package
	var firstErr error
	var p paragraph
	flush := func() error {
		defer func() { p = paragraph{} }()
		if p.empty() || !p.installed(split) {
			return nil
		}
		if len(packages) >= max {
			return ErrTooMany
		}
		pkg, err := p.pkg()
		if err != nil {
			// One bad paragraph does not hide the others.
			firstErr = cmp.Or(firstErr, err)
			return nil
		}
		packages = append(packages, pkg)
		return nil
	}
	for {
		line, long, err := readLine(lines)
		if err == io.EOF {
			break
		}
		if err != nil {
			return packages, err
		}
		if len(bytes.TrimRight(line, " \t")) == 0 {
			if err := flush(); err != nil {
				return packages, err
			}
			continue
		}
		p.field(line, long)
	}
	if err := flush(); err != nil {
		return packages, err
	}
	return packages, firstErr
}

// ListPackage returns the package whose list of installed files a file is, ""
// if it is none: NAME.list or NAME:ARCH.list in dpkg's folder, and
// NAME.md5sums beside the status files of distroless images.
func ListPackage(base string, split bool) string {
	end := ".list"
	if split {
		end = ".md5sums"
	}
	name, ok := strings.CutSuffix(base, end)
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, ":")
	return name
}

// pathLineMax is the longest line in bytes of a list of files.
const pathLineMax = 8 << 10

// Files reads a list of installed files: a path per line, in a list of md5sums
// behind the sum. Lines longer than a path can be are passed over.
func Files(r io.Reader, split bool, each func(file string)) error {
	lines := bufio.NewReaderSize(r, pathLineMax)
	for {
		line, long, err := readLine(lines)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		file := string(line)
		if split {
			_, file, _ = strings.Cut(file, "  ")
		}
		if !long && file != "" {
			each(file)
		}
	}
}

// readLine returns a line without its end, cut at lineMax.
func readLine(r *bufio.Reader) (line []byte, long bool, err error) {
	line, err = r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		line = bytes.Clone(line)
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
		if err == io.EOF {
			err = nil
		}
		return line, true, err
	}
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return bytes.TrimRight(line, "\r\n"), false, err
}

// paragraph is what is needed of one.
type paragraph struct {
	name, status, version, source, arch string
	bad                                 error // what is wrong with it
}

func (p *paragraph) empty() bool { return p.name == "" && p.status == "" && p.version == "" }

// field takes one line; continuation lines belong to fields that are not needed.
func (p *paragraph) field(line []byte, long bool) {
	if line[0] == ' ' || line[0] == '\t' {
		return
	}
	key, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return
	}
	key = bytes.TrimRight(key, " \t") // dpkg's parser allows it
	var to *string
	switch {
	case bytes.EqualFold(key, []byte("Package")):
		to = &p.name
	case bytes.EqualFold(key, []byte("Status")):
		to = &p.status
	case bytes.EqualFold(key, []byte("Version")):
		to = &p.version
	case bytes.EqualFold(key, []byte("Source")):
		to = &p.source
	case bytes.EqualFold(key, []byte("Architecture")):
		to = &p.arch
	default:
		return
	}
	switch {
	case long:
		p.bad = fmt.Errorf("field %s is longer than %d bytes", key, lineMax)
	case *to != "":
		p.bad = fmt.Errorf("field %s stands there twice", key)
	default:
		*to = string(bytes.TrimSpace(value))
	}
}

// installed reports whether the package counts: also one of which that cannot be
// told, which pkg then refuses. dpkg compares the words of a status without case.
func (p *paragraph) installed(split bool) bool {
	words := strings.Fields(strings.ToLower(p.status))
	if p.bad != nil {
		return true
	}
	if len(words) == 0 {
		return split
	}
	if len(words) != 3 {
		p.bad = fmt.Errorf("status %.80q is none", p.status)
		return true
	}
	switch words[2] {
	case "installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending":
		return true
	case "not-installed", "config-files", "half-installed":
		return false
	}
	p.bad = fmt.Errorf("status %.80q is unknown", p.status)
	return true
}

func (p *paragraph) pkg() (gatehouse.Package, error) {
	if p.bad != nil {
		return gatehouse.Package{}, fmt.Errorf("package %.80q: %w", p.name, p.bad)
	}
	if p.name == "" || p.version == "" {
		return gatehouse.Package{}, fmt.Errorf("package %.80q %.80q has no name or no version", p.name, p.version)
	}
	p.name = strings.ToLower(p.name) // as dpkg does
	pkg := gatehouse.Package{Type: "deb", Name: p.name, Version: p.version, Arch: p.arch}
	source, version := splitSource(p.source)
	if source != p.name {
		pkg.Source = source
	}
	if version != p.version {
		pkg.SourceVersion = version
	}
	return pkg, nil
}

// splitSource parses "name" or "name (version)" (deb-control(5), Source).
func splitSource(s string) (name, version string) {
	name, rest, ok := strings.Cut(s, "(")
	if ok {
		version, _, _ = strings.Cut(rest, ")")
	}
	return strings.TrimSpace(name), strings.TrimSpace(version)
}

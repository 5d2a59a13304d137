// Package rpm reads the databases of installed packages of RPM in all their
// forms: SQLite (rpm 4.16 and later), NDB (SUSE), Berkeley DB hash (before),
// and the text manifest of distroless Azure Linux. It knows no distribution.
//
// All three binary readers are our own, over an io.ReaderAt. Those of
// knqyf263/go-rpmdb, the oracle in our tests, cannot meet the bounds: they
// parse in a goroutine of their own, where a panic on a corrupt page ends the
// process and an abandoned read leaks; a Berkeley DB chain that points at
// itself never ends; an NDB blob may ask for 4 GiB; and SQLite needs an SQL
// driver and a path.
package rpm

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

const (
	// headerMax is the largest package header in bytes. rpm's own limit is
	// 256 MiB; the largest seen, of a kernel or a font collection, is 8 MiB.
	headerMax = 32 << 20
	// pagesMax is the most pages of a database, 512 MiB in the smallest page.
	pagesMax = 1 << 20
	// pathMax is the longest path of a file in bytes, pathBytesMax what all
	// paths of a database may have together: few bytes of a header make many.
	pathMax      = 4096
	pathBytesMax = 64 << 20
)

// ErrTooMany says that max packages were read and more follow.
var ErrTooMany = errors.New("too many packages")

// ErrNotDatabase says that the file is of none of the known forms.
var ErrNotDatabase = errors.New("file is no RPM database of a known form")

// Parse finds out the form of the database and returns its packages, without
// the public keys that rpm keeps beside them. Packages that were read before
// an error are returned with it. owns, which may be nil, is told of the files
// with the package that installed them, within pathBytesMax.
func Parse(r io.ReaderAt, size int64, max int, owns func(file, pkg string)) ([]gatehouse.Package, error) {
	head := make([]byte, 32)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	head = head[:n]
	var read func(io.ReaderAt, int64, func([]byte) error) error
	switch {
	case bytes.HasPrefix(head, []byte(sqliteMagic)):
		read = readSQLite
	case bytes.HasPrefix(head, []byte(ndbMagic)):
		read = readNDB
	case isBDB(head):
		read = readBDB
	default:
		return nil, ErrNotDatabase
	}
	var packages []gatehouse.Package
	var firstErr error
	left := int64(pathBytesMax)
	err = read(r, size, func(blob []byte) error {
		p, err := parseHeader(blob)
		if err != nil {
			firstErr = cmp.Or(firstErr, err) // one bad header does not hide the others
			return nil
		}
		if p.Name == "gpg-pubkey" {
			return nil
		}
		if len(packages) >= max {
			return ErrTooMany
		}
		packages = append(packages, p)
		if owns != nil {
			files(blob, &left, func(file string) { owns(file, p.Name) })
		}
		return nil
	})
	return packages, cmp.Or(err, firstErr)
}

// ParseManifest reads var/lib/rpmmanifest/container-manifest-2: ten columns
// between tabs (name, version-release, install time, build time, vendor,
// epoch, size, arch, epoch number, source rpm).
func ParseManifest(r io.Reader, max int) ([]gatehouse.Package, error) {
	var packages []gatehouse.Package
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) < 10 {
			return packages, fmt.Errorf("line has %d columns, not 10", len(f))
		}
		if f[0] == "gpg-pubkey" {
			continue
		}
		if len(packages) >= max {
			return packages, ErrTooMany
		}
		version, release, _ := strings.Cut(f[1], "-")
		h := header{name: f[0], version: version, release: release, arch: f[7], vendor: f[4], source: f[9]}
		if f[5] != "(none)" && f[5] != "" {
			h.epoch = f[5]
		}
		packages = append(packages, h.pkg())
	}
	return packages, lines.Err()
}

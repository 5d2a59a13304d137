// Package index turns the layers of an image into an inventory: a layer's
// bytes go in, once and in a stream, and a [gatehouse.LayerInventory] comes
// out: packages, secrets, misconfiguration, digests of what can be executed;
// Compose lays the layers of an image over each other.
//
// The walk is bounded in memory, size and time whatever the layer holds
// (see [Limits]); nothing of it is ever written under a name that the layer
// chose. What could not be read makes the inventory incomplete, with a
// reason; it is never left out silently. The package knows no advisory, no
// database and no clock, and it does not log.
//
//	analysis.go   what is looked for
//	layer.go      Layer: one stream, two digests, one walk
//	stream.go     read ahead, inflate ahead, hash beside
//	format.go     gzip, zstd or tar
//	walk.go       what each tar entry means
//	inspect.go    every file's bytes, piece by piece, to those who ask for them
//	collect.go    the packages that the walk has found, within bounds
//	noted.go      what else it has found
//	extractors.go which file is whose
//	inspectors.go secrets, modes, accounts, digests
//	skip.go       what is not looked at
//	strange.go    what specification and runtimes do not agree on
//	hidden.go     what upper layers hide
//	owned.go      which packages came with one of the operating system
//	origin.go     which step a layer comes from, and whether that was of a base
//	compose.go    layers → image
//	attribute.go  findings and files of layers → of the image
//	rootfs.go     a directory instead of a layer
//
// The parsers are packages of their own and know nothing of layers: dpkg, apk,
// rpm, osrelease, and lang for the formats of programming languages; secret
// knows what secrets look like, misconfig what is wrong with a file or a
// configuration. body holds the bytes of one file, in memory or in an unlinked
// file.
//
// BUG(index): a symbolic link of a lower layer is not resolved when an upper
// layer writes through it: the upper file keeps the path as written, so that
// it does not hide the lower file that it replaces. Such an image is
// over-reported, never under-reported: where the link leads package managers to
// a database that is not read, the image is not complete. The same holds for a
// directory, or a regular file without execute permission, in place of a lower
// executable.
package index

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/gatehouse-dev/gatehouse"
)

// Extractor reads packages from files of one kind. Its methods may be called
// concurrently. The first extractor of a list that wants a path gets it.
type Extractor interface {
	// Name is stable: it is part of what is stored.
	Name() string
	// Version changes when Extract would give another answer for equal bytes.
	Version() int
	// Wants tells from the name alone whether the file is of this kind. It is
	// asked for every entry of every layer and must be cheap. size is in
	// bytes, -1 where it is not known (a hard link).
	Wants(path string, size int64, mode fs.FileMode) bool
	// FileMax is the largest file in bytes that Extract may be given. A larger
	// one makes the inventory incomplete.
	FileMax() int64
	// Extract reads one file. The set's Path and Extractor are filled in by
	// the caller. An error makes the inventory incomplete; packages that are
	// returned beside it are kept. [ErrNotMine] is no error.
	Extract(ctx context.Context, file File) (gatehouse.PackageSet, error)
}

// Sniffer is an [Extractor] that can tell from the first bytes of a file that
// it is not of its kind, so that the rest need not be kept.
type Sniffer interface {
	Extractor
	// Sniff is given up to 16 bytes.
	Sniff(path string, size int64, head []byte) bool
	// Expects tells from the name whether most such files are of the kind. Of
	// others only what is of the kind is remembered: not that it took a place.
	Expects(path string, mode fs.FileMode) bool
}

// ErrNotMine is what Extract returns for a file that its name, but not its
// content, made look like one of its kind. The path still hides what lower
// layers hold there.
var ErrNotMine = errors.New("the file is of another kind")

// ErrNoPackages is what Extract returns for a file that it has read and that
// never tells of packages, such as a list of files. There is no set for it, and
// it hides nothing of lower layers.
var ErrNoPackages = errors.New("the file tells of no packages")

// File is one file of a layer. It is valid until Extract returns.
type File struct {
	Path string // cleaned, relative to the root, no leading slash
	Size int64  // bytes
	Mode fs.FileMode
	// Body gives random access; it stands at the start.
	Body *io.SectionReader
	// Limits are those of the walk, for what nests (archives).
	Limits Limits
	// Owns takes from the extractor of a database of the operating system that
	// a package of it installed a file, both in the words of the database. It
	// may be nil.
	Owns func(file, pkg string)
	// Licensed takes which licences a file says that a Debian package is under.
	// It may be nil.
	Licensed func(pkg string, licenses []string)
	// Inflates is asked before bytes of an archive are inflated, and refuses what
	// would be too much for one layer. It may be nil.
	Inflates func(bytes int64) bool
}

func (f File) owns(file, pkg string) {
	if f.Owns != nil {
		f.Owns(file, pkg)
	}
}

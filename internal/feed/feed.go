// Package feed reads published advisories. The bytes of a file go in, whatever
// its name says, and a [gatehouse.Publication] comes out; nothing here dials,
// stores or matches. Each format has its own folder; [Open] tells them apart.
//
// Feeds come from elsewhere and count as hostile: everything that is read is
// bounded, and a damaged file is an error and never half an answer.
package feed

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/epss"
	"github.com/gatehouse-dev/gatehouse/internal/feed/kev"
	"github.com/gatehouse-dev/gatehouse/internal/feed/nvd"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/feed/trivydb"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

// Options for [Open].
type Options struct {
	// TempDir is where compressed databases are unpacked; empty: os.TempDir().
	TempDir string
}

// File is one opened file of a feed.
type File struct {
	gatehouse.Publication
	// NextUpdate is when the feed's maker wants it to be fetched again; zero
	// where he does not say.
	NextUpdate time.Time
	close      func() error
}

// Close removes what was unpacked. The records must have been read.
func (f *File) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

// Limits of what is looked at and unpacked here; the formats have their own.
const (
	headBytes     = 4 << 10
	directoryMax  = 128 << 20 // of a zip
	gzipBytesMax  = 8 << 30   // of a gzip's contents
	entryBytesMax = 8 << 30   // of one file of a zip
)

// Open finds out what a file is by its content and opens it: OSV records (a zip
// as OSV.dev publishes them, one record, an array), Trivy's database (trivy.db,
// or the tar.gz of its OCI artifact), NVD JSON 2.0, CISA's KEV catalog (each as
// JSON, gzip or zip), and FIRST's EPSS scores (CSV, gzip).
//
// Name is for error messages and becomes the publication's Source. The file is
// read through r while the records are read, and r must stay open until then;
// tables are read at once. OSV and NVD files are taken for a part of what their
// feed holds; the caller who knows better sets Feed and Whole.
// Errors: CodeInvalid for what is none of these or damaged, CodeTooLarge.
func Open(ctx context.Context, name string, r io.ReaderAt, size int64, opts Options) (*File, error) {
	f, err := open(ctx, r, size, opts)
	if err != nil {
		return nil, unpack.Within(name, err)
	}
	f.Source = name
	if f.Records != nil {
		f.Records = unpack.Named(name, f.Records)
	}
	return f, nil
}

func open(ctx context.Context, r io.ReaderAt, size int64, opts Options) (*File, error) {
	head := make([]byte, headBytes)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%w", err)
	}
	head = head[:n]
	whole := func() (io.Reader, error) { return io.NewSectionReader(r, 0, size), nil }
	switch {
	case unpack.IsZip(head):
		return openZip(ctx, r, size)
	case trivydb.Is(head):
		db, err := trivydb.Open(r, size, trivydb.DefaultLimits())
		return trivyFile(ctx, db, err)
	case unpack.IsGzip(head):
		return openGzip(ctx, whole, opts)
	}
	return openPlain(ctx, kindOf(head), whole)
}

// source opens a file's unpacked bytes from their beginning.
type source func() (io.Reader, error)

// openGzip looks at what a gzip holds.
func openGzip(ctx context.Context, packed source, opts Options) (*File, error) {
	plain := func() (io.Reader, error) {
		r, err := packed()
		if err != nil {
			return nil, err
		}
		return unpack.Gunzip(r, gzipBytesMax)
	}
	head, err := headOf(plain)
	if err != nil {
		return nil, err
	}
	if isTar(head) {
		r, err := packed()
		if err != nil {
			return nil, err
		}
		db, err := trivydb.OpenArchive(ctx, r, opts.TempDir, trivydb.DefaultLimits())
		return trivyFile(ctx, db, err)
	}
	return openPlain(ctx, kindOf(head), plain)
}

// openZip tells a zip of OSV records from one that holds a catalog or a year of
// NVD, by its first JSON file.
func openZip(ctx context.Context, r io.ReaderAt, size int64) (*File, error) {
	z, err := unpack.Zip(r, size, directoryMax)
	if err != nil {
		return nil, err
	}
	for _, f := range z.File {
		if !strings.EqualFold(path.Ext(f.Name), ".json") || f.FileInfo().IsDir() {
			continue
		}
		plain := entry(f)
		head, err := headOf(plain)
		if err != nil {
			return nil, err
		}
		if kind := kindOf(head); kind == kindKEV || kind == kindNVD || kind == kindOldNVD {
			return openPlain(ctx, kind, plain)
		}
		break
	}
	return osvFile(osv.ReadZip(ctx, r, size, osv.DefaultLimits())), nil
}

func entry(f *zip.File) source {
	return func() (io.Reader, error) {
		r, err := f.Open() // needs no Close: nothing but memory is held
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q cannot be unpacked: %w", f.Name, err)
		}
		return unpack.Bounded(r, entryBytesMax), nil
	}
}

func headOf(s source) ([]byte, error) {
	r, err := s()
	if err != nil {
		return nil, err
	}
	head := make([]byte, headBytes)
	n, err := io.ReadFull(r, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

// isTar looks for POSIX's magic word.
func isTar(head []byte) bool {
	const at = 257
	return len(head) >= at+5 && bytes.Equal(head[at:at+5], []byte("ustar"))
}

// openPlain opens a file that is not packed, or no longer.
func openPlain(ctx context.Context, kind kind, plain source) (*File, error) {
	if kind == kindOldNVD {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is NVD JSON 1.1, what can be read is 2.0").
			WithHint("fetch nvdcve-2.0-*.json.gz instead")
	}
	r, err := plain()
	if err != nil {
		return nil, err
	}
	f := &File{}
	switch kind {
	case kindKEV:
		f.Feed, f.Format, f.Whole = "kev", gatehouse.FormatKEV, true
		f.KEV, f.UpdatedAt, err = kev.Read(r)
	case kindEPSS:
		f.Feed, f.Format, f.Whole = "epss", gatehouse.FormatEPSS, true
		f.EPSS, f.UpdatedAt, err = epss.Read(r)
	case kindNVD:
		f.Feed, f.Format = "nvd", gatehouse.FormatNVD
		f.Records = nvd.Read(ctx, r, nvd.DefaultLimits())
	case kindOSV:
		return osvFile(osv.ReadJSON(ctx, r, osv.DefaultLimits())), nil
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no file of advisories").
			WithHint("what can be read: OSV records (zip or JSON), trivy.db or its tar.gz, NVD JSON 2.0, the KEV catalog, EPSS scores (CSV)")
	}
	return f, err
}

func osvFile(records iter.Seq2[gatehouse.Advisory, error]) *File {
	return &File{Publication: gatehouse.Publication{Feed: "osv", Format: gatehouse.FormatOSV, Records: records}}
}

func trivyFile(ctx context.Context, db *trivydb.DB, err error) (*File, error) {
	if err != nil {
		return nil, err
	}
	return &File{
		Publication: gatehouse.Publication{
			Feed: "trivy-db", Format: gatehouse.FormatTrivyDB, Whole: true, UpdatedAt: db.UpdatedAt, Records: db.Records(ctx), Unread: db.Unread,
		},
		NextUpdate: db.NextUpdate, close: db.Close,
	}, nil
}

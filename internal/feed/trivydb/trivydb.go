// Package trivydb reads Trivy's vulnerability database: the file trivy.db of
// schema version 2, or the tar.gz with it and its metadata.json that is the
// layer of the OCI artifact trivy-db:2.
//
// The database is a bbolt file with a bucket per platform ("debian 12", "Red
// Hat") or ecosystem and source ("npm::GitHub Security Advisory npm"), in that a
// bucket per package, in that a JSON advisory per flaw; the bucket
// "vulnerability" has texts, severities and scores of each flaw. Out come one
// record per publisher and flaw, with all packages and releases that the
// publisher speaks of, and one per CVE with what all sources say of it.
// Memory is bounded by the largest publisher's list, not by the file.
package trivydb

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
	"github.com/gatehouse-dev/gatehouse/internal/feed/unpack"
)

// Source is what [gatehouse.Advisory] names as its format.
const Source = "trivydb"

// schemaVersion is of the database's layout, in metadata.json.
const schemaVersion = 2

// Limits bound what one import may cost. A field that is zero allows nothing.
type Limits struct {
	FileBytes int64 // of trivy.db, unpacked
	Entries   int   // of one publisher: a package in a release with a flaw
	Affected  int   // of one record: an entry can be for many products
	TextBytes int64 // of all different texts of one publisher's entries
	Flaws     int   // in the bucket "vulnerability"
}

// DefaultLimits are some six times what the public database holds.
func DefaultLimits() Limits {
	return Limits{FileBytes: 8 << 30, Entries: 16_000_000, Affected: 250_000, TextBytes: 1 << 30, Flaws: 2_000_000}
}

// metadataBytesMax bounds metadata.json, which has a hundred bytes.
const metadataBytesMax = 64 << 10

// DB is an opened database.
type DB struct {
	// UpdatedAt is when it was made, by metadata.json; zero without one.
	UpdatedAt time.Time
	// NextUpdate is when its maker wants it to be fetched again.
	NextUpdate time.Time
	// Unread names buckets of advisories that nobody here reads, without their
	// releases: "root.io debian". Some are left out where there are very many.
	Unread []string

	bolt   *bolt
	limits Limits
	file   *os.File // what was unpacked, to be removed; nil if nothing was
}

// Is reports whether a file that begins like this is a trivy.db.
func Is(head []byte) bool { return isBolt(head) }

// Open opens a trivy.db. It is read through r, which must stay open.
// Errors: CodeInvalid for a damaged file or one of another schema.
func Open(r io.ReaderAt, size int64, limits Limits) (*DB, error) {
	if size > limits.FileBytes {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the database is larger than %d bytes", limits.FileBytes)
	}
	b, err := openBolt(r, size)
	if err != nil {
		return nil, err
	}
	db := &DB{bolt: b, limits: limits}
	return db, db.check()
}

// check makes sure that this is Trivy's database and no other one.
func (db *DB) check() error {
	has := map[string]bool{}
	err := db.bolt.top().each(func(key, _ []byte, isBucket bool) error {
		if isBucket && len(key) <= field.NameMax {
			has[string(key)] = true
			db.pass(string(key))
		}
		return nil
	})
	slices.Sort(db.Unread)
	switch {
	case err != nil:
		return err
	case has["trivy"]: // schema 1 keeps its metadata in there
		return wrongSchema(1)
	case !has[bucketFlaws]:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "this is a bbolt file, but not Trivy's database: it has no bucket %q", bucketFlaws)
	}
	return nil
}

// unreadMax is how many buckets are named that are not read.
const unreadMax = 50

// pass notes a bucket that is not read.
func (db *DB) pass(name string) {
	switch name {
	case bucketFlaws, bucketSources, bucketProducts, "vulnerability-id", "vulnerability-detail", "advisory-detail":
		return // of no advisories
	}
	// Who stands behind it decides nothing about whether it is read.
	if _, ok := platformOf(name, ""); ok {
		return
	}
	if at := strings.LastIndexByte(name, ' '); at > 0 && !strings.Contains(name, "::") && strings.ContainsAny(name[at:], "0123456789") {
		name = name[:at]
	}
	name = field.Text(name, field.IDMax, false)
	if len(db.Unread) < unreadMax && !slices.Contains(db.Unread, name) {
		db.Unread = append(db.Unread, name)
	}
}

func wrongSchema(version int) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the database has schema version %d, what can be read is %d", version, schemaVersion).
		WithHint("fetch trivy-db:%d", schemaVersion)
}

// OpenArchive unpacks the tar.gz of the OCI artifact into a file in dir, which
// Close removes. Errors: those of [Open], CodeTooLarge, CodeUnavailable where
// the file cannot be written.
func OpenArchive(ctx context.Context, r io.Reader, dir string, limits Limits) (db *DB, err error) {
	z, err := unpack.Gunzip(r, limits.FileBytes+metadataBytesMax)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "trivy-*.tmp")
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the database could not be unpacked: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	meta, size, err := untar(ctx, z, f, limits)
	if err != nil {
		return nil, err
	}
	if meta.Version != schemaVersion {
		return nil, wrongSchema(meta.Version)
	}
	if db, err = Open(f, size, limits); err != nil {
		return nil, err
	}
	db.file, db.UpdatedAt, db.NextUpdate = f, meta.UpdatedAt, meta.NextUpdate
	return db, nil
}

type metadata struct {
	Version               int
	UpdatedAt, NextUpdate time.Time
}

// untar writes trivy.db into f and returns what metadata.json says. Other files
// are passed over.
func untar(ctx context.Context, r io.Reader, f io.Writer, limits Limits) (m metadata, size int64, err error) {
	const entriesMax = 100
	t := tar.NewReader(r)
	haveMeta, haveFile := false, false
	for range entriesMax {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, 0, notWhole(err)
		}
		switch path.Base(h.Name) {
		case "metadata.json":
			haveMeta = true
			if err := json.NewDecoder(io.LimitReader(t, metadataBytesMax)).Decode(&m); err != nil {
				return m, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "metadata.json: %w", err)
			}
		case "trivy.db":
			if haveFile {
				return m, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "the archive holds trivy.db twice")
			}
			haveFile = true
			if size, err = io.Copy(f, &cancelable{ctx, io.LimitReader(t, limits.FileBytes+1)}); err != nil {
				return m, 0, notWhole(err)
			}
		}
	}
	if !haveMeta || !haveFile {
		return m, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "the archive does not hold both trivy.db and metadata.json")
	}
	return m, size, nil
}

func notWhole(err error) error {
	var known *gatehouse.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the archive could not be unpacked: %w", err)
}

// cancelable ends a long copy with its context.
type cancelable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Close removes what was unpacked.
func (db *DB) Close() error {
	if db.file == nil {
		return nil
	}
	return errors.Join(db.file.Close(), os.Remove(db.file.Name()))
}

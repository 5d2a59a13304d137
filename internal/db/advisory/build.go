package advisory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"modernc.org/sqlite" // and the driver named "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Build is [BuildAll] with one publication of records: info.Feed (that of
// imports by hand if empty), whole if info.Whole.
func Build(ctx context.Context, dst, prev string, info Info, recs iter.Seq2[gatehouse.Advisory, error]) (Meta, error) {
	return BuildAll(ctx, dst, prev, info, []gatehouse.Publication{{
		Feed: info.Feed, Format: gatehouse.FormatOSV, Whole: info.Whole, Source: info.Source, Records: recs,
	}})
}

// BuildAll writes a new generation to dst: what prev holds ("" for nothing),
// with the publications put over it in turn. A record replaces the one of the
// same feed and id wherever that spoke; a later one of the same id in a
// publication wins. Records of a whole publication's feed that it does not have
// are gone; a table replaces the one before. The first error of any
// publication, or the end of ctx, leaves nothing at dst. When BuildAll returns
// without an error, the file is complete and on disk.
//
// Prev is only read and may be in use. Nothing else builds at the same dst.
// Errors: those of the records; CodeInvalid for a prev that is no advisory
// file, and for a whole publication that is empty or has another one of its feed
// after it; CodeNotFound for a feed of info.Remove that is not there;
// CodeUnavailable where the disk is full or fails.
func BuildAll(ctx context.Context, dst, prev string, info Info, pubs []gatehouse.Publication) (Meta, error) {
	tmp, err := startingFile(dst, prev)
	if err != nil {
		return Meta{}, unwritten(fmt.Errorf("start advisory file: %w", err))
	}
	defer os.Remove(tmp) // after the rename there is nothing left to remove
	m, err := build(ctx, tmp, prev, info, pubs)
	if err != nil {
		return Meta{}, unwritten(err)
	}
	if m.Digest, err = seal(tmp); err != nil {
		return Meta{}, unwritten(fmt.Errorf("seal advisory file: %w", err))
	}
	if err := os.Rename(tmp, dst); err != nil {
		return Meta{}, unwritten(err)
	}
	return m, unwritten(syncFolder(filepath.Dir(dst)))
}

// unwritten says of an error of the disk that it is one: somebody can make room.
// Others are returned as they are.
func unwritten(err error) error {
	var known *gatehouse.Error
	var path *fs.PathError
	var link *os.LinkError
	var database *sqlite.Error
	const primary = 0xff // of an extended result code
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &path) || errors.As(err, &link):
	case errors.As(err, &database) && (database.Code()&primary == sqlite3.SQLITE_FULL || database.Code()&primary == sqlite3.SQLITE_IOERR):
	default:
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the advisories: %w", err).
		WithHint("is the disk full? An update needs room for the whole database once more")
}

// tempSuffix marks a file that is being built.
const tempSuffix = ".tmp"

// Clean removes what builds at dst left behind whose process was killed. The
// caller makes sure that nobody builds there now.
func Clean(dst string) error {
	list, err := os.ReadDir(filepath.Dir(dst))
	if err != nil {
		return err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), tempPrefix(dst)) && strings.Contains(e.Name(), tempSuffix) { // and a journal of one
			err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(dst), e.Name())))
		}
	}
	return err
}

func tempPrefix(dst string) string { return "." + filepath.Base(dst) + "." }

// startingFile makes the file to work on, next to dst so that the rename at the
// end is one step.
func startingFile(dst, prev string) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(dst), tempPrefix(dst)+"*"+tempSuffix)
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if prev == "" {
		return f.Name(), nil
	}
	from, err := os.Open(prev)
	if err != nil {
		return "", err
	}
	defer from.Close()
	_, err = io.Copy(f, from)
	return f.Name(), err
}

// seal fsyncs a finished file and returns its digest.
func seal(name string) (gatehouse.Digest, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := gatehouse.NewHash(gatehouse.SHA256)
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	if err := f.Chmod(0o644); err != nil {
		return "", err
	}
	return gatehouse.NewDigest(gatehouse.SHA256, h.Sum(nil)), f.Sync()
}

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// address returns the driver's name of a file, whatever characters it has.
func address(name, query string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return (&url.URL{Scheme: "file", Path: abs, RawQuery: query}).String(), nil
}

func build(ctx context.Context, tmp, prev string, info Info, pubs []gatehouse.Publication) (m Meta, err error) {
	// Nobody else sees the file, and after a crash it is thrown away: no
	// journal, and one fsync at the end.
	name, err := address(tmp, "_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=locking_mode(EXCLUSIVE)&_pragma=cache_size(-65536)&_pragma=temp_store(MEMORY)&_pragma=trusted_schema(OFF)")
	if err != nil {
		return Meta{}, err
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return Meta{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var old Meta
	if prev == "" {
		err = create(ctx, db)
	} else {
		old, err = takeOver(ctx, db, prev)
	}
	if err != nil {
		return Meta{}, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return Meta{}, err
	}
	defer tx.Rollback() // a no-op after the commit
	b, err := newBuilder(ctx, tx, info, old, prev != "")
	if err != nil {
		return Meta{}, err
	}
	for _, name := range info.Remove {
		if err := b.removeFeed(name); err != nil {
			return Meta{}, err
		}
	}
	for _, p := range pubs {
		if err := b.publish(p); err != nil {
			return Meta{}, err
		}
	}
	if m, err = b.finish(); err != nil {
		return Meta{}, err
	}
	if err := tx.Commit(); err != nil {
		return Meta{}, err
	}
	return m, compact(ctx, db, tmp, prev == "")
}

// compact rewrites the file where that pays: the pages of a first generation,
// filled in random order, are a third empty, and much churn leaves free ones. The
// new file lies beside the old one; a plain VACUUM would hold it in memory.
func compact(ctx context.Context, db *sql.DB, tmp string, first bool) error {
	var pages, free int
	if err := db.QueryRowContext(ctx, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count").Scan(&pages, &free); err != nil {
		return err
	}
	if !first && free < pages/4 {
		return nil
	}
	packed := tmp + packedSuffix
	defer os.Remove(packed) // after the rename there is nothing left to remove
	if _, err := db.ExecContext(ctx, "VACUUM INTO $1", packed); err != nil {
		return err
	}
	return os.Rename(packed, tmp)
}

// packedSuffix is behind the name of a file that is being compacted.
const packedSuffix = ".packed"

func create(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d; %s", applicationID, formatVersion, schema))
	return err
}

// check makes sure that a file is ours and returns what it says of itself.
func check(ctx context.Context, db *sql.DB, name string) (m Meta, format int, err error) {
	var app int
	err = db.QueryRowContext(ctx, "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version").Scan(&app, &format)
	switch {
	case err == nil && app == applicationID && format != formatVersion && format != formatNoFeeds:
		return Meta{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has advisory format %d, this Gatehouse reads up to format %d", name, format, formatVersion).
			WithHint("use the Gatehouse that made it, or a newer one; or remove the file and import the advisories anew")
	case ctx.Err() != nil:
		return Meta{}, 0, ctx.Err()
	case err != nil || app != applicationID:
		return Meta{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is no advisory file", name).
			WithHint("make one with gatehouse db import FILE.zip")
	}
	// The file may come from elsewhere. What is not a plain table has no
	// business in it: views and triggers are programs.
	var programs int
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'").Scan(&programs)
	if err != nil || programs > 0 {
		return Meta{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is no advisory file: it holds %d views, triggers or virtual tables", name, programs).
			WithHint("import or download it again")
	}
	var text string
	if err := db.QueryRowContext(ctx, "SELECT json FROM meta").Scan(&text); err != nil {
		return Meta{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", name, err)
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return Meta{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", name, err)
	}
	if err := m.printable(); err != nil {
		return Meta{}, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", name, err)
	}
	if format == formatNoFeeds {
		m.Feeds = []Feed{{Name: handFeed, Format: gatehouse.FormatOSV, Records: m.Records, UpdatedAt: m.UpdatedAt, ImportedAt: m.BuiltAt}}
	}
	return m, format, nil
}

// takeOver makes a copy of a previous file ready to be built upon. The records
// of an older format become those of the feed of imports by hand; no hash
// changes by that.
func takeOver(ctx context.Context, db *sql.DB, prev string) (Meta, error) {
	m, format, err := check(ctx, db, prev)
	if err != nil || format == formatVersion {
		return m, err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf(`ALTER TABLE record RENAME TO record1; %s
		INSERT INTO feed(n, name) VALUES(1, '%s');
		INSERT INTO record(n, id, feed, modified, rating, home, core, names, content)
			SELECT n, id, 1, modified, rating, home, core, names, content FROM record1;
		DROP TABLE record1;
		PRAGMA user_version=%d`, schemaFeeds, handFeed, formatVersion))
	if err != nil {
		return m, gatehouse.Errorf(gatehouse.CodeInvalid, "the advisories of %s, of format %d, could not be taken over: %w", prev, format, err).
			WithHint("remove the file and import the advisories anew")
	}
	return m, nil
}

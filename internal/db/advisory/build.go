package advisory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"

	"github.com/gatehouse-dev/gatehouse"
	_ "modernc.org/sqlite" // the driver named "sqlite"
)

// Build writes a new generation to dst: what prev holds ("" for nothing), with
// recs put over it. A record replaces the one of the same id wherever that
// spoke; a later one of the same id in recs wins. The first error of recs, or
// the end of ctx, leaves nothing at dst. When Build returns without an error,
// the file is complete and on disk.
//
// Prev is only read and may be in use. Build does not run twice for one dst.
// Errors: those of recs; CodeInvalid for a prev that is no advisory file.
func Build(ctx context.Context, dst, prev string, info Info, recs iter.Seq2[gatehouse.Advisory, error]) (Meta, error) {
	tmp, err := startingFile(dst, prev)
	if err != nil {
		return Meta{}, fmt.Errorf("start advisory file: %w", err)
	}
	defer os.Remove(tmp) // after the rename there is nothing left to remove
	m, err := build(ctx, tmp, prev, info, recs)
	if err != nil {
		return Meta{}, err
	}
	if m.Digest, err = seal(tmp); err != nil {
		return Meta{}, fmt.Errorf("seal advisory file: %w", err)
	}
	if err := os.Rename(tmp, dst); err != nil {
		return Meta{}, err
	}
	return m, syncFolder(filepath.Dir(dst))
}

// startingFile makes the file to work on, next to dst so that the rename at the
// end is one step.
func startingFile(dst, prev string) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(dst), ".advisories-*")
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

func build(ctx context.Context, tmp, prev string, info Info, recs iter.Seq2[gatehouse.Advisory, error]) (m Meta, err error) {
	// Nobody else sees the file, and after a crash it is thrown away: no
	// journal, and one fsync at the end.
	name, err := address(tmp, "_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=locking_mode(EXCLUSIVE)&_pragma=cache_size(-65536)&_pragma=trusted_schema(OFF)")
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
		old, err = check(ctx, db, prev)
	}
	if err != nil {
		return Meta{}, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return Meta{}, err
	}
	defer tx.Rollback() // a no-op after the commit
	b, err := newBuilder(ctx, tx, prev != "")
	if err != nil {
		return Meta{}, err
	}
	for a, err := range recs {
		if err != nil {
			return Meta{}, err
		}
		if err := b.put(a); err != nil {
			return Meta{}, fmt.Errorf("advisory %s: %w", a.ID, err)
		}
	}
	if m, err = b.finish(info, old); err != nil {
		return Meta{}, err
	}
	if err := tx.Commit(); err != nil {
		return Meta{}, err
	}
	return m, compact(ctx, db, prev == "")
}

// compact rewrites the file where that pays: the pages of a first generation,
// filled in random order, are a third empty, and much churn leaves free ones.
func compact(ctx context.Context, db *sql.DB, first bool) error {
	var pages, free int
	if err := db.QueryRowContext(ctx, "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count").Scan(&pages, &free); err != nil {
		return err
	}
	if !first && free < pages/4 {
		return nil
	}
	_, err := db.ExecContext(ctx, "VACUUM")
	return err
}

func create(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d; %s", applicationID, formatVersion, schema))
	return err
}

// check makes sure that a file is ours and returns what it says of itself.
func check(ctx context.Context, db *sql.DB, name string) (Meta, error) {
	var app, format int
	err := db.QueryRowContext(ctx, "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version").Scan(&app, &format)
	switch {
	case err == nil && app == applicationID && format != formatVersion:
		return Meta{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has advisory format %d, this Gatehouse reads format %d", name, format, formatVersion).
			WithHint("import the advisories anew")
	case ctx.Err() != nil:
		return Meta{}, ctx.Err()
	case err != nil || app != applicationID:
		return Meta{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is no advisory file", name).
			WithHint("make one with gatehouse db import FILE.zip")
	}
	// The file may come from elsewhere. What is not a plain table has no
	// business in it: views and triggers are programs.
	var programs int
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'").Scan(&programs)
	if err != nil || programs > 0 {
		return Meta{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is no advisory file: it holds %d views, triggers or virtual tables", name, programs).
			WithHint("import or download it again")
	}
	var text string
	var m Meta
	if err := db.QueryRowContext(ctx, "SELECT json FROM meta").Scan(&text); err != nil {
		return Meta{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", name, err)
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return Meta{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", name, err)
	}
	return m, nil
}

package advisory

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/klauspost/compress/zstd"
)

const (
	// docCacheBytes bounds the unpacked documents that one open file keeps.
	docCacheBytes = 8 << 20
	// namedMax is how many records may share one name; published ones stay
	// under fifty.
	namedMax = 1000
	// connections that one open file may use at a time; each has a page cache
	// of 2 MiB.
	connections = 4
)

// File is one generation, open for reading. It is safe for concurrent use and
// implements what matching asks of a store of advisories.
type File struct {
	db      *sql.DB
	meta    Meta
	format  int
	feeds   map[int64]string // by number
	covered map[string]bool
	dec     *zstd.Decoder
	docs    *docCache
	over    overlays

	forName, named, entries *sql.Stmt
}

// Open opens the file at path. It stays readable when path is replaced or
// removed meanwhile. Errors: CodeNotFound where there is none, CodeInvalid for
// one that is no advisory file or of another format.
func Open(path string) (*File, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no advisory database at %s", path).
			WithHint("make one with gatehouse db import FILE.zip")
	} else if err != nil {
		return nil, err
	}
	// Immutable: no locks, no look for a journal. The file may come from
	// elsewhere, so that its schema is not trusted to run anything.
	name, err := address(path, "mode=ro&immutable=1&_pragma=query_only(ON)&_pragma=trusted_schema(OFF)&_pragma=cell_size_check(ON)")
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	f := &File{db: db, covered: map[string]bool{}, docs: newDocCache(docCacheBytes)}
	if err := f.load(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *File) load(path string) error {
	ctx := context.Background()
	var err error
	if f.meta, f.format, err = check(ctx, f.db, path); err != nil {
		return err
	}
	if f.feeds, err = f.feedNames(ctx); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", path, err)
	}
	for _, s := range f.meta.Spaces {
		f.covered[s.Name] = s.Covered
	}
	if f.dec, err = newDecoder(); err != nil {
		return err
	}
	for query, to := range map[string]**sql.Stmt{
		`SELECT r.id, FEED, r.modified, r.core, a.entry FROM space s JOIN name n ON n.space = s.n JOIN affects a ON a.name = n.n
			JOIN record r ON r.n = a.record WHERE s.name = $1 AND n.name = $2`: &f.forName,
		`SELECT a.record, d.zstd FROM alias a JOIN doc d ON d.n = a.record WHERE a.name = $1 AND a.exact`: &f.named,
		`SELECT s.name, n.name, a.entry FROM affects a JOIN name n ON n.n = a.name JOIN space s ON s.n = n.space
			WHERE a.name = $1 AND a.record = $2`: &f.entries,
	} {
		if *to, err = f.db.PrepareContext(ctx, f.text(query)); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is damaged: %w", path, err)
		}
	}
	return nil
}

// text puts in for FEED and FEEDNAME how the file's format says which feed a
// record r is of.
func (f *File) text(query string) string {
	feed, name := "r.feed", "(SELECT name FROM feed WHERE n = r.feed)"
	if f.format == formatNoFeeds {
		feed, name = "1", "'"+handFeed+"'"
	}
	return strings.NewReplacer("FEEDNAME", name, "FEED", feed).Replace(query)
}

func (f *File) feedNames(ctx context.Context) (map[int64]string, error) {
	if f.format == formatNoFeeds {
		return map[int64]string{1: handFeed}, nil
	}
	rows, err := f.db.QueryContext(ctx, "SELECT n, name FROM feed")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64]string{}
	for rows.Next() {
		var n int64
		var name string
		if err := rows.Scan(&n, &name); err != nil {
			return nil, err
		}
		out[n] = name
	}
	return out, rows.Err()
}

// Close frees the file; readers must be done.
func (f *File) Close() error {
	if f.dec != nil {
		f.dec.Close()
	}
	return f.db.Close()
}

// Meta describes the generation.
func (f *File) Meta() Meta { return f.meta }

// Covers reports whether an ecosystem's own advisories are loaded. A handful of
// names that records of other ecosystems mention do not make it so.
func (f *File) Covers(_ context.Context, space string) (bool, error) { return f.covered[space], nil }

// For returns the records that speak of a package, with their Affected entries
// of that name only and without texts and ratings.
func (f *File) For(ctx context.Context, space, name string) ([]gatehouse.Advisory, error) {
	rows, err := f.forName.QueryContext(ctx, space, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []gatehouse.Advisory
	var modified []int64
	var core, entry sql.RawBytes
	for rows.Next() {
		var id string
		var feed, at int64
		if err := rows.Scan(&id, &feed, &at, &core, &entry); err != nil {
			return nil, err
		}
		a, err := decodeCore(id, core)
		if err != nil {
			return nil, err
		}
		a.Feed = f.feeds[feed]
		if a.Affected, err = decodeEntry(Name{space, name}, entry); err != nil {
			return nil, err
		}
		out, modified = append(out, a), append(modified, at)
	}
	return f.newest(out, modified), rows.Err()
}

// newest keeps one of the records that have the same id in the same format, but
// came with several feeds, as when one ecosystem's record was imported by hand:
// the one that was changed last.
func (f *File) newest(list []gatehouse.Advisory, modified []int64) []gatehouse.Advisory {
	if f.meta.Shared == 0 || len(list) < 2 {
		return list
	}
	type key struct{ id, source string }
	at := make(map[key]int, len(list))
	out := list[:0]
	for i, a := range list {
		k := key{a.ID, a.Source}
		j, have := at[k]
		switch {
		case !have:
			at[k] = len(out)
			out, modified[len(out)] = append(out, a), modified[i]
		case modified[i] > modified[j]:
			out[j], modified[j] = a, modified[i]
		}
	}
	return out
}

// Named returns the records that are called id, or give it as an alias or as
// their only upstream, with ratings and texts and without Affected.
func (f *File) Named(ctx context.Context, id string) ([]gatehouse.Advisory, error) {
	rows, err := f.named.QueryContext(ctx, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []gatehouse.Advisory
	var modified []int64
	var packed sql.RawBytes
	for rows.Next() && len(out) < namedMax {
		var n int64
		if err := rows.Scan(&n, &packed); err != nil {
			return nil, err
		}
		a, ok := f.docs.get(n)
		if !ok {
			if a, err = decodeDoc(f.dec, packed); err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the advisory file is damaged (document %d): %w", n, err)
			}
			f.docs.put(n, a)
		}
		out, modified = append(out, a), append(modified, a.Modified.Unix())
	}
	return f.newest(out, modified), rows.Err()
}

// Record returns one record whole; of several feeds' the one that was changed
// last. Errors: CodeNotFound.
func (f *File) Record(ctx context.Context, id string) (gatehouse.Advisory, error) {
	var n int64
	var names, packed []byte
	err := f.db.QueryRowContext(ctx, `SELECT r.n, r.names, d.zstd FROM record r JOIN doc d ON d.n = r.n WHERE r.id = $1
		ORDER BY r.modified DESC, r.n LIMIT 1`, id).Scan(&n, &names, &packed)
	if errors.Is(err, sql.ErrNoRows) {
		return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeNotFound, "no advisory is called %q", id)
	}
	if err != nil {
		return gatehouse.Advisory{}, err
	}
	a, err := decodeDoc(f.dec, packed)
	if err != nil {
		return a, err
	}
	numbers, err := decodeNumbers(names)
	if err != nil {
		return a, err
	}
	for _, number := range numbers {
		var name Name
		var entry []byte
		if err := f.entries.QueryRowContext(ctx, number, n).Scan(&name.Space, &name.Name, &entry); err != nil {
			return a, err
		}
		list, err := decodeEntry(name, entry)
		if err != nil {
			return a, err
		}
		a.Affected = append(a.Affected, list...)
	}
	return a, nil
}

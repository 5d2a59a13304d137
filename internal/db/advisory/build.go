package advisory

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/klauspost/compress/zstd"
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
	if prev == "" {
		// Filled in random order, the pages are a third empty.
		_, err = db.ExecContext(ctx, "VACUUM")
	}
	return m, err
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

// builder puts records into one transaction.
type builder struct {
	ctx    context.Context // of the one Build that made it
	tx     *sql.Tx
	delta  bool // there is a parent, so that changes are of interest
	enc    *zstd.Encoder
	stmt   map[string]*sql.Stmt
	spaces map[string]int64
	names  map[Name]int64
	before map[int64]int64 // name → hash in the parent
	now    map[int64]int64 // name → hash, for those touched
	rated  map[string]bool // flaws whose rating changed
}

func newBuilder(ctx context.Context, tx *sql.Tx, delta bool) (*builder, error) {
	enc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	b := &builder{
		ctx: ctx, tx: tx, delta: delta, enc: enc, stmt: map[string]*sql.Stmt{}, spaces: map[string]int64{},
		names: map[Name]int64{}, before: map[int64]int64{}, now: map[int64]int64{}, rated: map[string]bool{},
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM changed; DELETE FROM meta")
	return b, err
}

// prepared keeps one statement per text.
func (b *builder) prepared(query string) (*sql.Stmt, error) {
	if s, ok := b.stmt[query]; ok {
		return s, nil
	}
	s, err := b.tx.PrepareContext(b.ctx, query)
	if err == nil {
		b.stmt[query] = s
	}
	return s, err
}

func (b *builder) exec(query string, args ...any) error {
	s, err := b.prepared(query)
	if err == nil {
		_, err = s.ExecContext(b.ctx, args...)
	}
	return err
}

// insert runs an INSERT and returns the number of the row.
func (b *builder) insert(query string, args ...any) (int64, error) {
	s, err := b.prepared(query)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(b.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// one scans the first row of a query into dest; found is false without a row.
func (b *builder) one(query string, args []any, dest ...any) (found bool, err error) {
	s, err := b.prepared(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(b.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// put replaces the record of a's id by a.
func (b *builder) put(a gatehouse.Advisory) error {
	if a.ID == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "an advisory has no id")
	}
	core, rating := encodeCore(a), ratingHash(a)
	n, old, err := b.remove(a.ID)
	if err != nil {
		return err
	}
	entries := map[int64][]gatehouse.Affected{}
	spaces := map[int64]bool{}
	bases := map[string]bool{}
	for _, e := range a.Affected {
		space, name, err := b.nameOf(Name{e.Space, e.Name})
		if err != nil {
			return err
		}
		entries[name], spaces[space], bases[family(e.Space)] = append(entries[name], e), true, true
	}
	home := 0
	if len(bases) == 1 {
		home = 1
	}
	names := make([]int64, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	doc, err := encodeDoc(b.enc, a)
	if err != nil {
		return err
	}
	row := []any{a.ID, a.Modified.Unix(), rating, home, core, encodeNumbers(names)}
	if n == 0 {
		n, err = b.insert("INSERT INTO record(id, modified, rating, home, core, names) VALUES($1, $2, $3, $4, $5, $6)", row...)
	} else {
		err = b.exec("INSERT INTO record(id, modified, rating, home, core, names, n) VALUES($1, $2, $3, $4, $5, $6, $7)", append(row, n)...)
	}
	if err != nil {
		return err
	}
	if err := b.exec("INSERT INTO doc(n, zstd) VALUES($1, $2)", n, doc); err != nil {
		return err
	}
	for _, name := range names {
		entry := encodeEntry(entries[name])
		if err := b.exec("INSERT INTO affects(name, record, entry) VALUES($1, $2, $3)", name, n, entry); err != nil {
			return err
		}
		b.now[name] ^= entryHash(a.ID, core, entry, rating)
	}
	for space := range spaces {
		if err := b.exec("UPDATE space SET records = records + 1, home = home + $1 WHERE n = $2", home, space); err != nil {
			return err
		}
	}
	return b.putAliases(n, a, rating, old)
}

// putAliases writes the flaws that a record speaks of.
func (b *builder) putAliases(n int64, a gatehouse.Advisory, rating int64, old removed) error {
	names := flawNames(a)
	for name, exact := range names {
		if err := b.exec("INSERT INTO alias(name, record, exact) VALUES($1, $2, $3)", name, n, exact); err != nil {
			return err
		}
	}
	if !b.delta || rating == old.rating && maps.Equal(names, old.flaws) {
		return nil
	}
	for _, set := range []map[string]bool{names, old.flaws} {
		for name, exact := range set {
			if exact && (rating != 0 || old.rating != 0) {
				b.rated[name] = true
			}
		}
	}
	return nil
}

// flawNames returns the names of the flaws that a record speaks of, and whether
// it speaks of that flaw alone.
func flawNames(a gatehouse.Advisory) map[string]bool {
	out := map[string]bool{}
	for _, n := range a.Related {
		if strings.HasPrefix(n, "CVE-") {
			out[n] = false
		}
	}
	for _, n := range a.Upstream {
		out[n] = len(a.Upstream) == 1
	}
	for _, n := range a.Aliases {
		out[n] = true
	}
	out[a.ID] = true
	return out
}

// removed is what was known of a record that is being replaced.
type removed struct {
	rating int64
	flaws  map[string]bool
}

// remove takes a record out and returns its number, 0 if there was none.
func (b *builder) remove(id string) (n int64, old removed, err error) {
	var home int
	var core, packed []byte
	found, err := b.one("SELECT n, rating, home, core, names FROM record WHERE id = $1", []any{id}, &n, &old.rating, &home, &core, &packed)
	if err != nil || !found {
		return 0, old, err
	}
	names, err := decodeNumbers(packed)
	if err != nil {
		return 0, old, err
	}
	spaces := map[int64]bool{}
	for _, name := range names {
		space, err := b.removeEntry(id, n, name, core, old.rating)
		if err != nil {
			return 0, old, err
		}
		spaces[space] = true
	}
	for space := range spaces {
		if err := b.exec("UPDATE space SET records = records - 1, home = home - $1 WHERE n = $2", home, space); err != nil {
			return 0, old, err
		}
	}
	a, err := decodeCore(id, core)
	if err != nil {
		return 0, old, err
	}
	old.flaws = flawNames(a)
	for name := range old.flaws {
		if err := b.exec("DELETE FROM alias WHERE name = $1 AND record = $2", name, n); err != nil {
			return 0, old, err
		}
	}
	if err := b.exec("DELETE FROM record WHERE n = $1", n); err != nil {
		return 0, old, err
	}
	return n, old, b.exec("DELETE FROM doc WHERE n = $1", n)
}

// removeEntry takes a record away from one name and returns the name's space.
func (b *builder) removeEntry(id string, n, name int64, core []byte, rating int64) (space int64, err error) {
	var entry []byte
	found, err := b.one("SELECT a.entry, n.space FROM affects a JOIN name n ON n.n = a.name WHERE a.name = $1 AND a.record = $2",
		[]any{name, n}, &entry, &space)
	if err != nil || !found {
		return 0, errors.Join(err, (&reader{bad: !found}).err("record "+id))
	}
	if err := b.load(name); err != nil {
		return 0, err
	}
	b.now[name] ^= entryHash(id, core, entry, rating)
	return space, b.exec("DELETE FROM affects WHERE name = $1 AND record = $2", name, n)
}

// nameOf returns the numbers of a space and of a name in it, new ones if need
// be.
func (b *builder) nameOf(of Name) (space, name int64, err error) {
	space, ok := b.spaces[of.Space]
	if !ok {
		found, err := b.one("SELECT n FROM space WHERE name = $1", []any{of.Space}, &space)
		if err == nil && !found {
			space, err = b.insert("INSERT INTO space(name, records, home) VALUES($1, 0, 0)", of.Space)
		}
		if err != nil {
			return 0, 0, err
		}
		b.spaces[of.Space] = space
	}
	if name, ok := b.names[of]; ok {
		return space, name, nil
	}
	found, err := b.one("SELECT n FROM name WHERE space = $1 AND name = $2", []any{space, of.Name}, &name)
	if err == nil && !found {
		name, err = b.insert("INSERT INTO name(space, name, hash) VALUES($1, $2, 0)", space, of.Name)
	}
	if err != nil {
		return 0, 0, err
	}
	b.names[of] = name
	return space, name, b.load(name)
}

// load makes sure that the hash of a name is in memory.
func (b *builder) load(name int64) error {
	if _, ok := b.before[name]; ok {
		return nil
	}
	var hash int64
	_, err := b.one("SELECT hash FROM name WHERE n = $1", []any{name}, &hash)
	b.before[name], b.now[name] = hash, hash
	return err
}

func family(space string) string {
	base, _, _ := strings.Cut(space, ":")
	if f, ok := families[base]; ok {
		return f
	}
	return base
}

// finish writes the hashes, what changed, and what the file says of itself.
func (b *builder) finish(info Info, old Meta) (Meta, error) {
	for name, hash := range b.now {
		if hash == b.before[name] {
			continue
		}
		if err := b.exec("UPDATE name SET hash = $1 WHERE n = $2", hash, name); err != nil {
			return Meta{}, err
		}
		if b.delta {
			if err := b.exec("INSERT INTO changed(name) VALUES($1)", name); err != nil {
				return Meta{}, err
			}
		}
	}
	if err := b.spread(); err != nil {
		return Meta{}, err
	}
	m := Meta{Parent: info.Parent, BuiltAt: info.BuiltAt.UTC(), Sources: old.Sources}
	if info.Source != "" {
		m.Sources = append(slices.DeleteFunc(slices.Clone(old.Sources), func(s string) bool { return s == info.Source }), info.Source)
		m.Sources = m.Sources[max(0, len(m.Sources)-sourcesMax):]
	}
	if err := b.count(&m); err != nil {
		return Meta{}, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return Meta{}, err
	}
	return m, b.exec("INSERT INTO meta(json) VALUES($1)", string(text))
}

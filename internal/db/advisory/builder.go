package advisory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/klauspost/compress/zstd"
)

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

// packed is a record in the form in which it is stored.
type packed struct {
	core, doc []byte // doc is JSON still
	rating    int64
	names     []Name // sorted
	entries   [][]byte
	content   []byte // hash of all above: equal content need not be stored again
}

func pack(a gatehouse.Advisory) (packed, error) {
	p := packed{core: encodeCore(a), rating: ratingHash(a)}
	byName := map[Name][]gatehouse.Affected{}
	for _, e := range a.Affected {
		n := Name{e.Space, e.Name}
		byName[n] = append(byName[n], e)
	}
	p.names = slices.SortedFunc(maps.Keys(byName), Name.compare)
	var w writer
	for _, n := range p.names {
		entry := encodeEntry(byName[n])
		p.entries = append(p.entries, entry)
		w.text(n.Space)
		w.text(n.Name)
		w.text(string(entry))
	}
	a.Affected = nil
	var err error
	if p.doc, err = json.Marshal(a); err != nil {
		return packed{}, err
	}
	w.text(string(p.core))
	w.text(string(p.doc))
	sum := sha256.Sum256(w)
	p.content = sum[:16]
	return p, nil
}

// put replaces the record of a's id by a. Most records of a feed that is read
// again are as they were; they cost one look.
func (b *builder) put(a gatehouse.Advisory) error {
	if a.ID == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "an advisory has no id")
	}
	p, err := pack(a)
	if err != nil {
		return err
	}
	var have []byte
	if found, err := b.one("SELECT content FROM record WHERE id = $1", []any{a.ID}, &have); err != nil || found && bytes.Equal(have, p.content) {
		return err
	}
	n, old, err := b.remove(a.ID)
	if err != nil {
		return err
	}
	spaces := map[int64]bool{}
	families := map[string]bool{}
	names := make([]int64, len(p.names))
	for i, of := range p.names {
		space, name, err := b.nameOf(of)
		if err != nil {
			return err
		}
		names[i], spaces[space], families[family(of.Space)] = name, true, true
	}
	home := 0
	if len(families) == 1 {
		home = 1
	}
	if n, err = b.putRecord(n, a, p, home, names); err != nil {
		return err
	}
	for i, name := range names {
		if err := b.exec("INSERT INTO affects(name, record, entry) VALUES($1, $2, $3)", name, n, p.entries[i]); err != nil {
			return err
		}
		b.now[name] ^= entryHash(a.ID, p.core, p.entries[i], p.rating)
	}
	for space := range spaces {
		if err := b.exec("UPDATE space SET records = records + 1, home = home + $1 WHERE n = $2", home, space); err != nil {
			return err
		}
	}
	return b.putAliases(n, a, p.rating, old)
}

// putRecord writes the rows of the record itself, under its old number n if it
// had one, and returns its number.
func (b *builder) putRecord(n int64, a gatehouse.Advisory, p packed, home int, names []int64) (int64, error) {
	var number any // NULL lets the database choose
	if n != 0 {
		number = n
	}
	sorted := slices.Sorted(slices.Values(names))
	n, err := b.insert("INSERT INTO record(n, id, modified, rating, home, core, names, content) VALUES($1, $2, $3, $4, $5, $6, $7, $8)",
		number, a.ID, a.Modified.Unix(), p.rating, home, p.core, encodeNumbers(sorted), p.content)
	if err != nil {
		return 0, err
	}
	return n, b.exec("INSERT INTO doc(n, zstd) VALUES($1, $2)", n, b.enc.EncodeAll(p.doc, nil))
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

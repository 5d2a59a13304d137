package advisory

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/klauspost/compress/zstd"
)

// builder puts publications into one transaction. What it adds is written in
// bulk, so that rows of this build may not be in the tables yet; flush puts
// them there.
type builder struct {
	ctx   context.Context // of the one BuildAll that made it
	tx    *sql.Tx
	info  Info
	meta  Meta
	delta bool // there is a parent, so that changes are of interest
	enc   *zstd.Encoder
	stmt  map[string]*sql.Stmt
	bulks []*bulk

	records, docs, affects, aliases *bulk

	feed       current
	done       map[string]bool // feeds published whole
	lastRecord int64
	lastName   int64
	spaces     map[string]*space
	names      map[Name]*name
	byNumber   map[int64]*name
	rated      map[string]bool // flaws whose rating changed
}

// current is the feed that is being published.
type current struct {
	n     int64
	state Feed
	known map[string]*known // its records, by id: all if all, else those met
	all   bool
}

type known struct {
	n       int64
	content [contentBytes]byte
	seen    bool // in this publication
}

type space struct {
	n             int64
	records, home int // to be added
	fresh         bool
}

// name is a package name that this build has to do with.
type name struct {
	Name
	n           int64
	space       *space
	before, now int64 // hashes, in the parent and now
	fresh       bool  // not in the table yet
}

func newBuilder(ctx context.Context, tx *sql.Tx, info Info, old Meta, delta bool) (*builder, error) {
	enc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	b := &builder{
		ctx: ctx, tx: tx, info: info, delta: delta, enc: enc, stmt: map[string]*sql.Stmt{}, done: map[string]bool{},
		spaces: map[string]*space{}, names: map[Name]*name{}, byNumber: map[int64]*name{}, rated: map[string]bool{},
		meta: Meta{Parent: info.Parent, BuiltAt: info.BuiltAt.UTC(), Sources: slices.Clone(old.Sources), Feeds: slices.Clone(old.Feeds), Shared: old.Shared},
	}
	for i := range b.meta.Feeds { // a file of another clock, or of an older version
		b.meta.Feeds[i].UpdatedAt = b.past(b.meta.Feeds[i].UpdatedAt)
	}
	b.records = b.bulk("record(n, id, feed, modified, rating, home, core, names, content)", 9)
	b.docs = b.bulk("doc(n, zstd)", 2)
	b.affects = b.bulk("affects(name, record, entry)", 3)
	b.aliases = b.bulk("alias(name, record, exact)", 3)
	if _, err = b.one("SELECT coalesce(max(n), 0) FROM record", nil, &b.lastRecord); err == nil {
		_, err = b.one("SELECT coalesce(max(n), 0) FROM name", nil, &b.lastName)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, "DELETE FROM changed; DELETE FROM meta")
	}
	return b, err
}

// publish puts one publication in.
func (b *builder) publish(p gatehouse.Publication) error {
	if p.Feed == "" {
		p.Feed = handFeed
	}
	if b.done[p.Feed] {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the feed %s is published whole and stands there twice", p.Feed)
	}
	b.done[p.Feed] = p.Whole
	if err := b.begin(p); err != nil {
		return err
	}
	if p.Records != nil {
		read := 0
		for a, err := range p.Records {
			if err != nil {
				return err
			}
			if err := b.put(a); err != nil {
				return within(a.ID, err)
			}
			read++
		}
		if p.Whole {
			if read == 0 {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "the feed %s came without any record; the ones before it stay in force", p.Feed)
			}
			if err := b.removeVanished(); err != nil {
				return err
			}
		}
	}
	if err := b.overlay(p); err != nil {
		return err
	}
	return b.end(p)
}

// begin makes the feed of p the current one.
func (b *builder) begin(p gatehouse.Publication) error {
	state, have := b.meta.Feed(p.Feed)
	if !have {
		state = Feed{Name: p.Feed}
	}
	b.feed = current{state: state, known: map[string]*known{}}
	found, err := b.one("SELECT n FROM feed WHERE name = $1", []any{p.Feed}, &b.feed.n)
	if err != nil {
		return err
	}
	if !found {
		b.feed.all = true // there are none
		r, err := b.tx.ExecContext(b.ctx, "INSERT INTO feed(name) VALUES($1)", p.Feed)
		if err != nil {
			return err
		}
		b.feed.n, err = r.LastInsertId()
		return err
	}
	if !p.Whole {
		return nil
	}
	if err := b.flush(); err != nil {
		return err
	}
	b.feed.all = true
	rows, err := b.tx.QueryContext(b.ctx, "SELECT id, n, content FROM record WHERE feed = $1", b.feed.n)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var content sql.RawBytes
		k := &known{}
		if err := rows.Scan(&id, &k.n, &content); err != nil {
			return err
		}
		copy(k.content[:], content)
		b.feed.known[id] = k
	}
	return rows.Err()
}

// end takes down what the feed is now.
func (b *builder) end(p gatehouse.Publication) error {
	f := &b.feed.state
	p.Source, p.Version = shown(p.Source), shown(p.Version) // a file's name and an ETag can hold anything
	f.Format, f.Source, f.Version, f.Whole, f.Unread = p.Format, p.Source, p.Version, p.Whole, p.Unread
	f.ImportedAt = b.meta.BuiltAt
	if p.UpdatedAt.After(f.UpdatedAt) || p.Whole && !p.UpdatedAt.IsZero() {
		f.UpdatedAt = b.past(p.UpdatedAt)
	}
	at, have := slices.BinarySearchFunc(b.meta.Feeds, f.Name, func(f Feed, name string) int { return cmp.Compare(f.Name, name) })
	if have {
		b.meta.Feeds[at] = *f
	} else {
		b.meta.Feeds = slices.Insert(b.meta.Feeds, at, *f)
	}
	source := cmp.Or(p.Source, shown(b.info.Source))
	if source != "" {
		b.meta.Sources = append(slices.DeleteFunc(b.meta.Sources, func(s string) bool { return s == source }), source)
		b.meta.Sources = b.meta.Sources[max(0, len(b.meta.Sources)-sourcesMax):]
	}
	return nil
}

// past is a publisher's time, or now where that lies ahead: advisories of tomorrow
// would look fresh for ever, and refuse every later database as an older one.
func (b *builder) past(t time.Time) time.Time {
	if now := b.meta.BuiltAt; !now.IsZero() && t.After(now) {
		return now
	}
	return t.UTC()
}

// find returns what is known of a record of the current feed, nil if there is
// none.
func (b *builder) find(id string) (*known, error) {
	if k := b.feed.known[id]; k != nil || b.feed.all {
		return k, nil
	}
	var content []byte
	k := &known{}
	found, err := b.one("SELECT n, content FROM record WHERE id = $1 AND feed = $2", []any{id, b.feed.n}, &k.n, &content)
	if err != nil || !found {
		return nil, err
	}
	copy(k.content[:], content)
	b.feed.known[id] = k
	return k, nil
}

// put replaces the record of a's id by a. Most records of a feed that is read
// again are as they were; they cost one look.
func (b *builder) put(a gatehouse.Advisory) error {
	if a.ID == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "an advisory has no id")
	}
	a.Feed = b.feed.state.Name
	if a.Feed == handFeed {
		a.Feed = ""
	}
	p, err := pack(a)
	if err != nil {
		return err
	}
	k, err := b.find(a.ID)
	if err != nil {
		return err
	}
	if k != nil && k.content == p.content {
		k.seen = true
		return nil
	}
	var old removed
	if k != nil {
		if old, err = b.remove(k.n, a.ID); err != nil {
			return err
		}
	} else {
		b.lastRecord++
		k = &known{n: b.lastRecord}
		b.feed.known[a.ID] = k
	}
	k.content, k.seen = p.content, true
	return b.add(k.n, a, p, old)
}

// add writes all rows of a record under its number.
func (b *builder) add(n int64, a gatehouse.Advisory, p packed, old removed) error {
	touched, families := map[*space]bool{}, map[string]bool{}
	numbers := make([]int64, len(p.names))
	for i, of := range p.names {
		name, err := b.nameOf(of)
		if err != nil {
			return err
		}
		numbers[i], touched[name.space], families[family(of.Space)] = name.n, true, true
		name.now ^= entryHash(b.feed.state.Name, a.ID, p.core, p.entries[i], p.rating)
		if err := b.affects.add(name.n, n, p.entries[i]); err != nil {
			return err
		}
	}
	home := 0
	if len(families) == 1 {
		home = 1
	}
	for s := range touched {
		s.records, s.home = s.records+1, s.home+home
	}
	slices.Sort(numbers)
	if err := b.records.add(n, a.ID, b.feed.n, a.Modified.Unix(), p.rating, home, p.core, encodeNumbers(numbers), p.content[:]); err != nil {
		return err
	}
	if err := b.docs.add(n, b.enc.EncodeAll(p.doc, nil)); err != nil {
		return err
	}
	flaws := flawNames(a)
	for name, exact := range flaws {
		if err := b.aliases.add(name, n, exact); err != nil {
			return err
		}
	}
	b.feed.state.Records++
	if at := b.past(a.Modified); at.After(b.feed.state.UpdatedAt) {
		b.feed.state.UpdatedAt = at
	}
	if p.rating != old.rating || !maps.Equal(flaws, old.flaws) {
		b.rerate(flaws, p.rating, old)
	}
	return nil
}

// rerate notes the flaws whose rating a record gives, or gave.
func (b *builder) rerate(flaws map[string]bool, rating int64, old removed) {
	if !b.delta || rating == 0 && old.rating == 0 {
		return
	}
	for _, set := range []map[string]bool{flaws, old.flaws} {
		for name, exact := range set {
			if exact {
				b.rated[name] = true
			}
		}
	}
}

// removed is what was known of a record that is being replaced.
type removed struct {
	rating int64
	flaws  map[string]bool
}

// removeVanished takes out the records that the current feed no longer has.
func (b *builder) removeVanished() error {
	for id, k := range b.feed.known {
		if k.seen {
			continue
		}
		old, err := b.remove(k.n, id)
		if err != nil {
			return err
		}
		b.rerate(nil, 0, old)
	}
	return nil
}

// remove takes a record of the current feed out.
func (b *builder) remove(n int64, id string) (old removed, err error) {
	if err := b.flush(); err != nil {
		return old, err
	}
	var home int
	var core, packed []byte
	found, err := b.one("SELECT rating, home, core, names FROM record WHERE n = $1", []any{n}, &old.rating, &home, &core, &packed)
	if err != nil || !found {
		return old, errors.Join(err, (&reader{bad: !found}).err("record "+id))
	}
	names, err := decodeNumbers(packed)
	if err != nil {
		return old, err
	}
	touched := map[*space]bool{}
	for _, number := range names {
		name, err := b.removeEntry(id, n, number, core, old.rating)
		if err != nil {
			return old, err
		}
		touched[name.space] = true
	}
	for s := range touched {
		s.records, s.home = s.records-1, s.home-home
	}
	a, err := decodeCore(id, core)
	if err != nil {
		return old, err
	}
	old.flaws = flawNames(a)
	for flaw := range old.flaws {
		if err := b.exec("DELETE FROM alias WHERE name = $1 AND record = $2", flaw, n); err != nil {
			return old, err
		}
	}
	b.feed.state.Records--
	if err := b.exec("DELETE FROM record WHERE n = $1", n); err != nil {
		return old, err
	}
	return old, b.exec("DELETE FROM doc WHERE n = $1", n)
}

// removeEntry takes a record away from one name, which it returns.
func (b *builder) removeEntry(id string, n, number int64, core []byte, rating int64) (*name, error) {
	var entry []byte
	found, err := b.one("SELECT entry FROM affects WHERE name = $1 AND record = $2", []any{number, n}, &entry)
	if err != nil || !found {
		return nil, errors.Join(err, (&reader{bad: !found}).err("record "+id))
	}
	name, err := b.nameOfNumber(number)
	if err != nil {
		return nil, err
	}
	name.now ^= entryHash(b.feed.state.Name, id, core, entry, rating)
	return name, b.exec("DELETE FROM affects WHERE name = $1 AND record = $2", number, n)
}

// finish writes the hashes, what changed, and what the file says of itself.
func (b *builder) finish() (Meta, error) {
	if err := b.flush(); err != nil {
		return Meta{}, err
	}
	changed := map[int64]bool{}
	if err := b.writeNames(changed); err != nil {
		return Meta{}, err
	}
	if err := b.spread(changed); err != nil {
		return Meta{}, err
	}
	into := b.bulk("changed(name)", 1)
	for _, n := range slices.Sorted(maps.Keys(changed)) {
		if err := into.add(n); err != nil {
			return Meta{}, err
		}
	}
	if err := into.flush(); err != nil {
		return Meta{}, err
	}
	m := b.meta
	m.Changed = len(changed)
	for _, f := range m.Feeds {
		if f.isTable() {
			continue
		}
		m.Records += f.Records
		if f.UpdatedAt.After(m.UpdatedAt) {
			m.UpdatedAt = f.UpdatedAt
		}
	}
	if err := b.count(&m); err != nil {
		return Meta{}, err
	}
	if err := m.printable(); err != nil { // which no reader would take
		return Meta{}, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return Meta{}, err
	}
	return m, b.exec("INSERT INTO meta(json) VALUES($1)", string(text))
}

package advisory

import (
	"database/sql"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// removeFeed takes a feed out with all that it brought. What its records said of
// severities changes other feeds' findings, as when each was withdrawn.
func (b *builder) removeFeed(name string) error {
	state, ok := b.meta.Feed(name)
	if !ok {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "the database has no feed %q", name).
			WithHint("`gatehouse db status` lists its feeds")
	}
	if err := b.begin(gatehouse.Publication{Feed: name}); err != nil {
		return err
	}
	if err := b.removeRecords(); err != nil {
		return err
	}
	b.meta.Feeds = slices.DeleteFunc(b.meta.Feeds, func(f Feed) bool { return f.Name == name })
	b.meta.Sources = slices.DeleteFunc(b.meta.Sources, func(s string) bool { return s == state.Source })
	another := slices.ContainsFunc(b.meta.Feeds, func(f Feed) bool { return f.Format == state.Format })
	if state.isTable() && !another { // there is one table per format, the last one's
		table := map[string]string{gatehouse.FormatKEV: overlayKEV, gatehouse.FormatEPSS: overlayEPSS}[state.Format]
		if err := b.exec("DELETE FROM overlay WHERE name = $1", table); err != nil {
			return err
		}
	}
	return b.exec("DELETE FROM feed WHERE n = $1", b.feed.n)
}

// removeRecords takes out all records of the current feed, table by table: one
// after the other as [builder.remove] does would take several times as long.
func (b *builder) removeRecords() error {
	if err := b.flush(); err != nil {
		return err
	}
	hashes, err := b.entryHashes()
	if err != nil {
		return err
	}
	for number, hash := range hashes {
		name, err := b.nameOfNumber(number)
		if err != nil {
			return err
		}
		name.now ^= hash
	}
	if err := b.uncount(); err != nil {
		return err
	}
	for _, query := range []string{
		"DELETE FROM affects WHERE record IN (SELECT n FROM record WHERE feed = $1)",
		"DELETE FROM alias WHERE record IN (SELECT n FROM record WHERE feed = $1)",
		"DELETE FROM doc WHERE n IN (SELECT n FROM record WHERE feed = $1)",
		"DELETE FROM record WHERE feed = $1",
	} {
		if err := b.exec(query, b.feed.n); err != nil {
			return err
		}
	}
	return nil
}

// entryHashes is by how much the hash of each name changes, by its number, when the
// current feed goes.
func (b *builder) entryHashes() (map[int64]int64, error) {
	rows, err := b.tx.QueryContext(b.ctx, `SELECT a.name, a.entry, r.id, r.core, r.rating FROM affects a JOIN record r ON r.n = a.record
		WHERE r.feed = $1`, b.feed.n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64]int64{}
	var entry, core sql.RawBytes
	for rows.Next() {
		var name, rating int64
		var id string
		if err := rows.Scan(&name, &entry, &id, &core, &rating); err != nil {
			return nil, err
		}
		out[name] ^= entryHash(b.feed.state.Name, id, core, entry, rating)
	}
	return out, rows.Err()
}

// uncount takes the records of the current feed out of what is counted of
// ecosystems, and notes what they rated. Their names are known by now.
func (b *builder) uncount() error {
	rows, err := b.tx.QueryContext(b.ctx, "SELECT id, rating, home, core, names FROM record WHERE feed = $1", b.feed.n)
	if err != nil {
		return err
	}
	defer rows.Close()
	var core, packed sql.RawBytes
	for rows.Next() {
		var id string
		var home int
		var old removed
		if err := rows.Scan(&id, &old.rating, &home, &core, &packed); err != nil {
			return err
		}
		numbers, err := decodeNumbers(packed)
		if err != nil {
			return err
		}
		touched := map[*space]bool{}
		for _, number := range numbers {
			name, ok := b.byNumber[number]
			if !ok {
				return (&reader{bad: true}).err("record " + id)
			}
			touched[name.space] = true
		}
		for s := range touched {
			s.records, s.home = s.records-1, s.home-home
		}
		a, err := decodeCore(id, core)
		if err != nil {
			return err
		}
		old.flaws = flawNames(a)
		b.rerate(nil, 0, old)
	}
	return rows.Err()
}

// Named lists the feeds that names stand for: each its own, or with a slash
// behind it all parts of a group ("nvd/"). Errors: CodeNotFound.
func (m Meta) Named(names []string) (out []string, err error) {
	for _, name := range names {
		found := false
		for _, f := range m.Feeds {
			if f.Name != name && !(strings.HasSuffix(name, "/") && strings.HasPrefix(f.Name, name)) {
				continue
			}
			found = true
			if !slices.Contains(out, f.Name) {
				out = append(out, f.Name)
			}
		}
		if !found {
			return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "the database has no feed %q", name).
				WithHint("`gatehouse db status` lists its feeds")
		}
	}
	return out, nil
}

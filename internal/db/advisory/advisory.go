// Package advisory keeps published advisories in one immutable SQLite file per
// generation. [Build] makes a new file of an older one and a stream of records;
// [Open] reads one, many readers at once. A file is never changed after it has
// its name: what is exported, imported and matched against is the same bytes.
//
// A record is told by its feed and its id. A feed that is published whole loses
// the records that its publication no longer has; no feed touches another's.
//
// The layout serves matching: per package name only what decides whether a
// version is affected, apart from that the texts and ratings, compressed. Each
// name carries a hash of what matters to matching, so that the difference
// between two generations is known without comparing advisories. What is known
// of CVEs besides (KEV, EPSS) lies over that and is in no hash: a new score
// matches nothing again.
package advisory

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
)

// Format of the files. A reader refuses newer ones; of older ones, format 1 is
// read as it is, and built upon by bringing the copy up to date.
const (
	applicationID = 0x47484144 // "GHAD"
	formatVersion = 2
	formatNoFeeds = 1 // all records are one feed's, handFeed
)

// handFeed is the feed of what was imported by hand, and of all records of
// format 1. It has no part in hashes and documents, so that they stay true.
const handFeed = "osv"

const schema = `
CREATE TABLE meta(json TEXT NOT NULL);
-- An OSV ecosystem with its release. records counts those that speak of it,
-- home those that speak of no other ecosystem.
CREATE TABLE space(n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, records INTEGER NOT NULL, home INTEGER NOT NULL);
-- hash: XOR over its records of all that matters to matching; 0 when there is none left.
CREATE TABLE name(n INTEGER PRIMARY KEY, space INTEGER NOT NULL, name TEXT NOT NULL, hash INTEGER NOT NULL, UNIQUE(space, name));
CREATE TABLE doc(n INTEGER PRIMARY KEY, zstd BLOB NOT NULL);
CREATE TABLE affects(name INTEGER NOT NULL, record INTEGER NOT NULL, entry BLOB NOT NULL, PRIMARY KEY(name, record)) WITHOUT ROWID;
-- Every name of a flaw that a record bears; exact where the record is about that flaw alone.
CREATE TABLE alias(name TEXT NOT NULL, record INTEGER NOT NULL, exact INTEGER NOT NULL, PRIMARY KEY(name, record)) WITHOUT ROWID;
-- Names to match anew for those who come from the parent generation.
CREATE TABLE changed(name INTEGER PRIMARY KEY);
` + schemaFeeds

// schemaFeeds is what format 1 has not, or otherwise.
const schemaFeeds = `
CREATE TABLE feed(n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- core: names of the flaw; names: numbers of the package names; rating: hash of severity and scores; content: hash of the whole.
CREATE TABLE record(n INTEGER PRIMARY KEY, id TEXT NOT NULL, feed INTEGER NOT NULL, modified INTEGER NOT NULL, rating INTEGER NOT NULL, home INTEGER NOT NULL, core BLOB NOT NULL, names BLOB NOT NULL, content BLOB NOT NULL, UNIQUE(id, feed));
-- Tables of what is known of CVEs, by CVE.
CREATE TABLE overlay(name TEXT PRIMARY KEY, zstd BLOB NOT NULL) WITHOUT ROWID;
`

// Info is what the caller knows of a new generation.
type Info struct {
	BuiltAt time.Time
	Source  string           // what the records come from, for people: "Debian.zip"
	Parent  gatehouse.Digest // of the previous generation's file, if there is one
	// Feed and Whole are those of the publication that [Build] puts in.
	Feed  string
	Whole bool
	// Remove names feeds that go with all their records, before anything is put in.
	Remove []string
}

// Meta describes one generation.
type Meta struct {
	// Digest is the sha256 of the whole file. Build computes it; Open leaves it
	// empty, since whoever named the file knows it.
	Digest    gatehouse.Digest `json:"digest,omitempty"`
	Parent    gatehouse.Digest `json:"parent,omitempty"`
	BuiltAt   time.Time        `json:"builtAt"`
	UpdatedAt time.Time        `json:"updatedAt,omitzero"` // of the feed of records that is newest by its own word
	Records   int              `json:"records"`
	Names     int              `json:"names"`           // package names that records speak of
	Changed   int              `json:"changed"`         // of them against the parent
	Spaces    []Space          `json:"spaces"`          // by name
	Sources   []string         `json:"sources"`         // newest last, bounded
	Feeds     []Feed           `json:"feeds,omitempty"` // by name
	// Shared counts ids that several feeds have.
	Shared int `json:"shared,omitempty"`
}

// Feed is the state of one feed.
type Feed struct {
	Name    string `json:"name"`
	Format  string `json:"format"`
	Source  string `json:"source,omitempty"`  // of the last publication, for people
	Version string `json:"version,omitempty"` // its ETag or digest
	Whole   bool   `json:"whole,omitempty"`
	Records int    `json:"records"` // or rows of its table
	// UpdatedAt is the feed's own time, or its newest record's.
	UpdatedAt  time.Time `json:"updatedAt,omitzero"`
	ImportedAt time.Time `json:"importedAt,omitzero"`
	// Unread names parts of the publication that nobody here reads, for people.
	Unread []string `json:"unread,omitempty"`
}

// Feed returns the state of a feed by its name.
func (m Meta) Feed(name string) (Feed, bool) {
	for _, f := range m.Feeds {
		if f.Name == name {
			return f, true
		}
	}
	return Feed{}, false
}

// Oldest returns the group of advisory feeds that is the most out of date, and of
// when it is. A group is what one source publishes in parts ("osv" of osv/Debian
// and osv/npm, "nvd" of its years), of which a quiet one is not an old one: of
// several, the newest counts. Tables (KEV, EPSS) are no advisories.
//
// A part that nobody has heard of is told by seen: when its source was last known
// to have nothing newer, zero where that is unknown; nil knows nothing. Where it is
// known, that part counts by itself, by the later of it and its newest record, so
// that one that fails for days does not hide behind its siblings.
// ok is false where there are no advisories.
func (m Meta) Oldest(seen func(feed string) time.Time) (name string, at time.Time, ok bool) {
	groups := map[string]time.Time{}
	older := func(n string, t time.Time) {
		if !ok || t.Before(at) {
			name, at, ok = n, t, true
		}
	}
	for _, f := range m.Feeds {
		if f.isTable() || f.Records == 0 {
			continue
		}
		group, _, _ := strings.Cut(f.Name, "/")
		if known, have := groups[group]; !have || f.UpdatedAt.After(known) {
			groups[group] = f.UpdatedAt
		}
		if seen == nil {
			continue
		}
		if looked := seen(f.Name); !looked.IsZero() {
			if looked.Before(f.UpdatedAt) {
				looked = f.UpdatedAt
			}
			older(f.Name, looked)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		older(group, groups[group])
	}
	return name, at, ok
}

// printable refuses what could steer a terminal, and excess: a file may come from
// elsewhere, and all of this is shown.
func (m Meta) printable() error {
	const countMax, lengthMax = 100_000, 8 << 10
	list := slices.Clone(m.Sources)
	for _, f := range m.Feeds {
		list = append(append(list, f.Name, f.Format, f.Source, f.Version), f.Unread...)
	}
	for _, s := range m.Spaces {
		list = append(list, s.Name)
	}
	if len(list) > countMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "it names %d feeds and ecosystems", len(list))
	}
	for _, s := range list {
		if len(s) > lengthMax || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "it holds a name that cannot be shown: %.40q", s)
		}
	}
	return nil
}

// shown is text without what [Meta.printable] refuses.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Overlays lists what is known of CVEs beside records, as
// gatehouse.ImageFacts.Overlays: that none is known to be exploited proves nothing
// where no catalog is loaded.
func (m Meta) Overlays() (out []string) {
	for _, o := range []struct{ overlay, format string }{
		{gatehouse.OverlayKEV, gatehouse.FormatKEV}, {gatehouse.OverlayEPSS, gatehouse.FormatEPSS},
	} {
		if slices.ContainsFunc(m.Feeds, func(f Feed) bool { return f.Format == o.format && f.Records > 0 }) {
			out = append(out, o.overlay)
		}
	}
	return out
}

// isTable reports whether a feed is no list of advisories, but a table by CVE.
func (f Feed) isTable() bool {
	return f.Format == gatehouse.FormatKEV || f.Format == gatehouse.FormatEPSS
}

// Space is one ecosystem with its release.
type Space struct {
	Name    string `json:"name"`
	Records int    `json:"records"`
	// Covered tells whether this ecosystem's own advisories are loaded, rather
	// than a few that other ecosystems' records mention.
	Covered bool `json:"covered"`
}

// Name is one package name of one ecosystem.
type Name struct{ Space, Name string }

// sourcesMax is how many sources a file remembers.
const sourcesMax = 100

// families are ecosystems whose records are published together.
var families = map[string]string{
	"Wolfi": "Chainguard", "openSUSE": "SUSE", "BellSoft Hardened Containers": "Alpaquita",
}

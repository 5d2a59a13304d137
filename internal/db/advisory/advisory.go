// Package advisory keeps published advisories in one immutable SQLite file per
// generation. [Build] makes a new file of an older one and a stream of records;
// [Open] reads one, many readers at once. A file is never changed after it has
// its name: what is exported, imported and matched against is the same bytes.
//
// The layout serves matching: per package name only what decides whether a
// version is affected, apart from that the texts and ratings, compressed. Each
// name carries a hash of what matters to matching, so that the difference
// between two generations is known without comparing advisories.
package advisory

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Format of the files. A reader refuses any other one.
const (
	applicationID = 0x47484144 // "GHAD"
	formatVersion = 2
)

const schema = `
CREATE TABLE meta(json TEXT NOT NULL);
-- An OSV ecosystem with its release. records counts those that speak of it,
-- home those that speak of no other ecosystem.
CREATE TABLE space(n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, records INTEGER NOT NULL, home INTEGER NOT NULL);
-- hash: XOR over its records of all that matters to matching; 0 when there is none left.
CREATE TABLE name(n INTEGER PRIMARY KEY, space INTEGER NOT NULL, name TEXT NOT NULL, hash INTEGER NOT NULL, UNIQUE(space, name));
-- core: names of the flaw; names: numbers of the package names; rating: hash of severity and scores; content: hash of the whole.
CREATE TABLE record(n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, modified INTEGER NOT NULL, rating INTEGER NOT NULL, home INTEGER NOT NULL, core BLOB NOT NULL, names BLOB NOT NULL, content BLOB NOT NULL);
CREATE TABLE doc(n INTEGER PRIMARY KEY, zstd BLOB NOT NULL);
CREATE TABLE affects(name INTEGER NOT NULL, record INTEGER NOT NULL, entry BLOB NOT NULL, PRIMARY KEY(name, record)) WITHOUT ROWID;
-- Every name of a flaw that a record bears; exact where the record is about that flaw alone.
CREATE TABLE alias(name TEXT NOT NULL, record INTEGER NOT NULL, exact INTEGER NOT NULL, PRIMARY KEY(name, record)) WITHOUT ROWID;
-- Names to match anew for those who come from the parent generation.
CREATE TABLE changed(name INTEGER PRIMARY KEY);
`

// Info is what the caller knows of a new generation.
type Info struct {
	BuiltAt time.Time
	Source  string           // what the records come from, for people: "Debian.zip"
	Parent  gatehouse.Digest // of the previous generation's file, if there is one
}

// Meta describes one generation.
type Meta struct {
	// Digest is the sha256 of the whole file. Build computes it; Open leaves it
	// empty, since whoever named the file knows it.
	Digest    gatehouse.Digest `json:"digest,omitempty"`
	Parent    gatehouse.Digest `json:"parent,omitempty"`
	BuiltAt   time.Time        `json:"builtAt"`
	UpdatedAt time.Time        `json:"updatedAt,omitzero"` // the newest record's own time
	Records   int              `json:"records"`
	Names     int              `json:"names"`   // package names that records speak of
	Changed   int              `json:"changed"` // of them against the parent
	Spaces    []Space          `json:"spaces"`  // by name
	Sources   []string         `json:"sources"` // newest last, bounded
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

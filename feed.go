package gatehouse

import (
	"iter"
	"time"
)

// Formats of feeds.
const (
	FormatOSV     = "osv"
	FormatTrivyDB = "trivy-db"
	FormatNVD     = "nvd"
	FormatKEV     = "kev"
	FormatEPSS    = "epss"
)

// Publication is what a feed published at one time: records, or a table of what
// is known of CVEs. Its records are read once, and hold open what they are read
// from.
type Publication struct {
	// Feed names the feed: "osv/Debian", "osv" for what was imported by hand,
	// "trivy-db", "nvd", "kev", "epss".
	Feed   string
	Format string
	// Whole: this is all that the feed holds, so that its records that are
	// missing here have vanished.
	Whole bool
	// Source is where it comes from, for people: a file's name, an address.
	Source string
	// Version is how the source names this state (an ETag, a digest); empty if
	// unknown.
	Version string
	// UpdatedAt is when the feed says that it was made; zero where it does not.
	UpdatedAt time.Time
	// Records ends at its first error. It is nil where there are none to read.
	Records iter.Seq2[Advisory, error]
	// KEV and EPSS by CVE. Not nil: the table replaces the one before.
	KEV  map[string]KEV
	EPSS map[string]EPSS
	// Unread names what the file holds and nobody here reads, for people.
	Unread []string
}

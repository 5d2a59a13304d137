// Package update brings published advisories here and keeps them fresh. It knows
// where feeds are published, asks whether they have changed, and fetches those
// that have: over HTTP, from a mirror directory, or as an OCI artifact from a
// registry. In go feeds with their states, out come files and new states. It
// also packs a whole advisory database into an OCI artifact and unpacks one.
//
// What it never does: parse an advisory, store a state, open a connection
// itself (the transport is handed in).
package update

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Limits of what is fetched, in bytes as they come over the wire. All are
// several times what is published in 2026.
const (
	osvSizeMax     = 4 << 30
	trivySizeMax   = 2 << 30
	nvdSizeMax     = 512 << 20
	overlaySizeMax = 128 << 20 // KEV, EPSS
	metaSizeMax    = 64 << 10
)

// Registry is one registry to read from: [fetch.Registry], or the server's own
// content.
type Registry interface {
	ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error)
	Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error)
	OpenBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error)
}

// Fetcher fetches feeds. It is safe for concurrent use.
type Fetcher struct {
	// Transport opens connections; it is egress's. Required. Redirects are
	// followed, and each goes through it.
	Transport http.RoundTripper
	// Registry returns the registry at a host, which is asked through transport
	// unless it is this server itself. Required for feeds that are OCI artifacts.
	Registry func(host string, transport http.RoundTripper) Registry
	// Held tells whether a whole database of this digest is in force, or was and
	// has been followed by others. Required for such a feed.
	Held func(ctx context.Context, d gatehouse.Digest) (bool, error)
	// Dir is where fetched files lie until [Result.Discard]. Required.
	Dir string
	// Interval is the time between two looks at a feed; default [IntervalDefault].
	Interval time.Duration
	// Progress is told of each feed before it is asked for; nil tells nobody.
	Progress func(f Feed)
	// Now is the clock; nil is the system's.
	Now func() time.Time

	// Tests neither wait nor throw dice.
	sleep func(ctx context.Context, d time.Duration) error
	dice  func() float64 // 0 to 1
}

// IntervalDefault is how often feeds are looked at: Trivy's database is built
// that often.
const IntervalDefault = 6 * time.Hour

// parallel is how many feeds are fetched at a time.
const parallel = 3

func (f *Fetcher) time() time.Time {
	if f.Now != nil {
		return f.Now().UTC()
	}
	return time.Now().UTC()
}

func (f *Fetcher) jitter() float64 {
	if f.dice != nil {
		return f.dice()
	}
	return rand.Float64()
}

func (f *Fetcher) interval() time.Duration {
	if f.Interval > 0 {
		return f.Interval
	}
	return IntervalDefault
}

// wait sleeps for d or until ctx ends.
func (f *Fetcher) wait(ctx context.Context, d time.Duration) error {
	if f.sleep != nil {
		return f.sleep(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Closers in this package are of files that were only read, or that are thrown
// away because something failed before.
func discard(c io.Closer) { _ = c.Close() }

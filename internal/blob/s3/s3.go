// Package s3 is a [blob.Store] in a bucket of an S3 server:
//
//	[prefix/]blobs/<key>           an object, or its first small sitting
//	[prefix/]tails/<key>.<random>  what a sitting left that fills no part
//	[prefix/]gatehouse-store       a marker that says whose the place is
//
// An object of at most one part that is written in one sitting costs one
// request. Anything larger is a multipart upload on the object's own name: parts
// leave while the client still sends, and what fills no part at the end of a
// sitting is kept in a tail, from where another sitting, also in another
// process, goes on. The state that travels in the row names the upload, its
// parts and the tail.
//
// S3 has no locks. What the store promises by itself is that a stale writer
// harms nobody: a name under blobs/ is written by a conditional request, which
// creates it or fails, or by completing a multipart upload, which works once and
// for the parts of one state. So two writers of one key end with the bytes of
// the state that is published, or with an error, and never with a mixture. That
// only one of them counts is for the caller: content holds a lease.
//
// All requests go through the transport that is handed in; parts carry a
// SHA-256, so that the server refuses what was changed on the way.
package s3

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

const (
	// PartSize is the size in bytes of all parts but the last, and of the
	// largest object that costs one request. An upload holds at most two parts
	// in memory.
	PartSize = 8 << 20
	// partsMax is S3's own limit: objects have up to 78 GiB.
	partsMax = 10_000
	// deleteBatch is how many objects one request deletes (S3's limit).
	deleteBatch = 1000
	// listPage is how many names one request lists (S3's limit).
	listPage = 1000
	// linkTime is how long a presigned address works: it is followed at once.
	linkTime = 10 * time.Minute
)

// Options of [Open]. Transport is required.
type Options struct {
	// Getenv finds credentials and the region; nil finds none.
	Getenv func(string) string
	// Transport carries every request, those for credentials too.
	Transport http.RoundTripper
	// Installation is whose the bucket, or the folder of it, must be or becomes:
	// a text of one line. Empty: it is not asked whose it is, as for a tool that
	// looks at the objects of a server.
	Installation string
	// RetryTime is how long a request is repeated while the storage does not
	// answer; 30 s by default.
	RetryTime time.Duration
	// RequestTime bounds one attempt, not the body of a read; 2 min by default.
	RequestTime time.Duration
}

// Store is the bucket. It is safe for concurrent use, also by several processes.
type Store struct {
	core        *minio.Core
	place       place
	retryTime   time.Duration
	requestTime time.Duration
	// conditional says that the server honours If-None-Match on writes. Where it
	// does not, small objects are multipart uploads too.
	conditional bool
	parts       sync.Pool // of *[PartSize]byte
}

var (
	_ blob.Store  = (*Store)(nil)
	_ blob.Linker = (*Store)(nil)
)

// Open opens the store at rawURL:
//
//	s3://bucket/prefix?endpoint=https://host:port&region=R&path-style=true&redirect=true
//
// Without an endpoint it is Amazon's, and a region is needed, here or in
// AWS_REGION. Credentials never stand in the URL; see [Options].
//
// Errors: CodeInvalid, with a hint: the URL, the credentials, or what the server
// says of them and of the bucket. CodeConflict: the place is another
// installation's. CodeUnavailable: the server does not answer.
func Open(ctx context.Context, rawURL string, opts Options) (*Store, error) {
	if opts.Transport == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "the S3 store was given no transport")
	}
	if opts.Getenv == nil {
		opts.Getenv = func(string) string { return "" }
	}
	setDefault(&opts.RetryTime, 30*time.Second)
	setDefault(&opts.RequestTime, 2*time.Minute)
	p, err := parseURL(rawURL, opts.Getenv)
	if err != nil {
		return nil, err
	}
	creds, err := findCredentials(p, opts.Getenv, opts.Transport)
	if err != nil {
		return nil, err
	}
	core, err := minio.NewCore(p.host, &minio.Options{
		Creds: creds, Secure: p.secure, Transport: opts.Transport, Region: p.region, BucketLookup: p.lookup,
		MaxRetries: 1, // we repeat by ourselves
	})
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "storage: %w", err)
	}
	s := &Store{core: core, place: p, retryTime: opts.RetryTime, requestTime: opts.RequestTime}
	s.parts.New = func() any { return new([PartSize]byte) }
	if err := s.probe(ctx, opts.Installation); errors.Is(err, errForeign) {
		return nil, err
	} else if err != nil {
		return nil, s.refusal(err)
	}
	return s, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Conditional reports whether the server honours conditions on writes.
func (s *Store) Conditional() bool { return s.conditional }

func (s *Store) name(key string) string { return s.place.prefix + "blobs/" + key }

func (s *Store) tail(key, id string) string { return s.place.prefix + "tails/" + key + "." + id }

// keyOf returns the key of a name under folder; ok is false for what is not ours.
func (s *Store) keyOf(folder, name string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(name, s.place.prefix+folder)
	if folder == "tails/" {
		rest, _, _ = strings.Cut(rest, ".")
	}
	return rest, ok && blob.CheckKeys(rest) == nil
}

// tokenHeader marks an object with the sitting that made it, so that a lost
// answer can be told from a foreign object.
const tokenHeader = "Gatehouse"

// put writes an object in one request. fresh lets it fail with 412 where the
// name is taken.
func (s *Store) put(ctx context.Context, name, token string, b []byte, fresh bool) error {
	sum := sumOf(b)
	opts := minio.PutObjectOptions{DisableContentSha256: true} // the one of the whole is given
	if token != "" {
		opts.UserMetadata = map[string]string{tokenHeader: token}
	}
	if fresh {
		opts.SetMatchETagExcept("*")
	}
	return s.try(ctx, func(ctx context.Context) error {
		r := newBody(b)
		defer r.done()
		_, err := s.core.PutObject(ctx, s.place.bucket, name, r, int64(len(b)), "", sum, opts)
		return err
	})
}

// isOurs reports whether the object name has this size and this token.
func (s *Store) isOurs(ctx context.Context, name, token string, size int64) (bool, error) {
	var info minio.ObjectInfo
	err := s.try(ctx, func(ctx context.Context) (err error) {
		info, err = s.core.StatObject(ctx, s.place.bucket, name, minio.StatObjectOptions{})
		return err
	})
	if is(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil && info.Size == size && info.UserMetadata[tokenHeader] == token, err
}

// Open implements [blob.Store]. It sends one request for the whole object; what
// is read from the beginning to the end costs no other.
func (s *Store) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	if err := errors.Join(ctx.Err(), blob.CheckKeys(key)); err != nil {
		return nil, err
	}
	r, err := s.read(ctx, s.name(key))
	if err != nil {
		return nil, s.fail(ctx, err, key)
	}
	r.key = key
	return r, nil
}

// Link implements [blob.Linker].
func (s *Store) Link(ctx context.Context, key string) (string, error) {
	if !s.place.redirect {
		return "", nil
	}
	if err := blob.CheckKeys(key); err != nil {
		return "", err
	}
	u, err := s.core.PresignedGetObject(ctx, s.place.bucket, s.name(key), linkTime, nil)
	if err != nil {
		return "", s.fail(ctx, err, key)
	}
	return u.String(), nil
}

// Links implements [blob.Linker].
func (s *Store) Links() bool { return s.place.redirect }

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

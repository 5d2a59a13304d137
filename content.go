package gatehouse

import (
	"context"
	"io"
	"time"
)

// ManifestSizeMax is the largest manifest in bytes that is stored or read
// (distribution-spec: registries SHOULD accept at least 4 MiB).
const ManifestSizeMax = 4 << 20

// Content is one registry as a Go interface: the protocol edge serves any
// Content, and a client of another registry is a Content too.
//
// All methods may be called concurrently. Unless a method says otherwise its
// errors are *[Error] with these codes: CodeNotFound (detail NAME_UNKNOWN,
// MANIFEST_UNKNOWN, BLOB_UNKNOWN or BLOB_UPLOAD_UNKNOWN), CodeInvalid,
// CodeTooLarge, CodeUnavailable. A method that returned nil has made its change
// durable.
type Content interface {
	ContentReader
	ContentWriter
	ContentLister
	ContentRemover
}

// ContentReader reads what is stored. Bytes of a manifest are verified against
// their digest before they are returned; bytes of a blob were verified when
// they were stored.
type ContentReader interface {
	// StatBlob tells the size of a blob that repo holds a link to.
	StatBlob(ctx context.Context, repo Repo, digest Digest) (Descriptor, error)
	// OpenBlob opens a blob that repo holds a link to. The caller closes Body.
	OpenBlob(ctx context.Context, repo Repo, digest Digest) (*Blob, error)
	// Manifest returns a manifest by digest.
	Manifest(ctx context.Context, repo Repo, digest Digest) (*Manifest, error)
	// ManifestByTag returns the manifest that tag points at now.
	ManifestByTag(ctx context.Context, repo Repo, tag string) (*Manifest, error)
}

// ContentWriter adds content.
type ContentWriter interface {
	// StartUpload opens an upload session. algorithm is "sha256" or "sha512",
	// the one that the final digest will use; empty means sha256.
	// CodeTooMany: actor has too many sessions open already.
	StartUpload(ctx context.Context, actor Actor, repo Repo, algorithm string) (Upload, error)
	// ResumeUpload finds a session that StartUpload opened, here or on another
	// replica, in the same repository.
	ResumeUpload(ctx context.Context, actor Actor, repo Repo, id string) (Upload, error)
	// MountBlob links a blob of repository from into repo without moving bytes.
	// Whether actor may read from is the caller's question.
	// CodeNotFound: from holds no such blob; the caller opens an upload instead.
	MountBlob(ctx context.Context, actor Actor, repo, from Repo, digest Digest) (Descriptor, error)
	// PutManifest stores a manifest and moves tags to it, all or nothing.
	// CodeInvalid with detail MANIFEST_INVALID, DIGEST_INVALID or
	// MANIFEST_BLOB_UNKNOWN (a config, layer or child that repo does not hold).
	// CodeConflict with detail TAG_IMMUTABLE: a tag points elsewhere and may not move.
	// The subject need not exist (distribution-spec, referrers).
	PutManifest(ctx context.Context, actor Actor, put ManifestPut) (*Manifest, error)
}

// ContentLister lists names, in byte order, after the given one and at most n
// of them (n <= 0: none). A list that is full may go on.
type ContentLister interface {
	Repos(ctx context.Context, after string, n int) ([]Repo, error)
	// Tags lists a repository's tags. CodeNotFound: the repository is unknown.
	Tags(ctx context.Context, repo Repo, after string, n int) ([]string, error)
	// Referrers lists the manifests whose subject is digest, oldest first,
	// filtered by artifactType unless that is empty. An unknown digest or
	// repository has none. Pages go by the digest of the last one seen.
	// The children of an index that is tagged with digest's [Digest.FallbackTag]
	// count as well, also those that name no subject.
	Referrers(ctx context.Context, repo Repo, digest Digest, artifactType string, after Digest, n int) ([]Descriptor, error)
	// BlobRepos names repositories that hold a link to a blob, in no order and
	// at most n: not all who ask may read them all.
	BlobRepos(ctx context.Context, digest Digest, n int) ([]Repo, error)
}

// ContentRemover removes names and links; the bytes go when nothing holds them.
type ContentRemover interface {
	// DeleteTag removes a tag. CodeConflict with detail TAG_IMMUTABLE: it may not go.
	DeleteTag(ctx context.Context, actor Actor, repo Repo, tag string) error
	// DeleteManifest removes a manifest and every tag that points at it; errors as
	// of DeleteTag.
	DeleteManifest(ctx context.Context, actor Actor, repo Repo, digest Digest) error
	// DeleteBlob removes repo's link. CodeConflict: a manifest of repo needs it.
	DeleteBlob(ctx context.Context, actor Actor, repo Repo, digest Digest) error
}

// Attached is what hangs on a manifest, at one moment.
type Attached struct {
	Tags      map[string]*Manifest // by name, whole; a tag that is not there is missing
	Past      map[string][]Digest  // what tags pointed to
	Referrers []Descriptor         // the first of them, oldest first, without annotations
	// Bodies has those of referrers that are small. Who uses one checks its digest.
	Bodies map[Digest][]byte
}

// Blob is one open blob.
type Blob struct {
	Descriptor
	// Body is an *os.File where the bytes are local, so that sendfile works.
	Body io.ReadSeekCloser
}

// BlobLinker is a ContentReader whose clients may fetch large blobs from storage
// by themselves. Only the protocol edge asks it; whoever needs the bytes here
// calls OpenBlob.
type BlobLinker interface {
	// LinkBlob returns an address from which the blob can be read for some
	// minutes without credentials, by whoever has it. Empty: use OpenBlob.
	LinkBlob(ctx context.Context, repo Repo, digest Digest) (url string, err error)
}

// Upload is one session of a blob upload. Its methods are not safe for
// concurrent use; two sessions opened for the same id exclude each other
// (CodeConflict).
type Upload interface {
	// ID is safe in a URL path.
	ID() string
	// Offset is the number of bytes stored so far.
	Offset() int64
	// Append stores what r yields behind the first offset bytes and returns the
	// new offset. offset < 0 means "at the end". CodeConflict with detail
	// RANGE_INVALID: offset is not the current one; nothing was stored.
	// When r fails, what was read before is kept and Offset tells how much.
	Append(ctx context.Context, offset int64, r io.Reader) (int64, error)
	// Commit verifies digest over all bytes, makes the blob visible in the
	// repository and ends the session. CodeInvalid with detail DIGEST_INVALID:
	// the bytes have another digest; the session is ended, nothing is stored.
	Commit(ctx context.Context, digest Digest) (Descriptor, error)
	// Cancel ends the session and drops its bytes.
	Cancel(ctx context.Context) error
}

// ManifestPut is a manifest on its way in.
type ManifestPut struct {
	Repo      Repo
	Digest    Digest   // expected; empty = sha256 of Body
	Tags      []string // to move to it, maybe none
	MediaType string   // of the Content-Type header; must agree with the body
	Body      []byte
}

// Manifest is a stored manifest.
type Manifest struct {
	Descriptor        // MediaType, Digest, Size, ArtifactType, Annotations
	Repo       Repo   `json:"-"`
	Body       []byte `json:"-"`
	Subject    Digest `json:"-"`
	PushedAt   time.Time
	PushedBy   string
	// Broken: a blob or child that it needs has been found damaged and is not
	// served. Its own bytes are right.
	Broken bool `json:"-"`
	// Pull is what the project asks of an image before it may be pulled. Where that
	// is anything, whoever serves the manifest asks first whether it may.
	Pull PullMode `json:"-"`
}

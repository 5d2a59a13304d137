// Package content is one registry of rows and bytes: it implements
// [gatehouse.Content] over db and blob. The database is the truth of what
// exists; bytes are stored before the row that names them, and every stored key
// is named by a row at all times, so that a crash leaves nothing that nobody
// knows of. One change is one transaction, with its event and audit record.
//
// What it never does: ask who may, speak HTTP, look into a layer.
package content

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// InlineMax is the size in bytes up to which a blob lies in its row: configs,
// signatures, small attestations. They cost no file and are hashed on each read.
const InlineMax = 64 << 10

// Options tune a [Content]. The zero value is right.
type Options struct {
	// OnPush is called in the transaction that stores a manifest for the first
	// time, to add what must happen next. An error undoes the push.
	OnPush func(ctx context.Context, tx *db.Tx, m *gatehouse.Manifest) error
	// OnAttached is called in every transaction that changes what hangs on a
	// manifest (referrers that may sign it, and what lies under cosign's tags), or that stores one on
	// which something hangs already. subject need not be there. An error undoes the
	// change.
	OnAttached func(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, subject gatehouse.Digest) error
	// MaySign reports whether a manifest that names a subject may carry a signature of
	// it; what cannot is no change of what hangs on the subject. Nil: all may.
	MaySign func(m *gatehouse.Manifest) bool
	// UploadSizeMax is the largest blob in bytes; 64 GiB by default.
	UploadSizeMax int64
	// UploadAgeMax is how long an upload session that nobody writes to is kept;
	// 24 h by default.
	UploadAgeMax time.Duration
	// UploadsMax is how many upload sessions one actor may have open at a time:
	// 10,000 by default, which a client that opens sessions and abandons them
	// reaches, and a company's build farm under one account does not.
	UploadsMax int
	// GC says how long what nobody needs is kept.
	GC GCOptions
	// LeaseTime is how long a session stays taken after the request that wrote
	// to it died; 30 s by default.
	LeaseTime time.Duration
}

// Content is the registry. It is safe for concurrent use, also by several
// processes on one database and store.
type Content struct {
	db      *db.DB
	store   blob.Store
	opts    Options
	buffers sync.Pool // of *[copyBufferSize]byte
	hot     hotBlobs

	scrubbed scrubCounts
	doubts   *doubts
}

const copyBufferSize = 256 << 10

// New returns the registry that db and store hold together.
func New(d *db.DB, store blob.Store, opts Options) *Content {
	set := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	if opts.UploadSizeMax == 0 {
		opts.UploadSizeMax = 64 << 30
	}
	if opts.UploadsMax == 0 {
		opts.UploadsMax = 10_000
	}
	set(&opts.UploadAgeMax, 24*time.Hour)
	opts.GC.set()
	set(&opts.LeaseTime, 30*time.Second)
	return &Content{db: d, store: store, opts: opts, doubts: newDoubts(), buffers: sync.Pool{New: func() any { return new([copyBufferSize]byte) }}}
}

var _ gatehouse.Content = (*Content)(nil)

// detailOf returns the distribution-spec code that err carries.
func detailOf(err error) string {
	var e *gatehouse.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}

// nameUnknown turns "no such manifest" into "no such repository" where that is
// the better answer.
func (c *Content) nameUnknown(ctx context.Context, repo gatehouse.Repo, err error) error {
	if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return err
	}
	known := true
	if rerr := c.db.Get(ctx, func(tx *db.Tx) (err error) {
		known, err = tx.RepoKnown(ctx, repo)
		return err
	}); rerr != nil {
		return rerr
	}
	if known {
		return err
	}
	return unknownRepo(repo)
}

func unknownRepo(repo gatehouse.Repo) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s is unknown", repo).WithDetail("NAME_UNKNOWN")
}

package content

import (
	"context"
	"io"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Commit implements [gatehouse.Upload].
func (u *upload) Commit(ctx context.Context, digest gatehouse.Digest) (gatehouse.Descriptor, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return gatehouse.Descriptor{}, err
	}
	commit := u.commitStored
	if u.row.HashState == nil {
		commit = u.commitInline
	}
	if err := commit(ctx, digest); err != nil {
		return gatehouse.Descriptor{}, err
	}
	return describe(digest, u.row.Size), nil
}

// commitInline stores a small blob in its row: one transaction.
func (u *upload) commitInline(ctx context.Context, digest gatehouse.Digest) error {
	token := ""
	if u.row.StorageKey != "" { // a sitting failed before its bytes counted: its key must go
		l, err := u.lease(ctx)
		if err != nil {
			return err
		}
		defer l.release()
		token = l.token
	}
	if !digest.Matches(u.row.Head) {
		return u.wrongDigest(ctx, token, digest)
	}
	var dropped db.Dropped
	err := u.c.db.Write(ctx, func(tx *db.Tx) (err error) {
		var ended bool
		if u.row.StorageKey == "" {
			ended, err = tx.EndUpload(ctx, u.row.ID, "", u.row.Size)
		} else {
			dropped, ended, err = tx.DropUpload(ctx, u.row.ID, token)
		}
		if err != nil {
			return err
		}
		if !ended {
			return errOvertaken
		}
		_, err = u.link(ctx, tx, db.Blob{Digest: digest, Size: u.row.Size, Inline: u.row.Head})
		return err
	})
	if err == errOvertaken {
		return u.overtaken(ctx)
	}
	if err == nil {
		u.c.reclaim(ctx, dropped)
	}
	return err
}

// errOvertaken undoes a transaction whose session is not as it was.
var errOvertaken = gatehouse.Errorf(gatehouse.CodeConflict, "the upload session was changed by another request")

// link adds the blob and the repository's right to it.
func (u *upload) link(ctx context.Context, tx *db.Tx, b db.Blob) (won bool, err error) {
	id, won, err := tx.AddBlob(ctx, b)
	if err != nil {
		return false, err
	}
	return won, tx.LinkBlob(ctx, u.row.RepoID, id, tx.Now().Add(u.c.opts.GC.Grace))
}

// commitStored publishes the bytes, then the row: bytes first, so that no row
// is ever without them. A duplicate drops its own bytes.
func (u *upload) commitStored(ctx context.Context, digest gatehouse.Digest) error {
	l, err := u.lease(ctx)
	if err != nil {
		return err
	}
	defer l.release()
	known := digest.Algorithm() == u.row.Algorithm
	if known {
		sum, err := restoreHash(u.row.Algorithm, u.row.HashState, u.row.Size)
		if err != nil {
			return err
		}
		if gatehouse.NewDigest(u.row.Algorithm, sum.Sum(nil)) != digest {
			return u.wrongDigest(ctx, l.token, digest)
		}
	}
	exists := false
	if known {
		err := u.c.db.Get(l.ctx, func(tx *db.Tx) (err error) {
			_, exists, err = tx.Blob(l.ctx, digest)
			return err
		})
		if err != nil {
			return l.why(err)
		}
	}
	if !exists {
		if err := u.c.store.Publish(l.ctx, u.row.StorageKey, u.row.Size, u.row.StorageState); err != nil {
			return l.why(err)
		}
	}
	if !known {
		// Announced with one algorithm, named with the other: read it again.
		same, err := u.rehash(l.ctx, digest)
		if err != nil {
			return l.why(err)
		}
		if !same {
			return u.wrongDigest(ctx, l.token, digest)
		}
	}
	return u.finish(ctx, l, digest, exists)
}

// finish makes the blob visible and ends the session.
func (u *upload) finish(ctx context.Context, l *lease, digest gatehouse.Digest, exists bool) error {
	var dropped db.Dropped
	err := u.c.db.Write(l.ctx, func(tx *db.Tx) (err error) {
		b := db.Blob{Digest: digest, Size: u.row.Size, StorageKey: u.row.StorageKey}
		if exists { // it may have gone since; then nothing is published yet
			if _, still, err := tx.Blob(l.ctx, digest); err != nil || !still {
				return errOr(err, errVanished)
			}
		}
		won, err := u.link(l.ctx, tx, b)
		if err != nil {
			return err
		}
		var ended bool
		if won {
			ended, err = tx.EndUpload(l.ctx, u.row.ID, l.token, u.row.Size)
		} else {
			dropped, ended, err = tx.DropUpload(l.ctx, u.row.ID, l.token)
		}
		if err == nil && !ended {
			err = leaseLost()
		}
		return err
	})
	if err == errVanished {
		if err := u.c.store.Publish(l.ctx, u.row.StorageKey, u.row.Size, u.row.StorageState); err != nil {
			return l.why(err)
		}
		return u.finish(ctx, l, digest, false)
	}
	if err != nil {
		return l.why(err)
	}
	l.done()
	u.c.reclaim(ctx, dropped)
	return nil
}

// errVanished undoes a transaction that counted on a blob that has been
// collected since.
var errVanished = gatehouse.Errorf(gatehouse.CodeConflict, "the blob was collected meanwhile")

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// rehash reads a published object and reports whether it has this digest.
func (u *upload) rehash(ctx context.Context, digest gatehouse.Digest) (bool, error) {
	f, err := u.c.store.Open(ctx, u.row.StorageKey)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := digest.Hash()
	buf := u.c.buffers.Get().(*[copyBufferSize]byte)
	defer u.c.buffers.Put(buf)
	for {
		n, err := f.Read(buf[:])
		sum.Write(buf[:n])
		if err == io.EOF {
			return gatehouse.NewDigest(digest.Algorithm(), sum.Sum(nil)) == digest, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
	}
}

// wrongDigest ends the session: the bytes are not what their sender says.
func (u *upload) wrongDigest(ctx context.Context, token string, digest gatehouse.Digest) error {
	if err := u.drop(ctx, token); err != nil {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the %d bytes of the upload do not have the digest %s", u.row.Size, digest).
		WithDetail("DIGEST_INVALID").WithHint("the bytes were changed on the way, or the digest is of other bytes; upload them again")
}

// Cancel implements [gatehouse.Upload].
func (u *upload) Cancel(ctx context.Context) error { return u.drop(ctx, "") }

func (u *upload) drop(ctx context.Context, token string) error {
	var dropped db.Dropped
	err := u.c.db.Write(ctx, func(tx *db.Tx) error {
		var ok bool
		var err error
		if dropped, ok, err = tx.DropUpload(ctx, u.row.ID, token); err == nil && !ok {
			if _, err = tx.Upload(ctx, u.row.Repo, u.row.ID); err == nil { // else there is none
				err = leaseLost()
			}
		}
		return err
	})
	if err == nil {
		u.c.reclaim(ctx, dropped)
	}
	return err
}

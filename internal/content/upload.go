package content

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// saveTimeout bounds the saving of what a client sent before it went away.
const saveTimeout = 30 * time.Second

// StartUpload implements [gatehouse.ContentWriter].
func (c *Content) StartUpload(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, algorithm string) (gatehouse.Upload, error) {
	if algorithm == "" {
		algorithm = gatehouse.SHA256
	}
	if gatehouse.NewHash(algorithm) == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "digest algorithm %q is unknown", algorithm).
			WithDetail("DIGEST_INVALID").WithHint("use sha256 or sha512")
	}
	if _, err := gatehouse.ParseRepo(string(repo)); err != nil {
		return nil, err
	}
	row := db.Upload{ID: rand.Text(), Repo: repo, Algorithm: algorithm, Actor: actor.Name}
	err := c.db.Write(ctx, func(tx *db.Tx) (err error) {
		full, err := tx.UploadsReach(ctx, actor.Name, c.opts.UploadsMax)
		if err != nil {
			return err
		}
		if full {
			return gatehouse.Errorf(gatehouse.CodeTooMany, "%s has %d upload sessions open, which is the limit", actor.Name, c.opts.UploadsMax).
				WithDetail("TOOMANYREQUESTS").WithHint("finish or cancel some of them (DELETE of their location); abandoned ones end by themselves after %s", c.opts.UploadAgeMax)
		}
		if row.RepoID, err = tx.EnsureRepo(ctx, repo); err != nil {
			return err
		}
		return tx.AddUpload(ctx, row)
	})
	if err != nil {
		return nil, err
	}
	return &upload{c: c, actor: actor, row: row}, nil
}

// ResumeUpload implements [gatehouse.ContentWriter].
func (c *Content) ResumeUpload(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, id string) (gatehouse.Upload, error) {
	u := &upload{c: c, actor: actor, row: db.Upload{ID: id, Repo: repo}}
	if err := u.refresh(ctx); err != nil {
		return nil, err
	}
	return u, nil
}

// upload is one session. Its bytes are the head in its row while there are at
// most InlineMax of them; then they move to storage, and row.HashState is set.
type upload struct {
	c     *Content
	actor gatehouse.Actor
	row   db.Upload // as last seen
}

func (u *upload) ID() string    { return u.row.ID }
func (u *upload) Offset() int64 { return u.row.Size }

func (u *upload) refresh(ctx context.Context) error {
	return u.c.db.Get(ctx, func(tx *db.Tx) error {
		row, err := tx.Upload(ctx, u.row.Repo, u.row.ID)
		if err == nil {
			u.row = row
		}
		return err
	})
}

// Append implements [gatehouse.Upload].
func (u *upload) Append(ctx context.Context, offset int64, r io.Reader) (int64, error) {
	if offset >= 0 && offset != u.row.Size {
		if err := u.refresh(ctx); err != nil {
			return u.row.Size, err
		}
		if offset != u.row.Size {
			return u.row.Size, rangeInvalid(offset, u.row.Size)
		}
	}
	if u.row.HashState != nil {
		return u.row.Size, u.appendStored(ctx, nil, r)
	}
	head, readErr := u.head(r)
	if len(head) <= InlineMax {
		err := u.appendHead(ctx, head)
		if err == nil && readErr != nil {
			err = readFailed(readErr)
		}
		return u.row.Size, err
	}
	// The reader repeats its error, if it had one.
	if readErr != nil {
		r = failed{readErr}
	}
	err := u.appendStored(ctx, head, r)
	return u.row.Size, err
}

// head returns the bytes so far with what r yields, one byte more than are kept
// in the row at most.
func (u *upload) head(r io.Reader) (head []byte, err error) {
	buf := u.c.buffers.Get().(*[copyBufferSize]byte)
	defer u.c.buffers.Put(buf)
	part, n := buf[:InlineMax+1-u.row.Size], 0
	for n < len(part) && err == nil { // io.ReadFull would hide a body that was cut off
		var more int
		more, err = r.Read(part[n:])
		n += more
	}
	if err == io.EOF {
		err = nil
	}
	return slices.Concat(u.row.Head, part[:n]), err
}

// failed is a reader that has failed.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

func readFailed(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var ge *gatehouse.Error
	if errors.As(err, &ge) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the upload was cut off: %w", err).
		WithDetail("BLOB_UPLOAD_INVALID").WithHint("ask for the session's offset and go on from there")
}

func rangeInvalid(got, want int64) error {
	return gatehouse.Errorf(gatehouse.CodeConflict, "the bytes begin at offset %d, but %d is next", got, want).WithDetail("RANGE_INVALID")
}

// appendHead stores the bytes of a small upload in its row: one transaction.
func (u *upload) appendHead(ctx context.Context, head []byte) error {
	if int64(len(head)) > u.c.opts.UploadSizeMax {
		return u.tooLarge()
	}
	ctx, stop := detached(ctx)
	defer stop()
	saved := false
	err := u.c.db.Write(ctx, func(tx *db.Tx) (err error) {
		saved, err = tx.AppendHead(ctx, u.row.ID, u.row.Size, head)
		return err
	})
	if err != nil {
		return err
	}
	if !saved {
		return u.overtaken(ctx)
	}
	u.row.Head, u.row.Size = head, int64(len(head))
	return nil
}

// overtaken finds out why a change met another state than it was based on.
func (u *upload) overtaken(ctx context.Context) error {
	before := u.row.Size
	if err := u.refresh(ctx); err != nil {
		return err
	}
	if u.row.Size != before {
		return rangeInvalid(before, u.row.Size)
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "another request is writing to this upload session").
		WithHint("wait until it has ended, then ask for the session's offset")
}

func (u *upload) tooLarge() error {
	return gatehouse.Errorf(gatehouse.CodeTooLarge, "the blob is larger than the limit of %d bytes", u.c.opts.UploadSizeMax).WithDetail("SIZE_INVALID")
}

// appendStored writes to storage under a lease: first head, which holds all
// bytes so far where nothing lies in storage yet, then what r yields.
func (u *upload) appendStored(ctx context.Context, head []byte, r io.Reader) error {
	l, err := u.lease(ctx)
	if err != nil {
		return err
	}
	defer l.release()
	offset := int64(0)
	if u.row.HashState != nil {
		offset = u.row.Size
	}
	sum, err := restoreHash(u.row.Algorithm, u.row.HashState, offset)
	if err != nil {
		return err
	}
	w, err := u.c.store.Write(l.ctx, u.row.StorageKey, offset, u.row.StorageState)
	if err != nil {
		return err
	}
	size, readErr, err := u.copy(l.ctx, io.MultiWriter(w, sum), offset, head, r)
	if err != nil {
		w.Abort()
		return l.why(err)
	}
	if err := u.save(l, w, sum, size); err != nil {
		return l.why(err)
	}
	return readErr
}

// copy moves head and the bytes of r to w and returns the size of the whole.
// readErr is a failure of r or the end of ctx: what came before it counts. err
// is anything else.
func (u *upload) copy(ctx context.Context, w io.Writer, size int64, head []byte, r io.Reader) (_ int64, readErr, err error) {
	buf := u.c.buffers.Get().(*[copyBufferSize]byte)
	defer u.c.buffers.Put(buf)
	n := copy(buf[:], head)
	for {
		// Whole buffers at round offsets: what a socket yields at a time would
		// cut the file, and so the page cache, into small odd pieces.
		limit := int(copyBufferSize - size%copyBufferSize)
		for n < limit && readErr == nil && ctx.Err() == nil {
			var more int
			more, readErr = r.Read(buf[n:limit])
			n += more
		}
		if size+int64(n) > u.c.opts.UploadSizeMax {
			return size, nil, u.tooLarge()
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return size, nil, err
		}
		size, n = size+int64(n), 0
		switch {
		case errors.Is(readErr, io.EOF):
			return size, nil, nil
		case readErr != nil:
			return size, readFailed(readErr), nil
		case ctx.Err() != nil:
			if cause := context.Cause(ctx); gatehouse.CodeOf(cause) == gatehouse.CodeConflict {
				return size, nil, cause // the lease is lost: our bytes do not count
			}
			return size, ctx.Err(), nil
		}
	}
}

// save makes durable what was written, notes it in the row and gives the lease
// back. It works although the client is gone.
func (u *upload) save(l *lease, w blob.Writer, sum hash.Hash, size int64) error {
	ctx, stop := detached(l.ctx)
	defer stop()
	state, err := w.Close(ctx)
	if err != nil {
		return err
	}
	next := u.row
	next.Size, next.Head, next.StorageState = size, nil, state
	if next.HashState, err = sum.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	err = u.c.db.Write(ctx, func(tx *db.Tx) error { return tx.SaveUpload(ctx, next, l.token) })
	if err != nil {
		return err
	}
	l.done()
	u.row = next
	return nil
}

// restoreHash goes on with a hash over the first size bytes of an upload; nil is
// the state of a new one. A state over another number of bytes would give the
// stored bytes a digest that is not theirs, so that it is refused.
func restoreHash(algorithm string, state []byte, size int64) (hash.Hash, error) {
	h := gatehouse.NewHash(algorithm)
	if h == nil {
		return nil, fmt.Errorf("an upload session has the unknown algorithm %q", algorithm)
	}
	if state != nil {
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
			return nil, fmt.Errorf("couldn't go on with a stored hash: %w", err)
		}
		// crypto/sha256 and crypto/sha512 end their states with the length.
		if hashed := binary.BigEndian.Uint64(state[len(state)-8:]); hashed != uint64(size) {
			return nil, fmt.Errorf("a stored hash is over %d bytes of an upload that has %d", hashed, size)
		}
	}
	return h, nil
}

// detached returns a context for saving what has been done already, which goes
// on when the request has ended.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
}

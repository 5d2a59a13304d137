package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

const (
	// smallBuffer is what an upload holds while it has few bytes.
	smallBuffer = 256 << 10
	// tidyTime bounds what is done for tidiness alone. What it misses, Publish,
	// Delete or a listing finds.
	tidyTime = 10 * time.Second
)

// writer is one sitting. Bytes gather in buf; when a part is full and more
// follow, it is sent while the next one gathers.
type writer struct {
	s     *Store
	key   string
	given []byte // the state that this sitting began with
	state state  // what is stored: full parts, and Size as it was at first
	size  int64
	begun bool // the multipart upload was begun by this sitting
	tail  bool // this sitting stored a tail

	// ctx is that of the parts on their way: they go on when the client has left,
	// since what it sent still counts. cancel ends them.
	ctx    context.Context
	cancel context.CancelFunc

	buf    []byte
	pooled *[PartSize]byte // what buf lies in, once it is large
	sent   chan sent       // the part on its way; nil: none
	err    error           // of a part: the sitting has failed
}

type sent struct {
	etag string
	err  error
}

// Write implements [blob.Store].
func (s *Store) Write(ctx context.Context, key string, offset int64, raw []byte) (blob.Writer, error) {
	if err := errors.Join(ctx.Err(), blob.CheckKeys(key)); err != nil {
		return nil, err
	}
	w := &writer{s: s, key: key, given: raw, size: offset}
	if raw != nil {
		st, err := decodeState(raw)
		if err != nil {
			return nil, err
		}
		w.state = *st
	}
	if w.state.Size != offset {
		return nil, blob.ErrNotFound(key)
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := w.recall(ctx); err != nil {
		w.end()
		return nil, s.fail(ctx, err, key)
	}
	return w, nil
}

// recall fetches the bytes behind the last full part, which were stored aside,
// and removes those that they took over from.
func (w *writer) recall(ctx context.Context) error {
	rest := w.state.rest()
	if rest == 0 {
		return nil
	}
	name := w.s.name(w.key)
	if w.state.Upload != "" {
		name = w.s.tail(w.key, w.state.Tail)
	}
	w.grow(int(rest))
	b, err := w.s.readAll(ctx, name, w.buf[:rest], w.state.Sum)
	if err != nil {
		return err
	}
	w.buf = b
	if w.state.Was != "" {
		ctx, cancel := context.WithTimeout(ctx, tidyTime)
		defer cancel()
		_ = w.s.core.RemoveObject(ctx, w.s.place.bucket, w.s.tail(w.key, w.state.Was), minio.RemoveObjectOptions{})
	}
	return nil
}

// grow makes room for n bytes in buf, at most a part.
func (w *writer) grow(n int) {
	switch {
	case n <= cap(w.buf):
	case n <= smallBuffer:
		w.buf = append(make([]byte, 0, smallBuffer), w.buf...)
	default:
		w.pooled = w.s.parts.Get().(*[PartSize]byte)
		w.buf = append(w.pooled[:0], w.buf...)
	}
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.err != nil {
			return n, w.err
		}
		if len(w.buf) == PartSize { // and more follow
			if w.err = w.send(w.ctx); w.err != nil {
				w.err = w.s.fail(w.ctx, w.err, w.key)
				return n, w.err
			}
		}
		take := min(len(p), PartSize-len(w.buf))
		w.grow(len(w.buf) + take)
		w.buf = append(w.buf, p[:take]...)
		p, n, w.size = p[take:], n+take, w.size+int64(take)
	}
	return n, nil
}

// send puts the full part on its way, when the one before has arrived.
func (w *writer) send(ctx context.Context) error {
	if err := w.arrived(ctx); err != nil {
		return err
	}
	if err := w.begin(ctx); err != nil {
		return err
	}
	number, part, pooled := len(w.state.Parts)+1, w.buf, w.pooled
	if number >= partsMax { // the last one is for the tail
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "objects have at most %d bytes in S3 storage", int64(partsMax)*PartSize)
	}
	w.buf, w.pooled, w.sent = nil, nil, make(chan sent, 1)
	go func(done chan<- sent) {
		etag, err := w.s.putPart(w.ctx, w.key, w.state.Upload, number, part)
		w.s.parts.Put(pooled)
		done <- sent{etag, err}
	}(w.sent)
	return nil
}

// arrived waits for the part on its way.
func (w *writer) arrived(ctx context.Context) error {
	if w.sent == nil {
		return nil
	}
	select {
	case r := <-w.sent:
		w.sent = nil
		if r.err == nil {
			w.state.Parts = append(w.state.Parts, r.etag)
		}
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin makes sure that there is a multipart upload.
func (w *writer) begin(ctx context.Context) error {
	if w.state.Upload != "" {
		return nil
	}
	token := rand.Text()
	err := w.s.try(ctx, func(ctx context.Context) (err error) {
		w.state.Upload, err = w.s.core.NewMultipartUpload(ctx, w.s.place.bucket, w.s.name(w.key),
			minio.PutObjectOptions{UserMetadata: map[string]string{tokenHeader: token}})
		return err
	})
	if err == nil {
		w.begun, w.state.Token = true, token
	}
	return err
}

// putPart stores one part and returns its ETag.
func (s *Store) putPart(ctx context.Context, key, upload string, number int, part []byte) (etag string, err error) {
	sum := sumOf(part)
	err = s.try(ctx, func(ctx context.Context) error {
		r := newBody(part)
		defer r.done()
		p, err := s.core.PutObjectPart(ctx, s.place.bucket, s.name(key), upload, number, r, int64(len(part)), minio.PutObjectPartOptions{Sha256Hex: sum, DisableContentSha256: true})
		etag = p.ETag
		return err
	})
	return etag, err
}

// Close implements [blob.Writer].
func (w *writer) Close(ctx context.Context) ([]byte, error) {
	raw, err := w.close(ctx)
	if err != nil {
		w.undo()
		return nil, w.s.fail(ctx, err, w.key)
	}
	w.end()
	return raw, nil
}

func (w *writer) close(ctx context.Context) ([]byte, error) {
	if err := errors.Join(ctx.Err(), w.err); err != nil {
		return nil, err
	}
	if w.given != nil && w.size == w.state.Size {
		return w.given, nil
	}
	if err := w.arrived(ctx); err != nil {
		return nil, err
	}
	w.state.Size = w.size
	if w.given == nil && w.state.Upload == "" && w.s.conditional {
		switch alone, err := w.putWhole(ctx); {
		case err != nil:
			return nil, err
		case alone:
			return w.state.encode()
		}
		// A sitting that does not count was here first. Its object is replaced
		// when ours is published.
	}
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	if len(w.buf) == PartSize {
		etag, err := w.s.putPart(ctx, w.key, w.state.Upload, len(w.state.Parts)+1, w.buf)
		if err != nil {
			return nil, err
		}
		w.state.Parts, w.buf = append(w.state.Parts, etag), w.buf[:0]
	}
	return w.putTail(ctx)
}

// putWhole stores all bytes under the object's own name. alone is false where
// that is taken.
func (w *writer) putWhole(ctx context.Context) (alone bool, err error) {
	w.state.Token, w.state.Sum = rand.Text(), sumOf(w.buf)
	name := w.s.name(w.key)
	err = w.s.put(ctx, name, w.state.Token, w.buf, true)
	if is(err, http.StatusPreconditionFailed) { // by us, if an answer was lost
		return w.s.isOurs(ctx, name, w.state.Token, w.size)
	}
	return err == nil, err
}

// putTail stores aside what fills no part.
func (w *writer) putTail(ctx context.Context) ([]byte, error) {
	w.state.Was, w.state.Tail, w.state.Sum = w.state.Tail, "", ""
	if len(w.buf) > 0 {
		w.state.Tail, w.state.Sum, w.tail = rand.Text(), sumOf(w.buf), true
		if err := w.s.put(ctx, w.s.tail(w.key, w.state.Tail), "", w.buf, false); err != nil {
			return nil, err
		}
	}
	return w.state.encode()
}

// Abort implements [blob.Writer].
func (w *writer) Abort() { w.undo() }

// undo removes what this sitting alone has stored, as far as that is possible.
func (w *writer) undo() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), tidyTime)
	defer cancel()
	w.end()
	bucket := w.s.place.bucket
	if w.begun {
		_ = w.s.core.AbortMultipartUpload(ctx, bucket, w.s.name(w.key), w.state.Upload)
	}
	if w.tail {
		_ = w.s.core.RemoveObject(ctx, bucket, w.s.tail(w.key, w.state.Tail), minio.RemoveObjectOptions{})
	}
}

// end stops the part on its way and gives the buffer back.
func (w *writer) end() {
	w.cancel()
	if w.sent != nil {
		<-w.sent // it ends at once, and must before its upload is aborted
		w.sent = nil
	}
	if w.pooled != nil {
		w.s.parts.Put(w.pooled)
	}
	w.buf, w.pooled = nil, nil
	w.err = io.ErrClosedPipe
}

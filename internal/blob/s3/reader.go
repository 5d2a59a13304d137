package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

const (
	// resumesMax is how often one reader goes on after a connection that broke.
	resumesMax = 10
	// skipMax is how many bytes are read and dropped rather than asked for anew.
	skipMax = 128 << 10
)

// reader reads one object. Its first request is for the whole; a seek is
// answered without one, and the next Read asks for what is needed then.
type reader struct {
	s      *Store
	ctx    context.Context // of the request that reads
	key    string          // for errors
	name   string
	size   int64
	etag   string
	opened bool  // size and etag are known
	at     int64 // where the next Read begins
	body   io.ReadCloser
	bodyAt int64
	broken int
}

// read opens the object name.
func (s *Store) read(ctx context.Context, name string) (*reader, error) {
	r := &reader{s: s, ctx: ctx, name: name}
	if err := r.request(); err != nil {
		return nil, err
	}
	return r, nil
}

// readAll reads the object name into b, which it must fill, and compares the
// SHA-256.
func (s *Store) readAll(ctx context.Context, name string, b []byte, sum string) ([]byte, error) {
	r, err := s.read(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.size != int64(len(b)) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "storage holds %d bytes instead of %d", r.size, len(b))
	}
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if sumOf(b) != sum {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "storage returned other bytes than it was given").
			WithHint("the session goes on when it does; else start the upload anew")
	}
	return b, nil
}

// request asks for the bytes from at to the end.
func (r *reader) request() error {
	opts := minio.GetObjectOptions{}
	if r.at > 0 {
		if err := opts.SetRange(r.at, 0); err != nil {
			return err
		}
	}
	if r.etag != "" {
		if err := opts.SetMatchETag(r.etag); err != nil {
			return err
		}
	}
	return r.s.attempts(r.ctx, func(ctx context.Context) error {
		// The time is for the answer's header: the body may take longer.
		ctx, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(r.s.requestTime, cancel)
		body, info, header, err := r.s.core.GetObject(ctx, r.s.place.bucket, r.name, opts)
		if !timer.Stop() && err == nil {
			body.Close()
			err = context.DeadlineExceeded
		}
		if err != nil {
			cancel()
			return err
		}
		if r.at > 0 && header.Get("Content-Range") == "" {
			body.Close()
			cancel()
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "storage does not answer requests for a part of an object")
		}
		if !r.opened {
			r.opened, r.size, r.etag = true, info.Size, info.ETag
		}
		r.body, r.bodyAt = cancelBody{body, cancel}, r.at
		return nil
	})
}

type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// Read implements io.Reader. A body that ends early, or breaks, is asked for
// again from there.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if r.at >= r.size {
			return 0, io.EOF
		}
		if err := r.ready(); err != nil {
			return 0, r.fail(err)
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.size-r.at)])
		r.at += int64(n)
		r.bodyAt += int64(n)
		if err != nil {
			r.drop()
			if r.at < r.size {
				r.broken++
				if r.broken > resumesMax {
					return n, r.fail(fmt.Errorf("the connection broke %d times: %w", r.broken, err))
				}
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// ready makes the body begin at r.at.
func (r *reader) ready() error {
	if ahead := r.at - r.bodyAt; r.body != nil && ahead > 0 && ahead <= skipMax {
		n, _ := io.CopyN(io.Discard, r.body, ahead)
		r.bodyAt += n
	}
	if r.body != nil && r.bodyAt == r.at {
		return nil
	}
	r.drop()
	return r.request()
}

func (r *reader) fail(err error) error {
	if is(err, http.StatusPreconditionFailed) {
		return gatehouse.Errorf(gatehouse.CodeInternal, "object %s was changed in storage by someone else", r.key)
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if is(err, http.StatusNotFound) {
		return blob.ErrNotFound(r.key)
	}
	return r.s.fail(r.ctx, err, r.key)
}

// Seek implements io.Seeker. It sends no request.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	default:
		return 0, errors.New("s3: Seek from nowhere")
	}
	if offset < 0 {
		return 0, errors.New("s3: Seek before the beginning")
	}
	r.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.drop()
	return nil
}

func (r *reader) drop() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}

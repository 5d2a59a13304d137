package index

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-dev/gatehouse"
)

// A layer is bound by inflating it, so everything else goes on beside that:
//
//	fetch    reads the blob and hashes it        (goroutine)
//	inflate  decompresses                        (goroutine)
//	hash     hashes what came out: the diffID    (goroutine)
//	Read     gives the same bytes to the walk    (the caller)
//
// Chunks travel by reference and return to a free list when both the hash and
// the walk are done with them, so that memory is aheadMax chunks of each kind.
const (
	rawChunk   = 128 << 10
	plainChunk = 256 << 10
	aheadMax   = 8
)

// chunk is a piece of the stream with the number of its readers.
type chunk struct {
	buf  []byte
	refs atomic.Int32
}

// stream is the uncompressed layer as an io.Reader. Only Read and finish are
// for the caller's goroutine.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	limits Limits
	group  sync.WaitGroup

	raw, rawFree     chan *chunk // fetch → inflate
	plain, plainFree chan *chunk // inflate → walk
	sums             chan *chunk // inflate → hash

	current *chunk // being read by the walk
	rest    []byte

	// Each is written by one goroutine before it ends and read after
	// group.Wait, or after the channel that it feeds was closed.
	rawHash, plainHash hash.Hash
	rawSize, plainSize int64
	fetchErr           error // the blob could not be read: not the layer's fault
	inflateErr         error // the layer is bad; nil at its true end
	isPlain            bool  // not compressed: both digests are one
	whole              bool  // everything was read: both digests are true
}

// newStream starts to read r, which nothing else may use until finish has
// returned. r's Read must come back when ctx ends.
func newStream(ctx context.Context, r io.Reader, limits Limits) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{
		ctx: ctx, cancel: cancel, limits: limits,
		raw: make(chan *chunk, aheadMax), rawFree: make(chan *chunk, aheadMax),
		plain: make(chan *chunk, aheadMax), plainFree: make(chan *chunk, aheadMax),
		sums:    make(chan *chunk, aheadMax),
		rawHash: sha256.New(), plainHash: sha256.New(),
	}
	s.group.Go(func() { s.fetch(r) })
	s.group.Go(s.inflate)
	s.group.Go(s.sum)
	return s
}

// take returns a free chunk, a new one while made is below the bound, or nil
// when the stream was cancelled.
func (s *stream) take(free chan *chunk, made *int, size int) *chunk {
	select {
	case c := <-free:
		return c
	default:
	}
	if *made < aheadMax {
		*made++
		return &chunk{buf: make([]byte, size)}
	}
	select {
	case c := <-free:
		return c
	case <-s.ctx.Done():
		return nil
	}
}

// fetch reads and hashes the blob.
func (s *stream) fetch(r io.Reader) {
	defer close(s.raw)
	defer caught(&s.fetchErr, gatehouse.CodeInternal, "reading the layer")
	made := 0
	for {
		c := s.take(s.rawFree, &made, rawChunk)
		if c == nil {
			return
		}
		n, err := readFull(r, c.buf[:cap(c.buf)])
		c.buf = c.buf[:n]
		s.rawHash.Write(c.buf)
		s.rawSize += int64(n)
		if n > 0 {
			select {
			case s.raw <- c:
			case <-s.ctx.Done():
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			s.fetchErr = err
			return
		}
	}
}

// caught turns a panic of the goroutine into an error, before its channels are
// closed: a decoder that breaks over one hostile layer must not end the process.
func caught(err *error, code gatehouse.Code, doing string) {
	if p := recover(); p != nil {
		*err = gatehouse.Errorf(code, "%s panicked: %v", doing, p)
	}
}

// readFull fills buf unless r ends or fails first; unlike io.ReadFull it keeps
// io.EOF and the reader's own io.ErrUnexpectedEOF apart.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	const emptyReadsMax = 100
	for empty := 0; n < len(buf) && err == nil; {
		var m int
		m, err = r.Read(buf[n:])
		if n += m; m > 0 {
			empty = 0
		} else if empty++; empty > emptyReadsMax {
			return n, io.ErrNoProgress
		}
	}
	return n, err
}

// rawReader is what inflate reads from.
type rawReader struct {
	s       *stream
	current *chunk
	rest    []byte
	read    int64 // bytes handed out
}

func (r *rawReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.current != nil {
			r.current.buf = r.current.buf[:0]
			r.s.rawFree <- r.current // has room for every chunk made
			r.current = nil
		}
		select {
		case c, ok := <-r.s.raw:
			if !ok {
				return 0, cmp.Or(r.s.fetchErr, r.s.ctx.Err(), io.EOF)
			}
			r.current, r.rest = c, c.buf
		case <-r.s.ctx.Done():
			return 0, r.s.ctx.Err()
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.read += int64(n)
	return n, nil
}

// inflate decompresses and hands each chunk to the hash and to the walk.
func (s *stream) inflate() {
	defer close(s.plain)
	defer close(s.sums)
	defer caught(&s.inflateErr, gatehouse.CodeInvalid, "decompressing the layer")
	raw := &rawReader{s: s}
	in := bufio.NewReaderSize(raw, 64<<10)
	out, closeOut, err := s.decompressor(in)
	if err != nil {
		s.inflateErr = err
		return
	}
	defer closeOut()
	made := 0
	for {
		c := s.take(s.plainFree, &made, plainChunk)
		if c == nil {
			s.inflateErr = s.ctx.Err()
			return
		}
		n, err := readFull(out, c.buf[:cap(c.buf)])
		c.buf = c.buf[:n]
		s.plainSize += int64(n)
		if over := s.overLimit(raw.read); over != nil {
			s.inflateErr = over
			return
		}
		if n > 0 && !s.hand(c) {
			s.inflateErr = s.ctx.Err()
			return
		}
		if err == io.EOF {
			s.whole = s.ctx.Err() == nil
			return
		}
		if err != nil {
			s.inflateErr = s.streamError(err)
			return
		}
	}
}

func (s *stream) hand(c *chunk) bool {
	c.refs.Store(2)
	for _, to := range []chan *chunk{s.sums, s.plain} {
		select {
		case to <- c:
		case <-s.ctx.Done():
			return false
		}
	}
	return true
}

// release gives c back when its last reader is done.
func (s *stream) release(c *chunk) {
	if c.refs.Add(-1) == 0 {
		c.buf = c.buf[:0]
		s.plainFree <- c // has room for every chunk made
	}
}

func (s *stream) overLimit(read int64) error {
	l := s.limits
	if s.plainSize > l.UncompressedMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "layer is larger than %d bytes uncompressed", l.UncompressedMax)
	}
	if s.plainSize > l.RatioAfter && s.plainSize/l.RatioMax > read {
		return gatehouse.Errorf(gatehouse.CodeTooLarge,
			"layer inflates more than %d to 1: %d bytes came out of %d", l.RatioMax, s.plainSize, read)
	}
	return nil
}

// sum computes the diffID. A layer that is not compressed needs none: the
// blob's digest is the same.
func (s *stream) sum() {
	for c := range s.sums {
		if !s.isPlain { // set before the first chunk was sent
			s.plainHash.Write(c.buf)
		}
		s.release(c)
	}
}

// Read gives the uncompressed bytes. Its errors are those of finish.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.current != nil {
			s.release(s.current)
			s.current = nil
		}
		select {
		case c, ok := <-s.plain:
			if !ok {
				return 0, cmp.Or(s.inflateErr, io.EOF)
			}
			s.current, s.rest = c, c.buf
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// drain reads the stream to its end, so that both digests cover every byte,
// and tells whether only zeros were left.
func (s *stream) drain() (zeros bool, err error) {
	zeros = true
	buf, blank := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := s.Read(buf)
		zeros = zeros && bytes.Equal(buf[:n], blank[:n])
		if err == io.EOF {
			return zeros, nil
		}
		if err != nil {
			return zeros, err
		}
	}
}

// finish stops everything, waits, and returns why the stream did not come to
// its end: nil when it did.
func (s *stream) finish(parent context.Context) error {
	s.cancel()
	s.group.Wait()
	if err := parent.Err(); err != nil {
		return err
	}
	if s.fetchErr != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "layer could not be read: %w", s.fetchErr)
	}
	return s.inflateErr
}

// digests returns diffID and digest of the blob; only after a finish without
// an error.
func (s *stream) digests() (diffID, blob gatehouse.Digest) {
	blob = gatehouse.NewDigest(gatehouse.SHA256, s.rawHash.Sum(nil))
	if s.isPlain {
		return blob, blob
	}
	return gatehouse.NewDigest(gatehouse.SHA256, s.plainHash.Sum(nil)), blob
}

// Package body holds the bytes of one foreign file at a time for random access:
// in a buffer that is used again, or in a file that has no name any more.
// Nothing in it depends on what the foreign file is called.
package body

import (
	"bytes"
	"context"
	"io"
	"os"
)

// Body holds one file. It is not safe for concurrent use.
type Body struct {
	memoryMax int64
	dir       string
	memory    []byte
	file      *os.File
	inMemory  bool
}

// DiskError is a failure of the local disk, not of the layer.
type DiskError struct{ err error }

func (e *DiskError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *DiskError) Unwrap() error { return e.err }

// New returns a Body that keeps up to memoryMax bytes in memory and more in an
// unlinked file in dir ("" is the system's).
func New(memoryMax int64, dir string) *Body { return &Body{memoryMax: memoryMax, dir: dir} }

// Load reads exactly size bytes of r. The result is valid until the next Load
// or Close. Errors: those of r, io.ErrUnexpectedEOF if it is shorter, and
// *DiskError.
func (b *Body) Load(ctx context.Context, r io.Reader, size int64) (*io.SectionReader, error) {
	if b.inMemory = size <= b.memoryMax; b.inMemory {
		if int64(cap(b.memory)) < size {
			b.memory = make([]byte, max(size, min(b.memoryMax, int64(2*cap(b.memory)))))
		}
		b.memory = b.memory[:size]
		if _, err := io.ReadFull(r, b.memory); err != nil {
			return nil, asTruncated(err)
		}
		return io.NewSectionReader(bytes.NewReader(b.memory), 0, size), nil
	}
	if err := b.open(); err != nil {
		return nil, &DiskError{err}
	}
	w := &diskWriter{ctx: ctx, file: b.file}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return nil, err
	}
	if n < size {
		return nil, io.ErrUnexpectedEOF
	}
	return io.NewSectionReader(b.file, 0, size), nil
}

// Bytes returns what was last loaded if it is in memory, nil otherwise. It is
// valid until the next Load or Close and must not be changed.
func (b *Body) Bytes() []byte {
	if !b.inMemory {
		return nil
	}
	return b.memory
}

func asTruncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// open makes the file at its first use and empties it at each further one.
func (b *Body) open() error {
	if b.file != nil {
		return b.file.Truncate(0)
	}
	f, err := os.CreateTemp(b.dir, "gatehouse-index-*")
	if err != nil {
		return err
	}
	b.file = f
	// Where a file in use can be unlinked, nothing is left behind by a crash;
	// elsewhere Close removes it.
	_ = os.Remove(f.Name())
	return nil
}

// Close frees what b holds.
func (b *Body) Close() {
	if b.file != nil {
		_ = b.file.Close()
		_ = os.Remove(b.file.Name())
		b.file = nil
	}
}

// diskWriter writes from the start of file and marks its errors as the disk's.
type diskWriter struct {
	ctx  context.Context
	file *os.File
	at   int64
}

func (w *diskWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := w.file.WriteAt(p, w.at)
	w.at += int64(n)
	if err != nil {
		return n, &DiskError{err}
	}
	return n, nil
}

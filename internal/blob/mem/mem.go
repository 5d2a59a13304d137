// Package mem is a [blob.Store] in memory that fails on demand. It is no fake:
// it passes the same suite as the others, and loses what was not made durable
// when it is told to crash. For tests, and for stores that need not last.
package mem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Op names an operation, for faults.
type Op string

const (
	OpWrite   Op = "write" // opening a writer
	OpBytes   Op = "bytes" // one Write on it
	OpClose   Op = "close" // closing it
	OpPublish Op = "publish"
	OpOpen    Op = "open"
	OpDelete  Op = "delete"
	OpList    Op = "list"
)

// ErrInjected is the fault that tests inject.
var ErrInjected = errors.New("injected fault")

// Store is the memory.
type Store struct {
	mu      sync.Mutex
	objects map[string]*object
	calls   map[Op]int
	faults  map[fault]error
}

type object struct {
	durable   []byte
	published bool
	writing   bool
	changed   time.Time
}

type fault struct {
	op     Op
	call   int
	before bool
}

// New returns an empty store.
func New() *Store {
	return &Store{objects: map[string]*object{}, calls: map[Op]int{}, faults: map[fault]error{}}
}

// FailBefore lets the call-th call of op from now on (1 = the next) fail
// without having done anything.
func (s *Store) FailBefore(op Op, call int, err error) { s.fail(op, call, err, true) }

// FailAfter lets the call-th call of op from now on (1 = the next) be done, and
// its caller see an error.
func (s *Store) FailAfter(op Op, call int, err error) { s.fail(op, call, err, false) }

func (s *Store) fail(op Op, call int, err error, before bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[fault{op, s.calls[op] + call, before}] = err
}

// Heal removes all faults that have not struck.
func (s *Store) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults)
}

// Calls tells how often op has been called.
func (s *Store) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// Crash loses what is not durable: writers that are open are cut off.
func (s *Store) Crash() *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := New()
	for key, o := range s.objects {
		next.objects[key] = &object{durable: o.durable, published: o.published, changed: o.changed}
	}
	return next
}

// do counts a call and runs f between its faults.
func (s *Store) do(ctx context.Context, op Op, f func() error, keys ...string) error {
	if err := errors.Join(ctx.Err(), blob.CheckKeys(keys...)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	if err := s.faults[fault{op, s.calls[op], true}]; err != nil {
		return blob.Unavailable(err)
	}
	if err := f(); err != nil {
		return err
	}
	if err := s.faults[fault{op, s.calls[op], false}]; err != nil {
		return blob.Unavailable(err)
	}
	return nil
}

// Write implements [blob.Store].
func (s *Store) Write(ctx context.Context, key string, offset int64, _ []byte) (blob.Writer, error) {
	w := &writer{store: s, key: key, offset: offset}
	err := s.do(ctx, OpWrite, func() error {
		o := s.objects[key]
		switch {
		case o == nil && offset == 0:
			o = &object{changed: time.Now()}
			s.objects[key] = o
		case o == nil || int64(len(o.durable)) < offset:
			return blob.ErrNotFound(key)
		case o.published:
			return blob.ErrPublished(key)
		case o.writing:
			return blob.ErrWriting(key)
		}
		o.writing, w.object = true, o
		w.buf.Write(o.durable[:offset])
		return nil
	}, key)
	if err != nil {
		if w.object != nil { // done, but the caller does not know
			s.release(w.object)
		}
		return nil, err
	}
	return w, nil
}

func (s *Store) release(o *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.writing = false
}

// Publish implements [blob.Store].
func (s *Store) Publish(ctx context.Context, key string, size int64, _ []byte) error {
	return s.do(ctx, OpPublish, func() error {
		o := s.objects[key]
		switch {
		case o == nil || int64(len(o.durable)) < size || o.published && int64(len(o.durable)) != size:
			return blob.ErrNotFound(key)
		case o.writing:
			return blob.ErrWriting(key)
		}
		o.durable, o.published, o.changed = o.durable[:size:size], true, time.Now()
		return nil
	}, key)
}

// Open implements [blob.Store].
func (s *Store) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	var r io.ReadSeekCloser
	err := s.do(ctx, OpOpen, func() error {
		o := s.objects[key]
		if o == nil || !o.published {
			return blob.ErrNotFound(key)
		}
		r = reader{bytes.NewReader(o.durable)}
		return nil
	}, key)
	if err != nil {
		return nil, err
	}
	return r, nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

// Delete implements [blob.Store].
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	return s.do(ctx, OpDelete, func() error {
		for _, key := range keys {
			delete(s.objects, key)
		}
		return nil
	}, keys...)
}

// List implements [blob.Store].
func (s *Store) List(ctx context.Context, after string, n int) ([]blob.Object, error) {
	var out []blob.Object
	err := s.do(ctx, OpList, func() error {
		for _, key := range slices.Sorted(maps.Keys(s.objects)) {
			if o := s.objects[key]; key > after && len(out) < n {
				out = append(out, blob.Object{Key: key, Size: int64(len(o.durable)), Published: o.published, ChangedAt: o.changed})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

type writer struct {
	store  *Store
	key    string
	object *object
	offset int64
	buf    bytes.Buffer
}

func (w *writer) Write(p []byte) (n int, err error) {
	err = w.store.do(context.Background(), OpBytes, func() error {
		n, err = w.buf.Write(p)
		return err
	})
	return n, err
}

func (w *writer) Close(ctx context.Context) ([]byte, error) {
	err := w.store.do(ctx, OpClose, func() error {
		if w.store.objects[w.key] == w.object { // else it was deleted meanwhile
			w.object.durable, w.object.changed = w.buf.Bytes(), time.Now()
		}
		return nil
	})
	w.store.release(w.object)
	return nil, err
}

func (w *writer) Abort() { w.store.release(w.object) }

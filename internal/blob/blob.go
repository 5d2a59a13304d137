// Package blob keeps bytes. A [Store] holds immutable objects under keys that
// are never used twice; what exists is for the database to say, never for a
// listing. disk keeps them in a directory, mem in memory, with faults on demand
// for tests; blobtest is the suite that every store passes.
//
// What it never does: hash, interpret or share bytes.
package blob

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"io"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Store holds objects. An object is written under a key from [NewKey], in one
// or more sittings, here or in another process, and then published, from when
// on it can be read and never changes.
//
// A store in a file system has locks, and says CodeConflict to a second writer.
// One in an object storage has none: there the caller sees to it that one writer
// counts, with a lease. What such a store promises is that a writer whose state is
// not kept harms nothing: what is published, or can be from a state that was
// kept, has the bytes of that state or fails. It may also show an object before
// it is published, and a reader may fail once the object is deleted.
//
// All methods may be called concurrently. Errors are *[gatehouse.Error]:
// CodeNotFound: no such object; CodeConflict: it is being written elsewhere,
// or is published already; CodeUnavailable: the storage is full or does not
// answer, and trying again may help. After an error nothing is half done that a
// repeated call would not put right.
type Store interface {
	// Write opens the unpublished object key to go on behind its first offset
	// bytes; what a crashed writer left behind them is dropped. state is what
	// the last Close returned, nil with offset 0. CodeConflict: another writer
	// has it open. CodeNotFound: the first offset bytes are not there.
	Write(ctx context.Context, key string, offset int64, state []byte) (Writer, error)
	// Publish makes the object of size bytes readable, for good. It is
	// idempotent. When it returns nil the bytes survive a power loss.
	Publish(ctx context.Context, key string, size int64, state []byte) error
	// Open opens a published object. An *os.File where the bytes are local.
	Open(ctx context.Context, key string) (io.ReadSeekCloser, error)
	// Delete removes objects, published or not. Keys that do not exist are fine.
	Delete(ctx context.Context, keys ...string) error
	// List lists objects in byte order of their keys after the given one, at
	// most n of them. For checks only: it may be slow.
	List(ctx context.Context, after string, n int) ([]Object, error)
}

// Writer is one sitting of writing an object. It is not safe for concurrent
// use. Exactly one of Close and Abort ends it.
type Writer interface {
	io.Writer
	// Close makes durable what was written and returns the state for the next
	// sitting or for Publish. After an error the bytes of this sitting do not
	// count: the next Write goes on where this one began.
	Close(ctx context.Context) (state []byte, err error)
	// Abort gives up; the bytes of this sitting do not count.
	Abort()
}

// Object is one entry of a listing.
type Object struct {
	Key       string
	Size      int64 // bytes; of an unpublished object those that are durable or more
	Published bool
	ChangedAt time.Time
}

var keyPattern = regexp.MustCompile(`^[0-9a-z]{2}/[0-9a-z]{26}$`)

// NewKey returns a key that has not been used before: time first, so that
// listings are in order of age within a folder; the folder is random.
func NewKey(now time.Time) string {
	var raw [17]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(now.UnixMilli())<<16)
	rand.Read(raw[6:]) // never fails (crypto/rand)
	name := strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:16]))
	const digits = "0123456789abcdef"
	return string([]byte{digits[raw[16]>>4], digits[raw[16]&15]}) + "/" + name
}

// CheckKeys refuses keys that do not have the form that NewKey gives. They come
// from our own rows, so that a bad one is our own fault.
func CheckKeys(keys ...string) error {
	for _, key := range keys {
		if !keyPattern.MatchString(key) {
			return gatehouse.Errorf(gatehouse.CodeInternal, "%q is not a storage key", key)
		}
	}
	return nil
}

// ErrNotFound says that key holds no object, or not as many bytes as asked for.
func ErrNotFound(key string) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "storage holds no object %s", key)
}

// ErrWriting says that another writer has key open.
func ErrWriting(key string) error {
	return gatehouse.Errorf(gatehouse.CodeConflict, "object %s is being written by another request", key)
}

// ErrPublished says that key is published already and cannot be written to.
func ErrPublished(key string) error {
	return gatehouse.Errorf(gatehouse.CodeConflict, "object %s is complete already", key)
}

// Unavailable makes an error of the storage itself one that callers can tell.
// Errors that say more already, and cancelled contexts, are passed on.
func Unavailable(err error) error {
	var ge *gatehouse.Error
	if err == nil || errors.As(err, &ge) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := gatehouse.Errorf(gatehouse.CodeUnavailable, "storage does not answer: %w", err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		e = gatehouse.Errorf(gatehouse.CodeUnavailable, "storage is full: %w", err).WithHint("free some space in the data directory; nothing was stored by half")
	}
	return e
}

// Put stores and publishes what r yields under key and returns its size. After
// an error nothing remains under key.
func Put(ctx context.Context, s Store, key string, r io.Reader) (size int64, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Delete(context.WithoutCancel(ctx), key))
		}
	}()
	w, err := s.Write(ctx, key, 0, nil)
	if err != nil {
		return 0, err
	}
	size, err = io.Copy(w, r)
	if err != nil {
		w.Abort()
		return 0, err
	}
	state, err := w.Close(ctx)
	if err != nil {
		return 0, err
	}
	return size, s.Publish(ctx, key, size, state)
}

// Linker is a [Store] from which clients may fetch objects by themselves.
type Linker interface {
	// Links reports whether they shall: it is the operator's choice.
	Links() bool
	// Link returns an address of a published object that works for some minutes
	// without credentials. Whether the object is there is not asked.
	Link(ctx context.Context, key string) (url string, err error)
}

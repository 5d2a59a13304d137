// Package disk is a [blob.Store] in a directory:
//
//	uploads/<id>       being written
//	blobs/<xx>/<id>    published, under the key <xx>/<id>
//
// Files and folders are synced before a method returns nil, and publishing is
// one rename, so that a crash or power loss at any moment leaves unfinished
// bytes under uploads/ only. A writer holds a lock on its file, so that two
// processes, or a forgotten request, never write to one object.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Store is the directory.
type Store struct {
	dir string

	mu      sync.Mutex
	folders map[string]bool // of blobs/ that are known to exist durably
}

// Open opens the directory dir, creating it and what is missing in it.
func Open(dir string) (*Store, error) {
	for _, d := range []string{dir, filepath.Join(dir, "blobs"), filepath.Join(dir, "uploads")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("couldn't open the blob directory: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("couldn't open the blob directory: %w", err)
	}
	return &Store{dir: dir, folders: map[string]bool{}}, nil
}

// paths returns where key lies while it is written and once it is published.
func (s *Store) paths(key string) (upload, published string, err error) {
	if err := blob.CheckKeys(key); err != nil {
		return "", "", err
	}
	folder, id, _ := strings.Cut(key, "/")
	return filepath.Join(s.dir, "uploads", folder+id), filepath.Join(s.dir, "blobs", folder, id), nil
}

// Write implements [blob.Store].
func (s *Store) Write(ctx context.Context, key string, offset int64, _ []byte) (_ blob.Writer, err error) {
	defer func() { err = blob.Unavailable(err) }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, published, err := s.paths(key)
	if err != nil {
		return nil, err
	}
	flags := os.O_WRONLY
	if offset == 0 {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, blob.ErrNotFound(key)
	}
	if err != nil {
		return nil, err
	}
	if err := prepare(f, key, offset); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := os.Stat(published); err == nil {
		os.Remove(path) // we have just created it, and hold its lock
		f.Close()
		return nil, blob.ErrPublished(key)
	}
	return &writer{file: f, offset: offset, uploads: filepath.Dir(path)}, nil
}

// prepare locks f, which must still bear its name then (it may have been
// published while we waited), and cuts it down to the bytes that count.
func prepare(f *os.File, key string, offset int64) error {
	if !lock(f) {
		return blob.ErrWriting(key)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(f.Name())
	if err != nil || !os.SameFile(info, named) || info.Size() < offset {
		return blob.ErrNotFound(key)
	}
	if info.Size() > offset { // else the cut would only make the file dirty
		if err := f.Truncate(offset); err != nil {
			return err
		}
	}
	_, err = f.Seek(offset, io.SeekStart)
	return err
}

// Publish implements [blob.Store].
func (s *Store) Publish(ctx context.Context, key string, size int64, _ []byte) (err error) {
	defer func() { err = blob.Unavailable(err) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	from, to, err := s.paths(key)
	if err != nil {
		return err
	}
	folder := filepath.Dir(to)
	if err := s.makeFolder(folder); err != nil {
		return err
	}
	f, err := os.OpenFile(from, os.O_WRONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist): // published before
		if info, err := os.Stat(to); err != nil || info.Size() != size {
			return blob.ErrNotFound(key)
		}
	case err != nil:
		return err
	default:
		defer f.Close()
		if err := prepare(f, key, size); err != nil {
			return err
		}
		// The cut of stray bytes must be durable before the name is.
		if err := f.Sync(); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
	}
	return syncDir(folder)
}

func (s *Store) makeFolder(folder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folders[folder] {
		return nil
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncDir(filepath.Dir(folder)); err != nil {
		return err
	}
	s.folders[folder] = true
	return nil
}

// Open implements [blob.Store]. The result is an *os.File.
func (s *Store) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, path, err := s.paths(key)
	if err != nil {
		return nil, err
	}
	f, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, blob.ErrNotFound(key)
	}
	if err != nil {
		return nil, blob.Unavailable(err)
	}
	return f, nil
}

// restEvery is after how many deletions of a longer list the processor, and
// the journal of the file system, are left to readers for as long as these took.
const (
	restEvery = 32
	restMax   = 20 * time.Millisecond
)

// Delete implements [blob.Store]. A long list takes its time.
func (s *Store) Delete(ctx context.Context, keys ...string) (err error) {
	defer func() { err = blob.Unavailable(err) }()
	start := time.Now()
	for i, key := range keys {
		if i > 0 && i%restEvery == 0 {
			time.Sleep(min(time.Since(start), restMax))
			start = time.Now()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		upload, published, err := s.paths(key)
		if err != nil {
			return err
		}
		for _, path := range []string{upload, published} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// List implements [blob.Store]. It reads the folders that the page lies in.
func (s *Store) List(ctx context.Context, after string, n int) (_ []blob.Object, err error) {
	defer func() { err = blob.Unavailable(err) }()
	found := map[string]blob.Object{}
	// Uploads first: one that is published meanwhile is seen twice, not never.
	if _, err := scan(filepath.Join(s.dir, "uploads"), found, false, after, n, func(name string) string { return name[:min(2, len(name))] + "/" + name[min(2, len(name)):] }); err != nil {
		return nil, err
	}
	folders, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return nil, err
	}
	for published := 0; len(folders) > 0 && published < n; folders = folders[1:] {
		folder := folders[0]
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Folders wholly before the page hold nothing of it; others are not ours.
		if !folder.IsDir() || folder.Name() < after[:min(2, len(after))] {
			continue
		}
		more, err := scan(filepath.Join(s.dir, "blobs", folder.Name()), found, true, after, n, func(name string) string { return folder.Name() + "/" + name })
		if err != nil {
			return nil, err
		}
		published += more
	}
	out := slices.SortedFunc(maps.Values(found), func(a, b blob.Object) int { return strings.Compare(a.Key, b.Key) })
	return out[:min(max(n, 0), len(out))], nil
}

// scan adds the first n objects after the given key that lie in dir, whose order
// is that of their keys, and returns how many there were.
func scan(dir string, found map[string]blob.Object, published bool, after string, n int, key func(name string) string) (count int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		k := key(e.Name())
		if k <= after || blob.CheckKeys(k) != nil || !e.Type().IsRegular() {
			continue // an earlier page's; lost+found and the like
		}
		if count >= n {
			break
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since
		}
		if err != nil {
			return count, err
		}
		found[k] = blob.Object{Key: k, Size: info.Size(), Published: published, ChangedAt: info.ModTime()}
		count++
	}
	return count, nil
}

// writer is one sitting. It holds the lock of its file until it is closed.
type writer struct {
	file    *os.File
	offset  int64  // where this sitting began
	uploads string // the folder that the file lies in
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	return n, blob.Unavailable(err)
}

func (w *writer) Close(context.Context) (_ []byte, err error) {
	defer func() {
		if err != nil {
			w.Abort()
			err = blob.Unavailable(err)
		}
	}()
	if err := w.file.Sync(); err != nil {
		return nil, err
	}
	if w.offset == 0 { // the file's name is new
		if err := syncDir(w.uploads); err != nil {
			return nil, err
		}
	}
	return nil, w.file.Close()
}

// Abort cuts off what this sitting wrote, so that a full disk gets its room
// back at once; should that fail, the next sitting does it.
func (w *writer) Abort() {
	_ = w.file.Truncate(w.offset)
	w.file.Close()
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

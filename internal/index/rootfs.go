package index

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/body"
)

// Rootfs indexes a directory as if it were the single layer of an image. fsys
// should be that of an [os.Root], so that no file leads out of the directory;
// symbolic links are not followed. Of a running system, proc, sys and dev are
// left out.
//
// The inventory has no DiffID and no Blob: a directory has no such bytes; Size
// is that of the files that were read. Compose it alone and without a
// configuration. What cannot be opened makes it incomplete. Errors are those of
// [Layer] without CodeInvalid, and CodeUnavailable when the directory itself
// cannot be read.
func Rootfs(ctx context.Context, fsys fs.FS, limits Limits, extractors []Extractor) (gatehouse.LayerInventory, error) {
	limits = limits.withDefaults()
	w := &walker{
		ctx: ctx, limits: limits, found: newCollector(limits), kinds: kindsOf(extractors),
		body: body.New(limits.MemoryMax, limits.TempDir),
	}
	defer w.body.Close()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return w.unreadable(name, err)
		}
		if err := w.count(); err != nil {
			return err
		}
		return w.dirEntry(fsys, name, d)
	})
	inv := w.found.inventory()
	inv.Indexer = Version(extractors)
	inv.Size = w.bodies
	if err != nil {
		inv.Complete = false
		inv.Incomplete = append(inv.Incomplete, cleanText(err.Error()))
	}
	return inv, err
}

// unreadable tells of one that could not be listed; the walk goes on beside
// it, unless it is the root.
func (w *walker) unreadable(name string, err error) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if name == "." {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "directory cannot be read: %w", err)
	}
	w.found.incomplete("%s: %v", quote(name), err)
	return fs.SkipDir
}

func (w *walker) dirEntry(fsys fs.FS, name string, d fs.DirEntry) error {
	if d.IsDir() {
		if name == "proc" || name == "sys" || name == "dev" {
			return fs.SkipDir
		}
		return nil
	}
	clean, err := cleanPath(name, w.limits)
	if err != nil {
		w.found.incomplete("%s: %v; the file was ignored", quote(name), err)
		return nil
	}
	if !d.Type().IsRegular() {
		return nil // nothing lies below a single layer that it could hide
	}
	info, err := d.Info()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
			w.found.incomplete("%s: %v", quote(name), err)
		}
		return nil
	}
	if w.wants(clean, info.Size(), info.Mode()) == nil {
		return nil
	}
	return w.open(fsys, name, clean)
}

// open reads one file of a directory. The file may have been replaced since it
// was listed: what counts is what was opened.
func (w *walker) open(fsys fs.FS, name, clean string) error {
	f, err := fsys.Open(name)
	if err != nil {
		w.found.incomplete("%s: %v", quote(name), err)
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		w.found.incomplete("%s: changed while it was read", quote(name))
		return nil
	}
	err = w.regular(clean, info.Size(), info.Mode(), &fileReader{f})
	var failed *fileError
	switch {
	case errors.As(err, &failed):
		w.found.incomplete("%s: %v", quote(name), failed)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		w.found.incomplete("%s: became shorter while it was read", quote(name))
	default:
		return err
	}
	return nil
}

// fileReader marks what goes wrong with one file, which is not the walk's end.
type fileReader struct{ f fs.File }

type fileError struct{ err error }

func (e *fileError) Error() string { return e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	if err != nil && err != io.EOF {
		err = &fileError{err}
	}
	return n, err
}

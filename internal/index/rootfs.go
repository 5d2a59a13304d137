package index

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/gatehouse-dev/gatehouse"
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
func Rootfs(ctx context.Context, fsys fs.FS, limits Limits, what Analysis) (gatehouse.LayerInventory, error) {
	limits = limits.withDefaults()
	w := newWalker(ctx, limits, what)
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
	inv.Indexer = what.Version()
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
	if d.IsDir() && (name == "proc" || name == "sys" || name == "dev") {
		return fs.SkipDir
	}
	clean, err := cleanPath(name, w.limits)
	if err != nil {
		w.found.incomplete("%s: %v; the file was ignored", quote(name), err)
		return nil
	}
	if d.IsDir() && w.skip.dir(clean) {
		return fs.SkipDir
	}
	info, err := d.Info()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
			w.found.incomplete("%s: %v", quote(name), err)
		}
		return nil
	}
	e := Entry{Path: clean, Mode: info.Mode(), Size: info.Size(), UID: -1}
	if w.skip.file(clean) {
		return nil
	}
	wanted := w.announce(e)
	if !d.Type().IsRegular() {
		return nil // nothing lies below a single layer that it could hide
	}
	if !wanted && w.wants(clean, e.Size, e.Mode) == nil {
		return nil
	}
	return w.open(fsys, name, e)
}

// open reads one file of a directory. The file may have been replaced since it
// was listed: what counts is what was opened.
func (w *walker) open(fsys fs.FS, name string, e Entry) error {
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
	e.Mode, e.Size = info.Mode(), info.Size()
	err = w.content(e, &fileReader{f})
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

package fetch

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
)

// files are the named parts of a directory or an archive.
type files interface {
	// open returns the part and its size in bytes. fs.ErrNotExist where there
	// is none.
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

// ArchiveOptions choose among what a file holds.
type ArchiveOptions struct {
	Platform Platform // zero: this machine's
	Name     string   // of the image, where a file holds several; "" = the only one
	TempDir  string   // where a compressed archive is unpacked; "" = the system's
}

// Archive opens the image in an OCI image layout (a directory or a tar of one)
// or in what `docker save` writes, compressed or not. The caller closes the
// image.
//
// Errors: CodeNotFound (no such file, name or platform), CodeInvalid (not an
// image, or several and none named), CodeTooLarge.
func Archive(ctx context.Context, file string, o ArchiveOptions) (*Image, error) {
	parts, err := openFiles(ctx, file, o)
	if err != nil {
		return nil, err
	}
	img, err := fromFiles(ctx, parts, o)
	if err != nil {
		_ = parts.Close() // opened for reading only
		return nil, err
	}
	img.closer = parts
	return img, nil
}

func fromFiles(ctx context.Context, parts files, o ArchiveOptions) (*Image, error) {
	// Docker since 25 writes both; the layout has the digests that a registry
	// would have.
	index, err := readPart(parts, "index.json", gatehouse.ManifestSizeMax)
	if err == nil {
		return fromLayout(ctx, &layoutStore{parts}, index, o)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	list, err := readPart(parts, "manifest.json", gatehouse.ManifestSizeMax)
	if err == nil {
		return fromDockerSave(ctx, parts, list, o)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "neither index.json nor manifest.json is in it, so it is no image").WithHint(writeArchive)
}

// writeArchive is the hint for what is no image.
const writeArchive = "write one with `docker save`, `podman save` or `skopeo copy docker://… oci-archive:FILE`"

// fromFile is [Archive] for an open file, which it takes over.
func fromFile(ctx context.Context, f *os.File, o ArchiveOptions) (*Image, error) {
	t, err := indexTar(f, "the archive")
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	img, err := fromFiles(ctx, t, o)
	if err != nil {
		_ = t.Close()
		return nil, err
	}
	img.closer = t
	return img, nil
}

func openFiles(ctx context.Context, file string, o ArchiveOptions) (files, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "%s does not exist", file)
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, err
		}
		return dirFiles{root}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	if f, err = plain(ctx, f, file, o.TempDir); err != nil {
		return nil, err
	}
	t, err := indexTar(f, file)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return t, nil
}

// readPart reads a small part whole.
func readPart(parts files, name string, max int64) ([]byte, error) {
	rc, size, err := parts.open(name)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if size > max {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has %d bytes, %d at most", name, size, max)
	}
	b, err := io.ReadAll(io.LimitReader(rc, max+1))
	if err == nil && int64(len(b)) > max {
		err = gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", name, max)
	}
	return b, err
}

// dirFiles is a directory. os.Root keeps symbolic links inside of it.
type dirFiles struct{ root *os.Root }

func (d dirFiles) Close() error { return d.root.Close() }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a regular file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// tarFiles is a tar on disk that is read in place: nothing is unpacked, so no
// name in it can reach the file system.
type tarFiles struct {
	f     *os.File
	parts map[string]tarPart
}

type tarPart struct {
	offset, size int64
	link         string // cleaned name of another part; "" = this one has bytes
}

func (t *tarFiles) Close() error { return t.f.Close() }

const linkHopsMax = 8

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	name = cleanName(name)
	for range linkHopsMax {
		p, ok := t.parts[name]
		if !ok {
			return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if p.link == "" {
			return io.NopCloser(io.NewSectionReader(t.f, p.offset, p.size)), p.size, nil
		}
		name = p.link
	}
	return nil, 0, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: links in the archive go in circles", name)
}

func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// indexTar notes where each part lies. It takes the file over when it succeeds.
func indexTar(f *os.File, name string) (*tarFiles, error) {
	t := &tarFiles{f: f, parts: map[string]tarPart{}}
	r := tar.NewReader(f) // reads headers from f directly and seeks past bodies
	for entries := 0; ; entries++ {
		h, err := r.Next()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a tar: %w", name, err).WithHint(writeArchive)
		}
		if entries >= archiveEntriesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d entries", name, archiveEntriesMax)
		}
		part := cleanName(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			t.parts[part] = tarPart{offset: offset, size: h.Size}
		case tar.TypeSymlink: // docker save before 25 links equal layers
			t.parts[part] = tarPart{link: cleanName(path.Join(path.Dir(part), h.Linkname))}
		case tar.TypeLink:
			t.parts[part] = tarPart{link: cleanName(h.Linkname)}
		}
	}
}

// plain returns f, or where it is compressed or no regular file (a pipe) a copy
// that can be read in place: parts of it are wanted in the order of the image,
// not of the archive. It takes f over.
func plain(ctx context.Context, f *os.File, name, tempDir string) (*os.File, error) {
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	in := bufio.NewReaderSize(f, 64<<10)
	head, err := in.Peek(len(zstdMagic))
	if err != nil && err != io.EOF {
		_ = f.Close()
		return nil, err
	}
	var r io.Reader = in
	switch {
	case len(head) == 0:
		_ = f.Close()
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is empty", name).WithHint(writeArchive)
	case bytes.HasPrefix(head, gzipMagic):
		r, err = gzip.NewReader(in)
	case bytes.HasPrefix(head, zstdMagic):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(zstdMemoryMax)); err == nil {
			defer z.Close()
			r = z
		}
	case info.Mode().IsRegular():
		_, err = f.Seek(0, io.SeekStart)
		return f, err
	}
	if err == nil {
		var copied *os.File
		if copied, err = spool(ctx, &noBomb{r: r, in: info.Size()}, tempDir); err == nil {
			return copied, f.Close()
		}
	}
	_ = f.Close()
	var known *gatehouse.Error
	if errors.As(err, &known) || ctx.Err() != nil {
		return nil, err
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s cannot be unpacked: %w", name, err).WithHint(writeArchive)
}

const (
	zstdMemoryMax = 128 << 20 // bytes of its window
	// An archive that unpacks to more than archiveRatioMax times its size is
	// made to fill the disk; small ones may be anything.
	archiveRatioMax = 200
	archiveFree     = 1 << 30
)

// noBomb fails where a compressed archive unpacks to far more than its size.
type noBomb struct {
	r      io.Reader
	in     int64 // 0 = not known
	passed int64
}

func (b *noBomb) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.passed += int64(n); b.in > 0 && b.passed > archiveFree && b.passed/b.in > archiveRatioMax {
		return n, gatehouse.Errorf(gatehouse.CodeTooLarge, "the archive unpacks to more than %d times its size", archiveRatioMax)
	}
	return n, err
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

package index

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/body"
)

// image-spec layer.md, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // AUFS's own files, which no runtime unpacks
)

// kind is an extractor with what the hot path needs to know of it.
type kind struct {
	Extractor
	name    string
	fileMax int64
	sniffer Sniffer // nil: it wants the whole file
}

// expects reports whether files of this name are to be remembered also where they
// are of another kind.
func (k *kind) expects(name string, mode fs.FileMode) bool {
	return k.sniffer == nil || k.sniffer.Expects(name, mode)
}

func kindsOf(extractors []Extractor) []kind {
	kinds := make([]kind, len(extractors))
	for i, e := range extractors {
		kinds[i] = kind{Extractor: e, name: e.Name(), fileMax: e.FileMax()}
		kinds[i].sniffer, _ = e.(Sniffer)
	}
	return kinds
}

// walker gives each entry of a layer, or file of a directory, its meaning.
type walker struct {
	ctx      context.Context
	limits   Limits
	kinds    []kind
	lookers  []looker
	skip     Skip
	found    *collector
	body     *body.Body
	window   []byte // what inspections are shown of a file
	head     [headSize]byte
	entries  int
	bodies   int64 // bytes given to extractors so far
	inflated int64 // bytes of archives so far
	sparse   int64 // bytes of sparse files shown to inspections so far
}

func newWalker(ctx context.Context, limits Limits, what Analysis) *walker {
	found := newCollector(limits)
	return &walker{
		ctx: ctx, limits: limits, found: found, skip: what.Skip,
		kinds: kindsOf(what.Extractors), lookers: lookersOf(what.Inspectors, found),
		body: body.New(limits.MemoryMax, limits.TempDir),
	}
}

// tar walks the archive up to its end-of-archive blocks.
func (w *walker) tar(r io.Reader) error {
	// A tar.Reader that could seek would skip; ours must see every byte.
	t := tar.NewReader(struct{ io.Reader }{r})
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		// Names that leave the root are refused below, in our own words.
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return w.tarError(err)
		}
		if err := w.count(); err != nil {
			return err
		}
		if err := w.tarEntry(h, t); err != nil {
			return err
		}
	}
}

// tarError keeps errors of the stream as they are: they have their own code.
func (w *walker) tarError(err error) error {
	var e *gatehouse.Error
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if errors.As(err, &e) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "layer's tar archive is corrupt after %d entries: %w", w.entries, err)
}

// count counts an entry against EntriesMax and looks at ctx now and then.
func (w *walker) count() error {
	const everyEntries = 256
	if w.entries++; w.entries > w.limits.EntriesMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "layer has more than %d entries", w.limits.EntriesMax)
	}
	if w.entries%everyEntries == 0 {
		return w.ctx.Err()
	}
	return nil
}

func (w *walker) tarEntry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanPath(h.Name, w.limits)
	if err != nil {
		w.found.incomplete("%s: %v; the entry was ignored", quote(h.Name), err)
		return nil
	}
	if base := path.Base(name); strings.HasPrefix(base, whiteoutPrefix) {
		w.whiteout(name, base)
		return nil
	}
	w.strange(h, name)
	_, capable := h.PAXRecords["SCHILY.xattr.security.capability"]
	e := Entry{Path: name, Mode: h.FileInfo().Mode(), Size: h.Size, UID: h.Uid, Capabilities: capable}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		w.found.taken(name, false)
		e.sparse = isSparse(h)
		return w.regular(e, content)
	case tar.TypeDir:
		w.found.taken(name, true)
		w.found.drop(name)
	case tar.TypeLink:
		w.hardlink(e, h.Linkname)
		return nil
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		w.found.taken(name, false)
		w.found.replace(name)
	default:
		w.found.incomplete("%s: entry of unknown type %q was ignored", quote(name), h.Typeflag)
		return nil
	}
	if !w.skip.file(name) {
		w.announce(e)
	}
	return nil
}

// whiteout records what the entry named base deletes. It has that meaning
// whatever its type is.
func (w *walker) whiteout(name, base string) {
	dir := strings.TrimPrefix(strings.TrimSuffix(name, base), "/")
	dir = strings.TrimSuffix(dir, "/")
	if base == whiteoutOpaque {
		if dir == "" {
			// Overlayfs does not look whether the root of a layer is opaque.
			w.found.incomplete("%s: the layer hides all lower layers; runtimes show them", quote(name))
			return
		}
		w.found.opaque(dir)
		return
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return
	}
	target := strings.TrimPrefix(base, whiteoutPrefix)
	if target == "" || target == "." || target == ".." {
		w.found.incomplete("%s: whiteout of no name was ignored", quote(name))
		return
	}
	w.found.whiteout(path.Join(dir, target))
}

// wants returns the extractor of a file, nil if there is none.
func (w *walker) wants(name string, size int64, mode fs.FileMode) *kind {
	for i := range w.kinds {
		if w.kinds[i].Wants(name, size, mode) {
			return &w.kinds[i]
		}
	}
	return nil
}

// regular announces a file and reads it if anybody asks for it.
func (w *walker) regular(e Entry, content io.Reader) error {
	if w.skip.file(e.Path) {
		w.found.drop(e.Path)
		return nil
	}
	w.announce(e)
	return w.content(e, content)
}

// content gives the bytes of a file to its extractor and to the inspections that
// asked for them. Its errors are those of the stream; everything else is told
// as incomplete.
func (w *walker) content(e Entry, content io.Reader) error {
	name, size := e.Path, e.Size
	k := w.wants(name, size, e.Mode)
	if k == nil || size < 0 {
		w.found.drop(name)
		return w.inspect(e, content)
	}
	if k.sniffer != nil {
		head := w.head[:min(headSize, size)]
		if _, err := io.ReadFull(content, head); err != nil {
			return w.contentError(name, err)
		}
		content = io.MultiReader(bytes.NewReader(head), content)
		if !k.sniffer.Sniff(name, size, head) {
			w.otherKind(e, k)
			return w.inspect(e, content)
		}
	}
	if most := min(k.fileMax, w.limits.FileMax); size > most {
		w.found.incomplete("%s: %s file of %d bytes is larger than %d and was not read", quote(name), k.name, size, most)
		w.found.put(name, gatehouse.PackageSet{Extractor: k.name})
		return w.inspect(e, content)
	}
	if w.bodies += size; w.bodies > w.limits.BodiesMax {
		w.found.incomplete("%s: files with packages have more than %d bytes in this layer; it was not read", quote(name), w.limits.BodiesMax)
		w.found.put(name, gatehouse.PackageSet{Extractor: k.name})
		return w.inspect(e, content)
	}
	section, err := w.body.Load(w.ctx, content, size)
	if err != nil {
		return w.contentError(name, err)
	}
	if err := w.extract(e, k, section); err != nil {
		return err
	}
	if whole := w.body.Bytes(); whole != nil {
		w.give(Piece{Bytes: whole, Last: true})
		return nil
	}
	if _, err := section.Seek(0, io.SeekStart); err != nil {
		return w.contentError(name, err)
	}
	e.sparse = false // its bytes were counted
	return w.inspect(e, section)
}

// otherKind records a file that turned out to be of another kind than k.
func (w *walker) otherKind(e Entry, k *kind) {
	switch {
	case !k.expects(e.Path, e.Mode):
		w.found.drop(e.Path)
	case k.sniffer != nil && isData(e.Path):
		w.found.looked(e.Path)
	default:
		w.found.notMine(e.Path)
	}
}

// inflates bounds what archives cost in all.
func (w *walker) inflates(n int64) bool {
	w.inflated += n
	return w.inflated/archivesShare <= w.limits.ArchiveBytesMax
}

// isSparse reports whether h is of a file with holes, in any of GNU's forms.
func isSparse(h *tar.Header) bool {
	_, list := h.PAXRecords["GNU.sparse.map"]
	_, major := h.PAXRecords["GNU.sparse.major"]
	return h.Typeflag == tar.TypeGNUSparse || list || major
}

// extract runs the extractor k on a file that is wholly there.
func (w *walker) extract(e Entry, k *kind, section *io.SectionReader) error {
	name := e.Path
	file := File{Path: name, Size: e.Size, Mode: e.Mode, Body: section, Limits: w.limits, Owns: w.found.owners.add, Licensed: w.found.license, Inflates: w.inflates}
	set, err := extract(w.ctx, k, file)
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if errors.Is(err, ErrNotMine) {
		w.otherKind(e, k)
		return nil
	}
	if errors.Is(err, ErrNoPackages) {
		w.found.looked(name)
		return nil
	}
	if errors.As(err, new(*body.DiskError)) {
		return w.contentError(name, err)
	}
	if err != nil {
		w.found.incomplete("%s: %s file could not be read: %v", quote(name), k.name, err)
	}
	set.Extractor = k.name
	w.found.put(name, set)
	return nil
}

// isData reports whether a name is that of data or source code. A build
// context from Windows gives every file execute permission, and to remember
// each of them, because an executable of the same name might lie below, would
// make the layer's lists as long as its files.
func isData(name string) bool {
	switch path.Ext(name) {
	case ".c", ".cjs", ".conf", ".css", ".csv", ".gif", ".go", ".gz", ".h", ".html", ".jpg", ".js", ".json", ".map", ".md", ".mjs",
		".php", ".png", ".po", ".py", ".pyc", ".rb", ".scss", ".svg", ".ts", ".tsx", ".txt", ".woff", ".woff2", ".xml", ".yaml", ".yml":
		return true
	}
	return false
}

// contentError: the stream or the disk under body failed in the middle of name.
func (w *walker) contentError(name string, err error) error {
	var disk *body.DiskError
	if errors.As(err, &disk) {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s could not be kept for reading: %w", quote(name), err)
	}
	return w.tarError(err)
}

// extract runs one extractor on one file and turns a panic into an error: one
// hostile file must not stop the worker.
func extract(ctx context.Context, k *kind, file File) (set gatehouse.PackageSet, err error) {
	defer func() {
		if p := recover(); p != nil {
			set, err = gatehouse.PackageSet{}, fmt.Errorf("extractor panicked: %v", p)
		}
	}()
	return k.Extract(ctx, file)
}

// hardlink gives a further name to a file of the same layer. Its content is
// known if it was read under its first name.
func (w *walker) hardlink(e Entry, link string) {
	name := e.Path
	target, err := cleanPath(link, w.limits)
	if err == nil && target == name {
		return // a further name of itself changes nothing
	}
	w.found.taken(name, false)
	if w.skip.file(name) {
		w.found.drop(name)
		return
	}
	if err == nil {
		e.Size, e.Link = -1, target
		w.announce(e)
		w.found.linkNoted(name, target)
	}
	k := w.wants(name, -1, e.Mode)
	if k == nil {
		w.found.drop(name)
		return
	}
	if err == nil && w.found.link(name, target, k.name) {
		return
	}
	if k.name == copyrightName || !k.expects(name, e.Mode) { // a licence that is not known is no doubt about the packages
		w.found.drop(name)
		return
	}
	w.found.put(name, gatehouse.PackageSet{Extractor: k.name})
	w.found.incomplete("%s: %s file is a hard link to %s, whose content was not read", quote(name), k.name, quote(link))
}

// cleanPath returns name relative to the root, lexically clean, "" for the
// root itself. Bytes that are not UTF-8 are escaped, and so is the backslash of
// what looks like such an escape: two names stay two names wherever they are
// stored.
func cleanPath(name string, limits Limits) (string, error) {
	if len(name) > limits.PathMax {
		return "", fmt.Errorf("path is longer than %d bytes", limits.PathMax)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == "." {
		return "", nil
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errors.New("path leaves the root")
	}
	if strings.Count(clean, "/") >= limits.DepthMax {
		return "", fmt.Errorf("path has more than %d parts", limits.DepthMax)
	}
	if utf8.ValidString(clean) && !strings.Contains(clean, `\x`) {
		return clean, nil
	}
	var b strings.Builder
	for i, r := range clean {
		if strings.HasPrefix(clean[i:], `\x`) {
			b.WriteString(`\x5c`)
			continue
		}
		if _, n := utf8.DecodeRuneInString(clean[i:]); r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, clean[i])
			continue
		}
		b.WriteRune(r)
	}
	return b.String(), nil
}

package index

import (
	"bufio"
	"bytes"
	"hash/maphash"
	"io"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
)

// noted is what inspections have found, by path, and the paths that the layer
// takes. Within one layer the last entry of a path wins; a secret in an earlier
// one stays, since whoever has the layer can read it.
type noted struct {
	findings map[string]notedFindings
	files    map[string]notedFile
	kept     []gatehouse.Finding // of entries that were superseded
	count    int                 // findings, those kept included
	paths    pathWriter
	// links are the targets of hard links, with one of their names, until it is
	// known that the layer holds them.
	links map[string]string
}

type notedFindings struct {
	seq  int
	list []gatehouse.Finding
}

type notedFile struct {
	seq  int
	file gatehouse.FileDigest
}

// textMax bounds the excerpt and the other texts of a finding, in bytes.
const textMax = 1024

// taken records that a new entry stands at name, before it is looked at.
func (c *collector) taken(name string, dir bool) {
	n := &c.noted
	if len(n.findings) > 0 {
		if old, ok := n.findings[name]; ok {
			n.bury(old.list)
			delete(n.findings, name)
		}
	}
	if len(n.files) > 0 {
		delete(n.files, name)
	}
	if !dir && len(c.above) > 0 && c.above[maphash.String(c.seed, name)] && c.room(name) {
		c.changed[name] = true
	}
	if name != "" && !n.paths.add(name, dir) {
		c.once("all paths", "the layer has more paths than %d bytes hold", pathsMax)
	}
}

// bury keeps the secrets of an entry that nobody sees any more.
func (n *noted) bury(list []gatehouse.Finding) {
	for _, f := range list {
		if f.Kind != gatehouse.KindSecret {
			n.count--
			continue
		}
		at := *f.Location
		at.Deleted = true
		f.Location = &at
		n.kept = append(n.kept, f)
	}
}

// finding records a finding of the entry at name.
func (c *collector) finding(name string, f gatehouse.Finding) {
	n := &c.noted
	if n.count >= c.limits.FindingsMax {
		c.once("findings", "the layer has more than %d findings", c.limits.FindingsMax)
		return
	}
	if !c.room(name) {
		return
	}
	f.Package = gatehouse.Package{Path: name}
	if f.Location == nil {
		f.Location = &gatehouse.Location{Origin: "file"}
	}
	for _, s := range []*string{&f.Title, &f.Description, &f.Resolution, &f.Location.Name, &f.Location.Excerpt} {
		*s = (*s)[:min(len(*s), textMax)]
		*s = cleanLine(*s)
	}
	if n.findings == nil {
		n.findings = map[string]notedFindings{}
	}
	c.seq++
	n.count++
	n.findings[name] = notedFindings{c.seq, append(n.findings[name].list, f)}
}

// file records the digest of the file at name.
func (c *collector) file(name string, sum gatehouse.Digest, size int64) {
	n := &c.noted
	if len(n.files) >= c.limits.FilesMax {
		c.once("files", "the layer has more than %d executables, scripts and archives; the digests of further ones are not known", c.limits.FilesMax)
		return
	}
	if !c.room(name) {
		return
	}
	if n.files == nil {
		n.files = map[string]notedFile{}
	}
	c.seq++
	n.files[name] = notedFile{c.seq, gatehouse.FileDigest{Path: name, Digest: sum, Size: size}}
}

// linkNoted gives name the digest of target, whose further name it is. Findings
// stay with the name under which the content was read.
func (c *collector) linkNoted(name, target string) {
	if old, ok := c.noted.files[target]; ok {
		c.file(name, old.file.Digest, old.file.Size)
		return
	}
	if _, ok := c.noted.links[target]; ok || !c.room(target) {
		return
	}
	if c.noted.links == nil {
		c.noted.links = map[string]string{}
	}
	c.noted.links[target] = name
}

// checkLinks tells of hard links to files that the layer does not hold. Runtimes
// take those of lower layers: under another name they would show although the
// file itself is deleted. Nobody's build makes such.
func (c *collector) checkLinks(paths []byte) {
	links := c.noted.links
	if len(links) == 0 {
		return
	}
	eachPath(paths, func(name []byte, dir bool) {
		if !dir {
			delete(links, string(name))
		}
	})
	for _, target := range slices.Sorted(maps.Keys(links)) {
		c.incomplete("%s: hard link to %s, which is not in this layer", quote(links[target]), quote(target))
	}
}

// into puts everything that shows into inv, sorted.
func (n *noted) into(inv *gatehouse.LayerInventory, c *collector) {
	for _, name := range slices.Sorted(maps.Keys(n.findings)) {
		if at := n.findings[name]; c.buried(name, at.seq) {
			n.bury(at.list)
		} else {
			inv.Findings = append(inv.Findings, at.list...)
		}
	}
	inv.Findings = append(inv.Findings, n.kept...)
	for _, name := range slices.Sorted(maps.Keys(n.files)) {
		if at := n.files[name]; !c.buried(name, at.seq) {
			inv.Files = append(inv.Files, at.file)
		}
	}
}

// pathWriter keeps every path of a layer in a few bytes each, in the order of
// the archive. Lower layers may have anything at these paths, and which of it
// matters is not known when the layer is read. Hashes would be longer, and whoever
// makes both layers could make two paths collide.
type pathWriter struct {
	out    bytes.Buffer
	line   []byte
	plain  int64
	z      *zstd.Encoder
	failed bool // there are too many
}

const (
	// pathsMax bounds the compressed paths of a layer, in bytes. Two million
	// paths of a real file system need about 12 MiB.
	pathsMax = 16 << 20
	// pathsPlainMax bounds them before compression.
	pathsPlainMax = 256 << 20
)

// add reports false when there is no room for the paths of the layer.
func (w *pathWriter) add(name string, dir bool) bool {
	if w.failed {
		return false
	}
	if w.z == nil {
		z, err := zstd.NewWriter(&w.out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err) // options that are always valid
		}
		w.z = z
	}
	w.line = append(append(w.line[:0], name...), 0)
	if dir {
		w.line = append(w.line[:len(name)], '/', 0)
	}
	_, _ = w.z.Write(w.line) // to memory
	if w.plain += int64(len(w.line)); w.out.Len() > pathsMax || w.plain > pathsPlainMax {
		w.failed, w.out = true, bytes.Buffer{}
		_ = w.z.Close()
	}
	return !w.failed
}

// close returns what [gatehouse.LayerInventory].Paths is.
func (w *pathWriter) close() []byte {
	if w.z == nil || w.failed {
		return nil
	}
	_ = w.z.Close() // to memory
	return w.out.Bytes()
}

// eachPath calls visit with every path that paths holds, in the order of the
// archive. It stops at what it cannot read: paths that are not known hide nothing.
// visit must not keep name.
func eachPath(paths []byte, visit func(name []byte, dir bool)) {
	if len(paths) == 0 {
		return
	}
	z, err := zstd.NewReader(bytes.NewReader(paths), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return
	}
	defer z.Close()
	splitPaths(z, visit)
}

// splitPaths reads names that end in a zero byte.
func splitPaths(r io.Reader, visit func(name []byte, dir bool)) {
	lines := bufio.NewScanner(io.LimitReader(r, pathsPlainMax))
	lines.Buffer(make([]byte, 64<<10), 64<<10)
	lines.Split(func(data []byte, _ bool) (int, []byte, error) {
		i := bytes.IndexByte(data, 0)
		if i < 0 {
			return 0, nil, nil // a name without its end is none
		}
		return i + 1, data[:i], nil
	})
	for lines.Scan() {
		name, dir := bytes.CutSuffix(lines.Bytes(), []byte("/"))
		visit(name, dir)
	}
}

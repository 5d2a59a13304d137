package index

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/secret"
)

// Inspector looks at every file of a layer as its bytes stream past. It may be
// used by several walks at once.
type Inspector interface {
	// Name is stable: it is part of what is stored.
	Name() string
	// Version changes when an inspection would give another answer for equal
	// bytes.
	Version() int
	// Inspect begins one walk, whose Report it may keep.
	Inspect(*Report) Inspection
}

// Inspection is an [Inspector] at one walk. It is used by one goroutine. What
// it keeps must be bounded whatever the layer holds.
type Inspection interface {
	// Entry is told of every entry before its content. It reports whether it
	// wants the content, which only regular files have. It is asked for every
	// entry of every layer and must be cheap.
	Entry(Entry) bool
	// Piece is given the content of the file that Entry last said yes to,
	// piece by piece, unless the file is empty. It reports whether it wants
	// more. When the layer breaks off there is no last piece.
	Piece(Piece) bool
}

// Entry is what a layer says of one of its entries.
type Entry struct {
	Path string // cleaned, relative to the root, no leading slash; "" is the root
	// Mode has the type and the permissions with setuid, setgid and sticky.
	Mode fs.FileMode
	Size int64 // bytes; -1 for a hard link
	UID  int   // -1 where it is not known
	// Capabilities: the file has capabilities of its own (xattr
	// security.capability).
	Capabilities bool
	// Link is the target of a hard link, cleaned: the entry is a further name
	// of that file. Empty for everything else.
	Link string

	sparse bool // has holes that are not in the stream
}

// Piece is a part of a file. Bytes is valid during the call only.
type Piece struct {
	// Bytes are consecutive bytes of the file. The first Seen of them were part
	// of the last piece as well, so that what lies across two pieces is seen
	// whole once: all but the first piece repeat at least [PieceOverlap] bytes,
	// or everything there was.
	Bytes []byte
	Seen  int
	// Last: the file ends here.
	Last bool
}

const (
	// PieceOverlap is how many bytes a piece repeats of the one before it.
	PieceOverlap = secret.Ahead + secret.Back
	pieceMax     = 64 << 10 // new bytes; what is copied stays in the cache
)

// Report takes what an inspection has found in the entry that it was last told
// of. Bounds are kept here.
type Report struct {
	found *collector
	name  string // of the inspector
	path  string
}

// Finding records f, whose Package.Path is set to the entry's. Location must be
// set. A finding of kind secret stays when the file goes.
func (r *Report) Finding(f gatehouse.Finding) { r.found.finding(r.path, f) }

// File records the digest of the whole file.
func (r *Report) File(sha256 gatehouse.Digest, size int64) { r.found.file(r.path, sha256, size) }

// Incomplete tells that the file could not be looked at whole, and why.
func (r *Report) Incomplete(format string, args ...any) {
	r.found.incomplete("%s: %s: %s", quote(r.path), r.name, fmt.Sprintf(format, args...))
}

// Once is Incomplete for a bound of the layer, told at the first file that
// exceeds it.
func (r *Report) Once(format string, args ...any) {
	r.found.once("inspector "+r.name+format, "%s: from %s on: %s", r.name, quote(r.path), fmt.Sprintf(format, args...))
}

// looker is one inspection of a walk.
type looker struct {
	Inspection
	report *Report
	active bool // wants more of the current file
}

func lookersOf(inspectors []Inspector, found *collector) []looker {
	lookers := make([]looker, len(inspectors))
	for i, in := range inspectors {
		r := &Report{found: found, name: in.Name()}
		lookers[i] = looker{Inspection: in.Inspect(r), report: r}
	}
	return lookers
}

// announce tells every inspection of e and reports whether one wants its bytes.
func (w *walker) announce(e Entry) (wanted bool) {
	for i := range w.lookers {
		l := &w.lookers[i]
		l.report.path, l.active = e.Path, false
		w.guard(l, func() { l.active = l.Entry(e) })
		wanted = wanted || l.active
	}
	return wanted
}

// inspect gives the content of e to the inspections that want it, until none
// does. Its errors are those of the stream.
func (w *walker) inspect(e Entry, content io.Reader) error {
	if w.window == nil {
		w.window = make([]byte, PieceOverlap+pieceMax)
	}
	seen := 0
	for left := e.Size; left > 0 && w.watched(); {
		n := int(min(int64(len(w.window)-seen), left))
		if e.sparse {
			// Holes are not in the stream: what bounds that bounds nothing here.
			if w.sparse += int64(n); w.sparse > w.limits.SparseMax {
				w.found.once("sparse", "from %s on: sparse files have more than %d bytes in this layer and were not looked at whole", quote(e.Path), w.limits.SparseMax)
				return nil
			}
		}
		if _, err := io.ReadFull(content, w.window[seen:seen+n]); err != nil {
			return w.contentError(e.Path, asTruncated(err))
		}
		if left -= int64(n); left > 0 {
			if err := w.ctx.Err(); err != nil {
				return err
			}
		}
		w.give(Piece{Bytes: w.window[:seen+n], Seen: seen, Last: left == 0})
		keep := min(seen+n, PieceOverlap)
		copy(w.window, w.window[seen+n-keep:seen+n])
		seen = keep
	}
	return nil
}

// give shows p to the inspections that want it.
func (w *walker) give(p Piece) {
	if len(p.Bytes) == 0 {
		return
	}
	for i := range w.lookers {
		if l := &w.lookers[i]; l.active {
			w.guard(l, func() { l.active = l.Piece(p) })
		}
	}
}

func asTruncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (w *walker) watched() bool {
	for i := range w.lookers {
		if w.lookers[i].active {
			return true
		}
	}
	return false
}

// guard turns a panic of an inspection into a reason: one hostile file must not
// stop the worker. The inspection sees no more of the file.
func (w *walker) guard(l *looker, call func()) {
	defer func() {
		if p := recover(); p != nil {
			l.active = false
			l.report.Incomplete("panicked: %v", p)
		}
	}()
	call()
}

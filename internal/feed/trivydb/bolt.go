package trivydb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// A reader of the files that bbolt writes (go.etcd.io/bbolt, format 2): a tree
// of pages whose leaves hold keys and values, where a value may be the root of a
// tree of its own, a bucket. bbolt itself maps the file and follows what the
// pages say; a damaged one makes it panic or fault, and a large one does not fit
// the address space of small machines. This reads page by page and believes
// nothing.

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeaderBytes   = 16
	elementBytes      = 16
	bucketHeaderBytes = 16
	metaBytes         = 64

	flagBranch = 1
	flagLeaf   = 2
	flagMeta   = 4
	flagBucket = 1 // of a leaf's element

	pageSizeMin = 512
	pageSizeMax = 64 << 10
	depthMax    = 32       // of one tree of pages; real ones have six levels
	runBytesMax = 64 << 20 // of a page with its overflow; real ones stay below one MiB
)

var native = binary.LittleEndian // all machines that databases are built on

// bolt is one opened file.
type bolt struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64 // high-water mark: no page has this number or a higher one
	root     uint64
	visits   uint64 // pages that may still be walked, so that no loop is followed for ever
	lookups  uint64 // pages that may still be read to look keys up
}

// bucket is a tree of pages, or one page that lies in its parent's leaf.
type bucket struct {
	db     *bolt
	root   uint64
	inline []byte
}

// isBolt looks at the first bytes of a file.
func isBolt(head []byte) bool {
	return len(head) >= pageHeaderBytes+4 && native.Uint32(head[pageHeaderBytes:]) == boltMagic
}

func damaged(what string) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the database is damaged: %s", what).
		WithHint("fetch it again")
}

// openBolt checks both meta pages and takes the newer one that is whole.
func openBolt(r io.ReaderAt, size int64) (*bolt, error) {
	first, ok := readMeta(r, 0)
	if !ok || first.pageSize == 0 {
		return nil, damaged("its first page is no meta page")
	}
	best := first
	if second, ok := readMeta(r, int64(first.pageSize)); ok && second.pageSize == first.pageSize && second.tx > first.tx {
		best = second
	}
	b := &bolt{r: r, pageSize: int64(best.pageSize), pages: best.pages, root: best.root}
	if have := uint64(size / b.pageSize); b.pages > have {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the database is cut short: it has %d pages of %d", have, b.pages).
			WithHint("fetch it again")
	}
	b.renew()
	return b, nil
}

// renew allows one more pass. Each page is in one tree only, and only the
// uppermost, which is small, is walked several times.
func (b *bolt) renew() { b.visits, b.lookups = 2*b.pages+depthMax, 8*b.pages }

// lookupPages is what one look-up adds to what look-ups may read. A real one takes
// six pages, and some more where its leaf holds a long text. Without a bound, every
// record of a forged file could have the same huge page read again.
const lookupPages = 16

type meta struct {
	pageSize  uint32
	root      uint64
	pages, tx uint64
}

func readMeta(r io.ReaderAt, at int64) (m meta, ok bool) {
	var p [pageHeaderBytes + metaBytes]byte
	if _, err := r.ReadAt(p[:], at); err != nil && !errors.Is(err, io.EOF) {
		return m, false
	}
	b := p[pageHeaderBytes:]
	sum := fnv.New64a()
	sum.Write(b[:metaBytes-8])
	m = meta{pageSize: native.Uint32(b[8:]), root: native.Uint64(b[16:]), pages: native.Uint64(b[40:]), tx: native.Uint64(b[48:])}
	ok = native.Uint16(p[8:])&flagMeta != 0 && native.Uint32(b) == boltMagic && native.Uint32(b[4:]) == boltVersion &&
		native.Uint64(b[metaBytes-8:]) == sum.Sum64() &&
		m.pageSize >= pageSizeMin && m.pageSize <= pageSizeMax && m.pageSize&(m.pageSize-1) == 0
	return m, ok
}

// page reads one page with its overflow.
func (b *bolt) page(id uint64) (page, error) {
	if id < 2 || id >= b.pages {
		return nil, damaged("a page is out of range")
	}
	p := make([]byte, b.pageSize)
	if _, err := b.r.ReadAt(p, int64(id)*b.pageSize); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the database cannot be read: %w", err)
	}
	overflow := uint64(native.Uint32(p[12:]))
	if native.Uint64(p) != id || overflow >= b.pages-id || (overflow+1)*uint64(b.pageSize) > runBytesMax {
		return nil, damaged("a page is not what it should be")
	}
	if overflow > 0 {
		p = append(p, make([]byte, int64(overflow)*b.pageSize)...)
		if _, err := b.r.ReadAt(p[b.pageSize:], int64(id+1)*b.pageSize); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the database cannot be read: %w", err)
		}
	}
	return p, nil
}

// page is a page's bytes, header and all.
type page []byte

func (p page) flags() uint16 { return native.Uint16(p[8:]) }
func (p page) count() int    { return int(native.Uint16(p[10:])) }

// check makes sure that the elements' headers lie within the page.
func (p page) check() error {
	if len(p) < pageHeaderBytes || pageHeaderBytes+p.count()*elementBytes > len(p) {
		return damaged("a page has no room for what it counts")
	}
	return nil
}

// leaf returns the i-th element of a leaf page.
func (p page) leaf(i int) (key, value []byte, isBucket bool, err error) {
	at := pageHeaderBytes + i*elementBytes
	e := p[at:]
	start := uint64(at) + uint64(native.Uint32(e[4:]))
	keyEnd := start + uint64(native.Uint32(e[8:]))
	end := keyEnd + uint64(native.Uint32(e[12:]))
	if end > uint64(len(p)) {
		return nil, nil, false, damaged("an entry reaches beyond its page")
	}
	return p[start:keyEnd], p[keyEnd:end], native.Uint32(e)&flagBucket != 0, nil
}

// branch returns the i-th element of a branch page.
func (p page) branch(i int) (key []byte, child uint64, err error) {
	at := pageHeaderBytes + i*elementBytes
	e := p[at:]
	start := uint64(at) + uint64(native.Uint32(e))
	end := start + uint64(native.Uint32(e[4:]))
	if end > uint64(len(p)) {
		return nil, 0, damaged("an entry reaches beyond its page")
	}
	return p[start:end], native.Uint64(e[8:]), nil
}

// top is the bucket that holds all others.
func (b *bolt) top() bucket { return bucket{db: b, root: b.root} }

// sub opens the bucket that a leaf's value is.
func (b *bolt) sub(value []byte) (bucket, error) {
	if len(value) < bucketHeaderBytes {
		return bucket{}, damaged("a bucket has no header")
	}
	root := native.Uint64(value)
	if root != 0 {
		return bucket{db: b, root: root}, nil
	}
	return bucket{db: b, inline: value[bucketHeaderBytes:]}, nil
}

// each calls f for every entry, in the order of keys. What it hands over must not
// be changed; keeping it keeps its page.
func (b bucket) each(f func(key, value []byte, isBucket bool) error) error {
	if b.inline != nil {
		return eachOf(b.inline, f)
	}
	return b.walk(b.root, 0, f)
}

func (b bucket) walk(id uint64, depth int, f func(key, value []byte, isBucket bool) error) error {
	if depth > depthMax {
		return damaged("its pages lie too deep")
	}
	p, err := b.db.page(id)
	if err != nil {
		return err
	}
	pages := uint64(len(p)) / uint64(b.db.pageSize)
	if b.db.visits < pages {
		return damaged("its pages lead in a circle")
	}
	b.db.visits -= pages
	if p.flags()&flagBranch == 0 {
		return eachOf(p, f)
	}
	if err := p.check(); err != nil {
		return err
	}
	for i := range p.count() {
		_, child, err := p.branch(i)
		if err != nil {
			return err
		}
		if err := b.walk(child, depth+1, f); err != nil {
			return err
		}
	}
	return nil
}

func eachOf(p page, f func(key, value []byte, isBucket bool) error) error {
	if len(p) < pageHeaderBytes || p.flags()&flagLeaf == 0 {
		return damaged("a page is neither a branch nor a leaf")
	}
	if err := p.check(); err != nil {
		return err
	}
	for i := range p.count() {
		key, value, isBucket, err := p.leaf(i)
		if err != nil {
			return err
		}
		if err := f(key, value, isBucket); err != nil {
			return err
		}
	}
	return nil
}

// get looks one key up. A value that is a bucket is none.
func (b bucket) get(key []byte) (value []byte, found bool, err error) {
	p := page(b.inline)
	b.db.lookups += lookupPages
	for id, depth := b.root, 0; b.inline == nil; depth++ {
		if depth > depthMax {
			return nil, false, damaged("its pages lie too deep")
		}
		if p, err = b.db.page(id); err != nil {
			return nil, false, err
		}
		pages := uint64(len(p)) / uint64(b.db.pageSize)
		if b.db.lookups < pages {
			return nil, false, damaged("its pages are too large to look anything up")
		}
		b.db.lookups -= pages
		if p.flags()&flagBranch == 0 {
			break
		}
		if err := p.check(); err != nil {
			return nil, false, err
		}
		if id, err = p.childFor(key); err != nil {
			return nil, false, err
		}
	}
	err = eachOf(p, func(k, v []byte, isBucket bool) error {
		if !isBucket && bytes.Equal(k, key) {
			value, found = v, true
		}
		return nil
	})
	return value, found, err
}

// childFor returns the last child whose first key is not above key.
func (p page) childFor(key []byte) (uint64, error) {
	if p.count() == 0 {
		return 0, damaged("a branch has no children")
	}
	low, high := 0, p.count()-1
	for low < high {
		mid := (low + high + 1) / 2
		k, _, err := p.branch(mid)
		if err != nil {
			return 0, err
		}
		if bytes.Compare(k, key) <= 0 {
			low = mid
		} else {
			high = mid - 1
		}
	}
	_, child, err := p.branch(low)
	return child, err
}

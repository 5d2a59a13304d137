package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// Cache remembers whether a signature holds, and whose it is: a function of the
// image's digest, of what is signed, of the signature and what came along, and of
// the trust material. It never holds what a policy made of it. Implementations
// are safe for concurrent use; what they return is not changed.
type Cache interface {
	Get(k CacheKey) (result Checked, known bool)
	Put(k CacheKey, result Checked)
}

// CacheKey is a sha256 over everything that the result depends on.
type CacheKey [sha256.Size]byte

func cacheKey(image gatehouse.Digest, trust string, s signed) CacheKey {
	return keyOver("signature/2", s.form, string(image), trust, string(s.signature), string(s.content), string(s.material))
}

// heldKey is where it is remembered that something that hangs on the image held.
func (r *run) heldKey(kind string, d gatehouse.Digest, signature string) CacheKey {
	return keyOver("held/1", kind, string(r.image.Digest), r.auth.trust, string(d), signature)
}

func keyOver(parts ...string) CacheKey {
	h := sha256.New()
	for _, part := range parts {
		var n [8]byte // a length before each part: none can pretend to be two
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		io.WriteString(h, part)
	}
	return CacheKey(h.Sum(nil))
}

type noCache struct{}

func (noCache) Get(CacheKey) (result Checked, known bool) { return Checked{}, false }
func (noCache) Put(CacheKey, Checked)                     {}

// LRU is a [Cache] of bounded size that forgets what was not used for longest.
type LRU struct {
	mu    sync.Mutex
	max   int
	ring  lruEntry // its next is the one used last, its prev the one not used for longest
	items map[CacheKey]*lruEntry
}

// lruEntry is small, as there are many: most signatures hold, and say no more.
type lruEntry struct {
	key        CacheKey
	result     *Checked // nil: the zero one
	prev, next *lruEntry
}

// NewLRU makes a cache of at most max results, about 150 bytes each, and 250 more where
// they say who signed or what is wrong.
func NewLRU(max int) *LRU {
	c := &LRU{max: max, items: map[CacheKey]*lruEntry{}}
	c.ring.prev, c.ring.next = &c.ring, &c.ring
	return c
}

// Get implements [Cache].
func (c *LRU) Get(k CacheKey) (result Checked, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return Checked{}, false
	}
	e.leave()
	c.enter(e)
	if e.result == nil {
		return Checked{}, true
	}
	return *e.result, true
}

// Put implements [Cache].
func (c *LRU) Put(k CacheKey, result Checked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if ok {
		e.leave()
	} else {
		e = &lruEntry{key: k}
		c.items[k] = e
	}
	if e.result = nil; result != (Checked{}) {
		e.result = &result
	}
	c.enter(e)
	for len(c.items) > c.max {
		last := c.ring.prev
		last.leave()
		delete(c.items, last.key)
	}
}

// enter puts e in front, with mu held.
func (c *LRU) enter(e *lruEntry) {
	e.prev, e.next = &c.ring, c.ring.next
	e.prev.next, e.next.prev = e, e
}

// leave takes e out, with the mu of its LRU held.
func (e *lruEntry) leave() { e.prev.next, e.next.prev = e.next, e.prev }

// Len tells how many results are remembered.
func (c *LRU) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.items)
}

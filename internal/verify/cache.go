package verify

import (
	"container/list"
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
	order *list.List // of lruEntry, newest first
	items map[CacheKey]*list.Element
}

type lruEntry struct {
	key    CacheKey
	result Checked
}

// NewLRU makes a cache of at most max results, about 600 bytes each.
func NewLRU(max int) *LRU {
	return &LRU{max: max, order: list.New(), items: map[CacheKey]*list.Element{}}
}

// Get implements [Cache].
func (c *LRU) Get(k CacheKey) (result Checked, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return Checked{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(lruEntry).result, true
}

// Put implements [Cache].
func (c *LRU) Put(k CacheKey, result Checked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		e.Value = lruEntry{k, result}
		c.order.MoveToFront(e)
		return
	}
	c.items[k] = c.order.PushFront(lruEntry{k, result})
	for len(c.items) > c.max {
		last := c.order.Back()
		delete(c.items, last.Value.(lruEntry).key)
		c.order.Remove(last)
	}
}

// Len tells how many results are remembered.
func (c *LRU) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.items)
}

package verify

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// Cache remembers whether a signature holds: a function of the image's digest,
// of what is signed, of the signature and of the key. It never holds what a
// policy made of it. Implementations are safe for concurrent use.
type Cache interface {
	Get(k CacheKey) (good, known bool)
	Put(k CacheKey, good bool)
}

// CacheKey is a sha256 over everything that the result depends on.
type CacheKey [sha256.Size]byte

func cacheKey(image gatehouse.Digest, trust string, s signed) CacheKey {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("signature/1"), []byte(s.form), []byte(image), []byte(trust), s.signature, s.content} {
		var n [8]byte // a length before each part: none can pretend to be two
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return CacheKey(h.Sum(nil))
}

type noCache struct{}

func (noCache) Get(CacheKey) (good, known bool) { return false, false }
func (noCache) Put(CacheKey, bool)              {}

// LRU is a [Cache] of bounded size that forgets what was not used for longest.
type LRU struct {
	mu    sync.Mutex
	max   int
	order *list.List // of lruEntry, newest first
	items map[CacheKey]*list.Element
}

type lruEntry struct {
	key  CacheKey
	good bool
}

// NewLRU makes a cache of at most max results, about 200 bytes each.
func NewLRU(max int) *LRU {
	return &LRU{max: max, order: list.New(), items: map[CacheKey]*list.Element{}}
}

// Get implements [Cache].
func (c *LRU) Get(k CacheKey) (good, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return false, false
	}
	c.order.MoveToFront(e)
	return e.Value.(lruEntry).good, true
}

// Put implements [Cache].
func (c *LRU) Put(k CacheKey, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		e.Value = lruEntry{k, good}
		c.order.MoveToFront(e)
		return
	}
	c.items[k] = c.order.PushFront(lruEntry{k, good})
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

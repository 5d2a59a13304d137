package trust

import (
	"crypto/sha256"
	"sync"
)

// Cache keeps parsed documents by their digest: an authority brings its trusted
// root along with every question, and reading it costs more than a signature. It
// is safe for concurrent use. A nil Cache reads each time.
type Cache struct {
	mu    sync.Mutex
	max   int
	order []digest // oldest first
	roots map[digest]*Root
}

// NewCache makes a cache of at most max documents.
func NewCache(max int) *Cache { return &Cache{max: max, roots: map[digest]*Root{}} }

// Parse is as the function of that name. A document that cannot be read is not
// remembered.
func (c *Cache) Parse(document []byte) (*Root, error) {
	if c == nil {
		return Parse(document)
	}
	key := sha256.Sum256(document)
	c.mu.Lock()
	r := c.roots[key]
	c.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := Parse(document)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.roots[key]; !ok {
		c.roots[key] = r
		c.order = append(c.order, key)
		for len(c.order) > c.max {
			delete(c.roots, c.order[0])
			c.order = c.order[1:]
		}
	}
	return r, nil
}

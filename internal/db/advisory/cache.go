package advisory

import (
	"container/list"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// docCache keeps the documents used last, bounded by the bytes of their texts.
type docCache struct {
	mu    sync.Mutex
	max   int // guarded by mu, as all below
	bytes int
	order *list.List // of cached, last used first
	byN   map[int64]*list.Element
}

type cached struct {
	n    int64
	a    gatehouse.Advisory
	size int
}

func newDocCache(bytesMax int) *docCache {
	return &docCache{max: bytesMax, order: list.New(), byN: map[int64]*list.Element{}}
}

func (c *docCache) get(n int64) (gatehouse.Advisory, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byN[n]
	if !ok {
		return gatehouse.Advisory{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cached).a, true
}

func (c *docCache) put(n int64, a gatehouse.Advisory) {
	size := sizeOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byN[n]; ok || size > c.max {
		return
	}
	c.byN[n] = c.order.PushFront(cached{n, a, size})
	for c.bytes += size; c.bytes > c.max; {
		last := c.order.Back()
		old := c.order.Remove(last).(cached)
		delete(c.byN, old.n)
		c.bytes -= old.size
	}
}

// sizeOf is about what a document takes in memory.
func sizeOf(a gatehouse.Advisory) int {
	const perDocument, perString = 512, 48
	n := perDocument + len(a.Summary) + len(a.Details)
	for _, l := range [][]string{a.Aliases, a.Upstream, a.Related, a.References} {
		for _, s := range l {
			n += perString + len(s)
		}
	}
	for _, v := range a.CVSS {
		n += perString + len(v.Vector)
	}
	return n
}

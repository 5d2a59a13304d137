package auth

import (
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	// cacheTTL is how long right credentials are believed without asking again,
	// and so how long another replica goes on believing a changed password.
	cacheTTL = 30 * time.Second
	// cacheEntriesMax bounds the memory of it.
	cacheEntriesMax = 4096
)

type cacheKey [32]byte

// cache remembers credentials that were right. Wrong ones are not remembered:
// they would fill it. The zero cache is ready.
type cache struct {
	mu      sync.Mutex
	entries map[cacheKey]cacheEntry // guarded by mu
	changes uint64                  // of any account, guarded by mu
}

type cacheEntry struct {
	actor   gatehouse.Actor
	expires time.Time
}

func (c *cache) get(key cacheKey, now time.Time) (gatehouse.Actor, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok || !now.Before(e.expires) {
		return gatehouse.Actor{}, false
	}
	return e.actor, true
}

// generation is told to put, so that a check that began before a password was
// changed is not remembered after it.
func (c *cache) generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

func (c *cache) put(key cacheKey, actor gatehouse.Actor, now time.Time, generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.changes {
		return
	}
	if c.entries == nil {
		c.entries = map[cacheKey]cacheEntry{}
	}
	if len(c.entries) >= cacheEntriesMax {
		c.shrink(now)
	}
	c.entries[key] = cacheEntry{actor, now.Add(cacheTTL)}
}

// shrink drops what has expired, and half of the rest if that is not enough;
// the order of a map is random, which is fair.
func (c *cache) shrink(now time.Time) {
	for k, e := range c.entries {
		if !now.Before(e.expires) {
			delete(c.entries, k)
		}
	}
	for k := range c.entries {
		if len(c.entries) <= cacheEntriesMax/2 {
			return
		}
		delete(c.entries, k)
	}
}

// forget drops everything: accounts change seldom.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.entries)
	c.changes++
}

package limit

import "sync"

// Counts counts what keys hold. The zero value holds nothing. All methods are
// safe to call at once.
type Counts[K comparable] struct {
	mu   sync.Mutex
	held map[K]int
}

// Acquire has key hold one more, unless it holds limit already.
func (c *Counts[K]) Acquire(key K, limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[key] >= limit {
		return false
	}
	if c.held == nil {
		c.held = make(map[K]int)
	}
	c.held[key]++
	return true
}

// Release undoes one Acquire that returned true. It panics where there was none.
func (c *Counts[K]) Release(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n := c.held[key]; n {
	case 0:
		panic("limit: more was released than acquired")
	case 1:
		delete(c.held, key)
	default:
		c.held[key] = n - 1
	}
}

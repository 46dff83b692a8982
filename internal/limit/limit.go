// Package limit holds keys, such as tenants, to rates and counts. What it keeps
// is in memory, of this process, and no more than is in use.
package limit

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

const (
	shards = 16
	// minSweep is how many keys of a shard are kept track of before those at rest
	// are looked for.
	minSweep = 64
)

// Rates holds many keys, each to rates of its own. It forgets those at rest,
// which have all that a new one has. All methods are safe to call at once.
type Rates[K comparable] struct {
	seed   maphash.Seed
	shards [shards]shard[K]
}

// shard is the part of the keys that share a lock.
type shard[K comparable] struct {
	mu      sync.Mutex
	buckets map[K][]Bucket
	sweep   int // how many there are when those at rest are forgotten
}

// NewRates returns Rates in which every key is at rest.
func NewRates[K comparable]() *Rates[K] {
	r := &Rates[K]{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].buckets = make(map[K][]Bucket)
	}
	return r
}

// Take takes all of the costs from the key's rates, or nothing. A key's costs are
// of the same rates, in the same order, in every call; the rates may be changed
// between calls. Where something is missing, Take returns the index of the cost
// that is longest in coming, and how long that is; else a negative index. Now is in
// nanoseconds on a clock that only goes forward; of calls at once the times may be
// out of order.
func (r *Rates[K]) Take(key K, now int64, costs ...Cost) (missing int, wait time.Duration) {
	s := &r.shards[maphash.Comparable(r.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	buckets := s.buckets[key]
	if buckets == nil {
		s.forget(now)
		buckets = make([]Bucket, len(costs))
		s.buckets[key] = buckets
	}
	missing = -1
	for i, c := range costs {
		if w := buckets[i].missing(now, c); w > wait {
			missing, wait = i, w
		}
	}
	if missing < 0 {
		for i, c := range costs {
			buckets[i].take(now, c)
		}
	}
	return missing, wait
}

// Give gives back what a Take of the same costs has taken.
func (r *Rates[K]) Give(key K, costs ...Cost) {
	s := &r.shards[maphash.Comparable(r.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	buckets := s.buckets[key] // none where they are at rest by now
	for i := range buckets {
		buckets[i].give(costs[i])
	}
}

// forget drops the keys at rest. It looks through all of them only when they have
// doubled.
func (s *shard[K]) forget(now int64) {
	if len(s.buckets) < max(s.sweep, minSweep) {
		return
	}
	for key, buckets := range s.buckets {
		if !slices.ContainsFunc(buckets, func(b Bucket) bool { return b.full > now }) {
			delete(s.buckets, key)
		}
	}
	s.sweep = 2 * len(s.buckets)
}

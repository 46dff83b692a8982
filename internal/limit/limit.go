// Package limit holds keys, such as tenants, to rates and counts. What it keeps
// is in memory, of this process, and no more than is in use.
package limit

import (
	"hash/maphash"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a token bucket: it lets PerSecond through in each second for as long as
// it lasts, and Burst at once after a rest. With a negative PerSecond it lets all
// through.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Cost is N of what a rate lets through. More than Burst is never let through.
type Cost struct {
	Rate
	N int
}

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
	now     time.Time // the latest that was seen
	buckets map[K][]*rate.Limiter
	sweep   int // how many there are when those at rest are forgotten
}

// NewRates returns Rates in which every key is at rest.
func NewRates[K comparable]() *Rates[K] {
	r := &Rates[K]{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].buckets = make(map[K][]*rate.Limiter)
	}
	return r
}

// Take takes all of the costs from the key's rates, or nothing. A key's costs are
// of the same rates, in the same order, in every call; the rates may be changed
// between calls. Where something is missing, Take returns the index of the cost
// that is longest in coming, and how long that is; else a negative index.
func (r *Rates[K]) Take(key K, now time.Time, costs ...Cost) (missing int, wait time.Duration) {
	s := &r.shards[maphash.Comparable(r.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.now) {
		// A bucket filled up to a time must not be filled again from before that.
		now = s.now
	}
	s.now = now
	buckets := s.bucketsOf(key, costs)
	missing = -1
	for i, c := range costs {
		if w := c.missing(buckets[i], now); w > wait {
			missing, wait = i, w
		}
	}
	if missing < 0 {
		for i, c := range costs {
			buckets[i].AllowN(now, c.N)
		}
	}
	return missing, wait
}

// Give gives back what a Take of the same costs has taken.
func (r *Rates[K]) Give(key K, costs ...Cost) {
	s := &r.shards[maphash.Comparable(r.seed, key)%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.buckets[key] { // none where they are at rest by now
		b.AllowN(s.now, -costs[i].N)
	}
}

// bucketsOf returns the key's buckets, at the rates that the costs have now.
func (s *shard[K]) bucketsOf(key K, costs []Cost) []*rate.Limiter {
	buckets := s.buckets[key]
	if buckets == nil {
		s.forget()
		buckets = make([]*rate.Limiter, len(costs))
		for i, c := range costs {
			buckets[i] = rate.NewLimiter(c.limit(), c.Burst)
		}
		s.buckets[key] = buckets
		return buckets
	}
	for i, c := range costs {
		if b := buckets[i]; b.Limit() != c.limit() || b.Burst() != c.Burst {
			b.SetLimitAt(s.now, c.limit())
			b.SetBurstAt(s.now, c.Burst)
		}
	}
	return buckets
}

// forget drops the keys at rest. It looks through all of them only when they have
// doubled.
func (s *shard[K]) forget() {
	if len(s.buckets) < max(s.sweep, minSweep) {
		return
	}
	for key, buckets := range s.buckets {
		if atRest(buckets, s.now) {
			delete(s.buckets, key)
		}
	}
	s.sweep = 2 * len(s.buckets)
}

func atRest(buckets []*rate.Limiter, now time.Time) bool {
	for _, b := range buckets {
		if b.TokensAt(now) < float64(b.Burst()) {
			return false
		}
	}
	return true
}

func (r Rate) limit() rate.Limit {
	if r.PerSecond < 0 {
		return rate.Inf
	}
	return rate.Limit(r.PerSecond)
}

// missing returns how long it is until b has what c takes; 0 where it has.
func (c Cost) missing(b *rate.Limiter, now time.Time) time.Duration {
	short := float64(c.N) - b.TokensAt(now)
	switch {
	case short <= 0 || c.PerSecond < 0:
		return 0
	case c.N > c.Burst:
		return rate.InfDuration
	}
	wait := short / c.PerSecond * float64(time.Second)
	if wait < 1 {
		return 0 // which the bucket overlooks, too
	}
	return time.Duration(math.Ceil(wait))
}

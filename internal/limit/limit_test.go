package limit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	epoch  = int64(time.Hour)
	second = int64(time.Second)
)

func take(r *Rates[string], key string, now int64, costs ...Cost) bool {
	missing, _ := r.Take(key, now, costs...)
	return missing < 0
}

// TestRateLasts takes for a minute twice as fast as the rate: what goes through
// is the rate in every second, beside the burst in the first.
func TestRateLasts(t *testing.T) {
	const perSecond, burst, seconds = 50, 80, 60
	r := NewRates[string]()
	total := 0
	for i := range int64(seconds) {
		passed := 0
		for j := range int64(2 * perSecond) {
			if take(r, "a", epoch+i*second+j*second/(2*perSecond), Cost{Rate{perSecond, burst}, 1}) {
				passed++
			}
		}
		if i > 2 && (passed < perSecond-1 || passed > perSecond+1) {
			t.Errorf("second %d: %d passed, want %d", i, passed, perSecond)
		}
		total += passed
	}
	if most := perSecond*seconds + burst; total > most || total < most-perSecond {
		t.Errorf("%d passed in %d seconds, want up to %d", total, seconds, most)
	}
}

// bucket is a token bucket as the textbook has it, in exact numbers: a token is
// 1e9 parts, of which perSecond come in a nanosecond.
type bucket struct {
	parts, perSecond, burst, at int64
}

func (b *bucket) fill(now int64) {
	b.parts = min(b.parts+(now-b.at)*b.perSecond, b.burst*1e9)
	b.at = now
}

// TestBucketIsExact compares a Bucket with the textbook's, at rates that divide a
// second.
func TestBucketIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.SampledFrom([]int64{1, 4, 100, 1000}).Draw(t, "rate")
		burst := rapid.Int64Range(1, 20).Draw(t, "burst")
		model := bucket{parts: burst * 1e9, perSecond: perSecond, burst: burst}
		var b Bucket
		now := int64(0)
		for range 200 {
			now += rapid.Int64Range(0, 3e9/perSecond).Draw(t, "later")
			n := rapid.Int64Range(1, min(burst, 3)).Draw(t, "n")
			model.fill(now)
			wait := b.Take(epoch+now, Cost{Rate{float64(perSecond), int(burst)}, int(n)})
			short := n*1e9 - model.parts
			if want := short <= 0; (wait == 0) != want {
				t.Fatalf("at %d: wait %v, with %d parts", now, wait, model.parts)
			}
			if wait == 0 {
				model.parts -= n * 1e9
			} else if int64(wait)*perSecond < short || (int64(wait)-1)*perSecond >= short {
				t.Fatalf("at %d: wait %v, with %d parts", now, wait, model.parts)
			}
		}
	})
}

// TestBurstOneByOne takes a whole burst at once in single ones, at rates that do
// not divide a second either.
func TestBurstOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{float64(rapid.IntRange(1, 10_000).Draw(t, "rate")), rapid.IntRange(1, 20_000).Draw(t, "burst")}
		var b Bucket
		for i := range rate.Burst {
			if wait := b.Take(epoch, Cost{rate, 1}); wait > 0 {
				t.Fatalf("%d of the burst passed, then wait %v", i, wait)
			}
		}
		if b.Take(epoch, Cost{rate, 1}) == 0 {
			t.Fatal("more than the burst passed")
		}
	})
}

// TestRatesAllOrNone compares two rates of one key with two buckets of which both
// are asked before either gives.
func TestRatesAllOrNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRates[string]()
		models := []*bucket{{perSecond: 10, burst: 20}, {perSecond: 1000, burst: 3000}}
		for _, m := range models {
			m.parts = m.burst * 1e9
		}
		now := int64(0)
		for range 100 {
			// Whole milliseconds, in which both rates come without a rest.
			now += rapid.Int64Range(0, 500).Draw(t, "later") * 1e6
			n := []int{rapid.IntRange(1, 20).Draw(t, "events"), rapid.IntRange(1, 3000).Draw(t, "bytes")}
			want, longest := -1, int64(0)
			for i, m := range models {
				m.fill(now)
				if wait := (int64(n[i])*1e9 - m.parts) / m.perSecond; wait > longest {
					want, longest = i, wait
				}
			}
			got, wait := r.Take("a", epoch+now, Cost{Rate{10, 20}, n[0]}, Cost{Rate{1000, 3000}, n[1]})
			if got != want || wait != time.Duration(longest) {
				t.Fatalf("at %d, %v: missing %d, %v; want %d, %v", now, n, got, wait, want, time.Duration(longest))
			}
			if want < 0 {
				for i, m := range models {
					m.parts -= int64(n[i]) * 1e9
				}
			}
		}
	})
}

// TestWaitIsEnough: who waits as long as told gets it, and who comes a
// millisecond earlier does not.
func TestWaitIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cost := Cost{Rate{float64(rapid.IntRange(1, 5000).Draw(t, "rate")), rapid.IntRange(1, 10000).Draw(t, "burst")}, 0}
		cost.N = rapid.IntRange(1, cost.Burst).Draw(t, "n")
		r, now := NewRates[string](), epoch
		for range 20 {
			missing, wait := r.Take("a", now, cost)
			if missing < 0 {
				continue
			}
			if early := wait - time.Millisecond; early > 0 && take(r, "a", now+int64(early), cost) {
				t.Fatalf("there before the %v were over", wait)
			}
			now += int64(wait)
			if !take(r, "a", now, cost) {
				t.Fatalf("not there after %v", wait)
			}
		}
	})
}

func TestRatesOfKeysAreApart(t *testing.T) {
	r := NewRates[string]()
	cost := Cost{Rate{1, 5}, 5}
	for _, key := range []string{"a", "b"} {
		if !take(r, key, epoch, cost) {
			t.Errorf("%s has not its own", key)
		}
		if take(r, key, epoch, cost) {
			t.Errorf("%s has it twice", key)
		}
	}
}

func TestRateExtremes(t *testing.T) {
	r := NewRates[string]()
	if missing, wait := r.Take("a", epoch, Cost{Rate{10, 5}, 6}); missing != 0 || wait != Never {
		t.Errorf("more than the burst: %d, %v", missing, wait)
	}
	if !take(r, "a", epoch, Cost{Rate{10, 5}, 5}) {
		t.Error("the refused one took something")
	}
	for range 100 {
		if !take(r, "b", epoch, Cost{Rate{-1, 0}, 1000}, Cost{Rate{1, 100}, 1}) {
			t.Fatal("what has no limit was limited")
		}
	}
	if missing, _ := r.Take("b", epoch, Cost{Rate{-1, 0}, 1000}, Cost{Rate{1, 100}, 1}); missing != 1 {
		t.Errorf("missing %d, want the one with a limit", missing)
	}
}

// TestGive gives back what was taken, and no more than there was.
func TestGive(t *testing.T) {
	r := NewRates[string]()
	costs := []Cost{{Rate{1, 5}, 4}, {Rate{-1, 0}, 3}}
	all := Cost{Rate{1, 5}, 5}
	if !take(r, "a", epoch, costs...) || take(r, "a", epoch, all, costs[1]) {
		t.Fatal("nothing was taken")
	}
	r.Give("a", costs...)
	if !take(r, "a", epoch, all, costs[1]) {
		t.Error("it was not given back")
	}
	if take(r, "a", epoch, costs...) {
		t.Error("it was given back twice")
	}
	part := Cost{Rate{1, 5}, 2}
	r.Give("a", part, Cost{Rate{-1, 0}, 0})
	if take(r, "a", epoch, Cost{Rate{1, 5}, 3}, costs[1]) || !take(r, "a", epoch, part, costs[1]) {
		t.Error("what was given back is not what there is")
	}
	r.Give("b", costs...) // of whom nothing is known
	take(r, "c", epoch, Cost{Rate{1, 5}, 1})
	r.Give("c", Cost{Rate{1, 5}, 5})
	if take(r, "c", epoch, Cost{Rate{1, 5}, 1}); take(r, "c", epoch, Cost{Rate{1, 5}, 5}) {
		t.Error("there is more than at rest")
	}
}

// TestRateChanges changes a rate while it is in use.
func TestRateChanges(t *testing.T) {
	r := NewRates[string]()
	take(r, "a", epoch, Cost{Rate{10, 10}, 10})
	if take(r, "a", epoch, Cost{Rate{100, 100}, 1}) {
		t.Error("a raised rate is there at once")
	}
	if !take(r, "a", epoch+second, Cost{Rate{100, 100}, 100}) {
		t.Error("a raised rate is not there after a second")
	}
	take(r, "b", epoch, Cost{Rate{100, 100}, 50})
	if missing, wait := r.Take("b", epoch, Cost{Rate{10, 10}, 10}); missing != 0 || wait != time.Second/2 {
		t.Errorf("the half that was missing takes %v, want as long as before", wait)
	}
	if later := epoch + 60*second; !take(r, "a", later, Cost{Rate{10, 10}, 10}) || take(r, "a", later, Cost{Rate{10, 10}, 1}) {
		t.Error("a lowered rate is not what it is")
	}
}

// TestClockOfOthers: calls that come with times out of order share one rate.
func TestClockOfOthers(t *testing.T) {
	r := NewRates[string]()
	cost := Cost{Rate{1000, 10}, 1}
	passed := 0
	for range 1000 {
		for _, at := range []int64{epoch + second/100, epoch} {
			if take(r, "a", at, cost) {
				passed++
			}
		}
	}
	if passed > 20 {
		t.Errorf("%d passed within 10 ms", passed)
	}
}

func TestRatesForgetThoseAtRest(t *testing.T) {
	r := NewRates[string]()
	now := epoch
	for i := range 20_000 {
		take(r, fmt.Sprint(i%10_000), now, Cost{Rate{10, 10}, 1}, Cost{Rate{-1, 0}, 1})
		now += second / 1000
	}
	if n := r.len(); n > 3*shards*minSweep {
		t.Errorf("%d keys are kept track of, of which 100 are not at rest", n)
	}
	for i := range 10_000 {
		take(r, fmt.Sprint("busy", i), now, Cost{Rate{0.001, 10}, 10}, Cost{Rate{-1, 0}, 1})
	}
	for i := range 10_000 {
		if take(r, fmt.Sprint("busy", i), now, Cost{Rate{0.001, 10}, 1}, Cost{Rate{-1, 0}, 1}) {
			t.Fatalf("busy%d was forgotten", i)
		}
	}
}

// len returns how many keys are kept track of.
func (r *Rates[K]) len() (n int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		n += len(s.buckets)
		s.mu.Unlock()
	}
	return n
}

// TestRatesAtOnce takes from many goroutines: together they get no more than one.
func TestRatesAtOnce(t *testing.T) {
	r := NewRates[int]()
	var passed [4]atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 2000 {
				key := i % len(passed)
				if missing, _ := r.Take(key, epoch, Cost{Rate{1, 300}, 1}); missing < 0 {
					passed[key].Add(1)
				}
			}
		})
	}
	all.Wait()
	for key := range passed {
		if n := passed[key].Load(); n != 300 {
			t.Errorf("key %d: %d passed of 300", key, n)
		}
	}
}

// TestCounts compares Counts with a map.
func TestCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Counts[string]
		held := make(map[string]int)
		for range 100 {
			key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
			if held[key] > 0 && rapid.Bool().Draw(t, "release") {
				c.Release(key)
				held[key]--
				continue
			}
			limit := rapid.IntRange(0, 4).Draw(t, "limit")
			got := c.Acquire(key, limit)
			if got != (held[key] < limit) {
				t.Fatalf("%s with %d of %d: %v", key, held[key], limit, got)
			}
			if got {
				held[key]++
			}
		}
		inUse := 0
		for _, n := range held {
			if n > 0 {
				inUse++
			}
		}
		if len(c.held) != inUse {
			t.Fatalf("%d keys are kept track of, %d hold something", len(c.held), inUse)
		}
	})
}

func TestCountsReleaseOfNothing(t *testing.T) {
	var c Counts[string]
	c.Acquire("a", 1)
	defer func() {
		if recover() == nil {
			t.Error("did not panic")
		}
	}()
	c.Release("b")
}

func TestCountsAtOnce(t *testing.T) {
	var c Counts[string]
	var now, most atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				if !c.Acquire("a", 3) {
					continue
				}
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				now.Add(-1)
				c.Release("a")
			}
		})
	}
	all.Wait()
	if n := most.Load(); n > 3 || n < 1 {
		t.Errorf("%d were held at once, of 3", n)
	}
}

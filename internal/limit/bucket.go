package limit

import (
	"math"
	"time"
)

// Rate is what a token bucket lets through: PerSecond, which is not 0, in each
// second for as long as it lasts, and Burst at once after a rest. With a negative
// PerSecond it lets all through.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Cost is N of what a rate lets through. More than Burst is never let through.
type Cost struct {
	Rate
	N int
}

// Never is how long it is until there is more than a burst.
const Never time.Duration = math.MaxInt64

// Bucket is the token bucket of a rate, by the generic cell rate algorithm: all
// that it keeps is when it is full. Where the rate is changed, what is missing
// takes as long to come back as it did before. The zero value is full. It is not
// safe to call at once.
type Bucket struct {
	full int64 // on the caller's clock
}

// Take takes the cost at now, in nanoseconds on a clock that only goes forward.
// Where the cost is not there, Take takes nothing, and returns how long it is until
// it is; else 0.
func (b *Bucket) Take(now int64, c Cost) (wait time.Duration) {
	if wait = b.missing(now, c); wait == 0 {
		b.take(now, c)
	}
	return wait
}

// missing returns how long it is until c is there; 0 where it is.
func (b *Bucket) missing(now int64, c Cost) time.Duration {
	switch {
	case c.PerSecond < 0:
		return 0
	case c.N > c.Burst:
		return Never
	}
	return time.Duration(max(0, max(b.full, now)-now+c.takes(c.N)-c.takes(c.Burst)))
}

func (b *Bucket) take(now int64, c Cost) {
	if c.PerSecond >= 0 {
		b.full = max(b.full, now) + c.takes(c.N)
	}
}

func (b *Bucket) give(c Cost) {
	if c.PerSecond >= 0 {
		b.full -= c.takes(c.N)
	}
}

// takes returns how long n take to come back. It is rounded down, so that all of a
// burst is there one by one. What is taken so is up to a nanosecond each too cheap: at
// a million a second, that is a thousandth.
func (r Rate) takes(n int) int64 {
	return int64(float64(n) * float64(time.Second) / r.PerSecond)
}

package client

import (
	"math/rand/v2"
	"time"
)

// Backoff says how long a follower waits before it comes back: for the nth time
// in a row a random time of up to Base times 2 to the n, but at most Max, on top
// of what the server asked for. The row ends with a connection that held for Max.
type Backoff struct {
	Base time.Duration // default 1 s
	Max  time.Duration // default 30 s
}

// maxFloor bounds what a server can ask for.
const maxFloor = 15 * time.Minute

func (b Backoff) withDefaults() Backoff {
	if b.Base <= 0 {
		b.Base = time.Second
	}
	if b.Max <= 0 {
		b.Max = 30 * time.Second
	}
	return b
}

// wait returns how long to wait after the given number of failures in a row
// before this one, and at least floor. The whole range is random (full jitter),
// so that clients who were cut at once do not come back at once.
func (b Backoff) wait(failures int, floor time.Duration) time.Duration {
	limit := b.Base
	for range failures {
		if limit >= b.Max {
			break
		}
		limit *= 2
	}
	return min(floor, maxFloor) + rand.N(min(limit, b.Max)+1)
}

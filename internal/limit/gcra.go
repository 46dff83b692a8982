package limit

import "time"

// GCRA is a token bucket in one word, for where there are many and each has one
// owner: the generic cell rate algorithm. The zero value is at rest.
type GCRA struct {
	rested int64 // when all of the burst is there again, on the caller's clock
}

// Take takes one at now, in nanoseconds on a clock that only goes forward, of
// perSecond in each second and burst at once. Where it is not there, Take returns
// how long it is until it is. It is not safe to call at once.
func (g *GCRA) Take(perSecond, burst int, now int64) (wait time.Duration, ok bool) {
	apart := int64(time.Second) / int64(perSecond)
	rested := max(g.rested, now) + apart
	if early := rested - now - int64(burst)*apart; early > 0 {
		return time.Duration(early), false
	}
	g.rested = rested
	return 0, true
}

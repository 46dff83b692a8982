package server

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// busiest returns how many of the moments lie within a second of each other.
func busiest(moments []time.Time) (most int) {
	slices.SortFunc(moments, time.Time.Compare)
	for i, from := range moments {
		n := 0
		for _, at := range moments[i:] {
			if at.Sub(from) < time.Second {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// TestReturnsAreSpread sends clients away, at once and one by one: they come back
// evenly, not above the rate, and not before they were told.
func TestReturnsAreSpread(t *testing.T) {
	for name, c := range map[string]struct {
		clients, rate int
		window        time.Duration
		most          int           // within a second
		last          time.Duration // of all returns
	}{
		"the window is long enough": {200, 1000, 10 * time.Second, 21, 11 * time.Second},
		"the rate is the bound":     {200, 10, time.Second, 11, 21 * time.Second},
		"one client":                {1, 1000, 10 * time.Second, 1, 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t, func(o *Options) { o.ReturnRate, o.DrainWindow = c.rate, c.window })
				start := time.Now()
				var moments []time.Time
				for range c.clients {
					moments = append(moments, time.Now().Add(r.server.nextReturn(c.window/time.Duration(c.clients))))
				}
				if most := busiest(moments); most > c.most {
					t.Errorf("%d of %d clients return within a second, want at most %d", most, c.clients, c.most)
				}
				if soonest := moments[0].Sub(start); soonest < soonestReturn {
					t.Errorf("the first returns after %v", soonest)
				}
				if last := moments[len(moments)-1].Sub(start); last > c.last || last < c.last*3/4 && c.clients > 1 {
					t.Errorf("the last returns after %v, want about %v", last, c.last)
				}
				// Who comes meanwhile has its turn behind the others; who comes when
				// all have returned does not wait for them.
				late := time.Now().Add(r.server.returnAfter())
				if late.Before(moments[len(moments)-1].Add(-time.Second)) && c.clients > 1 {
					t.Errorf("who came later is sent back after %v", late.Sub(start))
				}
				time.Sleep(time.Minute)
				if wait := r.server.returnAfter(); wait < soonestReturn || wait > soonestReturn+time.Second {
					t.Errorf("with nobody else away the return is in %v", wait)
				}
			})
		})
	}
}

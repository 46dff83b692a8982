package server

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTP2Gathers: on a stream at rest an event goes out at once; one that comes
// right behind it waits for the end of the gather interval.
func TestHTTP2Gathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c := r.pipe2(canvasPath, r.token)
		c.open()
		c.toLive()
		for i := range 3 {
			time.Sleep(time.Second)
			start := time.Now()
			r.commits(2*i, 2*i+1)
			c.event()
			if took := time.Since(start); took != 0 {
				t.Errorf("an event on a stream at rest took %v", took)
			}
			r.commits(2*i+1, 2*i+2)
			c.event()
			if took := time.Since(start); took != r.server.opts.Gather {
				t.Errorf("the next one came after %v, want the gather interval", took)
			}
		}
	})
}

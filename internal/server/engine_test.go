package server

import "testing"

// TestReadyListIsBounded keeps a link ready at all times, as load does: what was
// driven is let go of.
func TestReadyListIsBounded(t *testing.T) {
	e := &engine{} // no workers
	s := &share{}
	e.run(&link{share: s})
	for range 100_000 {
		e.run(&link{share: s})
		if e.pop() == nil {
			t.Fatal("a link that was ready is lost")
		}
	}
	if n := cap(s.ready.items); n > 64 {
		t.Errorf("room for %d links, of which one is ready", n)
	}
}

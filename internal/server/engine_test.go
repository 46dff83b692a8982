package server

import "testing"

// TestReadyListIsBounded keeps a link ready at all times, as load does: what was
// driven is let go of.
func TestReadyListIsBounded(t *testing.T) {
	e := &engine{} // no workers
	e.run(&link{})
	for range 100_000 {
		e.run(&link{})
		if e.pop() == nil {
			t.Fatal("a link that was ready is lost")
		}
	}
	if n := cap(e.ready); n > 64 {
		t.Errorf("room for %d links, of which one is ready", n)
	}
}

package presence

import "github.com/twinrail/twinrail/internal/auth"

// UpToDate reports whether w was told of all that there is.
func (w *Watch) UpToDate() bool {
	w.room.mu.Lock()
	defer w.room.mu.Unlock()
	return w.rest.empty() && w.version == w.room.version
}

// Rooms returns how many streams are held.
func (g *Registry) Rooms() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.rooms)
}

// Gone returns how many of those who have left are held where r reads.
func (g *Registry) Gone(r auth.Reader) int {
	rm := g.acquire(r.Key())
	defer g.release(rm)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return rm.gone.n
}

// Places returns how many audiences are held where r reads.
func (g *Registry) Places(r auth.Reader) int {
	rm := g.acquire(r.Key())
	defer g.release(rm)
	rm.mu.Lock()
	defer rm.mu.Unlock()
	return len(rm.places)
}

// ExpireLate has the timer of the session's first loss run out only now.
func (s *Session) ExpireLate() { s.expire(1) }

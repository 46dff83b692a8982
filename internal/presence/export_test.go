package presence

import (
	"fmt"

	"github.com/twinrail/twinrail/internal/auth"
)

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

// ExpireLate has the timer of the session's first loss run out only now.
func (s *Session) ExpireLate() { s.expire(1) }

// Check finds what does not fit together in the registry, while nobody uses it.
func (g *Registry) Check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, rm := range g.rooms {
		if err := rm.check(); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func (rm *room) check() error {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	parked, gone := 0, 0
	for i, w := range rm.watchers {
		if w.at != i {
			return fmt.Errorf("watcher %d says that it is %d", i, w.at)
		}
		if w.parked {
			parked++
		}
	}
	members, at := 0, make(map[*place]int)
	for m := rm.present.first; m != nil; m = m.next {
		members++
		at[m.place]++
	}
	for m := rm.gone.first; m != nil; m = m.next {
		gone++
	}
	for _, p := range rm.places {
		if at[p] != p.members {
			return fmt.Errorf("%d are at %+v, which counts %d", at[p], p.audience, p.members)
		}
	}
	switch {
	case parked != rm.parked:
		return fmt.Errorf("%d are parked, and %d counted", parked, rm.parked)
	case members != rm.present.n || gone != rm.gone.n:
		return fmt.Errorf("%d present and %d gone, and %d and %d counted", members, gone, rm.present.n, rm.gone.n)
	case len(at) != len(rm.places):
		return fmt.Errorf("there are members at %d places, and %d places", len(at), len(rm.places))
	case rm.refs != members+len(rm.watchers):
		return fmt.Errorf("held %d times by %d members and %d watchers", rm.refs, members, len(rm.watchers))
	}
	return nil
}

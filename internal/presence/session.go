package presence

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// Session is what one session of the WS rail is present with. Its methods may be
// called concurrently; after Close they do nothing.
type Session struct {
	registry *Registry
	id       string

	mu    sync.Mutex
	holds []hold // in the order in which they were taken
	// Between Lose and Regain timer is not nil, or away is true: the grace is over,
	// and nobody is present.
	timer  *time.Timer
	losses int
	away   bool
	closed bool
}

// hold is a client's reason to be at a spot.
type hold struct {
	name string
	spot *spot
}

// spot is where the session is present, or would be if it were not away. It is
// guarded by Session.mu.
type spot struct {
	place *place
	view  twinrail.PresenceMember // without what the room adds
	holds int

	room   *room // nil while not present
	member *member
}

// Session returns a session that is present nowhere yet. No two that are in use
// may have the same id.
func (g *Registry) Session(id string) *Session { return &Session{registry: g, id: id} }

// Enter makes the session's actor a member at w's address, w being a right on
// the channel presence; where it is one already, it changes its state. Each
// Enter with a hold that is new for the session is to be followed by a Leave
// with the same one, a Regain without it, or a Close. The state is any JSON
// value, or empty for none; it is copied.
//
// Once a lost session's grace is over, nobody sees what it enters until it is
// regained.
//
// It has code limit_exceeded and field presence where the address has its fill,
// and too_large and field state where the state is over [MaxState]. Any other
// error is one of the caller's: w is not on the channel presence, or the hold is
// in use at another address. After an error nothing has changed.
func (s *Session) Enter(w auth.Writer, hold string, state []byte) error {
	if w.Channel() != twinrail.Presence {
		return errors.New("presence: entering takes the right to be present")
	}
	if len(state) > MaxState {
		return twinrail.Errorf(twinrail.CodeTooLarge, "state", "at most %d bytes", MaxState)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if i := s.find(hold); i >= 0 {
		if !s.holds[i].spot.isAt(w) {
			return errors.New("presence: the hold is in use at another address")
		}
		s.holds[i].spot.say(state)
		return nil
	}
	sp := s.spotOf(w)
	if sp == nil {
		actor, actorType := w.Actor()
		sp = &spot{place: newPlace(w), view: twinrail.PresenceMember{ActorID: actor, ActorType: actorType, SessionID: s.id}}
	}
	sp.say(state)
	if err := s.show(sp, s.registry.opts.MaxMembers); err != nil {
		return err
	}
	s.take(hold, sp)
	return nil
}

// Holds reports whether the session has the hold, present or not at this moment.
func (s *Session) Holds(hold string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(hold) >= 0
}

func (s *Session) find(name string) int {
	return slices.IndexFunc(s.holds, func(h hold) bool { return h.name == name })
}

func (s *Session) spotOf(w auth.Writer) *spot {
	for _, h := range s.holds {
		if h.spot.isAt(w) {
			return h.spot
		}
	}
	return nil
}

func (s *Session) take(name string, sp *spot) {
	s.holds = append(s.holds, hold{name, sp})
	sp.holds++
}

// show makes sp present, unless it is so or the session is away.
func (s *Session) show(sp *spot, limit int) error {
	if s.away || sp.member != nil {
		return nil
	}
	rm := s.registry.acquire(sp.place.owner)
	m, err := rm.come(sp.place, sp.view, limit)
	if err != nil {
		s.registry.release(rm)
		return err
	}
	// The members at one place share it.
	sp.room, sp.member, sp.place = rm, m, m.place
	return nil
}

// hide makes sp not present, if it is.
func (s *Session) hide(sp *spot) {
	if sp.member == nil {
		return
	}
	sp.room.leave(sp.member)
	s.registry.release(sp.room)
	sp.room, sp.member = nil, nil
}

func (sp *spot) isAt(w auth.Writer) bool {
	actor, _ := w.Actor()
	return sp.place.owner == w.Key() && sp.place.audience == w.Address().Audience && sp.view.ActorID == actor
}

// say changes what sp says of itself, if it is something else.
func (sp *spot) say(state []byte) {
	if bytes.Equal(sp.view.State, state) {
		return
	}
	sp.view.State = append(json.RawMessage(nil), state...)
	if sp.member != nil {
		sp.room.update(sp.member, sp.view.State)
	}
}

// Leave gives up a hold; with the last one at an address the member leaves, at
// once.
func (s *Session) Leave(hold string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(func(name string) bool { return name == hold })
}

// drop gives up the holds that which says.
func (s *Session) drop(which func(name string) bool) {
	s.holds = slices.DeleteFunc(s.holds, func(h hold) bool {
		if !which(h.name) {
			return false
		}
		if h.spot.holds--; h.spot.holds == 0 {
			s.hide(h.spot)
		}
		return true
	})
}

// Lose says that the connection was lost: unless the session is regained within
// the grace, its members leave then. Until Regain, Enter and Leave change what
// will be regained. Where the session is lost already, nothing changes.
func (s *Session) Lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away || s.timer != nil {
		return
	}
	if len(s.holds) == 0 {
		// There is nothing to wait for.
		s.away = true
		return
	}
	s.losses++
	loss := s.losses
	s.timer = time.AfterFunc(s.registry.opts.Grace, func() { s.expire(loss) })
}

// expire ends the grace of a loss, unless that is over: the timer may have run
// out before it was stopped.
func (s *Session) expire(loss int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil || s.losses != loss {
		return
	}
	s.timer, s.away = nil, true
	for _, h := range s.holds {
		s.hide(h.spot)
	}
}

// Regain says that the session goes on over another connection, and keeps only
// the given holds; those that it does not know it ignores. Members that have left
// meanwhile come again, with the state that they had, even where the address has
// its fill by now; of the others nobody notices anything.
func (s *Session) Regain(holds []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	s.away = false
	s.drop(func(name string) bool { return !slices.Contains(holds, name) })
	for _, h := range s.holds {
		// Without a limit there is no error.
		_ = s.show(h.spot, 0)
	}
}

func (s *Session) stop() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// Close has all members of the session leave at once.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.stop()
	s.drop(func(string) bool { return true })
	s.holds = nil
}

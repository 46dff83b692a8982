package presence

import (
	"strings"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// room is a stream that somebody is present in, or watches.
//
// Each change of a member takes the next version, and moves the member to the
// end of its list, so that what changed since a version is the end of the lists,
// however many members there are.
type room struct {
	opts *Options
	key  string

	refs int // guarded by Registry.mu

	mu       sync.Mutex
	version  uint64 // of the last change
	places   map[twinrail.Audience]*place
	present  list // by their last change
	gone     list // by when they left; empty where nobody watches
	watchers []*Watch
	parked   int // how many of the watchers

	// Of those gone, a watcher that has seen no more than forgotten may have
	// missed one. pruneAt is how many there must be before dropping is worth
	// another look at all watchers.
	forgotten uint64
	pruneAt   int

	// Waking: due says that the timer is set, or has just run out; woken is when
	// somebody was last woken.
	due   bool
	timer *time.Timer
	woken time.Time
}

// place is an audience in a stream.
type place struct {
	owner    string // key of the stream
	audience twinrail.Audience
	routing  *twinrail.Routing // the audience keys; nil where there are none

	name string // the values of the audience, for positions

	// Guarded by room.mu.
	members int   // how many are present
	last    int64 // the position of the last who came
}

func newPlace(w auth.Writer) *place {
	p := &place{owner: w.Key(), audience: w.Address().Audience}
	if p.audience != (twinrail.Audience{}) {
		routing := p.audience.AddTo(twinrail.Routing{})
		p.routing = &routing
		values := p.audience.Values()
		p.name = strings.TrimRight(strings.Join(values[:], "."), ".")
	}
	return p
}

// member is one stay of a session at a place: who left and comes again is
// another member. It is guarded by room.mu.
type member struct {
	place        *place
	at           Position
	join, change uint64 // versions: when it came, and of the last change
	// view is what watchers are shown, and of one who left, what they are told
	// then. It is replaced, never changed.
	view       *twinrail.PresenceMember
	prev, next *member
}

// list is a list of members, of which each is in one.
type list struct {
	first, last *member
	n           int
}

func (l *list) push(m *member) {
	m.prev, m.next = l.last, nil
	if l.last == nil {
		l.first = m
	} else {
		l.last.next = m
	}
	l.last = m
	l.n++
}

func (l *list) remove(m *member) {
	if m.prev == nil {
		l.first = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		l.last = m.prev
	} else {
		m.next.prev = m.prev
	}
	m.prev, m.next = nil, nil
	l.n--
}

// come makes a member of one who says view of itself. With a limit it has code
// limit_exceeded where the place has as many members.
func (rm *room) come(at *place, view twinrail.PresenceMember, limit int) (*member, error) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	p := rm.places[at.audience]
	if p == nil {
		p = &place{owner: at.owner, audience: at.audience, routing: at.routing, name: at.name}
	}
	if limit > 0 && p.members >= limit {
		return nil, twinrail.Errorf(twinrail.CodeLimitExceeded, "presence", "%d are present at this address, which is as many as there may be", p.members)
	}
	rm.places[p.audience] = p
	p.members++
	// As precise as it is on the wire, so that it is the same to all who compare.
	now := time.Now().UTC().Truncate(time.Microsecond)
	p.last = max(now.UnixMicro(), p.last+1)
	view.Since = &twinrail.Timestamp{Time: now}
	view.Routing = p.routing
	m := &member{place: p, at: Position{p.last, p.name}, view: &view}
	rm.changed(m, &rm.present)
	m.join = m.change
	return m, nil
}

func (rm *room) update(m *member, state []byte) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	view := *m.view
	view.State = state
	m.view = &view
	rm.present.remove(m)
	rm.changed(m, &rm.present)
}

func (rm *room) leave(m *member) {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.present.remove(m)
	if m.place.members--; m.place.members == 0 {
		delete(rm.places, m.place.audience)
	}
	m.view = &twinrail.PresenceMember{ActorID: m.view.ActorID, SessionID: m.view.SessionID, Routing: m.view.Routing}
	rm.changed(m, &rm.gone)
	rm.prune()
}

// changed gives m the next version, puts it at the end of to, and sees to it that
// those who are parked learn of it.
func (rm *room) changed(m *member, to *list) {
	rm.version++
	m.change = rm.version
	to.push(m)
	if rm.parked > 0 {
		rm.announce()
	}
}

const (
	// tombstones is how many of those gone are kept whoever needs them.
	tombstones = 64
	// maxTombstones is how many of those gone are kept at most, for each member
	// that an address may have.
	maxTombstones = 16
)

// prune forgets those gone of whom every watcher knows, once there are enough
// that a look at every watcher is nothing beside it. Where a watcher stays behind
// for too long, it is left behind.
func (rm *room) prune() {
	if len(rm.watchers) == 0 {
		rm.gone = list{}
		return
	}
	most := maxTombstones * rm.opts.MaxMembers
	if rm.gone.n > min(max(2*(rm.present.n+tombstones), rm.pruneAt), most) {
		oldest := rm.version
		for _, w := range rm.watchers {
			if w.version >= rm.forgotten {
				oldest = min(oldest, w.version)
			}
		}
		for rm.gone.n > 0 && rm.gone.first.change <= oldest {
			rm.gone.remove(rm.gone.first)
		}
		rm.pruneAt = 2 * rm.gone.n
	}
	for rm.gone.n > most {
		rm.forgotten = rm.gone.first.change
		rm.gone.remove(rm.gone.first)
	}
}

// announce has the parked watchers woken, an interval after the last time: at
// once, where that is over. Even then it is for the timer's goroutine, since it
// calls out of the package.
func (rm *room) announce() {
	if rm.due {
		return
	}
	rm.due = true
	wait := time.Until(rm.woken.Add(rm.opts.Interval))
	if rm.timer == nil {
		rm.timer = time.AfterFunc(wait, rm.wake)
		return
	}
	rm.timer.Reset(wait)
}

func (rm *room) wake() {
	for _, w := range rm.unpark() {
		w.wake()
	}
}

func (rm *room) unpark() []*Watch {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	rm.due = false
	woken := make([]*Watch, 0, rm.parked)
	for _, w := range rm.watchers {
		if w.parked && w.version != rm.version {
			w.parked, w.told = false, time.Time{}
			woken = append(woken, w)
		}
	}
	rm.parked -= len(woken)
	if len(woken) > 0 {
		rm.woken = time.Now()
	}
	return woken
}

// seenBy returns those present after a position whom r may see.
func (rm *room) seenBy(r auth.Reader, after Position) []sighting {
	seen := make([]sighting, 0, rm.present.n)
	for m := rm.present.first; m != nil; m = m.next {
		if m.at.compare(after) <= 0 {
			continue
		}
		if m.seenBy(r) {
			seen = append(seen, sighting{m.at, m.view})
		}
	}
	return seen
}

func (m *member) seenBy(r auth.Reader) bool {
	return r.Admits(m.place.owner, twinrail.Presence, m.place.audience, nil)
}

package hub

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// GestureInterval is how often those who read a stream's gestures are woken for
// them at most: the first after a pause wakes at once.
const GestureInterval = 33 * time.Millisecond

// How many gestures of a stream are held, for how long, and how large they may be
// together. Over a bound the oldest go.
const (
	maxGestures     = 1024
	maxGestureBytes = 1 << 20
	gestureLife     = 5 * time.Second
)

// Gesture tells those who read gestures where w may write, and hold its audience,
// of e, on which it stamps what w says. Of an actor's gestures of one type, for
// one audience and to, only the newest is held: who has not been told of the one
// before it never is.
//
// It does not wait for anybody, and does nothing where nobody reads gestures. It
// fails only where w is no right to publish gestures.
func (h *Hub) Gesture(w auth.Writer, e twinrail.Event) error {
	if w.Channel() != twinrail.Gesture {
		return errors.New("hub: a gesture takes an authorized writer on its channel")
	}
	h.mu.Lock()
	st := h.streams[w.Key()]
	h.mu.Unlock()
	if st == nil {
		return nil
	}
	if b := st.board.Load(); b != nil {
		b.post(w, e)
	}
	return nil
}

// GesturesEvicted returns how many gestures were dropped before their time, so
// that a slow subscriber may not have been told of them, since a stream had too
// many at once.
func (h *Hub) GesturesEvicted() uint64 { return h.evicted.Load() }

// SetGestures has s told of gestures, from those on that come after the call, or
// no more. A new Sub is not told of any. It may be called from any goroutine; a
// Next that is under way may still return gestures after they were turned off.
// Where s is closed, or its reader does not hold the channel, it does nothing.
func (s *Sub) SetGestures(on bool) {
	if !s.reader.Channels().Has(twinrail.Gesture) {
		return
	}
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	if !s.closed.Load() {
		s.stream.setGestures(s, on)
	}
}

// setGestures is called under mu.
func (st *stream) setGestures(s *Sub, on bool) {
	v := s.viewer.Load()
	if on == (v != nil) {
		return
	}
	b := st.board.Load()
	if on {
		if b == nil {
			b = &board{stream: st, latest: make(map[gestureKey]*gesture)}
			st.board.Store(b)
		}
		s.viewer.Store(b.admit(s))
		return
	}
	s.viewer.Store(nil)
	if b.dismiss(v); len(b.viewers) == 0 {
		st.board.Store(nil)
		b.clear()
	}
}

// board holds the newest gestures of a stream that somebody reads gestures of.
//
// Each gesture takes the next version, and stands at the end of the list, so that
// what came since a version is the end of the list. It has a lock of its own, so
// that the stream's, through which all commits go, is held for no gesture.
type board struct {
	stream  *stream
	viewers []*viewer // guarded by stream.mu

	// Changed under mu only.
	version atomic.Uint64 // of the last gesture
	round   atomic.Uint64 // how often the viewers were woken

	mu          sync.Mutex
	latest      map[gestureKey]*gesture
	first, last *gesture // by their version
	bytes       int

	// Waking: due says that a round is to come, began is when the last one did.
	due   bool
	began time.Time
	timer *time.Timer
}

// gestureKey is what only the newest gesture is held of.
type gestureKey struct {
	actor, kind string
	audience    twinrail.Audience
	to          string
}

// gesture is the newest of its key. It is guarded by board.mu.
type gesture struct {
	key        gestureKey
	item       *Item
	version    uint64
	at         time.Time
	prev, next *gesture
}

func (g *gesture) expired(now time.Time) bool { return now.Sub(g.at) >= gestureLife }

func (b *board) post(w auth.Writer, e twinrail.Event) {
	w.Stamp(&e)
	key := gestureKey{e.Routing.ActorID, e.Type, w.Address().Audience, strings.Join(e.To, ",")}
	b.put(key, &Item{
		Channel: e.Channel, Wire: b.stream.hub.opts.EncodeGesture(&e),
		owner: w.Key(), audience: key.audience, to: e.To,
	})
}

func (b *board) put(key gestureKey, it *Item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	g := b.latest[key]
	if g == nil {
		g = &gesture{key: key}
	} else {
		b.remove(g)
	}
	g.item, g.at, g.version = it, now, b.version.Load()+1
	b.push(g)
	for len(b.latest) > maxGestures || b.bytes > maxGestureBytes {
		b.remove(b.first)
		b.stream.hub.evicted.Add(1)
	}
	if !b.due {
		b.due = true
		b.arm(now)
	}
}

// push takes g in, and makes its version the last.
func (b *board) push(g *gesture) {
	g.prev, g.next = b.last, nil
	if b.last == nil {
		b.first = g
	} else {
		b.last.next = g
	}
	b.last = g
	b.latest[g.key] = g
	b.bytes += g.item.size()
	b.version.Store(g.version)
}

func (b *board) remove(g *gesture) {
	if g.prev == nil {
		b.first = g.next
	} else {
		g.prev.next = g.next
	}
	if g.next == nil {
		b.last = g.prev
	} else {
		g.next.prev = g.prev
	}
	delete(b.latest, g.key)
	b.bytes -= g.item.size()
}

func (b *board) expire(now time.Time) {
	for b.first != nil && b.first.expired(now) {
		b.remove(b.first)
	}
}

// clear forgets all gestures, of which nobody is to be told any more.
func (b *board) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first, b.last, b.bytes = nil, nil, 0
	clear(b.latest)
	if b.timer != nil {
		b.timer.Stop()
	}
}

// arm sets the timer to what comes next: a round, or the end of the oldest
// gesture.
func (b *board) arm(now time.Time) {
	var at time.Time
	switch {
	case b.due:
		at = b.began.Add(GestureInterval)
	case b.first != nil:
		at = b.first.at.Add(gestureLife)
	default:
		return
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(at.Sub(now), b.tick)
		return
	}
	b.timer.Reset(at.Sub(now))
}

func (b *board) tick() {
	if !b.turn() {
		return
	}
	for _, s := range b.unpark() {
		s.wake()
	}
}

// turn does what is due by the clock; it reports whether that is a round. The
// timer may have run out for the other of its two reasons.
func (b *board) turn() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.expire(now)
	begins := b.due && now.Sub(b.began) >= GestureInterval
	if begins {
		b.due, b.began = false, now
		b.round.Add(1)
	}
	b.arm(now)
	return begins
}

// unpark returns the parked viewers that have not been told of all.
//
// None is missed: who parks after this has found, under the same lock, that it is
// not behind; and a gesture that comes after that has a round of its own.
func (b *board) unpark() []*Sub {
	b.stream.mu.Lock()
	defer b.stream.mu.Unlock()
	version := b.version.Load()
	woken := make([]*Sub, 0, len(b.viewers))
	for _, v := range b.viewers {
		if v.sub.parkedAt >= 0 && v.version.Load() != version {
			b.stream.unpark(v.sub)
			woken = append(woken, v.sub)
		}
	}
	return woken
}

// viewer is a subscriber that reads gestures.
type viewer struct {
	board *board
	sub   *Sub
	at    int // index in board.viewers; guarded by stream.mu

	version atomic.Uint64 // what came up to it was told; changed by the Sub's goroutine

	// Of the Sub's goroutine: what is told of in one go, in as many batches as it
	// takes, and in which round that began, plus one. There is one go in a round.
	until uint64
	round uint64
}

// admit makes s a viewer, who is told of what is put from now on. It is called
// under stream.mu.
func (b *board) admit(s *Sub) *viewer {
	v := &viewer{board: b, sub: s, at: len(b.viewers), until: b.version.Load()}
	v.version.Store(v.until)
	b.viewers = append(b.viewers, v)
	return v
}

// dismiss is called under stream.mu.
func (b *board) dismiss(v *viewer) {
	last := len(b.viewers) - 1
	b.viewers[v.at] = b.viewers[last]
	b.viewers[v.at].at = v.at
	b.viewers[last] = nil
	b.viewers = b.viewers[:last]
}

// behind reports whether there is something to be told of now. Where there is,
// but only in the next round, that round is due.
func (v *viewer) behind() bool {
	b := v.board
	return v.version.Load() < v.until || b.version.Load() > v.until && b.round.Load()+1 != v.round
}

// gather moves v past the gestures that it was not told of, and appends to buf
// those that are meant for it, the oldest first, and no more once they have max
// bytes.
func (v *viewer) gather(buf []*Item, max int) ([]*Item, error) {
	if !v.behind() {
		return buf, nil
	}
	b, r := v.board, v.sub.reader
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := v.version.Load()
	if seen == v.until {
		v.until, v.round = b.version.Load(), b.round.Load()+1
	}
	now, bytes := time.Now(), 0
	for g := b.after(seen); g != nil && g.version <= v.until; g = g.next {
		it := g.item
		if !r.Owns(it.owner) {
			return nil, ErrForeign
		}
		if !g.expired(now) && r.Admits(it.owner, it.Channel, it.audience, it.to) {
			if bytes > 0 && bytes+len(it.Wire) > max {
				v.version.Store(seen)
				return buf, nil
			}
			buf = append(buf, it)
			bytes += len(it.Wire)
		}
		seen = g.version
	}
	v.version.Store(v.until)
	return buf, nil
}

// after returns the first gesture with a version after seen, or nil.
func (b *board) after(seen uint64) *gesture {
	var first *gesture
	for g := b.last; g != nil && g.version > seen; g = g.prev {
		first = g
	}
	return first
}

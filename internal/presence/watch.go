package presence

import (
	"errors"
	"slices"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// ErrClosed is returned by the Next of a closed Watch.
var ErrClosed = errors.New("presence: the watch is closed")

// Changes is what became different: to be applied to what the watcher knew in
// this order. Those in Leave say only who it is.
type Changes struct {
	Leave, Join, Update []twinrail.PresenceMember
}

// Empty reports whether nothing became different.
func (c *Changes) Empty() bool { return len(c.Leave)+len(c.Join)+len(c.Update) == 0 }

// Watch is one who is told. Its methods but Close are for one goroutine at a
// time.
type Watch struct {
	registry *Registry
	room     *room
	reader   auth.Reader
	wake     func()

	// Guarded by room.mu.
	at      int    // index in room.watchers, or -1 once closed
	version uint64 // what changed up to it was told, or is in rest
	parked  bool
	told    time.Time // when it was last told of something; zero since a wake

	// Of the goroutine that calls Next: what is to be told first. A version in
	// the midst of the changes would not do in its place: of a member that came
	// before it and changed after it nobody could say whether it was told.
	rest diff
}

// diff is like Changes, with what it shares not copied.
type diff struct {
	leave, join, update []*twinrail.PresenceMember
}

// Watch begins to watch where r reads, and returns the first of those present: those
// of the session own, and others in the order in which they came, as long as they
// are no more than max. Who else is present Next returns first, as joined, and then
// what became different since; nobody is missed, and nobody told of twice.
//
// After a Next that found nothing, wake is called once, when somebody came,
// changed or went, whether or not r may see it: at once, or where the watchers of
// the stream were woken within the last [Options].Interval, when that is over. It
// must not block. It is called from a goroutine of its own, never from within a
// call of this package's, and may come before that Next has returned.
//
// With the zero Reader nobody is present, and the watch is closed.
func (g *Registry) Watch(r auth.Reader, wake func(), own string, max int) (*Watch, []twinrail.PresenceMember) {
	if !r.Valid() {
		return &Watch{registry: g, room: new(room), at: -1}, []twinrail.PresenceMember{}
	}
	rm := g.acquire(r.Key())
	w := &Watch{registry: g, room: rm, reader: r, wake: wake}
	rm.mu.Lock()
	w.version = rm.version
	w.at = len(rm.watchers)
	rm.watchers = append(rm.watchers, w)
	seen := rm.seenBy(r, Position{})
	rm.mu.Unlock()
	return w, w.first(inOrder(seen), own, max)
}

// first returns the first of views that the watcher is told of, and leaves the
// others for Next.
func (w *Watch) first(views []*twinrail.PresenceMember, own string, max int) []twinrail.PresenceMember {
	slices.SortStableFunc(views, func(a, b *twinrail.PresenceMember) int {
		switch {
		case (a.SessionID == own) == (b.SessionID == own):
			return 0
		case a.SessionID == own:
			return -1
		}
		return 1
	})
	n := 0
	for n < len(views) && (n < max || views[n].SessionID == own) {
		n++
	}
	if n < len(views) {
		w.rest.join = views[n:]
	}
	return copied(views[:n])
}

// Next returns what became different since the last call, or since Watch, of at
// most max members, but at least one. Where it is empty the watcher is parked.
//
// A watcher that was told of all there was within the last interval, and was not
// woken since, is parked even where something has changed again: so however fast
// changes come, it is told of them in a batch or two for each interval.
//
// It has code too_slow, then and for good, where the watcher is so far behind
// that it cannot be told any more, and is [ErrClosed] after Close.
func (w *Watch) Next(max int) (Changes, error) {
	if w.rest.empty() {
		if err := w.look(); err != nil {
			return Changes{}, err
		}
	}
	return w.rest.take(max), nil
}

// look fills rest, or parks the watcher.
func (w *Watch) look() error {
	rm := w.room
	rm.mu.Lock()
	defer rm.mu.Unlock()
	switch {
	case w.at < 0:
		return ErrClosed
	case w.version < rm.forgotten:
		return &twinrail.Error{Code: twinrail.CodeTooSlow, Field: "presence"}
	case w.version == rm.version:
		w.park()
		return nil
	}
	now := time.Now()
	if now.Sub(w.told) < rm.opts.Interval {
		w.park()
		rm.announce()
		return nil
	}
	w.gather()
	if w.rest.empty() {
		w.park()
		return nil
	}
	w.unpark()
	w.told = now
	return nil
}

// gather moves the watcher to the room's version, and puts the difference into
// rest, the oldest change first.
func (w *Watch) gather() {
	rm, d := w.room, &w.rest
	for m := rm.gone.last; m != nil && m.change > w.version; m = m.prev {
		// Who came and left meanwhile was never there.
		if m.join <= w.version && m.seenBy(w.reader) {
			d.leave = append(d.leave, m.view)
		}
	}
	for m := rm.present.last; m != nil && m.change > w.version; m = m.prev {
		switch {
		case !m.seenBy(w.reader):
		case m.join > w.version:
			d.join = append(d.join, m.view)
		default:
			d.update = append(d.update, m.view)
		}
	}
	slices.Reverse(d.leave)
	slices.Reverse(d.join)
	slices.Reverse(d.update)
	w.version = rm.version
}

func (w *Watch) park() {
	if !w.parked {
		w.parked = true
		w.room.parked++
	}
}

func (w *Watch) unpark() {
	if w.parked {
		w.parked = false
		w.room.parked--
	}
}

// Close ends the watch. Its wake may still be called once, if that was under
// way.
func (w *Watch) Close() {
	if w.room.forget(w) {
		w.registry.release(w.room)
	}
}

// forget takes w out of the room; it reports whether it was still in it.
func (rm *room) forget(w *Watch) bool {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if w.at < 0 {
		return false
	}
	w.unpark()
	last := len(rm.watchers) - 1
	rm.watchers[w.at] = rm.watchers[last]
	rm.watchers[w.at].at = w.at
	rm.watchers[last] = nil
	rm.watchers = rm.watchers[:last]
	w.at = -1
	rm.prune()
	return true
}

func (d *diff) empty() bool { return len(d.leave)+len(d.join)+len(d.update) == 0 }

// take removes the first of d, as many as max, in the order in which they are to
// be applied.
func (d *diff) take(max int) Changes {
	if max < 1 {
		max = 1
	}
	var c Changes
	c.Leave, d.leave = take(d.leave, &max)
	c.Join, d.join = take(d.join, &max)
	c.Update, d.update = take(d.update, &max)
	return c
}

// take splits views after the first max, by which it lowers max. An empty rest
// is nil, so that nothing is kept for it.
func take(views []*twinrail.PresenceMember, max *int) (members []twinrail.PresenceMember, rest []*twinrail.PresenceMember) {
	n := min(len(views), *max)
	*max -= n
	if n > 0 {
		members = make([]twinrail.PresenceMember, n)
	}
	for i := range members {
		members[i] = *views[i]
	}
	if n < len(views) {
		rest = views[n:]
	}
	return members, rest
}

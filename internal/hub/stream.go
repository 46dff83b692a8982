package hub

import (
	"context"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// stream is one that has subscribers.
type stream struct {
	hub    *Hub
	key    string
	reader auth.Reader // the first subscriber's, to fill the window with
	kind   twinrail.Kind

	refs int32 // guarded by Hub.mu

	// window is nil until begin; from then on it changes under the budget's lock.
	window atomic.Pointer[window]
	charge charge
	// board is nil while nobody reads gestures; set under mu.
	board atomic.Pointer[board]

	mu      sync.Mutex
	tail    uint64 // the highest seq that the journal told of
	filling bool   // a goroutine brings the window to tail
	parked  []*Sub
}

func (h *Hub) acquire(r auth.Reader) *stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.streams[r.Key()]
	if st == nil {
		st = &stream{hub: h, key: r.Key(), kind: r.Home().Kind, reader: r}
		h.streams[st.key] = st
	}
	st.refs++
	return st
}

func (h *Hub) release(st *stream) {
	h.mu.Lock()
	st.refs--
	last := st.refs == 0
	if last {
		delete(h.streams, st.key)
	}
	h.mu.Unlock()
	if last {
		h.budget.leave(st)
	}
}

// notify is the journal's: a token that says that the stream goes on, not what
// was appended.
func (h *Hub) notify(key string, last uint64) {
	h.mu.Lock()
	st := h.streams[key]
	h.mu.Unlock()
	if st != nil {
		st.extend(last)
	}
}

// window is a run of entries without a gap, from behind position prev to its
// end. It is not changed once published: a later window may share its array, and
// only writes behind its length.
type window struct {
	prev  uint64
	items []*Item
	bytes int
	// since is the end before the last extension. Who reads what was there
	// before comes late, and of its own accord.
	since uint64
	// dropped is how many bytes of evicted items the array in front of items
	// may still keep alive.
	dropped int
}

// size is what w takes in memory, roughly and at most.
func (w *window) size() int { return w.bytes + w.dropped }

func (w *window) covers(seq uint64) bool { return seq >= w.prev }

func (w *window) end() uint64 {
	if len(w.items) == 0 {
		return w.prev
	}
	return w.items[len(w.items)-1].Cursor.Seq
}

// after returns the items that follow position seq.
func (w *window) after(seq uint64) []*Item {
	// Most who ask have seen all but the newest few.
	n := len(w.items)
	if n == 0 || w.items[n-1].Cursor.Seq <= seq {
		return nil
	}
	if n == 1 || w.items[n-2].Cursor.Seq <= seq {
		return w.items[n-1:]
	}
	return w.items[sort.Search(n, func(i int) bool { return w.items[i].Cursor.Seq > seq }):]
}

// with returns the window after items came in, holding at most max bytes, and
// keeping alive at most as many of what it evicted.
func (w *window) with(items []*Item, max int) *window {
	next := &window{prev: w.prev, items: append(w.items, items...), bytes: w.bytes, since: w.end(), dropped: w.dropped}
	for _, it := range items {
		next.bytes += it.size()
	}
	drop := 0
	for drop < len(next.items) && next.bytes > max {
		next.bytes -= next.items[drop].size()
		next.dropped += next.items[drop].size()
		next.prev = next.items[drop].Cursor.Seq
		drop++
	}
	next.items = next.items[drop:]
	if next.dropped > max {
		// Older windows still read the array, so it is left to them.
		next.items, next.dropped = slices.Clone(next.items), 0
	}
	return next
}

// from returns the part of w that follows position seq, in an array of its own.
func (w *window) from(seq uint64) *window {
	part := &window{prev: max(seq, w.prev), items: slices.Clone(w.after(seq))}
	for _, it := range part.items {
		part.bytes += it.size()
	}
	return part
}

// begin makes the window of a stream whose last seq is at least head. All before
// it is for the journal to give.
func (st *stream) begin(head uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.window.Load() == nil {
		st.window.Store(&window{prev: max(head, st.tail)})
	}
}

// extend has the window brought to last, and the parked subscribers woken.
func (st *stream) extend(last uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if last <= st.tail {
		return
	}
	st.tail = last
	// The window may have read of an append before the journal told of it.
	if w := st.window.Load(); st.filling || w == nil || w.end() >= last {
		return
	}
	st.filling = true
	go st.fill()
}

// fill reads what the window lacks, for all subscribers at once. It ends when
// the window has come to the tail; the next append starts it again.
func (st *stream) fill() {
	for {
		base := st.window.Load()
		woken, done := st.publish(base, st.read(base))
		for _, s := range woken {
			s.wake()
		}
		if done {
			return
		}
	}
}

// read returns the window w after one more page, or nil where the journal fails,
// or has trimmed what the window lacks.
func (st *stream) read(w *window) *window {
	limit := st.hub.opts.Window
	if limit == 0 {
		return nil
	}
	page, err := st.hub.journal.Read(context.Background(), st.reader, w.end(), limit)
	if err != nil || page.Gap || len(page.Entries) == 0 {
		return nil
	}
	items := make([]*Item, len(page.Entries))
	for i := range page.Entries {
		items[i] = st.hub.item(st.kind, &page.Entries[i])
	}
	return w.with(items, limit)
}

// publish makes next, which came of base, the window. Without one, the window
// becomes empty and begins at the tail: each subscriber then reads the journal, and
// gets its answer, or its error, itself.
func (st *stream) publish(base, next *window) (woken []*Sub, done bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if next == nil {
		next = &window{prev: max(st.tail, base.end())}
	}
	st.hub.budget.replace(st, base, next)
	// Those who are woken mostly park again, so the next list is made as long.
	woken, st.parked = st.parked, make([]*Sub, 0, len(st.parked))
	for _, s := range woken {
		s.parkedAt = -1
	}
	done = st.window.Load().end() >= st.tail
	st.filling = !done
	return woken, done
}

// park puts s to sleep, unless something follows it by now.
func (st *stream) park(s *Sub) (bool, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.closed.Load() {
		return false, ErrClosed
	}
	if st.window.Load().end() > s.cursor.Seq {
		return false, nil
	}
	if v := s.viewer.Load(); v != nil && v.behind() {
		return false, nil
	}
	if s.parkedAt < 0 {
		s.parkedAt = int32(len(st.parked))
		st.parked = append(st.parked, s)
	}
	return true, nil
}

// leave takes s out of the stream; it reports whether s was still in it.
func (st *stream) leave(s *Sub) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if s.closed.Swap(true) {
		return false
	}
	if s.parkedAt >= 0 {
		st.unpark(s)
	}
	st.setGestures(s, false)
	return true
}

// unpark takes one who is parked out of the list. It is called under mu.
func (st *stream) unpark(s *Sub) {
	i, last := s.parkedAt, int32(len(st.parked))-1
	st.parked[i] = st.parked[last]
	st.parked[i].parkedAt = i
	st.parked[last] = nil
	st.parked = st.parked[:last]
	s.parkedAt = -1
}

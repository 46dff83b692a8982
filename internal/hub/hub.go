// Package hub delivers streams to subscribers.
//
// A subscriber is a position in a stream. [Sub.Next] reads what follows it, and
// where there is nothing, parks the subscriber until something does. Replay, live
// delivery, a slow reader and a return after a cut are all that one loop: there
// is no queue for a subscriber, and no moment at which two sources are joined.
//
// For each stream that has subscribers a window of its newest entries is held in
// memory, encoded once for all of them. It is only a cache over the journal: with
// no window at all every subscriber sees the same.
package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// ErrForeign says that an entry of another stream was about to be delivered. It
// is found at the last moment, and means that isolation has failed before: the
// connection must be closed, and somebody be told.
var ErrForeign = errors.New("hub: an entry of another stream")

// ErrClosed is returned by the Next of a closed Sub.
var ErrClosed = errors.New("hub: the subscription is closed")

// Options is what a [Hub] is made of.
type Options struct {
	// Window bounds the encoded bytes held for each stream that has subscribers.
	// 0 holds none.
	Window int
	// Encode returns an entry's bytes for the wire, to be shared by all who
	// receive it. Required.
	Encode func(kind twinrail.Kind, e *journal.Entry) []byte
}

// Hub holds the streams that have subscribers.
type Hub struct {
	journal journal.Journal
	opts    Options

	mu      sync.Mutex
	streams map[string]*stream // by home key
}

// New returns a hub over j, of which it takes the notifications.
func New(j journal.Journal, opts Options) *Hub {
	h := &Hub{journal: j, opts: opts, streams: make(map[string]*stream)}
	j.Notify(h.notify)
	return h
}

// Streams returns how many streams have subscribers.
func (h *Hub) Streams() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// Item is an entry as subscribers share it. Nothing in it may be changed.
type Item struct {
	Cursor  twinrail.Cursor
	Channel twinrail.Channel
	// Wire is what [Options.Encode] made of the entry.
	Wire []byte

	owner    string
	audience twinrail.Audience
	to       []string
}

func (h *Hub) item(kind twinrail.Kind, e *journal.Entry) *Item {
	return &Item{e.Cursor, e.Channel, h.opts.Encode(kind, e), e.Owner, e.Audience, e.To}
}

// size is roughly what the item takes in memory.
func (it *Item) size() int { return len(it.Wire) + 256 }

// From says where a subscriber starts: after Cursor where that is given, else at
// the oldest entry or at the head.
type From struct {
	// Cursor is the text of a cursor, [twinrail.CursorEarliest], or "".
	Cursor string
}

// Start is where a subscriber was placed.
type Start struct {
	Cursor  twinrail.Cursor
	Head    twinrail.Cursor
	Resumed bool // a cursor was given, and is valid
	// Reset is not nil where a cursor was given and is void: then Cursor is the
	// head.
	Reset *Reset
}

// Reset tells a subscriber that what lies between its cursor and Head cannot be
// delivered.
type Reset struct {
	Reason    twinrail.Code // cursor_expired or cursor_unknown
	Requested string
	Oldest    twinrail.Cursor
	Head      twinrail.Cursor
}

// Sub is a subscriber: a right to read, and a position. Its methods but Close
// are for one goroutine at a time.
type Sub struct {
	hub    *Hub
	stream *stream
	reader auth.Reader
	wake   func()
	cursor twinrail.Cursor

	parkedAt int         // index in stream.parked, or -1; guarded by stream.mu
	closed   atomic.Bool // set under stream.mu
}

// Subscribe places a subscriber in the stream that r may read. After a Next that
// found nothing, wake is called once, as soon as something follows; it must not
// block, and may be called from any goroutine.
func (h *Hub) Subscribe(ctx context.Context, r auth.Reader, from From, wake func()) (*Sub, Start, error) {
	if !r.Valid() {
		return nil, Start{}, errors.New("hub: subscribing takes an authorized reader")
	}
	// The stream is registered before the journal is asked where it ends, so
	// that no append falls between the two.
	st := h.acquire(r)
	start, err := h.start(ctx, r, from)
	if err != nil {
		h.release(st)
		return nil, Start{}, err
	}
	st.begin(start.Head.Seq)
	return &Sub{hub: h, stream: st, reader: r, wake: wake, cursor: start.Cursor, parkedAt: -1}, start, nil
}

func (h *Hub) start(ctx context.Context, r auth.Reader, from From) (Start, error) {
	voidFor, err := h.seek(ctx, r, from.Cursor)
	if err != nil {
		return Start{}, err
	}
	bounds, err := h.journal.Bounds(ctx, r)
	if err != nil {
		return Start{}, err
	}
	start := Start{Cursor: bounds.Head, Head: bounds.Head}
	switch {
	case from.Cursor == "":
	case from.Cursor == twinrail.CursorEarliest:
		start.Cursor = bounds.Oldest
	case voidFor != "":
		start.Reset = &Reset{voidFor, from.Cursor, bounds.Oldest, bounds.Head}
	default:
		start.Resumed = true
		start.Cursor, err = twinrail.ParseCursor(from.Cursor)
	}
	return start, err
}

// seek returns why the cursor is void, or "" where it is valid or none is given.
func (h *Hub) seek(ctx context.Context, r auth.Reader, cursor string) (voidFor twinrail.Code, err error) {
	if cursor == "" || cursor == twinrail.CursorEarliest {
		return "", nil
	}
	c, err := twinrail.ParseCursor(cursor)
	if err != nil {
		return twinrail.CodeCursorUnknown, nil
	}
	switch _, err := h.journal.Seek(ctx, r, c); {
	case errors.Is(err, journal.ErrExpired):
		return twinrail.CodeCursorExpired, nil
	case errors.Is(err, journal.ErrUnknown):
		return twinrail.CodeCursorUnknown, nil
	default:
		return "", err
	}
}

// Cursor returns the position of s: all that is before it was delivered, or was
// not for s.
func (s *Sub) Cursor() twinrail.Cursor { return s.cursor }

// Reader returns what s may read.
func (s *Sub) Reader() auth.Reader { return s.reader }

// Lags reports whether the next Next reads the journal, which may take as long as
// the disk does.
func (s *Sub) Lags() bool { return !s.stream.window.Load().covers(s.cursor.Seq) }

// Batch is what [Sub.Next] found.
type Batch struct {
	Items []*Item
	// Reset, where not nil, is all there is in the batch: s went on to the head.
	Reset *Reset
	// Parked says that nothing followed, and that wake will be called.
	Parked bool
}

// Next moves s past the entries that follow it, and returns those that are meant
// for it: appended to buf, and no more once they have max bytes. A batch may be
// empty without s being parked; then Next is to be called again.
//
// It blocks only on reads of the journal, and on those only where s lags behind
// the window.
func (s *Sub) Next(ctx context.Context, buf []*Item, max int) (Batch, error) {
	if s.closed.Load() {
		return Batch{}, ErrClosed
	}
	w := s.stream.window.Load()
	if !w.covers(s.cursor.Seq) {
		return s.lag(ctx, buf, max)
	}
	bytes := 0
	for _, it := range w.after(s.cursor.Seq) {
		if bytes > 0 && bytes+len(it.Wire) > max {
			return Batch{Items: buf}, nil
		}
		admitted, err := s.pass(it)
		if err != nil {
			return before(buf, err)
		}
		if admitted {
			buf = append(buf, it)
			bytes += len(it.Wire)
		}
	}
	if len(buf) > 0 {
		return Batch{Items: buf}, nil
	}
	parked, err := s.stream.park(s)
	return Batch{Parked: parked}, err
}

// lag is Next for a subscriber that is behind the window: a page of the journal.
func (s *Sub) lag(ctx context.Context, buf []*Item, max int) (Batch, error) {
	page, err := s.hub.journal.Read(ctx, s.reader, s.cursor.Seq, max)
	if err != nil {
		return Batch{}, err
	}
	if page.Gap {
		return s.reset(ctx)
	}
	if len(page.Entries) == 0 {
		// The window begins behind the journal's end only if that went back,
		// which no journal does while it is open.
		return Batch{}, fmt.Errorf("hub: nothing follows seq %d of a stream that goes on", s.cursor.Seq)
	}
	for i := range page.Entries {
		e := &page.Entries[i]
		if !s.reader.Owns(e.Owner) {
			return before(buf, ErrForeign)
		}
		if s.reader.Admits(e.Owner, e.Channel, e.Audience, e.To) {
			buf = append(buf, s.hub.item(s.stream.kind, e))
		}
		s.cursor = e.Cursor
	}
	return Batch{Items: buf}, nil
}

// before returns what s moved past before the entry that failed; where there is
// something, the next Next comes upon the failure again.
func before(buf []*Item, err error) (Batch, error) {
	if len(buf) > 0 {
		return Batch{Items: buf}, nil
	}
	return Batch{}, err
}

func (s *Sub) reset(ctx context.Context) (Batch, error) {
	bounds, err := s.hub.journal.Bounds(ctx, s.reader)
	if err != nil {
		return Batch{}, err
	}
	requested := s.cursor
	s.cursor = bounds.Head
	return Batch{Reset: &Reset{twinrail.CodeCursorExpired, requested.String(), bounds.Oldest, bounds.Head}}, nil
}

// pass moves s past it, and reports whether it is meant for s.
func (s *Sub) pass(it *Item) (bool, error) {
	if !s.reader.Owns(it.owner) {
		return false, ErrForeign
	}
	s.cursor = it.Cursor
	return s.reader.Admits(it.owner, it.Channel, it.audience, it.to), nil
}

// Close ends s. Its wake may still be called once, if that was under way.
func (s *Sub) Close() {
	if s.stream.leave(s) {
		s.hub.release(s.stream)
	}
}

// stream is one that has subscribers.
type stream struct {
	hub    *Hub
	key    string
	kind   twinrail.Kind
	reader auth.Reader // the first subscriber's, to fill the window with

	refs int // guarded by Hub.mu

	// window is nil until begin.
	window atomic.Pointer[window]

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
	defer h.mu.Unlock()
	if st.refs--; st.refs == 0 {
		delete(h.streams, st.key)
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
	// dropped is how many bytes of evicted items the array in front of items
	// may still keep alive.
	dropped int
}

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
	next := &window{w.prev, append(w.items, items...), w.bytes, w.dropped}
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
		next, ok := st.read()
		woken, done := st.publish(next, ok)
		for _, s := range woken {
			s.wake()
		}
		if done {
			return
		}
	}
}

// read returns the window after one more page. It fails where the journal does,
// or has trimmed what the window lacks.
func (st *stream) read() (*window, bool) {
	w := st.window.Load()
	limit := st.hub.opts.Window
	if limit == 0 {
		return nil, false
	}
	page, err := st.hub.journal.Read(context.Background(), st.reader, w.end(), limit)
	if err != nil || page.Gap || len(page.Entries) == 0 {
		return nil, false
	}
	items := make([]*Item, len(page.Entries))
	for i := range page.Entries {
		items[i] = st.hub.item(st.kind, &page.Entries[i])
	}
	return w.with(items, limit), true
}

// publish makes next the window. Without one, the window becomes empty and begins
// at the tail: each subscriber then reads the journal, and gets its answer, or its
// error, itself.
func (st *stream) publish(next *window, ok bool) (woken []*Sub, done bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !ok {
		next = &window{prev: max(st.tail, st.window.Load().end())}
	}
	st.window.Store(next)
	// Those who are woken mostly park again, so the next list is made as long.
	woken, st.parked = st.parked, make([]*Sub, 0, len(st.parked))
	for _, s := range woken {
		s.parkedAt = -1
	}
	done = next.end() >= st.tail
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
	if s.parkedAt < 0 {
		s.parkedAt = len(st.parked)
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
	if i := s.parkedAt; i >= 0 {
		last := len(st.parked) - 1
		st.parked[i] = st.parked[last]
		st.parked[i].parkedAt = i
		st.parked[last] = nil
		st.parked = st.parked[:last]
		s.parkedAt = -1
	}
	return true
}

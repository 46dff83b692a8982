// Package hub delivers streams to subscribers.
//
// A subscriber is a position in a stream. [Sub.Next] reads what follows it, and
// where there is nothing, parks the subscriber until something does. Replay, live
// delivery, a slow reader and a return after a cut are all that one loop: there
// is no queue for a subscriber, and no moment at which two sources are joined.
//
// For each stream that has subscribers a window of its newest entries is held in
// memory, encoded once for all of them. It is only a cache over the journal: with
// no window at all every subscriber sees the same. So the windows of all streams
// share a budget, over which the coldest are emptied.
//
// Gestures are beside all that: of them only the newest are held, in memory, and
// whoever reads them is told of the difference to what it was told before, once
// nothing else follows.
package hub

import (
	"context"
	"errors"
	"fmt"
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
	// Budget bounds the bytes that all windows hold together. Where they would
	// hold more, the coldest of the tenant that holds most are emptied. It bounds
	// Window to its half. 0 is no bound.
	Budget int
	// Encode returns an entry's bytes for the wire, to be shared by all who
	// receive it. Required.
	Encode func(kind twinrail.Kind, e *journal.Entry) []byte
	// Label, where set, returns what [Item.Label] is to be.
	Label func(e *journal.Entry) string
	// EncodeGesture is Encode for what has no place in a stream. Required for
	// [Hub.Gesture].
	EncodeGesture func(e *twinrail.Event) []byte
}

// Hub holds the streams that have subscribers.
type Hub struct {
	journal journal.Journal
	opts    Options

	mu      sync.Mutex
	streams map[string]*stream // by home key

	budget  budget
	evicted atomic.Uint64
}

// New returns a hub over j, of which it takes the notifications.
func New(j journal.Journal, opts Options) *Hub {
	if opts.Budget > 0 {
		// A window keeps as much alive again of what it has dropped.
		opts.Window = min(opts.Window, opts.Budget/2)
	}
	h := &Hub{journal: j, opts: opts, streams: make(map[string]*stream)}
	h.budget.max, h.budget.tenants = opts.Budget, make(map[string]*share)
	j.Notify(h.notify)
	return h
}

// Streams returns how many streams have subscribers.
func (h *Hub) Streams() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// WindowBytes returns how many bytes the windows of all streams hold.
func (h *Hub) WindowBytes() int { return h.budget.bytes() }

// WindowEvictions returns how many windows were emptied to keep to
// [Options].Budget.
func (h *Hub) WindowEvictions() uint64 { return h.budget.evictions.Load() }

// Item is an entry as subscribers share it. Nothing in it may be changed.
type Item struct {
	Cursor  twinrail.Cursor // zero for a gesture
	Channel twinrail.Channel
	// Wire is what [Options].Encode or EncodeGesture made of the entry.
	Wire []byte
	// Label is what [Options.Label] made of the entry.
	Label string

	owner    string
	audience twinrail.Audience
	to       []string
}

func (h *Hub) item(kind twinrail.Kind, e *journal.Entry) *Item {
	label := ""
	if h.opts.Label != nil {
		label = h.opts.Label(e)
	}
	return &Item{e.Cursor, e.Channel, h.opts.Encode(kind, e), label, e.Owner, e.Audience, e.To}
}

// size is roughly what the item takes in memory.
func (it *Item) size() int { return len(it.Wire) + 256 }

// From says where a subscriber starts: after Cursor where that is given, else at
// the oldest entry or at the head.
type From struct {
	// Cursor is the text of a cursor, [twinrail.CursorEarliest], or "".
	Cursor string
	// NoReplay has the start be as though nothing before the head were retained.
	// What is appended after it is delivered all the same.
	NoReplay bool
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
// and SetGestures are for one goroutine at a time.
type Sub struct {
	stream *stream
	reader auth.Reader
	wake   func()
	cursor twinrail.Cursor
	head   uint64 // the stream's last seq when s began

	parkedAt int32       // index in stream.parked, or -1; guarded by stream.mu
	closed   atomic.Bool // set under stream.mu

	viewer atomic.Pointer[viewer] // nil where gestures are off; set under stream.mu
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
	return &Sub{stream: st, reader: r, wake: wake, cursor: start.Cursor, head: start.Head.Seq, parkedAt: -1}, start, nil
}

func (h *Hub) start(ctx context.Context, r auth.Reader, from From) (Start, error) {
	at, voidFor, err := h.seek(ctx, r, from.Cursor)
	if err != nil {
		return Start{}, err
	}
	bounds, err := h.journal.Bounds(ctx, r)
	if err != nil {
		return Start{}, err
	}
	if from.NoReplay {
		bounds.Oldest = bounds.Head
		if voidFor == "" && at.Seq < bounds.Head.Seq {
			voidFor = twinrail.CodeCursorExpired
		}
	}
	start := Start{Cursor: bounds.Head, Head: bounds.Head}
	switch {
	case from.Cursor == "":
	case from.Cursor == twinrail.CursorEarliest:
		start.Cursor = bounds.Oldest
	case voidFor != "":
		start.Reset = &Reset{voidFor, from.Cursor, bounds.Oldest, bounds.Head}
	default:
		start.Cursor, start.Resumed = at, true
	}
	return start, nil
}

// seek returns the cursor of that text, and why it is void, or "" where it is
// valid or none is given.
func (h *Hub) seek(ctx context.Context, r auth.Reader, cursor string) (at twinrail.Cursor, voidFor twinrail.Code, err error) {
	if cursor == "" || cursor == twinrail.CursorEarliest {
		return at, "", nil
	}
	if at, err = twinrail.ParseCursor(cursor); err != nil {
		return at, twinrail.CodeCursorUnknown, nil
	}
	switch _, err := h.journal.Seek(ctx, r, at); {
	case errors.Is(err, journal.ErrExpired):
		return at, twinrail.CodeCursorExpired, nil
	case errors.Is(err, journal.ErrUnknown):
		return at, twinrail.CodeCursorUnknown, nil
	default:
		return at, "", err
	}
}

// Cursor returns the position of s: all that is before it was delivered, or was
// not for s.
func (s *Sub) Cursor() twinrail.Cursor { return s.cursor }

// CaughtUp reports whether s has come to where the stream ended when it began.
// A Sub can be parked before that, for the moment between the journal's knowing
// of an event and the hub's having it.
func (s *Sub) CaughtUp() bool { return s.cursor.Seq >= s.head }

// Reader returns what s may read.
func (s *Sub) Reader() auth.Reader { return s.reader }

// Lags reports whether the next Next reads the journal, which may take as long as
// the disk does.
func (s *Sub) Lags() bool { return !s.stream.window.Load().covers(s.cursor.Seq) }

// Batch is what [Sub.Next] found.
type Batch struct {
	Items []*Item
	// Gestures are there only where nothing was left that has a cursor: then
	// they take the place of Items, in buf too.
	Gestures []*Item
	// Reset, where not nil, is all there is in the batch: s went on to the head.
	Reset *Reset
	// Parked says that nothing followed, and that wake will be called.
	Parked bool
}

// Next moves s past the entries that follow it, and returns those that are meant
// for it: appended to buf, and no more once they have max bytes. A batch may be
// empty without s being parked; then Next is to be called again.
//
// Gestures come when nothing else follows, and do not move s. A Sub that was told
// of all there were is parked even where there are newer ones by now, until the
// next round of its stream's gestures, at most [GestureInterval] later.
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
	if s.cursor.Seq < w.since {
		s.stream.charge.mark()
	}
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
	if v := s.viewer.Load(); v != nil {
		gestures, err := v.gather(buf, max)
		if err != nil || len(gestures) > 0 {
			return Batch{Gestures: gestures}, err
		}
	}
	parked, err := s.stream.park(s)
	return Batch{Parked: parked}, err
}

// lag is Next for a subscriber that is behind the window: a page of the journal.
func (s *Sub) lag(ctx context.Context, buf []*Item, max int) (Batch, error) {
	page, err := s.stream.hub.journal.Read(ctx, s.reader, s.cursor.Seq, max)
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
			buf = append(buf, s.stream.hub.item(s.stream.kind, e))
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
	bounds, err := s.stream.hub.journal.Bounds(ctx, s.reader)
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
		s.stream.hub.release(s.stream)
	}
}

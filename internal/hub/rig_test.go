package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// Large is a window that holds all that a test appends.
const large = 1 << 20

// encode makes the event's JSON, as the rails do.
func encode(_ twinrail.Kind, e *journal.Entry) []byte {
	b := append([]byte(nil), e.Head...)
	b = twinrail.AppendPosition(b, e.Cursor, e.Prev)
	return append(b, e.Tail...)
}

// canvasRouting names a canvas stream of t_acme, and u_1 in it.
func canvasRouting(canvas string) twinrail.Routing {
	return twinrail.Routing{
		TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: canvas, ActorID: "u_1",
	}
}

// bubble is a subtest that runs in a bubble of its own.
func bubble(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

// rig is a hub over a journal in memory that can be made to fail.
// It lives in a bubble, and after each append waits until the hub has taken it.
type rig struct {
	t       testing.TB
	journal *tapped
	hub     *hub.Hub
	stream  journaltest.Stream
	n       int // records made

	mu      sync.Mutex
	encoded map[uint64]int // how often the record at a seq was encoded
}

func newRig(t testing.TB, window int, keep journal.Retention) *rig {
	t.Helper()
	j := &tapped{Journal: journal.NewMemory(journal.MemoryOptions{Retention: keep, Stride: 3})}
	r := &rig{t: t, journal: j, stream: journaltest.NewStream(t, "c1"), encoded: make(map[uint64]int)}
	r.hub = hub.New(j, hub.Options{Window: window, Encode: r.encode})
	return r
}

func (r *rig) encode(kind twinrail.Kind, e *journal.Entry) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.encoded[e.Cursor.Seq]++
	return encode(kind, e)
}

// append stores n commits as one batch, and returns where they stand.
func (r *rig) append(n int) []journal.Result {
	r.t.Helper()
	return r.appendTo(r.stream, n)
}

func (r *rig) appendTo(s journaltest.Stream, n int) []journal.Result {
	r.t.Helper()
	recs := make([]journal.Record, n)
	for i := range recs {
		r.n++
		recs[i] = s.Record(fmt.Sprintf("e%d", r.n), "data")
	}
	return r.store(recs...)
}

func (r *rig) store(recs ...journal.Record) []journal.Result {
	r.t.Helper()
	results, err := r.journal.Append(context.Background(), recs, journal.Expect{})
	if err != nil {
		r.t.Fatalf("append: %v", err)
	}
	synctest.Wait()
	return results
}

// expireAll appends a commit that is too old to be retained, which trims all
// that was appended before it was due.
func (r *rig) expireAll() journal.Result {
	r.t.Helper()
	r.n++
	return r.store(r.stream.RecordAt(time.Now().Add(-48*time.Hour), fmt.Sprintf("e%d", r.n), "old"))[0]
}

// subscriber is a Sub with a count of its wakes.
type subscriber struct {
	*hub.Sub
	t     testing.TB
	start hub.Start

	mu    sync.Mutex
	wakes int
}

func (s *subscriber) woken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wakes
}

// subscribe places a subscriber in the rig's stream, which is closed at the end
// of the test.
func (r *rig) subscribe(from string) *subscriber {
	r.t.Helper()
	return r.subscribeAs(r.stream.Reader, from)
}

func (r *rig) subscribeAs(reader auth.Reader, from string) *subscriber {
	r.t.Helper()
	s := &subscriber{t: r.t}
	sub, start, err := r.hub.Subscribe(context.Background(), reader, hub.From{Cursor: from}, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wakes++
	})
	if err != nil {
		r.t.Fatalf("subscribe: %v", err)
	}
	r.t.Cleanup(sub.Close)
	s.Sub, s.start = sub, start
	return s
}

// next is a Next that must not fail.
func (s *subscriber) next(max int) hub.Batch {
	s.t.Helper()
	b, err := s.Next(context.Background(), nil, max)
	if err != nil {
		s.t.Fatalf("next: %v", err)
	}
	return b
}

// drain calls Next until s is parked, and returns what came; a Reset fails.
func (s *subscriber) drain() []*hub.Item {
	s.t.Helper()
	var items []*hub.Item
	for range 10_000 {
		b := s.next(large)
		if b.Reset != nil {
			s.t.Fatalf("reset: %+v", *b.Reset)
		}
		items = append(items, b.Items...)
		if b.Parked {
			return items
		}
	}
	s.t.Fatalf("not parked after 10,000 calls of Next")
	return nil
}

// park drains s, which must have nothing to read.
func (s *subscriber) park() {
	s.t.Helper()
	wantItems(s.t, s.drain())
}

// wantItems checks that items are the records that results tell of.
func wantItems(t testing.TB, items []*hub.Item, results ...journal.Result) {
	t.Helper()
	got := make([]twinrail.Cursor, len(items))
	for i, it := range items {
		got[i] = it.Cursor
	}
	want := make([]twinrail.Cursor, len(results))
	for i, r := range results {
		want[i] = r.Cursor
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got the items at %v, want those at %v", got, want)
	}
}

// tapped is a journal whose answers can be changed. The taps are set while
// nobody reads.
type tapped struct {
	journal.Journal

	mu sync.Mutex
	// onRead, where set, makes the answer of Read of the journal's own.
	onRead func(ctx context.Context, page journal.Page, err error) (journal.Page, error)
	// onBounds and onSeek, where set, are called before Bounds and Seek, which
	// then fail with the error.
	onBounds func() error
	onSeek   func() error
	reads    int
	// hold keeps the notifications back in held.
	hold bool
	held []func()
}

func (j *tapped) Notify(fn func(key string, last uint64)) {
	j.Journal.Notify(func(key string, last uint64) {
		j.mu.Lock()
		hold := j.hold
		if hold {
			j.held = append(j.held, func() { fn(key, last) })
		}
		j.mu.Unlock()
		if !hold {
			fn(key, last)
		}
	})
}

func (j *tapped) tapRead(fn func(context.Context, journal.Page, error) (journal.Page, error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.onRead = fn
}

func (j *tapped) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	page, err := j.Journal.Read(ctx, r, after, max)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reads++
	if j.onRead != nil {
		return j.onRead(ctx, page, err)
	}
	return page, err
}

func (j *tapped) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	if j.onBounds != nil {
		if err := j.onBounds(); err != nil {
			return journal.Bounds{}, err
		}
	}
	return j.Journal.Bounds(ctx, r)
}

func (j *tapped) Seek(ctx context.Context, r auth.Reader, c twinrail.Cursor) (uint64, error) {
	if j.onSeek != nil {
		if err := j.onSeek(); err != nil {
			return 0, err
		}
	}
	return j.Journal.Seek(ctx, r, c)
}

// person is a reader of a stream, in the plain terms of a model.
type person struct {
	actor    string
	audience twinrail.Audience
	channels []twinrail.Channel
}

func (p person) reader(t authtest.T, canvas string) auth.Reader {
	r := p.audience.AddTo(canvasRouting(canvas))
	r.ActorID = p.actor
	return authtest.New(t).Reader(r, twinrail.CanvasStream, p.channels...)
}

// message is an event of a model.
type message struct {
	id       string
	channel  twinrail.Channel
	audience twinrail.Audience
	to       []string
}

// meantFor is the match rule of the contract, key by key.
func (m message) meantFor(p person) bool {
	if !slices.Contains(p.channels, m.channel) || len(m.to) > 0 && !slices.Contains(m.to, p.actor) {
		return false
	}
	held := p.audience.Values()
	for i, named := range m.audience.Values() {
		if named != "" && named != held[i] {
			return false
		}
	}
	return true
}

func (m message) record(w auth.Writer) journal.Record {
	return journal.NewRecord(w, twinrail.Event{
		ID: m.id, Type: "test", Time: time.Now(), To: m.to, Data: json.RawMessage(`"` + strings.Repeat("x", 64) + `"`),
	})
}

// writers holds the right to publish at each channel and audience of a canvas.
type writers map[twinrail.Channel]map[twinrail.Audience]auth.Writer

func newWriters(t authtest.T, canvas string, audiences []twinrail.Audience) writers {
	issuer, w := authtest.New(t), make(writers)
	for _, ch := range []twinrail.Channel{twinrail.Commit, twinrail.Artifact} {
		w[ch] = make(map[twinrail.Audience]auth.Writer)
		for _, a := range audiences {
			w[ch][a] = issuer.Writer(a.AddTo(canvasRouting(canvas)), ch)
		}
	}
	return w
}

func (w writers) record(m message) journal.Record { return m.record(w[m.channel][m.audience]) }

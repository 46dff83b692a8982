package hub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// entry is a little more than an event of entryData takes in a window.
const entry = 1500

var entryData = strings.Repeat("x", 900)

// estate is several streams, each with a subscriber that reads nothing, at a hub
// with a budget.
type estate struct {
	t       testing.TB
	journal *tapped
	hub     *hub.Hub
	streams map[string]journaltest.Stream // by tenant/canvas
	subs    map[string]*hub.Sub
	n       int
}

func newEstate(t testing.TB, budget int) *estate {
	j := &tapped{Journal: journal.NewMemory(journal.MemoryOptions{})}
	e := &estate{t: t, journal: j, streams: make(map[string]journaltest.Stream), subs: make(map[string]*hub.Sub)}
	e.hub = hub.New(j, hub.Options{Window: large, Budget: budget, Encode: encode})
	return e
}

// add makes the stream of that name, tenant/canvas, and subscribes to it.
func (e *estate) add(name string) *hub.Sub {
	e.t.Helper()
	tenant, canvas, _ := strings.Cut(name, "/")
	r := canvasRouting(canvas)
	r.TenantID = tenant
	e.streams[name] = journaltest.StreamAt(e.t, r)
	e.subs[name] = e.subscribe(name)
	return e.subs[name]
}

func (e *estate) subscribe(name string) *hub.Sub {
	e.t.Helper()
	sub, _, err := e.hub.Subscribe(context.Background(), e.streams[name].Reader, hub.From{}, func() {})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(sub.Close)
	return sub
}

// grow appends n events of entryData to the stream, one after the other.
func (e *estate) grow(name string, n int) {
	e.t.Helper()
	for range n {
		e.n++
		rec := e.streams[name].Record(fmt.Sprint("e", e.n), entryData)
		if _, err := e.journal.Append(context.Background(), []journal.Record{rec}, journal.Expect{}); err != nil {
			e.t.Fatal(err)
		}
		synctest.Wait()
	}
}

// wantWindows checks of which streams the windows have been emptied, and of which
// they have all since their subscriber began.
func (e *estate) wantWindows(has map[string]bool) {
	e.t.Helper()
	for name, want := range has {
		if got := !e.subs[name].Lags(); got != want {
			e.t.Errorf("%s: the window is there: %v, want %v", name, got, want)
		}
	}
}

func (e *estate) read(sub *hub.Sub) (n int) {
	e.t.Helper()
	for range 1000 {
		b, err := sub.Next(context.Background(), nil, large)
		if err != nil || b.Reset != nil {
			e.t.Fatalf("next: %+v, %v", b, err)
		}
		n += len(b.Items)
		if b.Parked {
			return n
		}
	}
	e.t.Fatal("never parked")
	return 0
}

// The window that was not extended for longest is emptied first, and who reads it
// gets all the same events.
func TestBudgetEvictsColdest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		for _, name := range []string{"t_a/1", "t_a/2", "t_a/3"} {
			e.add(name)
		}
		e.grow("t_a/1", 3)
		e.grow("t_a/2", 3)
		e.grow("t_a/3", 3)
		e.grow("t_a/1", 1)
		e.wantWindows(map[string]bool{"t_a/1": true, "t_a/2": true, "t_a/3": true})
		e.grow("t_a/3", 1)
		e.wantWindows(map[string]bool{"t_a/1": true, "t_a/2": false, "t_a/3": true})
		if n := e.hub.WindowEvictions(); n != 1 {
			t.Errorf("%d evictions, want 1", n)
		}
		for name, want := range map[string]int{"t_a/1": 4, "t_a/2": 3, "t_a/3": 4} {
			if n := e.read(e.subs[name]); n != want {
				t.Errorf("%s: read %d events, want %d", name, n, want)
			}
		}
	})
}

// A window that is read of by those who come late stays, and another goes.
func TestBudgetSecondChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		for _, name := range []string{"t_a/1", "t_a/2", "t_a/3"} {
			e.add(name)
		}
		late, prompt := e.subscribe("t_a/1"), e.subscribe("t_a/2")
		e.grow("t_a/1", 3)
		for range 4 {
			e.grow("t_a/2", 1)
			e.read(prompt) // which is nothing but what an extension brings
		}
		e.read(late)
		e.grow("t_a/3", 4)
		e.wantWindows(map[string]bool{"t_a/1": true, "t_a/2": false, "t_a/3": true})
		// That was its second one.
		e.grow("t_a/2", 2)
		e.grow("t_a/3", 1)
		e.grow("t_a/2", 1)
		e.wantWindows(map[string]bool{"t_a/1": false, "t_a/3": true})
	})
}

// All that are read of are passed over, for the one that is not.
func TestBudgetSecondChances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		for _, name := range []string{"t_a/1", "t_a/2", "t_a/3"} {
			e.add(name)
			late := e.subscribe(name)
			e.grow(name, 2)
			if name != "t_a/3" {
				e.read(late)
			}
		}
		e.add("t_a/4")
		e.grow("t_a/4", 5)
		e.wantWindows(map[string]bool{"t_a/1": true, "t_a/2": true, "t_a/3": false, "t_a/4": true})
	})
}

// A window that was extended after somebody came late is as cold as any.
func TestBudgetNoChanceSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		for _, name := range []string{"t_a/1", "t_a/2", "t_a/3"} {
			e.add(name)
		}
		late := e.subscribe("t_a/1")
		e.grow("t_a/1", 2)
		e.read(late)
		e.grow("t_a/1", 1)
		e.grow("t_a/2", 4)
		e.grow("t_a/3", 4)
		e.wantWindows(map[string]bool{"t_a/1": false, "t_a/2": true, "t_a/3": true})
	})
}

// The budget may be used up to its last byte.
func TestBudgetExact(t *testing.T) {
	for _, short := range []int{0, 1} {
		t.Run(fmt.Sprint(short), bubble(func(t *testing.T) {
			const size = 1487 // of an event of entryData, where all numbers have one digit
			e := newEstate(t, 3*size-short)
			for _, name := range []string{"t_a/1", "t_a/2", "t_a/3"} {
				e.add(name)
				e.grow(name, 1)
			}
			if held := e.hub.WindowBytes(); held != (3-short)*size {
				t.Errorf("%d bytes held, want %d", held, (3-short)*size)
			}
		}))
	}
}

// However many windows are read of, one is emptied.
func TestBudgetAllRead(t *testing.T) {
	const streams = 100
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, streams*2*entry)
		for i := range streams {
			name := fmt.Sprint("t_a/", i)
			e.add(name)
			late := e.subscribe(name)
			e.grow(name, 2)
			e.read(late)
		}
		e.grow("t_a/0", 3)
		if n := e.hub.WindowEvictions(); n == 0 || e.hub.WindowBytes() > streams*2*entry {
			t.Fatalf("%d evictions, %d bytes", n, e.hub.WindowBytes())
		}
		e.wantWindows(map[string]bool{"t_a/0": true})
	})
}

// A tenant that floods pushes out its own windows, be they ever so much hotter
// than those of another, and gives way to one that wants as much.
func TestBudgetIsFair(t *testing.T) {
	const budget = 40 * entry
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, budget)
		e.add("t_quiet/1")
		e.grow("t_quiet/1", 10)
		for i := range 30 {
			e.add(fmt.Sprint("t_loud/", i))
		}
		for round := range 10 {
			for i := range 30 {
				e.grow(fmt.Sprint("t_loud/", (i+round)%30), 2)
			}
		}
		e.wantWindows(map[string]bool{"t_quiet/1": true})
		if n := e.hub.WindowEvictions(); n < 100 {
			t.Fatalf("%d evictions: it was no flood", n)
		}
		// What the quiet one may have it gets: half, with nothing of it lost.
		for i := range 8 {
			e.add(fmt.Sprint("t_quiet/late", i))
			e.grow(fmt.Sprint("t_quiet/late", i), 1)
			e.grow(fmt.Sprint("t_loud/", i), 1)
		}
		for name := range e.subs {
			if strings.HasPrefix(name, "t_quiet") {
				e.wantWindows(map[string]bool{name: true})
			}
		}
		if held := e.hub.WindowBytes(); held < budget*3/4 || held > budget {
			t.Errorf("%d bytes held of a budget of %d", held, budget)
		}
	})
}

// A stream alone keeps its newest entries, whatever the budget.
func TestBudgetOfOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		e.add("t_a/1")
		for range 40 {
			sub := e.subscribe("t_a/1")
			e.grow("t_a/1", 3)
			if held := e.hub.WindowBytes(); sub.Lags() || held == 0 || held > 10*entry {
				t.Fatalf("lags: %v, with %d bytes held", sub.Lags(), held)
			}
			sub.Close()
		}
		if n := e.hub.WindowEvictions(); n != 0 {
			t.Errorf("%d evictions of a window that was trimmed", n)
		}
	})
}

// A window that is emptied while it is being extended gets what is new, and what
// was emptied does not come back.
func TestBudgetEvictsDuringExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		a, b := e.add("t_a/1"), e.add("t_b/1")
		e.grow("t_a/1", 4)
		newer := e.subscribe("t_a/1")
		gate, key := make(chan struct{}), e.streams["t_a/1"].Key()
		e.journal.tapRead(func(_ context.Context, page journal.Page, err error) (journal.Page, error) {
			if len(page.Entries) > 0 && page.Entries[0].Owner == key {
				e.journal.mu.Unlock()
				<-gate
				e.journal.mu.Lock()
			}
			return page, err
		})
		e.grow("t_a/1", 1)
		e.grow("t_b/1", 3)
		e.add("t_a/2")
		e.grow("t_a/2", 4) // now t_a holds most, and of it the first is the coldest
		if !a.Lags() || b.Lags() {
			t.Fatalf("the windows are there: %v and %v, want only the second", !a.Lags(), !b.Lags())
		}
		close(gate)
		synctest.Wait()
		if newer.Lags() || !a.Lags() {
			t.Error("the window does not have just what came after it was emptied")
		}
		if got, want := e.hub.WindowBytes(), e.hub.Held(); got != want || got <= 7*entry || got > 8*entry {
			t.Errorf("%d bytes in the books, %d are held, want those of 8 events", got, want)
		}
		e.journal.tapRead(nil)
		if n := e.read(a); n != 5 {
			t.Errorf("read %d events, want 5", n)
		}
	})
}

// A stream whose last subscriber leaves while its window is being extended holds
// nothing afterwards.
func TestBudgetLeavesDuringExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstate(t, 10*entry)
		sub := e.add("t_a/1")
		e.grow("t_a/1", 2)
		gate := make(chan struct{})
		e.journal.tapRead(func(_ context.Context, page journal.Page, err error) (journal.Page, error) {
			e.journal.mu.Unlock()
			<-gate
			e.journal.mu.Lock()
			return page, err
		})
		e.grow("t_a/1", 1)
		sub.Close()
		if n := e.hub.WindowBytes(); n != 0 {
			t.Errorf("%d bytes held of a stream that all have left", n)
		}
		close(gate)
		synctest.Wait()
		if n := e.hub.WindowBytes(); n != 0 || e.hub.Tenants() != 0 {
			t.Errorf("%d bytes held, of %d tenants, after all have left", n, e.hub.Tenants())
		}
	})
}

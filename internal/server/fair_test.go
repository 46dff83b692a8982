package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// TestTenantsTakeTurns has links become ready, and taken, at random: each tenant
// that has some is served at least once in as many turns as there are tenants, its
// links in their order, and none is lost.
func TestTenantsTakeTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &engine{} // no workers
		tenants := make([]*share, rapid.IntRange(1, 6).Draw(t, "tenants"))
		waiting := make(map[*share][]*link)
		passed := make(map[*share]int) // others, since it was served or became ready
		for i := range tenants {
			tenants[i] = &share{}
		}
		take := func() {
			l := e.pop()
			s := l.share
			if waiting[s][0] != l {
				t.Fatal("a link was passed over by one of its own tenant")
			}
			waiting[s] = waiting[s][1:]
			passed[s] = 0
			for o, links := range waiting {
				if o == s || len(links) == 0 {
					continue
				}
				if passed[o]++; passed[o] >= len(tenants) {
					t.Fatalf("%d turns of %d tenants without one that is ready", passed[o], len(tenants))
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if e.ready > 0 && rapid.Bool().Draw(t, "take") {
				take()
				continue
			}
			s := rapid.SampledFrom(tenants).Draw(t, "tenant")
			if len(waiting[s]) == 0 {
				passed[s] = 0
			}
			for range rapid.IntRange(1, 20).Draw(t, "links") {
				l := &link{share: s}
				e.run(l)
				waiting[s] = append(waiting[s], l)
			}
		}
		for e.ready > 0 {
			take()
		}
		for _, links := range waiting {
			if len(links) > 0 {
				t.Fatalf("%d links are lost", len(links))
			}
		}
		if l := e.pop(); l != nil {
			t.Fatal("a link is ready twice")
		}
	})
}

// script is a rail of which gather is the given function.
type script struct {
	write  func() next
	lagged bool
}

func (s *script) gather(_ context.Context, out []byte) ([]byte, next, error) {
	then := s.write()
	if then == thenRest && s.lagged {
		s.lagged = false
		out = append(out, "x"...)
	}
	return out, then, nil
}
func (s *script) said(out []byte) []byte       { return out }
func (s *script) lags() bool                   { return s.lagged }
func (s *script) readable()                    {}
func (s *script) tick(now time.Time) time.Time { return now.Add(time.Hour) }
func (s *script) end(error)                    {}

// TestWorkerIsNotHeld has a link that always has more: the only worker turns to
// another tenant's link between its writes, and each time that is ready.
func TestWorkerIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t.Context(), -1)
		e.maxWorkers = 1
		var order strings.Builder
		var quiet *link
		greedy := newLink(e, tenant{id: "a"}, newWriteLog(), &script{write: func() next {
			order.WriteByte('a')
			if order.Len() > 100 {
				return thenRest
			}
			quiet.kick()
			return thenMore
		}}, nil)
		quiet = newLink(e, tenant{id: "b"}, newWriteLog(), &script{write: func() next {
			order.WriteByte('b')
			return thenRest
		}}, nil)
		greedy.kick()
		synctest.Wait()
		if got, want := order.String(), strings.Repeat("ab", 50)+"a"; got != want {
			t.Errorf("driven in the order %s, want %s", got, want)
		}
		greedy.close(nil)
		quiet.close(nil)
		e.close()
	})
}

// TestLaggingLinksAreBounded has many links of one tenant wait for the disk: so
// many at a time, and the others without a goroutine. Another tenant's go on.
func TestLaggingLinksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t.Context(), -1)
		e.maxDrivers = 2
		disk := make(chan struct{})
		var reading, most, done atomic.Int32
		lagging := func(id string, read func()) *link {
			return newLink(e, tenant{id: id}, newWriteLog(), &script{lagged: true, write: func() next {
				read()
				return thenRest
			}}, nil)
		}
		var links []*link
		for range 50 {
			links = append(links, lagging("a", func() {
				most.Store(max(most.Load(), reading.Add(1)))
				<-disk
				reading.Add(-1)
				done.Add(1)
			}))
		}
		for _, l := range links {
			l.kick()
		}
		synctest.Wait()
		if n := reading.Load(); n != 2 {
			t.Errorf("%d links of a tenant wait for the disk, want 2", n)
		}
		if n := links[0].share.lagging.len(); n != 48 {
			t.Errorf("%d links stand in line, want 48", n)
		}
		other := false
		links = append(links, lagging("b", func() { other = true }))
		links[50].kick()
		synctest.Wait()
		if !other {
			t.Error("another tenant's link waits for the disk's slow reads")
		}
		close(disk)
		synctest.Wait()
		if done.Load() != 50 || most.Load() != 2 {
			t.Errorf("%d of 50 links were driven, %d at once", done.Load(), most.Load())
		}
		for _, l := range links {
			if l.state.Load() != atRest {
				t.Error("a link is not at rest")
			}
			l.close(nil)
		}
		if len(e.shares.of) != 0 {
			t.Errorf("%d shares are left", len(e.shares.of))
		}
		e.close()
	})
}

// stuck is a connection whose peer takes nothing until it is closed.
type stuck struct{ *writeLog }

func (c stuck) Write([]byte) (int, error) {
	<-c.closed
	return 0, errors.New("closed")
}

// TestSlowPeersHoldNoPlace has peers that take nothing: neither a worker nor a
// driver waits for them.
func TestSlowPeersHoldNoPlace(t *testing.T) {
	for _, lags := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := newTestEngine(t.Context(), -1)
			e.maxDrivers, e.maxWorkers = 1, 1
			var links []*link
			for range 10 {
				l := newLink(e, tenant{id: "a"}, stuck{newWriteLog()}, &counter{t: t}, nil)
				l.rail.(*counter).due.Store(5)
				if !lags {
					l.rail.(*counter).due.Store(4)
				}
				l.kick()
				links = append(links, l)
			}
			synctest.Wait()
			nc := newWriteLog()
			l := newLink(e, tenant{id: "a"}, nc, &counter{t: t}, nil)
			l.rail.(*counter).due.Store(10)
			l.kick()
			synctest.Wait()
			if n := nc.bytes.Len(); n != 10 {
				t.Errorf("lags %v: %d of 10 bytes came through behind peers that take nothing", lags, n)
			}
			for _, l := range append(links, l) {
				l.close(nil)
			}
			synctest.Wait()
			if e.workers != 0 || l.share.drivers != 0 {
				t.Errorf("%d workers and %d drivers are left", e.workers, l.share.drivers)
			}
			e.close()
		})
	}
}

// TestPublishesOfATenantWait checks the line for the journal: its bound, its
// order, and that each tenant has one of its own.
func TestPublishesOfATenantWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shares{of: make(map[tenant]*share)}
		a, b := tenant{"t_a", "dev"}, tenant{"t_a", "prod"}
		take := s.takePublish
		if done, err := take(t.Context(), b, 1, 1); err != nil { // so that a is not alone
			t.Fatal(err)
		} else {
			done()
		}
		var held []func()
		for i := range publishUnits / 2 {
			events, bytes := unitEvents, 1 // 2 units
			if i%2 == 1 {
				events, bytes = 1, unitBytes
			}
			done, err := take(t.Context(), a, events, bytes)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, done)
		}
		if done, err := take(t.Context(), b, 100, 1<<20); err != nil {
			t.Errorf("another env: %v", err)
		} else {
			done()
		}
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		const waiting = maxWaiting / publishUnits
		for i := range waiting {
			wg.Go(func() {
				done, err := take(t.Context(), a, 100, 1<<20) // all units
				if err != nil {
					t.Errorf("%d: %v", i, err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				done()
			})
			synctest.Wait()
		}
		_, err := take(t.Context(), a, 1, 1)
		var e *twinrail.Error
		if !errors.As(err, &e) || e.Code != twinrail.CodeOverloaded || e.RetryAfter <= 0 || e.Code.Info().Retry != twinrail.RetryBackoff {
			t.Errorf("with %d waiting: %v", waiting, err)
		}
		if len(order) != 0 {
			t.Errorf("%d publishes did not wait", len(order))
		}
		for _, done := range held[1:] {
			done()
		}
		synctest.Wait()
		if len(order) != 0 {
			t.Errorf("%d publishes that need all places were let through with one still held", len(order))
		}
		held[0]()
		synctest.Wait()
		if len(order) != waiting || !slices.IsSorted(order) {
			t.Errorf("%d of %d were let through, in order: %v", len(order), waiting, slices.IsSorted(order))
		}
		wg.Wait()
		last, err := take(t.Context(), a, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		// Who gives up waiting leaves nothing behind.
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := take(ctx, a, 1, 1); !errors.Is(err, context.Canceled) {
				t.Errorf("the request ended: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		last()
		if len(s.of) != 0 {
			t.Errorf("%d shares are left", len(s.of))
		}
	})
}

// busyJournal counts what is under way.
type busyJournal struct {
	*heldJournal
	appending, reading atomic.Int32
}

func (j *busyJournal) Append(ctx context.Context, recs []journal.Record, e journal.Expect) ([]journal.Result, error) {
	j.appending.Add(1)
	defer j.appending.Add(-1)
	return j.heldJournal.Append(ctx, recs, e)
}

func (j *busyJournal) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	j.reading.Add(1)
	defer j.reading.Add(-1)
	return j.heldJournal.Bounds(ctx, r)
}

// TestJournalIsShared floods a journal that stands still, with publishes and
// history of one tenant: another one's come through to it.
func TestJournalIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &busyJournal{heldJournal: newHeldJournal()}
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		other := r.issuer.Token(authtest.Tenant("t_other"))
		swap := func(path string) string { return strings.Replace(path, "t_acme", "t_other", 1) }
		var wg sync.WaitGroup
		send := func(token, method, path, body string) {
			wg.Go(func() {
				if resp := r.do(method, path, body, as(token)); resp.status != http.StatusOK {
					t.Errorf("%s %s: %d %s", method, path, resp.status, resp.body)
				}
			})
		}
		send(other, "POST", swap(publishPath), `{"events":[`+commit(0)+`]}`)
		wg.Wait()
		openAppends, openBounds := j.appends.close(), j.bounds.close()
		for range 40 {
			send(r.token, "POST", publishPath, `{"events":[`+commit(1)+`]}`)
			send(r.token, "GET", historyPath, "")
		}
		synctest.Wait()
		if n, m := j.appending.Load(), j.reading.Load(); n != publishUnits || m != int32(bulk()) {
			t.Errorf("%d appends and %d reads of a tenant are under way, want %d and %d", n, m, publishUnits, bulk())
		}
		send(other, "POST", swap(publishPath), `{"events":[`+commit(1)+`]}`)
		send(other, "GET", swap(historyPath), "")
		synctest.Wait()
		if n, m := j.appending.Load(), j.reading.Load(); n != publishUnits+1 || m != int32(bulk()+1) {
			t.Errorf("%d appends and %d reads are under way, want another tenant's among them", n, m)
		}
		openAppends()
		openBounds()
		wg.Wait()
		if n := len(r.server.engine.shares.of); n != 0 {
			t.Errorf("%d shares are left", n)
		}
	})
}

// busyTable counts what is under way.
type busyTable struct {
	failingTable
	puts    gate
	putting atomic.Int32
}

func (t *busyTable) Put(key string, value []byte, d table.Durability) error {
	t.putting.Add(1)
	defer t.putting.Add(-1)
	t.puts.pass()
	return t.failingTable.Put(key, value, d)
}

// TestOpeningsAreShared has a tenant open connections faster than that goes, on
// either rail: so many are under way, and another tenant's goes on.
func TestOpeningsAreShared(t *testing.T) {
	for rail, c := range map[twinrail.Rail]struct {
		path string // of what is refused once it is opened
		want int
	}{
		twinrail.RailSSE: {canvasPath + "&on_reset=fail&cursor=x", http.StatusGone},
		twinrail.RailWS:  {wsPath, http.StatusServiceUnavailable},
	} {
		t.Run(string(rail), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, sessions := &busyJournal{heldJournal: newHeldJournal()}, new(busyTable)
				r := newBubbleRig(t, func(o *Options) { o.Journal, o.Sessions = j, sessions })
				sessions.fails.Store(true)
				var wg sync.WaitGroup
				open := func(who caller) {
					wg.Go(func() {
						resp := r.do("GET", who.at(c.path), "", append(as(who.token), handshakeHeader...))
						if resp.status != c.want {
							t.Errorf("%d %s", resp.status, resp.body)
						}
					})
				}
				busy, quiet := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
				open(quiet) // so that neither is alone
				wg.Wait()
				goOn := []func(){j.bounds.close(), sessions.puts.close()}
				for range 2 * openings() {
					open(busy)
				}
				synctest.Wait()
				underWay := func() int { return int(j.reading.Load() + sessions.putting.Load()) }
				if n := underWay(); n != openings() {
					t.Errorf("%d connections of a tenant are being opened, want %d", n, openings())
				}
				open(quiet)
				synctest.Wait()
				if n := underWay(); n != openings()+1 {
					t.Errorf("%d connections are being opened, want another tenant's among them", n)
				}
				for _, goes := range goOn {
					goes()
				}
				wg.Wait()
			})
		})
	}
}

// TestLoneTenant: who publishes alone is not held to the share that it has beside
// others.
func TestLoneTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shares{of: make(map[tenant]*share)}
		a, b := tenant{"t_a", "dev"}, tenant{"t_b", "dev"}
		free := func(who tenant) (n int) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			var held []func()
			for {
				done, err := s.takePublish(ctx, who, 1, 1)
				if err != nil {
					break
				}
				held = append(held, done)
			}
			for _, done := range held {
				done()
			}
			return len(held)
		}
		const all = publishUnits * loneFactor
		if n := free(a); n != all {
			t.Errorf("alone: %d publishes at a time, want %d", n, all)
		}
		if n := free(b); n != publishUnits {
			t.Errorf("beside another: %d, want %d", n, publishUnits)
		}
		time.Sleep(loneAfter / 2)
		if n := free(a); n != publishUnits {
			t.Errorf("half a second after another: %d, want %d", n, publishUnits)
		}
		time.Sleep(loneAfter / 2)
		if n := free(a); n != all {
			t.Errorf("a second after another: %d, want %d", n, all)
		}
	})
}

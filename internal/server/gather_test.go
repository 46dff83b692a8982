package server

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinrail/twinrail"
)

// writeLog is a connection that notes when it is written to. What is written is
// thrown away; nothing ever comes.
type writeLog struct {
	net.Conn
	mu     sync.Mutex
	at     []time.Time
	bytes  bytes.Buffer
	closed chan struct{}
}

func newWriteLog() *writeLog { return &writeLog{closed: make(chan struct{})} }

func (c *writeLog) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = append(c.at, time.Now())
	return c.bytes.Write(b)
}

func (c *writeLog) Read([]byte) (int, error) {
	<-c.closed
	return 0, net.ErrClosed
}

func (c *writeLog) Close() error {
	close(c.closed)
	return nil
}

func (c *writeLog) SetWriteDeadline(time.Time) error { return nil }

func (c *writeLog) writes(since time.Time) (at []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.at {
		if !t.Before(since) {
			at = append(at, t.Sub(since))
		}
	}
	return at
}

// counter is a rail that writes one byte for each thing that there is to say.
type counter struct {
	due, written atomic.Int64
	ended        atomic.Int64
	driving      atomic.Int32
	during       func() // called in gather, after it has looked; may be nil
	t            *testing.T
}

func (c *counter) gather(_ context.Context, out []byte) ([]byte, next, error) {
	if c.driving.Add(1) != 1 {
		c.t.Error("two gathers at once")
	}
	defer c.driving.Add(-1)
	n := c.due.Load() - c.written.Load()
	if during := c.during; during != nil {
		c.during = nil
		during()
	}
	// Now and then not all at once, as when a write is full.
	then := thenRest
	if n > 3 {
		n, then = 3, thenMore
	}
	c.written.Add(n)
	return append(out, make([]byte, n)...), then, nil
}

// said has nothing, and must not be called while gather is.
func (c *counter) said(out []byte) []byte {
	if c.driving.Add(1) != 1 {
		c.t.Error("said during gather")
	}
	c.driving.Add(-1)
	return out
}
func (c *counter) lags() bool                   { return c.due.Load()%5 == 0 }
func (c *counter) readable()                    {}
func (c *counter) tick(now time.Time) time.Time { return now.Add(time.Hour) }
func (c *counter) end(error)                    { c.ended.Add(1) }

func newTestEngine(ctx context.Context, gather time.Duration) *engine {
	o := Options{Gather: gather, MaxLateness: -1}
	o.setDefaults()
	return newEngine(ctx, &o, newMetrics(prometheus.NewRegistry()), peekWatcher{})
}

// TestGather checks when a link writes: at once after a pause, at the mark after
// a write, and at once again for what the peer waits for.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t.Context(), 5*time.Millisecond)
		rail, nc := &counter{t: t}, newWriteLog()
		l := newLink(e, tenant{}, nc, rail, nil)
		l.start()
		time.Sleep(time.Second)
		start := time.Now()
		say := func(after time.Duration, kick func()) {
			time.Sleep(time.Until(start.Add(after)))
			rail.due.Add(1)
			kick()
			synctest.Wait()
		}
		const ms = time.Millisecond
		say(0, l.kick)        // at once
		say(1*ms, l.kick)     // these three at the mark
		say(2*ms, l.kick)     //
		say(4*ms, l.kick)     //
		say(40*ms, l.kick)    // at once
		say(41*ms, l.kick)    // held, and taken along by
		say(42*ms, l.kickNow) // what is asked for
		say(43*ms, l.kick)    // at the mark after that
		time.Sleep(time.Second)
		want := []time.Duration{0, 5 * ms, 40 * ms, 42 * ms, 47 * ms}
		got := nc.writes(start)
		if !slices.EqualFunc(got, want, func(got, want time.Duration) bool { return got >= want-gatherTick && got <= want+gatherTick }) {
			t.Errorf("writes after %v, want %v", got, want)
		}
		if n := nc.bytes.Len(); n != 8 {
			t.Errorf("%d bytes were written, want 8", n)
		}
		l.close(nil)
		e.close()
	})
}

// TestGatherOfRails merges what is published to both rails within an interval,
// and answers a client's own request in it.
func TestGatherOfRails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		p := r.peer()
		p.live("a")
		time.Sleep(time.Second)
		r.commits(0, 1)
		r.chats(0, 1)
		c.event()
		p.event("a")
		start := time.Now()
		time.Sleep(time.Millisecond)
		r.commits(1, 2)
		r.chats(1, 2)
		c.event()
		if waited := time.Since(start); waited < 4*time.Millisecond || waited > 7*time.Millisecond {
			t.Errorf("the next event came after %v, want the gather interval", waited)
		}
		p.event("a")
		start = time.Now()
		p.say(`{"op":"ping"}`)
		p.want(twinrail.OpPong)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("an answer waited %v", waited)
		}
	})
}

// TestLinkKickedWhileDriven has the last wake come when the rail has already
// looked for what there is: it must look again.
func TestLinkKickedWhileDriven(t *testing.T) {
	for name, kick := range map[string]func(*link){"kick": (*link).kick, "kickNow": (*link).kickNow} {
		synctest.Test(t, func(t *testing.T) {
			e := newTestEngine(t.Context(), 5*time.Millisecond)
			rail := &counter{t: t}
			l := newLink(e, tenant{}, newWriteLog(), rail, nil)
			rail.during = func() {
				rail.due.Add(1)
				kick(l)
			}
			l.start()
			time.Sleep(time.Second)
			if rail.written.Load() != 1 || l.state.Load() != atRest {
				t.Errorf("%s: %d of 1 written, state %d", name, rail.written.Load(), l.state.Load())
			}
			l.close(nil)
			e.close()
		})
	}
}

// TestLinkLosesNoWake kicks links from many goroutines while they are driven:
// whatever the order, all that was said is written in the end.
func TestLinkLosesNoWake(t *testing.T) {
	for _, gather := range []time.Duration{-1, 2 * time.Millisecond} {
		ctx, cancel := context.WithCancel(context.Background())
		e := newTestEngine(ctx, gather)
		rails := make([]*counter, 8)
		links := make([]*link, len(rails))
		for i := range rails {
			rails[i] = &counter{t: t}
			links[i] = newLink(e, tenant{}, newWriteLog(), rails[i], nil)
			links[i].start()
		}
		const kickers, kicks = 4, 2000
		var wg sync.WaitGroup
		for k := range kickers {
			wg.Go(func() {
				for i := range kicks {
					l := (i + k) % len(links)
					rails[l].due.Add(1)
					if i%3 == k {
						links[l].kickNow()
					} else {
						links[l].kick()
					}
				}
			})
		}
		wg.Wait()
		for i := range links {
			eventually(t, "all is written", func() bool { return rails[i].written.Load() == kickers*kicks/int64(len(rails)) })
			eventually(t, "the link is at rest", func() bool { return links[i].state.Load() == atRest })
			// Once more from rest.
			rails[i].due.Add(1)
			links[i].kick()
			eventually(t, "the last is written", func() bool { return rails[i].written.Load() == rails[i].due.Load() })
		}
		for i, l := range links {
			l.close(nil)
			l.close(nil)
			if n := rails[i].ended.Load(); n != 1 {
				t.Errorf("ended %d times", n)
			}
		}
		e.close()
		cancel()
	}
}

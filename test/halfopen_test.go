package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/twinrail/twinrail"
	twinclient "github.com/twinrail/twinrail/client"
)

// The ways that a black hole swallows.
const (
	toClients = "downstream"
	toServer  = "upstream"
)

// hole swallows what goes in these ways, ends of connections included, and keeps
// all open: what is left of a connection whose network is gone.
func (n *network) hole(ways ...string) {
	n.t.Helper()
	for _, way := range ways {
		toxic := fmt.Sprintf(`{"name":"hole-%s","type":"latency","stream":%q,"attributes":{"latency":3600000}}`, way, way)
		if _, err := n.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			n.t.Fatal(err)
		}
	}
}

// heal ends a hole. Everything arrives after all, as it does when TCP sends it again;
// toxiproxy takes some seconds for each connection.
func (n *network) heal(ways ...string) {
	n.t.Helper()
	for _, way := range ways {
		n.remove("hole-" + way)
	}
}

// renew ends a hole by having another network in this one's place, in which there are
// no connections yet.
func (n *network) renew() {
	n.t.Helper()
	listen, upstream := n.proxy.Listen, n.proxy.Upstream
	n.proxy.Stop()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	n.proxy = toxiproxy.NewProxy(server, "network", listen, upstream)
	n.start()
	n.t.Cleanup(n.proxy.Stop)
}

// ownFollower is a follower of this project's own client, and why it lost its
// connections.
type ownFollower struct {
	*follower

	mu     sync.Mutex
	causes []error
}

// heartbeat is the server's in these tests; a client is silent for two and a half. A
// busy machine must not take as long for an answer.
const heartbeat = 2 * time.Second

// followOwn follows a stream with the Go client: a canvas, or a thread in which it is
// present.
func followOwn(t *testing.T, tg target) *ownFollower {
	t.Helper()
	f := &ownFollower{follower: newFollower("the Go client")}
	c, err := twinclient.New(twinclient.Options{
		URL: "http://" + tg.addr, Token: tg.token, Silence: heartbeat * 5 / 2,
		Backoff: twinclient.Backoff{Base: 50 * time.Millisecond, Max: 200 * time.Millisecond},
		OnRetry: func(cause error, _ time.Duration) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.causes = append(f.causes, cause)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	o := twinclient.FollowOptions{From: twinrail.CursorEarliest}
	follow := c.FollowCanvas
	if tg.routing.ThreadID != "" {
		follow, o.Presence = c.FollowThread, []byte(`"here"`)
	}
	join(t, func(ctx context.Context) {
		for item, err := range follow(ctx, tg.routing, o) {
			switch {
			case err != nil && ctx.Err() != nil:
			case err != nil:
				f.failed(err.Error())
			case item.Kind == twinclient.KindOpen:
				f.opened()
			case item.Kind == twinclient.KindEvent:
				f.saw(item.Cursor, string(item.Raw))
			case item.Kind == twinclient.KindReset:
				f.failed(fmt.Sprintf("reset: %+v", item.Reset))
			}
		}
	})
	return f
}

// cause waits for the first loss of a connection, and returns why it was.
func (f *ownFollower) cause(t *testing.T) error {
	t.Helper()
	var cause error
	eventually(t, "the client finds its connection lost", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.causes) > 0 {
			cause = f.causes[0]
		}
		return cause != nil
	})
	return cause
}

// watcher is told of who comes and goes in a thread.
type watcher struct {
	mu      sync.Mutex
	changes []string
}

// watch watches from the server's own side of the network, as a stranger.
func watch(t *testing.T, g *gateway, r twinrail.Routing) *watcher {
	t.Helper()
	w := &watcher{}
	c, err := twinclient.New(twinclient.Options{URL: "http://" + g.addr, Token: g.token(stranger)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ready := make(chan struct{})
	join(t, func(ctx context.Context) {
		opened := false
		for item, err := range c.FollowPresence(ctx, r, nil) {
			switch {
			case err != nil:
				w.add("ended", fmt.Sprint(err))
			case item.Kind == twinclient.KindOpen && opened:
				w.add("came back", "")
			case item.Presence == nil:
			case !opened:
				opened = true
				close(ready)
			default:
				for _, m := range item.Presence.Leave {
					w.add("leave", m.ActorID)
				}
				for _, m := range item.Presence.Join {
					w.add("join", m.ActorID)
				}
				for _, m := range item.Presence.Update {
					w.add("update", m.ActorID)
				}
			}
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatalf("nobody watches after %v", patience)
	}
	return w
}

func (w *watcher) add(what, who string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changes = append(w.changes, strings.TrimSpace(what+" "+who))
}

func (w *watcher) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.changes)
}

// sees waits until the watcher has seen these changes, and fails if it sees others.
func (w *watcher) sees(t *testing.T, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := w.seen()
		if slices.Equal(got, want) {
			return
		}
		if len(got) >= len(want) || time.Now().After(deadline) {
			t.Fatalf("saw %q, and not %q", got, want)
		}
	}
}

// TestHalfOpenWS has the network swallow what goes one way or both, for longer than
// two heartbeats, while events are published. Whoever hears nothing gives the
// connection up, and the client comes back by resume, with nothing lost. The others
// see it leave only where the network is gone for longer than the grace.
func TestHalfOpenWS(t *testing.T) {
	slow(t)
	for name, test := range map[string]struct {
		ways       []string
		grace      time.Duration
		cause      string // what the client gives up for
		serverGone float64
		changes    []string // that others see
	}{
		"the server hears nothing": {[]string{toServer}, time.Minute, string(twinrail.CodeHeartbeatLost), 1, nil},
		"the client hears nothing": {[]string{toClients}, time.Minute, "nothing was heard", 0, nil},
		"nobody hears anything":    {[]string{toServer, toClients}, time.Minute, "nothing was heard", 1, nil},
		"longer than the grace":    {[]string{toServer, toClients}, time.Second, "nothing was heard", 1, []string{"leave " + reader, "join " + reader}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, "--heartbeat", heartbeat.String(), "--presence-grace", test.grace.String())
			n := startNetwork(t, g.addr)
			p := newPublisher(g, thread("th1"))
			w := watch(t, g, p.routing)
			f := followOwn(t, target{addr: n.proxy.Listen, token: g.token(reader), routing: p.routing})
			f.catchUp(t, p)
			w.sees(t, "join "+reader)

			n.hole(test.ways...)
			start := time.Now()
			if err := p.publish(t.Context(), 20, 1<<10); err != nil {
				t.Fatal(err)
			}
			if cause := f.cause(t); !strings.Contains(cause.Error(), test.cause) {
				t.Errorf("the client gave up for: %v", cause)
			}
			t.Logf("the client gave up after %v", time.Since(start))
			lost := func() float64 {
				return g.metricSum(`twinrail_connections_closed_total{code="heartbeat_lost",rail="ws"}`)
			}
			eventually(t, "the server has given up", func() bool { return lost() == test.serverGone })
			want := []string{"join " + reader}
			if len(test.changes) > 0 {
				want = append(want, test.changes[0])
				w.sees(t, want...)
			}

			n.renew()
			f.catchUp(t, p)
			checkFollower(t, f.follower, p.check(t), twinrail.RailWS)
			if got := g.metricSum(`twinrail_resumes_total{code=""}`); got < 1 {
				t.Error("no session was resumed")
			}
			if len(test.changes) > 0 {
				want = append(want, test.changes[1:]...)
			}
			w.sees(t, want...)
		})
	}
}

// catchUp publishes, and waits until the follower has seen everything.
func (f *ownFollower) catchUp(t *testing.T, p *publisher) {
	t.Helper()
	if err := p.publish(t.Context(), 20, 1<<10); err != nil {
		t.Fatal(err)
	}
	n := p.forReader()
	if err := f.wait(func(seen []sighting, _ int) bool { return len(seen) >= n }); err != nil {
		t.Fatal(err)
	}
}

// TestHalfOpenSSE has the network swallow everything under a follower of a canvas,
// while there is nothing to be heard but the server's comments.
func TestHalfOpenSSE(t *testing.T) {
	slow(t)
	t.Parallel()
	g := startGateway(t, "--heartbeat", heartbeat.String())
	n := startNetwork(t, g.addr)
	p := newPublisher(g, canvas("c1"))
	f := followOwn(t, target{addr: n.proxy.Listen, token: g.token(reader), routing: p.routing})
	f.catchUp(t, p)
	time.Sleep(4 * heartbeat)
	if f.mu.Lock(); len(f.causes) > 0 {
		t.Errorf("a quiet connection was lost: %v", f.causes[0])
	}
	f.mu.Unlock()
	n.hole(toClients, toServer)
	if cause := f.cause(t); !strings.Contains(cause.Error(), "nothing was heard") {
		t.Errorf("the client gave up for: %v", cause)
	}
	if err := p.publish(t.Context(), 20, 1<<10); err != nil {
		t.Fatal(err)
	}
	n.renew()
	f.catchUp(t, p)
	checkFollower(t, f.follower, p.check(t), twinrail.RailSSE)
	// The server is rid of what hung.
	eventually(t, "one connection is left", func() bool {
		return g.metricSum(`twinrail_connections{rail="sse"}`) == 1
	})
}

// member is a connection in a thread, spoken by hand, and what it was told.
type member struct {
	wsPeer
	follower *follower
	token    string // to resume with
	ended    chan error
}

// enter opens a connection and sends its first frame. It reads on until it ends.
func enter(t *testing.T, addr, actorToken string, first twinrail.ClientFrame) *member {
	t.Helper()
	peer, err := dialWS(t.Context(), addr, actorToken)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.CloseNow() })
	m := &member{wsPeer: peer, follower: newFollower(first.Op), ended: make(chan error, 1)}
	if err := peer.send(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	join(t, func(ctx context.Context) { m.ended <- m.read(ctx) })
	return m
}

func (m *member) read(ctx context.Context) error {
	for {
		frame, err := m.receive(ctx)
		if err != nil {
			return err
		}
		switch frame.Op {
		case twinrail.OpJoined, twinrail.OpResumed:
			m.token = frame.ResumeToken // before opened says so
			m.follower.opened()
		case twinrail.OpEvent:
			m.follower.saw(cursorOf(frame.Event), string(frame.Event))
		case twinrail.OpReset:
			m.follower.failed("reset")
		case twinrail.OpError:
			if frame.Code != twinrail.CodeSessionTakenOver {
				m.follower.failed(string(frame.Code))
			}
		}
	}
}

func (m *member) waitFor(t *testing.T, n int) []sighting {
	t.Helper()
	if err := m.follower.wait(func(seen []sighting, opens int) bool { return opens == 1 && len(seen) >= n }); err != nil {
		t.Fatal(err)
	}
	seen, _, _ := m.follower.state()
	return seen
}

// TestTakeOver resumes a session while its connection hangs half-open. The new one
// goes on where the client was, the old one learns that it is over once the network
// has healed, and the others have seen nothing of it.
func TestTakeOver(t *testing.T) {
	slow(t)
	t.Parallel()
	const grace = 50 * time.Millisecond // who is not held any more leaves soon
	g := startGateway(t, "--presence-grace", grace.String())
	n := startNetwork(t, g.addr)
	p := newPublisher(g, thread("th1"))
	publish := func() int {
		t.Helper()
		if err := p.publish(t.Context(), 20, 1<<10); err != nil {
			t.Fatal(err)
		}
		return p.forReader()
	}
	w := watch(t, g, p.routing)
	token := g.token(reader)
	old := enter(t, n.proxy.Listen, token, twinrail.ClientFrame{
		Op: twinrail.OpJoin, Sub: "s", Routing: &p.routing, After: twinrail.CursorEarliest,
		Channels: []twinrail.Channel{twinrail.Chat, twinrail.Tool, twinrail.Presence}, Presence: []byte(`{"at":1}`),
	})
	before := old.waitFor(t, publish())
	w.sees(t, "join "+reader)

	n.hole(toClients, toServer)
	publish()
	resumed := enter(t, g.addr, token, twinrail.ClientFrame{
		Op: twinrail.OpResume, ResumeToken: old.token, Cursors: map[string]string{"s": before[len(before)-1].id},
	})
	resumed.waitFor(t, 0)
	atTakeOver := p.forReader()
	after := resumed.waitFor(t, publish()-len(before))

	n.heal(toClients, toServer)
	select {
	case err := <-old.ended:
		if websocket.CloseStatus(err) != 4009 {
			t.Errorf("the old connection ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the old connection has not ended")
	}
	if seen, _, bad := old.follower.state(); len(seen) > atTakeOver || len(bad) > 0 {
		t.Errorf("the old connection saw %d events, of which %d were there when it was taken over: %v", len(seen), atTakeOver, bad)
	}

	whole := newFollower("the client")
	whole.seen = append(before, after...)
	checkFollower(t, whole, p.check(t), twinrail.RailWS)
	eventually(t, "the server is done with the old connection", func() bool {
		return g.metricSum(`twinrail_connections_closed_total{code="session_taken_over",rail="ws"}`) == 1
	})
	time.Sleep(10 * grace)
	// The marker comes after whatever else there was to be told.
	enter(t, g.addr, g.token(writer), twinrail.ClientFrame{
		Op: twinrail.OpJoin, Sub: "s", Routing: &p.routing, Presence: []byte(`1`),
	})
	w.sees(t, "join "+reader, "join "+writer)
	select {
	case err := <-resumed.ended:
		t.Errorf("the new connection has ended: %v", err)
	default:
	}
}

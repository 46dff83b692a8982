package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// The streams of the load: those that are followed, each with a canvas and a
// thread, beside any number that are written to once.
const soakStreams = 12

// soakRouting is [query].
func soakRouting() twinrail.Routing {
	return twinrail.Routing{TenantID: "t_bench", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "a1"}
}

func hotID() string { return "s" + strconv.Itoa(rand.IntN(soakStreams)) }

// soakLoad is the clients.
type soakLoad struct {
	s *soaking
	n int
	// The connections of followers are cut now and then, those that publish are
	// not: what became of a publish would be open.
	steady, shaky *http.Transport
	publisher     *client.Client
	gesturers     []*client.Client
	followers     []*client.Client
}

func (s *soaking) newLoad(n int) (*soakLoad, error) {
	l := &soakLoad{s: s, n: n, steady: &http.Transport{MaxIdleConnsPerHost: 64}, shaky: &http.Transport{DialContext: s.cuts.dial}}
	var err error
	if l.publisher, err = s.client("u_1", l.steady); err != nil {
		return nil, err
	}
	for i := range 4 {
		g, err := s.client(fmt.Sprint("u_g", i), l.steady)
		if err != nil {
			return nil, err
		}
		f, err := s.client(fmt.Sprint("u_f", i), l.shaky)
		if err != nil {
			return nil, err
		}
		l.gesturers, l.followers = append(l.gesturers, g), append(l.followers, f)
	}
	return l, nil
}

func (l *soakLoad) close() {
	l.steady.CloseIdleConnections()
	l.shaky.CloseIdleConnections()
}

// run is the load, until ctx ends.
func (l *soakLoad) run(ctx context.Context) {
	var all sync.WaitGroup
	repeat := func(pause time.Duration, do func()) {
		all.Go(func() {
			for ctx.Err() == nil {
				do()
				sleep(ctx, rand.N(2*pause))
			}
		})
	}
	for range 8 {
		repeat(20*time.Millisecond, func() { l.publish(ctx) })
	}
	for _, g := range l.gesturers {
		repeat(50*time.Millisecond, func() { l.gesture(ctx, g) })
	}
	for i := range l.n {
		f := l.followers[i%len(l.followers)]
		slow := i%5 == 0
		repeat(200*time.Millisecond, func() { l.followCanvas(ctx, f, slow) })
		repeat(200*time.Millisecond, func() { l.followThread(ctx, f, slow) })
	}
	for i := range max(l.n/4, 1) {
		f := l.followers[i%len(l.followers)]
		repeat(200*time.Millisecond, func() { l.bePresent(ctx, f) })
	}
	for range 4 {
		repeat(time.Second, func() { l.stall(ctx) })
	}
	repeat(100*time.Millisecond, l.s.cuts.cut)
	all.Wait()
}

// publish stores some events in a stream, or one in a stream that nobody knows.
func (l *soakLoad) publish(ctx context.Context) {
	channel := []twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Chat, twinrail.Tool}[rand.IntN(4)]
	id, n := hotID(), 1+rand.IntN(5)
	if rand.IntN(4) == 0 {
		id, n = "cold"+strconv.FormatInt(l.s.published.Load(), 36), 1
	}
	routing := soakRouting()
	if channel.In(twinrail.CanvasStream) {
		routing.CanvasID = id
	} else {
		routing.ThreadID = id
	}
	events := make([]twinrail.NewEvent, n)
	for i := range events {
		data := fmt.Sprintf(`{"kind":"preview","text":%q}`, strings.Repeat("x", rand.IntN(3000)))
		events[i] = twinrail.NewEvent{Channel: channel, Type: "soak", Data: json.RawMessage(data)}
	}
	_, err := l.publisher.Publish(ctx, routing, twinrail.PublishRequest{Events: events})
	l.s.fail(ctx, err)
	if err == nil {
		l.s.published.Add(int64(n))
	}
}

func (l *soakLoad) gesture(ctx context.Context, from *client.Client) {
	routing := soakRouting()
	routing.CanvasID = hotID()
	e := twinrail.NewEvent{Channel: twinrail.Gesture, Type: "pointer", Data: json.RawMessage(strconv.Itoa(rand.IntN(1000)))}
	_, err := from.Publish(ctx, routing, twinrail.PublishRequest{Events: []twinrail.NewEvent{e}})
	l.s.fail(ctx, err)
	if err == nil {
		l.s.gestures.Add(1)
	}
}

func (l *soakLoad) followCanvas(ctx context.Context, c *client.Client, slow bool) {
	routing := soakRouting()
	routing.CanvasID = hotID()
	o := client.FollowOptions{Channels: []twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Gesture}}
	l.follow(ctx, slow, o, func(ctx context.Context, o client.FollowOptions) iter.Seq2[client.Item, error] {
		return c.FollowCanvas(ctx, routing, o)
	})
}

func (l *soakLoad) followThread(ctx context.Context, c *client.Client, slow bool) {
	routing := soakRouting()
	routing.ThreadID = hotID()
	o := client.FollowOptions{Presence: json.RawMessage(`{"at":"thread"}`)}
	l.follow(ctx, slow, o, func(ctx context.Context, o client.FollowOptions) iter.Seq2[client.Item, error] {
		return c.FollowThread(ctx, routing, o)
	})
}

func (l *soakLoad) bePresent(ctx context.Context, c *client.Client) {
	routing := soakRouting()
	routing.CanvasID = hotID()
	l.follow(ctx, false, client.FollowOptions{}, func(ctx context.Context, _ client.FollowOptions) iter.Seq2[client.Item, error] {
		return c.FollowPresence(ctx, routing, json.RawMessage(strconv.Itoa(rand.IntN(1000))))
	})
}

// follow follows a stream three times: from its head, or now and then from its
// beginning, and from where it was when it had left.
func (l *soakLoad) follow(ctx context.Context, slow bool, o client.FollowOptions, start func(context.Context, client.FollowOptions) iter.Seq2[client.Item, error]) {
	if rand.IntN(20) == 0 {
		o.From = twinrail.CursorEarliest
	}
	var last uint64 // seq of the last event
	for range 3 {
		stay, leave := context.WithTimeout(ctx, 200*time.Millisecond+rand.N(10*time.Second))
		for item, err := range start(stay, o) {
			l.s.fail(stay, err)
			switch {
			case err != nil:
				continue // it was the last
			case item.Kind == client.KindReset:
				l.s.fail(stay, fmt.Errorf("a reset, for %s, where all is retained", item.Reset.Reason))
			case item.Kind == client.KindEvent:
				l.s.delivered.Add(1)
				l.s.fail(stay, follows(&last, item.Event))
				if slow {
					sleep(stay, 20*time.Millisecond)
				}
			}
			if item.Cursor != "" {
				o.From = item.Cursor
			}
		}
		leave()
		sleep(ctx, rand.N(time.Second))
	}
}

// follows checks that e, of a stream all of which is followed, comes right after
// the event at last.
func follows(last *uint64, e *twinrail.Event) error {
	before := *last
	if e.Seq == 0 { // a gesture
		return nil
	}
	*last = e.Seq
	if before != 0 && (e.Prev == nil || *e.Prev != before) {
		return fmt.Errorf("after seq %d came %d, which follows on another", before, e.Seq)
	}
	return nil
}

// stall asks for all there is, and reads nothing of it for a while.
func (l *soakLoad) stall(ctx context.Context) {
	token, err := l.s.token("u_slow")
	if err != nil {
		l.s.fail(ctx, err)
		return
	}
	conn, _, err := target{l.s.target.addr, token}.dial(twinrail.RailSSE, twinrail.CursorEarliest)
	if err != nil {
		l.s.fail(ctx, err)
		return
	}
	defer conn.Close()
	sleep(ctx, rand.N(20*time.Second))
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// cutter holds connections that can be cut.
type cutter struct {
	mu    sync.Mutex
	conns map[*cutConn]struct{}
}

type cutConn struct {
	net.Conn
	from *cutter
}

func (c *cutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	cc := &cutConn{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[cc] = struct{}{}
	return cc, nil
}

// cut ends one of the connections, whichever it is.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		_ = conn.Conn.Close()
		return
	}
}

// Close implements [net.Conn].
func (c *cutConn) Close() error {
	c.from.mu.Lock()
	defer c.from.mu.Unlock()
	delete(c.from.conns, c)
	return c.Conn.Close()
}

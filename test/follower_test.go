package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/tmaxmax/go-sse"

	"github.com/twinrail/twinrail"
)

// sighting is one event as a client that nobody here wrote gave it out.
type sighting struct {
	id   string // the last event id, or the cursor
	text string // the event's JSON
}

// follower is what one such client has seen.
type follower struct {
	name string

	mu    sync.Mutex
	seen  []sighting
	opens int      // connections made
	bad   []string // what must not happen
	news  chan struct{}
}

func newFollower(name string) *follower {
	return &follower{name: name, news: make(chan struct{}, 1)}
}

func (f *follower) update(fn func()) {
	f.mu.Lock()
	fn()
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *follower) opened() { f.update(func() { f.opens++ }) }
func (f *follower) saw(id, text string) {
	f.update(func() { f.seen = append(f.seen, sighting{id, text}) })
}
func (f *follower) failed(why string) { f.update(func() { f.bad = append(f.bad, why) }) }

func (f *follower) state() (seen []sighting, opens int, bad []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[:len(f.seen):len(f.seen)], f.opens, f.bad[:len(f.bad):len(f.bad)]
}

// wait blocks until reached holds of what was seen; it returns an error when
// patience is over, or as soon as something happened that must not.
func (f *follower) wait(reached func(seen []sighting, opens int) bool) error {
	deadline := time.After(patience)
	for {
		seen, opens, bad := f.state()
		switch {
		case len(bad) > 0:
			return fmt.Errorf("%s: %s", f.name, bad[0])
		case reached(seen, opens):
			return nil
		}
		select {
		case <-f.news:
		case <-deadline:
			return fmt.Errorf("%s: still waiting after %v, with %d events seen on %d connections", f.name, patience, len(seen), opens)
		}
	}
}

// target is what a follower follows, and how it is to behave.
type target struct {
	addr    string // of the server, or of what stands before it
	origin  string // of the pages of a browser, which the server allows
	token   string
	routing twinrail.Routing
	gate    *gate // where the client stops at its first event, or nil
}

// gate is where clients stand still, reading nothing, until it is opened.
type gate struct {
	file   string // there once it is open
	opened chan struct{}
}

func newGate(t testing.TB) *gate {
	return &gate{filepath.Join(t.TempDir(), "open"), make(chan struct{})}
}

// open lets all through, from now on. A test that makes a gate defers it, since
// who stands there cannot be told to end.
func (g *gate) open(t testing.TB) {
	t.Helper()
	select {
	case <-g.opened:
		return
	default:
	}
	if err := os.WriteFile(g.file, nil, 0o600); err != nil {
		t.Error(err)
	}
	close(g.opened)
}

// stand returns when the gate is open.
func (g *gate) stand() {
	if g != nil {
		<-g.opened
	}
}

// path returns the name of the gate's file, or "" where there is no gate.
func (g *gate) path() string {
	if g == nil {
		return ""
	}
	return g.file
}

func (tg target) sseURL() string {
	q := query(tg.routing)
	q.Set("cursor", twinrail.CursorEarliest)
	return "http://" + tg.addr + twinrail.PathSSECanvases + tg.routing.CanvasID + "?" + q.Encode()
}

func (tg target) wsURL() string {
	return "ws://" + tg.addr + twinrail.PathWS + "?" + query(twinrail.Routing{TenantID: tenant, Env: env}).Encode()
}

// followGoSSE follows a canvas with github.com/tmaxmax/go-sse, which reconnects
// by itself.
func followGoSSE(t testing.TB, tg target) *follower {
	t.Helper()
	f := newFollower("go-sse")
	transport := &http.Transport{}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tg.sseURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = credentials(tg.token)
	client := sse.Client{
		HTTPClient: &http.Client{Transport: transport},
		ResponseValidator: func(r *http.Response) error {
			f.opened()
			return sse.DefaultValidator(r)
		},
		Backoff: sse.Backoff{Multiplier: 1, Jitter: 0.1},
	}
	conn := client.NewConnection(req)
	conn.Buffer(nil, 1<<20)
	conn.SubscribeToAll(func(e sse.Event) {
		switch e.Type {
		case string(twinrail.Commit), string(twinrail.Artifact):
			f.saw(e.LastEventID, e.Data)
			tg.gate.stand()
		case twinrail.SSEReset, twinrail.SSEEnd:
			f.failed(e.Type + ": " + e.Data)
		}
	})
	join(t, func(ctx context.Context) {
		defer transport.CloseIdleConnections()
		if err := conn.Connect(); !errors.Is(err, context.Canceled) {
			f.failed(fmt.Sprintf("gave up: %v", err))
		}
	})
	return f
}

// join runs fn until the test ends, when its context is done, and waits for it.
func join(t testing.TB, fn func(ctx context.Context)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(t.Context())
	}()
	t.Cleanup(func() { <-done }) // the context is done before cleanups run
}

// followGoWS follows a thread with github.com/coder/websocket. It comes back by
// itself, and joins after the last cursor that it saw.
func followGoWS(t testing.TB, tg target) *follower {
	t.Helper()
	f := newFollower("coder/websocket")
	join(t, func(ctx context.Context) {
		after := twinrail.CursorEarliest
		for ctx.Err() == nil {
			readGoWS(ctx, f, &tg, &after)
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	return f
}

// readGoWS is one connection of followGoWS. Whatever ends it, the next one goes
// on from after.
func readGoWS(ctx context.Context, f *follower, tg *target, after *string) {
	dialCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(dialCtx, tg.wsURL(), &websocket.DialOptions{
		HTTPHeader: credentials(tg.token), Subprotocols: []string{twinrail.Subprotocol},
	})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	f.opened()
	frame, err := json.Marshal(twinrail.ClientFrame{Op: twinrail.OpJoin, Sub: "s", Routing: &tg.routing, After: *after})
	if err != nil {
		f.failed(err.Error())
		return
	}
	if conn.Write(ctx, websocket.MessageText, frame) != nil {
		return
	}
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var frame twinrail.ServerFrame
		if err := json.Unmarshal(message, &frame); err != nil {
			f.failed(err.Error())
			return
		}
		switch frame.Op {
		case twinrail.OpEvent:
			*after = cursorOf(frame.Event)
			f.saw(*after, string(frame.Event))
			tg.gate.stand()
		case twinrail.OpPing:
			if conn.Write(ctx, websocket.MessageText, []byte(`{"op":"pong"}`)) != nil {
				return
			}
		case twinrail.OpReset, twinrail.OpError:
			if frame.Action != twinrail.ActionResume {
				f.failed(string(message))
			}
			return
		}
	}
}

// cursorOf returns the cursor in an event's JSON.
func cursorOf(event []byte) string {
	var e struct {
		Cursor string `json:"cursor"`
	}
	_ = json.Unmarshal(event, &e) // without a cursor the comparison says so
	return e.Cursor
}

package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// TestChromiumEventSourceOutlivesTheServer kills the server under a native
// EventSource, and starts it again on the same data some time later. The page
// does nothing about it.
func TestChromiumEventSourceOutlivesTheServer(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	origin := servePages(t, nil)
	g := startGateway(t, "--allowed-origin", origin)
	p := newPublisher(g, canvas("c1"))
	f := followChromiumSSE(t, target{addr: g.addr, origin: origin, token: g.token(reader), routing: p.routing})
	for round := 1; round <= 3; round++ {
		if err := p.publish(t.Context(), 20, 1<<10); err != nil {
			t.Fatal(err)
		}
		n := p.forReader()
		err := f.wait(func(seen []sighting, opens int) bool { return len(seen) >= n && opens >= round })
		if err != nil {
			t.Fatal(err)
		}
		g.kill()
		time.Sleep(time.Second)
		g.start()
	}
	checkFollower(t, f, p.check(t), twinrail.RailSSE)
}

// TestChromiumTabsChat has two tabs talk to each other over native WebSockets
// with their credentials as subprotocols, both ways, through a kill -9 in the
// middle of the talk.
func TestChromiumTabsChat(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	g := startGateway(t)
	b := startBrowser(t)
	origin := servePages(t, nil)
	tabs := []string{"u_ann", "u_bob"}
	followers := make(map[string]*follower)
	for _, tab := range tabs {
		followers[tab] = b.open(tab, origin+"/websocket.html", nil)
		b.mustCall(tab, "follow", target{addr: g.addr}.wsURL(), g.token(tab), thread("th1"), "")
	}
	joined := func(opens int) {
		t.Helper()
		waitAll(t, "joining", followers, func(_ *follower, _ []sighting, n int) bool { return n >= opens })
	}
	joined(1)
	const lines = 20
	var want []string
	for i := range lines {
		if i == lines/2 {
			g.kill()
			g.start()
			joined(2)
		}
		want = append(want, chat(t, b, g, tabs[i%2], i))
		// Both have it, the other tab and the one that said it.
		waitAll(t, want[i], followers, func(_ *follower, seen []sighting, _ int) bool { return len(seen) == i+1 })
	}
	for tab, f := range followers {
		seen, _, bad := f.state()
		if len(bad) > 0 {
			t.Errorf("%s: %s", tab, bad[0])
		}
		for i, s := range seen {
			if s.text != want[i] {
				t.Errorf("%s: line %d is %s, and was acknowledged as %s", tab, i, s.text, want[i])
			}
		}
	}
}

// chat has a tab say something, and returns the event that its acknowledgement
// and history agree on.
func chat(t *testing.T, b *browser, g *gateway, tab string, i int) string {
	t.Helper()
	data := values[i%len(values)]
	event := map[string]any{"id": fmt.Sprintf("line%d", i), "channel": twinrail.Chat, "type": "line", "routing": thread("th1"), "data": "DATA"}
	var ack twinrail.PublishResult
	if err := json.Unmarshal(b.mustCall(tab, "say", fmt.Sprint(i), event, data), &ack); err != nil {
		t.Fatal(err)
	}
	history := g.history(g.token(tab), thread("th1"))
	if len(history) != i+1 {
		t.Fatalf("history has %d events after line %d was acknowledged", len(history), i)
	}
	routing := thread("th1")
	routing.ActorID = tab
	var got twinrail.Event
	if err := json.Unmarshal(history[i], &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != fmt.Sprintf("line%d", i) || got.Cursor != ack.Cursor || got.Seq != ack.Seq || got.Routing != routing || string(got.Data) != data {
		t.Fatalf("%s said %s and was told %+v, but history has %s", tab, data, ack, history[i])
	}
	return string(history[i])
}

// TestChromiumKeepsOriginsApart has pages of two origins, which hold the same
// credential, ask for the same things. Only the one that is allowed can read the
// answers.
func TestChromiumKeepsOriginsApart(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	allowed, other := servePages(t, nil), servePages(t, nil)
	g := startGateway(t, "--allowed-origin", allowed)
	p := newPublisher(g, canvas("c1"))
	if err := p.publish(t.Context(), 1, 0); err != nil {
		t.Fatal(err)
	}
	b := startBrowser(t)
	credential := credentials(g.token(reader))
	tg := target{addr: g.addr, routing: p.routing}
	history := "http://" + g.addr + twinrail.PathHistory + "?" + query(p.routing).Encode()

	f := b.open("allowed", allowed+"/eventsource.html", credential)
	if got := string(b.mustCall(f.name, "read", history, flat(credential))); !strings.Contains(got, "cursor") {
		t.Errorf("a page of an allowed origin read %s", got)
	}
	b.mustCall(f.name, "follow", tg.sseURL(), "")
	if err := f.wait(func(seen []sighting, _ int) bool { return len(seen) == 1 }); err != nil {
		t.Errorf("a page of an allowed origin: %v", err)
	}

	f = b.open("other", other+"/eventsource.html", credential)
	for name, headers := range map[string]http.Header{"with headers of its own": credential, "with the browser's": nil} {
		if got, err := b.call(f.name, "read", history, flat(headers)); err == nil {
			t.Errorf("a page of another origin, %s, read %s", name, got)
		} else if !strings.Contains(err.Error(), "Failed to fetch") {
			t.Errorf("a page of another origin, %s: %v", name, err)
		}
	}
	b.mustCall(f.name, "follow", tg.sseURL(), "")
	if err := f.wait(func([]sighting, int) bool { return false }); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a page of another origin: %v", err)
	}
	if seen, opens, _ := f.state(); len(seen) > 0 || opens > 0 {
		t.Errorf("a page of another origin followed a canvas: %v", seen)
	}
}

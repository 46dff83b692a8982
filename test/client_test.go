package test

import (
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	twinclient "github.com/twinrail/twinrail/client"
)

// TestClientReadsLargeEvents reads a stream of large events with the Go client as it
// comes, as a follower and page by page. The server ends a page once it holds 4 MiB,
// and the last event goes over that.
func TestClientReadsLargeEvents(t *testing.T) {
	t.Parallel()
	const events, size = 10, 1 << 20
	g := startGateway(t, "--max-event", "1MiB")
	token := g.token(reader)
	c, err := twinclient.New(twinclient.Options{URL: "http://" + g.addr, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	data := []byte(`"` + strings.Repeat("x", size-2) + `"`)
	for range events {
		event := twinrail.NewEvent{Channel: twinrail.Commit, Type: "x", Data: data}
		if _, err := c.Publish(t.Context(), canvas("c1"), twinrail.PublishRequest{Events: []twinrail.NewEvent{event}}); err != nil {
			t.Fatal(err)
		}
	}
	read, after := 0, ""
	for {
		page, err := c.History(t.Context(), canvas("c1"), twinclient.HistoryOptions{After: after, Limit: events})
		if err != nil {
			t.Fatalf("after %d events: %v", read, err)
		}
		read, after = read+len(page.Events), page.Next
		if page.Next == page.Head {
			break
		}
	}
	followed := 0
	for item, err := range c.FollowCanvas(t.Context(), canvas("c1"), twinclient.FollowOptions{From: twinrail.CursorEarliest}) {
		if err != nil {
			t.Fatal(fmt.Errorf("after %d events: %w", followed, err))
		}
		if item.Kind == twinclient.KindLive {
			break
		}
		if item.Kind == twinclient.KindEvent {
			followed++
		}
	}
	if read != events || followed != events {
		t.Errorf("history gave %d and the stream %d of %d events", read, followed, events)
	}
}

// TestClientReadsPresence asks page by page who is in a thread.
func TestClientReadsPresence(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	c, err := twinclient.New(twinclient.Options{URL: "http://" + g.addr, Token: g.token(reader)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	const present = 3
	for n := range present {
		next, stop := iter.Pull2(c.FollowPresence(t.Context(), thread("th1"), fmt.Append(nil, n)))
		t.Cleanup(stop)
		for here := false; !here; {
			item, err, _ := next()
			if err != nil {
				t.Fatal(err)
			}
			here = item.Kind == twinclient.KindPresence
		}
	}
	after := ""
	for n := range present {
		page, err := c.Presence(t.Context(), thread("th1"), twinclient.PresenceOptions{After: after, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Members) != 1 || string(page.Members[0].State) != fmt.Sprint(n) || (page.Next == "") != (n == present-1) {
			t.Fatalf("page %d: %+v", n, page)
		}
		after = page.Next
	}
}

package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// TestSSEPrologue checks every byte up to live that does not depend on chance.
func TestSSEPrologue(t *testing.T) {
	r := newRig(t)
	r.publish(`{"id":"e1","channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":{"a": 1}}`)
	_, page := r.page(historyPath)
	c := r.tail(canvasPath + "&cursor=earliest")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
	} {
		if got := c.resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if c.resp.Header.Get("Date") == "" || c.resp.ContentLength != -1 {
		t.Errorf("headers %v", c.resp.Header)
	}
	if got, want := c.next().raw, "retry: "; !strings.HasPrefix(got, want) {
		t.Errorf("begins with %q", got)
	}
	open := c.next()
	var o twinrail.Open
	unmarshal(t, []byte(open.data), &o)
	if want := fmt.Sprintf("id: %s\nevent: open\ndata: {\"connection_id\":%q,\"cursor\":%q,\"head\":%q,\"resumed\":false}\n\n",
		page.Oldest, o.ConnectionID, page.Oldest, page.Head); open.raw != want || o.ConnectionID == "" {
		t.Errorf("open is %q, want %q", open.raw, want)
	}
	if got, want := c.next().raw, "id: "+page.Head+"\nevent: commit\ndata: "+string(page.Events[0])+"\n\n"; got != want {
		t.Errorf("the event is %q, want %q", got, want)
	}
	if got, want := c.next().raw, "id: "+page.Head+"\nevent: live\ndata: {\"cursor\":\""+page.Head+"\"}\n\n"; got != want {
		t.Errorf("live is %q, want %q", got, want)
	}
}

func TestSSERetryIsDrawn(t *testing.T) {
	r := newRig(t)
	seen := make(map[string]bool)
	for range 20 {
		b := r.tail(canvasPath).next()
		ms, err := strconv.Atoi(b.retry)
		if err != nil || ms < 2000 || ms > 5000 {
			t.Fatalf("retry %q", b.retry)
		}
		seen[b.retry] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 connections drew %d times to come back", len(seen))
	}
}

// TestSSEStart opens the rail at each kind of position.
func TestSSEStart(t *testing.T) {
	r := newRig(t)
	_, empty := r.page(historyPath)
	first := r.commits(0, 5)
	last := r.commits(5, 10)
	for name, c := range map[string]struct {
		query   string
		header  []string
		cursor  string
		resumed bool
		want    string
	}{
		"head":               {"", nil, last.Cursor, false, ""},
		"empty cursor":       {"&cursor=", nil, last.Cursor, false, ""},
		"earliest":           {"&cursor=earliest", nil, empty.Head, false, count(0, 10)},
		"earliest by header": {"", []string{"Last-Event-ID", "earliest"}, empty.Head, false, count(0, 10)},
		"cursor":             {"&cursor=" + first.Cursor, nil, first.Cursor, true, count(5, 10)},
		"of the empty log":   {"&cursor=" + empty.Head, nil, empty.Head, true, count(0, 10)},
		"header":             {"", []string{"Last-Event-ID", first.Cursor}, first.Cursor, true, count(5, 10)},
		"header wins":        {"&cursor=" + last.Cursor, []string{"Last-Event-ID", first.Cursor}, first.Cursor, true, count(5, 10)},
		"header wins void":   {"&cursor=x", []string{"Last-Event-ID", last.Cursor}, last.Cursor, true, ""},
		"all there was":      {"&cursor=" + last.Cursor, nil, last.Cursor, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.tail(canvasPath+c.query, c.header...)
			o := s.open()
			if o.Cursor != c.cursor || o.Head != last.Cursor || o.Resumed != c.resumed || o.Reason != "" {
				t.Errorf("open %+v, want cursor %s, head %s, resumed %v", o, c.cursor, last.Cursor, c.resumed)
			}
			if got := dataOf(s.toLive()); got != c.want {
				t.Errorf("replayed %s, want %s", got, c.want)
			}
		})
	}
}

// TestSSEGoesOn follows a stream from its replay into what is published later,
// and says live once.
func TestSSEGoesOn(t *testing.T) {
	r := newRig(t, keep(0))
	r.commits(0, 3)
	c := r.tail(canvasPath + "&cursor=earliest")
	c.open()
	events := c.toLive()
	for i := 3; i < 10; i++ {
		r.commits(i, i+1)
		events = append(events, c.event())
	}
	if got := dataOf(events); got != count(0, 10) {
		t.Errorf("got %s", got)
	}
	checkChain(t, events, 0)
}

// checkChain checks that each event names the one before it.
func checkChain(t *testing.T, events []twinrail.Event, prev uint64) {
	t.Helper()
	for _, e := range events {
		if e.Prev == nil || *e.Prev != prev || e.Seq <= prev {
			t.Fatalf("seq %d with prev %v follows %d", e.Seq, e.Prev, prev)
		}
		prev = e.Seq
	}
}

// TestSSEVoidCursor comes back with cursors that are void: one reset in place of
// replay, and then all that comes after the head.
func TestSSEVoidCursor(t *testing.T) {
	r := newRig(t, keep(10))
	trimmed := r.commits(0, 1).Cursor
	last := r.commits(1, 25)
	elsewhere := r.publish(`{"channel":"commit","type":"t","routing":{"canvas_id":"c2"},"data":1}`)[0].Cursor
	_, page := r.page(historyPath)
	for cursor, reason := range map[string]twinrail.Code{
		trimmed: twinrail.CodeCursorExpired, elsewhere: twinrail.CodeCursorUnknown, "x": twinrail.CodeCursorUnknown,
		strings.Repeat("y", 300): twinrail.CodeCursorUnknown,
	} {
		t.Run(cursor[:1]+string(reason), func(t *testing.T) {
			c := r.tail(canvasPath, "Last-Event-ID", cursor)
			if o := c.open(); o.Resumed || o.Reason != reason || o.Cursor != last.Cursor || o.Head != last.Cursor {
				t.Errorf("open %+v", o)
			}
			b := c.want(twinrail.SSEReset)
			var got twinrail.Reset
			unmarshal(t, []byte(b.data), &got)
			want := twinrail.Reset{Reason: reason, Requested: cursor[:min(len(cursor), 128)], Oldest: page.Oldest, Head: page.Head}
			if got != want || b.id != page.Head {
				t.Errorf("reset %+v with id %s, want %+v", got, b.id, want)
			}
			if events := c.toLive(); len(events) != 0 {
				t.Errorf("replayed %s after a reset", dataOf(events))
			}
			problemOf(t, r.get(canvasPath+"&on_reset=fail&cursor="+cursor), twinrail.CodeCursorExpired)
		})
	}
	c := r.tail(canvasPath+"&on_reset=fail", "Last-Event-ID", last.Cursor)
	if o := c.open(); !o.Resumed {
		t.Errorf("on_reset=fail with a valid cursor: %+v", o)
	}
	c.toLive()
	r.commits(25, 26)
	if e := c.event(); string(e.Data) != "25" || *e.Prev != last.Seq {
		t.Errorf("after the head: %+v", e)
	}
}

// TestSSEIsFiltered opens the rail as several subscribers at once.
func TestSSEIsFiltered(t *testing.T) {
	r := newRig(t)
	other := r.issuer.Token(authtest.Actor("u_2"))
	subs := []struct {
		query, token, want string
		tail               *tail
	}{
		{query: "", token: r.token, want: `1 4 {"kind":"audit"} 9`},
		{query: "&panel_id=pa", token: r.token, want: `1 2 4 {"kind":"audit"} 9`},
		{query: "&panel_id=pb&thread_id=th1", token: r.token, want: `1 3 4 {"kind":"audit"} 9`},
		{query: "", token: other, want: `1 5 {"kind":"audit"} 9`},
		{query: "&channels=artifact", token: r.token, want: `{"kind":"audit"}`},
		{query: "&channels=commit", token: r.token, want: `1 4 9`},
	}
	for i := range subs {
		nc, err := r.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		subs[i].tail = tailOver(t, nc, canvasPath+subs[i].query, subs[i].token)
		subs[i].tail.open()
		subs[i].tail.toLive()
	}
	event := func(channel, routing, to string, data string) string {
		return fmt.Sprintf(`{"channel":%q,"type":"t","routing":{"canvas_id":"c1"%s}%s,"data":%s}`, channel, routing, to, data)
	}
	r.publish(
		event("commit", "", "", "1"),
		event("commit", `,"panel_id":"pa"`, "", "2"),
		event("commit", `,"panel_id":"pb","thread_id":"th1"`, "", "3"),
		event("commit", "", `,"to":["u_1"]`, "4"),
		event("commit", "", `,"to":["u_2"]`, "5"),
		event("artifact", "", "", `{"kind":"audit"}`),
		event("commit", "", "", "9"),
	)
	for _, s := range subs {
		got := dataOf(s.tail.events(strings.Count(s.want, " ") + 1))
		if got != s.want {
			t.Errorf("%q got %s, want %s", s.query, got, s.want)
		}
	}
}

func TestSSEChannels(t *testing.T) {
	r := newRig(t)
	for list, code := range map[string]twinrail.Code{
		"chat": twinrail.CodeWrongRail, "commit,tool": twinrail.CodeWrongRail, "presence": twinrail.CodeWrongRail,
		"none": twinrail.CodeBadRequest, "commit,": twinrail.CodeBadRequest, "commit,+artifact": twinrail.CodeBadRequest,
	} {
		if p := problemOf(t, r.get(canvasPath+"&channels="+list), code); p.Field != "channels" {
			t.Errorf("%s: field %q", list, p.Field)
		}
	}
	// What was named must be granted; what was not is what the grants give.
	r.token = r.issuer.Token(authtest.Grants(twinrail.Grant{
		WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", Can: []string{"artifact:read"}}))
	problemOf(t, r.get(canvasPath+"&channels=commit,artifact"), twinrail.CodeNotFound)
	c := r.tail(canvasPath)
	c.open()
	r.token = r.issuer.Token()
	r.publish(commit(1), `{"channel":"artifact","type":"t","routing":{"canvas_id":"c1"},"data":{"kind":"replay"}}`)
	c.toLive()
	if e := c.event(); e.Channel != twinrail.Artifact {
		t.Errorf("got a %s", e.Channel)
	}
}

func TestSSEDisabled(t *testing.T) {
	r := newRig(t)
	r.setFlag("sse_enabled", "false")
	problemOf(t, r.get(canvasPath), twinrail.CodeRailDisabled)
	r.peer()
}

// TestSSEClientGone closes connections in several ways: the server notices
// without having to write.
func TestSSEClientGone(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Heartbeat = time.Hour })
	var tails []*tail
	for range 10 {
		c := r.tail(canvasPath)
		c.open()
		tails = append(tails, c)
	}
	const open, subs = `twinrail_connections{rail="sse"}`, "twinrail_subscriptions"
	if r.metric(open) != 10 || r.metric(subs) != 10 {
		t.Errorf("%v connections, %v subscriptions", r.metric(open), r.metric(subs))
	}
	for i, c := range tails {
		if i%2 == 0 {
			_ = c.nc.(interface{ SetLinger(int) error }).SetLinger(0) // a reset
		}
		_ = c.nc.Close()
	}
	eventually(t, "all connections are gone", func() bool { return r.metric(open) == 0 && r.metric(subs) == 0 })
	if n := r.server.hub.Streams(); n != 0 {
		t.Errorf("%d streams are held", n)
	}
	if n := r.metric(`twinrail_connections_closed_total{code="",rail="sse"}`); n != 10 {
		t.Errorf("%v were closed by their peers", n)
	}
}

package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

func TestWSWelcome(t *testing.T) {
	r := newRig(t)
	p := r.upgrade(wsPath, r.token)
	if got := p.resp.Header.Get("Sec-WebSocket-Protocol"); got != twinrail.Subprotocol {
		t.Errorf("subprotocol %q", got)
	}
	if got := p.resp.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("accept %q", got) // the example of RFC 6455 section 1.3
	}
	a := p.want(twinrail.OpWelcome)
	b := r.upgrade(wsPath, r.token).want(twinrail.OpWelcome)
	if a.ConnectionID == "" || a.SessionID == "" || a.HeartbeatMS != 15000 || a.ServerTime == nil {
		t.Errorf("welcome %+v", a)
	}
	if a.ConnectionID == b.ConnectionID || a.SessionID == b.SessionID {
		t.Errorf("two connections have the same ids")
	}
	if n := r.metric(`twinrail_connections{rail="ws"}`); n != 2 {
		t.Errorf("%v connections", n)
	}
}

// TestWSHandshakeIsRefused makes upgrades that lack something.
func TestWSHandshakeIsRefused(t *testing.T) {
	r := newRig(t)
	without := func(name string) header {
		var h header
		for i := 0; i < len(handshakeHeader); i += 2 {
			if handshakeHeader[i] != name {
				h = append(h, handshakeHeader[i], handshakeHeader[i+1])
			}
		}
		return h
	}
	with := func(name, value string) header { return append(without(name), name, value) }
	for name, c := range map[string]struct {
		header header
		code   twinrail.Code
	}{
		"no Upgrade":         {without("Upgrade"), twinrail.CodeUpgradeRequired},
		"another Upgrade":    {with("Upgrade", "h2c"), twinrail.CodeUpgradeRequired},
		"no Connection":      {with("Connection", "close"), twinrail.CodeUpgradeRequired},
		"no version":         {without("Sec-WebSocket-Version"), twinrail.CodeUpgradeRequired},
		"old version":        {with("Sec-WebSocket-Version", "8"), twinrail.CodeUpgradeRequired},
		"no key":             {without("Sec-WebSocket-Key"), twinrail.CodeBadRequest},
		"short key":          {with("Sec-WebSocket-Key", "c2hvcnQ="), twinrail.CodeBadRequest},
		"no base64":          {with("Sec-WebSocket-Key", "!!!"), twinrail.CodeBadRequest},
		"other subprotocol":  {with("Sec-WebSocket-Protocol", "graphql-ws"), twinrail.CodeBadRequest},
		"only the bearer":    {with("Sec-WebSocket-Protocol", "bearer."+r.token), twinrail.CodeBadRequest},
		"subprotocol's case": {with("Sec-WebSocket-Protocol", "Twinrail.V1"), twinrail.CodeBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			resp := r.do("GET", wsPath, "", append(c.header, "Authorization", "Bearer "+r.token))
			problemOf(t, resp, c.code)
			if resp.status == http.StatusUpgradeRequired && (resp.header.Get("Sec-WebSocket-Version") != "13" || !strings.EqualFold(resp.header.Get("Upgrade"), "websocket")) {
				t.Errorf("426 with headers %v", resp.header)
			}
		})
	}
	if n := r.metric(`twinrail_connections_opened_total{rail="ws"}`); n != 0 {
		t.Errorf("%v connections were opened", n)
	}
}

// TestWSSubprotocolCredential carries the token in the one place that a browser
// can put it.
func TestWSSubprotocolCredential(t *testing.T) {
	r := newRig(t)
	upgrade := func(protocols ...string) reply {
		h := header{}
		for i := 0; i < len(handshakeHeader); i += 2 {
			if handshakeHeader[i] != "Sec-WebSocket-Protocol" {
				h = append(h, handshakeHeader[i], handshakeHeader[i+1])
			}
		}
		for _, p := range protocols {
			h = append(h, "Sec-WebSocket-Protocol", p)
		}
		req, _ := http.NewRequest("GET", "http://twinrail.test"+wsPath, nil)
		h.apply(req)
		resp, err := r.web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return reply{status: resp.StatusCode, header: resp.Header}
	}
	for _, protocols := range [][]string{
		{twinrail.Subprotocol + ", bearer." + r.token}, {"bearer." + r.token, twinrail.Subprotocol}, {"other,bearer." + r.token + "," + twinrail.Subprotocol},
	} {
		resp := upgrade(protocols...)
		if got := resp.header.Values("Sec-WebSocket-Protocol"); resp.status != http.StatusSwitchingProtocols || len(got) != 1 || got[0] != twinrail.Subprotocol {
			t.Errorf("%d, subprotocols %q", resp.status, got)
		}
	}
	for _, protocols := range [][]string{
		{twinrail.Subprotocol}, {twinrail.Subprotocol, "bearer."}, {twinrail.Subprotocol, "bearer.x.y.z"},
		{twinrail.Subprotocol, "bearer." + r.token + ", bearer." + r.token},
	} {
		if resp := upgrade(protocols...); resp.status != http.StatusUnauthorized {
			t.Errorf("%.40q: %d", protocols, resp.status)
		}
	}
	problemOf(t, r.do("GET", wsPath+"&access_token="+r.token+"&token="+r.token, "", handshakeHeader), twinrail.CodeCredentialMissing)
}

func TestWSDisabled(t *testing.T) {
	r := newRig(t)
	r.setFlag("ws_enabled", "false")
	problemOf(t, r.do("GET", wsPath, "", append(as(r.token), handshakeHeader...)), twinrail.CodeRailDisabled)
	r.tail(canvasPath).open()
}

// TestWSJoinStart joins at each kind of position.
func TestWSJoinStart(t *testing.T) {
	r := newRig(t, keep(20))
	lost := r.chats(0, 1)
	first := r.chats(1, 15)
	last := r.chats(15, 25)
	elsewhere := r.commits(0, 1)
	events, page := r.page(twinrail.PathHistory + "?" + appQuery + "&thread_id=th1")
	if dataOf(events) != count(5, 25) {
		t.Fatalf("kept %s", dataOf(events))
	}
	p := r.peer()
	for i, c := range []struct {
		after, cursor string
		resumed       bool
		reason        twinrail.Code
		want          string
	}{
		{"", last.Cursor, false, "", ""},
		{"earliest", page.Oldest, false, "", count(5, 25)},
		{first.Cursor, first.Cursor, true, "", count(15, 25)},
		{page.Oldest, page.Oldest, true, "", count(5, 25)},
		{last.Cursor, last.Cursor, true, "", ""},
		{lost.Cursor, last.Cursor, false, twinrail.CodeCursorExpired, ""},
		{elsewhere.Cursor, last.Cursor, false, twinrail.CodeCursorUnknown, ""},
		{"nonsense", last.Cursor, false, twinrail.CodeCursorUnknown, ""},
	} {
		sub := fmt.Sprint("s", i)
		more := ""
		if c.after != "" {
			more = fmt.Sprintf(`,"after":%q`, c.after)
		}
		joined := p.join(sub, more)
		if joined.Cursor != c.cursor || joined.Head != last.Cursor || *joined.Resumed != c.resumed || joined.Reason != c.reason {
			t.Errorf("after %q joined %+v", c.after, joined)
		}
		if c.reason != "" {
			reset := p.want(twinrail.OpReset)
			if reset.Sub != sub || reset.Reason != c.reason || reset.Oldest != page.Oldest || reset.Head != last.Cursor {
				t.Errorf("after %q reset %+v", c.after, reset)
			}
		}
		if c.want != "" {
			if got := dataOf(p.events(sub, strings.Count(c.want, " ")+1)); got != c.want {
				t.Errorf("after %q got %s, want %s", c.after, got, c.want)
			}
		}
		if live := p.want(twinrail.OpLive); live.Sub != sub || live.Cursor != last.Cursor {
			t.Errorf("after %q live %+v", c.after, live)
		}
		p.say(`{"op":"leave","sub":%q}`, sub)
		p.want(twinrail.OpLeft)
	}
}

// TestWSSubscriptions holds several subscriptions on one connection, two of them
// to the same thread.
func TestWSSubscriptions(t *testing.T) {
	r := newRig(t)
	p := r.peer()
	p.live("plain")
	p.say(`{"op":"join","sub":"panel","routing":{"thread_id":"th1","panel_id":"pa"},"channels":["chat"]}`)
	p.want(twinrail.OpJoined)
	p.want(twinrail.OpLive)
	p.say(`{"op":"join","sub":"other","routing":{"thread_id":"th2"},"channels":["tool","chat"]}`)
	p.want(twinrail.OpJoined)
	p.want(twinrail.OpLive)
	got := make(map[string]string)
	take := func(n int) {
		t.Helper()
		for range n {
			f := p.want(twinrail.OpEvent)
			var e twinrail.Event
			unmarshal(t, f.Event, &e)
			got[f.Sub] += string(e.Data)
		}
	}
	event := func(channel, routing string, data int) string {
		return fmt.Sprintf(`{"channel":%q,"type":"t","routing":{%s},"data":%d}`, channel, routing, data)
	}
	r.publish(
		event("chat", `"thread_id":"th1"`, 1),
		event("chat", `"thread_id":"th1","panel_id":"pa"`, 2),
		event("chat", `"thread_id":"th1","panel_id":"pb"`, 3),
		event("tool", `"thread_id":"th1"`, 4),
	)
	take(4)
	r.publish(event("tool", `"thread_id":"th2"`, 5))
	take(1)
	p.say(`{"op":"leave","ref":"l","sub":"plain"}`)
	if left := p.want(twinrail.OpLeft); left.Sub != "plain" || left.Ref != "l" {
		t.Errorf("left %+v", left)
	}
	r.chats(6, 7)
	take(1)
	want := map[string]string{"plain": "14", "panel": "126", "other": "5"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := r.metric("twinrail_subscriptions"); n != 2 {
		t.Errorf("%v subscriptions", n)
	}
	_ = p.nc.Close()
	eventually(t, "all subscriptions are gone", func() bool { return r.metric("twinrail_subscriptions") == 0 })
}

// TestWSNothingAfterLeft leaves again and again while events rush in.
func TestWSNothingAfterLeft(t *testing.T) {
	r := newRig(t)
	p := r.peer()
	r.chats(0, 1)
	stop := r.rush(chat)
	defer stop()
	for i := range 50 {
		sub := fmt.Sprint("s", i)
		p.join(sub, `,"after":"earliest"`)
		p.event(sub)
		p.say(`{"op":"leave","ref":"bye","sub":%q}`, sub)
		for f := p.next(); f.Op != twinrail.OpLeft; f = p.next() {
			if f.Sub != sub {
				t.Fatalf("got %+v in %s", f, sub)
			}
		}
		p.say(`{"op":"ping","ref":"after"}`)
		if f := p.next(); f.Op != twinrail.OpPong || f.Ref != "after" {
			t.Fatalf("after left came %+v", f)
		}
	}
}

// rush publishes one event after the other until stop is called.
func (r *rig) rush(event func(int) string) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				r.post(`{"events":[` + event(i) + `]}`)
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

func TestWSMaxJoins(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxJoins = 3 })
	p := r.peer()
	for i := range 3 {
		p.live(fmt.Sprint("s", i))
	}
	p.say(`{"op":"join","ref":"x","sub":"s3","routing":{"thread_id":"th1"}}`)
	p.wantError(twinrail.CodeLimitExceeded, "x")
	p.say(`{"op":"leave","sub":"s1"}`)
	p.want(twinrail.OpLeft)
	p.live("s3")
}

// TestWSErrorsKeepConnection has a frame fail in each way that is only its own
// matter.
func TestWSErrorsKeepConnection(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxEvent = 100 })
	r.token = r.issuer.Token(authtest.Grants(twinrail.Grant{
		WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", ThreadID: "th1", Can: []string{"chat:*", "tool:write"}}))
	p := r.peer()
	p.live("a")
	for name, c := range map[string]struct {
		frame string
		code  twinrail.Code
		field string
	}{
		"join without sub":     {`"op":"join","routing":{"thread_id":"th1"}`, twinrail.CodeBadRequest, "sub"},
		"join with a bad sub":  {`"op":"join","sub":"a b","routing":{"thread_id":"th1"}`, twinrail.CodeBadRequest, "sub"},
		"join twice":           {`"op":"join","sub":"a","routing":{"thread_id":"th1"}`, twinrail.CodeBadRequest, "sub"},
		"join without thread":  {`"op":"join","sub":"b"`, twinrail.CodeContextMissing, "routing.thread_id"},
		"join another thread":  {`"op":"join","sub":"b","routing":{"thread_id":"th2"}`, twinrail.CodeNotFound, ""},
		"join another app":     {`"op":"join","sub":"b","routing":{"thread_id":"th1","app_id":"x"}`, twinrail.CodeContextConflict, "routing.app_id"},
		"join another tenant":  {`"op":"join","sub":"b","routing":{"thread_id":"th1","tenant_id":"t_x"}`, twinrail.CodeContextMismatch, "routing.tenant_id"},
		"join a canvas":        {`"op":"join","sub":"b","routing":{"canvas_id":"c1"},"channels":["commit"]`, twinrail.CodeWrongRail, "channels"},
		"join without a right": {`"op":"join","sub":"b","routing":{"thread_id":"th1"},"channels":["chat","tool"]`, twinrail.CodeNotFound, ""},
		"join no channel":      {`"op":"join","sub":"b","routing":{"thread_id":"th1"},"channels":["x"]`, twinrail.CodeBadRequest, "channels"},
		"leave nothing":        {`"op":"leave","sub":"b"`, twinrail.CodeBadRequest, "sub"},
		"publish nothing":      {`"op":"publish"`, twinrail.CodeBadRequest, "events"},
		"publish an artifact":  {`"op":"publish","events":[` + artifact(1, `"audit"`) + `]`, twinrail.CodeWrongRail, "events[0].channel"},
		"publish a commit":     {`"op":"publish","events":[` + commit(1) + `]`, twinrail.CodeWrongRail, "events[0].channel"},
		"publish unfounded":    {`"op":"publish","expected_seq":7,"events":[` + chat(1) + `]`, twinrail.CodeSeqConflict, "expected_seq"},
		"publish elsewhere":    {`"op":"publish","events":[{"channel":"chat","type":"t","routing":{"thread_id":"th2"},"data":1}]`, twinrail.CodeNotFound, "events[0]"},
		"publish as another":   {`"op":"publish","events":[{"channel":"chat","type":"t","routing":{"thread_id":"th1","actor_id":"u_2"},"data":1}]`, twinrail.CodeActorMismatch, "events[0].routing.actor_id"},
		"publish much":         {`"op":"publish","events":[{"channel":"chat","type":"t","routing":{"thread_id":"th1"},"data":"` + strings.Repeat("x", 99) + `"}]`, twinrail.CodeTooLarge, "events[0].data"},
	} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.say(`{"ref":"r1",%s}`, c.frame)
			if f := p.wantError(c.code, "r1"); f.Field != c.field {
				t.Errorf("field %q, want %q", f.Field, c.field)
			}
		})
	}
	p.t = t
	p.say(`{"op":"publish","ref":"p","expected_seq":0,"events":[%s,%s]}`, chat(1), chat(2))
	ack, events := p.published("a", 2)
	if ack.Ref != "p" || len(ack.Results) != 2 || ack.Results[1].Seq != 2 || *ack.Results[1].Prev != 1 || ack.Results[1].Cursor == "" {
		t.Errorf("ack %+v", ack)
	}
	if got := dataOf(events); got != "1 2" {
		t.Errorf("got %s", got)
	}
}

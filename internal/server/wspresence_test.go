package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// actor returns a peer that speaks for the actor, which may do all.
func (r *rig) actor(name string, opts ...authtest.Option) *peer {
	r.t.Helper()
	p := r.upgrade(wsPath, r.issuer.Token(append([]authtest.Option{authtest.Actor(name)}, opts...)...))
	p.want(twinrail.OpWelcome)
	return p
}

// The addresses of these tests, as parts of a join.
const (
	inThread = `"routing":{"thread_id":"th1"},"channels":["presence"]`
	onCanvas = `"routing":{"canvas_id":"c1"},"channels":["presence"]`
	onPanel1 = `"routing":{"canvas_id":"c1","panel_id":"p1"},"channels":["presence"]`
	onPanel2 = `"routing":{"canvas_id":"c1","panel_id":"p2"},"channels":["presence"]`
)

// enter joins at an address with a state, or only to watch where that is "", and
// returns who is there already, written by who.
func (p *peer) enter(at, state string) string {
	p.t.Helper()
	if state != "" {
		at += `,"presence":` + state
	}
	p.say(`{"op":"join","sub":"p",%s}`, at)
	joined := p.want(twinrail.OpJoined)
	if joined.Members == nil {
		p.t.Fatalf("joined %+v, want members", joined)
	}
	live := p.want(twinrail.OpLive)
	if live.Cursor == "" || joined.Cursor != live.Cursor || joined.Head != live.Cursor {
		p.t.Fatalf("joined at %q, live at %q", joined.Cursor, live.Cursor)
	}
	return who(joined.Members)
}

// who writes members as actor=state, with the panel behind an @, in order.
func who(members []twinrail.PresenceMember) string {
	var all []string
	for _, m := range members {
		s := m.ActorID
		if m.Routing != nil {
			s += "@" + m.Routing.PanelID
		}
		if m.State != nil {
			s += "=" + string(m.State)
		}
		all = append(all, s)
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

// told reads a presence frame and writes it as "+joined ~updated -left".
func (p *peer) told() string {
	p.t.Helper()
	f := p.raw()
	var frame struct {
		Op, Sub             string
		Join, Update, Leave []twinrail.PresenceMember
	}
	if err := json.Unmarshal(f.Payload, &frame); err != nil {
		p.t.Fatal(err)
	}
	if frame.Op != twinrail.OpPresence || frame.Sub != "p" || frame.Join == nil || frame.Update == nil || frame.Leave == nil {
		p.t.Fatalf("got %s, want a presence frame with all three lists", f.Payload)
	}
	var parts []string
	for _, list := range []struct {
		sign    string
		members []twinrail.PresenceMember
	}{{"+", frame.Join}, {"~", frame.Update}, {"-", frame.Leave}} {
		for _, m := range list.members {
			parts = append(parts, list.sign+who([]twinrail.PresenceMember{m}))
		}
	}
	return strings.Join(parts, " ")
}

// tells checks the next presence frame.
func (p *peer) tells(want string) {
	p.t.Helper()
	if got := p.told(); got != want {
		p.t.Fatalf("told %q, want %q", got, want)
	}
}

// silent checks that nothing was told until now, by a ping that is answered.
func (p *peer) silent(what string) {
	p.t.Helper()
	p.say(`{"op":"ping","ref":"silent"}`)
	if f := p.next(); f.Op != twinrail.OpPong || f.Ref != "silent" {
		b, _ := json.Marshal(f)
		p.t.Fatalf("%s: got %s, want nothing", what, b)
	}
}

// TestPresence has members come, change and go, in a thread and on a canvas.
func TestPresence(t *testing.T) {
	for name, at := range map[string]string{"thread": inThread, "canvas": onCanvas} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				ann, bob, eve := r.actor("ann"), r.actor("bob"), r.actor("eve")
				if got := ann.enter(at, `{"x":1}`); got != `ann={"x":1}` {
					t.Errorf("alone: %s", got)
				}
				if got := eve.enter(at, ""); got != `ann={"x":1}` {
					t.Errorf("a watcher saw %s", got)
				}
				if got := bob.enter(at, `null`); got != `ann={"x":1} bob=null` {
					t.Errorf("bob saw %s", got)
				}
				ann.tells("+bob=null")
				eve.tells("+bob=null")
				bob.say(`{"op":"presence","sub":"p","state":[1, 2]}`)
				for _, p := range []*peer{ann, bob, eve} {
					p.tells("~bob=[1,2]")
				}
				eve.say(`{"op":"presence","sub":"p","state":"here"}`)
				for _, p := range []*peer{ann, bob, eve} {
					p.tells(`+eve="here"`)
				}
				bob.say(`{"op":"leave","sub":"p"}`)
				if left := bob.want(twinrail.OpLeft); left.ResumeToken == "" {
					t.Error("left has no resume token")
				}
				ann.tells("-bob")
				eve.tells("-bob")
				bob.silent("after its leave")
			})
		})
	}
}

// TestPresenceAudience has members at panels and at the canvas at large: who is
// at a panel is seen by those alone who hold it.
func TestPresenceAudience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		one, two, all := r.actor("one"), r.actor("two"), r.actor("all")
		one.enter(onPanel1, "")
		two.enter(onPanel2, "")
		all.enter(onCanvas, "")
		r.actor("ann").enter(onPanel1, `1`)
		one.tells("+ann@p1=1")
		two.silent("at another panel")
		all.silent("at no panel")
		r.actor("bob").enter(onCanvas, `2`)
		one.tells("+bob=2")
		two.tells("+bob=2")
		all.tells("+bob=2")
		for panel, want := range map[string]string{"": "bob=2", "&panel_id=p1": "ann@p1=1 bob=2", "&panel_id=p2": "bob=2"} {
			if got := r.present(presencePath + "&canvas_id=c1" + panel); got != want {
				t.Errorf("presence at %q: %s, want %s", panel, got, want)
			}
		}
		for _, elsewhere := range []string{"&canvas_id=c2", "&thread_id=c1"} {
			if got := r.present(presencePath + elsewhere); got != "" {
				t.Errorf("presence at %q: %s", elsewhere, got)
			}
		}
	})
}

const presencePath = "/v1/presence?tenant_id=t_acme&env=dev&workspace_id=w1&project_id=p1&app_id=studio"

// present returns what GET /v1/presence says.
func (r *rig) present(path string) string {
	r.t.Helper()
	resp := r.get(path)
	if resp.status != http.StatusOK || resp.header.Get("Cache-Control") != "no-store" {
		r.t.Fatalf("presence: %d %v %s", resp.status, resp.header, resp.body)
	}
	var got twinrail.PresenceResponse
	unmarshal(r.t, resp.body, &got)
	if got.Members == nil {
		r.t.Fatalf("presence: %s, want a list", resp.body)
	}
	return who(got.Members)
}

// TestPresenceEnds has a member go in each way, and measures when the others
// learn of it.
func TestPresenceEnds(t *testing.T) {
	closing := func(code ws.StatusCode) func(*peer) {
		return func(p *peer) { p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(code, ""))) }
	}
	const grace, heartbeat = 10 * time.Second, 15 * time.Second
	for name, c := range map[string]struct {
		end         func(*peer)
		least, most time.Duration
	}{
		"cut":                     {func(p *peer) { _ = p.nc.Close() }, grace, grace},
		"closed for good":         {closing(1000), 0, 0},
		"going away":              {closing(1001), 0, 0},
		"closed without a code":   {func(p *peer) { p.write(frame(true, ws.OpClose, nil)) }, 0, 0},
		"closed to come back":     {closing(4200), grace, grace},
		"silent":                  {func(*peer) {}, 2*heartbeat + grace, 2*heartbeat + grace},
		"a frame that is illegal": {func(p *peer) { p.say(`{"op":"fly"}`) }, 0, 0},
		"too large":               {func(p *peer) { p.write(frame(true, ws.OpText, make([]byte, 1<<20+1))[:14]) }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				watcher, member := r.actor("eve"), r.actor("ann")
				watcher.enter(inThread, "")
				member.enter(inThread, "1")
				watcher.tells("+ann=1")
				go drainFrames(member)
				start := time.Now()
				c.end(member)
				var frame twinrail.ServerFrame
				for frame.Op != twinrail.OpPresence {
					if frame = watcher.next(); frame.Op == twinrail.OpPing {
						watcher.say(`{"op":"pong"}`)
					}
				}
				took := time.Since(start)
				if who(frame.Leave) != "ann" || len(frame.Join)+len(frame.Update) > 0 {
					t.Errorf("told %+v", frame)
				}
				if took < c.least-time.Second/10 || took > c.most+time.Second {
					t.Errorf("the leave was told after %v, want %v to %v", took, c.least, c.most)
				}
				if got := r.present(presencePath + "&thread_id=th1"); got != "" {
					t.Errorf("still present: %s", got)
				}
			})
		})
	}
}

// drainFrames reads what the server says until it ends.
func drainFrames(p *peer) {
	_ = p.nc.SetDeadline(time.Time{})
	for {
		if _, err := readServerFrame(p.br); err != nil {
			return
		}
	}
}

// TestPresenceOfOneActor has an actor present over two connections, and over two
// subscriptions of one: a member each time for a connection.
func TestPresenceOfOneActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		watcher, desk, phone := r.actor("eve"), r.actor("ann"), r.actor("ann")
		watcher.enter(inThread, "")
		desk.enter(inThread, `"desk"`)
		watcher.tells(`+ann="desk"`)
		phone.enter(inThread, `"phone"`)
		watcher.tells(`+ann="phone"`)
		desk.say(`{"op":"join","sub":"q",%s,"presence":"desk 2"}`, inThread)
		watcher.tells(`~ann="desk 2"`)
		desk.say(`{"op":"leave","sub":"p"}`)
		watcher.silent("one of two subscriptions has left")
		desk.say(`{"op":"leave","sub":"q"}`)
		watcher.tells("-ann")
		if got := r.present(presencePath + "&thread_id=th1"); got != `ann="phone"` {
			t.Errorf("present: %s", got)
		}
	})
}

// TestPresenceWithEvents joins a thread for its chat and who is there.
func TestPresenceWithEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		ann, bob := r.actor("ann"), r.actor("bob")
		first := r.chats(0, 1)
		ann.say(`{"op":"join","sub":"p","routing":{"thread_id":"th1"},"channels":["chat","presence"],"after":"earliest","presence":1}`)
		if joined := ann.want(twinrail.OpJoined); who(joined.Members) != "ann=1" || joined.Head != first.Cursor {
			t.Errorf("joined %+v", joined)
		}
		ann.events("p", 1)
		ann.want(twinrail.OpLive)
		bob.enter(inThread, "2")
		ann.tells("+bob=2")
		r.chats(1, 2)
		ann.events("p", 1)
		bob.silent("an event of the thread")
	})
}

// TestPresenceRefused is what does not make anyone present; the connection goes
// on.
func TestPresenceRefused(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxMembers = 2 })
	grant := func(can ...string) authtest.Option {
		return authtest.Grants(twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", ThreadID: "*", Can: can})
	}
	large := fmt.Sprintf(`"%s"`, strings.Repeat("x", 2<<10))
	for name, c := range map[string]struct {
		opts  []authtest.Option
		frame string
		code  twinrail.Code
		field string
	}{
		"no right to read":    {[]authtest.Option{grant("presence:write", "chat:read")}, `{"op":"join","sub":"p",` + inThread + `}`, twinrail.CodeNotFound, ""},
		"no right to be seen": {[]authtest.Option{grant("presence:read")}, `{"op":"join","sub":"p",` + inThread + `,"presence":1}`, twinrail.CodeNotFound, ""},
		"a large state":       {nil, `{"op":"join","sub":"p",` + inThread + `,"presence":` + large + `}`, twinrail.CodeTooLarge, "presence"},
		"no such sub":         {nil, `{"op":"presence","sub":"q","state":1}`, twinrail.CodeBadRequest, "sub"},
		"no state":            {nil, `{"op":"presence","sub":"q"}`, twinrail.CodeBadRequest, "state"},
		"no stream":           {nil, `{"op":"join","sub":"p","channels":["presence"]}`, twinrail.CodeContextMissing, "routing.thread_id"},
		"the other rail":      {nil, `{"op":"join","sub":"p","routing":{"canvas_id":"c1"},"channels":["presence","commit"]}`, twinrail.CodeWrongRail, "channels"},
		"chat on a canvas":    {nil, `{"op":"join","sub":"p","routing":{"canvas_id":"c1"},"channels":["presence","chat"]}`, twinrail.CodeContextMissing, "routing.thread_id"},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.actor("u_9", c.opts...)
			p.say("%s", c.frame)
			if got := p.want(twinrail.OpError); got.Code != c.code || got.Field != c.field || got.Action != "" {
				t.Errorf("%+v, want %s %s", got, c.code, c.field)
			}
			p.silent("after the refusal")
		})
	}
	if got := r.present(presencePath + "&thread_id=th1"); got != "" {
		t.Errorf("refused, but present: %s", got)
	}
	for _, actor := range []string{"ann", "bob"} {
		r.actor(actor).enter(inThread, "1")
	}
	late := r.actor("late")
	late.say(`{"op":"join","sub":"p",%s,"presence":1}`, inThread)
	if got := late.wantError(twinrail.CodeLimitExceeded, ""); got.Field != "presence" {
		t.Errorf("over the limit: %+v", got)
	}
	if got := late.enter(inThread, ""); got != "ann=1 bob=1" {
		t.Errorf("watching at the limit: %s", got)
	}
	for path, code := range map[string]twinrail.Code{
		presencePath + "&canvas_id=c1&thread_id=th1":              twinrail.CodeBadRequest,
		presencePath + "&canvas_id=c1&thread_id=th1&stream=panel": twinrail.CodeBadRequest,
		presencePath: twinrail.CodeContextMissing,
		"/v1/presence?tenant_id=t_other&env=dev&thread_id=th1": twinrail.CodeContextMismatch,
	} {
		problemOf(t, r.get(path), code)
	}
	resp := r.do("GET", presencePath+"&thread_id=th1", "", as(r.issuer.Token(grant("presence:write"))))
	problemOf(t, resp, twinrail.CodeNotFound)
	if got := r.present(presencePath + "&canvas_id=c1&thread_id=th1&stream=thread"); got != "ann=1 bob=1" {
		t.Errorf("with the canvas as audience: %s", got)
	}
}

// TestFailedJoinIsNotPresent fails a join after its client has come in: it goes out
// again, and nobody sees it there.
func TestFailedJoinIsNotPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &boundless{Journal: journal.NewMemory(journal.MemoryOptions{})}
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		p := r.peer()
		j.now = true
		p.say(`{"op":"join","ref":"j","sub":"a","routing":{"thread_id":"th1"},"presence":1}`)
		p.wantError(twinrail.CodeUnavailable, "j")
		j.now = false
		w := r.actor("u_2")
		w.say(`{"op":"join","sub":"w",%s}`, inThread)
		if f := w.want(twinrail.OpJoined); len(f.Members) != 0 {
			t.Errorf("there is %+v", f.Members)
		}
	})
}

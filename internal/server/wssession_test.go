package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// The subscriptions of these tests, as parts of a join.
const (
	subA = `"sub":"a","routing":{"thread_id":"th1","panel_id":"p1"},"channels":["chat","presence"]`
	subB = `"sub":"b","routing":{"thread_id":"th2"},"channels":["chat","tool"]`
	subC = `"sub":"c","routing":{"canvas_id":"c1"},"channels":["presence"]`
)

// on writes a chat event on a thread, for a panel where that is not "".
func on(thread, panel string, n int) string {
	if panel != "" {
		panel = `,"panel_id":"` + panel + `"`
	}
	return fmt.Sprintf(`{"channel":"chat","type":"t","routing":{"thread_id":%q%s},"data":%d}`, thread, panel, n)
}

// greet opens the WS rail for a token, and returns the welcome.
func (r *rig) greet(token string) (*peer, twinrail.ServerFrame) {
	r.t.Helper()
	p := r.upgrade(wsPath, token)
	f := p.want(twinrail.OpWelcome)
	if f.SessionID == "" || f.ResumeToken == "" {
		r.t.Fatalf("welcome %+v, want a session and a resume token", f)
	}
	return p, f
}

// said returns the next frame but for the server's heartbeats, which it answers.
func (p *peer) said() twinrail.ServerFrame {
	p.t.Helper()
	for {
		f := p.next()
		if f.Op != twinrail.OpPing {
			return f
		}
		p.say(`{"op":"pong"}`)
	}
}

// quiet checks, in a bubble, that nothing but heartbeats is said for d.
func (p *peer) quiet(d time.Duration, what string) {
	p.t.Helper()
	for until := time.Now().Add(d); ; {
		_ = p.nc.SetReadDeadline(until)
		f, err := readServerFrame(p.br)
		if isTimeout(err) {
			return
		}
		var s twinrail.ServerFrame
		if err == nil && f.Header.OpCode == ws.OpText {
			unmarshal(p.t, f.Payload, &s)
		}
		if s.Op != twinrail.OpPing {
			p.t.Fatalf("%s: got %s, %v, want nothing", what, f.Payload, err)
		}
		p.say(`{"op":"pong"}`)
	}
}

// subscribe joins with the given parts of frames, each until it is live, and
// returns the last answer.
func (p *peer) subscribe(joins ...string) (joined twinrail.ServerFrame) {
	p.t.Helper()
	for _, j := range joins {
		p.say(`{"op":"join",%s}`, j)
		joined = p.want(twinrail.OpJoined)
		if joined.ResumeToken == "" {
			p.t.Fatalf("joined %+v, want a resume token", joined)
		}
		p.want(twinrail.OpLive)
	}
	return joined
}

// follow reads until each sub has had the events whose data want lists, and is
// live where that is asked for, and nothing else. It returns the cursors.
func (p *peer) follow(live bool, want map[string]string) map[string]string {
	p.t.Helper()
	got, at, isLive := make(map[string][]twinrail.Event), make(map[string]string), make(map[string]bool)
	complete := func() bool {
		for sub, data := range want {
			if len(got[sub]) < len(strings.Fields(data)) || live && !isLive[sub] {
				return false
			}
		}
		return true
	}
	for !complete() {
		f := p.said()
		switch {
		case f.Op == twinrail.OpEvent:
			var e twinrail.Event
			unmarshal(p.t, f.Event, &e)
			got[f.Sub], at[f.Sub] = append(got[f.Sub], e), e.Cursor
		case f.Op == twinrail.OpLive && live && !isLive[f.Sub]:
			isLive[f.Sub], at[f.Sub] = true, f.Cursor
		default:
			b, _ := json.Marshal(f)
			p.t.Fatalf("got %s, want events of %v, and live %v", b, want, live)
		}
	}
	p.silent("after the events")
	for sub, events := range got {
		if dataOf(events) != want[sub] {
			p.t.Errorf("%s: got %s, want %s", sub, dataOf(events), want[sub])
		}
	}
	return at
}

// resume sends a resume frame.
func (p *peer) resume(token string, cursors map[string]string) {
	p.t.Helper()
	b, err := json.Marshal(twinrail.ClientFrame{Op: twinrail.OpResume, Ref: "r", ResumeToken: token, Cursors: cursors})
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(frame(true, ws.OpText, b))
}

// resumes sends a resume frame, and takes the answer.
func (p *peer) resumes(token string, cursors map[string]string) twinrail.ServerFrame {
	p.t.Helper()
	p.resume(token, cursors)
	f := p.want(twinrail.OpResumed)
	if f.Ref != "r" || f.SessionID == "" || f.ResumeToken == "" || f.ResumeToken == token {
		b, _ := json.Marshal(f)
		p.t.Fatalf("resumed %s", b)
	}
	return f
}

// subsOf writes what resumed says, a sub each: whether it was, and who is there.
func subsOf(f twinrail.ServerFrame) string {
	var all []string
	for _, s := range f.Subs {
		text := fmt.Sprintf("%s:%v", s.Sub, s.Resumed)
		if s.Reason != "" {
			text += ":" + string(s.Reason)
		}
		if s.Code != "" {
			text += ":" + string(s.Code)
		}
		if s.Members != nil {
			text += "[" + who(s.Members) + "]"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// cut cuts the connection without a word, and waits until the server knows.
func (p *peer) cut() {
	_ = p.nc.Close()
	synctest.Wait()
}

// watcher returns a peer who watches presence where the subs are.
func (r *rig) watcher() *peer {
	r.t.Helper()
	p := r.actor("eve")
	p.subscribe(
		`"sub":"p","routing":{"thread_id":"th1","panel_id":"p1"},"channels":["presence"]`,
		`"sub":"q","routing":{"canvas_id":"c1"},"channels":["presence"]`)
	return p
}

// TestResume has a session of three subscriptions cut and resumed, twice: what
// each subscription is told is what a join would be, nothing is lost or repeated,
// and nobody sees the actor leave.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		bob, eve := r.actor("bob"), r.watcher()
		p, hello := r.greet(r.issuer.Token(authtest.Actor("ann")))
		token := p.subscribe(subA+`,"presence":{"x":1}`, subB, subC+`,"presence":"c"`).ResumeToken
		for _, sub := range []string{"p", "q"} {
			if f := eve.want(twinrail.OpPresence); f.Sub != sub || who(f.Join) == "" {
				t.Fatalf("eve was told %+v", f)
			}
		}
		r.publish(on("th1", "", 0), on("th1", "p1", 1), on("th1", "p2", 100))
		r.publish(on("th2", "", 0))
		cursors := p.follow(false, map[string]string{"a": "0 1", "b": "0"})

		for round, joins := range []string{`"b1"`, `"b2"`} {
			p.cut()
			n := 2 + 3*round
			r.publish(on("th1", "", n), on("th1", "p2", 100), on("th1", "p1", n+1), on("th1", "", n+2))
			r.publish(on("th2", "", n), `{"channel":"tool","type":"t","routing":{"thread_id":"th2"},"data":9}`)
			if round == 0 {
				bob.subscribe(`"sub":"p","routing":{"thread_id":"th1","panel_id":"p1"},"channels":["presence"],"presence":` + joins)
			} else {
				bob.say(`{"op":"presence","sub":"p","state":%s}`, joins)
				bob.want(twinrail.OpPresence)
			}
			if f := eve.want(twinrail.OpPresence); len(f.Leave) > 0 || who(append(f.Join, f.Update...)) != "bob@p1="+joins {
				t.Fatalf("round %d: eve was told %+v", round, f)
			}
			time.Sleep(4 * time.Second)

			p = r.actor("ann")
			resumed := p.resumes(token, cursors)
			if resumed.SessionID != hello.SessionID {
				t.Errorf("round %d: resumed the session %s, want %s", round, resumed.SessionID, hello.SessionID)
			}
			want := fmt.Sprintf(`a:true[ann@p1={"x":1} bob@p1=%s] b:true c:false[ann="c"]`, joins)
			if got := subsOf(resumed); got != want {
				t.Errorf("round %d: resumed %s, want %s", round, got, want)
			}
			r.likeJoined(resumed.Subs, cursors)
			token = resumed.ResumeToken
			cursors = p.follow(true, map[string]string{"a": count(n, n+3), "b": fmt.Sprintf("%d 9", n), "c": ""})
			delete(cursors, "c")
			r.publish(on("th1", "p1", 50))
			maps.Copy(cursors, p.follow(false, map[string]string{"a": "50"}))
			eve.silent("while ann was resumed")
		}
	})
}

// likeJoined checks that resumed says of each sub what joined would say.
func (r *rig) likeJoined(subs []twinrail.Subscription, cursors map[string]string) {
	r.t.Helper()
	p := r.actor("ann")
	defer p.write(frame(true, ws.OpClose, nil))
	for i, join := range []string{subA, subB, subC} {
		after := ""
		if at := cursors[subs[i].Sub]; at != "" {
			after = `,"after":"` + at + `"`
		}
		p.say(`{"op":"join",%s%s}`, join, after)
		joined := p.said()
		for joined.Op != twinrail.OpJoined {
			joined = p.said()
		}
		as := twinrail.Subscription{Sub: joined.Sub, Cursor: joined.Cursor, Head: joined.Head, Resumed: *joined.Resumed, Reason: joined.Reason, Members: joined.Members}
		want, _ := json.Marshal(as)
		if got, _ := json.Marshal(subs[i]); string(got) != string(want) {
			r.t.Errorf("resumed says %s, joined %s", got, want)
		}
	}
}

// TestResumeEarlierToken resumes with a token that is not the last: it restores
// what was then, and with that the later ones are used, too.
func TestResumeEarlierToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.watcher()
		p, hello := r.greet(r.token)
		first := p.subscribe(subA + `,"presence":1`).ResumeToken
		second := p.subscribe(subC + `,"presence":2`).ResumeToken
		eve.want(twinrail.OpPresence)
		eve.want(twinrail.OpPresence)
		p.say(`{"op":"leave","sub":"a"}`)
		third := p.want(twinrail.OpLeft).ResumeToken
		if f := eve.want(twinrail.OpPresence); f.Sub != "p" || who(f.Leave) != "u_1@p1" {
			t.Fatalf("eve was told %+v", f)
		}
		p.cut()
		head := r.publish(on("th1", "", 0))[0]

		p, _ = r.greet(r.token)
		if got := subsOf(p.resumes(first, map[string]string{"a": head.Cursor})); got != `a:true[u_1@p1]` {
			t.Errorf("resumed %s", got)
		}
		p.follow(true, map[string]string{"a": ""})
		// Present again as the token says, and not where it does not.
		for range 2 {
			f := eve.want(twinrail.OpPresence)
			if told := f.Sub + " +" + who(f.Join) + " -" + who(f.Leave); told != "p +u_1@p1 -" && told != "q + -u_1" {
				t.Errorf("eve was told %s", told)
			}
		}
		again, _ := r.greet(r.token)
		for token, cursors := range map[string]map[string]string{
			hello.ResumeToken: nil, first: {"a": head.Cursor}, second: {"a": head.Cursor}, third: nil,
		} {
			again.resume(token, cursors)
			again.wantError(twinrail.CodeResumeUsed, "r")
		}
	})
}

// TestResumeLate comes back after the grace, within the window: those who watch
// see one leave, and one who joins with the state of before.
func TestResumeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.actor("eve")
		eve.enter(inThread, "")
		p, _ := r.greet(r.token)
		token := p.subscribe(`"sub":"x",` + inThread + `,"presence":{"x":1}`).ResumeToken
		eve.tells(`+u_1={"x":1}`)
		p.cut()
		eve.quiet(10*time.Second-time.Millisecond, "within the grace")
		eve.tells("-u_1")
		eve.quiet(100*time.Second, "within the window")
		p, _ = r.greet(r.token)
		if got := subsOf(p.resumes(token, nil)); got != `x:false[u_1={"x":1}]` {
			t.Errorf("resumed %s", got)
		}
		eve.tells(`+u_1={"x":1}`)
		p.want(twinrail.OpLive)
		eve.silent("after the return")
		p.silent("after its own return")
	})
}

// TestResumeAfterEnds resumes after each end that is not for good.
func TestResumeAfterEnds(t *testing.T) {
	for name, end := range map[string]func(*rig, *peer){
		"cut": func(_ *rig, p *peer) { p.cut() },
		"closed to come back": func(_ *rig, p *peer) {
			p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(4200, "")))
			p.closed()
		},
		"heartbeat lost": func(_ *rig, p *peer) {
			drainFrames(p)
			_ = p.nc.Close()
		},
		"credential expired": func(r *rig, p *peer) {
			p.say(`{"op":"auth","token":%q}`, r.issuer.Token(authtest.ExpiresIn(time.Hour+time.Second)))
			p.want(twinrail.OpAuthed)
			for f := p.said(); f.Op != twinrail.OpError; {
				f = p.said()
			}
			p.closed()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				p, _ := r.greet(r.token)
				token := p.subscribe(subC + `,"presence":1`).ResumeToken
				end(r, p)
				synctest.Wait()
				p, _ = r.greet(r.issuer.Token())
				if got := subsOf(p.resumes(token, nil)); got != "c:false[u_1=1]" {
					t.Errorf("resumed %s", got)
				}
			})
		})
	}
}

// TestRejoin comes back with a thread and a cursor alone.
func TestRejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		p, hello := r.greet(r.token)
		p.subscribe(subA, subB)
		r.publish(on("th1", "p1", 0))
		at := p.follow(false, map[string]string{"a": "0"})["a"]
		p.cut()
		r.publish(on("th1", "", 1), on("th1", "p2", 100), on("th1", "p1", 2))
		p, again := r.greet(r.token)
		if again.SessionID == hello.SessionID {
			t.Error("a new connection began in the old session")
		}
		p.say(`{"op":"join",%s,"after":%q}`, subA, at)
		if joined := p.want(twinrail.OpJoined); !*joined.Resumed || joined.Cursor != at {
			t.Errorf("joined %+v", joined)
		}
		p.follow(true, map[string]string{"a": "1 2"})
	})
}

// TestResumeVoidCursor has retention, or another stream's cursor, void one sub of
// three: it is reset, and the others go on.
func TestResumeVoidCursor(t *testing.T) {
	for name, reason := range map[string]twinrail.Code{"expired": twinrail.CodeCursorExpired, "another stream's": twinrail.CodeCursorUnknown, "nonsense": twinrail.CodeCursorUnknown} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t, keep(10))
				p, _ := r.greet(r.token)
				first, other := r.publish(on("th1", "", 0))[0], r.publish(on("th2", "", 0))[0]
				token := p.subscribe(subA, subB, subC).ResumeToken
				p.cut()
				at := first.Cursor
				switch name {
				case "expired":
					r.chats(1, 100)
				case "another stream's":
					at = other.Cursor
				case "nonsense":
					at = "nonsense"
				}
				r.publish(on("th2", "", 1))
				_, page := r.page(twinrail.PathHistory + "?" + appQuery + "&thread_id=th1")
				p, _ = r.greet(r.token)
				resumed := p.resumes(token, map[string]string{"a": at, "b": other.Cursor})
				if got, want := subsOf(resumed), "a:false:"+string(reason)+"[] b:true c:false[]"; got != want {
					t.Errorf("resumed %s, want %s", got, want)
				}
				if a := resumed.Subs[0]; a.Cursor != page.Head || a.Head != page.Head {
					t.Errorf("resumed %+v, want the head %s", a, page.Head)
				}
				if f := p.want(twinrail.OpReset); f.Sub != "a" || f.Reason != reason || f.Oldest != page.Oldest || f.Head != page.Head {
					t.Errorf("reset %+v, want %s to %s", f, page.Oldest, page.Head)
				}
				p.follow(true, map[string]string{"a": "", "b": "1", "c": ""})
				r.publish(on("th1", "", 200))
				r.publish(on("th2", "", 200))
				p.follow(false, map[string]string{"a": "200", "b": "200"})
			})
		})
	}
}

// TestResumeNarrower resumes with a credential that covers less: what it does not
// cover is not there, and the others go on.
func TestResumeNarrower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.watcher()
		at := map[string]string{"a": r.publish(on("th1", "", 0))[0].Cursor, "b": r.publish(on("th2", "", 0))[0].Cursor}
		p, _ := r.greet(r.token)
		token := p.subscribe(subA+`,"presence":1`, subB, subC+`,"presence":2`).ResumeToken
		eve.want(twinrail.OpPresence)
		eve.want(twinrail.OpPresence)
		p.cut()
		r.publish(on("th1", "", 1))
		r.publish(on("th2", "", 1))
		home := twinrail.Grant{WorkspaceID: "w1", ProjectID: "p1", AppID: "studio"}
		thread, canvas := home, home
		thread.ThreadID, thread.Can = "th2", []string{"chat:read", "tool:read"}
		canvas.CanvasID, canvas.Can = "c1", []string{"presence:read"}

		p, _ = r.greet(r.issuer.Token(authtest.Grants(thread, canvas)))
		resumed := p.resumes(token, at)
		if got := subsOf(resumed); got != "a:false:not_found b:true c:false[]" {
			t.Errorf("resumed %s", got)
		}
		if a := resumed.Subs[0]; a.Detail == "" || a.Cursor+a.Head != "" || a.Members != nil {
			t.Errorf("refused %+v", a)
		}
		p.follow(true, map[string]string{"b": "1", "c": ""})
		for range 2 {
			f := eve.want(twinrail.OpPresence)
			if told := f.Sub + " +" + who(f.Join) + " -" + who(f.Leave); told != "p + -u_1@p1" && told != "q + -u_1" {
				t.Errorf("eve was told %s", told)
			}
		}
		p.say(`{"op":"presence","sub":"c","state":3}`)
		p.wantError(twinrail.CodeNotFound, "")
		eve.silent("after the leaves")
		r.publish(on("th1", "", 2))
		r.publish(on("th2", "", 2))
		p.follow(false, map[string]string{"b": "2"})
		// The token that was given then has what is left.
		p.cut()
		p, _ = r.greet(r.token)
		if got := subsOf(p.resumes(resumed.ResumeToken, map[string]string{"b": at["b"]})); got != "b:true c:false[]" {
			t.Errorf("then resumed %s", got)
		}
	})
}

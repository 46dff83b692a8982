package server

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// halves are connections that can be closed by halves, as those of TCP can, so
// that the server waits for the peer's half. A read deadline has no effect then:
// a reader that was under way may take it back.
type halves struct{ net.Listener }

type half struct {
	net.Conn
	closed atomic.Bool
}

func (l halves) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &half{Conn: nc}, nil
}

func (h *half) CloseWrite() error {
	h.closed.Store(true)
	return h.Conn.SetReadDeadline(time.Time{})
}

func (h *half) SetReadDeadline(t time.Time) error {
	if h.closed.Load() {
		return nil
	}
	return h.Conn.SetReadDeadline(t)
}

// lingeringRig is newBubbleRig over halves.
func lingeringRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	change = append(change, func(o *Options) { o.MaxLateness = -1 })
	return startRig(t, authtest.New(t), peekWatcher{}, halves{ln}, ln.dial, change...)
}

// holds reads up to the close frame, and then leaves the connection open.
func (p *peer) holds(code int) {
	p.t.Helper()
	for {
		f := p.raw()
		if f.Header.OpCode != ws.OpClose {
			continue
		}
		if got, _ := ws.ParseCloseFrameData(f.Payload); int(got) != code && code != 0 {
			p.t.Fatalf("closed with %d, want %d", got, code)
		}
		return
	}
}

// cutOff checks that the server closes the connection within linger.
func (p *peer) cutOff() {
	p.t.Helper()
	start := time.Now()
	_ = p.nc.SetReadDeadline(start.Add(patience))
	if _, err := p.br.ReadByte(); err != io.EOF || time.Since(start) > lingerTime {
		p.t.Errorf("after %v: %v, want the end within %v", time.Since(start), err, lingerTime)
	}
}

// TestEndDoesNotLinger has the server end a connection whose peer keeps its half
// open, or reads nothing at all: for everybody else it is gone at once.
func TestEndDoesNotLinger(t *testing.T) {
	closes := func(code ws.StatusCode) func(*rig, *peer) {
		return func(_ *rig, p *peer) { p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(code, ""))) }
	}
	revoked := func(r *rig, _ *peer) { r.revoke(`{"actor_id":"ann"}`) }
	for name, c := range map[string]struct {
		end   func(*rig, *peer)
		close int
		stuck bool // reads nothing
		all   bool // ends the watcher, too
	}{
		"revoked":               {end: revoked, close: 4010},
		"revoked, and stuck":    {end: revoked, stuck: true},
		"closed for good":       {end: closes(1000), close: 1000},
		"going away":            {end: closes(1001), close: 1001},
		"closed without a code": {end: func(_ *rig, p *peer) { p.write(frame(true, ws.OpClose, nil)) }},
		"an illegal frame":      {end: func(_ *rig, p *peer) { p.say(`{"op":"fly"}`) }, close: 4000},
		"the rail is disabled":  {end: func(r *rig, _ *peer) { r.setFlag("ws_enabled", "false") }, close: 4014, all: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := lingeringRig(t, func(o *Options) { o.MaxConnections = 2 })
				eve, ann := r.actor("eve"), r.actor("ann")
				eve.enter(inThread, "")
				ann.enter(inThread, "1")
				eve.tells("+ann=1")
				start := time.Now()
				c.end(r, ann)
				if !c.stuck {
					ann.holds(c.close)
				}
				if c.all {
					eve.holds(c.close)
				} else {
					eve.tells("-ann")
				}
				if got := r.present(presencePath + "&thread_id=th1"); got != "" {
					t.Errorf("still present: %s", got)
				}
				synctest.Wait()
				if all, held := r.server.sessions.Len(); !c.all && (all != 1 || held != 1) {
					t.Errorf("%d sessions, of which %d are held", all, held)
				}
				if took := time.Since(start); took > 100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				if c.all || c.stuck {
					return
				}
				if subs := r.metric("twinrail_subscriptions"); subs != 1 {
					t.Errorf("%v subscriptions", subs)
				}
				bob := r.actor("bob") // in its place
				ann.cutOff()
				synctest.Wait()
				problemOf(t, r.do("GET", wsPath, "", append(as(r.token), handshakeHeader...)), twinrail.CodeLimitExceeded)
				if n := r.metric(`twinrail_connections{rail="ws"}`); n != 2 {
					t.Errorf("%v connections", n)
				}
				bob.silent("at the other one's end")
			})
		})
	}
}

// TestEndDoesNotLingerSSE has a stream end whose reader keeps its half open.
func TestEndDoesNotLingerSSE(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lingeringRig(t)
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		start := time.Now()
		r.revoke(`{"actor_id":"u_1"}`)
		c.want(twinrail.SSEEnd)
		synctest.Wait()
		if n := r.metric(`twinrail_connections{rail="sse"}`) + r.metric("twinrail_subscriptions"); n != 0 {
			t.Errorf("%v connections and subscriptions", n)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// TestResumeWhileItLingers resumes a session whose old connection closed to come
// back, and keeps its half open: nobody notices anything, then and later.
func TestResumeWhileItLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lingeringRig(t)
		eve := r.watcher()
		old, _ := r.greet(r.token)
		token := old.subscribe(subC + `,"presence":1`).ResumeToken
		eve.want(twinrail.OpPresence)
		old.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(4200, "")))
		old.holds(4200)
		synctest.Wait()
		if got := r.sessionsHeld(); got != "2 1" {
			t.Errorf("%s sessions while it lingers", got)
		}
		p, _ := r.greet(r.token)
		p.resumes(token, nil)
		p.want(twinrail.OpLive)
		old.cutOff()
		for range 3 {
			eve.quiet(9*time.Second, "after the old connection's end")
			p.quiet(time.Second, "after the old connection's end")
		}
		if got := r.sessionsHeld(); got != "2 2" {
			t.Errorf("%s sessions", got)
		}
		_ = p.nc.Close()
		start := time.Now()
		if f := eve.said(); who(f.Leave) != "u_1" || time.Since(start) < 10*time.Second {
			t.Errorf("after the cut eve was told %+v within %v", f, time.Since(start))
		}
	})
}

// TestTakeOverLingers takes a session over from a connection that keeps its half
// open.
func TestTakeOverLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lingeringRig(t)
		eve := r.watcher()
		old, _ := r.greet(r.token)
		token := old.subscribe(subC + `,"presence":1`).ResumeToken
		eve.want(twinrail.OpPresence)
		p, _ := r.greet(r.token)
		start := time.Now()
		p.resumes(token, nil)
		old.holds(4009)
		synctest.Wait()
		if n := r.metric(`twinrail_connections{rail="ws"}`); n != 2 || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%v connections after %v", n, time.Since(start))
		}
		old.cutOff()
		eve.quiet(11*time.Second, "after the old connection's end")
	})
}

// TestGivenUpChangesNothing has a connection that hangs given up, and its session
// resumed; what is done to it afterwards is not done to the session.
func TestGivenUpChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lingeringRig(t, func(o *Options) { o.WriteTimeout = 10 * time.Minute })
		eve := r.watcher()
		old, hello := r.greet(r.token)
		token := old.subscribe(subA+`,"presence":1`, subC+`,"presence":2`).ResumeToken
		eve.want(twinrail.OpPresence)
		eve.want(twinrail.OpPresence)
		r.publish(on("th1", "", 0))
		for range 3 {
			eve.quiet(10*time.Second+farewellTime/10, "while the connection hangs")
		}
		if got := r.sessionsHeld(); got != "2 1" {
			t.Errorf("%s sessions when its heartbeat was lost", got)
		}
		p, _ := r.greet(r.token)
		p.resumes(token, map[string]string{"a": "earliest"})
		p.follow(true, map[string]string{"a": "0", "c": ""})
		read := twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", Can: []string{"presence:read"}}
		narrow := r.issuer.Token(authtest.Grants(read), authtest.ExpiresIn(2*time.Hour))
		if resp := r.do("POST", renewalPath(hello.ConnectionID), "", as(narrow)); resp.status != 200 {
			t.Fatalf("renewed: %d %s", resp.status, resp.body)
		}
		eve.quiet(11*time.Second, "after the renewal of the old connection")
		old.cut()
		p.quiet(time.Second, "after the end of the old connection")
		eve.quiet(11*time.Second, "after the end of the old connection")
		if got := r.sessionsHeld(); got != "2 2" {
			t.Errorf("%s sessions", got)
		}
	})
}

// TestEndsWhileItResumes ends a connection whose resume is being made durable:
// the session is not kept by it, whether it is another one or its own.
func TestEndsWhileItResumes(t *testing.T) {
	for name, c := range map[string]struct {
		own  bool
		end  func(*rig)
		want string
	}{
		"another, revoked": {false, func(r *rig) { r.revoke(`{"actor_id":"ann"}`) }, "0 0"},
		"another, drained": {false, func(r *rig) { r.drain(context.Background()) }, "2 0"},
		"its own, drained": {true, func(r *rig) { r.drain(context.Background()) }, "1 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sessions := new(heldTable)
				r := lingeringRig(t, func(o *Options) { o.Sessions = sessions })
				token := r.issuer.Token(authtest.Actor("ann"))
				p, hello := r.greet(token)
				if !c.own {
					p.cut()
					p, _ = r.greet(token)
				}
				open := sessions.synced.close()
				p.resume(hello.ResumeToken, nil)
				synctest.Wait()
				c.end(r)
				p.holds(0)
				synctest.Wait()
				open()
				synctest.Wait()
				if got := r.sessionsHeld(); got != c.want {
					t.Errorf("%s sessions, want %s", got, c.want)
				}
			})
		})
	}
}

// TestDrainDoesNotLinger has all ended, and Close gives their peers the moment to
// read what was said last.
func TestDrainDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := lingeringRig(t)
		p := r.peer()
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		start := time.Now()
		drained := r.drain(t.Context())
		p.holds(4202)
		for c.next().event != twinrail.SSEEnd {
		}
		if err := <-drained; err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("drained after %v: %v", time.Since(start), err)
		}
		r.server.Close()
		if took := time.Since(start); took < lingerTime || took > lingerTime+100*time.Millisecond {
			t.Errorf("closed after %v, want %v", took, lingerTime)
		}
	})
}

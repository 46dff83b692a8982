package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// takenOver reads what was on its way, and then that the session was taken over.
func (p *peer) takenOver() {
	p.t.Helper()
	f := p.next()
	for f.Op == twinrail.OpEvent || f.Op == twinrail.OpLive || f.Op == twinrail.OpPing ||
		f.Op == twinrail.OpLeft || f.Op == twinrail.OpError && f.Action == "" { // of a renewal
		f = p.next()
	}
	if f.Op != twinrail.OpError || f.Code != twinrail.CodeSessionTakenOver || f.Action != twinrail.ActionStop || f.Resumable == nil || *f.Resumable {
		p.t.Fatalf("got %+v, want that the session was taken over", f)
	}
	if code, reason := p.closed(); code != 4009 || reason != "session_taken_over" {
		p.t.Fatalf("closed with %d %q", code, reason)
	}
}

// sessionsHeld returns how many sessions there are, and how many of them are held.
func (r *rig) sessionsHeld() string {
	all, held := r.server.sessions.Len()
	return fmt.Sprint(all, " ", held)
}

// TestTakeOver resumes a session whose connection hangs, with events on their way
// over it. The new one has what the old one did not get, and however the old one
// ends changes nothing.
func TestTakeOver(t *testing.T) {
	for name, end := range map[string]func(*peer){
		"reads again": (*peer).takenOver,
		"never reads": func(*peer) {},
		"is cut":      func(p *peer) { _ = p.nc.Close() },
		"closes for good": func(p *peer) {
			p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(1000, "")))
			drainFrames(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				eve := r.watcher()
				old, hello := r.greet(r.token)
				token := old.subscribe(subA+`,"presence":1`, subB, subC+`,"presence":2`).ResumeToken
				eve.want(twinrail.OpPresence)
				eve.want(twinrail.OpPresence)
				r.publish(on("th1", "p1", 0))
				r.publish(on("th2", "", 0))
				at := old.follow(false, map[string]string{"a": "0", "b": "0"})
				for i := 1; i < 4; i++ {
					r.publish(on("th1", "", i))
					r.publish(on("th2", "", i))
					synctest.Wait() // the first of them waits to be read
				}
				p, _ := r.greet(r.token)
				resumed := p.resumes(token, at)
				if got := subsOf(resumed); got != "a:true[u_1@p1=1] b:true c:false[u_1=2]" || resumed.SessionID != hello.SessionID {
					t.Errorf("resumed %s %s", resumed.SessionID, got)
				}
				p.follow(true, map[string]string{"a": "1 2 3", "b": "1 2 3", "c": ""})
				r.publish(on("th1", "p1", 4))
				p.follow(false, map[string]string{"a": "4"})
				eve.silent("when the session was taken over")

				end(old)
				for range 4 { // past the grace, and past the time that a write may take
					eve.quiet(9*time.Second, "after the old connection's end")
					p.quiet(time.Second, "after the old connection's end")
				}
				if got := r.sessionsHeld(); got != "2 2" {
					t.Errorf("%s sessions", got)
				}
				if n := r.metric(`twinrail_connections{rail="ws"}`); n != 2 {
					t.Errorf("%v connections", n)
				}
				p.say(`{"op":"presence","sub":"c","state":3}`)
				if f := eve.want(twinrail.OpPresence); who(f.Update) != "u_1=3" {
					t.Errorf("eve was told %+v", f)
				}
				p.cut()
				p, _ = r.greet(r.token)
				p.resumes(resumed.ResumeToken, at)
				p.follow(true, map[string]string{"a": "1 2 3 4", "b": "1 2 3", "c": ""})
				eve.silent("when the session was resumed again")
			})
		})
	}
}

// TestTakeOverOfOneGivenUp resumes a session whose connection hangs so that its
// heartbeat was found lost, which it could not be told yet.
func TestTakeOverOfOneGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.WriteTimeout = 10 * time.Minute })
		eve := r.watcher()
		old, _ := r.greet(r.token)
		token := old.subscribe(subA+`,"presence":1`, subC+`,"presence":2`).ResumeToken
		eve.want(twinrail.OpPresence)
		eve.want(twinrail.OpPresence)
		r.publish(on("th1", "", 0))
		for range 3 {
			eve.quiet(10*time.Second+farewellTime/10, "while the connection hangs")
		}
		p, _ := r.greet(r.token)
		p.resumes(token, map[string]string{"a": "earliest"})
		p.follow(true, map[string]string{"a": "0", "c": ""})
		old.cut()
		eve.quiet(11*time.Second, "after the end of the old connection")
		if got := r.sessionsHeld(); got != "2 2" {
			t.Errorf("%s sessions", got)
		}
	})
}

// TestTakeOverRenewed gives the connection that was taken over a narrower
// credential: that is not the session's.
func TestTakeOverRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.watcher()
		old, hello := r.greet(r.token)
		token := old.subscribe(subA+`,"presence":1`, subC+`,"presence":2`).ResumeToken
		eve.want(twinrail.OpPresence)
		eve.want(twinrail.OpPresence)
		r.publish(on("th1", "", 0))
		synctest.Wait() // which hangs
		p, _ := r.greet(r.token)
		p.resumes(token, map[string]string{"a": "earliest"})
		read := twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", Can: []string{"presence:read"}}
		narrow := r.issuer.Token(authtest.Grants(read), authtest.ExpiresIn(2*time.Hour))
		if resp := r.do("POST", renewalPath(hello.ConnectionID), "", as(narrow)); resp.status != 200 {
			t.Fatalf("renewed: %d %s", resp.status, resp.body)
		}
		eve.quiet(farewellTime/2, "after the renewal of the old connection")
		p.follow(true, map[string]string{"a": "0", "c": ""})
		old.takenOver()
		eve.quiet(11*time.Second, "after the end of the old connection")
	})
}

// TestTakeOverRace has the old connection end, for the client in one of several
// ways, at the moment in which the session is resumed, while events come.
func TestTakeOverRace(t *testing.T) {
	const rounds = 60
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.watcher()
		p, _ := r.greet(r.token)
		token := p.subscribe(subA+`,"presence":1`, subC+`,"presence":2`).ResumeToken
		eve.want(twinrail.OpPresence)
		eve.want(twinrail.OpPresence)
		at := map[string]string{"a": r.publish(on("th1", "", 0))[0].Cursor}
		p.follow(false, map[string]string{"a": "0"})
		for round := range rounds {
			old := p
			p, _ = r.greet(r.token)
			done := make(chan struct{}, 2)
			go func() {
				switch round % 3 {
				case 0:
					_ = old.nc.Close()
				case 1:
					go drainFrames(old)
					_, _ = old.nc.Write(frame(true, ws.OpClose, ws.NewCloseFrameBody(4200, "")))
				case 2:
					drainFrames(old)
				}
				done <- struct{}{}
			}()
			go func() {
				r.publish(on("th1", "", 3*round+1), on("th1", "p2", 0), on("th1", "", 3*round+2))
				r.publish(on("th1", "p1", 3*round+3))
				done <- struct{}{}
			}()
			resumed := p.resumes(token, at)
			if got := subsOf(resumed); got != "a:true[u_1@p1=1] c:false[u_1=2]" {
				t.Fatalf("round %d: resumed %s", round, got)
			}
			token = resumed.ResumeToken
			at = p.followSome("a", count(3*round+1, 3*round+4))
			<-done
			<-done
			eve.quiet(11*time.Second, fmt.Sprintf("round %d", round))
			_ = old.nc.Close()
			synctest.Wait()
			if got := r.sessionsHeld(); got != "2 2" {
				t.Fatalf("round %d: %s sessions", round, got)
			}
		}
	})
}

// TestTakeOverRaceTCP is the same over sockets, which another watcher watches, and
// without the time to see who leaves late.
func TestTakeOverRaceTCP(t *testing.T) {
	r := newRig(t)
	eve := r.watcher()
	p, _ := r.greet(r.token)
	token := p.subscribe(subA+`,"presence":1`, subC+`,"presence":2`).ResumeToken
	eve.want(twinrail.OpPresence)
	eve.want(twinrail.OpPresence)
	at := map[string]string{"a": r.publish(on("th1", "", 0))[0].Cursor}
	p.follow(false, map[string]string{"a": "0"})
	for round := range 40 {
		old := p
		p, _ = r.greet(r.token)
		done := make(chan struct{}, 2)
		go func() {
			if round%2 == 0 {
				_ = old.nc.Close()
			} else {
				drainFrames(old)
			}
			done <- struct{}{}
		}()
		go func() {
			r.publish(on("th1", "", 2*round+1))
			r.publish(on("th1", "p1", 2*round+2))
			done <- struct{}{}
		}()
		token = p.resumes(token, at).ResumeToken
		at = p.followSome("a", count(2*round+1, 2*round+3))
		<-done
		<-done
		_ = old.nc.Close()
		eventually(t, "the old connection is gone", func() bool { return r.metric(`twinrail_connections{rail="ws"}`) == 2 })
		if got := r.sessionsHeld(); got != "2 2" {
			t.Fatalf("round %d: %s sessions", round, got)
		}
		eve.silent(fmt.Sprintf("round %d", round))
	}
}

// followSome is follow where live may come at any time.
func (p *peer) followSome(sub, want string) map[string]string {
	p.t.Helper()
	var got []string
	at := make(map[string]string)
	for len(got) < len(strings.Fields(want)) {
		f := p.said()
		switch f.Op {
		case twinrail.OpEvent:
			var e twinrail.Event
			unmarshal(p.t, f.Event, &e)
			got, at[sub] = append(got, string(e.Data)), e.Cursor
		case twinrail.OpLive:
		default:
			p.t.Fatalf("got %+v, want events", f)
		}
	}
	if data := strings.Join(got, " "); data != want {
		p.t.Fatalf("got %s, want %s", data, want)
	}
	return at
}

// TestTakeOverOfOneWhoLeaves has the old connection close for good at the moment
// in which the session is resumed: one of the two is first.
func TestTakeOverOfOneWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		for round := range 60 {
			old, _ := r.greet(r.token)
			token := old.subscribe(subC + `,"presence":1`).ResumeToken
			p, _ := r.greet(r.token)
			go drainFrames(old)
			go func() { _, _ = old.nc.Write(frame(true, ws.OpClose, nil)) }()
			p.resume(token, nil)
			f := p.next()
			time.Sleep(11 * time.Second)
			there := r.present(presencePath + "&canvas_id=c1")
			if resumed := f.Op == twinrail.OpResumed && there == "u_1=1"; !resumed && (f.Code != twinrail.CodeResumeExpired || there != "") {
				t.Fatalf("round %d: %+v, and present is %q", round, f, there)
			}
			go drainFrames(p)
			p.write(frame(true, ws.OpClose, nil))
			synctest.Wait()
			if all, _ := r.server.sessions.Len(); all > 0 || r.present(presencePath+"&canvas_id=c1") != "" {
				t.Fatalf("round %d: %d sessions, and present is %q", round, all, r.present(presencePath+"&canvas_id=c1"))
			}
			_, _ = old.nc.Close(), p.nc.Close()
		}
	})
}

// copyTable returns what is in a table at this moment, as a crash leaves it.
func copyTable(t *testing.T, from table.Table) *table.Memory {
	t.Helper()
	to := new(table.Memory)
	err := from.Scan(func(key string, value []byte) error { return to.Put(key, value, table.Lazy) })
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestResumeAfterRestart resumes over a server that came in the place of another
// one, which ended well or did not.
func TestResumeAfterRestart(t *testing.T) {
	for _, name := range []string{"closed", "crashed"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer, key := authtest.New(t), bytes.Repeat([]byte{7}, auth.MinSecret)
				j := journal.NewMemory(journal.MemoryOptions{})
				start := func(sessions table.Table) *rig {
					return newBubbleRigOf(t, issuer, func(o *Options) {
						o.Journal, o.Sessions, o.Gate = j, sessions, issuer.Gate(auth.GateOptions{Key: key})
					})
				}
				kept := new(table.Memory)
				r := start(kept)
				p, hello := r.greet(r.token)
				first := p.subscribe(subA+`,"presence":1`, subB, subC).ResumeToken
				at := map[string]string{"a": r.publish(on("th1", "", 0))[0].Cursor, "b": r.publish(on("th2", "", 0))[0].Cursor}
				p.cut()
				p, _ = r.greet(r.token)
				second := p.resumes(first, at).ResumeToken
				p.follow(true, map[string]string{"a": "", "b": "", "c": ""})
				waiting, _ := r.greet(r.token)
				third := waiting.subscribe(subC).ResumeToken
				last, _ := r.greet(r.token)
				fourth := last.subscribe(subC).ResumeToken
				if name == "closed" {
					r.server.Close()
				} else {
					kept = copyTable(t, kept)
				}
				time.Sleep(30 * time.Second) // within the window

				r = start(kept)
				r.publish(on("th1", "p1", 1))
				p, _ = r.greet(r.token)
				p.resume(first, at)
				p.wantError(twinrail.CodeResumeUsed, "r")
				resumed := p.resumes(second, at)
				if got := subsOf(resumed); got != "a:true[u_1@p1] b:true c:false[]" || resumed.SessionID != hello.SessionID {
					t.Errorf("resumed %s %s", resumed.SessionID, got)
				}
				p.follow(true, map[string]string{"a": "1", "b": "", "c": ""})
				p.say(`{"op":"presence","sub":"a","state":2}`)
				if f := p.want(twinrail.OpPresence); who(f.Update) != "u_1@p1=2" {
					t.Errorf("present again: %+v", f)
				}
				p.cut()
				p, _ = r.greet(r.token)
				p.resume(second, at)
				p.wantError(twinrail.CodeResumeUsed, "r")
				p.resumes(resumed.ResumeToken, at)
				r.server.Close()

				// The window begins anew with each start, and no sooner.
				r = start(kept)
				time.Sleep(80 * time.Second)
				p, _ = r.greet(r.token)
				p.resumes(third, nil)
				time.Sleep(2 * time.Minute)
				p, _ = r.greet(r.token)
				p.resume(fourth, nil)
				p.wantError(twinrail.CodeResumeExpired, "r")
			})
		})
	}
}

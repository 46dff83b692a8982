package server

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/table"
)

// heldTable is a table whose synced changes, such as a claim, can be held up: all,
// or those of one key.
type heldTable struct {
	table.Memory
	synced gate
	key    string
}

func (t *heldTable) Put(key string, value []byte, d table.Durability) error {
	if d == table.Synced && (t.key == "" || t.key == key) {
		t.synced.pass()
	}
	return t.Memory.Put(key, value, d)
}

// TestResumeCutMeanwhile cuts the connection that resumes before it has the
// session: that is lost again, and its members leave after the grace.
func TestResumeCutMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := new(heldTable)
		r := newBubbleRig(t, func(o *Options) { o.Sessions, o.Heartbeat = held, 5*time.Second })
		old, _ := r.greet(r.token)
		token := old.subscribe(subC + `,"presence":1`).ResumeToken
		go drainFrames(old)
		p, _ := r.greet(r.token)
		open := held.synced.close()
		p.resume(token, nil)
		synctest.Wait()
		_ = p.nc.Close()
		time.Sleep(6 * time.Second) // the server pings, and knows
		old.say(`{"op":"pong"}`)
		open()
		synctest.Wait()
		if got := r.present(presencePath + "&canvas_id=c1"); got != "u_1=1" {
			t.Errorf("present within the grace: %q", got)
		}
		time.Sleep(11 * time.Second)
		if got := r.present(presencePath + "&canvas_id=c1"); got != "" {
			t.Errorf("present after the grace: %q", got)
		}
		time.Sleep(2 * time.Minute)
		if got := r.sessionsHeld(); got != "0 0" {
			t.Errorf("%s sessions after the window", got)
		}
	})
}

// TestResumeTakenOverMeanwhile takes from a connection the session that it began
// with, while it resumes another one: that is lost again, since the connection is
// told to stop.
func TestResumeTakenOverMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := new(heldTable)
		r := newBubbleRig(t, func(o *Options) { o.Sessions = held })
		lost, hello := r.greet(r.token)
		token := lost.subscribe(subC + `,"presence":1`).ResumeToken
		lost.cut()
		held.key = hello.SessionID
		open := held.synced.close()
		p, own := r.greet(r.token)
		p.resume(token, nil)
		synctest.Wait()
		thief, _ := r.greet(r.token)
		thief.resumes(own.ResumeToken, nil)
		p.takenOver()
		open()
		synctest.Wait()
		if got := r.sessionsHeld(); got != "2 1" {
			t.Errorf("%s sessions", got)
		}
		_ = thief.nc.Close()
		time.Sleep(2*time.Minute + time.Second)
		if got := r.sessionsHeld() + r.present(presencePath+"&canvas_id=c1"); got != "0 0" {
			t.Errorf("after the window: %s", got)
		}
	})
}

// TestResumeCutInTheMidst cuts the connection that resumes while its
// subscriptions are opened: none of them is left behind.
func TestResumeCutInTheMidst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newHeldJournal()
		r := newBubbleRig(t, func(o *Options) { o.Journal, o.Heartbeat = j, 5*time.Second })
		p, _ := r.greet(r.token)
		token := p.subscribe(subA+`,"presence":1`, subB, subC+`,"presence":2`).ResumeToken
		p.cut()
		p, _ = r.greet(r.token)
		open := j.bounds.close()
		p.resume(token, map[string]string{"a": "earliest", "b": "earliest"})
		synctest.Wait()
		_ = p.nc.Close()
		time.Sleep(6 * time.Second)
		open()
		synctest.Wait()
		if n := r.server.hub.Streams(); n != 0 {
			t.Errorf("%d streams have subscribers", n)
		}
		if n := r.metric("twinrail_subscriptions"); n != 0 {
			t.Errorf("%v subscriptions are counted", n)
		}
		time.Sleep(11 * time.Second)
		if got := r.present(presencePath + "&canvas_id=c1"); got != "" {
			t.Errorf("present after the grace: %q", got)
		}
		time.Sleep(2 * time.Minute)
		if got := r.sessionsHeld(); got != "0 0" {
			t.Errorf("%s sessions after the window", got)
		}
	})
}

// TestResumeRenewedMeanwhile narrows the credential while the subscriptions are
// opened: what it does not cover any more is told once, and nothing of it comes
// after that.
func TestResumeRenewedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newHeldJournal()
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		eve := r.watcher()
		p, _ := r.greet(r.token)
		token := p.subscribe(subB, subC+`,"presence":1`).ResumeToken
		eve.want(twinrail.OpPresence)
		p.cut()
		r.publish(on("th2", "", 0))
		p, hello := r.greet(r.token)
		open := j.bounds.close()
		p.resume(token, map[string]string{"b": "earliest"})
		synctest.Wait()
		chat := twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", ThreadID: "*", Can: []string{"chat:*", "tool:*"}}
		narrow := r.issuer.Token(authtest.Grants(chat), authtest.ExpiresIn(2*time.Hour))
		if resp := r.do("POST", renewalPath(hello.ConnectionID), "", as(narrow)); resp.status != 200 {
			t.Fatalf("renewed: %d %s", resp.status, resp.body)
		}
		open()
		p.want(twinrail.OpResumed)
		if f := p.wantError(twinrail.CodeNotFound, ""); f.Sub != "c" {
			t.Errorf("refused %+v", f)
		}
		if f := p.want(twinrail.OpLeft); f.Sub != "c" {
			t.Errorf("left %+v", f)
		}
		p.follow(true, map[string]string{"b": "0"})
		if f := eve.want(twinrail.OpPresence); f.Sub != "q" || who(f.Leave) != "u_1" {
			t.Errorf("eve was told %+v", f)
		}
	})
}

// TestJoinRenewedMeanwhile narrows the credential while a subscription is opened.
func TestJoinRenewedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newHeldJournal()
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		p, hello := r.greet(r.token)
		open := j.bounds.close()
		p.say(`{"op":"join",%s,"presence":1}`, subC)
		synctest.Wait()
		chat := twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", ThreadID: "*", Can: []string{"chat:*", "tool:*"}}
		narrow := r.issuer.Token(authtest.Grants(chat), authtest.ExpiresIn(2*time.Hour))
		if resp := r.do("POST", renewalPath(hello.ConnectionID), "", as(narrow)); resp.status != 200 {
			t.Fatalf("renewed: %d %s", resp.status, resp.body)
		}
		open()
		p.want(twinrail.OpJoined)
		if f := p.wantError(twinrail.CodeNotFound, ""); f.Sub != "c" {
			t.Errorf("refused %+v", f)
		}
		if f := p.want(twinrail.OpLeft); f.Sub != "c" {
			t.Errorf("left %+v", f)
		}
		p.silent("after left")
		if got := r.present(presencePath + "&canvas_id=c1"); got != "" {
			t.Errorf("present: %s", got)
		}
	})
}

// TestLateFrame handles a frame that was read right before the connection ended,
// or lost its session: nobody is present by it who would never leave.
func TestLateFrame(t *testing.T) {
	closing := func(code ws.StatusCode) func(*rig, *peer, string) {
		return func(_ *rig, p *peer, _ string) {
			p.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(code, "")))
			p.closed()
			synctest.Wait()
		}
	}
	for name, end := range map[string]func(r *rig, p *peer, token string){
		"closed for good":     closing(1000),
		"closed to come back": closing(4200),
		"taken over": func(r *rig, p *peer, token string) {
			go drainFrames(p)
			next, _ := r.greet(r.token)
			next.resumes(token, nil)
			go drainFrames(next)
		},
	} {
		for _, late := range []string{
			`{"op":"join","sub":"x","routing":{"canvas_id":"c2"},"channels":["presence"],"presence":1}`,
			`{"op":"presence","sub":"c","state":1}`,
			`{"op":"leave","sub":"c"}`,
		} {
			t.Run(fmt.Sprint(name, " ", late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newBubbleRig(t)
					p, hello := r.greet(r.token)
					token := p.subscribe(subC).ResumeToken
					c := r.connection(hello.ConnectionID).(*wsConn)
					end(r, p, token)
					if err := c.handle([]byte(late)); err != nil {
						t.Error(err)
					}
					time.Sleep(11 * time.Second)
					for _, canvas := range []string{"c1", "c2"} {
						if got := r.present(presencePath + "&canvas_id=" + canvas); got != "" {
							t.Errorf("present on %s: %s", canvas, got)
						}
					}
				})
			})
		}
	}
}

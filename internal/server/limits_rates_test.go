package server

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/table"
)

// TestChangeRate opens and ends sessions faster than the tenant may, and then gets
// tickets: its owner can revoke and set flags all the same, as fast as that goes, as
// can another tenant. Who may not do these uses up nothing of it.
func TestChangeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, seconds = 5, 20
		issuer := authtest.New(t)
		r := newBubbleRigOf(t, issuer, pages(issuer, new(table.Memory), new(table.Memory)),
			func(o *Options) { o.ChangeRate, o.JoinRate, o.MaxJoins = rate, rate, 1 })
		a, b := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		owner := as(r.issuer.Token(authtest.Role(twinrail.Owner), authtest.Actor("u_owner")))
		nobody := as(r.issuer.Token(authtest.Grants(), authtest.Actor("u_2")))
		revoke := func(who header) reply { return r.do("POST", revocationsPath, `{"jti":"j"}`, who) }
		flag := func(who header) []reply {
			return []reply{r.do("PUT", flagsPath("replay"), `{"value":true}`, who), r.do("DELETE", flagsPath("replay"), "", who)}
		}
		sessions, tickets, changes := 0, 0, 0
		for i := range seconds * 10 {
			for _, method := range []string{"POST", "DELETE"} {
				if passes(t, "changes", r.do(method, sessionPath, "", append(as(a.token), "Origin", ours))) {
					sessions++
				}
			}
			who := as(r.issuer.Token(authtest.Actor(fmt.Sprint("u_", i/20)))) // each may have but 64
			if passes(t, "joins", r.do("POST", ticketsPath, "", who)) {
				tickets++
			}
			for _, resp := range append(flag(nobody), revoke(nobody)) {
				problemOf(t, resp, twinrail.CodeNotFound)
			}
			for _, resp := range append(flag(owner), revoke(owner)) {
				if passes(t, "changes", resp) {
					changes++
				}
			}
			time.Sleep(time.Second / 10)
		}
		for what, passed := range map[string]int{"sessions": sessions, "tickets": tickets, "changes": changes} {
			if most := seconds*rate + 2*rate; passed < most-2 || passed > most {
				t.Errorf("%d %s passed, want %d", passed, what, most)
			}
		}
		for range 2 * rate {
			if !passes(t, "changes", b.ask("POST", sessionPath, "")) {
				t.Fatal("another tenant is held up")
			}
		}
		if r.limited("changes") == 0 {
			t.Error("refusals are not counted")
		}
	})
}

// TestJoinRate joins for a minute, faster than the tenant may.
func TestJoinRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.JoinRate, o.MaxJoins = 10, 2 })
		one, other := r.caller("t_acme", "dev").peer(), r.caller("t_other", "dev").peer()
		join := func(p *peer) bool {
			p.say(`{"op":"join","ref":"j","sub":"a","routing":{"thread_id":"th1"},"presence":1}`)
			f := p.said()
			if f.Op == twinrail.OpError {
				if f.Code != twinrail.CodeRateLimited || f.Field != "joins" || f.Ref != "j" || f.RetryAfterMS < 1 || f.RetryAfterMS > 100 {
					t.Fatalf("refused with %+v", f)
				}
				return false
			}
			for f.Op != twinrail.OpLive {
				f = p.said()
			}
			p.say(`{"op":"leave","sub":"a"}`)
			if f = p.said(); f.Op != twinrail.OpLeft {
				t.Fatalf("%+v", f)
			}
			return true
		}
		passed := 0
		const seconds, burst = 60, 20
		for i := range seconds * 20 {
			if join(one) {
				passed++
			}
			if i%4 == 0 && !join(other) {
				t.Fatal("the other tenant is held up")
			}
			time.Sleep(time.Second / 20)
		}
		// The connection was one, too.
		if most := seconds*10 + burst - 1; passed > most || passed < most-1 {
			t.Errorf("%d passed, want %d", passed, most)
		}
		if n := r.limited("joins"); n != float64(seconds*20-passed) {
			t.Errorf("%v refusals counted of %d", n, seconds*20-passed)
		}
	})
}

// TestRefusedJoinTakesNothing: a join that is wrong in another way is answered
// with that, and takes nothing.
func TestRefusedJoinTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.JoinRate, o.MaxJoins, o.FrameRate = 1, 4, -1 })
		r.token = r.issuer.Token(authtest.Grants(twinrail.Grant{
			WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", ThreadID: "th1", Can: []string{"chat:*", "presence:read"}}))
		p := r.peer()
		wrong := func() {
			for frame, code := range map[string]twinrail.Code{
				`"sub":"b","routing":{"thread_id":"th2"}`:                                                twinrail.CodeNotFound,
				`"sub":"b","routing":{"thread_id":"th1"},"presence":1`:                                   twinrail.CodeNotFound,
				`"sub":"b","routing":{"thread_id":"th1"},"channels":["commit"]`:                          twinrail.CodeWrongRail,
				`"sub":"b","routing":{"thread_id":"th1"},"presence":"` + strings.Repeat("x", 3000) + `"`: twinrail.CodeNotFound,
			} {
				p.say(`{"op":"join","ref":"w",%s}`, frame)
				p.wantError(code, "w")
			}
		}
		for range 5 {
			wrong()
		}
		for i := range 3 {
			p.live(fmt.Sprint("s", i))
		}
		p.say(`{"op":"join","ref":"x","sub":"s3","routing":{"thread_id":"th1"}}`)
		p.wantError(twinrail.CodeRateLimited, "x")
		wrong()
		time.Sleep(time.Second)
		p.live("s3")
		p.say(`{"op":"join","ref":"x","sub":"s4","routing":{"thread_id":"th1"}}`)
		if f := p.wantError(twinrail.CodeLimitExceeded, "x"); f.Field != "joins" || f.RetryAfterMS != 1000 {
			t.Errorf("one join too many: %+v", f)
		}
	})
}

// TestResumeRate: a resume takes as many joins as it opens, and one that is
// refused has used nothing up.
func TestResumeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.JoinRate, o.MaxJoins, o.Heartbeat = 2, 5, time.Minute })
		p := r.peer()
		joined := p.subscribe(subA, subB, subC)
		p.cut()
		time.Sleep(time.Second)
		p = r.peer() // 5 - 1 - 3 + 2 - 1
		cursors := map[string]string{"a": joined.Cursor, "b": joined.Cursor}
		p.resume(joined.ResumeToken, cursors)
		f := p.wantError(twinrail.CodeRateLimited, "r")
		if f.Field != "joins" || f.RetryAfterMS < 1 || f.RetryAfterMS > 500 {
			t.Fatalf("refused with %+v", f)
		}
		time.Sleep(time.Duration(f.RetryAfterMS) * time.Millisecond)
		if got := p.resumes(joined.ResumeToken, cursors); len(got.Subs) != 3 {
			t.Errorf("resumed %+v", got)
		}
		problemOf(t, r.caller("t_acme", "dev").knock(), twinrail.CodeRateLimited)
	})
}

// TestFrameRate sends frames for a minute as fast as it may, and then faster.
func TestFrameRate(t *testing.T) {
	ping := text(`{"op":"ping"}`)
	for name, send := range map[string]struct {
		frames []byte
		count  int
	}{
		"text":       {ping, 1},
		"control":    {frame(true, ws.OpPong, nil), 1},
		"fragmented": {append(frame(false, ws.OpText, []byte(`{"op":`)), frame(true, ws.OpContinuation, []byte(`"pong"}`))...), 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t, func(o *Options) { o.FrameRate, o.Heartbeat = 10, time.Hour })
				p, other := r.peer(), r.peer()
				for range 60 * 10 / send.count {
					p.write(send.frames)
					if name == "text" {
						p.want(twinrail.OpPong)
					}
					time.Sleep(time.Second / 10 * time.Duration(send.count))
				}
				for range 20 / send.count {
					p.write(send.frames)
					if name == "text" {
						p.want(twinrail.OpPong)
					}
				}
				p.write(send.frames[:len(send.frames)/send.count])
				f := p.fails(twinrail.CodeRateLimited, 4100)
				if f.Field != "frames" || f.Action != twinrail.ActionBackoff || f.RetryAfterMS != 2000 {
					t.Errorf("%+v", f)
				}
				if n := r.limited("frames"); n != 1 {
					t.Errorf("%v refusals counted", n)
				}
				other.say(`{"op":"ping"}`)
				other.want(twinrail.OpPong)
			})
		})
	}
}

// TestFrameRateOfAMinute: who sends faster is closed when the burst is over.
func TestFrameRateOfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.FrameRate, o.Heartbeat = 10, time.Hour })
		p := r.peer()
		began, sent := time.Now(), 0
		for ; sent < 1000; sent++ {
			p.say(`{"op":"ping"}`)
			if f := p.next(); f.Op == twinrail.OpError {
				break
			}
			time.Sleep(time.Second / 11)
		}
		if after := time.Since(began); after < 15*time.Second || after > 25*time.Second {
			t.Errorf("at 11 frames a second it was closed after %v and %d frames", after, sent)
		}
	})
}

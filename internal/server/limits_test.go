package server

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
	"github.com/twinrail/twinrail/internal/table"
)

// caller speaks for an actor of one tenant in one env.
type caller struct {
	*rig
	token, tenant, env string
}

func (r *rig) caller(tenant, env string) caller {
	return caller{r, r.issuer.Token(authtest.Tenant(tenant), authtest.Env(env)), tenant, env}
}

func (c caller) at(path string) string {
	return strings.NewReplacer("t_acme", c.tenant, "env=dev", "env="+c.env).Replace(path)
}

// ask makes a request.
func (c caller) ask(method, path, body string) reply {
	c.t.Helper()
	return c.do(method, c.at(path), body, as(c.token))
}

// send publishes n commits, and reports whether they were taken; else they were
// refused for the limit.
func (c caller) send(limit string, n int) bool {
	c.t.Helper()
	return passes(c.t, limit, c.ask("POST", publishPath, `{"events":[`+strings.Repeat(commit(1)+",", n-1)+commit(1)+`]}`))
}

// passes reports whether resp is no refusal; one must be for the rate, and say
// when to come again.
func passes(t *testing.T, limit string, resp reply) bool {
	t.Helper()
	if resp.status < 300 {
		return true
	}
	p := problemOf(t, resp, twinrail.CodeRateLimited)
	if seconds, err := strconv.Atoi(resp.header.Get("Retry-After")); p.Field != limit || err != nil || seconds < 1 {
		t.Fatalf("field %q, Retry-After %q; want %q", p.Field, resp.header.Get("Retry-After"), limit)
	}
	return false
}

// peer opens the WS rail.
func (c caller) peer() *peer {
	c.t.Helper()
	p := c.upgrade(c.at(wsPath), c.token)
	p.want(twinrail.OpWelcome)
	return p
}

// knock asks for the WS rail where it is refused.
func (c caller) knock() reply {
	c.t.Helper()
	return c.do("GET", c.at(wsPath), "", append(as(c.token), handshakeHeader...))
}

// tail opens the SSE rail.
func (c caller) tail() *tail {
	c.t.Helper()
	nc, err := c.dial()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = nc.Close() })
	tail := tailOver(c.t, nc, c.at(canvasPath), c.token)
	tail.open()
	return tail
}

func (r *rig) limited(name string) float64 {
	r.t.Helper()
	return r.metric(`twinrail_limited_total{limit="` + name + `"}`)
}

// TestConnectionLimit fills a tenant's connections, on both rails, and opens more
// as others end. What was refused for another reason holds none.
func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxConnections = 3 })
		a := r.caller("t_acme", "dev")
		for range 5 {
			problemOf(t, a.do("GET", a.at(wsPath), "", as(a.token)), twinrail.CodeUpgradeRequired)
			problemOf(t, a.ask("GET", canvasPath+"&on_reset=fail&cursor=x", ""), twinrail.CodeCursorExpired)
			problemOf(t, a.ask("GET", canvasPath+"&channels=chat", ""), twinrail.CodeWrongRail)
		}
		tail, peer := a.tail(), a.peer()
		a.tail()
		for range 3 {
			for _, resp := range []reply{a.ask("GET", canvasPath, ""), a.knock()} {
				if p := problemOf(t, resp, twinrail.CodeLimitExceeded); p.Field != "connections" || resp.header.Get("Retry-After") == "" {
					t.Errorf("refused with %+v, Retry-After %q", p, resp.header.Get("Retry-After"))
				}
			}
		}
		if n := r.limited("connections"); n != 6 {
			t.Errorf("%v refusals counted, want 6", n)
		}
		problemOf(t, a.ask("GET", canvasPath+"&channels=chat", ""), twinrail.CodeWrongRail)
		for _, other := range []caller{r.caller("t_other", "dev"), r.caller("t_acme", "prod")} {
			for range 2 {
				other.tail()
			}
			other.peer()
			problemOf(t, other.knock(), twinrail.CodeLimitExceeded)
		}
		for range 3 {
			_ = tail.nc.Close()
			synctest.Wait()
			tail = a.tail()
			peer.cut()
			synctest.Wait()
			peer = a.peer()
		}
		problemOf(t, a.knock(), twinrail.CodeLimitExceeded)
	})
}

// boundless is a journal that cannot say where streams begin and end.
type boundless struct {
	journal.Journal
	now bool
}

func (j *boundless) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	if j.now {
		return journal.Bounds{}, journal.ErrUnavailable
	}
	return j.Journal.Bounds(ctx, r)
}

// TestFailedConnectionHoldsNoPlace fails right before the connection is there.
func TestFailedConnectionHoldsNoPlace(t *testing.T) {
	j := &boundless{Journal: journal.NewMemory(journal.MemoryOptions{})}
	r := newRig(t, func(o *Options) { o.MaxConnections, o.Journal = 1, j })
	for range 3 {
		for _, path := range []string{canvasPath, wsPath} {
			req := httptest.NewRequest("GET", path, nil)
			append(as(r.token), handshakeHeader...).apply(req)
			w := httptest.NewRecorder() // of which no connection can be taken over
			r.server.Handler().ServeHTTP(w, req)
			if w.Code == http.StatusTooManyRequests {
				t.Errorf("%s: %s", path, w.Body)
			}
		}
		j.now = true
		problemOf(t, r.get(canvasPath), twinrail.CodeUnavailable)
		j.now = false
	}
	r.peer()
	problemOf(t, r.get(canvasPath), twinrail.CodeLimitExceeded)
}

// TestConnectionLimitHTTP2 holds the one place of its tenant over HTTP/2.
func TestConnectionLimitHTTP2(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxConnections = 1 })
	addr, config := r.secure()
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		r.tail2(ctx, addr, config("h2"), canvasPath).open()
		problemOf(t, r.get(canvasPath), twinrail.CodeLimitExceeded)
		cancel()
		eventually(t, "the stream ends", func() bool { return r.metric(`twinrail_connections{rail="sse"}`) == 0 })
	}
}

// TestConnectionRate opens connections for a minute, faster than the tenant may.
func TestConnectionRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.JoinRate, o.MaxJoins, o.MaxConnections = 5, 1, 1 })
		a, b := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		passed := 0
		const seconds, burst = 60, 10
		for i := range seconds * 20 {
			// This is refused after it was let in, and holds no place.
			resp := a.ask("GET", canvasPath+"&on_reset=fail&cursor=x", "")
			if resp.status == http.StatusGone {
				passed++
			} else {
				passes(t, "joins", resp)
				passes(t, "joins", a.knock())
			}
			if i%20 == 0 {
				_ = b.tail().nc.Close()
				synctest.Wait()
			}
			time.Sleep(time.Second / 20)
		}
		if passed < seconds*5+burst-1 || passed > seconds*5+burst {
			t.Errorf("%d passed, want %d and %d at once", passed, seconds*5, burst)
		}
	})
}

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

// TestNativeEventSourceOverLimit: what can neither set a header nor read a status
// is given a stream that ends, and a time to come back.
func TestNativeEventSourceOverLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxConnections = 1 })
		first := r.tail(canvasPath)
		first.open()
		seen := make(map[time.Duration]bool)
		native := func() *tail {
			nc, _, resp := r.request(canvasPath+"&ticket="+r.ticket(r.token, ""), "Accept", "text/event-stream")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s", resp.Status)
			}
			return &tail{t, nc, resp, bufio.NewReader(resp.Body)}
		}
		for range 10 {
			c := native()
			b := c.next()
			ms, err := strconv.Atoi(b.retry)
			if err != nil || ms < 5000 || ms > 10000 {
				t.Fatalf("told to come back after %q", b.retry)
			}
			seen[time.Duration(ms)] = true
			var end twinrail.End
			if unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end); end.Code != twinrail.CodeLimitExceeded || !end.Reconnect {
				t.Errorf("%+v", end)
			}
			c.ends()
		}
		if len(seen) < 5 {
			t.Errorf("10 were told %d times to come back", len(seen))
		}
		if n := r.limited("connections"); n != 10 {
			t.Errorf("%v refusals counted", n)
		}
		_ = first.nc.Close()
		synctest.Wait()
		native().open()
	})
}

// TestNoLimits has all of them switched off.
func TestNoLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) {
			o.MaxConnections, o.JoinRate, o.PublishRate, o.PublishBytes, o.FrameRate = -1, -1, -1, -1, -1
			o.MaxBody, o.MaxFrame, o.MaxJoins = 20_000, 1024, 1
		})
		a := r.caller("t_acme", "dev")
		p := a.peer()
		for range 50 {
			_ = a.tail().nc.Close()
			if !a.send("none", maxEvents) {
				t.Fatal("a publish is refused")
			}
		}
		for range 1000 {
			p.say(`{"op":"ping"}`)
			p.want(twinrail.OpPong)
		}
	})
}

// TestSizeOfConnection keeps a connection in the allocator's class of 256 bytes:
// the next one is of 288, of which an idle WebSocket's 4 KiB have no room.
func TestSizeOfConnection(t *testing.T) {
	if n := unsafe.Sizeof(wsConn{}); n > 256 {
		t.Errorf("a wsConn is of %d bytes", n)
	}
}

// TestStoppedJournal has the journal stop: a native EventSource is told to come back,
// for as long as it takes until there is one again, and /readyz that this is not the
// server to come to.
func TestStoppedJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{}))
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		native := func() *tail {
			nc, _, resp := r.request(canvasPath+"&ticket="+r.ticket(r.token, ""), "Accept", "text/event-stream")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s", resp.Status)
			}
			return &tail{t, nc, resp, bufio.NewReader(resp.Body)}
		}
		ready := func(want int) {
			t.Helper()
			if status, body := r.operator("/readyz"); status != want {
				t.Errorf("/readyz: %d %q, want %d", status, body, want)
			}
		}
		ready(http.StatusOK)
		j.FailReads(fmt.Errorf("%w: no space left", journal.ErrUnavailable))
		ready(http.StatusServiceUnavailable)
		for range 3 {
			c := native()
			if ms, err := strconv.Atoi(c.next().retry); err != nil || ms < 5000 || ms > 10000 {
				t.Errorf("told to come back after %d ms, %v", ms, err)
			}
			var end twinrail.End
			if unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end); end.Code != twinrail.CodeUnavailable || !end.Reconnect {
				t.Errorf("%+v", end)
			}
			c.ends()
		}
		problemOf(t, r.get(canvasPath), twinrail.CodeUnavailable)
		if n := r.metric(`twinrail_errors_total{code="unavailable"}`); n != 4 {
			t.Errorf("%v errors counted", n)
		}
		j.FailReads(nil)
		ready(http.StatusOK)
		native().open()
	})
}

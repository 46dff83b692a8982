package server

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/presence"
	"github.com/twinrail/twinrail/internal/table"
)

// revoked reads that the connection's credential was revoked, and the end.
func (c *client) revoked() {
	if c.peer == nil {
		c.tail.closesWith(twinrail.CodeCredentialRevoked, false)
		return
	}
	if f := c.peer.fails(twinrail.CodeCredentialRevoked, 4010); f.Action != twinrail.ActionStop || *f.Resumable {
		c.peer.t.Errorf("revoked with %+v", f)
	}
}

// TestRevocation revokes by token, by actor and for the tenant. Whatever came of
// the credentials ends at once, and nothing else does.
func TestRevocation(t *testing.T) {
	type options = []authtest.Option
	for _, c := range []struct {
		body   string
		others []options // who is not meant
	}{
		{`{"jti":"j_1"}`, []options{
			{tokenID("j_2")}, {authtest.Actor("u_2")},
			{authtest.Tenant("t_other"), tokenID("j_1")}, {authtest.Env("prod"), tokenID("j_1")},
		}},
		{`{"actor_id":"u_1"}`, []options{
			{authtest.Actor("u_2")}, {authtest.Tenant("t_other")}, {authtest.Env("prod")},
		}},
		{`{"tenant":true}`, []options{{authtest.Tenant("t_other")}, {authtest.Env("prod")}}},
	} {
		t.Run(c.body, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := authtest.New(t)
				revocations, cookies := new(table.Memory), new(table.Memory)
				r := newBubbleRigOf(t, issuer, pages(issuer, revocations, cookies))
				var others []*peer
				for _, opts := range c.others {
					others = append(others, r.connectTo(opts))
				}
				token := issuer.Token(tokenID("j_1"))
				unused, cookie := r.ticket(token, ""), r.cookie(token)
				victims := []*client{
					{peer: r.upgradeWith(wsPath + "&ticket=" + r.ticket(token, ""))},
					{peer: r.upgradeWith(wsPath, "Cookie", cookie, "Origin", ours)},
					{tail: r.tailWith(canvasPath + "&ticket=" + r.ticket(token, ""))},
					{tail: r.tailWith(canvasPath, "Cookie", cookie, "Origin", ours)},
				}
				for _, transport := range transports {
					victims = append(victims, r.connect(transport, token))
				}
				present, _ := r.greet(token)
				present.subscribe(subC + `,"presence":1`)
				victims = append(victims, &client{peer: present})

				moment := time.Now()
				r.revoke(c.body)
				for _, v := range victims {
					v.revoked()
				}
				if took := time.Since(moment); took > 100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				for _, p := range others {
					p.silent("after the revocation")
				}
				synctest.Wait()
				if n := r.metric(`twinrail_connections{rail="ws"}`) + r.metric(`twinrail_connections{rail="sse"}`); n != float64(2*len(others)) {
					t.Errorf("%v connections are left, want two of each of %d", n, len(others))
				}
				bearer := header{"Authorization", "Bearer " + token}
				anew := newBubbleRigOf(t, issuer, pages(issuer, revocations, cookies))
				for name, gate := range map[string]*rig{"the same server": r, "a server that comes after it": anew} {
					for _, h := range []header{bearer, {"Cookie", cookie, "Origin", ours}} {
						problemOf(t, gate.ask(canvasPath, h...), twinrail.CodeCredentialRevoked)
						problemOf(t, gate.ask(wsPath, h...), twinrail.CodeCredentialRevoked)
						problemOf(t, gate.ask(historyPath, h...), twinrail.CodeCredentialRevoked)
						if back := gate.ask(canvasPath, append(h, "Last-Event-ID", "x")...); back.status != http.StatusNoContent || len(back.body) > 0 {
							t.Errorf("%s: the return is answered %d %s", name, back.status, back.body)
						}
					}
				}
				back := r.pipe2(canvasPath, token, "Last-Event-ID", "x")
				if back.resp.StatusCode != http.StatusNoContent {
					t.Errorf("over HTTP/2 the return is answered %s", back.resp.Status)
				}
				problemOf(t, r.ask(historyPath+"&ticket="+unused), twinrail.CodeCredentialRevoked)

				time.Sleep(time.Second) // what is issued in the second of the revocation is covered
				later := issuer.Token(tokenID("j_3"))
				for _, transport := range transports {
					r.connect(transport, later)
				}
				r.token = later
				if got := r.present(presencePath + "&canvas_id=c1"); got != "" {
					t.Errorf("present: %s", got)
				}
			})
		})
	}
}

// connectTo opens both rails for the token that opts make, and returns that of
// the WS rail, which is present on the canvas.
func (r *rig) connectTo(opts []authtest.Option) *peer {
	r.t.Helper()
	id := twinrail.Identity{TenantID: "t_acme", Env: "dev"}
	for _, opt := range opts {
		opt(&id)
	}
	token := r.issuer.Token(opts...)
	own := strings.NewReplacer("t_acme", id.TenantID, "env=dev", "env="+id.Env)
	p := r.upgrade(own.Replace(wsPath), token)
	p.want(twinrail.OpWelcome)
	p.live("a")
	nc, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	c := tailOver(r.t, nc, own.Replace(canvasPath), token)
	c.open()
	c.toLive()
	return p
}

// TestRevocationPresence has who is revoked leave at once.
func TestRevocationPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.watcher()
		p := r.actor("ann")
		p.subscribe(subA+`,"presence":1`, subC+`,"presence":2`)
		lost := r.actor("ann")
		lost.subscribe(subC + `,"presence":3`)
		for came := 0; came < 3; {
			came += len(eve.want(twinrail.OpPresence).Join)
		}
		moment := time.Now()
		r.revoke(`{"actor_id":"ann"}`)
		go drainFrames(p)
		go drainFrames(lost)
		left := 0
		for left < 3 {
			f := eve.want(twinrail.OpPresence)
			left += len(f.Leave)
			if len(f.Join)+len(f.Update) > 0 {
				t.Errorf("eve was told %+v", f)
			}
		}
		if took := time.Since(moment); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRevocationOfTheLost: whose connection was lost before, and is present for the
// grace, leaves at once too, and the session is over.
func TestRevocationOfTheLost(t *testing.T) {
	for what, end := range map[string]func(r *rig, cookie string){
		"the token":  func(r *rig, _ string) { r.revoke(`{"jti":"j_1"}`) },
		"the actor":  func(r *rig, _ string) { r.revoke(`{"actor_id":"ann"}`) },
		"the tenant": func(r *rig, _ string) { r.revoke(`{"tenant":true}`) },
		"the cookie": func(r *rig, cookie string) {
			if resp := r.do("DELETE", sessionPath, "", header{"Cookie", cookie, "Origin", ours}); resp.status != http.StatusNoContent {
				r.t.Fatalf("%d %s", resp.status, resp.body)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := pagesRig(t)
				eve := r.actor("eve")
				eve.enter(onCanvas, "")
				cookie := r.cookie(r.issuer.Token(authtest.Actor("ann"), tokenID("j_1")))
				ann, _ := r.greetWith(wsPath, "Cookie", cookie, "Origin", ours)
				ann.enter(onCanvas, "1")
				eve.tells("+ann=1")
				other := r.actor("bob", authtest.Tenant("t_acme"), tokenID("j_2"))
				other.enter(onCanvas, "2")
				eve.tells("+bob=2")
				ann.cut()
				if all, held := r.server.sessions.Len(); all != 3 || held != 2 {
					t.Fatalf("%d sessions, %d held", all, held)
				}
				moment := time.Now()
				end(r, cookie)
				if what == "the tenant" {
					synctest.Wait()
					if got, _ := r.server.presence.Members(r.canvasReader(), presence.Position{}, 1); len(got) != 0 {
						t.Errorf("present are %v", got)
					}
				} else {
					eve.tells("-ann")
					eve.silent("of who is not meant")
				}
				if took := time.Since(moment); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if all, held := r.server.sessions.Len(); all != held {
					t.Errorf("%d sessions, %d held", all, held)
				}
			})
		})
	}
}

// canvasReader is the right of somebody to see who is present on c1.
func (r *rig) canvasReader() auth.Reader {
	return r.issuer.Reader(twinrail.Routing{
		TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", ActorID: "u_9",
	}, twinrail.CanvasStream, twinrail.Presence)
}

// TestRevocationRefused revokes without the permission, or nothing that there is:
// nothing ends.
func TestRevocationRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		grant := func(can ...string) string {
			return r.issuer.Token(authtest.Grants(twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", ThreadID: "*", Can: can}))
		}
		c, p := r.connect("sse over HTTP/1.1", r.token), r.connect("ws", r.token)
		all := `{"tenant":true}`
		for name, resp := range map[string]reply{
			"no permission": r.do("POST", revocationsPath, all, as(grant("commit:*", "chat:*", "presence:*"))),
			"a ticket":      r.do("POST", revocationsPath+"&ticket="+r.ticket(r.token, ""), all, header{"Content-Type", "application/json"}),
			"an admin, who has no grant": r.do("POST", revocationsPath, all,
				as(r.issuer.Token(authtest.Role(twinrail.Admin), authtest.Grants()))),
		} {
			if p := problemOf(t, resp, twinrail.CodeNotFound); p.Detail != "" && strings.Contains(p.Detail, "revoke") {
				t.Errorf("%s: the answer tells what is there: %+v", name, p)
			}
		}
		for body, code := range map[string]twinrail.Code{
			`{}`: twinrail.CodeBadRequest, `{"jti":"a","actor_id":"b"}`: twinrail.CodeBadRequest,
			`{"actor_id":"*"}`: twinrail.CodeBadRequest, `{"tenant":"t_acme"}`: twinrail.CodeBadRequest,
			`{"jtis":["a"]}`: twinrail.CodeBadRequest, `[`: twinrail.CodeBadRequest,
		} {
			problemOf(t, r.do("POST", revocationsPath, body, as(r.token)), code)
		}
		problemOf(t, r.do("POST", revocationsPath, all, nil), twinrail.CodeCredentialMissing)
		problemOf(t, r.do("POST", twinrail.PathRevocations+"?tenant_id=t_other&env=dev", all, as(r.token)), twinrail.CodeContextMismatch)
		r.commits(0, 1)
		c.tail.events(1)
		p.peer.silent("after what was refused")

		resp := r.do("POST", revocationsPath, `{"jti":"nobody's"}`, as(grant(twinrail.PermissionRevoke)))
		var done twinrail.RevocationResponse
		unmarshal(t, resp.body, &done)
		if resp.status != http.StatusOK || done.RevokedAt.IsZero() || !done.ForgottenAt.After(done.RevokedAt) {
			t.Errorf("revoked by name of the permission: %d %s", resp.status, resp.body)
		}
		p.peer.silent("after another token's revocation")
	})
}

// heldPuts is a table whose changes can be held up.
type heldPuts struct {
	table.Memory
	puts gate
}

func (t *heldPuts) Put(key string, value []byte, d table.Durability) error {
	t.puts.pass()
	return t.Memory.Put(key, value, d)
}

// TestRevocationOfOneWhoComes revokes a credential that has been admitted, whose
// connection is not there yet: it is told as soon as it is.
func TestRevocationOfOneWhoComes(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, sessions := newHeldJournal(), new(heldPuts)
				r := newBubbleRig(t, func(o *Options) { o.Journal, o.Sessions = j, sessions })
				token := r.issuer.Token(tokenID("j_1"))
				openJournal, openTable := j.bounds.close(), sessions.puts.close()
				c := &client{}
				come := make(chan struct{})
				go func() {
					defer close(come)
					switch transport {
					case "ws":
						c.peer = r.upgrade(wsPath, token)
					case "sse over HTTP/1.1":
						nc, err := r.dial()
						if err != nil {
							t.Error(err)
							return
						}
						c.tail = tailOver(t, nc, canvasPath, token)
					default:
						c.tail = r.pipe2(canvasPath, token)
					}
				}()
				synctest.Wait()
				r.revoke(`{"jti":"j_1"}`)
				openJournal()
				openTable()
				<-come
				if c.peer != nil {
					c.peer.want(twinrail.OpWelcome)
				}
				if c.tail != nil {
					if b := c.tail.next(); b.retry == "" {
						t.Errorf("begins with %q", b.raw)
					}
					if b := c.tail.next(); b.event != twinrail.SSEOpen {
						t.Errorf("then %q", b.raw)
					}
				}
				c.revoked()
			})
		})
	}
}

// TestRevocationOfRenewal revokes the credential by which a connection is being
// renewed.
func TestRevocationOfRenewal(t *testing.T) {
	r := newRig(t)
	p, hello := r.greet(r.token)
	c := r.connection(hello.ConnectionID).(*wsConn)
	newer := r.issuer.Token(tokenID("j_2"), authtest.ExpiresIn(2*time.Hour))
	c.mu.Lock() // which the renewal waits for, with the credential verified
	renewed := make(chan int)
	go func() {
		req, _ := http.NewRequest("POST", "http://twinrail.test"+renewalPath(hello.ConnectionID), nil)
		as(newer).apply(req)
		resp, err := r.web.Do(req)
		if err != nil {
			t.Error(err)
			close(renewed)
			return
		}
		_ = resp.Body.Close()
		renewed <- resp.StatusCode
	}()
	stack := make([]byte, 4<<20)
	eventually(t, "the renewal is under way", func() bool {
		return strings.Contains(string(stack[:runtime.Stack(stack, true)]), "(*wsConn).renew(")
	})
	r.revoke(`{"jti":"j_2"}`)
	c.mu.Unlock()
	if status := <-renewed; status != http.StatusOK {
		t.Errorf("renewed: %d", status)
	}
	(&client{peer: p}).revoked()
}

// TestRevocationRace revokes an actor while its connections come and are renewed
// from all sides: none is left.
func TestRevocationRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		for round := range 20 {
			actor := fmt.Sprintf("u_%d", round+10)
			token, newer := r.issuer.Token(authtest.Actor(actor)), r.issuer.Token(authtest.Actor(actor), authtest.ExpiresIn(2*time.Hour))
			first, _ := r.greet(token)
			go drainFrames(first)
			done := make(chan struct{})
			const comers = 8
			for i := range comers {
				go func() {
					defer func() { done <- struct{}{} }()
					nc, err := r.dial()
					if err != nil {
						return
					}
					t.Cleanup(func() { _ = nc.Close() })
					path := wsPath
					if i%2 == 0 {
						path = canvasPath
					}
					_, _ = nc.Write(handshake(path, token))
					buf := make([]byte, 4096)
					go func() {
						for {
							if _, err := nc.Read(buf); err != nil {
								return
							}
						}
					}()
				}()
			}
			go func() { _, _ = first.nc.Write(text(`{"op":"auth","token":"` + newer + `"}`)) }()
			r.revoke(`{"actor_id":"` + actor + `"}`)
			for range comers {
				<-done
			}
			time.Sleep(time.Second)
			if n := r.metric(`twinrail_connections{rail="ws"}`) + r.metric(`twinrail_connections{rail="sse"}`); n != 0 {
				t.Fatalf("round %d: %v connections are left", round, n)
			}
		}
	})
}

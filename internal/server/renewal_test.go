package server

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// renewalPath is where the connection of that id is given another credential.
func renewalPath(id string) string {
	return twinrail.PathConnections + id + "/auth?tenant_id=t_acme&env=dev"
}

// said returns the next block but for comments.
func (c *tail) said() block {
	c.t.Helper()
	for {
		if b := c.next(); !b.comment {
			return b
		}
	}
}

// closesWith reads end, and the end.
func (c *tail) closesWith(code twinrail.Code, reconnect bool) {
	c.t.Helper()
	b := c.said()
	var end twinrail.End
	unmarshal(c.t, []byte(b.data), &end)
	if want := (twinrail.End{Code: code, Reconnect: reconnect}); b.event != twinrail.SSEEnd || end != want {
		c.t.Fatalf("got %q, want the end %+v", b.raw, want)
	}
	c.ends()
}

// client is a connection of either rail.
type client struct {
	id   string
	peer *peer
	tail *tail
}

// transports are the ways to be connected.
var transports = []string{"ws", "sse over HTTP/1.1", "sse over HTTP/2"}

// connect opens a connection, which is live.
func (r *rig) connect(transport, token string) *client {
	r.t.Helper()
	c := &client{}
	switch transport {
	case "ws":
		var hello twinrail.ServerFrame
		c.peer, hello = r.greet(token)
		c.peer.live("a")
		c.id = hello.ConnectionID
		return c
	case "sse over HTTP/1.1":
		nc, err := r.dial()
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = nc.Close() })
		c.tail = tailOver(r.t, nc, canvasPath, token)
	default:
		c.tail = r.pipe2(canvasPath, token)
	}
	c.id = c.tail.open().ConnectionID
	c.tail.toLive()
	return c
}

// life reads to the end, and returns what was said of the credential, and when.
func (c *client) life(start time.Time) (said []string) {
	say := func(format string, args ...any) {
		said = append(said, fmt.Sprint(time.Since(start).Round(time.Second), " ")+fmt.Sprintf(format, args...))
	}
	for c.peer != nil {
		f := c.peer.said()
		switch f.Op {
		case twinrail.OpAuthExpiring, twinrail.OpAuthed:
			say("%s %v", f.Op, f.ExpiresAt.Sub(start).Round(time.Second))
		default:
			code, _ := c.peer.closed()
			say("%s %s %s %d", f.Op, f.Code, f.Action, code)
			return said
		}
	}
	for {
		b := c.tail.said()
		switch b.event {
		case twinrail.SSEAuthExpiring:
			var a twinrail.AuthExpiring
			unmarshal(c.tail.t, []byte(b.data), &a)
			say("auth_expiring %v", a.ExpiresAt.Sub(start).Round(time.Second))
		default:
			say("%s %s", b.event, b.data)
			c.tail.ends()
			return said
		}
	}
}

// TestRenewal gives connections a newer credential: each goes on to the end of
// that, and no further.
func TestRenewal(t *testing.T) {
	for _, transport := range transports {
		for _, by := range []string{"frame", "request"} {
			if transport != "ws" && by == "frame" {
				continue
			}
			t.Run(transport+" by "+by, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newBubbleRig(t)
					start := time.Now()
					c := r.connect(transport, r.issuer.Token(authtest.ExpiresIn(time.Minute)))
					newer := r.issuer.Token(authtest.ExpiresIn(2 * time.Minute))
					go func() {
						time.Sleep(40 * time.Second)
						if by == "frame" {
							_, _ = c.peer.nc.Write(text(`{"op":"auth","ref":"n","token":"` + newer + `"}`))
							return
						}
						resp := r.do("POST", renewalPath(c.id), "", as(newer))
						var got twinrail.LifetimeResponse
						unmarshal(t, resp.body, &got)
						if resp.status != 200 || got.ExpiresAt.Sub(start).Round(time.Second) != 2*time.Minute || resp.header.Get("Cache-Control") != "no-store" {
							t.Errorf("renewed: %d %s", resp.status, resp.body)
						}
					}()
					want := []string{"30s auth_expiring 1m0s", "1m30s auth_expiring 2m0s"}
					if by == "frame" {
						want = slices.Insert(want, 1, "40s authed 2m0s")
					}
					if transport == "ws" {
						want = append(want, "2m0s error credential_expired refresh 4300")
					} else {
						want = append(want, `2m0s end {"code":"credential_expired","reconnect":true}`)
					}
					if got := c.life(start); !slices.Equal(got, want) {
						t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
				})
			})
		}
	}
}

// TestRenewalAnswer is all that authed says; the resume token in it is good, and
// bound to the newer credential.
func TestRenewalAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		eve := r.watcher()
		p, _ := r.greet(r.issuer.Token(tokenID("j_1")))
		p.subscribe(subC + `,"presence":1`)
		eve.want(twinrail.OpPresence)
		ends := time.Now().Add(2 * time.Hour)
		p.say(`{"op":"auth","ref":"n","token":%q}`, r.issuer.Token(tokenID("j_2"), authtest.ExpiresIn(2*time.Hour)))
		f := p.want(twinrail.OpAuthed)
		if f.Ref != "n" || f.ExpiresAt.Sub(ends).Abs() > time.Second || f.ResumeToken == "" {
			t.Errorf("authed %+v", f)
		}
		r.revoke(`{"jti":"j_1"}`)
		p.silent("after the end of the first credential")
		p.cut()
		p, _ = r.greet(r.token)
		p.resumes(f.ResumeToken, nil)
		eve.silent("while the session went on")
	})
}

// TestRenewalRefused is what is no newer credential: the connection ends when it
// would have.
func TestRenewalRefused(t *testing.T) {
	type options = []authtest.Option
	refused := []struct {
		name    string
		opts    options
		token   string // in place of one with opts
		framed  twinrail.Code
		request twinrail.Code
	}{
		{"another actor", options{authtest.Actor("u_2")}, "", twinrail.CodeActorMismatch, twinrail.CodeNotFound},
		{"another tenant", options{authtest.Tenant("t_other")}, "", twinrail.CodeContextMismatch, twinrail.CodeNotFound},
		{"another env", options{authtest.Env("prod")}, "", twinrail.CodeContextMismatch, twinrail.CodeNotFound},
		{"no token", nil, "nonsense", twinrail.CodeCredentialInvalid, twinrail.CodeCredentialInvalid},
		{"expired", options{authtest.ExpiresIn(-time.Second)}, "", twinrail.CodeCredentialExpired, twinrail.CodeCredentialExpired},
		{"revoked", options{tokenID("j_9")}, "", twinrail.CodeCredentialRevoked, twinrail.CodeCredentialRevoked},
		{"one that ends earlier", options{authtest.ExpiresIn(50 * time.Second)}, "", twinrail.CodeCredentialInvalid, twinrail.CodeCredentialInvalid},
	}
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				start := time.Now()
				c := r.connect(transport, r.issuer.Token(authtest.ExpiresIn(time.Minute)))
				r.revoke(`{"jti":"j_9"}`)
				for _, bad := range refused {
					id := twinrail.Identity{TenantID: "t_acme", Env: "dev"}
					for _, opt := range bad.opts {
						opt(&id)
					}
					token := bad.token
					if token == "" {
						token = r.issuer.Token(bad.opts...)
					}
					path := strings.Replace(renewalPath(c.id), "tenant_id=t_acme&env=dev", "tenant_id="+id.TenantID+"&env="+id.Env, 1)
					problemOf(t, r.do("POST", path, "", as(token)), bad.request)
					if c.peer != nil {
						c.peer.say(`{"op":"auth","ref":"n","token":%q}`, token)
						if f := c.peer.wantError(bad.framed, "n"); strings.Contains(f.Detail, token) {
							t.Errorf("%s: the detail has the token", bad.name)
						}
					}
				}
				want := []string{"30s auth_expiring 1m0s", "1m0s error credential_expired refresh 4300"}
				if transport != "ws" {
					want[1] = `1m0s end {"code":"credential_expired","reconnect":true}`
				}
				if got := c.life(start); !slices.Equal(got, want) {
					t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		})
	}
}

// TestRenewalOfAnothers asks for connections that are not the caller's: the
// answer is that of one which does not exist, to the byte.
func TestRenewalOfAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		same := func(resp reply) string {
			var headers strings.Builder
			_ = resp.header.WriteSubset(&headers, map[string]bool{"Date": true})
			return fmt.Sprint(resp.status, headers.String(), string(resp.body))
		}
		ask := func(id string) string {
			resp := r.do("POST", renewalPath(id), "", append(as(r.token), "X-Request-Id", "r1", "Traceparent", "00-"+strings.Repeat("1", 32)+"-"+strings.Repeat("2", 16)+"-00"))
			problemOf(t, resp, twinrail.CodeNotFound)
			return same(resp)
		}
		want := ask("c_" + strings.Repeat("a", 26))
		for _, transport := range transports {
			if got := ask(r.connect(transport, r.issuer.Token(authtest.Actor("u_2"))).id); got != want {
				t.Errorf("%s: %s\nwant %s", transport, got, want)
			}
		}
		elsewhere := strings.Replace(wsPath, "env=dev", "env=prod", 1)
		hello := r.upgrade(elsewhere, r.issuer.Token(authtest.Env("prod"))).want(twinrail.OpWelcome)
		if got := ask(hello.ConnectionID); got != want {
			t.Errorf("another env: %s\nwant %s", got, want)
		}
		gone := r.connect("ws", r.token)
		gone.peer.cut()
		if got := ask(gone.id); got != want {
			t.Errorf("one that has ended: %s\nwant %s", got, want)
		}
		problemOf(t, r.do("POST", renewalPath(gone.id), "", nil), twinrail.CodeCredentialMissing)
	})
}

// TestRenewalNarrower renews with a credential that covers less: what it does not
// cover ends, the rest goes on.
func TestRenewalNarrower(t *testing.T) {
	home := twinrail.Grant{WorkspaceID: "w1", ProjectID: "p1", AppID: "studio"}
	thread, canvas := home, home
	thread.ThreadID, thread.Can = "th2", []string{"chat:read", "tool:read"}
	canvas.CanvasID, canvas.Can = "c1", []string{"presence:read"}
	for _, by := range []string{"frame", "request"} {
		t.Run(by, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				eve := r.watcher()
				p, hello := r.greet(r.token)
				p.subscribe(subA+`,"presence":1`, subB, subC+`,"presence":2`)
				eve.want(twinrail.OpPresence)
				eve.want(twinrail.OpPresence)
				narrow := r.issuer.Token(authtest.Grants(thread, canvas), authtest.ExpiresIn(2*time.Hour))
				if by == "frame" {
					p.say(`{"op":"auth","token":%q}`, narrow)
				} else if resp := r.do("POST", renewalPath(hello.ConnectionID), "", as(narrow)); resp.status != 200 {
					t.Fatalf("renewed: %d %s", resp.status, resp.body)
				}
				if f := p.wantError(twinrail.CodeNotFound, ""); f.Sub != "a" {
					t.Errorf("refused %+v", f)
				}
				left := p.want(twinrail.OpLeft)
				if left.Sub != "a" || left.ResumeToken == "" {
					t.Errorf("left %+v", left)
				}
				// Of its own leave a watcher of the canvas learns like everybody.
				var told []string
				token, wide := left.ResumeToken, narrow
				for len(told) < 1 || by == "frame" && len(told) < 2 {
					f := p.next()
					told = append(told, fmt.Sprint(f.Op, f.Sub, len(f.Leave)))
					if f.Op == twinrail.OpAuthed {
						token, wide = f.ResumeToken, r.token
					}
				}
				slices.Sort(told)
				if want := []string{"authed0", "presencec1"}; !slices.Equal(told, want) && !slices.Equal(told, want[1:]) {
					t.Errorf("then told %v", told)
				}
				for range 2 {
					f := eve.want(twinrail.OpPresence)
					if told := f.Sub + " +" + who(f.Join) + " -" + who(f.Leave); told != "p + -u_1@p1" && told != "q + -u_1" {
						t.Errorf("eve was told %s", told)
					}
				}
				r.publish(on("th1", "", 0))
				r.publish(on("th2", "", 1))
				p.follow(false, map[string]string{"b": "1"})
				p.say(`{"op":"presence","sub":"c","state":3}`)
				p.wantError(twinrail.CodeNotFound, "")
				p.say(`{"op":"join",%s}`, subA)
				p.wantError(twinrail.CodeNotFound, "")
				p.say(`{"op":"publish","events":[%s]}`, on("th2", "", 2))
				p.wantError(twinrail.CodeNotFound, "")
				bob := r.actor("bob")
				bob.subscribe(subC + `,"presence":4`)
				if f := p.want(twinrail.OpPresence); f.Sub != "c" || who(f.Join) != "bob=4" {
					t.Errorf("told %+v", f)
				}
				eve.want(twinrail.OpPresence)
				eve.silent("after the leaves")
				p.cut()
				// With authed the actor is not present any more, also for a credential
				// that would allow it.
				p, _ = r.greet(wide)
				if got := subsOf(p.resumes(token, map[string]string{"b": "earliest"})); got != "b:false c:false[bob=4]" {
					t.Errorf("resumed %s", got)
				}
			})
		})
	}
}

// TestRenewalTold narrows a connection's credential by a request: it is told at
// once.
func TestRenewalTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c, start := r.connect("ws", r.token), time.Now()
		resp := r.do("POST", renewalPath(c.id), "", as(r.issuer.Token(authtest.Grants(), authtest.ExpiresIn(2*time.Hour))))
		if resp.status != 200 {
			t.Fatalf("renewed: %d %s", resp.status, resp.body)
		}
		c.peer.wantError(twinrail.CodeNotFound, "")
		c.peer.want(twinrail.OpLeft)
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRenewalNotCovered renews an SSE stream with a credential that does not cover
// its address: it ends for good.
func TestRenewalNotCovered(t *testing.T) {
	other := twinrail.Grant{WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c2", Can: []string{"*"}}
	for _, transport := range transports[1:] {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				c, stays := r.connect(transport, r.token), r.connect(transport, r.token)
				resp := r.do("POST", renewalPath(c.id), "", as(r.issuer.Token(authtest.Grants(other), authtest.ExpiresIn(2*time.Hour))))
				if resp.status != 200 {
					t.Fatalf("renewed: %d %s", resp.status, resp.body)
				}
				r.commits(0, 1)
				c.tail.closesWith(twinrail.CodeNotFound, false)
				stays.tail.events(1)
			})
		})
	}
}

// TestRenewalsAtOnce renews a connection with a credential while it is renewed with
// one that ends later: that one stays.
func TestRenewalsAtOnce(t *testing.T) {
	r := newRig(t)
	_, hello := r.greet(r.token)
	c := r.connection(hello.ConnectionID).(*wsConn)
	newer := r.issuer.Token(authtest.ExpiresIn(2 * time.Hour))
	newest, err := c.context().RenewedBy(r.issuer.Principal(authtest.ExpiresIn(3 * time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock() // which the renewal waits for, with the credentials compared
	answered := make(chan reply)
	go func() { answered <- r.do("POST", renewalPath(hello.ConnectionID), "", as(newer)) }()
	stack := make([]byte, 4<<20)
	eventually(t, "the renewal is under way", func() bool {
		return strings.Contains(string(stack[:runtime.Stack(stack, true)]), "(*wsConn).renew(")
	})
	c.auth.Store(newest)
	c.mu.Unlock()
	if resp := <-answered; resp.status != http.StatusUnauthorized {
		t.Errorf("the earlier end is answered %d %s", resp.status, resp.body)
	}
	if c.context() != newest {
		t.Errorf("it ends in %v", time.Until(c.context().Principal().ExpiresAt()))
	}
}

// connectionContext is what r's token opens a connection with.
func (r *rig) connectionContext() *auth.Context {
	r.t.Helper()
	ac, err := r.issuer.Principal().Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev"}, "req-1", "")
	if err != nil {
		r.t.Fatal(err)
	}
	return ac
}

// TestRenewalOfWhatWasRenewed: on either rail a renewal takes the place only of
// what it was compared with.
func TestRenewalOfWhatWasRenewed(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t)
			r.connect(transport, r.token)
			eventually(t, "it is there", func() bool { return len(r.opened()) == 1 })
			c := r.opened()[0]
			was := c.context()
			one, another := r.connectionContext(), r.connectionContext()
			if !c.renew(was, one) || c.renew(was, another) || c.context() != one {
				t.Error("a renewal took the place of another one")
			}
		})
	}
}

// opened returns the connections that are open.
func (r *rig) opened() []connection {
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	return r.server.open()
}

package server

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/feature"
)

// looked is a connection that notes whether somebody looks at it, and whether it
// is rechecked.
type looked struct {
	id              string
	ac              *auth.Context
	seen, rechecked atomic.Bool
}

func (c *looked) context() *auth.Context {
	c.seen.Store(true)
	return c.ac
}

func (c *looked) rail() twinrail.Rail {
	c.rechecked.Store(true)
	return twinrail.RailWS
}

func (c *looked) name() string                  { return c.id }
func (c *looked) renew(_, _ *auth.Context) bool { return true }
func (c *looked) drain(time.Duration)           {}
func (c *looked) refuse(twinrail.Code)          {}
func (c *looked) apply(*feature.Flags)          {}
func (c *looked) abort()                        {}

// connection returns the connection of that id.
func (r *rig) connection(id string) connection {
	r.t.Helper()
	r.server.mu.Lock()
	defer r.server.mu.Unlock()
	for _, c := range r.server.open() {
		if c.name() == id {
			return c
		}
	}
	r.t.Fatalf("there is no connection %s", id)
	return nil
}

// lookAt opens such a connection.
func (r *rig) lookAt(opts ...authtest.Option) *looked {
	r.t.Helper()
	p := r.issuer.Principal(opts...)
	id := p.Identity()
	ac, err := p.Enter(twinrail.Routing{TenantID: id.TenantID, Env: id.Env}, "", "")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.server.takePlace(ac); err != nil {
		r.t.Fatal(err)
	}
	c := &looked{id: newID("c_"), ac: ac}
	r.server.enter(c)
	r.t.Cleanup(func() { r.server.leave(c, "") })
	return c
}

// TestNothingStaysHot has subscribers come and go in each way: none keeps its stream in
// memory, or its tenant.
func TestNothingStaysHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		rest := func(what string) {
			t.Helper()
			synctest.Wait()
			if n := r.server.hub.Streams(); n != 0 {
				t.Errorf("%s: %d streams are in use", what, n)
			}
		}
		tail := r.tail(canvasPath)
		tail.open()
		_ = tail.nc.Close()
		rest("an SSE stream is closed")
		problemOf(t, r.get(canvasPath+"&on_reset=fail&cursor=x"), twinrail.CodeCursorExpired)
		rest("one is refused for its cursor")
		p := r.peer()
		p.live("a")
		p.say(`{"op":"leave","sub":"a"}`)
		p.want(twinrail.OpLeft)
		rest("a WebSocket leaves")
		p.live("b")
		p.cut()
		rest("one is cut")
		if n := len(r.server.connections.of); n != 0 {
			t.Errorf("%d tenants without a connection are kept", n)
		}
	})
}

// TestSweepIsTheTenants changes what holds for one tenant, in each way that there
// is: nobody looks at the connections of others.
func TestSweepIsTheTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		own, member := r.lookAt(), r.lookAt(authtest.Actor("u_2"))
		other, otherEnv := r.lookAt(authtest.Tenant("t_other")), r.lookAt(authtest.Env("prod"))
		after := func(what string, resp reply, wantOwn, wantMember, wantOther bool) {
			t.Helper()
			if resp.status >= 300 {
				t.Fatalf("%s: %d %s", what, resp.status, resp.body)
			}
			if o, m := own.rechecked.Swap(false), member.rechecked.Swap(false); o != wantOwn || m != wantMember {
				t.Errorf("%s: rechecked are the actor's own: %v, another one's of the tenant: %v", what, o, m)
			}
			if got := other.seen.Swap(false); got != wantOther {
				t.Errorf("%s: another tenant's connection is looked at: %v", what, got)
			}
			if otherEnv.seen.Swap(false) {
				t.Errorf("%s: a connection of another env is looked at", what)
			}
		}
		otherEnv.seen.Store(false) // by entering
		after("a ticket", r.do("POST", ticketsPath, "", as(r.token)), true, true, true)

		admin := as(r.issuer.Token(authtest.Actor("u_2"), authtest.Role(twinrail.Admin)))
		platform := as(r.issuer.Token(authtest.Tenant("t_0"), authtest.Role(twinrail.Admin)))
		cookie := r.cookie(r.token)
		after("a session begins", r.do("POST", sessionPath, "", as(r.token)), false, false, false)
		after("one ends", r.do("DELETE", sessionPath, "", header{"Cookie", cookie, "Origin", ours}), true, false, false)
		for range 31 {
			r.cookie(r.token)
		}
		after("the oldest ends", r.do("POST", sessionPath, "", as(r.token)), true, false, false)
		after("a token is revoked", r.do("POST", revocationsPath, `{"jti":"j"}`, admin), true, true, false)
		after("an actor is revoked", r.do("POST", revocationsPath, `{"actor_id":"u_3"}`, admin), false, false, false)
		after("a flag is set", r.do("PUT", flagsPath("gesture_fanout"), `{"value":true}`, admin), true, true, false)
		after("a flag is taken back", r.do("DELETE", flagsPath("gesture_fanout"), "", admin), true, true, false)
		after("the platform sets a flag", r.do("PUT", twinrail.PathFlags+"/gesture_fanout?tenant_id=t_0&env=dev", `{"value":true}`, platform), true, true, true)
	})
}

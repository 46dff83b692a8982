package auth

import (
	"testing"

	"github.com/twinrail/twinrail"
)

// What anybody can write down, the zero values, is refused wherever it is used;
// what they cannot is in guard_test.go of the module's root.

func TestZeroContext(t *testing.T) {
	g := newGate(t, GateOptions{})
	real := withBearer(t, g, grants(FullGrant()))
	r, err := real.Reader(full(), twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
	if err != nil {
		t.Fatal(err)
	}
	resume := g.SealResume(real, Resume{SessionID: "s_1"})
	for name, c := range map[string]*Context{
		"zero":                  {},
		"of the zero Principal": {principal: new(Principal)},
		"of nobody, with keys":  {routing: full()},
	} {
		for what, try := range map[string]func() error{
			"read":          func() error { _, err := c.Reader(full(), twinrail.CanvasStream, r.Channels()); return err },
			"read any":      func() error { _, err := c.ReaderOfAny(full(), twinrail.CanvasStream, r.Channels()); return err },
			"read unstated": func() error { _, err := c.Reader(twinrail.Routing{}, twinrail.CanvasStream, r.Channels()); return err },
			"write":         func() error { _, err := c.Writer(full(), twinrail.Commit); return err },
			"be present":    func() error { _, err := c.Presenter(full(), twinrail.ThreadStream); return err },
			"go on reading": func() error { return c.Allows(r) },
			"get a ticket":  func() error { _, err := g.IssueTicket(c, twinrail.TicketRequest{}); return err },
			"get a cookie":  func() error { _, err := g.OpenSession(c, request("/v1/session")); return err },
			"revoke":        func() error { _, err := g.Revoke(c, twinrail.RevocationRequest{Tenant: true}); return err },
			"resume":        func() error { _, err := g.OpenResume(c, resume); return err },
			"be renewed":    func() error { _, err := g.Renew(t.Context(), c, token(t)); return err },
			"renew":         func() error { _, err := real.RenewedBy(c.Principal()); return err },
		} {
			if err := try(); twinrail.CodeOf(err) == "" {
				t.Errorf("the context %s may %s: %v", name, what, err)
			}
		}
		if c.Administers() {
			t.Errorf("the context %s administers", name)
		}
	}
}

func TestZeroPrincipal(t *testing.T) {
	for _, stated := range []twinrail.Routing{{}, full(), {TenantID: "t_acme", Env: "dev"}, {Env: "dev"}} {
		if c, err := new(Principal).Enter(stated, "", ""); err == nil || c != nil {
			t.Errorf("nobody enters %+v", stated)
		}
	}
}

// A right is to a stream of a kind that there is.
func TestNoSuchKind(t *testing.T) {
	c := enter(t, granting(FullGrant()))
	for _, kind := range []twinrail.Kind{0, 'x'} {
		if r, err := c.Reader(full(), kind, twinrail.ChannelsOf(twinrail.Presence)); err == nil || r.Valid() {
			t.Errorf("a reader of the kind %v: %+v", kind, r)
		}
		if w, err := c.Presenter(full(), kind); err == nil || w.Key() != "" {
			t.Errorf("a presenter of the kind %v: %+v", kind, w)
		}
	}
}

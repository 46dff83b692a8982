package auth

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
)

func TestScopeRefuses(t *testing.T) {
	g := newGate(t, GateOptions{})
	p := withBearer(t, g).Principal()
	c, err := p.Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev", PanelID: "l"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	at := func(k twinrail.Key, v string) twinrail.TicketRequest {
		r := new(twinrail.Routing)
		r.Set(k, v)
		return twinrail.TicketRequest{Routing: r}
	}
	for _, tt := range []struct {
		name    string
		request twinrail.TicketRequest
		code    twinrail.Code
		field   string
	}{
		{"everything", twinrail.TicketRequest{}, "", ""},
		{"no keys", twinrail.TicketRequest{Routing: new(twinrail.Routing)}, "", ""},
		{"an unknown rail", twinrail.TicketRequest{Rail: "tcp"}, twinrail.CodeBadRequest, "rail"},
		{"an unknown channel", twinrail.TicketRequest{Channels: []twinrail.Channel{"commit", "x"}}, twinrail.CodeBadRequest, "channels"},
		{"no channel", twinrail.TicketRequest{Channels: []twinrail.Channel{}}, twinrail.CodeBadRequest, "channels"},
		{"a malformed key", at(twinrail.KeySurface, "a b"), twinrail.CodeContextInvalid, "routing.surface_id"},
		{"the own tenant", at(twinrail.KeyTenant, "t_acme"), "", ""},
		{"another tenant", at(twinrail.KeyTenant, "t_other"), twinrail.CodeContextMismatch, "routing.tenant_id"},
		{"the own env", at(twinrail.KeyEnv, "dev"), "", ""},
		{"another env", at(twinrail.KeyEnv, "prod"), twinrail.CodeContextMismatch, "routing.env"},
		{"the own actor", at(twinrail.KeyActor, "u_1"), "", ""},
		{"another actor", at(twinrail.KeyActor, "u_2"), twinrail.CodeActorMismatch, "routing.actor_id"},
		{"the context's panel", at(twinrail.KeyPanel, "l"), "", ""},
		{"another panel than the context's", at(twinrail.KeyPanel, "m"), twinrail.CodeContextConflict, "routing.panel_id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := g.IssueTicket(c, tt.request)
			wantError(t, err, tt.code, tt.field)
		})
	}
}

// TestScopeNarrows asks for every right at an address, with a ticket for a part of
// it, and with one for another value of each key.
func TestScopeNarrows(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	for _, kind := range []twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream} {
		for _, k := range twinrail.Keys()[:twinrail.KeyActor] {
			var same, other twinrail.Routing
			same.Set(k, full().Get(k))
			same.ActorID = "u_1" // no address has it
			wantRights(t, g, c, twinrail.TicketRequest{Routing: &same}, full(), kind, true)
			if k > twinrail.KeyEnv {
				other.Set(k, "other")
				wantRights(t, g, c, twinrail.TicketRequest{Routing: &other}, full(), kind, false)
				lacking := full()
				lacking.Set(k, "")
				if _, err := lacking.Address(kind); err == nil {
					wantRights(t, g, c, twinrail.TicketRequest{Routing: &same}, lacking, kind, false)
				}
			}
		}
	}
	// What only the context has is no part of the scope.
	wide, err := c.Principal().Enter(twinrail.Routing{TenantID: "t_acme", Env: "dev", PanelID: "elsewhere"}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	wantRights(t, g, wide, twinrail.TicketRequest{}, full(), twinrail.CanvasStream, true)
}

func wantRights(t *testing.T, g *Gate, c *Context, request twinrail.TicketRequest, at twinrail.Routing, kind twinrail.Kind, want bool) {
	t.Helper()
	scoped, err := withTicket(g, ticketFor(t, g, c, request))
	if err != nil {
		t.Fatal(err)
	}
	channel := map[twinrail.Kind]twinrail.Channel{twinrail.CanvasStream: twinrail.Commit, twinrail.ThreadStream: twinrail.Chat}[kind]
	_, errRead := scoped.Reader(at, kind, twinrail.ChannelsOf(channel))
	_, errWrite := scoped.Writer(at, channel)
	_, errPresent := scoped.Presenter(at, kind)
	for _, err := range []error{errRead, errWrite, errPresent} {
		if want && err != nil || !want && twinrail.CodeOf(err) != twinrail.CodeNotFound {
			t.Errorf("a ticket for %v, at %v: %v", request.Routing, at, err)
		}
	}
}

// TestTicketGivesNoMore holds the rights of a ticket against those of its issuer
// and against what was asked for.
func TestTicketGivesNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(k twinrail.Key, with ...string) string {
			return rapid.SampledFrom(append(with, "1", "2")).Draw(t, k.String())
		}
		grant := twinrail.Grant{
			WorkspaceID: draw(twinrail.KeyWorkspace, "*"), ProjectID: "*", AppID: "*", CanvasID: draw(twinrail.KeyCanvas, "*"),
			PanelID: draw(twinrail.KeyPanel, "", "*"),
			Can:     rapid.SampledFrom([][]string{{"*"}, {"commit:read"}, {"commit:*", "presence:*"}}).Draw(t, "can"),
		}
		id := someone()
		id.Grants = []twinrail.Grant{grant}
		issuer := &Principal{identity: id}
		var keys twinrail.Routing
		for _, k := range []twinrail.Key{twinrail.KeyWorkspace, twinrail.KeyCanvas, twinrail.KeyPanel} {
			keys.Set(k, draw(k, ""))
		}
		channels := rapid.SliceOfN(rapid.SampledFrom([]twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Presence}), 1, 2).Draw(t, "channels")
		narrow, err := issuer.scopeOf(twinrail.TicketRequest{Routing: &keys, Channels: channels}, twinrail.Routing{})
		if err != nil {
			t.Fatal(err)
		}
		scoped := &Principal{identity: id, scope: narrow}

		r := twinrail.Routing{
			TenantID: "t_acme", Env: "dev", WorkspaceID: draw(twinrail.KeyWorkspace), ProjectID: "p", AppID: "a",
			CanvasID: draw(twinrail.KeyCanvas), PanelID: draw(twinrail.KeyPanel, ""),
		}
		a, err := r.Address(twinrail.CanvasStream)
		if err != nil {
			t.Fatal(err)
		}
		channel := rapid.SampledFrom([]twinrail.Channel{twinrail.Commit, twinrail.Artifact, twinrail.Presence}).Draw(t, "channel")
		right := rapid.SampledFrom([]twinrail.Right{twinrail.Read, twinrail.Write}).Draw(t, "right")
		asked := slices.Contains(channels, channel) && (keys.WorkspaceID == "" || keys.WorkspaceID == r.WorkspaceID) &&
			(keys.CanvasID == "" || keys.CanvasID == r.CanvasID) && (keys.PanelID == "" || keys.PanelID == r.PanelID)
		if got, want := scoped.may(a, channel, right), asked && issuer.may(a, channel, right); got != want {
			t.Fatalf("may %s %s at %v: %t, want %t", channel, right, r, got, want)
		}
	})
}

func TestScopeOfChannels(t *testing.T) {
	g := newGate(t, GateOptions{})
	scoped, err := withTicket(g, ticketFor(t, g, withBearer(t, g), twinrail.TicketRequest{Channels: []twinrail.Channel{twinrail.Commit, twinrail.Presence}}))
	if err != nil {
		t.Fatal(err)
	}
	all := twinrail.ChannelsOf(twinrail.Commit, twinrail.Artifact, twinrail.Gesture, twinrail.Presence)
	r, err := scoped.ReaderOfAny(full(), twinrail.CanvasStream, all)
	if err != nil || r.Channels() != twinrail.ChannelsOf(twinrail.Commit, twinrail.Presence) {
		t.Errorf("it reads %v, %v", r.Channels().Channels(), err)
	}
	_, err = scoped.Writer(full(), twinrail.Artifact)
	wantError(t, err, twinrail.CodeNotFound, "")
}

func TestAllowsRail(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	for rail, want := range map[twinrail.Rail][3]bool{ // of sse, ws, neither
		"": {true, true, true}, twinrail.RailSSE: {true, false, false}, twinrail.RailWS: {false, true, false},
	} {
		scoped, err := withTicket(g, ticketFor(t, g, c, twinrail.TicketRequest{Rail: rail}))
		if err != nil {
			t.Fatal(err)
		}
		again, err := withCookie(g, cookieFor(t, g, scoped))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Context{scoped, again} {
			if got := [3]bool{c.AllowsRail(twinrail.RailSSE), c.AllowsRail(twinrail.RailWS), c.AllowsRail("")}; got != want {
				t.Errorf("a ticket for %q opens %v", rail, got)
			}
		}
	}
	if !c.AllowsRail(twinrail.RailSSE) || !c.AllowsRail(twinrail.RailWS) || !c.AllowsRail("") {
		t.Error("a bearer does not open everything")
	}
}

func TestMayRevoke(t *testing.T) {
	const any = twinrail.GrantAny
	all := func(change func(*twinrail.Grant)) twinrail.Grant {
		g := FullGrant()
		change(&g)
		return g
	}
	byName := twinrail.Grant{WorkspaceID: "w", Can: []string{"commit:read", "session:revoke"}}
	for name, tt := range map[string]struct {
		grants []twinrail.Grant
		want   bool
	}{
		"nothing":                 {nil, false},
		"everything":              {[]twinrail.Grant{FullGrant()}, true},
		"by its name":             {[]twinrail.Grant{byName}, true},
		"among others":            {[]twinrail.Grant{{WorkspaceID: "w", Can: []string{any}}, byName}, true},
		"no canvas":               {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.CanvasID = "" })}, true},
		"no thread":               {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.ThreadID = "" })}, true},
		"neither":                 {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.CanvasID, g.ThreadID = "", "" })}, false},
		"one canvas":              {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.CanvasID = "c" })}, false},
		"one thread":              {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.ThreadID = "t" })}, false},
		"one workspace":           {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.WorkspaceID = "w" })}, false},
		"one project":             {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.ProjectID = "p" })}, false},
		"one app":                 {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.AppID = "a" })}, false},
		"one surface":             {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.SurfaceID = "s" })}, false},
		"one projection":          {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.ProjectionID = "j" })}, false},
		"any panel":               {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.PanelID = any })}, false},
		"every channel by name":   {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.Can = []string{"commit:*", "chat:*"} })}, false},
		"everything in two parts": {[]twinrail.Grant{all(func(g *twinrail.Grant) { g.WorkspaceID = "w" }), all(func(g *twinrail.Grant) { g.Can = []string{"commit:*"} })}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, GateOptions{})
			c := withBearer(t, g, grants(tt.grants...))
			_, err := g.Revoke(c, twinrail.RevocationRequest{ActorID: "u_9"})
			wantError(t, err, map[bool]twinrail.Code{false: twinrail.CodeNotFound}[tt.want], "")

			cookie, err := withCookie(g, cookieFor(t, g, c))
			if err != nil {
				t.Fatal(err)
			}
			_, err = g.Revoke(cookie, twinrail.RevocationRequest{ActorID: "u_9"})
			wantError(t, err, map[bool]twinrail.Code{false: twinrail.CodeNotFound}[tt.want], "")

			scoped, err := withTicket(g, ticketFor(t, g, c, twinrail.TicketRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			cookie, err = withCookie(g, cookieFor(t, g, scoped))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []*Context{scoped, cookie} {
				_, err = g.Revoke(c, twinrail.RevocationRequest{ActorID: "u_9"})
				wantError(t, err, twinrail.CodeNotFound, "")
			}
		})
	}
}

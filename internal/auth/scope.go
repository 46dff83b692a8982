package auth

import (
	"cmp"
	"slices"

	"github.com/twinrail/twinrail"
)

// scope is what a ticket is good for at most, within the rights of its issuer.
type scope struct {
	rail     twinrail.Rail       // "" is both, and plain HTTP
	routing  twinrail.Routing    // keys that an address must have; no actor
	channels twinrail.ChannelSet // 0 is all
}

// scopeOf reads the scope that p asks for. A key that its request states too
// must be the same there.
func (p *Principal) scopeOf(request twinrail.TicketRequest, stated twinrail.Routing) (*scope, error) {
	s := &scope{rail: request.Rail}
	if s.rail != "" && s.rail != twinrail.RailSSE && s.rail != twinrail.RailWS {
		return nil, twinrail.Errorf(twinrail.CodeBadRequest, "rail", "must be sse or ws")
	}
	if request.Channels != nil && len(request.Channels) == 0 {
		return nil, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "must list one, or be left out")
	}
	for _, ch := range request.Channels {
		if !ch.Valid() {
			return nil, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "must be of commit, artifact, gesture, chat, tool and presence")
		}
	}
	s.channels = twinrail.ChannelsOf(request.Channels...)
	if request.Routing == nil {
		return s, nil
	}
	s.routing = *request.Routing
	if err := s.routing.Validate(); err != nil {
		return nil, twinrail.InField("routing", err)
	}
	own := s.routing // of tenant, env and actor, only what differs is refused
	own.TenantID, own.Env = cmp.Or(own.TenantID, p.identity.TenantID), cmp.Or(own.Env, p.identity.Env)
	if err := p.owns(own); err != nil {
		return nil, twinrail.InField("routing", err)
	}
	if _, err := s.routing.Merge(stated); err != nil {
		return nil, twinrail.InField("routing", err)
	}
	s.routing.ActorID = ""
	return s, nil
}

// allows reports whether the scope has channel at a; nil has everything.
func (s *scope) allows(a twinrail.Address, channel twinrail.Channel) bool {
	if s == nil {
		return true
	}
	if s.channels != 0 && !s.channels.Has(channel) {
		return false
	}
	has := a.Routing()
	return !slices.ContainsFunc(twinrail.Keys(), func(k twinrail.Key) bool {
		v := s.routing.Get(k)
		return v != "" && v != has.Get(k)
	})
}

// AllowsRail reports whether what the request carried opens the rail: a ticket
// for one rail does not open the other. The rail "" is plain HTTP, publishing and
// history, for which a ticket with a rail is not good either.
func (c *Context) AllowsRail(rail twinrail.Rail) bool {
	s := c.who().scope
	return s == nil || s.rail == "" || s.rail == rail
}

// Administers reports whether the request may change what holds for its whole
// tenant and env: an owner or admin may, but not by a ticket, nor by a cookie that
// was got with one.
func (c *Context) Administers() bool {
	p := c.who()
	return p.scope == nil && (p.identity.Role == twinrail.Owner || p.identity.Role == twinrail.Admin)
}

// Revokes reports whether the request may revoke credentials of its tenant and env.
func (c *Context) Revokes() bool { return c.who().mayRevoke() }

// mayRevoke reports whether p has the permission session:revoke: by its name in
// any grant, or by "*" in one that covers everything in the tenant. A ticket
// never has it, nor a cookie that was got with a ticket.
func (p *Principal) mayRevoke() bool {
	if p.scope != nil {
		return false
	}
	return slices.ContainsFunc(p.identity.Grants, func(g twinrail.Grant) bool {
		return slices.Contains(g.Can, twinrail.PermissionRevoke) ||
			slices.Contains(g.Can, twinrail.GrantAny) && coversAll(&g)
	})
}

func coversAll(g *twinrail.Grant) bool {
	const any = twinrail.GrantAny
	return g.WorkspaceID == any && g.ProjectID == any && g.AppID == any &&
		(g.CanvasID == any || g.ThreadID == any) &&
		(g.CanvasID == any || g.CanvasID == "") && (g.ThreadID == any || g.ThreadID == "") &&
		g.SurfaceID == "" && g.ProjectionID == "" && g.PanelID == ""
}

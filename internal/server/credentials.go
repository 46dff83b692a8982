package server

import (
	"net/http"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// serveTicket answers POST /v1/tickets.
func (s *Server) serveTicket(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	var request twinrail.TicketRequest
	if r.ContentLength != 0 { // it may be left out
		if err := s.readJSON(w, r, ac, &request); err != nil {
			return err
		}
	}
	if err := s.takeJoins(ac, 1); err != nil { // there is no other use for one
		return err
	}
	ticket, err := s.opts.Gate.IssueTicket(ac, request)
	if err != nil {
		return err
	}
	return writeJSON(w, ticket)
}

// openSession answers POST /v1/session. A ticket is good for it whatever rail it
// is for: the cookie is bounded like it.
func (s *Server) openSession(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.opts.Gate.Admit(r)
	if err != nil {
		return err
	}
	if err := s.takeChange(ac, false); err != nil {
		return err
	}
	cookie, err := s.opts.Gate.OpenSession(ac, r)
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie)
	return writeJSON(w, twinrail.LifetimeResponse{ExpiresAt: ac.Principal().ExpiresAt().UTC()})
}

// endSession answers DELETE /v1/session.
func (s *Server) endSession(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.opts.Gate.Admit(r)
	if err != nil {
		return err
	}
	if err := s.takeChange(ac, false); err != nil {
		return err
	}
	cookie, err := s.opts.Gate.EndSession(ac, r)
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveRenewal answers POST /v1/connections/{connection_id}/auth: the request's
// credential takes the place of the connection's. Whose connection it is not is
// told that there is none, and so is a ticket for the other rail.
func (s *Server) serveRenewal(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.opts.Gate.Admit(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	c := s.connections.find(ac, r.PathValue("connection_id"))
	s.mu.Unlock()
	if c == nil || !sameActor(c.context(), ac) || !ac.AllowsRail(c.rail()) {
		return &twinrail.Error{Code: twinrail.CodeNotFound}
	}
	renewed, err := s.renew(c, func(was *auth.Context) (*auth.Context, error) { return was.RenewedBy(ac.Principal()) })
	if err != nil {
		return err
	}
	return writeJSON(w, renewed)
}

func sameActor(a, b *auth.Context) bool {
	one, other := a.Principal().Identity(), b.Principal().Identity()
	return one.TenantID == other.TenantID && one.Env == other.Env && one.ActorID == other.ActorID
}

// renew has the connection go on under what newer returns for its context. Where
// another renewal comes first, newer is asked once more: its end may be too early
// now.
func (s *Server) renew(c connection, newer func(was *auth.Context) (*auth.Context, error)) (twinrail.LifetimeResponse, error) {
	for {
		was := c.context()
		ac, err := newer(was)
		if err != nil {
			return twinrail.LifetimeResponse{}, err
		}
		if c.renew(was, ac) {
			s.recheck(c) // what may have changed since ac was admitted
			return twinrail.LifetimeResponse{ExpiresAt: ac.Principal().ExpiresAt().UTC()}, nil
		}
	}
}

// serveRevocation answers POST /v1/revocations. When it does, the connections
// that it is about have been told to end.
func (s *Server) serveRevocation(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	var request twinrail.RevocationRequest
	if err := s.readJSON(w, r, ac, &request); err != nil {
		return err
	}
	if ac.Revokes() {
		if err := s.takeChange(ac, true); err != nil {
			return err
		}
	}
	done, err := s.opts.Gate.Revoke(ac, request)
	if err != nil {
		return err
	}
	return writeJSON(w, done)
}

// sweep ends every connection of the actor in the tenant, or of all its actors
// where that is "", that is no longer allowed, and with them the sessions that wait
// for one.
func (s *Server) sweep(id, env, actor string) {
	s.mu.Lock()
	all := s.connections.appendOf(nil, tenant{id, env})
	s.mu.Unlock()
	for _, c := range all {
		if actor == "" || c.context().Principal().Identity().ActorID == actor {
			s.recheck(c)
		}
	}
	s.sessions.EndLost(id, env, s.opts.Gate.Revoked)
}

// recheck ends c where its credential was revoked, or its rail switched off, and
// has it go by its tenant's flags.
func (s *Server) recheck(c connection) {
	ac := c.context()
	if s.opts.Gate.Revoked(ac.Principal()) {
		c.refuse(twinrail.CodeCredentialRevoked)
		return
	}
	for {
		flags := s.flagsOf(ac)
		if !flags.AllowsRail(c.rail()) {
			c.refuse(twinrail.CodeRailDisabled)
			return
		}
		c.apply(&flags)
		// Who rechecks for a change that came meanwhile may have been faster. Each
		// turn takes one more change.
		if s.flagsOf(ac) == flags {
			return
		}
	}
}

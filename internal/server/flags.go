package server

import (
	"net/http"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
)

func (s *Server) flagsOf(ac *auth.Context) feature.Flags {
	id := ac.Principal().Identity()
	return s.opts.Flags.Flags(id.TenantID, id.Env)
}

// serveFlags answers GET /v1/flags.
func (s *Server) serveFlags(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	flags, err := s.opts.Flags.List(ac)
	if err != nil {
		return err
	}
	return writeJSON(w, twinrail.FlagsResponse{Flags: flags})
}

// setFlag answers PUT /v1/flags/{name}. When it does, the connections of rails
// that are switched off have been told to end.
func (s *Server) setFlag(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	var request twinrail.FlagRequest
	if err := s.readJSON(w, r, ac, &request); err != nil {
		return err
	}
	if err := s.takeFlagChange(ac); err != nil {
		return err
	}
	flag, err := s.opts.Flags.Set(ac, r.PathValue("name"), request)
	if err != nil {
		return err
	}
	return writeJSON(w, flag)
}

// takeFlagChange takes a change of who may make one; others are refused anyway.
func (s *Server) takeFlagChange(ac *auth.Context) error {
	if !ac.Administers() {
		return nil
	}
	return s.takeChange(ac, true)
}

// unsetFlag answers DELETE /v1/flags/{name}.
func (s *Server) unsetFlag(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	if err := s.takeFlagChange(ac); err != nil {
		return err
	}
	flag, err := s.opts.Flags.Unset(ac, r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, flag)
}

// applyFlags has the connections of a tenant, or of all where that is "", go by
// what the flags of the env are now.
func (s *Server) applyFlags(id, env string) {
	var all []connection
	s.mu.Lock()
	if id == "" {
		all = s.connections.list(func(t tenant) bool { return t.env == env })
	} else {
		all = s.connections.appendOf(nil, tenant{id, env})
	}
	s.mu.Unlock()
	for _, c := range all {
		s.recheck(c)
	}
}

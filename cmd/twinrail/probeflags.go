package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
	"github.com/twinrail/twinrail/internal/probe"
)

const (
	gestureFlag = "gesture_fanout"
	// restoreTimeout bounds how long it takes to set flags back, also after the
	// command was interrupted.
	restoreTimeout = 10 * time.Second
)

// switched is a flag that was switched on for the probe, or may have been.
type switched struct {
	remote  *client.Client
	routing twinrail.Routing
	was     twinrail.Flag
	// platform says that it is all tenants', as the tenant is Tenant-0.
	platform bool
}

// allowGestures switches gestures on where they are off and may be switched, and
// returns what sets that back. Where they may not, as for Tenant-0, whose flags are
// all tenants', the cells will say so.
func (c *isolationCmd) allowGestures(ctx context.Context, tokens probe.Tokens) (restore func(*process), err error) {
	var done []switched
	restore = func(p *process) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
		defer cancel()
		for _, s := range done {
			if err := s.restore(ctx); err != nil {
				fmt.Fprintf(p.stderr, "twinrail: %s of %s in %s was %s, and could not be put back: %v\n", gestureFlag, s.routing.TenantID, s.routing.Env, s.was.Value, err)
			}
			s.remote.Close()
		}
	}
	for _, visitor := range c.visitors(tokens) {
		if visitor.TenantID == probe.Tenant0 {
			continue
		}
		visitor.Role = twinrail.Owner
		s, err := c.allowGesturesOf(ctx, tokens, visitor)
		if s != nil {
			done = append(done, *s)
		}
		if err != nil {
			return restore, err
		}
	}
	return restore, nil
}

// allowGesturesOf returns what was switched, or nil. It may be both that something
// was, and an error.
func (c *isolationCmd) allowGesturesOf(ctx context.Context, tokens probe.Tokens, owner probe.Want) (*switched, error) {
	remote, err := c.dial(tokens, owner)
	var unavailable *probe.UnavailableError
	if errors.As(err, &unavailable) {
		return nil, nil // there is no owner's token
	}
	if err != nil {
		return nil, err
	}
	s := &switched{remote: remote, routing: twinrail.Routing{TenantID: owner.TenantID, Env: owner.Env}}
	on, err := s.allow(ctx)
	if !on {
		remote.Close()
		return nil, err
	}
	return s, err
}

// allow switches gestures on, and reports whether they are to be switched back:
// with an error too, where it is not known whether they were.
func (s *switched) allow(ctx context.Context) (bool, error) {
	flags, err := s.remote.Flags(ctx, s.routing)
	if err != nil {
		return false, err
	}
	for _, flag := range flags {
		if flag.Name != gestureFlag || string(flag.Value) == "true" {
			continue
		}
		s.was = flag
		now, err := s.remote.SetFlag(ctx, s.routing, gestureFlag, twinrail.FlagRequest{Value: json.RawMessage("true")})
		switch {
		case twinrail.CodeOf(err) == twinrail.CodeBadRequest:
			return false, nil // the platform has fixed it
		case err == nil && now.Source == twinrail.FlagFromTenant0:
			// The server calls Tenant-0 so: nobody's flag is to be changed but the
			// tenant's own.
			s.platform = true
			err := s.restore(ctx)
			return err != nil, err
		}
		return true, err
	}
	return false, nil
}

// restore has the flag be what it was.
func (s *switched) restore(ctx context.Context) (err error) {
	switch {
	case s.platform && s.was.Source == twinrail.FlagFromTenant0:
		_, err = s.remote.SetFlag(ctx, s.routing, gestureFlag, twinrail.FlagRequest{Value: s.was.Value, Overridable: &s.was.Overridable})
	case s.was.Source == twinrail.FlagFromTenant:
		_, err = s.remote.SetFlag(ctx, s.routing, gestureFlag, twinrail.FlagRequest{Value: s.was.Value})
	default:
		_, err = s.remote.UnsetFlag(ctx, s.routing, gestureFlag)
	}
	return err
}

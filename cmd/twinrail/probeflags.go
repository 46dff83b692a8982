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

// switched is a flag that was switched on for the probe.
type switched struct {
	remote  *client.Client
	routing twinrail.Routing
	was     twinrail.Flag
}

// allowGestures switches gestures on where they are off and may be switched, and
// returns what sets that back. Where they may not, the cells will say so.
func (c *isolationCmd) allowGestures(ctx context.Context, tokens probe.Tokens) (restore func(*process), err error) {
	var done []switched
	restore = func(p *process) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
		defer cancel()
		for _, s := range done {
			if err := s.restore(ctx); err != nil {
				fmt.Fprintf(p.stderr, "twinrail: %s of %s in %s is still on: %v\n", gestureFlag, s.routing.TenantID, s.routing.Env, err)
			}
			s.remote.Close()
		}
	}
	for _, visitor := range c.visitors(tokens) {
		visitor.Role = twinrail.Owner
		s, err := c.allowGesturesOf(ctx, tokens, visitor)
		if err != nil {
			return restore, err
		}
		if s != nil {
			done = append(done, *s)
		}
	}
	return restore, nil
}

// allowGesturesOf returns what was switched, or nil.
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
	if err != nil || !on {
		remote.Close()
		return nil, err
	}
	return s, nil
}

// allow reports whether it switched gestures on.
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
		_, err := s.remote.SetFlag(ctx, s.routing, gestureFlag, twinrail.FlagRequest{Value: json.RawMessage("true")})
		if twinrail.CodeOf(err) == twinrail.CodeBadRequest {
			return false, nil // the platform has fixed it
		}
		return err == nil, err
	}
	return false, nil
}

func (s *switched) restore(ctx context.Context) (err error) {
	if s.was.Source == twinrail.FlagFromTenant {
		_, err = s.remote.SetFlag(ctx, s.routing, gestureFlag, twinrail.FlagRequest{Value: s.was.Value})
	} else {
		_, err = s.remote.UnsetFlag(ctx, s.routing, gestureFlag)
	}
	return err
}

package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/twinrail/twinrail"
)

// The kinds of stream: what is a home key of the one is an audience key of the
// other.
var kinds = []twinrail.Kind{twinrail.CanvasStream, twinrail.ThreadStream}

// presenceSnapshot: who is there already, over HTTP and as one joins.
func presenceSnapshot(ctx context.Context, w *world) error {
	for _, kind := range kinds {
		s, err := w.scene(kind, attending(kind)...)
		if err != nil {
			return err
		}
		if err := w.snapshots(ctx, s); err != nil {
			return fmt.Errorf("on a %s: %w", kind, err)
		}
	}
	return nil
}

// attending is what it takes to be present and to watch. Presence by itself is
// that of a canvas wherever one is named.
func attending(kind twinrail.Kind) []string {
	if kind == twinrail.ThreadStream {
		return []string{"presence:*", "chat:read"}
	}
	return []string{"presence:*"}
}

// watching is the frame that watches who is at an address; with a state one is
// there oneself.
func watching(sub string, kind twinrail.Kind, at twinrail.Routing, state *canary) twinrail.ClientFrame {
	f := join(sub, at, twinrail.Presence)
	if kind == twinrail.ThreadStream {
		f.Channels = append(f.Channels, twinrail.Chat)
	}
	if state != nil {
		f.Presence = state.json()
	}
	return f
}

func (c *canary) json() json.RawMessage {
	b, _ := json.Marshal(map[string]string{"text": c.text}) // a string always marshals
	return b
}

// whoIsAt is the call that asks who is at an address.
func whoIsAt(kind twinrail.Kind, at twinrail.Routing) call {
	return call{method: http.MethodGet, path: twinrail.PathPresence, stated: at, query: url.Values{"stream": {kind.String()}}}
}

// seers returns who may see that p is present: itself; with the actors all, as
// they are at one address; and all others see who does not state the key.
func (w *world) seers(s *scene, p *party) []*party {
	if w.key == twinrail.KeyActor || p == s.bare {
		return s.readers()
	}
	return []*party{p}
}

// enter has p come to an address as "s", over a connection of its own.
func (p *party) enter(ctx context.Context, kind twinrail.Kind, at twinrail.Routing, state *canary) (*conn, error) {
	c, err := p.mustDial(ctx)
	if err != nil {
		return nil, err
	}
	_, err = c.must(watching("s", kind, at, state))
	return c, err
}

// snapshots has everybody present, and everybody look. Who looks is there itself,
// and came last or after: what it does not see then, it will not see.
func (w *world) snapshots(ctx context.Context, s *scene) error {
	states := make(map[*party]*canary)
	for _, p := range s.readers() {
		states[p] = w.canary("the state of "+p.name, w.seers(s, p)...)
		c, err := p.enter(ctx, s.kind, p.at(), states[p])
		if err != nil {
			return fmt.Errorf("%s cannot be present: %w", p.name, err)
		}
		w.secret("the session of "+p.name, c.welcome.SessionID, states[p].readers...)
	}
	for _, p := range s.readers() {
		for _, look := range []func(context.Context, twinrail.Kind) (string, error){p.lookHTTP, p.lookWS} {
			seen, err := look(ctx, s.kind)
			if err != nil {
				return fmt.Errorf("%s looks: %w", p.name, err)
			}
			for q, state := range states {
				if slices.Contains(state.readers, p) && !strings.Contains(seen, state.text) {
					return fmt.Errorf("%s does not see %s", p.name, q.name)
				}
			}
		}
	}
	open := func(at twinrail.Routing) call { return whoIsAt(s.kind, at) }
	if err := w.contradictRequest(ctx, s, open); err != nil {
		return err
	}
	err := w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.do(ctx, open(at)) })
	if err != nil {
		return err
	}
	if err := w.trespassWatching(ctx, s, nil); err != nil {
		return err
	}
	return w.blind(ctx, s)
}

// lookHTTP looks page by page, of one member each: where a page ends is also not to
// tell of whom it leaves out.
func (p *party) lookHTTP(ctx context.Context, kind twinrail.Kind) (string, error) {
	var seen strings.Builder
	c := whoIsAt(kind, p.at())
	c.query.Set("limit", "1")
	for {
		a, err := p.do(ctx, c)
		if err != nil {
			return "", err
		}
		var page twinrail.PresenceResponse
		if a.status != http.StatusOK || json.Unmarshal(a.body, &page) != nil {
			return "", fmt.Errorf("%s", a)
		}
		seen.Write(a.body)
		if page.Next == "" {
			return seen.String(), nil
		}
		c.query.Set("after", page.Next)
	}
}

func (p *party) lookWS(ctx context.Context, kind twinrail.Kind) (string, error) {
	c, err := p.mustDial(ctx)
	if err != nil {
		return "", err
	}
	joined, err := c.must(watching("s", kind, p.at(), nil))
	return joined.raw, err
}

// trespassWatching is [world.trespass] by joining, with a state or without.
func (w *world) trespassWatching(ctx context.Context, s *scene, state *canary) error {
	c, err := s.wrong.mustDial(ctx)
	if err != nil {
		return err
	}
	return w.trespass(s, func(_ *party, at twinrail.Routing) (*answer, error) {
		f, err := c.ask(watching("trespass", s.kind, at, state))
		return f.asAnswer(), err
	})
}

// blind has somebody at the right one's address look who may do anything there
// but that. It is to be answered as where there is nothing.
func (w *world) blind(ctx context.Context, s *scene) error {
	if !s.right.exact {
		w.note("who may not see who is there: needs signing keys")
		return nil
	}
	p, err := w.party("who may be there and not look", s.right.routing, "presence:write", "commit:*", "artifact:*", "gesture:*", "chat:*", "tool:*")
	if err != nil {
		return err
	}
	empty := p.at()
	empty.CanvasID, empty.ThreadID = w.fresh(), w.fresh()
	got, err := p.do(ctx, whoIsAt(s.kind, p.at()))
	if err != nil {
		return err
	}
	absent, err := p.do(ctx, whoIsAt(s.kind, empty))
	if err != nil {
		return err
	}
	if err := w.refused(p.name+" asks who is there", got, absent, twinrail.CodeNotFound); err != nil {
		return err
	}
	c, err := p.mustDial(ctx)
	if err != nil {
		return err
	}
	joined, err := c.ask(watching("there", s.kind, p.at(), nil))
	if err != nil {
		return err
	}
	nothing, err := c.ask(watching("there", s.kind, empty, nil))
	if err != nil {
		return err
	}
	return w.refused(p.name+" joins", joined.asAnswer(), nothing.asAnswer(), twinrail.CodeNotFound)
}

package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/twinrail/twinrail"
)

// follower reads what comes to a subscriber.
type follower interface {
	// await reads on until an event with the text has come, and returns it.
	await(text string) (json.RawMessage, error)
}

// sseLive: what is published while both follow the SSE rail.
func sseLive(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.CanvasStream, "commit:read", "artifact:read")
	if err != nil {
		return err
	}
	for _, channel := range []twinrail.Channel{twinrail.Commit, twinrail.Artifact} {
		err := w.live(ctx, s, channel, func(p *party) (follower, error) { return p.mustFollow(ctx, sse(p.at(), nil)) })
		if err != nil {
			return err
		}
	}
	err = canvasPair.live(ctx, w, s, func(p *party) (follower, error) { return p.mustFollow(ctx, sse(p.at(), nil)) })
	if err != nil {
		return err
	}
	if err := w.renewSSE(ctx, s); err != nil {
		return err
	}
	open := func(at twinrail.Routing) call { return sse(at, nil) }
	if err := w.contradictRequest(ctx, s, open); err != nil {
		return err
	}
	if err := w.forged(ctx, s, func(_ *party, at twinrail.Routing) call { return open(at) }); err != nil {
		return err
	}
	if err := w.contradictPath(ctx, s); err != nil {
		return err
	}
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.ask(ctx, open(at)) })
}

// wsLive: what is published while both follow the WS rail.
func wsLive(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.ThreadStream, "chat:read", "tool:read")
	if err != nil {
		return err
	}
	for _, channel := range []twinrail.Channel{twinrail.Chat, twinrail.Tool} {
		err := w.live(ctx, s, channel, func(p *party) (follower, error) {
			c, _, err := p.mustJoin(ctx, "", twinrail.Chat, twinrail.Tool)
			return c, err
		})
		if err != nil {
			return err
		}
	}
	err = threadPair.live(ctx, w, s, func(p *party) (follower, error) {
		c, _, err := p.mustJoin(ctx, "")
		return c, err
	})
	if err != nil {
		return err
	}
	if err := w.twoSubs(ctx, s); err != nil {
		return err
	}
	if err := w.renewWS(ctx, s); err != nil {
		return err
	}
	if err := w.contradictRequest(ctx, s, handshake); err != nil {
		return err
	}
	if err := w.forged(ctx, s, func(_ *party, at twinrail.Routing) call { return handshake(at) }); err != nil {
		return err
	}
	if err := w.forgedRenewal(ctx, s); err != nil {
		return err
	}
	err = w.contradictFrame(ctx, s, func(at twinrail.Routing) twinrail.ClientFrame { return join("s", at, twinrail.Chat) })
	if err != nil {
		return err
	}
	return w.trespassWS(ctx, s, twinrail.Chat)
}

// gestures: what is passed on while both follow the SSE rail, and is kept nowhere.
func gestures(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.CanvasStream, "gesture:*")
	if err != nil {
		return err
	}
	query := url.Values{"channels": {string(twinrail.Gesture)}}
	for _, p := range []*party{s.right, s.wrong} {
		if err := w.needsGestures(ctx, p); err != nil {
			return err
		}
	}
	err = w.live(ctx, s, twinrail.Gesture, func(p *party) (follower, error) { return p.mustFollow(ctx, sse(p.at(), query)) })
	if err != nil {
		return err
	}
	err = w.writeOnly(s, twinrail.Gesture, func(p *party) (*answer, error) { return p.ask(ctx, sse(p.at(), query)) })
	if err != nil {
		return err
	}
	f, err := s.right.mustFollow(ctx, sse(s.right.at(), query))
	if err != nil {
		return err
	}
	for _, publish := range []send{w.sendHTTP(ctx), w.sendWS(ctx)} {
		if err := w.publishers(ctx, s, twinrail.Gesture, f, publish); err != nil {
			return err
		}
	}
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.ask(ctx, sse(at, query)) })
}

// needsGestures returns an error of [unavailable] where gestures are switched off
// for p.
func (w *world) needsGestures(ctx context.Context, p *party) error {
	source, err := w.source(p)
	if err != nil {
		return err
	}
	a, err := source.do(ctx, publishing(w.canary("a gesture before anybody followed", source).event(twinrail.Gesture, p.routing)))
	if err == nil && a.code() == twinrail.CodeFeatureDisabled {
		err = unavailable("gesture_fanout is off for %s in %s", p.routing.TenantID, p.routing.Env)
	}
	return err
}

// live has everybody follow, and then publishes: for the right one; for the wrong
// one, which is as good a test the other way round; and for everybody at each of
// the streams, which is the barrier.
func (w *world) live(ctx context.Context, s *scene, channel twinrail.Channel, follow func(*party) (follower, error)) error {
	followers := make(map[*party]follower)
	for _, p := range s.readers() {
		f, err := follow(p)
		if err != nil {
			return fmt.Errorf("%s cannot follow: %w", p.name, err)
		}
		followers[p] = f
	}
	for _, p := range []*party{s.right, s.wrong} {
		e := w.eventFor(p, channel)
		if _, err := w.publish(ctx, p, e); err != nil {
			return err
		}
		if _, err := followers[p].await(e.text); err != nil {
			return fmt.Errorf("%s did not receive its own: %w", p.name, err)
		}
	}
	for _, p := range s.readers() {
		e := w.eventAt(s, p, channel)
		if _, err := w.publish(ctx, p, e); err != nil {
			return err
		}
		if _, err := followers[p].await(e.text); err != nil {
			return fmt.Errorf("the barrier did not come to %s: %w", p.name, err)
		}
	}
	return nil
}

// mustJoin opens the WS rail, and joins the thread as "s", up to live.
func (p *party) mustJoin(ctx context.Context, after string, channels ...twinrail.Channel) (*conn, frame, error) {
	c, err := p.mustDial(ctx)
	if err != nil {
		return nil, frame{}, err
	}
	f := join("s", p.at(), channels...)
	f.After = after
	joined, err := c.must(f)
	if err == nil {
		_, err = c.until(twinrail.OpLive)
	}
	return c, joined, err
}

// twoSubs has one who may read at both addresses join both over one connection:
// what is for the one subscription must not come to the other.
func (w *world) twoSubs(ctx context.Context, s *scene) error {
	if w.own() {
		return nil // one connection is of one credential
	}
	both, err := w.party("who follows both", s.right.routing)
	if err != nil {
		return err
	}
	c, err := both.mustDial(ctx)
	if err != nil {
		return err
	}
	for _, p := range []*party{s.right, s.wrong} {
		if _, err := c.must(join(p.routing.Get(w.key), p.at(), twinrail.Chat)); err != nil {
			return err
		}
	}
	subs := make(map[string]string) // by text, whose it is
	for _, p := range []*party{s.right, s.wrong} {
		e := w.eventFor(p, twinrail.Chat)
		e.readers = append(e.readers, both)
		subs[e.text] = p.routing.Get(w.key)
		if _, err := w.publish(ctx, p, e); err != nil {
			return err
		}
		f, err := c.event(e.text)
		if err != nil {
			return err
		}
		if f.Sub != subs[e.text] {
			w.leak("one who follows both got what is for the one subscription in the other")
		}
	}
	if _, err := c.ask(twinrail.ClientFrame{Op: twinrail.OpPing}); err != nil {
		return err
	}
	for _, f := range c.pending {
		if f.Op == twinrail.OpEvent {
			w.leak("one who follows both got what is for the one subscription in both")
		}
	}
	return nil
}

// trespassWS is [world.trespass] by joining; where a credential settles the key,
// by the handshake too.
func (w *world) trespassWS(ctx context.Context, s *scene, channel twinrail.Channel) error {
	c, err := s.wrong.mustDial(ctx)
	if err != nil {
		return err
	}
	err = w.trespass(s, func(_ *party, at twinrail.Routing) (*answer, error) {
		f, err := c.ask(join("trespass", at, channel))
		return f.asAnswer(), err
	})
	if err != nil || !w.own() {
		return err
	}
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.ask(ctx, handshake(at)) })
}

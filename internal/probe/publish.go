package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// send publishes events. Where it can, it states the address in the request too.
type send func(p *party, stated twinrail.Routing, events ...*secret) (*answer, error)

// publishHTTP: who publishes over HTTP, seen from the SSE rail.
func publishHTTP(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.CanvasStream, "commit:*", "artifact:*")
	if err != nil {
		return err
	}
	f, err := s.right.mustFollow(ctx, sse(s.right.at(), nil))
	if err != nil {
		return err
	}
	if err := w.publishers(ctx, s, twinrail.Commit, f, w.sendHTTP(ctx)); err != nil {
		return err
	}
	err = w.publishers(ctx, s, twinrail.Artifact, f, func(p *party, stated twinrail.Routing, events ...*secret) (*answer, error) {
		c := publishing(events...)
		c.stated = stated
		return patiently(ctx, func() (*answer, error) { return p.do(ctx, c) })
	})
	if err != nil {
		return err
	}
	err = w.forged(ctx, s, func(p *party, at twinrail.Routing) call {
		c := publishing(w.attempt(p, at, twinrail.Commit))
		c.stated = at
		return c
	})
	if err != nil {
		return err
	}
	err = w.contradictRequest(ctx, s, func(at twinrail.Routing) call {
		c := publishing(w.eventOf(s.wrong, twinrail.Commit, nil))
		c.stated = at
		return c
	})
	if err != nil {
		return err
	}
	return w.contradictWithin(s, func(stated, within twinrail.Routing) (*answer, error) {
		c := publishing(w.eventOf(s.wrong, twinrail.Commit, &within))
		c.stated = stated
		return s.wrong.do(ctx, c)
	})
}

// publishWS: who publishes over the WS rail, seen from there.
func publishWS(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.ThreadStream, "chat:*", "tool:*")
	if err != nil {
		return err
	}
	f, _, err := s.right.mustJoin(ctx, "", twinrail.Chat, twinrail.Tool)
	if err != nil {
		return err
	}
	for _, channel := range []twinrail.Channel{twinrail.Chat, twinrail.Tool} {
		if err := w.publishers(ctx, s, channel, f, w.sendWS(ctx)); err != nil {
			return err
		}
	}
	return w.contradictFrame(ctx, s, func(at twinrail.Routing) twinrail.ClientFrame {
		return twinrail.ClientFrame{Op: twinrail.OpPublish, Events: []twinrail.NewEvent{w.eventOf(s.wrong, twinrail.Chat, &at).event}}
	})
}

// sendHTTP returns what publishes over HTTP, and states the address in the events.
func (w *world) sendHTTP(ctx context.Context) send {
	return func(p *party, _ twinrail.Routing, events ...*secret) (*answer, error) {
		return patiently(ctx, func() (*answer, error) { return p.do(ctx, publishing(events...)) })
	}
}

// sendWS returns what publishes over the WS rail, with one connection for each
// party.
func (w *world) sendWS(ctx context.Context) send {
	conns := make(map[*party]*conn)
	return func(p *party, _ twinrail.Routing, events ...*secret) (*answer, error) {
		if conns[p] == nil {
			c, err := p.mustDial(ctx)
			if err != nil {
				return nil, err
			}
			conns[p] = c
		}
		frame := twinrail.ClientFrame{Op: twinrail.OpPublish}
		for _, e := range events {
			frame.Events = append(frame.Events, e.event)
		}
		return patiently(ctx, func() (*answer, error) {
			got, err := conns[p].ask(frame)
			return got.asAnswer(), err
		})
	}
}

// patience is the time after which something is tried again that was over a rate.
const patience = 100 * time.Millisecond

// patiently tries again what is over a rate, for as long as ctx lasts. Only those
// come there who have one actor for all cells.
func patiently(ctx context.Context, try func() (*answer, error)) (*answer, error) {
	for {
		a, err := try()
		if err != nil || a.status != http.StatusTooManyRequests {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, ctx.Err()
		case <-time.After(patience):
		}
	}
}

// publishers has the right one follow with f, and tries what the wrong one can
// publish: at its own address, without the right one's noticing; and nothing at the
// right one's, by itself or in a batch, nor in its name. The barrier is an event
// for everybody there.
func (w *world) publishers(ctx context.Context, s *scene, channel twinrail.Channel, f follower, publish send) error {
	if err := w.publishBoth(ctx, s, channel, f, publish); err != nil {
		return err
	}
	err := w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) {
		return publish(p, at, w.attempt(p, at, channel))
	})
	if err != nil {
		return err
	}
	if err := w.readOnly(s, channel, publish); err != nil {
		return err
	}
	if err := w.smuggle(s, channel, publish); err != nil {
		return err
	}
	if w.key == twinrail.KeyActor {
		return w.stamped(s, channel, f, publish)
	}
	barrier := w.eventAt(s, s.right, channel)
	if _, err := w.publish(ctx, s.right, barrier); err != nil {
		return err
	}
	if _, err := f.await(barrier.text); err != nil {
		return fmt.Errorf("the barrier did not come: %w", err)
	}
	return nil
}

// eventOf returns an event that is p's to publish and to see, if it is published at
// its own address, and that says what p claims of where that is.
func (w *world) eventOf(p *party, channel twinrail.Channel, claimed *twinrail.Routing) *secret {
	e := w.eventFor(p, channel)
	e.event.Routing = claimed
	return e
}

// publishBoth has both publish at their own addresses. Where these are in two
// streams, it is under one event id, which the streams must not know of each other.
func (w *world) publishBoth(ctx context.Context, s *scene, channel twinrail.Channel, f follower, publish send) error {
	mine, theirs := w.eventFor(s.right, channel), w.eventFor(s.wrong, channel)
	oneID := channel.Journaled() && !s.sameHome()
	if oneID {
		mine.event.ID = random()
		theirs.event.ID = mine.event.ID
	}
	for _, from := range []struct {
		*party
		event *secret
	}{{s.right, mine}, {s.wrong, theirs}} {
		a, err := publish(from.party, from.at(), from.event)
		if err != nil {
			return err
		}
		switch {
		case from.party == s.wrong && (a.code() == twinrail.CodeIDConflict || a.isDuplicate()):
			w.leak("%s learns that the right one used the same event id: %s", from.name, a)
		case a.status != http.StatusOK:
			return fmt.Errorf("%s cannot publish where it may: %s", from.name, a)
		}
	}
	if _, err := f.await(mine.text); err != nil {
		return fmt.Errorf("what the right one published did not come: %w", err)
	}
	if !oneID || len(w.leaks) > 0 {
		return nil
	}
	return w.keptBoth(ctx, s, channel, mine, theirs, publish)
}

// keptBoth checks that the wrong one's event is in its stream, although the right
// one used the id of it before; and that ids are looked at at all, or that proves
// nothing: the right one's own event is a duplicate, should it publish it again.
func (w *world) keptBoth(ctx context.Context, s *scene, channel twinrail.Channel, mine, theirs *secret, publish send) error {
	last := w.eventFor(s.wrong, channel)
	if a, err := publish(s.wrong, s.wrong.at(), last); err != nil || a.status != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s cannot publish under an id of its own: %v", s.wrong.name, a))
	}
	b, err := s.wrong.page(ctx, call{
		method: http.MethodGet, path: twinrail.PathHistory, stated: s.wrong.at(),
		query: url.Values{"channels": {string(channel)}, "after": {twinrail.CursorEarliest}},
	})
	switch {
	case err != nil:
		return err
	case !b.has(last.text):
		return fmt.Errorf("what %s published did not come", s.wrong.name)
	case !b.has(theirs.text):
		w.leak("what %s published got lost, as the right one used the same event id", s.wrong.name)
	}
	a, err := publish(s.right, s.right.at(), mine)
	if err == nil && !a.isDuplicate() {
		err = fmt.Errorf("the right one publishes an event again, and it is no duplicate: %s", a)
	}
	return err
}

// isDuplicate reports whether the answer to a publish says that the event was there
// already.
func (a *answer) isDuplicate() bool { return strings.Contains(string(a.body), `"duplicate":true`) }

// attempt returns an event that p is not to be let publish, at that address and,
// where there is one, as that actor.
func (w *world) attempt(p *party, at twinrail.Routing, channel twinrail.Channel) *secret {
	e := w.canary("what was published by "+p.name, p).event(channel, at)
	e.event.Routing.ActorID = at.ActorID
	return e
}

// smuggle has the wrong one publish at the right one's address behind an event at
// its own, which must be refused like the attempt by itself.
func (w *world) smuggle(s *scene, channel twinrail.Channel, publish send) error {
	return w.trespassing(s, "publishes at the right one's, behind an event of its own", func(p *party, at twinrail.Routing) (*answer, error) {
		return publish(p, twinrail.Routing{}, w.eventFor(p, channel), w.attempt(p, at, channel))
	})
}

// stamped has the wrong actor publish for everybody: the event, which is the
// barrier too, must say who it was.
func (w *world) stamped(s *scene, channel twinrail.Channel, f follower, publish send) error {
	e := w.canary("what another actor published for everybody", s.right, s.wrong).event(channel, s.right.routing)
	if a, err := publish(s.wrong, s.wrong.at(), e); err != nil || a.status != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s cannot publish for everybody: %v", s.wrong.name, a))
	}
	raw, err := f.await(e.text)
	if err != nil {
		return fmt.Errorf("the barrier did not come: %w", err)
	}
	var got twinrail.Event
	if err := json.Unmarshal(raw, &got); err != nil {
		return err
	}
	if who := got.Routing.ActorID; who != s.wrong.routing.ActorID {
		w.leak("what %s published came as of %q", s.wrong.name, who)
	}
	return nil
}

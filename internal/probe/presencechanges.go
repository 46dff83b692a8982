package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/twinrail/twinrail"
)

// presenceChanges: who comes, changes and goes while all watch.
func presenceChanges(ctx context.Context, w *world) error {
	for _, kind := range kinds {
		s, err := w.scene(kind, attending(kind)...)
		if err != nil {
			return err
		}
		if err := w.changes(ctx, s); err != nil {
			return fmt.Errorf("on a %s: %w", kind, err)
		}
	}
	return nil
}

func (w *world) changes(ctx context.Context, s *scene) error {
	watchers := make(map[*party]*conn)
	for _, p := range s.readers() {
		c, err := p.mustDial(ctx)
		if err != nil {
			return err
		}
		if _, err := c.must(watching("s", s.kind, p.at(), nil)); err != nil {
			return fmt.Errorf("%s cannot watch: %w", p.name, err)
		}
		watchers[p] = c
	}
	for _, p := range []*party{s.right, s.wrong} {
		if err := w.comeAndGo(ctx, s, p, watchers); err != nil {
			return err
		}
	}
	if err := w.trespassWatching(ctx, s, w.canary("the state of "+s.wrong.name+" at the right one's", s.wrong)); err != nil {
		return err
	}
	if err := w.lookOnly(ctx, s); err != nil {
		return err
	}
	if err := w.otherGrant(ctx, s, watchers[s.right]); err != nil {
		return err
	}
	if w.key == twinrail.KeyActor {
		if err := w.impersonate(ctx, s); err != nil {
			return err
		}
	}
	return w.everybodySees(ctx, s, watchers)
}

// told waits until c is told of a change with the text.
func (c *conn) told(what, text string) error {
	_, err := c.find(what, func(f *frame) bool { return f.Op == twinrail.OpPresence && strings.Contains(f.raw, text) })
	return err
}

// toldThatLeft waits until c is told that the session has left.
func (c *conn) toldThatLeft(what, session string) error {
	_, err := c.find(what, func(f *frame) bool {
		return slices.ContainsFunc(f.Leave, func(m twinrail.PresenceMember) bool { return m.SessionID == session })
	})
	return err
}

// comeAndGo has p come, change, leave, come again, and close its connection.
// Whoever may see it is waited for each time, as changes that come close together
// are told as one.
func (w *world) comeAndGo(ctx context.Context, s *scene, p *party, watchers map[*party]*conn) error {
	seers := w.seers(s, p)
	came := w.canary("that "+p.name+" came", seers...)
	changed := w.canary("that "+p.name+" changed", seers...)
	again := w.canary("that "+p.name+" came again", seers...)
	c, err := p.enter(ctx, s.kind, p.at(), came)
	if err != nil {
		return err
	}
	session := c.welcome.SessionID // all that is told of who leaves
	w.secret("the session of "+p.name, session, seers...)
	toldOf := func(c *canary) func(*conn) error {
		return func(watcher *conn) error { return watcher.told(c.what, c.text) }
	}
	left := func(watcher *conn) error { return watcher.toldThatLeft("that "+p.name+" left", session) }
	for _, step := range []struct {
		do   func() error
		told func(*conn) error
	}{
		{func() error { return nil }, toldOf(came)},
		{func() error {
			return c.say(twinrail.ClientFrame{Op: twinrail.OpPresence, Sub: "s", State: changed.json()})
		}, toldOf(changed)},
		{func() error { return c.say(twinrail.ClientFrame{Op: twinrail.OpLeave, Sub: "s"}) }, left},
		{func() error { return c.say(watching("again", s.kind, p.at(), again)) }, toldOf(again)},
		{func() error { return errors.Join(c.bye(), c.Close()) }, left},
	} {
		if err := step.do(); err != nil {
			return err
		}
		for _, q := range seers {
			if err := step.told(watchers[q]); err != nil {
				return fmt.Errorf("%s is not told: %w", q.name, err)
			}
		}
	}
	return nil
}

// everybodySees has somebody come at each of the streams whom all there see: the
// barrier, as it comes after all changes.
func (w *world) everybodySees(ctx context.Context, s *scene, watchers map[*party]*conn) error {
	for _, p := range s.readers() {
		if _, err := w.source(p); err != nil { // who is there too, before anybody comes
			return err
		}
	}
	for _, p := range s.readers() {
		home := homeOf(p.routing, s.kind)
		there := slices.DeleteFunc(slices.Clone(w.parties), func(q *party) bool { return homeOf(q.routing, s.kind) != home })
		state := w.canary("the state of one whom everybody sees where "+p.name+" is", there...)
		if _, err := p.source.enter(ctx, s.kind, home, state); err != nil {
			return err
		}
		if err := watchers[p].told("the barrier", state.text); err != nil {
			return fmt.Errorf("the barrier did not come to %s: %w", p.name, err)
		}
	}
	return nil
}

// otherGrant has somebody present at the right one's whose connection goes on with
// a grant of the wrong one's address: renewed, and cut off and resumed. It must not
// stay present there, and must not watch on.
func (w *world) otherGrant(ctx context.Context, s *scene, watcher *conn) error {
	if w.own() {
		return nil // a credential settles the key, and no other is taken
	}
	for _, how := range []struct {
		name string
		goOn func(*conn, *party) error
	}{
		{"renewed", func(c *conn, has *party) error {
			if _, err := c.must(twinrail.ClientFrame{Op: twinrail.OpAuth, Token: has.token}); err != nil {
				return err
			}
			if _, err := c.must(twinrail.ClientFrame{Op: twinrail.OpPing}); err != nil {
				return err
			}
			if !slices.ContainsFunc(c.pending, func(f frame) bool { return f.Op == twinrail.OpLeft && f.Sub == "s" }) {
				w.leak("who was granted another %s meanwhile watches on", w.key)
			}
			return nil
		}},
		{"resumed", func(c *conn, has *party) error { return w.resumeElsewhere(ctx, c, has) }},
	} {
		had, has, err := w.regranted(s)
		if had == nil {
			return err
		}
		state := w.canary("the state of one at the right one's", s.right, had)
		c, err := had.enter(ctx, s.kind, had.at(), state)
		if err != nil {
			return err
		}
		if err := watcher.told("that somebody came", state.text); err != nil {
			return err
		}
		if err := how.goOn(c, has); err != nil {
			return fmt.Errorf("%s: %w", how.name, err)
		}
		seen, err := s.right.lookHTTP(ctx, s.kind)
		if err != nil {
			return err
		}
		if strings.Contains(seen, state.text) {
			w.leak("who is present and is %s with another %s granted stays present", how.name, w.key)
		}
	}
	return nil
}

// resumeElsewhere cuts c off, and has its session resumed with the token of one
// who may not be there.
func (w *world) resumeElsewhere(ctx context.Context, c *conn, has *party) error {
	head, err := c.until(twinrail.OpLive)
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	back, err := has.mustDial(ctx)
	if err != nil {
		return err
	}
	h := held{c.resumeToken, map[string]string{"s": head.Cursor}}
	resumed, err := back.must(h.resuming())
	if err != nil {
		return err
	}
	if len(resumed.Subs) != 1 || resumed.Subs[0].Code != twinrail.CodeNotFound || len(resumed.Subs[0].Members) > 0 {
		w.leak("who is granted another %s resumes watching", w.key)
	}
	return nil
}

// impersonate has the wrong actor be present where the right one is, and change
// what it says of itself: that is all of what it can change.
func (w *world) impersonate(ctx context.Context, s *scene) error {
	states, sessions := make(map[*party]*canary), make(map[*party]*conn)
	for _, p := range s.readers() {
		states[p] = w.canary("the state of "+p.name, s.readers()...)
		c, err := p.enter(ctx, s.kind, p.at(), states[p])
		if err != nil {
			return err
		}
		sessions[p] = c
	}
	states[s.wrong] = w.canary("the next state of "+s.wrong.name, s.readers()...)
	wrong := sessions[s.wrong]
	if err := wrong.say(twinrail.ClientFrame{Op: twinrail.OpPresence, Sub: "s", State: states[s.wrong].json()}); err != nil {
		return err
	}
	if _, err := wrong.must(twinrail.ClientFrame{Op: twinrail.OpPing}); err != nil {
		return err
	}
	a, err := s.right.do(ctx, whoIsAt(s.kind, s.right.at()))
	if err != nil {
		return err
	}
	var seen twinrail.PresenceResponse
	if a.status != http.StatusOK || json.Unmarshal(a.body, &seen) != nil {
		return fmt.Errorf("who is there: %s", a)
	}
	for p, state := range states {
		i := slices.IndexFunc(seen.Members, func(m twinrail.PresenceMember) bool { return m.SessionID == sessions[p].welcome.SessionID })
		switch {
		case i < 0:
			return fmt.Errorf("%s is not there", p.name)
		case seen.Members[i].ActorID != p.routing.ActorID:
			w.leak("%s is present as %q", p.name, seen.Members[i].ActorID)
		case !strings.Contains(string(seen.Members[i].State), state.text):
			w.leak("the state of %s is not its own", p.name)
		}
	}
	return nil
}

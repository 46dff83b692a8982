package server

import (
	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
	"github.com/twinrail/twinrail/internal/session"
)

// presenceBatch bounds the members that one frame tells of, and with that its bytes
// to some 200 KiB. Only the client itself comes on top, in each subscription.
const presenceBatch = 64

// presenceOf returns what the session is present with, or nil where it has never
// been anywhere.
func presenceOf(s *session.Session) *presence.Session {
	p, _ := s.Value().(*presence.Session)
	return p
}

// sessionOver has whoever is still present in a session leave.
func sessionOver(s *session.Session) {
	if p := presenceOf(s); p != nil {
		p.Close()
	}
}

// present answers a presence frame: it changes the client's state, and makes it
// a member where it was none.
func (c *wsConn) present(f *clientFrame) error {
	if f.State == nil {
		return twinrail.Errorf(twinrail.CodeBadRequest, "state", "is required; it may be any JSON value")
	}
	c.mu.Lock()
	i := c.joinAt(f.Sub)
	if i < 0 {
		c.mu.Unlock()
		return errNoSub
	}
	j := c.joins[i]
	c.mu.Unlock()
	ac, at := c.context(), j.right().Address()
	w, err := c.presenter(ac, at.Routing(), at.Home.Kind, f.State, "state")
	if err != nil {
		return err
	}
	hold, err := c.enter(w, j.name, f.State)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if j.left { // ended by a renewal meanwhile
		c.withdraw(hold)
		return nil
	}
	j.hold = hold
	c.recheck(ac)
	return nil
}

// presenter authorizes being present at an address with state, which is called
// field in the frame.
func (c *wsConn) presenter(ac *auth.Context, stated twinrail.Routing, kind twinrail.Kind, state []byte, field string) (auth.Writer, error) {
	w, err := ac.Presenter(stated, kind)
	if err == nil && len(state) > presence.MaxState {
		return auth.Writer{}, twinrail.Errorf(twinrail.CodeTooLarge, field, "more than %d bytes", presence.MaxState)
	}
	return w, inRouting(err)
}

// enter makes the client present where w allows it, for the subscription of the
// given name, and returns its hold on that.
func (c *wsConn) enter(w auth.Writer, name string, state []byte) (hold string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone() {
		// Nobody would have it leave again.
		return "", &twinrail.Error{Code: twinrail.CodeUnavailable}
	}
	s := c.session
	p := presenceOf(s)
	if p == nil {
		// Only the session's holder sets it, with its mu held.
		p = c.server.presence.Session(s.ID())
		s.SetValue(p)
	}
	hold = holdOf(name, w.Address())
	return hold, p.Enter(w, hold, state)
}

// holdOf tells apart what a session holds on to: a name may be given to another
// address later on.
func holdOf(name string, at twinrail.Address) string { return name + " " + at.Key() }

// withdraw gives up a hold on presence, unless another connection has the session
// now or may have it. It is called with mu held.
func (c *wsConn) withdraw(hold string) {
	if hold == "" || c.gone() {
		return
	}
	if p := presenceOf(c.session); p != nil {
		p.Leave(hold)
	}
}

// followPresence appends who came, changed and went, until the client knows all.
func (c *wsConn) followPresence(j *join, out []byte) (_ []byte, parked bool, err error) {
	for len(out) < gatherLimit {
		changes, err := j.watch.Next(presenceBatch)
		switch {
		case c.hasLeft(j):
			return out, true, nil
		case err != nil:
			return out, false, err
		case changes.Empty():
			return out, true, nil
		}
		out = appendWSFrame(out, &twinrail.ServerFrame{
			Op: twinrail.OpPresence, Sub: j.name,
			Join: orEmpty(changes.Join), Update: orEmpty(changes.Update), Leave: orEmpty(changes.Leave),
		})
	}
	return out, false, nil
}

// orEmpty returns members as JSON writes a list that may have nobody in it.
func orEmpty(members []twinrail.PresenceMember) []twinrail.PresenceMember {
	if members == nil {
		return []twinrail.PresenceMember{}
	}
	return members
}

package server

import (
	"slices"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/session"
)

// welcome greets the client in its new session.
func (c *wsConn) welcome() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().UTC()
	c.out = appendWSFrame(c.out, &twinrail.ServerFrame{
		Op: twinrail.OpWelcome, ConnectionID: c.id, SessionID: c.session.ID(), ResumeToken: c.resumeToken(),
		HeartbeatMS: milliseconds(c.server.opts.Heartbeat), ServerTime: &now,
	})
}

// resumeToken returns a token for what the session is now. It is called with mu
// held.
func (c *wsConn) resumeToken() string {
	r := auth.Resume{SessionID: c.session.ID(), Uses: c.session.Uses(), Subs: make([]auth.ResumeSub, len(c.joins))}
	for i, j := range c.joins {
		right := j.right()
		at := right.Address()
		r.Subs[i] = auth.ResumeSub{
			Name: j.name, Kind: at.Home.Kind, Routing: at.Routing(), Channels: right.Channels(), Present: j.hold != "",
		}
	}
	return c.server.opts.Gate.SealResume(c.context(), r)
}

// TakenOver implements [session.Holder].
func (c *wsConn) TakenOver() {
	c.mu.Lock()
	c.taken = true
	c.mu.Unlock()
	c.fail(&twinrail.Error{Code: twinrail.CodeSessionTakenOver})
}

// gone reports whether the session is not the connection's to change any more:
// another one has it, or this one ends. It is called with mu held.
func (c *wsConn) gone() bool { return c.taken || c.left || c.link.ended.Load() }

// leaveSession says what becomes of the session when the connection ends. It is
// called with mu held, so that who takes the session over is heard before or
// after all of it. A second call does nothing: the session may have another
// holder by then.
func (c *wsConn) leaveSession() {
	if c.taken || c.left {
		return
	}
	c.left = true
	switch {
	case c.ending != nil && c.ending.forGood():
		c.session.End(c)
	default:
		if p := presenceOf(c.session); p != nil {
			p.Lose()
		}
		c.lose(c.session)
	}
}

// lose has s wait for another connection, unless the credential is revoked: a
// sweep that came just before has not found it among those that wait.
func (c *wsConn) lose(s *session.Session) {
	whose := c.context().Principal()
	s.Lose(c, whose)
	if revoked := c.server.opts.Gate.Revoked; revoked(whose) {
		id := whose.Identity()
		c.server.sessions.EndLost(id.TenantID, id.Env, revoked)
	}
}

// forGood reports whether the client does not come back: it said so, by closing
// with no code or one that means it, or the server has told it to stop.
func (e *wsEnding) forGood() bool {
	if e.echo {
		return e.close == 0 || e.close == 1000 || e.close == 1001
	}
	return twinrail.CloseAction(e.close) == twinrail.ActionStop
}

// resume answers a resume frame: it takes the session over that the token names,
// and opens its subscriptions again, at the cursors that the client gives.
func (c *wsConn) resume(f *clientFrame) error {
	ac := c.context()
	what, err := c.claim(ac, f)
	c.server.metrics.resumed(err)
	if err != nil {
		return err
	}
	joins, said := c.reopen(ac, what.Subs(), f.Cursors)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, o := range joins {
		if !c.takeIn(o.join) {
			for _, rest := range joins[i+1:] {
				rest.close()
			}
			return nil
		}
	}
	c.out = appendWSFrame(c.out, &twinrail.ServerFrame{
		Op: twinrail.OpResumed, Ref: f.Ref, SessionID: c.session.ID(), Subs: said, ResumeToken: c.resumeToken(),
	})
	for _, o := range joins {
		c.appendFirstReset(o)
	}
	c.recheck(ac)
	return nil
}

// claim takes the session over that the frame's token names, in the place of the
// one that the connection began with.
func (c *wsConn) claim(ac *auth.Context, f *clientFrame) (auth.Resumption, error) {
	what, err := c.checkResume(ac, f)
	if err != nil {
		return what, err
	}
	if err := c.takeJoins(ac, len(what.Subs())); err != nil {
		return what, err
	}
	claimed, err := c.server.sessions.Claim(what, c)
	if err != nil {
		return what, err
	}
	c.mu.Lock()
	was := c.session
	c.session = claimed
	switch {
	case c.taken:
		// Another connection has the one before, and this one was told to stop.
		c.lose(claimed)
	case c.gone():
		// The session before may have been left already.
		c.left = false
		c.leaveSession()
	}
	c.mu.Unlock()
	if was != claimed {
		was.End(c)
	}
	return what, nil
}

// checkResume checks all that can be before the token is used up.
func (c *wsConn) checkResume(ac *auth.Context, f *clientFrame) (auth.Resumption, error) {
	c.mu.Lock()
	joined := len(c.joins)
	c.mu.Unlock()
	if joined > 0 {
		return auth.Resumption{}, twinrail.Errorf(twinrail.CodeBadRequest, "op", "resume comes in place of joins")
	}
	what, err := c.server.opts.Gate.OpenResume(ac, f.ResumeToken)
	if err != nil {
		return what, err
	}
	subs := what.Subs()
	known := make(map[string]bool, len(subs))
	for i := range subs {
		sub := &subs[i]
		known[sub.Name] = true
		if sub.Channels != twinrail.ChannelsOf(twinrail.Presence) && f.Cursors[sub.Name] == "" {
			return what, twinrail.Errorf(twinrail.CodeBadRequest, "cursors."+sub.Name, "each subscription with events needs its cursor")
		}
	}
	for name := range f.Cursors {
		if !known[name] {
			return what, twinrail.Errorf(twinrail.CodeBadRequest, "cursors", "one is for a subscription that the token does not have")
		}
	}
	return what, nil
}

// reopen opens the subscriptions again, with the rights that the credential of
// this connection gives. Of one that cannot be opened it is said why.
func (c *wsConn) reopen(ac *auth.Context, subs []auth.ResumeSub, cursors map[string]string) (joins []opened, said []twinrail.Subscription) {
	holds := c.regain(ac, subs)
	said = make([]twinrail.Subscription, len(subs))
	room := presenceBatch // for those present, of all in one frame
	for i := range subs {
		sub := &subs[i]
		o, err := opened{}, error(nil)
		reader, err := ac.Reader(sub.Routing, sub.Kind, sub.Channels)
		if err == nil {
			o, err = c.open(sub.Name, reader, cursors[sub.Name], room)
		}
		if err != nil {
			e := asError(err)
			c.server.logFailure(c.server.engine.ctx, c.requestID(), e, err)
			c.mu.Lock()
			c.withdraw(holds[sub.Name])
			c.mu.Unlock()
			said[i] = twinrail.Subscription{Sub: sub.Name, Code: e.Code, Detail: detail(e)}
			continue
		}
		o.hold = holds[sub.Name]
		room = max(0, room-len(o.members))
		joins = append(joins, o)
		said[i] = o.describe()
	}
	return joins, said
}

// regain makes the client present again where it was, as far as its credential
// still allows that, and returns its holds by the names of subscriptions. State
// that a restart of the server has lost is for the client to say again.
func (c *wsConn) regain(ac *auth.Context, subs []auth.ResumeSub) map[string]string {
	p := presenceOf(c.session)
	holds := make(map[string]string)
	var kept []string
	for i := range subs {
		sub := &subs[i]
		w, err := ac.Presenter(sub.Routing, sub.Kind)
		if err != nil {
			continue
		}
		hold := holdOf(sub.Name, w.Address())
		if p != nil && p.Holds(hold) {
			holds[sub.Name] = hold
			kept = append(kept, hold)
		}
	}
	c.mu.Lock()
	if p != nil && !c.gone() {
		p.Regain(kept)
	}
	c.mu.Unlock()
	for i := range subs {
		sub := &subs[i]
		if !sub.Present || holds[sub.Name] != "" {
			continue
		}
		w, err := ac.Presenter(sub.Routing, sub.Kind)
		if err != nil {
			continue
		}
		if hold, err := c.enter(w, sub.Name, nil); err == nil {
			holds[sub.Name] = hold
		}
	}
	return holds
}

// renewBy answers an auth frame.
func (c *wsConn) renewBy(f *clientFrame) error {
	renewed, err := c.server.renew(c, func(was *auth.Context) (*auth.Context, error) {
		return c.server.opts.Gate.Renew(c.server.engine.ctx, was, f.Token)
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The earlier tokens are void once the earlier credential is revoked.
	c.out = appendWSFrame(c.out, &twinrail.ServerFrame{
		Op: twinrail.OpAuthed, Ref: f.Ref, ExpiresAt: &renewed.ExpiresAt, ResumeToken: c.resumeToken(),
	})
	return nil
}

// renew implements [connection].
func (c *wsConn) renew(was, ac *auth.Context) bool {
	c.mu.Lock()
	renewed := c.auth.CompareAndSwap(was, ac)
	if renewed {
		c.recheck(was)
	}
	c.mu.Unlock()
	c.link.kick()
	return renewed
}

// recheck ends what the credential gives no right to. It is called with mu held,
// after something was opened under the context was, which may have been renewed
// meanwhile.
func (c *wsConn) recheck(was *auth.Context) {
	ac := c.context()
	if ac == was {
		return
	}
	for _, j := range slices.Clone(c.joins) {
		if err := ac.Allows(j.right()); err != nil {
			e := asError(err)
			c.drop(j)
			c.out = appendWSFrame(c.out, &twinrail.ServerFrame{
				Op: twinrail.OpError, Sub: j.name, Code: e.Code, Field: e.Field, Detail: detail(e),
				Retry: e.Code.Info().Retry, RequestID: c.requestID(),
			})
			c.out = appendWSFrame(c.out, &twinrail.ServerFrame{Op: twinrail.OpLeft, Sub: j.name, ResumeToken: c.resumeToken()})
			continue
		}
		at := j.right().Address()
		if _, err := ac.Presenter(at.Routing(), at.Home.Kind); err != nil {
			c.withdraw(j.hold)
			j.hold = ""
		}
	}
}

var _ session.Holder = (*wsConn)(nil)

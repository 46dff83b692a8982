package server

import (
	"slices"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/presence"
)

// join is one subscription of a connection: to the events of a stream, to who is
// present there, or to both.
type join struct {
	name   string
	reader *auth.Reader    // nil where sub has it
	sub    *hub.Sub        // nil where presence is all that was asked for
	watch  *presence.Watch // nil where presence was not asked for
	prefix []byte          // of its event frames
	live   bool            // owned by gather
	head   twinrail.Cursor // of the stream at the start, where sub is nil

	hold  string // on the client's presence there, or ""; guarded by wsConn.mu
	ready bool   // in wsConn.ready; guarded by wsConn.mu
	left  bool   // guarded by wsConn.mu
}

func (j *join) right() auth.Reader {
	if j.sub != nil {
		return j.sub.Reader()
	}
	return *j.reader
}

func (j *join) close() {
	if j.sub != nil {
		j.sub.Close()
	}
	if j.watch != nil {
		j.watch.Close()
	}
}

// appendLive tells, once, that the backlog is done.
func (j *join) appendLive(out []byte) []byte {
	if j.live {
		return out
	}
	j.live = true
	at := j.head
	if j.sub != nil {
		at = j.sub.Cursor()
	}
	return appendWSFrame(out, &twinrail.ServerFrame{Op: twinrail.OpLive, Sub: j.name, Cursor: at.String()})
}

// opened is a join that does not deliver yet, and what its client is told first.
type opened struct {
	*join
	start   hub.Start
	members []twinrail.PresenceMember // the first; nil where presence was not asked for
}

// join opens a subscription.
func (c *wsConn) join(f *clientFrame) error {
	if !twinrail.ValidEventID(f.Sub) || len(f.Sub) > maxRef {
		return twinrail.Errorf(twinrail.CodeBadRequest, "sub", "must be 1 to %d of A-Z a-z 0-9 . _ : -", maxRef)
	}
	if err := c.mayJoin(f.Sub); err != nil {
		return err
	}
	ac := c.context()
	var stated twinrail.Routing
	if f.Routing != nil {
		stated = *f.Routing
	}
	kind, reader, err := joinReader(ac, stated, f.Channels)
	if err != nil {
		return err
	}
	var w auth.Writer
	if f.Presence != nil {
		if w, err = c.presenter(ac, stated, kind, f.Presence, "presence"); err != nil {
			return err
		}
	}
	if err := c.takeJoins(ac, 1); err != nil {
		return err
	}
	hold := ""
	if f.Presence != nil {
		if hold, err = c.enter(w, f.Sub, f.Presence); err != nil {
			return err
		}
	}
	o, err := c.open(f.Sub, reader, f.After, presenceBatch)
	if err != nil {
		c.mu.Lock()
		c.withdraw(hold)
		c.mu.Unlock()
		return err
	}
	o.hold = hold
	c.addJoin(o, f.Ref, ac)
	return nil
}

// mayJoin is asked before anything is looked up. Frames are handled one at a
// time, so that the answer still holds when the join is added.
func (c *wsConn) mayJoin(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.joinAt(name) >= 0 {
		return twinrail.Errorf(twinrail.CodeBadRequest, "sub", "is in use on this connection")
	}
	return nil
}

// joinAt returns where the join of that name is in joins, or -1. It is called with
// mu held.
func (c *wsConn) joinAt(name string) int {
	return slices.IndexFunc(c.joins, func(j *join) bool { return j.name == name })
}

// joinReader authorizes what a join asks to read. Without channels it is what
// the grants cover of a thread's chat and tool.
func joinReader(ac *auth.Context, stated twinrail.Routing, channels []twinrail.Channel) (twinrail.Kind, auth.Reader, error) {
	if len(channels) == 0 {
		r, err := ac.ReaderOfAny(stated, twinrail.ThreadStream, twinrail.ChannelsOf(twinrail.Chat, twinrail.Tool))
		return twinrail.ThreadStream, r, inRouting(err)
	}
	kind := twinrail.ThreadStream
	for _, ch := range channels {
		switch {
		case !ch.Valid():
			return 0, auth.Reader{}, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "must be of chat, tool and presence")
		case ch.Rail() != twinrail.RailWS:
			return 0, auth.Reader{}, twinrail.Errorf(twinrail.CodeWrongRail, "channels", "%s is carried by the SSE rail", ch)
		}
	}
	want := twinrail.ChannelsOf(channels...)
	if want == twinrail.ChannelsOf(twinrail.Presence) && (stated.CanvasID != "" || ac.Routing().CanvasID != "") {
		kind = twinrail.CanvasStream // of which there is only presence here
	}
	r, err := ac.Reader(stated, kind, want)
	return kind, r, inRouting(err)
}

// open subscribes to what r may read. Of those present it is told at once, beside
// the client itself, of most at most.
func (c *wsConn) open(name string, r auth.Reader, after string, most int) (o opened, err error) {
	ctx := c.server.engine.ctx
	j := &join{name: name, prefix: wsEventPrefix(name)}
	o.join = j
	wake := func() { c.wakeJoin(j) }
	if r.Channels() == twinrail.ChannelsOf(twinrail.Presence) {
		j.reader = &r
		bounds, err := c.server.opts.Journal.Bounds(ctx, r)
		if err != nil {
			return o, err
		}
		j.head = bounds.Head
		o.start = hub.Start{Cursor: bounds.Head, Head: bounds.Head}
	} else if j.sub, o.start, err = c.server.hub.Subscribe(ctx, r, c.server.from(c.context(), after), wake); err != nil {
		return o, err
	}
	if r.Channels().Has(twinrail.Presence) {
		var there []twinrail.PresenceMember
		j.watch, there = c.server.presence.Watch(r, wake, c.session.ID(), most)
		o.members = orEmpty(there)
	}
	return o, nil
}

// addJoin answers, and only then lets the join deliver.
func (c *wsConn) addJoin(o opened, ref string, ac *auth.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.takeIn(o.join) {
		return
	}
	said := o.describe()
	c.out = appendWSFrame(c.out, &twinrail.ServerFrame{
		Op: twinrail.OpJoined, Ref: ref, Sub: said.Sub, Cursor: said.Cursor, Head: said.Head,
		Resumed: &said.Resumed, Reason: said.Reason, Members: said.Members, ResumeToken: c.resumeToken(),
	})
	c.appendFirstReset(o)
	c.recheck(ac)
}

// takeIn adds j, unless the connection has ended. It is called with mu held.
func (c *wsConn) takeIn(j *join) bool {
	if c.link.ended.Load() {
		j.close()
		return false
	}
	c.joins = append(c.joins, j)
	c.markReady(j)
	c.server.metrics.subs.Inc()
	return true
}

// describe returns what joined, or resumed, says of the subscription.
func (o *opened) describe() twinrail.Subscription {
	s := twinrail.Subscription{
		Sub: o.name, Cursor: o.start.Cursor.String(), Head: o.start.Head.String(), Resumed: o.start.Resumed, Members: o.members,
	}
	if o.start.Reset != nil {
		s.Reason = o.start.Reset.Reason
	}
	return s
}

// appendFirstReset is called with mu held.
func (c *wsConn) appendFirstReset(o opened) {
	if o.start.Reset != nil {
		c.out = c.appendReset(c.out, o.name, o.start.Reset)
	}
}

// leave ends a subscription, and with it the client's presence there.
func (c *wsConn) leave(f *clientFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.joinAt(f.Sub)
	if i < 0 {
		return errNoSub
	}
	c.drop(c.joins[i])
	c.out = appendWSFrame(c.out, &twinrail.ServerFrame{Op: twinrail.OpLeft, Ref: f.Ref, Sub: f.Sub, ResumeToken: c.resumeToken()})
	return nil
}

var errNoSub = twinrail.Errorf(twinrail.CodeBadRequest, "sub", "is not in use on this connection")

// drop takes j out. It is called with mu held.
func (c *wsConn) drop(j *join) {
	c.joins = slices.DeleteFunc(c.joins, func(o *join) bool { return o == j })
	// It must not be told to be live after this.
	c.ready = slices.DeleteFunc(c.ready, func(o *join) bool { return o == j })
	j.left = true
	j.close()
	c.withdraw(j.hold)
	c.server.metrics.subs.Dec()
}

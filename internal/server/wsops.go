package server

import (
	"slices"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/hub"
)

const maxRef = 64

// handle answers one frame of the client. An error ends the connection; what
// only the frame itself suffers from is answered with an error frame.
func (c *wsConn) handle(message []byte) error {
	var f clientFrame
	if err := decode(message, &f, twinrail.CodeBadFrame); err != nil {
		return err
	}
	if len(f.Ref) > maxRef {
		return twinrail.Errorf(twinrail.CodeBadFrame, "ref", "more than %d bytes", maxRef)
	}
	if err := f.checkMembers(); err != nil {
		return err
	}
	c.owe(f.Op == twinrail.OpPublish)
	if err := c.dispatch(&f); err != nil {
		e := asError(err)
		c.server.metrics.failed(e.Code)
		c.server.logFailure(c.server.engine.ctx, c.auth.RequestID(), e, err)
		c.say(&twinrail.ServerFrame{
			Op: twinrail.OpError, Ref: f.Ref, Sub: f.Sub, Code: e.Code, Field: e.Field, Detail: detail(e),
			Retry: e.Code.Info().Retry, RetryAfterMS: milliseconds(e.RetryAfter), RequestID: c.auth.RequestID(),
		})
	}
	c.owe(false)
	c.link.kickNow()
	return nil
}

// owe says whether an answer is on its way that a drain waits for.
func (c *wsConn) owe(owing bool) {
	c.mu.Lock()
	c.owing = owing
	c.mu.Unlock()
}

// checkMembers refuses an op that there is not, and members that it does not
// take.
func (f *clientFrame) checkMembers() error {
	var sub, join, publish bool
	switch f.Op {
	case twinrail.OpJoin:
		sub, join = true, true
	case twinrail.OpLeave:
		sub = true
	case twinrail.OpPublish:
		publish = true
	case twinrail.OpPing, twinrail.OpPong:
	default:
		return twinrail.Errorf(twinrail.CodeBadFrame, "op", "must be join, leave, publish, ping or pong")
	}
	given := []struct {
		name       string
		has, takes bool
	}{
		{"sub", f.Sub != "", sub},
		{"routing", f.Routing != nil, join},
		{"channels", f.Channels != nil, join},
		{"after", f.After != "", join},
		{"events", f.Events != nil, publish},
		{"expected_seq", f.ExpectedSeq != nil, publish},
	}
	for _, member := range given {
		if member.has && !member.takes {
			return twinrail.Errorf(twinrail.CodeBadFrame, member.name, "%s does not take it", f.Op)
		}
	}
	return nil
}

func (c *wsConn) dispatch(f *clientFrame) error {
	switch f.Op {
	case twinrail.OpJoin:
		return c.join(f)
	case twinrail.OpLeave:
		return c.leave(f)
	case twinrail.OpPublish:
		return c.publish(f)
	case twinrail.OpPing:
		c.say(&twinrail.ServerFrame{Op: twinrail.OpPong, Ref: f.Ref})
	}
	return nil // a pong was heard, which is all it is for
}

// publish stores events, and answers when they are durable. Until then no other
// frame of the connection is read.
func (c *wsConn) publish(f *clientFrame) error {
	done, ok := c.server.accept()
	if !ok {
		return &twinrail.Error{Code: twinrail.CodeDraining}
	}
	defer done()
	results, err := c.server.publish(c.server.engine.ctx, c.auth, &f.publishBody, twinrail.RailWS)
	if err != nil {
		return err
	}
	c.say(&twinrail.ServerFrame{Op: twinrail.OpAck, Ref: f.Ref, Results: results})
	return nil
}

// join opens a subscription.
func (c *wsConn) join(f *clientFrame) error {
	if !twinrail.ValidEventID(f.Sub) || len(f.Sub) > maxRef {
		return twinrail.Errorf(twinrail.CodeBadRequest, "sub", "must be 1 to %d of A-Z a-z 0-9 . _ : -", maxRef)
	}
	if err := c.mayJoin(f.Sub); err != nil {
		return err
	}
	reader, err := c.joinReader(f)
	if err != nil {
		return err
	}
	j := &join{name: f.Sub, prefix: wsEventPrefix(f.Sub)}
	sub, start, err := c.server.hub.Subscribe(c.server.engine.ctx, reader, hub.From{Cursor: f.After}, func() { c.wakeJoin(j) })
	if err != nil {
		return err
	}
	j.sub = sub
	c.addJoin(j, f.Ref, start)
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
	if limit := c.server.opts.MaxJoins; len(c.joins) >= limit {
		return twinrail.Errorf(twinrail.CodeLimitExceeded, "joins", "a connection holds at most %d", limit)
	}
	return nil
}

// joinAt returns where the join of that name is in joins, or -1. It is called with
// mu held.
func (c *wsConn) joinAt(name string) int {
	return slices.IndexFunc(c.joins, func(j *join) bool { return j.name == name })
}

// joinReader authorizes what a join asks to read. Without channels it is what
// the grants cover of chat and tool.
func (c *wsConn) joinReader(f *clientFrame) (auth.Reader, error) {
	var stated twinrail.Routing
	if f.Routing != nil {
		stated = *f.Routing
	}
	want := twinrail.ChannelsOf(twinrail.Chat, twinrail.Tool)
	if len(f.Channels) == 0 {
		r, err := c.auth.ReaderOfAny(stated, twinrail.ThreadStream, want)
		return r, inRouting(err)
	}
	want = twinrail.ChannelsOf(f.Channels...)
	for _, ch := range f.Channels {
		switch {
		case !ch.Valid():
			return auth.Reader{}, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "must be chat and tool")
		case ch.Rail() != twinrail.RailWS:
			return auth.Reader{}, twinrail.Errorf(twinrail.CodeWrongRail, "channels", "%s is carried by the SSE rail", ch)
		case ch == twinrail.Presence:
			return auth.Reader{}, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "this server carries no presence")
		}
	}
	r, err := c.auth.Reader(stated, twinrail.ThreadStream, want)
	return r, inRouting(err)
}

// addJoin answers, and only then lets the join deliver.
func (c *wsConn) addJoin(j *join, ref string, start hub.Start) {
	joined := &twinrail.ServerFrame{
		Op: twinrail.OpJoined, Ref: ref, Sub: j.name,
		Cursor: start.Cursor.String(), Head: start.Head.String(), Resumed: &start.Resumed,
	}
	if start.Reset != nil {
		joined.Reason = start.Reset.Reason
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.ended.Load() {
		j.sub.Close()
		return
	}
	c.out = appendWSFrame(c.out, joined)
	if start.Reset != nil {
		c.out = c.appendReset(c.out, j.name, start.Reset)
	}
	c.joins = append(c.joins, j)
	c.markReady(j)
	c.server.metrics.subs.Inc()
}

// leave ends a subscription.
func (c *wsConn) leave(f *clientFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.joinAt(f.Sub)
	if i < 0 {
		return twinrail.Errorf(twinrail.CodeBadRequest, "sub", "is not in use on this connection")
	}
	j := c.joins[i]
	c.joins = slices.Delete(c.joins, i, i+1)
	j.left = true
	j.sub.Close()
	c.server.metrics.subs.Dec()
	c.out = appendWSFrame(c.out, &twinrail.ServerFrame{Op: twinrail.OpLeft, Ref: f.Ref, Sub: f.Sub})
	return nil
}

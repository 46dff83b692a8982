package server

import (
	"slices"
	"strings"

	"github.com/twinrail/twinrail"
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
		c.server.logFailure(c.server.engine.ctx, c.requestID(), e, err)
		c.say(&twinrail.ServerFrame{
			Op: twinrail.OpError, Ref: f.Ref, Sub: f.Sub, Code: e.Code, Field: e.Field, Detail: detail(e),
			Retry: e.Code.Info().Retry, RetryAfterMS: milliseconds(e.RetryAfter), RequestID: c.requestID(),
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
	given := []struct {
		name string
		has  bool
		ops  string // that take it
	}{
		{"sub", f.Sub != "", "join leave presence"},
		{"routing", f.Routing != nil, "join"},
		{"channels", f.Channels != nil, "join"},
		{"after", f.After != "", "join"},
		{"presence", f.Presence != nil, "join"},
		{"events", f.Events != nil, "publish"},
		{"expected_seq", f.ExpectedSeq != nil, "publish"},
		{"state", f.State != nil, "presence"},
		{"resume_token", f.ResumeToken != "", "resume"},
		{"cursors", f.Cursors != nil, "resume"},
		{"token", f.Token != "", "auth"},
	}
	switch f.Op {
	case twinrail.OpJoin, twinrail.OpLeave, twinrail.OpPublish, twinrail.OpPresence, twinrail.OpResume,
		twinrail.OpAuth, twinrail.OpPing, twinrail.OpPong:
	default:
		return twinrail.Errorf(twinrail.CodeBadFrame, "op", "must be join, leave, publish, presence, resume, auth, ping or pong")
	}
	for _, member := range given {
		if member.has && !slices.Contains(strings.Fields(member.ops), f.Op) {
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
	case twinrail.OpPresence:
		return c.present(f)
	case twinrail.OpResume:
		return c.resume(f)
	case twinrail.OpAuth:
		return c.renewBy(f)
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
	results, err := c.server.publishAny(c.server.engine.ctx, c.context(), &f.publishBody, twinrail.RailWS)
	if err != nil {
		return err
	}
	c.say(&twinrail.ServerFrame{Op: twinrail.OpAck, Ref: f.Ref, Results: results})
	return nil
}

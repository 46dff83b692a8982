package probe

import (
	"context"
	"fmt"

	"github.com/twinrail/twinrail"
)

// held is what a client keeps of a connection that was cut.
type held struct {
	token   string
	cursors map[string]string
}

// wsResume: what was published while the connections were cut, with the resume
// token; and with the resume tokens of others, and those that are used or altered.
func wsResume(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.ThreadStream, "chat:read", "tool:read")
	if err != nil {
		return err
	}
	kept := make(map[*party]*held)
	for _, p := range s.readers() {
		if kept[p], err = p.cutOff(ctx); err != nil {
			return err
		}
	}
	own := make(map[*party]*secret)
	for _, p := range []*party{s.right, s.wrong} {
		own[p] = w.eventFor(p, twinrail.Chat)
		if _, err := w.publish(ctx, p, own[p]); err != nil {
			return err
		}
	}
	for _, p := range s.readers() {
		barrier := w.eventAt(s, p, twinrail.Chat)
		if _, err := w.publish(ctx, p, barrier); err != nil {
			return err
		}
		b, err := p.comeBack(ctx, kept[p])
		if err != nil {
			return fmt.Errorf("%s resumes: %w", p.name, err)
		}
		switch {
		case b.void != "":
			return fmt.Errorf("%s resumes, and its cursor is void: %s", p.name, b.void)
		case own[p] != nil && !b.has(own[p].text):
			return fmt.Errorf("%s did not receive its own", p.name)
		case !b.has(barrier.text):
			return fmt.Errorf("the barrier did not come to %s", p.name)
		}
	}
	if err := w.resumeOnce(ctx, s.right); err != nil {
		return err
	}
	if err := w.foreignTokens(ctx, s); err != nil {
		return err
	}
	if s.sameHome() {
		return nil
	}
	return w.foreignCursors(s.wrong, kept[s.right].cursors["s"], func(p *party, after string) (*backlog, error) {
		h, err := p.cutOff(ctx)
		if err != nil {
			return nil, err
		}
		h.cursors["s"] = after
		return p.comeBack(ctx, h)
	})
}

// cutOff joins as "s", has one event of its stream behind it, and is cut off.
func (p *party) cutOff(ctx context.Context) (*held, error) {
	w := p.w
	c, _, err := p.mustJoin(ctx, "", twinrail.Chat, twinrail.Tool)
	if err != nil {
		return nil, err
	}
	e := w.canary("what "+p.name+" had before the cut", w.parties...).event(twinrail.Chat, homeOf(p.routing, twinrail.ThreadStream))
	results, err := w.publish(ctx, p, e)
	if err != nil {
		return nil, err
	}
	if _, err := c.await(e.text); err != nil {
		return nil, err
	}
	return &held{c.resumeToken, map[string]string{"s": results[0].Cursor}}, c.Close()
}

// resuming is the frame of a client that comes back.
func (h *held) resuming() twinrail.ClientFrame {
	return twinrail.ClientFrame{Op: twinrail.OpResume, ResumeToken: h.token, Cursors: h.cursors}
}

// madeUp returns h with a token that never was one.
func (h *held) madeUp() *held { return &held{"r1." + random(), h.cursors} }

// comeBack resumes, and returns what was missed.
func (p *party) comeBack(ctx context.Context, h *held) (*backlog, error) {
	_, b, err := p.resume(ctx, h)
	return b, err
}

// resume is comeBack, and returns the connection too.
func (p *party) resume(ctx context.Context, h *held) (*conn, *backlog, error) {
	c, err := p.mustDial(ctx)
	if err != nil {
		return nil, nil, err
	}
	resumed, err := c.must(h.resuming())
	if err != nil {
		return nil, nil, err
	}
	if len(resumed.Subs) != 1 || resumed.Subs[0].Code != "" {
		return nil, nil, fmt.Errorf("not resumed: %+v", resumed.Subs)
	}
	_, err = c.until(twinrail.OpLive)
	return c, c.backlog("s", resumed.Subs[0].Reason), err
}

// resumeOnce has p resume with a token that it has altered, which must be refused
// like one that never was, and not use the token up; then with the token; and then
// with that once more, which must be refused, and leave the session to where it is.
func (w *world) resumeOnce(ctx context.Context, p *party) error {
	h, err := p.cutOff(ctx)
	if err != nil {
		return err
	}
	other, err := p.mustDial(ctx)
	if err != nil {
		return err
	}
	forged := &held{altered(h.token), h.cursors}
	got, err := other.ask(forged.resuming())
	if err != nil {
		return err
	}
	absent, err := other.ask(h.madeUp().resuming())
	if err != nil {
		return err
	}
	err = w.refused(p.name+" resumes with a token that was altered", got.asAnswer(), absent.asAnswer(), twinrail.CodeResumeInvalid)
	if err != nil || len(w.leaks) > 0 {
		return err // the session is taken
	}
	c, _, err := p.resume(ctx, h)
	if err != nil {
		return fmt.Errorf("%s resumes: %w", p.name, err)
	}
	if got, err = other.ask(h.resuming()); err != nil {
		return err
	}
	err = w.refused(p.name+" resumes with a token that was used", got.asAnswer(), nil, twinrail.CodeResumeUsed)
	if err != nil || len(w.leaks) > 0 {
		return err
	}
	_, err = c.must(twinrail.ClientFrame{Op: twinrail.OpPing})
	return err
}

// foreignTokens has the wrong one resume with the token of the right one. Where a
// credential settles the key, it must be refused like a token that never was one,
// and not be used up by that. Else it is the same actor with another grant: the
// session is its own, and the subscription must not be.
func (w *world) foreignTokens(ctx context.Context, s *scene) error {
	if !w.own() && !s.wrong.exact {
		w.note("a resumed session with another grant: needs signing keys")
		return nil
	}
	h, err := s.right.cutOff(ctx)
	if err != nil {
		return err
	}
	missed := w.eventFor(s.right, twinrail.Chat)
	if _, err := w.publish(ctx, s.right, missed); err != nil {
		return err
	}
	c, err := s.wrong.mustDial(ctx)
	if err != nil {
		return err
	}
	absent, err := c.ask(h.madeUp().resuming())
	if err != nil {
		return err
	}
	got, err := c.ask(h.resuming())
	if err != nil {
		return err
	}
	if w.own() {
		what := s.wrong.name + " resumes with the right one's token"
		if err := w.refused(what, got.asAnswer(), absent.asAnswer(), twinrail.CodeResumeInvalid); err != nil {
			return err
		}
		b, err := s.right.comeBack(ctx, h)
		if err != nil || !b.has(missed.text) {
			w.leak("%s, and the right one cannot any more: %v", what, err)
			return nil
		}
		if got, err = c.ask(h.resuming()); err != nil {
			return err
		}
		return w.refused(what+", which was used", got.asAnswer(), absent.asAnswer(), twinrail.CodeResumeInvalid)
	}
	if got.Op != twinrail.OpResumed || len(got.Subs) != 1 {
		return fmt.Errorf("the same actor cannot resume with another grant: %s %s", got.Op, got.Code)
	}
	if sub := got.Subs[0]; sub.Code != twinrail.CodeNotFound || sub.Head != "" || sub.Cursor != "" {
		w.leak("%s resumes the right one's subscription: code %q, head %q", s.wrong.name, sub.Code, sub.Head)
	}
	_, err = c.must(twinrail.ClientFrame{Op: twinrail.OpPing})
	return err
}

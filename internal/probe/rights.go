package probe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/twinrail/twinrail"
)

// partial returns somebody at the right one's address who may do no more there
// than that. It is nil where such a token cannot be had.
func (w *world) partial(s *scene, name string, can ...string) (*party, error) {
	if w.own() {
		return nil, nil // what is granted is not what tells the two apart
	}
	if !s.right.exact {
		w.note("that one right is not another: needs signing keys")
		return nil, nil
	}
	return w.party(name, s.right.routing, can...)
}

// channelPair is two channels of a stream, of which somebody may read the first
// alone: what is on the second must not come, and cannot be asked for.
type channelPair struct{ first, second twinrail.Channel }

var (
	canvasPair = channelPair{twinrail.Commit, twinrail.Artifact}
	threadPair = channelPair{twinrail.Chat, twinrail.Tool}
)

// reader returns who may read the first channel alone.
func (c channelPair) reader(w *world, s *scene) (*party, error) {
	return w.partial(s, "who may read "+string(c.first)+" alone", string(c.first)+":read")
}

// publish publishes on the second channel, and then, for p too, on the first. It
// returns what is the barrier.
func (c channelPair) publish(ctx context.Context, s *scene, p *party) (*secret, error) {
	w := p.w
	hidden, barrier := w.eventFor(s.right, c.second), w.eventFor(s.right, c.first)
	barrier.readers = append(barrier.readers, p)
	if _, err := w.publish(ctx, s.right, hidden); err != nil {
		return nil, err
	}
	_, err := w.publish(ctx, s.right, barrier)
	return barrier, err
}

// live has one who may read one of the two channels follow all that it may.
func (c channelPair) live(ctx context.Context, w *world, s *scene, follow func(*party) (follower, error)) error {
	p, err := c.reader(w, s)
	if p == nil {
		return err
	}
	f, err := follow(p)
	if err != nil {
		return fmt.Errorf("%s cannot follow: %w", p.name, err)
	}
	barrier, err := c.publish(ctx, s, p)
	if err != nil {
		return err
	}
	if _, err := f.await(barrier.text); err != nil {
		return fmt.Errorf("the barrier did not come to %s: %w", p.name, err)
	}
	return nil
}

// replay is live for what was published before, read from where p came in. Ask
// asks for the second channel.
func (c channelPair) replay(ctx context.Context, w *world, s *scene, read catchUp, ask func(*party) (*answer, error)) error {
	p, err := c.reader(w, s)
	if p == nil {
		return err
	}
	results, err := w.publish(ctx, s.right, w.eventFor(s.right, c.first))
	if err != nil {
		return err
	}
	barrier, err := c.publish(ctx, s, p)
	if err != nil {
		return err
	}
	b, err := read(p, results[0].Cursor)
	if err != nil || !b.has(barrier.text) {
		return errors.Join(err, fmt.Errorf("the barrier did not come to %s", p.name))
	}
	got, err := ask(p)
	if err != nil {
		return err
	}
	return w.refused(p.name+" asks for "+string(c.second), got, nil, twinrail.CodeNotFound)
}

// readOnly has somebody publish at the right one's address who may only read
// there. It is to be answered as where there is nothing.
func (w *world) readOnly(s *scene, channel twinrail.Channel, publish send) error {
	p, err := w.partial(s, "who may only read", string(channel)+":read")
	if p == nil {
		return err
	}
	empty := p.at()
	empty.CanvasID, empty.ThreadID = w.fresh(), w.fresh()
	got, err := publish(p, p.at(), w.attempt(p, p.at(), channel))
	if err != nil {
		return err
	}
	absent, err := publish(p, empty, w.attempt(p, empty, channel))
	if err != nil {
		return err
	}
	return w.refused(p.name+" publishes", got, absent, twinrail.CodeNotFound)
}

// writeOnly has somebody ask for what is at the right one's address who may only
// write there.
func (w *world) writeOnly(s *scene, channel twinrail.Channel, ask func(*party) (*answer, error)) error {
	p, err := w.partial(s, "who may only write", string(channel)+":write")
	if p == nil {
		return err
	}
	got, err := ask(p)
	if err != nil {
		return err
	}
	return w.refused(p.name+" reads", got, nil, twinrail.CodeNotFound)
}

// lookOnly has somebody be present at the right one's address who may only see
// who is there: as it joins, and afterwards.
func (w *world) lookOnly(ctx context.Context, s *scene) error {
	can := []string{"presence:read"}
	if s.kind == twinrail.ThreadStream {
		can = append(can, "chat:read")
	}
	p, err := w.partial(s, "who may look and not be there", can...)
	if p == nil {
		return err
	}
	c, err := p.mustDial(ctx)
	if err != nil {
		return err
	}
	state := w.canary("the state of "+p.name, p)
	got, err := c.ask(watching("present", s.kind, p.at(), state))
	if err != nil {
		return err
	}
	if err := w.refused(p.name+" joins with a state", got.asAnswer(), nil, twinrail.CodeNotFound); err != nil {
		return err
	}
	if _, err := c.must(watching("s", s.kind, p.at(), nil)); err != nil {
		return fmt.Errorf("%s cannot look: %w", p.name, err)
	}
	if err := c.say(twinrail.ClientFrame{Op: twinrail.OpPresence, Ref: "state", Sub: "s", State: state.json()}); err != nil {
		return err
	}
	if _, err := c.must(twinrail.ClientFrame{Op: twinrail.OpPing}); err != nil {
		return err
	}
	if !slices.ContainsFunc(c.pending, func(f frame) bool { return f.Ref == "state" && f.Code == twinrail.CodeNotFound }) {
		w.leak("%s says a state, and is not refused", p.name)
	}
	return nil
}

// narrowTickets has p use tickets that are for some channels, or for a rail, where
// they are not for; and any ticket to get another one, which would have no bounds.
func (w *world) narrowTickets(ctx context.Context, p *party) error {
	history := page(p.at())
	opens := twinrail.Code("")
	for _, try := range []struct {
		what    string
		bounds  twinrail.TicketRequest
		ask     call
		refused twinrail.Code
	}{
		{"for commit", twinrail.TicketRequest{Channels: []twinrail.Channel{twinrail.Commit}}, history, opens},
		{"for presence", twinrail.TicketRequest{Channels: []twinrail.Channel{twinrail.Presence}}, history, twinrail.CodeNotFound},
		{"for the SSE rail", twinrail.TicketRequest{Rail: twinrail.RailSSE}, sse(p.at(), nil), opens},
		{"for the SSE rail", twinrail.TicketRequest{Rail: twinrail.RailSSE}, history, twinrail.CodeNotFound},
		{"for the WS rail", twinrail.TicketRequest{Rail: twinrail.RailWS}, sse(p.at(), nil), twinrail.CodeNotFound},
		{"for commit", twinrail.TicketRequest{Channels: []twinrail.Channel{twinrail.Commit}}, call{method: http.MethodPost, path: twinrail.PathTickets}, twinrail.CodeCredentialInvalid},
	} {
		ticket, err := p.ticket(ctx, &try.bounds)
		if err != nil {
			return err
		}
		e := &errand{party: p, carry: func(c call) (call, error) { return withTicket(c, ticket), nil }}
		got, err := e.send(ctx, try.ask)
		switch {
		case err != nil:
		case try.refused != opens:
			err = w.refused("a ticket "+try.what+" is used elsewhere", got, nil, try.refused)
		case got.status != http.StatusOK:
			err = fmt.Errorf("a ticket %s is good for nothing: %s", try.what, got)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// renewByTicket has p renew its SSE stream with a ticket for the WS rail, which
// must be refused like for a connection that does not exist.
func (w *world) renewByTicket(ctx context.Context, p *party) error {
	f, err := p.mustFollow(ctx, sse(p.at(), nil))
	if err != nil {
		return err
	}
	renew := func(connection string) (*answer, error) {
		ticket, err := p.ticket(ctx, &twinrail.TicketRequest{Rail: twinrail.RailWS})
		if err != nil {
			return nil, err
		}
		return p.do(ctx, withTicket(renewal(connection), ticket))
	}
	got, err := renew(f.open.ConnectionID)
	if err != nil {
		return err
	}
	absent, err := renew("c_" + random())
	if err != nil {
		return err
	}
	return w.refused("a stream is renewed by a ticket for the WS rail", got, absent, twinrail.CodeNotFound)
}

// ticketElsewhere has pages of other origins use a ticket of p's. They must be
// refused before it is looked up: like with one that never was, and it is good
// afterwards.
func (w *world) ticketElsewhere(ctx context.Context, p *party) error {
	ticket, err := p.ticket(ctx, nil)
	if err != nil {
		return err
	}
	for _, origin := range []string{"https://" + random() + ".invalid", "null"} {
		ask := func(ticket string) (*answer, error) {
			c := withTicket(page(p.at()), ticket)
			c.header = http.Header{"Origin": {origin}}
			return p.do(ctx, c)
		}
		got, err := ask(ticket)
		if err != nil {
			return err
		}
		absent, err := ask(madeUpSecret())
		if err != nil {
			return err
		}
		if err := w.refused("a page of another origin uses a ticket", got, absent, twinrail.CodeOriginNotAllowed); err != nil {
			return err
		}
	}
	if len(w.leaks) > 0 {
		return nil // it is used up
	}
	return p.must(ctx, withTicket(page(p.at()), ticket), nil)
}

// administersByTicket has p, who administers, do what that is for by a ticket,
// which must be refused as if it did not.
func (w *world) administersByTicket(ctx context.Context, p *party, asks ...call) error {
	for _, c := range asks {
		ticket, err := p.ticket(ctx, nil)
		if err != nil {
			return err
		}
		got, err := p.do(ctx, withTicket(c, ticket))
		if err != nil {
			return err
		}
		if err := w.refused("who administers asks by a ticket to "+c.method+" "+c.path, got, nil, twinrail.CodeNotFound); err != nil {
			return err
		}
	}
	return nil
}

package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/twinrail/twinrail"
)

// secret has a text that the server made stand for what only readers may see.
func (w *world) secret(what, text string, readers ...*party) {
	w.canaries = append(w.canaries, &canary{text, what, readers})
}

// carry returns c with what its holder carries in place of a token. That may be
// got anew for each call.
type carry func(c call) (call, error)

// errand is a party, and what it carries, which is for the wrong one's address
// alone. There and at the right one's is something to be had.
type errand struct {
	*party
	carry        carry
	s            *scene
	mine, theirs *secret // of the right one, and of the wrong one
}

// send is [party.ask] with what is carried.
func (e *errand) send(ctx context.Context, c call) (*answer, error) {
	c, err := e.carry(c)
	if err != nil {
		return nil, err
	}
	return e.ask(ctx, c)
}

// endedByServer reports whether a wait ended since the server ended what was open,
// for the sake of its credential.
func endedByServer(err error) bool {
	var closed *closedError
	return errors.As(err, &closed) && int(closed.code) == twinrail.CodeCredentialRevoked.Info().Close ||
		err != nil && strings.Contains(err.Error(), string(twinrail.CodeCredentialRevoked))
}

// errands has parties go with what get returns of theirs, over both rails: one who
// may be anywhere, with what is bound to the wrong one's value of the key, and the
// wrong one itself with what has no bounds. Where a credential settles the key,
// both are the wrong one. It returns the scene at the canvas.
func (w *world) errands(ctx context.Context, get func(p *party, bounds *twinrail.TicketRequest) (carry, error)) (*scene, error) {
	canvas, err := w.scene(twinrail.CanvasStream, "commit:*", "presence:*")
	if err != nil {
		return nil, err
	}
	thread, err := w.scene(twinrail.ThreadStream, "chat:*")
	if err != nil {
		return nil, err
	}
	if err := w.errandsAt(ctx, canvas, twinrail.Commit, get, w.carriedHTTP); err != nil {
		return nil, err
	}
	return canvas, w.errandsAt(ctx, thread, twinrail.Chat, get, w.carriedWS)
}

func (w *world) errandsAt(ctx context.Context, s *scene, channel twinrail.Channel,
	get func(*party, *twinrail.TicketRequest) (carry, error), run func(context.Context, *errand) error) (err error) {
	bound := s.wrong
	if !w.own() {
		if bound, err = w.party("who is bound to another "+w.key.String(), s.wrong.routing); err != nil {
			return err
		}
		bound.exact = true
	}
	mine, theirs := w.eventFor(s.right, channel), w.eventFor(s.wrong, channel)
	theirs.readers = append(theirs.readers, bound)
	for p, event := range map[*party]*secret{s.right: mine, s.wrong: theirs} {
		if _, err := w.publish(ctx, p, event); err != nil {
			return err
		}
	}
	at := new(twinrail.Routing)
	at.Set(w.key, s.wrong.routing.Get(w.key))
	for _, holder := range []struct {
		*party
		bounds *twinrail.TicketRequest
	}{{bound, &twinrail.TicketRequest{Routing: at}}, {s.wrong, nil}} {
		carry, err := get(holder.party, holder.bounds)
		if err != nil {
			return err
		}
		if err := run(ctx, &errand{holder.party, carry, s, mine, theirs}); err != nil {
			return err
		}
	}
	return nil
}

// trespass is [world.trespass] with what is carried.
func (e *errand) trespass(ask func(at twinrail.Routing) (*answer, error)) error {
	as := &scene{right: e.s.right, wrong: e.party}
	return e.w.trespass(as, func(_ *party, at twinrail.Routing) (*answer, error) { return ask(at) })
}

// fromEarliest is the call that follows the SSE rail from the beginning.
func fromEarliest(at twinrail.Routing) call {
	return sse(at, url.Values{"cursor": {twinrail.CursorEarliest}})
}

// page is the call for a page of history.
func page(at twinrail.Routing) call {
	return call{method: http.MethodGet, path: twinrail.PathHistory, stated: at, query: url.Values{"channels": {string(twinrail.Commit)}}}
}

// carriedHTTP has e get what is its own, and then try at the right one's address.
func (w *world) carriedHTTP(ctx context.Context, e *errand) error {
	c, err := e.carry(fromEarliest(e.at()))
	if err != nil {
		return err
	}
	b, err := e.replay(ctx, c)
	if err != nil || !b.has(e.theirs.text) {
		return errors.Join(err, fmt.Errorf("%s does not get what is its own", e.name))
	}
	for _, ask := range []func(at twinrail.Routing) call{
		fromEarliest, page,
		func(at twinrail.Routing) call { return whoIsAt(e.s.kind, at) },
		func(at twinrail.Routing) call { return publishing(w.attempt(e.party, at, twinrail.Commit)) },
	} {
		if err := e.trespass(func(at twinrail.Routing) (*answer, error) { return e.send(ctx, ask(at)) }); err != nil {
			return err
		}
	}
	// What was published there in spite of that is seen by the right one.
	if b, err = e.s.right.replay(ctx, fromEarliest(e.s.right.at())); err != nil || !b.has(e.mine.text) {
		return errors.Join(err, errors.New("the right one does not get what is its own"))
	}
	return nil
}

// carriedWS is carriedHTTP for the WS rail.
func (w *world) carriedWS(ctx context.Context, e *errand) error {
	handshake, err := e.carry(call{})
	if err != nil {
		return err
	}
	c, a, err := e.dial(ctx, handshake)
	if a != nil {
		err = fmt.Errorf("the WebSocket of %s was refused: %s", e.name, a)
	}
	if err != nil {
		return err
	}
	own := join("own", e.at(), twinrail.Chat)
	own.After = twinrail.CursorEarliest
	if _, err := c.must(own); err != nil {
		return err
	}
	if _, err := c.await(e.theirs.text); err != nil {
		return fmt.Errorf("%s does not get what is its own: %w", e.name, err)
	}
	frame := func(f twinrail.ClientFrame) (*answer, error) {
		got, err := c.ask(f)
		return got.asAnswer(), err
	}
	asks := []func(at twinrail.Routing) (*answer, error){
		func(at twinrail.Routing) (*answer, error) { return frame(join("trespass", at, twinrail.Chat)) },
		func(at twinrail.Routing) (*answer, error) {
			attempt := w.attempt(e.party, at, twinrail.Chat)
			return frame(twinrail.ClientFrame{Op: twinrail.OpPublish, Events: []twinrail.NewEvent{attempt.event}})
		},
	}
	if w.own() {
		asks = append(asks, func(at twinrail.Routing) (*answer, error) {
			return e.send(ctx, call{path: twinrail.PathWS, stated: at})
		})
	}
	for _, ask := range asks {
		if err := e.trespass(ask); err != nil {
			return err
		}
	}
	right, _, err := e.s.right.mustJoin(ctx, twinrail.CursorEarliest, twinrail.Chat)
	if err == nil && !right.backlog("s", "").has(e.mine.text) {
		err = errors.New("the right one does not get what is its own")
	}
	return err
}

// tickets: what was got for one address, at another one; for less, used for more;
// from other pages; and twice.
func tickets(ctx context.Context, w *world) error {
	s, err := w.errands(ctx, func(p *party, bounds *twinrail.TicketRequest) (carry, error) {
		return func(c call) (call, error) {
			ticket, err := p.ticket(ctx, bounds)
			return withTicket(c, ticket), err
		}, nil
	})
	if err != nil {
		return err
	}
	if err := w.widen(ctx, s); err != nil {
		return err
	}
	for _, try := range []func(context.Context, *party) error{w.narrowTickets, w.renewByTicket, w.ticketElsewhere} {
		if err := try(ctx, s.wrong); err != nil {
			return err
		}
	}
	err = w.useTwice(ctx, s.wrong, s.wrong.at())
	if err != nil || !w.own() && !s.wrong.exact {
		return err
	}
	return w.useTwice(ctx, s.wrong, s.right.at()) // the first time in vain
}

// ticket returns one of p's, with no bounds where they are nil.
func (p *party) ticket(ctx context.Context, bounds *twinrail.TicketRequest) (string, error) {
	c := call{method: http.MethodPost, path: twinrail.PathTickets}
	if bounds != nil {
		c.body = bounds
	}
	var got twinrail.TicketResponse
	err := p.must(ctx, c, &got)
	p.w.secret("a ticket of "+p.name, got.Ticket, p)
	return got.Ticket, err
}

// withTicket returns c with a ticket in place of the token.
func withTicket(c call, ticket string) call {
	c.anonymous, c.query = true, maps.Clone(c.query)
	if c.query == nil {
		c.query = make(url.Values)
	}
	c.query.Set(twinrail.TicketParam, ticket)
	return c
}

// madeUpSecret returns what a ticket or a cookie's value could be.
func madeUpSecret() string { return random() + random()[:17] }

// widen has the wrong one ask for a ticket to the right one's. It gets none, or
// one that opens nothing there.
func (w *world) widen(ctx context.Context, s *scene) error {
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) {
		bounds := new(twinrail.Routing)
		bounds.Set(w.key, at.Get(w.key))
		asked := call{method: http.MethodPost, path: twinrail.PathTickets, body: twinrail.TicketRequest{Routing: bounds}}
		a, err := p.do(ctx, asked)
		if err != nil || a.status != http.StatusOK {
			return a, err
		}
		var got twinrail.TicketResponse
		if err := json.Unmarshal(a.body, &got); err != nil {
			return nil, err
		}
		return p.do(ctx, withTicket(page(at), got.Ticket))
	})
}

// useTwice has p use a ticket there, and then at its own address, where it must be
// refused like what never was one.
func (w *world) useTwice(ctx context.Context, p *party, first twinrail.Routing) error {
	ticket, err := p.ticket(ctx, nil)
	if err != nil {
		return err
	}
	a, err := p.do(ctx, withTicket(page(first), ticket))
	if err == nil && first == p.at() && a.status != http.StatusOK {
		err = fmt.Errorf("a ticket that was not used before: %s", a)
	}
	if err != nil {
		return err
	}
	got, err := p.do(ctx, withTicket(page(p.at()), ticket))
	if err != nil {
		return err
	}
	absent, err := p.do(ctx, withTicket(page(p.at()), madeUpSecret()))
	if err != nil {
		return err
	}
	return w.refused("a ticket is used twice", got, absent, twinrail.CodeCredentialInvalid)
}

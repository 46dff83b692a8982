package auth

import (
	"sync"
	"time"

	"github.com/twinrail/twinrail"
)

// maxTickets bounds the tickets of an actor that are unused and good.
const maxTickets = 64

// tickets has those that are unused. They live in memory only: a client that
// loses its ticket with a restart asks for another one.
type tickets struct {
	mu     sync.Mutex
	unused map[digest]*Principal
	count  map[actor]int
	ends   deadlines[digest]
}

// IssueTicket returns a ticket that stands for c's credential once, within the
// bounds of request: an address must have every key that request.Routing gives,
// and with a rail the ticket is for that alone (see [Context.AllowsRail]). It
// never gives a right that c does not have, nor session:revoke. It is good for
// TicketTTL, and not for longer than c's credential.
//
// Errors: credential_invalid where c came by a ticket or cookie itself;
// bad_request, context_invalid, context_conflict, context_mismatch and
// actor_mismatch about what request says, with its field; limit_exceeded where
// the actor has 64 tickets unused.
func (g *Gate) IssueTicket(c *Context, request twinrail.TicketRequest) (twinrail.TicketResponse, error) {
	p := c.who()
	if p.carriage != byBearer {
		return twinrail.TicketResponse{}, invalid("a ticket is issued for a bearer only")
	}
	narrow, err := p.scopeOf(request, c.routing)
	if err != nil {
		return twinrail.TicketResponse{}, err
	}
	now := time.Now()
	ends := now.Add(g.opts.TicketTTL).UTC()
	if p.ExpiresAt().Before(ends) {
		ends = p.ExpiresAt()
	}
	if !now.Before(ends) {
		return twinrail.TicketResponse{}, errExpired
	}
	ticket := newSecret()
	if !g.tickets.add(digestOf(ticket), &Principal{identity: p.identity, carriage: byTicket, scope: narrow}, now, ends) {
		return twinrail.TicketResponse{}, twinrail.Errorf(twinrail.CodeLimitExceeded, "", "this actor has %d tickets that are not used yet", maxTickets)
	}
	return twinrail.TicketResponse{Ticket: ticket, ExpiresAt: ends}, nil
}

// add keeps the ticket with digest d for p until ends, unless p's actor has too
// many.
func (t *tickets) add(d digest, p *Principal, now, ends time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(now)
	if t.count[p.actor()] >= maxTickets {
		return false
	}
	if t.unused == nil {
		t.unused, t.count = make(map[digest]*Principal), make(map[actor]int)
	}
	t.unused[d] = p
	t.count[p.actor()]++
	t.ends.set(d, ends)
	return true
}

// take returns whom the ticket stands for, and uses it up.
func (t *tickets) take(ticket string, now time.Time) (*Principal, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(now)
	d := digestOf(ticket)
	p, ok := t.unused[d]
	if !ok {
		return nil, invalid("the ticket was used before, is over, or never was one")
	}
	t.ends.remove(d)
	t.drop(d)
	return p, nil
}

// sweep drops the tickets that are over. Each is dropped once, so that in the end
// it costs no more than issuing them did.
func (t *tickets) sweep(now time.Time) {
	for d, ok := t.ends.due(now); ok; d, ok = t.ends.due(now) {
		t.drop(d)
	}
}

func (t *tickets) drop(d digest) {
	a := t.unused[d].actor()
	delete(t.unused, d)
	if t.count[a]--; t.count[a] == 0 {
		delete(t.count, a)
	}
}

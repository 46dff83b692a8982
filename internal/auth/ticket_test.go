package auth

import (
	"encoding/base64"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
)

func TestTicketIsUsedOnce(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	ticket := ticketFor(t, g, c, twinrail.TicketRequest{})
	if raw, err := base64.RawURLEncoding.DecodeString(ticket); err != nil || len(raw) != 32 {
		t.Errorf("the ticket is %q", ticket)
	}
	got, err := withTicket(g, ticket)
	if err != nil {
		t.Fatal(err)
	}
	if id := got.Principal().Identity(); id.ActorID != "u_1" || !got.Principal().ExpiresAt().Equal(c.Principal().ExpiresAt()) {
		t.Errorf("it stands for %+v", id)
	}
	_, err = withTicket(g, ticket)
	wantError(t, err, refused, "")

	// It is used up also where the request is refused for another reason.
	ticket = ticketFor(t, g, c, twinrail.TicketRequest{})
	_, err = g.Admit(request("/?tenant_id=t_other&env=dev&ticket=" + ticket))
	wantError(t, err, twinrail.CodeContextMismatch, "tenant_id")
	_, err = withTicket(g, ticket)
	wantError(t, err, refused, "")
}

func TestTicketAtOnce(t *testing.T) {
	g := newGate(t, GateOptions{})
	ticket := ticketFor(t, g, withBearer(t, g), twinrail.TicketRequest{})
	var admitted atomic.Int32
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			if _, err := withTicket(g, ticket); err == nil {
				admitted.Add(1)
			}
		})
	}
	group.Wait()
	if n := admitted.Load(); n != 1 {
		t.Errorf("it was good %d times", n)
	}
}

func TestTicketEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{TicketTTL: 30 * time.Second})
		for _, tt := range []struct{ token, ticket time.Duration }{
			{time.Hour, 30 * time.Second}, {30 * time.Second, 30 * time.Second}, {10 * time.Second, 10 * time.Second},
		} {
			c := withBearer(t, g, lives(tt.token))
			issued, err := g.IssueTicket(c, twinrail.TicketRequest{})
			if err != nil || !issued.ExpiresAt.Equal(time.Now().Add(tt.ticket)) {
				t.Fatalf("it ends at %v, %v", issued.ExpiresAt, err)
			}
			later := ticketFor(t, g, c, twinrail.TicketRequest{})
			time.Sleep(tt.ticket - time.Nanosecond)
			_, err = withTicket(g, issued.Ticket)
			wantError(t, err, "", "")
			time.Sleep(time.Nanosecond)
			_, err = withTicket(g, later)
			wantError(t, err, refused, "")
		}
		c := withBearer(t, g, lives(time.Second))
		time.Sleep(time.Second)
		_, err := g.IssueTicket(c, twinrail.TicketRequest{})
		wantError(t, err, expired, "")

		if n := newGate(t, GateOptions{}).opts.TicketTTL; n != time.Minute {
			t.Errorf("by default it is good for %v", n)
		}
	})
}

func TestTicketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{})
		c := withBearer(t, g)
		var all []string
		for range maxTickets {
			all = append(all, ticketFor(t, g, c, twinrail.TicketRequest{}))
		}
		_, err := g.IssueTicket(withBearer(t, g), twinrail.TicketRequest{}) // the same actor, by another token
		wantError(t, err, twinrail.CodeLimitExceeded, "")
		for _, other := range []*Context{
			withBearer(t, g, actorIs("u_2")), withBearer(t, g, tenantIs("t_other")), withBearer(t, g, envIs("prod")),
		} {
			ticketFor(t, g, other, twinrail.TicketRequest{})
		}

		// One that is used makes room for one, and the rest once they are over.
		if _, err := withTicket(g, all[0]); err != nil {
			t.Fatal(err)
		}
		ticketFor(t, g, c, twinrail.TicketRequest{})
		_, err = g.IssueTicket(c, twinrail.TicketRequest{})
		wantError(t, err, twinrail.CodeLimitExceeded, "")
		time.Sleep(time.Minute)
		ticket := ticketFor(t, g, c, twinrail.TicketRequest{})
		if n := len(g.tickets.unused); n != 1 || len(g.tickets.count) != 1 || len(g.tickets.ends.queue.items) != 1 {
			t.Errorf("%d are kept, of %d actors", n, len(g.tickets.count))
		}
		if _, err := withTicket(g, ticket); err != nil {
			t.Error(err)
		}
		if len(g.tickets.unused) != 0 || len(g.tickets.count) != 0 || len(g.tickets.ends.queue.items) != 0 {
			t.Error("a ticket is kept that was used")
		}
	})
}

func TestTicketIsForABearerOnly(t *testing.T) {
	g := newGate(t, GateOptions{})
	c := withBearer(t, g)
	byTicket, err := withTicket(g, ticketFor(t, g, c, twinrail.TicketRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	byCookie, err := withCookie(g, cookieFor(t, g, c))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Context{byTicket, byCookie} {
		_, err := g.IssueTicket(c, twinrail.TicketRequest{})
		wantError(t, err, refused, "")
	}
}

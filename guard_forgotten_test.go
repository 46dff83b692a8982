package twinrail_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// elsewhere is a package of the module that is handed everything that a handler
// has, and does what is in the place of the verb.
const elsewhere = `package elsewhere

import (
	"context"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/presence"
	"github.com/twinrail/twinrail/internal/session"
)

func handle(
	ctx context.Context, log journal.Journal, h *hub.Hub, people *presence.Registry, here *presence.Session,
	sessions *session.Registry, holder session.Holder, resumption auth.Resumption,
	gate *auth.Gate, flags *feature.Store, c *auth.Context, reader auth.Reader, writer auth.Writer,
	record journal.Record, kept journal.Entry, stated twinrail.Routing, address twinrail.Address,
	id twinrail.Identity, event twinrail.Event, from hub.From, expect journal.Expect, cursor twinrail.Cursor,
) {
	%s
}
`

// theRightWay is what there is to do, done with the check. It compiles.
const theRightWay = `
	r, err := c.Reader(stated, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
	if err != nil {
		return
	}
	h.Subscribe(ctx, r, from, nil)
	log.Read(ctx, r, 0, 1)
	log.Bounds(ctx, r)
	log.Seek(ctx, r, cursor)
	people.Members(r, presence.Position{}, 1)
	people.Watch(r, nil, "", 1)
	w, err := c.Writer(stated, twinrail.Commit)
	if err != nil {
		return
	}
	log.Append(ctx, []journal.Record{journal.NewRecord(w, event), record}, expect)
	h.Gesture(w, event)
	here.Enter(w, "", nil)
	flags.Set(c, "", twinrail.FlagRequest{})
	gate.Revoke(c, twinrail.RevocationRequest{})
	gate.IssueTicket(c, twinrail.TicketRequest{})
	resumed, err := gate.OpenResume(c, "")
	if err != nil {
		return
	}
	sessions.Claim(resumed, holder)
	c.RenewedBy(c.Principal())
	_ = []any{auth.Reader{}, auth.Writer{}, auth.Context{}, auth.Principal{}, auth.Resumption{}, journal.Record{}} // refused when they are used
`

// forgotten are ways to do without the check, each with what all of the
// compiler's answers have in common.
var forgotten = []struct{ code, answer string }{
	// What a client said, in each form that it comes in, is no right to read,
	{`h.Subscribe(ctx, stated, from, nil)`, `cannot use stated (variable of struct type twinrail.Routing) as auth.Reader value`},
	{`h.Subscribe(ctx, address, from, nil)`, `cannot use address (variable of struct type twinrail.Address) as auth.Reader value`},
	{`h.Subscribe(ctx, address.Home, from, nil)`, `as auth.Reader value`},
	{`h.Subscribe(ctx, address.Key(), from, nil)`, `as auth.Reader value`},
	{`log.Read(ctx, address, 0, 1)`, `as auth.Reader value`},
	{`log.Read(ctx, stated.CanvasID, 0, 1)`, `as auth.Reader value`},
	{`log.Bounds(ctx, stated)`, `as auth.Reader value`},
	{`log.Seek(ctx, address, cursor)`, `as auth.Reader value`},
	{`people.Members(address, presence.Position{}, 1)`, `as auth.Reader value`},
	{`people.Watch(stated, nil, "", 1)`, `as auth.Reader value`},
	// nor to write,
	{`journal.NewRecord(stated, event)`, `as auth.Writer value`},
	{`journal.NewRecord(address, event)`, `as auth.Writer value`},
	{`h.Gesture(address, event)`, `as auth.Writer value`},
	{`here.Enter(address, "", nil)`, `as auth.Writer value`},
	// and who it is, is neither.
	{`h.Subscribe(ctx, c, from, nil)`, `cannot use c (variable of type *auth.Context) as auth.Reader value`},
	{`h.Subscribe(ctx, c.Routing(), from, nil)`, `as auth.Reader value`},
	{`h.Subscribe(ctx, c.Principal(), from, nil)`, `as auth.Reader value`},
	{`log.Read(ctx, id, 0, 1)`, `as auth.Reader value`},
	{`journal.NewRecord(c, event)`, `as auth.Writer value`},
	// The right to write is not that to read, nor the other way round.
	{`h.Subscribe(ctx, writer, from, nil)`, `cannot use writer (variable of struct type auth.Writer) as auth.Reader value`},
	{`people.Members(writer, presence.Position{}, 1)`, `as auth.Reader value`},
	{`journal.NewRecord(reader, event)`, `cannot use reader (variable of struct type auth.Reader) as auth.Writer value`},
	{`h.Gesture(reader, event)`, `as auth.Writer value`},
	{`here.Enter(reader, "", nil)`, `as auth.Writer value`},
	{`_ = auth.Reader(writer)`, `cannot convert writer (variable of struct type auth.Writer) to type auth.Reader`},
	{`_ = auth.Writer(reader)`, `cannot convert reader (variable of struct type auth.Reader) to type auth.Writer`},
	// The answer to the check cannot be passed over on the way.
	{`h.Subscribe(ctx, c.Reader(stated, twinrail.CanvasStream, 0), from, nil)`, `multiple-value c.Reader`},
	{`journal.NewRecord(c.Writer(stated, twinrail.Commit), event)`, `multiple-value c.Writer`},

	// Nobody else makes a right, or a context, or changes one.
	{`_ = auth.Reader{home: address.Home}`, `cannot refer to unexported field home in struct literal of type auth.Reader`},
	{`_ = auth.Reader{address.Home, address.Home.Key(), address.Audience, "u_1", 1}`, `in struct literal of type auth.Reader`},
	{`_ = auth.Reader(address)`, `cannot convert address`},
	{`_ = auth.Reader(struct { home twinrail.Home; key string; audience twinrail.Audience; actor string; channels twinrail.ChannelSet }{})`, `cannot convert`},
	{`reader.home = address.Home`, `reader.home undefined`},
	{`reader.key = ""`, `reader.key undefined`},
	{`reader.audience = address.Audience`, `reader.audience undefined`},
	{`reader.actor = id.ActorID`, `reader.actor undefined`},
	{`reader.channels |= 1`, `reader.channels undefined`},
	{`_ = auth.Writer{address: address}`, `cannot refer to unexported field address in struct literal of type auth.Writer`},
	{`_ = auth.Writer(address)`, `cannot convert address`},
	{`writer.address = address`, `writer.address undefined`},
	{`writer.actor = id.ActorID`, `writer.actor undefined`},
	{`writer.channel = twinrail.Commit`, `writer.channel undefined`},
	{`_ = auth.Context{routing: stated}`, `cannot refer to unexported field routing in struct literal of type auth.Context`},
	{`_ = auth.Context(stated)`, `cannot convert stated`},
	{`c.principal = nil`, `c.principal undefined`},
	{`c.routing = stated`, `c.routing undefined`},
	{`_ = auth.Principal{identity: id}`, `cannot refer to unexported field identity in struct literal of type auth.Principal`},
	{`_ = auth.Principal{id}`, `in struct literal of type auth.Principal`},
	{`_ = auth.Principal(id)`, `cannot convert id`},
	{`c.Principal().identity = id`, `c.Principal().identity undefined`},

	// What is appended was made of a right, and is what it was made.
	{`log.Append(ctx, []journal.Record{{Owner: address.Home.Key()}}, expect)`, `unknown field Owner in struct literal of type journal.Record`},
	{`log.Append(ctx, []journal.Record{{stored: kept.Stored}}, expect)`, `cannot refer to unexported field stored in struct literal of type journal.Record`},
	{`log.Append(ctx, []journal.Record{{kept.Stored}}, expect)`, `implicit assignment to unexported field stored in struct literal of type journal.Record`},
	{`log.Append(ctx, []journal.Record{kept.Stored}, expect)`, `cannot use kept.Stored`},
	{`log.Append(ctx, []journal.Record{journal.Record(kept.Stored)}, expect)`, `cannot convert kept.Stored`},
	{`log.Append(ctx, []journal.Stored{{Owner: address.Home.Key()}}, expect)`, `as []journal.Record value`},
	{`log.Append(ctx, []twinrail.Event{event}, expect)`, `as []journal.Record value`},
	{`record.stored.Owner = address.Home.Key()`, `record.stored undefined`},
	{`record.Audience = twinrail.Audience{}`, `record.Audience undefined`},
	{`record.Stored().Owner = ""`, `cannot assign to record.Stored().Owner`},

	// What is a tenant's is changed by a request of its own.
	{`flags.Set(id, "", twinrail.FlagRequest{})`, `as *auth.Context value`},
	{`gate.Revoke(id, twinrail.RevocationRequest{})`, `as *auth.Context value`},
	{`gate.IssueTicket(c.Principal(), twinrail.TicketRequest{})`, `as *auth.Context value`},
	{`gate.OpenResume(id, "")`, `as *auth.Context value`},
	{`c.RenewedBy(id)`, `as *auth.Principal value`},

	// What a client says of its session is no right to have it.
	{`sessions.Claim("s_1", holder)`, `as auth.Resumption value`},
	{`sessions.Claim(auth.Resume{SessionID: "s_1"}, holder)`, `as auth.Resumption value`},
	{`sessions.Claim(c, holder)`, `as auth.Resumption value`},
	{`sessions.Claim(gate.OpenResume(c, ""), holder)`, `multiple-value gate.OpenResume`},
	{`_ = auth.Resumption{said: auth.Resume{SessionID: "s_1"}}`, `cannot refer to unexported field said in struct literal of type auth.Resumption`},
	{`_ = auth.Resumption{auth.Resume{SessionID: "s_1"}}`, `in struct literal of type auth.Resumption`},
	{`_ = auth.Resumption(auth.Resume{SessionID: "s_1"})`, `cannot convert`},
	{`resumption.said.SessionID = "s_1"`, `resumption.said undefined`},
}

// TestForgottenCheck compiles what somebody might write who forgets.
func TestForgottenCheck(t *testing.T) {
	c := compile(t, "./internal/...")
	if errs := c.check(t, fmt.Sprintf(elsewhere, theRightWay)); len(errs) > 0 {
		t.Fatalf("the right way does not compile: %q", errs)
	}
	for _, f := range forgotten {
		errs := c.check(t, fmt.Sprintf(elsewhere, f.code))
		other := slices.ContainsFunc(errs, func(e string) bool { return !strings.Contains(e, f.answer) })
		if len(errs) == 0 || other {
			t.Errorf("%s\nis answered %q\nwant        %q", f.code, errs, f.answer)
		}
	}
}

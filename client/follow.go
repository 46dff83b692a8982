package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/twinrail/twinrail"
)

// FollowOptions says what to follow and from where.
type FollowOptions struct {
	// Channels to follow; each must be granted. Default what is granted of
	// commit and artifact on the SSE rail, of chat and tool on the WS rail. With
	// presence among them there are items of KindPresence.
	Channels []twinrail.Channel
	// From is where to start: after a cursor, at [twinrail.CursorEarliest], or,
	// where it is "", at the stream's head as the first connection finds it.
	From string
	// FailOnReset ends the iteration with an error of code cursor_expired or
	// cursor_unknown where an item of KindReset would come. Where the SSE rail
	// refuses a cursor at the start the code is cursor_expired, and the detail
	// begins with which of the two it was.
	FailOnReset bool
	// Presence, where it is not nil, makes the follower present in the thread
	// with this state, any JSON value, for as long as it follows. It needs the
	// grant presence:write, and not the channel.
	Presence json.RawMessage
}

// Kind says what an [Item] is.
type Kind int

// The kinds of item. The first of each connection is KindOpen; where presence is
// followed, who is there comes right after it. KindLive follows once the backlog
// of the connection is done.
const (
	KindOpen Kind = iota + 1
	KindEvent
	KindLive
	KindReset
	KindPresence
)

// Item is one thing that a follower sees.
type Item struct {
	Kind Kind
	// Cursor is where to go on after this item. It is "" where the item moves
	// nothing: with ephemeral events and presence.
	Cursor string
	// Event is set for KindEvent, and Raw is its JSON as it was received.
	Event *twinrail.Event
	Raw   json.RawMessage
	// Open is set for KindOpen. On the WS rail its ConnectionID is the welcome's.
	Open *twinrail.Open
	// Reset is set for KindReset: what lies between Requested and Head cannot be
	// delivered, so fetch the state anew; the follower goes on from Head.
	Reset *twinrail.Reset
	// Presence is set for KindPresence.
	Presence *Presence
}

// FollowCanvas follows a canvas on the SSE rail. Routing names the canvas and
// the audience keys to hold.
//
// The iteration runs in the caller's goroutine and starts anew each time it is
// ranged over. It never ends without an error: either ctx's, or one that no
// reconnection can mend, which carries a *[twinrail.Error] where the server gave
// it. No event is given twice, and the cursor moves once the loop body is done
// with an event. While the body is busy nothing is read, and the server waits.
func (c *Client) FollowCanvas(ctx context.Context, routing twinrail.Routing, o FollowOptions) iter.Seq2[Item, error] {
	return c.follow(ctx, routing, o, twinrail.CanvasStream, twinrail.RailSSE)
}

// FollowThread follows a thread on the WS rail. Routing names the thread and the
// audience keys to hold. The rest is as with [Client.FollowCanvas].
func (c *Client) FollowThread(ctx context.Context, routing twinrail.Routing, o FollowOptions) iter.Seq2[Item, error] {
	return c.follow(ctx, routing, o, twinrail.ThreadStream, twinrail.RailWS)
}

func (c *Client) follow(ctx context.Context, routing twinrail.Routing, o FollowOptions, kind twinrail.Kind, rail twinrail.Rail) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := o.validate(routing, kind, rail); err != nil {
			yield(Item{}, err)
			return
		}
		f := &follower{c: c, routing: routing, options: o, connect: (*follower).followSSE, yield: yield, cursor: o.From}
		if rail == twinrail.RailWS {
			f.connect = (*follower).followWS
		}
		if err := f.run(ctx); !errors.Is(err, errBroken) {
			yield(Item{}, err)
		}
	}
}

// validate finds what the server would refuse, before anything is sent.
func (o FollowOptions) validate(routing twinrail.Routing, kind twinrail.Kind, rail twinrail.Rail) error {
	if err := routing.Validate(); err != nil {
		return err
	}
	if _, err := routing.Home(kind); err != nil {
		return err
	}
	if o.Presence != nil && rail != twinrail.RailWS {
		return twinrail.Errorf(twinrail.CodeWrongRail, "presence", "presence is carried by the WS rail")
	}
	if o.Presence != nil && !json.Valid(o.Presence) {
		return twinrail.Errorf(twinrail.CodeBadRequest, "presence", "not JSON")
	}
	for _, ch := range o.Channels {
		if ch.Rail() != rail || !ch.In(kind) {
			return twinrail.Errorf(twinrail.CodeWrongRail, "channels", "%q is not a channel of a %s on the %s rail", ch, kind, rail)
		}
	}
	return nil
}

// follower is one iteration. It is used by one goroutine.
type follower struct {
	// fixed
	c       *Client
	routing twinrail.Routing
	options FollowOptions
	connect func(*follower, context.Context) error
	yield   func(Item, error) bool

	cursor   string        // where the next connection starts
	lastSeq  uint64        // of the last event that was given; 0 after a reset
	retry    time.Duration // the reconnection time that the server asked for last
	opened   bool          // the connection has got as far as KindOpen
	failures int           // connections in a row that did not hold

	token       string        // the newest that the connection was to go on with
	resumeToken string        // the newest of the session, or "": then it is joined anew
	subscribed  bool          // the session of the token has the subscription
	ended       twinrail.Code // of the "end" of the last connection, or ""
}

// errBroken says that the loop body broke out of the iteration.
var errBroken = errors.New("client: the iteration was broken off")

// run connects again and again, until an error is final.
func (f *follower) run(ctx context.Context) error {
	var rejected string // the token that the server refused last
	refreshed := false  // a new one was got in its place, and nothing has come of that yet
	for {
		token, err := f.c.credential.replace(ctx, rejected)
		start := time.Now()
		f.opened, f.token = false, token
		if err == nil {
			err = f.connect(f, ctx)
		}
		if errors.Is(err, errBroken) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		action, floor := verdict(err)
		if f.opened || action != twinrail.ActionRefresh {
			refreshed = false // in an outage a token that was never refused can expire
		}
		if action == twinrail.ActionStop {
			return err
		}
		if action == twinrail.ActionRefresh {
			if refreshed || f.c.credential.source == nil {
				return err
			}
			rejected, refreshed = f.token, true
			if !f.opened {
				continue // the new token is tried at once
			}
		}
		if err := f.pause(ctx, err, time.Since(start), max(floor, f.retry)); err != nil {
			return err
		}
	}
}

// pause waits before the next connection. The one before held for so long.
func (f *follower) pause(ctx context.Context, cause error, held, floor time.Duration) error {
	if f.opened && held >= f.c.backoff.Max {
		f.failures = 0
	}
	wait := f.c.backoff.wait(f.failures, floor)
	f.failures++
	f.c.onRetry(cause, wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give hands an item to the caller, and only then moves the cursor.
func (f *follower) give(item Item) error {
	if !f.yield(item, nil) {
		return errBroken
	}
	if item.Cursor != "" {
		f.cursor = item.Cursor
	}
	return nil
}

// giveOpen says where the connection starts. Where the cursor was void, a reset
// follows: until that has been given the cursor stays, so that a cut in between
// does not swallow it.
func (f *follower) giveOpen(open twinrail.Open) error {
	f.opened = true
	item := Item{Kind: KindOpen, Open: &open}
	if open.Reason == "" {
		item.Cursor = open.Cursor
	}
	return f.give(item)
}

func (f *follower) giveReset(reset twinrail.Reset) error {
	if f.options.FailOnReset {
		detail := "what follows the cursor cannot be delivered any more"
		return final{twinrail.Errorf(reset.Reason, "", "%s", detail)}
	}
	if reset.Requested == "" {
		reset.Requested = f.cursor
	}
	f.lastSeq = 0
	return f.give(Item{Kind: KindReset, Cursor: reset.Head, Reset: &reset})
}

// giveEvent checks that an event follows on what was given before. Seqs need
// not be dense, and prev is the seq of an event that may have been for others.
func (f *follower) giveEvent(raw []byte) error {
	event := new(twinrail.Event)
	if err := json.Unmarshal(raw, event); err != nil {
		return final{fmt.Errorf("client: the server sent an event that cannot be read: %w", err)}
	}
	if event.Seq == 0 { // ephemeral
		return f.give(Item{Kind: KindEvent, Event: event, Raw: raw})
	}
	var prev uint64
	if event.Prev != nil {
		prev = *event.Prev
	}
	if prev < f.lastSeq || prev >= event.Seq {
		return &ChainError{Last: f.lastSeq, ID: event.ID, Seq: event.Seq, Prev: prev}
	}
	if err := f.give(Item{Kind: KindEvent, Cursor: event.Cursor, Event: event, Raw: raw}); err != nil {
		return err
	}
	f.lastSeq = event.Seq
	return nil
}

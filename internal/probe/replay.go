package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/twinrail/twinrail"
)

// backlog is what somebody gets who asks for what follows a cursor.
type backlog struct {
	void    twinrail.Code // the reason, where the cursor is void
	refusal *answer       // the answer, where it is void and that was the answer
	events  []string      // as they came
}

func (b *backlog) has(text string) bool { return strings.Contains(strings.Join(b.events, "\n"), text) }

// catchUp has a party ask for what follows a cursor, and returns all of it.
type catchUp func(p *party, after string) (*backlog, error)

// sseReplay: what was published before, by cursor and by Last-Event-ID.
func sseReplay(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.CanvasStream, "commit:read", "artifact:read")
	if err != nil {
		return err
	}
	byParam := func(p *party, after string) (*backlog, error) {
		return p.replay(ctx, sse(p.at(), url.Values{"cursor": {after}}))
	}
	if err := w.replay(ctx, s, twinrail.Commit, byParam); err != nil {
		return err
	}
	byHeader := func(p *party, after string) (*backlog, error) {
		c := sse(p.at(), url.Values{"on_reset": {"fail"}})
		c.header = http.Header{"Last-Event-Id": {after}}
		return p.replay(ctx, c)
	}
	if err := w.replay(ctx, s, twinrail.Artifact, byHeader); err != nil {
		return err
	}
	err = canvasPair.replay(ctx, w, s, byParam, func(p *party) (*answer, error) {
		return p.ask(ctx, sse(p.at(), url.Values{"channels": {string(twinrail.Artifact)}}))
	})
	if err != nil {
		return err
	}
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) {
		return p.ask(ctx, sse(at, url.Values{"cursor": {twinrail.CursorEarliest}}))
	})
}

// replay opens an SSE stream, and returns what comes before live.
func (p *party) replay(ctx context.Context, c call) (*backlog, error) {
	s, a, err := p.follow(ctx, c)
	if err != nil {
		return nil, err
	}
	if a != nil {
		return voided(a)
	}
	b := &backlog{void: s.open.Reason}
	for {
		got, err := s.next()
		switch {
		case err != nil:
			return nil, err
		case got.event == twinrail.SSELive:
			return b, nil
		case got.event == twinrail.SSEReset:
			var reset twinrail.Reset
			if err := json.Unmarshal([]byte(got.data), &reset); err != nil {
				return nil, err
			}
			b.void = reset.Reason
		case got.data != "":
			b.events = append(b.events, got.data)
		}
	}
}

// voided returns what the answer to a void cursor says.
func voided(a *answer) (*backlog, error) {
	var problem twinrail.Problem
	if a.status != http.StatusGone || json.Unmarshal(a.body, &problem) != nil {
		return nil, fmt.Errorf("refused: %s", a)
	}
	reason, _, _ := strings.Cut(problem.Detail, ":") // the code is the same for either
	return &backlog{void: twinrail.Code(reason), refusal: a}, nil
}

// wsReplay: what was published before, by joining after a cursor.
func wsReplay(ctx context.Context, w *world) error {
	s, err := w.scene(twinrail.ThreadStream, "chat:read", "tool:read")
	if err != nil {
		return err
	}
	joining := func(channels ...twinrail.Channel) catchUp {
		return func(p *party, after string) (*backlog, error) {
			c, joined, err := p.mustJoin(ctx, after, channels...)
			if err != nil {
				return nil, err
			}
			return c.backlog("s", joined.Reason), nil
		}
	}
	if err := w.replay(ctx, s, twinrail.Chat, joining(twinrail.Chat, twinrail.Tool)); err != nil {
		return err
	}
	err = threadPair.replay(ctx, w, s, joining(), func(p *party) (*answer, error) {
		c, err := p.mustDial(ctx)
		if err != nil {
			return nil, err
		}
		f, err := c.ask(join("s", p.at(), twinrail.Tool))
		return f.asAnswer(), err
	})
	if err != nil {
		return err
	}
	return w.trespassWS(ctx, s, twinrail.Tool)
}

// backlog returns what has come for a subscription, and nobody waited for.
func (c *conn) backlog(sub string, void twinrail.Code) *backlog {
	b := &backlog{void: void}
	for _, f := range c.pending {
		switch {
		case f.Op == twinrail.OpReset && f.Sub == sub:
			b.void = f.Reason
		case f.Op == twinrail.OpEvent:
			b.events = append(b.events, f.raw)
		}
	}
	return b
}

// history: pages of either kind of stream.
func history(ctx context.Context, w *world) error {
	for kind, channels := range map[twinrail.Kind]channelPair{twinrail.CanvasStream: canvasPair, twinrail.ThreadStream: threadPair} {
		if err := w.historyOf(ctx, kind, channels); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) historyOf(ctx context.Context, kind twinrail.Kind, channels channelPair) error {
	s, err := w.scene(kind, string(channels.first)+":read")
	if err != nil {
		return err
	}
	page := func(at twinrail.Routing, channel twinrail.Channel, after string) call {
		return call{method: http.MethodGet, path: twinrail.PathHistory, stated: at, query: url.Values{"channels": {string(channel)}, "after": {after}}}
	}
	read := func(p *party, after string) (*backlog, error) {
		return p.page(ctx, page(p.at(), channels.first, after))
	}
	if err := w.replay(ctx, s, channels.first, read); err != nil {
		return err
	}
	err = channels.replay(ctx, w, s, read, func(p *party) (*answer, error) { return p.do(ctx, page(p.at(), channels.second, "")) })
	if err != nil {
		return err
	}
	err = w.writeOnly(s, channels.first, func(p *party) (*answer, error) { return p.do(ctx, page(p.at(), channels.first, "")) })
	if err != nil {
		return err
	}
	open := func(at twinrail.Routing) call { return page(at, channels.first, "") }
	if err := w.contradictRequest(ctx, s, open); err != nil {
		return err
	}
	if err := w.forged(ctx, s, func(_ *party, at twinrail.Routing) call { return open(at) }); err != nil {
		return err
	}
	return w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.do(ctx, open(at)) })
}

// page reads a page of history.
func (p *party) page(ctx context.Context, c call) (*backlog, error) {
	a, err := p.do(ctx, c)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return voided(a)
	}
	var got twinrail.HistoryPage
	if err := json.Unmarshal(a.body, &got); err != nil {
		return nil, err
	}
	b := new(backlog)
	for _, e := range got.Events {
		b.events = append(b.events, string(e))
	}
	return b, nil
}

// replay publishes, and then has everybody catch up: from the beginning, and from
// a cursor in the middle. What is for everybody comes last, and is the barrier. A
// stream has three events then; the cursors of one stream are tried on the other.
func (w *world) replay(ctx context.Context, s *scene, channel twinrail.Channel, read catchUp) error {
	first := make(map[*party]twinrail.PublishResult)
	own := make(map[*party]*secret)
	for _, p := range s.readers() {
		results, err := w.publish(ctx, p, w.eventAt(s, p, channel))
		if err != nil {
			return err
		}
		first[p] = results[0]
	}
	for _, p := range []*party{s.right, s.wrong} {
		own[p] = w.eventFor(p, channel)
		if _, err := w.publish(ctx, p, own[p]); err != nil {
			return err
		}
	}
	barriers := make(map[*party]*secret)
	for _, p := range s.readers() {
		barriers[p] = w.eventAt(s, p, channel)
		if _, err := w.publish(ctx, p, barriers[p]); err != nil {
			return err
		}
	}
	for _, p := range s.readers() {
		for _, after := range []string{twinrail.CursorEarliest, first[p].Cursor} {
			b, err := read(p, after)
			if err != nil {
				return fmt.Errorf("%s catches up: %w", p.name, err)
			}
			if own[p] != nil && !b.has(own[p].text) {
				return fmt.Errorf("%s did not receive its own", p.name)
			}
			if !b.has(barriers[p].text) {
				return fmt.Errorf("the barrier did not come to %s", p.name)
			}
		}
	}
	if s.sameHome() {
		return nil
	}
	return w.foreignCursors(s.wrong, first[s.right].Cursor, read)
}

// foreignCursors has p catch up from positions of another stream: one that its own
// stream has too by number, and the one before all events. They must mean no more
// than a cursor that nobody ever cut.
func (w *world) foreignCursors(p *party, foreign string, read catchUp) error {
	cut, err := twinrail.ParseCursor(foreign)
	if err != nil {
		return fmt.Errorf("the cursor of an event is none: %w", err)
	}
	beginning := twinrail.Cursor{Epoch: cut.Epoch}
	var unknown *backlog
	for _, cursor := range []twinrail.Cursor{madeUp(), cut, beginning} {
		b, err := read(p, cursor.String())
		if err != nil {
			return fmt.Errorf("%s goes on from a cursor that is not of its stream: %w", p.name, err)
		}
		if unknown == nil {
			unknown = b
		}
		switch {
		case b.void != twinrail.CodeCursorUnknown || len(b.events) > 0:
			w.leak("%s goes on from a cursor that is not of its stream, and gets %d events; void: %q", p.name, len(b.events), b.void)
		case b.refusal != nil && unknown.refusal != nil && !b.refusal.same(unknown.refusal):
			w.leak("%s goes on from a cursor of the right one's, and is not answered as with a made up one", p.name)
		}
	}
	return nil
}

// madeUp returns a cursor into no log.
func madeUp() twinrail.Cursor {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return twinrail.Cursor{
		Epoch: binary.BigEndian.Uint64(b[:]), Seq: 1, Check: binary.BigEndian.Uint64(b[8:]) >> (64 - twinrail.CheckBits),
	}
}

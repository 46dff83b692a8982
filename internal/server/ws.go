package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/limit"
	"github.com/twinrail/twinrail/internal/presence"
	"github.com/twinrail/twinrail/internal/session"
)

// serveWS answers GET /v1/ws.
func (s *Server) serveWS(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, twinrail.RailWS)
	if err != nil {
		return err
	}
	if err := checkHandshake(r); err != nil {
		if twinrail.CodeOf(err) == twinrail.CodeUpgradeRequired {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Sec-WebSocket-Version", "13")
		}
		return err
	}
	if s.draining.Load() {
		return &twinrail.Error{Code: twinrail.CodeDraining, RetryAfter: s.returnAfter()}
	}
	c := &wsConn{server: s, id: newID("c_")}
	c.auth.Store(ac)
	opened, err := s.engine.shares.takeOpening(r.Context(), tenantOf(ac))
	if err != nil {
		return err
	}
	defer opened()
	if err := s.takePlace(ac); err != nil {
		return err
	}
	if c.session, err = s.sessions.New(c); err != nil {
		s.leavePlace(ac)
		return err
	}
	upgrader := ws.HTTPUpgrader{
		Timeout:  s.opts.WriteTimeout,
		Header:   w.Header(),
		Protocol: func(p string) bool { return p == twinrail.Subprotocol },
	}
	nc, brw, _, err := upgrader.Upgrade(r, w)
	if err != nil {
		if nc != nil {
			_ = nc.Close()
		}
		c.session.End(c)
		s.leavePlace(ac)
		return abandoned(fmt.Errorf("upgrade: %w", err))
	}
	_ = nc.SetDeadline(time.Time{})                    // net/http's own
	early, _ := brw.Reader.Peek(brw.Reader.Buffered()) // cannot fail: it is there
	c.link = newLink(s.engine, tenantOf(ac), nc, c, append([]byte(nil), early...))
	c.heard()
	c.welcome()
	s.enter(c)
	c.link.start()
	return nil
}

// checkHandshake checks what RFC 6455 section 4.2.1 asks of an upgrade, before
// anything is taken over.
func checkHandshake(r *http.Request) error {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	switch {
	case r.ProtoMajor != 1, !headerHas(r.Header, "Upgrade", "websocket"), !headerHas(r.Header, "Connection", "upgrade"):
		return twinrail.Errorf(twinrail.CodeUpgradeRequired, "", "an HTTP/1.1 request with Upgrade: websocket")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return twinrail.Errorf(twinrail.CodeUpgradeRequired, "Sec-WebSocket-Version", "must be 13")
	case err != nil || len(key) != 16:
		return twinrail.Errorf(twinrail.CodeBadRequest, "Sec-WebSocket-Key", "must be 16 bytes in base64")
	}
	if offered := headerList(r.Header, "Sec-WebSocket-Protocol"); len(offered) > 0 && !slices.Contains(offered, twinrail.Subprotocol) {
		return twinrail.Errorf(twinrail.CodeBadRequest, "Sec-WebSocket-Protocol", "must offer %s", twinrail.Subprotocol)
	}
	return nil
}

// headerHas reports whether token is in the header's list, in any case.
func headerHas(h http.Header, name, token string) bool {
	return slices.ContainsFunc(headerList(h, name), func(item string) bool { return strings.EqualFold(item, token) })
}

// headerList returns the items of a header that holds lists.
func headerList(h http.Header, name string) (items []string) {
	for _, list := range h.Values(name) {
		for item := range strings.SplitSeq(list, ",") {
			items = append(items, strings.Trim(item, " \t"))
		}
	}
	return items
}

// wsConn is one connection of the WS rail.
type wsConn struct {
	// Fixed.
	server *Server
	link   *link
	id     string

	auth      atomic.Pointer[auth.Context]
	lastHeard atomic.Int64 // when the last frame came, on the engine's clock

	// Owned by tick.
	nextPing time.Time
	lifetime lifetime

	// Owned by readable.
	frames  limit.Bucket
	message []byte // of a fragmented message, what has come
	begun   int64  // when that began, on the engine's clock; 0 where there is none

	mu      sync.Mutex
	session *session.Session
	out     []byte  // frames to be written before any event
	joins   []*join // few, mostly one
	ready   []*join // that may have something to deliver
	taken   bool    // the session has another holder
	left    bool    // the session is not held any more
	pinging bool
	owing   bool  // a publish is under way
	held    int64 // bytes of message that count as the tenant's
	ending  *wsEnding
	drained chan struct{} // closed when out was taken; nil unless somebody waits
}

// wsEnding is how a connection ends: an error frame, and a close code.
type wsEnding struct {
	err   *twinrail.Error
	close int
	echo  bool // the client closed; nothing is said but the same
	waits bool // for the answer to a publish under way
}

// reads tells the watcher that input is of interest.
func (c *wsConn) reads() {}

func (c *wsConn) name() string { return c.id }

func (c *wsConn) context() *auth.Context { return c.auth.Load() }

func (c *wsConn) requestID() string { return c.context().RequestID() }

func (c *wsConn) heard() { c.lastHeard.Store(c.server.engine.now()) }

// say has a frame written, before any event that follows.
func (c *wsConn) say(f *twinrail.ServerFrame) {
	c.mu.Lock()
	c.out = appendWSFrame(c.out, f)
	c.mu.Unlock()
}

// fail ends the connection: what is said already goes out, then an error frame,
// then the close code of the error.
func (c *wsConn) fail(err *twinrail.Error) {
	c.finish(&wsEnding{err: err, close: err.Code.Info().Close})
}

func (c *wsConn) finish(e *wsEnding) {
	c.mu.Lock()
	c.endLocked(e)
	c.mu.Unlock()
	c.link.kickNow()
}

// endLocked decides how the connection ends, unless that is decided. The session
// does not wait for a peer that is slow to read it.
func (c *wsConn) endLocked(e *wsEnding) {
	if c.ending != nil {
		return
	}
	c.ending = e
	if c.endsNow() {
		c.leaveSession()
	}
	if !e.waits { // or it has a time of its own
		time.AfterFunc(farewellTime, c.abort)
	}
}

// endsNow reports whether nothing is waited for any more before the connection
// ends. It is called with mu held.
func (c *wsConn) endsNow() bool {
	return c.ending != nil && !(c.ending.waits && c.owing)
}

// ended reports whether the connection is about to end, so that no more is read.
func (c *wsConn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending != nil || c.link.ended.Load()
}

// wakeJoin is the hub's wake for j.
func (c *wsConn) wakeJoin(j *join) {
	c.mu.Lock()
	c.markReady(j)
	c.mu.Unlock()
	c.link.kick()
}

// markReady is called with mu held.
func (c *wsConn) markReady(j *join) {
	if !j.ready && !j.left {
		j.ready = true
		c.ready = append(c.ready, j)
	}
}

// lags reports whether a ready join is behind its window.
func (c *wsConn) lags() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.endsNow() {
		return false
	}
	for _, j := range c.ready {
		if j.sub != nil && j.sub.Lags() {
			return true
		}
	}
	return false
}

// said appends what no stream has to be read for.
func (c *wsConn) said(out []byte) []byte {
	c.mu.Lock()
	out, pinging := c.takeSaid(out)
	c.mu.Unlock()
	if pinging {
		out = c.appendPing(out)
	}
	return out
}

// takeSaid is called with mu held.
func (c *wsConn) takeSaid(out []byte) (_ []byte, pinging bool) {
	out = append(out, c.out...)
	pinging = c.pinging
	c.out, c.pinging = nil, false
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	return out, pinging
}

// appendPing says where each join stands. It is for gather and said, since gather
// moves them.
func (c *wsConn) appendPing(dst []byte) []byte {
	return appendWSFrame(dst, &twinrail.ServerFrame{Op: twinrail.OpPing, Cursors: c.cursors()})
}

// gather is the rail's loop: first what was said, then what follows the cursor
// of each join that was woken, turn by turn.
func (c *wsConn) gather(ctx context.Context, out []byte) ([]byte, next, error) {
	c.mu.Lock()
	out, pinging := c.takeSaid(out)
	ready := c.ready
	var ending *wsEnding
	if c.endsNow() {
		ending = c.ending
	}
	c.ready = nil
	for _, j := range ready {
		j.ready = false
	}
	c.mu.Unlock()
	if ending != nil {
		return c.appendEnding(out, ending), thenClose, nil
	}
	then := thenRest
	for i, j := range ready {
		var err error
		var parked bool
		if out, parked, err = c.follow(ctx, j, out); err != nil {
			return c.giveUp(ctx, out, err)
		}
		if !parked || len(out) >= gatherLimit {
			c.giveBack(j, parked, ready[i+1:])
			then = thenMore
			break
		}
	}
	if pinging {
		out = c.appendPing(out)
	}
	return out, then, nil
}

// giveUp ends a connection of which a stream cannot be read on: what was found
// goes out, and then why no more comes. One that has ended is only told of to
// the caller.
func (c *wsConn) giveUp(ctx context.Context, out []byte, err error) ([]byte, next, error) {
	if errors.Is(err, hub.ErrClosed) || errors.Is(err, presence.ErrClosed) || errors.Is(err, context.Canceled) {
		return out, thenClose, err
	}
	e := asError(err)
	c.server.logFailure(ctx, c.requestID(), e, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(&wsEnding{err: e, close: e.Code.Info().Close})
	return c.appendEnding(out, c.ending), thenClose, nil
}

// giveBack makes ready again those joins whose turn did not come; the one whose
// turn it was comes last.
func (c *wsConn) giveBack(current *join, parked bool, rest []*join) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range rest {
		c.markReady(j)
	}
	if !parked {
		c.markReady(current)
	}
}

// follow appends what follows the cursor of j, until nothing does or the write is
// full: first the events, then who came and went.
func (c *wsConn) follow(ctx context.Context, j *join, out []byte) (_ []byte, parked bool, err error) {
	parked = true
	if j.sub != nil {
		out, parked, err = c.followEvents(ctx, j, out)
	} else {
		out = j.appendLive(out)
	}
	if j.watch != nil && parked && err == nil {
		out, parked, err = c.followPresence(j, out)
	}
	return out, parked, err
}

func (c *wsConn) followEvents(ctx context.Context, j *join, out []byte) (_ []byte, parked bool, err error) {
	var room [8]*hub.Item
	for len(out) < gatherLimit {
		batch, err := j.sub.Next(ctx, room[:0], gatherLimit-len(out))
		switch {
		case c.hasLeft(j):
			// What was found is not delivered: the client has been told that no
			// more comes, or will be in this write.
			return out, true, nil
		case err != nil:
			return out, false, err
		case batch.Parked:
			if j.sub.CaughtUp() {
				out = j.appendLive(out)
			}
			return out, true, nil
		case batch.Reset != nil:
			out = c.appendReset(out, j.name, batch.Reset)
		}
		for _, it := range batch.Items {
			out = appendWSEvent(out, j.prefix, it.Wire)
		}
		if n := len(batch.Items); n > 0 {
			c.server.delivered[twinrail.RailWS].Add(float64(n))
		} else if batch.Reset == nil && j.sub.Lags() {
			// A page of what is for others: as in sseConn.follow.
			break
		}
	}
	return out, false, nil
}

func (c *wsConn) hasLeft(j *join) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return j.left
}

func (c *wsConn) appendReset(dst []byte, sub string, r *hub.Reset) []byte {
	c.server.metrics.resets.WithLabelValues(string(r.Reason)).Inc()
	return appendWSFrame(dst, &twinrail.ServerFrame{
		Op: twinrail.OpReset, Sub: sub, Reason: r.Reason, Oldest: r.Oldest.String(), Head: r.Head.String(),
	})
}

// cursors returns where each join stands.
func (c *wsConn) cursors() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := make(map[string]string, len(c.joins))
	for _, j := range c.joins {
		if j.sub != nil {
			at[j.name] = j.sub.Cursor().String()
		}
	}
	return at
}

func (c *wsConn) appendEnding(dst []byte, e *wsEnding) []byte {
	reason := ""
	if !e.echo {
		action := twinrail.CloseAction(e.close)
		resumable := action == twinrail.ActionResume || action == twinrail.ActionRefresh
		dst = appendWSFrame(dst, &twinrail.ServerFrame{
			Op: twinrail.OpError, Code: e.err.Code, Field: e.err.Field, Detail: detail(e.err),
			Retry: e.err.Code.Info().Retry, Action: action, Resumable: &resumable,
			RetryAfterMS: milliseconds(e.err.RetryAfter), RequestID: c.requestID(),
		})
		reason = string(e.err.Code)
	}
	var body []byte
	if e.close != 0 {
		body = ws.NewCloseFrameBody(ws.StatusCode(e.close), reason)
	}
	return append(appendWSHeader(dst, wsClose, len(body)), body...)
}

// detail returns what to tell of e, in words.
func detail(e *twinrail.Error) string {
	if e.Detail != "" {
		return e.Detail
	}
	return e.Code.Info().Title
}

// drain tells the client to come back after the given time, and ends as soon as
// a publish under way is answered.
func (c *wsConn) drain(after time.Duration) {
	c.say(&twinrail.ServerFrame{Op: twinrail.OpDrain, ReconnectAfterMS: milliseconds(after)})
	err := &twinrail.Error{Code: twinrail.CodeDraining, RetryAfter: after}
	c.finish(&wsEnding{err: err, close: err.Code.Info().Close, waits: true})
}

func (c *wsConn) rail() twinrail.Rail { return twinrail.RailWS }

func (c *wsConn) apply(*feature.Flags) {} // gestures come over the other rail

func (c *wsConn) refuse(code twinrail.Code) { c.fail(&twinrail.Error{Code: code}) }

func (c *wsConn) abort() { c.link.close(nil) }

// end is the link's last word.
func (c *wsConn) end(cause error) {
	c.mu.Lock()
	joins := c.joins
	c.joins, c.ready = nil, nil
	c.letGoLocked()
	c.leaveSession()
	var ending *twinrail.End
	if c.ending != nil && !c.ending.echo {
		ending = &twinrail.End{Code: c.ending.err.Code}
	}
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	c.mu.Unlock()
	for _, j := range joins {
		j.close()
	}
	c.server.metrics.subs.Sub(float64(len(joins)))
	code := closedCode(cause, ending)
	if cause != nil && code == twinrail.CodeInternal {
		c.server.logFailure(context.Background(), c.requestID(), &twinrail.Error{Code: code}, cause)
	}
	c.server.leave(c, code)
}

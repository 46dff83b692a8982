package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/hub"
)

// gatherLimit is about how many bytes one write takes. It bounds what a
// connection holds while its peer is slow.
const gatherLimit = 32 << 10

// serveSSE answers GET /v1/sse/canvases/{canvas_id}.
func (s *Server) serveSSE(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, twinrail.RailSSE)
	if err != nil && stopsReturning(r, err) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	reader, err := s.sseReader(ac, r)
	if err != nil {
		return err
	}
	if s.draining.Load() {
		return s.turnAway(w, r, twinrail.CodeDraining, s.returnAfter())
	}
	cursor := r.Header.Get("Last-Event-ID")
	if cursor == "" {
		cursor = r.URL.Query().Get("cursor")
	}
	kinds, err := parseKinds(r.URL.Query(), reader.Channels())
	if err != nil {
		return err
	}
	opened, err := s.engine.shares.takeOpening(r.Context(), tenantOf(ac))
	if err != nil {
		return s.overSSE(w, r, err)
	}
	if err := s.takePlace(ac); err != nil {
		opened()
		return s.overSSE(w, r, err)
	}
	c := newSSEConn(s, ac, kinds)
	sub, start, err := s.hub.Subscribe(r.Context(), reader, s.from(ac, cursor), c.kick)
	opened()
	if err != nil {
		s.leavePlace(ac)
		return s.overSSE(w, r, err)
	}
	if start.Reset != nil && r.URL.Query().Get("on_reset") == "fail" {
		sub.Close()
		s.leavePlace(ac)
		return voidCursor(start.Reset.Reason)
	}
	c.begin(sub, start)
	sseHeader(w.Header())
	if r.ProtoMajor == 1 {
		return s.hijackSSE(w, c)
	}
	return serveHTTP2(w, r, c)
}

// stopsReturning reports whether err is the answer to an EventSource that comes
// back and should not have: 204 is how the format tells it to stop.
func stopsReturning(r *http.Request, err error) bool {
	if r.Header.Get("Last-Event-ID") == "" {
		return false
	}
	code := twinrail.CodeOf(err)
	return code == twinrail.CodeCredentialRevoked || code == twinrail.CodeRailDisabled
}

// sseReader authorizes what the request asks to read. Without channels it is
// what the grants cover of the default ones.
func (s *Server) sseReader(ac *auth.Context, r *http.Request) (auth.Reader, error) {
	var stated twinrail.Routing // the context has the canvas, too, from the path
	list := r.URL.Query().Get("channels")
	if list == "" {
		return ac.ReaderOfAny(stated, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit, twinrail.Artifact))
	}
	want, err := parseChannels(list)
	if err != nil {
		return auth.Reader{}, err
	}
	for _, ch := range want.Channels() {
		if ch.Rail() != twinrail.RailSSE {
			return auth.Reader{}, twinrail.Errorf(twinrail.CodeWrongRail, "channels", "%s is carried by the WS rail", ch)
		}
	}
	return ac.Reader(stated, twinrail.CanvasStream, want)
}

// parseChannels reads a list of channels, separated by commas.
func parseChannels(list string) (twinrail.ChannelSet, error) {
	var set twinrail.ChannelSet
	for name := range strings.SplitSeq(list, ",") {
		ch := twinrail.Channel(name)
		if !ch.Valid() {
			return 0, twinrail.Errorf(twinrail.CodeBadRequest, "channels", "must list commit, artifact, gesture, chat, tool or presence, separated by commas")
		}
		set |= twinrail.ChannelsOf(ch)
	}
	return set, nil
}

func sseHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
}

// turnAway answers who cannot be served now. Any status but 200 would stop a
// native EventSource for good, so it is given a stream that ends at once, and a
// time to come back. Over HTTP/2 other streams share its connection, which is given
// up only where they have to go as well.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, code twinrail.Code, after time.Duration) error {
	sseHeader(w.Header())
	if r.ProtoMajor == 1 || code == twinrail.CodeDraining {
		// To net/http, over HTTP/2: it takes no more streams, and ends after the last.
		w.Header().Set("Connection", "close")
	}
	b := appendRetry(nil, after)
	_, err := w.Write(appendSSE(b, twinrail.SSEEnd, twinrail.End{Code: code, Reconnect: true}))
	return err
}

func appendRetry(dst []byte, d time.Duration) []byte {
	return append(strconv.AppendInt(append(dst, "retry: "...), milliseconds(d), 10), "\n\n"...)
}

// hijackSSE takes the connection over from net/http. The body is delimited by
// its end, so that shared bytes go out as they are.
func (s *Server) hijackSSE(w http.ResponseWriter, c *sseConn) error {
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	w.Header().Set("Connection", "close")
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	_ = w.Header().Write(&head) // into memory
	head.WriteString("\r\n")
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		c.end(err)
		s.leavePlace(c.context())
		return fmt.Errorf("hijack: %w", err)
	}
	_ = nc.SetDeadline(time.Time{}) // net/http's own
	c.pending = append(head.Bytes(), c.pending...)
	l := newLink(s.engine, tenantOf(c.context()), nc, c, nil)
	c.carrier = l
	s.enter(c)
	l.start()
	return nil
}

// carrier takes a connection's stream to the client: a link, or over HTTP/2 an
// h2stream.
type carrier interface {
	// kick says that there is something to write. It never blocks.
	kick()
	// kickNow is kick for what the client waits for.
	kickNow()
	// hurry has the next write not be held to be gathered.
	hurry()
	// close ends it at once; the cause is nil where that was meant.
	close(cause error)
}

// sseConn is one connection of the SSE rail.
type sseConn struct {
	// Fixed before enter.
	server  *Server
	id      string
	sub     *hub.Sub
	carrier carrier
	kinds   kindFilter

	auth atomic.Pointer[auth.Context]
	over atomic.Bool // ending is set

	// Owned by tick.
	nextHeartbeat time.Time
	lifetime      lifetime

	// Owned by gather.
	live      bool
	told      twinrail.Cursor // the last id that the client was told
	ephemeral int             // bytes of the write that are gestures

	mu        sync.Mutex
	pending   []byte // to be written before anything else
	heartbeat bool   // a comment is due
	ending    *twinrail.End
	retry     time.Duration // told with ending, where not 0
}

func newSSEConn(s *Server, ac *auth.Context, kinds kindFilter) *sseConn {
	c := &sseConn{server: s, id: newID("c_"), kinds: kinds}
	c.auth.Store(ac)
	return c
}

func (c *sseConn) name() string { return c.id }

func (c *sseConn) context() *auth.Context { return c.auth.Load() }

func (c *sseConn) expires() time.Time { return c.context().Principal().ExpiresAt() }

// renew is called from any goroutine. The next tick, which comes before the old
// end, finds the new one.
func (c *sseConn) renew(was, ac *auth.Context) bool {
	if !c.auth.CompareAndSwap(was, ac) {
		return false
	}
	if err := ac.Allows(c.sub.Reader()); err != nil {
		c.finish(twinrail.End{Code: twinrail.CodeOf(err)}, 0)
	}
	return true
}

func (c *sseConn) rail() twinrail.Rail { return twinrail.RailSSE }

func (c *sseConn) apply(flags *feature.Flags) { c.sub.SetGestures(flags.GestureFanout) }

func (c *sseConn) refuse(code twinrail.Code) { c.finish(twinrail.End{Code: code}, 0) }

// finish has the stream end.
func (c *sseConn) finish(e twinrail.End, retry time.Duration) {
	c.mu.Lock()
	c.endLocked(e, retry)
	c.mu.Unlock()
	c.carrier.kickNow()
}

// begin takes in what the client is told first.
func (c *sseConn) begin(sub *hub.Sub, start hub.Start) {
	open := twinrail.Open{ConnectionID: c.id, Cursor: start.Cursor.String(), Head: start.Head.String(), Resumed: start.Resumed}
	if start.Reset != nil {
		open.Reason = start.Reset.Reason
	}
	b := appendRetry(nil, 2*time.Second+rand.N(3*time.Second))
	if start.Reset != nil {
		// No id before the reset: a client that is cut off between the two would
		// come back to the head, and never learn what it has missed.
		b = c.appendReset(appendSSE(b, twinrail.SSEOpen, open), start.Reset)
	} else {
		// With an id, a client that is cut off before its first event comes back
		// to where it was.
		b = appendSSE(appendSSEID(b, start.Cursor), twinrail.SSEOpen, open)
	}
	c.sub, c.pending, c.told = sub, b, start.Cursor
	c.server.metrics.subs.Inc()
}

func (c *sseConn) appendReset(dst []byte, r *hub.Reset) []byte {
	c.server.metrics.resets.WithLabelValues(string(r.Reason)).Inc()
	return appendSSE(appendSSEID(dst, r.Head), twinrail.SSEReset, twinrail.Reset{
		Reason: r.Reason, Requested: requested(r.Requested), Oldest: r.Oldest.String(), Head: r.Head.String(),
	})
}

// requested returns what the client called its cursor, cut where it is longer
// than any cursor.
func requested(cursor string) string {
	const maxCursor = 128
	return strings.ToValidUTF8(cursor[:min(len(cursor), maxCursor)], "")
}

// kick is the hub's wake. None comes before the carrier has driven the connection.
func (c *sseConn) kick() { c.carrier.kick() }

// said appends what does not come from the stream.
func (c *sseConn) said(out []byte) []byte {
	c.mu.Lock()
	out, heartbeat := c.takeSaid(out)
	c.mu.Unlock()
	if heartbeat {
		out = c.appendHeartbeat(out)
	}
	return out
}

// takeSaid is called with mu held.
func (c *sseConn) takeSaid(out []byte) (_ []byte, heartbeat bool) {
	out = append(out, c.pending...)
	heartbeat = c.heartbeat
	c.pending, c.heartbeat = nil, false
	return out, heartbeat
}

// gather is the rail's loop: what follows the cursor, until nothing does.
func (c *sseConn) gather(ctx context.Context, out []byte) ([]byte, next, error) {
	c.mu.Lock()
	out, heartbeat := c.takeSaid(out)
	ending, retry := c.ending, c.retry
	c.mu.Unlock()
	if ending != nil {
		if retry > 0 {
			out = appendRetry(out, retry)
		}
		return appendSSE(out, twinrail.SSEEnd, ending), thenClose, nil
	}
	c.ephemeral = 0
	out, then, err := c.follow(ctx, out)
	if err != nil {
		return c.giveUp(ctx, out, err)
	}
	if heartbeat && then == thenRest {
		out = c.appendHeartbeat(out)
	}
	if c.ephemeral > 0 && c.ephemeral == len(out) {
		// A commit that comes next is not held up by these: they have a pace of
		// their own.
		c.carrier.hurry()
	}
	return out, then, nil
}

// giveUp ends a stream that cannot be read on: what was found goes out, and then
// why no more comes. A connection that has ended is only told of to the caller.
func (c *sseConn) giveUp(ctx context.Context, out []byte, err error) ([]byte, next, error) {
	if errors.Is(err, hub.ErrClosed) || errors.Is(err, context.Canceled) {
		return out, thenClose, err
	}
	e := asError(err)
	c.server.logFailure(ctx, c.context().RequestID(), e, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(twinrail.End{Code: e.Code, Reconnect: true}, 0)
	return appendSSE(out, twinrail.SSEEnd, c.ending), thenClose, nil
}

func (c *sseConn) follow(ctx context.Context, out []byte) ([]byte, next, error) {
	var room [8]*hub.Item
	for len(out) < gatherLimit {
		batch, err := c.sub.Next(ctx, room[:0], gatherLimit-len(out))
		if err != nil {
			return out, thenClose, err
		}
		delivered := 0
		for _, it := range batch.Items {
			if c.kinds.wants(it.Channel, it.Label) {
				out = append(out, it.Wire...)
				c.told = it.Cursor
				delivered++
			}
		}
		for _, it := range batch.Gestures {
			out = append(out, it.Wire...)
			c.ephemeral += len(it.Wire)
		}
		if delivered += len(batch.Gestures); delivered > 0 {
			c.server.delivered[twinrail.RailSSE].Add(float64(delivered))
		}
		if batch.Reset != nil {
			out = c.appendReset(out, batch.Reset)
			c.told = batch.Reset.Head
		}
		if batch.Parked {
			if c.sub.CaughtUp() {
				out = c.appendLive(out)
			}
			return out, thenRest, nil
		}
		if delivered == 0 && c.sub.Lags() {
			// A page of what is for others. Before the next one it is to be seen
			// whether the connection still goes on, and whose turn it is.
			break
		}
	}
	return out, thenMore, nil
}

// appendLive tells, once, that the backlog is done.
func (c *sseConn) appendLive(dst []byte) []byte {
	if c.live {
		return dst
	}
	c.live = true
	c.told = c.sub.Cursor()
	return appendSSE(appendSSEID(dst, c.told), twinrail.SSELive, twinrail.Live{Cursor: c.told.String()})
}

// appendHeartbeat writes a comment, and with it, where the cursor went past
// events that were for others, the id to come back to.
func (c *sseConn) appendHeartbeat(dst []byte) []byte {
	dst = append(dst, ":\n"...)
	if at := c.sub.Cursor(); at != c.told {
		c.told = at
		dst = appendSSEID(dst, at)
	}
	return append(dst, '\n')
}

func (c *sseConn) lags() bool { return c.sub.Lags() && !c.over.Load() }

// readable means that the client is gone, or sent what it has no reason to send.
func (c *sseConn) readable() { c.carrier.close(errPeerGone) }

// tick does what is due by the clock: comments, and the credential's end.
func (c *sseConn) tick(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	kick := false
	if c.nextHeartbeat.IsZero() {
		c.nextHeartbeat = now.Add(jitter(c.server.opts.Heartbeat))
	} else if !now.Before(c.nextHeartbeat) {
		c.nextHeartbeat = now.Add(jitter(c.server.opts.Heartbeat))
		c.heartbeat, kick = true, true
	}
	expires := c.expires()
	warn, over, next := c.lifetime.at(now, expires)
	switch {
	case over:
		c.endLocked(twinrail.End{Code: twinrail.CodeCredentialExpired, Reconnect: true}, 0)
	case warn:
		c.pending = appendSSE(c.pending, twinrail.SSEAuthExpiring, twinrail.AuthExpiring{ExpiresAt: expires.UTC()})
	}
	if kick || warn || over {
		// Without the lock's owner going on, nothing waits for it.
		defer c.carrier.kickNow()
	}
	return earlier(c.nextHeartbeat, next)
}

// jitter returns d ±10 %.
func jitter(d time.Duration) time.Duration {
	spread := d / 10
	return d - spread + rand.N(2*spread+1)
}

// endLocked decides how the stream ends, unless that is decided.
func (c *sseConn) endLocked(e twinrail.End, retry time.Duration) {
	if c.ending != nil {
		return
	}
	c.ending, c.retry = &e, retry
	c.over.Store(true)
	if e.Code != twinrail.CodeDraining { // which has a time of its own
		time.AfterFunc(farewellTime, c.abort)
	}
}

// drain tells the client to come back after the given time, and ends.
func (c *sseConn) drain(after time.Duration) {
	c.finish(twinrail.End{Code: twinrail.CodeDraining, Reconnect: true}, after)
}

// abort ends the connection at once.
func (c *sseConn) abort() { c.carrier.close(nil) }

// end is the carrier's last word.
func (c *sseConn) end(cause error) {
	c.sub.Close()
	c.server.metrics.subs.Dec()
	c.mu.Lock()
	code := closedCode(cause, c.ending)
	c.mu.Unlock()
	if cause != nil && code == twinrail.CodeInternal {
		c.server.logFailure(context.Background(), c.context().RequestID(), &twinrail.Error{Code: code}, cause)
	}
	c.server.leave(c, code)
}

package server

import (
	"context"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/twinrail/twinrail"
)

// SetHTTP2 sets what the http.Server that serves Handler needs for HTTP/2. A
// connection's writes are net/http's there, and so it is net/http that gives up a
// peer which takes nothing, or is gone without a word; but for a stream that is to
// end, which gives up its connection sooner.
func (s *Server) SetHTTP2(web *http.Server) {
	web.HTTP2 = &http.HTTP2Config{
		WriteByteTimeout: s.opts.WriteTimeout,
		SendPingTimeout:  s.opts.Heartbeat,
		PingTimeout:      s.opts.Heartbeat,
	}
	web.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, nc)
	}
}

// connKey is the key of a request's net.Conn in its context.
type connKey struct{}

// h2stream is what a link is to an HTTP/1.1 connection: net/http keeps the stream,
// and the handler's goroutine drives it, which the engine waits for.
type h2stream struct {
	conn    *sseConn
	cancel  context.CancelFunc
	wake    chan struct{}                      // one token
	waiting atomic.Pointer[context.CancelFunc] // ends its wait in line, where it is in one
}

func (s *h2stream) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if stop := s.waiting.Load(); stop != nil {
		(*stop)()
	}
}

func (s *h2stream) kickNow() { s.kick() }

// hurry does nothing, as kickNow no more than kick: a stream always keeps to the
// gather interval.
func (s *h2stream) hurry() {}

func (s *h2stream) close(error) { s.cancel() }

// serveHTTP2 has c go over the stream of a request.
func serveHTTP2(w http.ResponseWriter, r *http.Request, c *sseConn) (err error) {
	left, ok := c.server.engine.enter()
	if ok {
		defer left()
	}
	defer func() { c.end(err) }()
	if !ok {
		return abandoned(context.Canceled)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &h2stream{conn: c, cancel: cancel, wake: make(chan struct{}, 1)}
	c.carrier = s
	c.server.enter(c)
	defer s.startClock(ctx).Stop()
	w.WriteHeader(http.StatusOK)
	if err := s.drive(ctx, w); err != nil {
		return abandoned(err)
	}
	return nil
}

// drive returns when the stream has said its last, or cannot go on.
func (s *h2stream) drive(ctx context.Context, w http.ResponseWriter) error {
	rc := http.NewResponseController(w)
	var buf []byte
	var wrote time.Time // when the last write ended
	for {
		out, then, err := s.gather(ctx, buf[:0])
		if err != nil {
			return err
		}
		buf = out
		if len(out) > 0 {
			if err := s.write(ctx, w, rc, out); err != nil {
				return err
			}
			wrote = time.Now()
		}
		if then == thenClose {
			return nil
		}
		if then == thenMore {
			continue
		}
		if cap(buf) > gatherLimit {
			buf = nil
		}
		select {
		case <-s.wake:
			// What comes within the gather interval after a write shares the next.
			err = sleep(ctx, s.conn.server.opts.Gather-time.Since(wrote))
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// sleep returns early, with ctx.Err(), when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startClock has tick called when it is due, until ctx ends, and for the first time
// before it returns. A write that waits for the peer does not hold it up.
func (s *h2stream) startClock(ctx context.Context) (clock *time.Timer) {
	tick := func() {
		now := time.Now()
		if next := s.conn.tick(now); ctx.Err() == nil {
			clock.Reset(max(next.Sub(now), time.Millisecond))
		}
	}
	clock = time.AfterFunc(math.MaxInt64, tick)
	tick()
	return clock
}

// gather is the connection's, which waits its turn among the reads of the tenant
// where it reads the journal. What was said already, or is while it waits, does not
// wait.
func (s *h2stream) gather(ctx context.Context, out []byte) ([]byte, next, error) {
	c := s.conn
	if !c.lags() {
		return c.gather(ctx, out)
	}
	turn, stop := context.WithCancel(ctx)
	defer stop()
	s.waiting.Store(&stop)
	defer s.waiting.Store(nil)
	if out = c.said(out); len(out) > 0 || c.over.Load() {
		return out, thenMore, nil
	}
	done, err := c.server.engine.shares.takeRead(turn, tenantOf(c.context()))
	switch {
	case err == nil:
		defer done()
		return c.gather(ctx, out)
	case turn.Err() != nil && ctx.Err() == nil:
		return out, thenMore, nil
	}
	return c.giveUp(ctx, out, err)
}

// write writes and flushes b, and fails when ctx ends. The errors of net/http do not
// tell a stream that has been left, or cut off here, from one whose deadline is over;
// the clock does.
func (s *h2stream) write(ctx context.Context, w http.ResponseWriter, rc *http.ResponseController, b []byte) error {
	deadline := time.Now().Add(s.conn.server.opts.WriteTimeout)
	// A stream that cannot have a deadline is bounded by the client's own.
	_ = rc.SetWriteDeadline(deadline)
	done, cut := make(chan struct{}), make(chan struct{})
	written := context.AfterFunc(ctx, func() {
		defer close(cut)
		cutOff(ctx, rc, done)
	})
	_, err := w.Write(b)
	if err == nil {
		err = rc.Flush()
	}
	close(done)
	if !written() {
		<-cut // a response must not be touched after its handler has returned
	}
	switch {
	case err == nil:
		// Over HTTP/2 a deadline that passes ends a stream at rest, too.
		_ = rc.SetWriteDeadline(time.Time{})
		return nil
	case time.Now().Before(deadline):
		return errPeerGone
	}
	return &twinrail.Error{Code: twinrail.CodeTooSlow}
}

// cutOff ends a stream's write, which is over when done is closed. To that end
// net/http writes a frame, ahead of all that any stream has to say: a connection on
// which that does not get through takes nothing, or next to nothing, and is closed.
func cutOff(ctx context.Context, rc *http.ResponseController, done <-chan struct{}) {
	_ = rc.SetWriteDeadline(time.Unix(1, 0))
	nc, ok := ctx.Value(connKey{}).(net.Conn)
	if !ok {
		return // the http.Server is not one of SetHTTP2
	}
	select {
	case <-done:
	case <-time.After(stuckTime):
		_ = nc.Close()
	}
}

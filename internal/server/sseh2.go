package server

import (
	"context"
	"net/http"
	"time"

	"github.com/twinrail/twinrail"
)

// serveHTTP2 is what a link is to an HTTP/1.1 connection: net/http keeps the
// stream, and the handler's goroutine drives it.
func (c *sseConn) serveHTTP2(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() { c.end(err) }()
	c.server.enter(c)
	share := c.server.engine.shares.join(tenantOf(c.context()))
	defer c.server.engine.shares.leave(share)
	rc := http.NewResponseController(w)
	tick := time.NewTimer(0)
	defer tick.Stop()
	w.WriteHeader(http.StatusOK)
	var buf []byte
	var wrote time.Time // when the last write ended
	for {
		out, then, err := c.gatherHTTP2(r.Context(), share, buf[:0])
		if err != nil {
			return abandoned(err)
		}
		buf = out
		if len(out) > 0 {
			if err := c.writeHTTP2(w, rc, out); err != nil {
				return abandoned(err)
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
		case <-c.wake:
			// What comes within the gather interval after a write shares the next.
			if wait := c.server.opts.Gather - time.Since(wrote); wait > 0 {
				time.Sleep(wait)
			}
		case <-tick.C:
			now := time.Now()
			tick.Reset(max(c.tick(now).Sub(now), time.Millisecond))
		case <-r.Context().Done():
			return abandoned(r.Context().Err())
		}
	}
}

// gatherHTTP2 is gather, which waits its turn among the reads of the tenant where
// it reads the journal.
func (c *sseConn) gatherHTTP2(ctx context.Context, s *share, out []byte) ([]byte, next, error) {
	if c.lags() {
		if err := s.reads.wait(ctx, 1); err != nil {
			return out, thenClose, err
		}
		defer s.reads.give(1)
	}
	return c.gather(ctx, out)
}

// writeHTTP2 writes and flushes b. The errors of net/http do not tell a stream
// that the client has left from one whose deadline is over; the clock does.
func (c *sseConn) writeHTTP2(w http.ResponseWriter, rc *http.ResponseController, b []byte) error {
	deadline := time.Now().Add(c.server.opts.WriteTimeout)
	// A stream that cannot have a deadline is bounded by the client's own.
	_ = rc.SetWriteDeadline(deadline)
	_, err := w.Write(b)
	if err == nil {
		err = rc.Flush()
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

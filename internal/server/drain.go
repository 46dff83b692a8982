package server

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/twinrail/twinrail"
)

// enter registers a connection, which has its place already. One that comes in while the server drains is told
// to go at once, and one that comes in after Close is cut off.
func (s *Server) enter(c connection) {
	s.metrics.connections.WithLabelValues(string(c.rail())).Inc()
	s.metrics.opened.WithLabelValues(string(c.rail())).Inc()
	s.mu.Lock()
	s.connections.add(c)
	late, closed := s.idle != nil, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		c.abort()
	case late:
		c.drain(s.returnAfter())
	default:
		s.recheck(c) // what may have changed since it was admitted
	}
}

// leave takes a connection out, and gives back its place; one that is not in it any more is passed over.
func (s *Server) leave(c connection, code twinrail.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.connections.remove(c) {
		return
	}
	s.leavePlace(c.context())
	s.metrics.connections.WithLabelValues(string(c.rail())).Dec()
	s.metrics.closed.WithLabelValues(string(c.rail()), string(code)).Inc()
	s.checkIdle()
}

// accept lets a publish of a WebSocket begin, unless the server drains; done
// must be called when it has been answered.
func (s *Server) accept() (done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		return nil, false
	}
	s.publishing++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.publishing--
		s.checkIdle()
	}, true
}

// checkIdle is called with mu held, after something has ended.
func (s *Server) checkIdle() {
	if s.idle != nil && s.connections.n == 0 && s.publishing == 0 {
		select {
		case <-s.idle:
		default:
			close(s.idle)
		}
	}
}

// Drain refuses what is new, tells every connection when to come back, spread
// over the drain window, and waits until all have gone and every publish of a
// WebSocket is answered. When ctx ends first, what is left is cut off, and
// ctx.Err() returned. Requests over HTTP are the http.Server's to wait for.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.refuse()
	all := s.open()
	s.checkIdle()
	s.mu.Unlock()
	apart := s.opts.DrainWindow / time.Duration(max(len(all), 1))
	for _, c := range all {
		c.drain(s.nextReturn(apart))
	}
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		s.abort()
		return ctx.Err()
	}
}

// refuse begins to turn away what is new. It is called with mu held.
func (s *Server) refuse() {
	s.draining.Store(true)
	if p := s.engine.shares.pacer; p != nil {
		p.stop() // what is in line is to be finished
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
}

// open is called with mu held.
func (s *Server) open() []connection {
	return s.connections.list(func(tenant) bool { return true })
}

func (s *Server) abort() {
	s.mu.Lock()
	all := s.open()
	s.mu.Unlock()
	for _, c := range all {
		c.abort()
	}
}

// Close cuts off every connection, and waits for what works for them: those that
// have ended already have a moment to read how. Drain is the polite way to come to
// this.
func (s *Server) Close() {
	s.mu.Lock()
	s.refuse()
	s.closed = true
	s.mu.Unlock()
	s.abort()
	s.stop()
	s.engine.close()
	if err := s.sessions.Close(); err != nil {
		s.log.Error("sessions were not kept", "err", err)
	}
}

// soonestReturn is how long a client that is sent away stays away at least.
const soonestReturn = time.Second

// returnAfter says when a client that comes while the server drains is to come
// back.
func (s *Server) returnAfter() time.Duration { return s.nextReturn(0) }

// nextReturn gives one client its own moment to come back: apart from the one
// before it, and so far that not more than ReturnRate come in a second. Within
// its share of time the moment is random, so that servers which drain at once do
// not send theirs to the same moments.
func (s *Server) nextReturn(apart time.Duration) time.Duration {
	apart = max(apart, time.Second/time.Duration(s.opts.ReturnRate), 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	from := s.lastReturn
	if soonest := now.Add(soonestReturn); from.Before(soonest) {
		from = soonest
	}
	s.lastReturn = from.Add(apart)
	return from.Sub(now) + rand.N(apart)
}

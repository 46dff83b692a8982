package server

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/twinrail/twinrail"
)

// enter registers a session. One that comes in while the server drains is told
// to go at once, and one that comes in after Close is cut off.
func (s *Server) enter(c session, rail twinrail.Rail) {
	s.metrics.connections.WithLabelValues(string(rail)).Inc()
	s.metrics.opened.WithLabelValues(string(rail)).Inc()
	s.mu.Lock()
	s.sessions[c] = struct{}{}
	late, closed := s.idle != nil, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		c.abort()
	case late:
		c.drain(s.returnAfter())
	}
}

// leave takes a session out; one that is not in it any more is passed over.
func (s *Server) leave(c session, rail twinrail.Rail, code twinrail.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, in := s.sessions[c]; !in {
		return
	}
	delete(s.sessions, c)
	s.metrics.connections.WithLabelValues(string(rail)).Dec()
	s.metrics.closed.WithLabelValues(string(rail), string(code)).Inc()
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
	if s.idle != nil && len(s.sessions) == 0 && s.publishing == 0 {
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
	sessions := s.open()
	s.checkIdle()
	s.mu.Unlock()
	for _, c := range sessions {
		c.drain(s.returnAfter())
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
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
}

// open is called with mu held.
func (s *Server) open() []session {
	all := make([]session, 0, len(s.sessions))
	for c := range s.sessions {
		all = append(all, c)
	}
	return all
}

func (s *Server) abort() {
	s.mu.Lock()
	sessions := s.open()
	s.mu.Unlock()
	for _, c := range sessions {
		c.abort()
	}
}

// Close cuts off every connection, and waits for what works for them. Drain is
// the polite way to come to this.
func (s *Server) Close() {
	s.mu.Lock()
	s.refuse()
	s.closed = true
	s.mu.Unlock()
	s.abort()
	s.stop()
	s.engine.close()
}

// returnAfter draws when a client is to come back.
func (s *Server) returnAfter() time.Duration {
	const soonest = time.Second
	return soonest + rand.N(max(s.opts.DrainWindow, time.Millisecond))
}

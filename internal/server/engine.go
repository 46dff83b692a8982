package server

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// engine drives the links of a server.
type engine struct {
	// Fixed.
	ctx          context.Context
	gather       time.Duration
	writeTimeout time.Duration
	started      time.Time
	metrics      *metrics
	watcher      watcher
	gatherer     *gatherer
	buffers      sync.Pool // of *[]byte, to gather into
	maxWorkers   int
	maxDrivers   int // for each tenant
	shares       shares

	wg sync.WaitGroup // all goroutines that work for links; see spawn

	mu      sync.Mutex
	closed  bool
	turns   fifo[*share] // of which a link is ready, each once
	ready   int          // links, of all shares
	workers int
}

// newEngine takes over w.
func newEngine(ctx context.Context, o *Options, m *metrics, w watcher) *engine {
	e := &engine{
		ctx: ctx, gather: o.Gather, writeTimeout: o.WriteTimeout, started: time.Now(), metrics: m,
		watcher: w, maxWorkers: runtime.GOMAXPROCS(0), maxDrivers: bulk(),
		shares:  shares{of: make(map[tenant]*share)},
		buffers: sync.Pool{New: func() any { return new([]byte) }},
	}
	e.gatherer = newGatherer(e)
	e.shares.pacer = newPacer(ctx, o.MaxLateness, e.spawn)
	return e
}

// close waits for all that works for links. All of these must have been closed;
// what still comes for them, such as a wake that was under way, does nothing.
func (e *engine) close() {
	e.watcher.close()
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.wg.Wait()
}

// spawn calls f in a goroutine that close waits for.
func (e *engine) spawn(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.wg.Go(f)
	}
}

// enter has close wait for a goroutine that net/http started, until left is
// called; not ok where it is too late for that.
func (e *engine) enter() (left func(), ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, false
	}
	e.wg.Add(1)
	return e.wg.Done, true
}

// now is the engine's clock: nanoseconds since its start, never 0.
func (e *engine) now() int64 { return int64(time.Since(e.started)) + 1 }

// run has queued links driven.
func (e *engine) run(links ...*link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runLocked(links...)
}

func (e *engine) runLocked(links ...*link) {
	if e.closed {
		return
	}
	for _, l := range links {
		if l.share.ready.len() == 0 {
			e.turns.push(l.share)
		}
		l.share.ready.push(l)
	}
	e.ready += len(links)
	e.staff()
}

// staff starts the workers that there is work for. It is called with mu held.
func (e *engine) staff() {
	for e.workers < min(e.maxWorkers, e.ready) {
		e.workers++
		e.wg.Go(e.work)
	}
}

func (e *engine) work() {
	for l := e.pop(); l != nil; l = e.pop() {
		if l.state.CompareAndSwap(queued, running) && !l.drive() {
			return
		}
	}
}

// pop returns the next link of the tenant whose turn it is. It returns nil, and
// takes the worker off the list, when nothing is ready.
func (e *engine) pop() *link {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ready == 0 {
		e.workers--
		return nil
	}
	e.ready--
	s := e.turns.pop()
	l := s.ready.pop()
	if s.ready.len() > 0 {
		e.turns.push(s)
	}
	return l
}

// endWorker is called by a worker that takes no more links.
func (e *engine) endWorker() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.workers--
	e.staff()
}

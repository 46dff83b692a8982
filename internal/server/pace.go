package server

import (
	"context"
	"os"
	"sync/atomic"
	"time"
)

const (
	// paceInterval is how often a pacer looks.
	paceInterval = 5 * time.Millisecond
	// maxPause bounds the pause between two turns of a tenant.
	maxPause = 20 * time.Millisecond
	// A pause grows by a quarter of itself, and at least from firstPause, as often
	// as input was noticed too late, and is halved by some 90 times in time: it
	// comes quickly, since all tenants suffer, and goes slowly, or what it holds
	// back would come in bursts.
	firstPause = 100 * time.Microsecond
	pauseGrows = 4
	pauseFades = 128
	// paceLinger is for how long a pacer looks on with nobody in line.
	paceLinger = time.Second
)

// pacer finds a pause between the turns of a tenant that always has somebody in
// line, so that what others send is noticed in time.
//
// To take turns is not enough for that. The runtime looks for input when a
// processor has nothing to run, and else only every 10 ms; a tenant that keeps all
// processors busy, with however few requests at a time, adds these to what all
// others wait. So a pacer sends itself input, and looks how late it comes.
//
// It looks only while somebody is in line.
type pacer struct {
	// Fixed.
	ctx   context.Context // after which nobody is paced
	stop  context.CancelFunc
	late  time.Duration // that input may be noticed at most
	spawn func(func())
	open  func() (signal, error)

	pause   atomic.Int64
	asked   atomic.Bool // since the pacer looked last
	running atomic.Bool
}

// signal is input that is sent to oneself. Its methods are not called
// concurrently.
type signal interface {
	// lateness returns after how long the last input was noticed, or if it is not
	// yet, for how long it has been there; in the first case it sends the next.
	lateness() time.Duration
	close()
}

// newPacer returns a pacer that runs with the help of spawn, until ctx ends or stop
// is called; nil where late is negative.
func newPacer(ctx context.Context, late time.Duration, spawn func(func())) *pacer {
	if late < 0 {
		return nil
	}
	p := &pacer{late: late, spawn: spawn, open: openPipe}
	p.ctx, p.stop = context.WithCancel(ctx)
	return p
}

// between returns how long a tenant that has somebody in line pauses before its
// next turn, as long as it is not alone.
func (p *pacer) between() time.Duration {
	if p.ctx.Err() != nil {
		return 0
	}
	p.asked.Store(true)
	if p.running.CompareAndSwap(false, true) {
		p.spawn(p.run)
	}
	return time.Duration(p.pause.Load())
}

func (p *pacer) run() {
	defer p.running.Store(false)
	defer p.pause.Store(0)
	s, err := p.open()
	if err != nil {
		return // no descriptors are left: more are opened than handled, at least
	}
	defer s.close()
	ticks := time.NewTicker(paceInterval)
	defer ticks.Stop()
	for idle := time.Duration(0); idle < paceLinger; idle += paceInterval {
		select {
		case <-p.ctx.Done():
			return
		case <-ticks.C:
		}
		p.pause.Store(int64(adjust(time.Duration(p.pause.Load()), s.lateness() > p.late)))
		if p.asked.Swap(false) {
			idle = 0
		}
	}
}

// adjust returns the pause that follows pause.
func adjust(pause time.Duration, late bool) time.Duration {
	if late {
		return min(max(pause+pause/pauseGrows, firstPause), maxPause)
	}
	if pause < firstPause {
		return 0
	}
	return pause - pause/pauseFades
}

// pipe is a signal through a pipe, which the runtime polls as it does sockets.
type pipe struct {
	r, w    *os.File
	started time.Time
	sent    atomic.Int64 // after started; 0 when it was noticed
	took    atomic.Int64 // until the last one was noticed
	done    chan struct{}
}

func openPipe() (signal, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &pipe{r: r, w: w, started: time.Now(), done: make(chan struct{})}
	go p.read()
	return p, nil
}

func (p *pipe) read() {
	defer close(p.done)
	for b := make([]byte, 1); ; {
		if _, err := p.r.Read(b); err != nil {
			return // closed
		}
		p.took.Store(int64(time.Since(p.started)) - p.sent.Load())
		p.sent.Store(0)
	}
}

func (p *pipe) lateness() time.Duration {
	now := int64(time.Since(p.started))
	if sent := p.sent.Load(); sent != 0 {
		return time.Duration(now - sent)
	}
	took := p.took.Load()
	p.sent.Store(max(now, 1))
	// One byte is on its way at most, so the pipe has room for it. An error would
	// be of a closed pipe; unnoticed input then makes for the longest pause.
	_, _ = p.w.Write([]byte{0})
	return time.Duration(took)
}

func (p *pipe) close() {
	_ = p.w.Close() // which ends read
	<-p.done
	_ = p.r.Close()
}

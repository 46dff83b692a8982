package server

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twinrail/twinrail"
)

// A link is a connection that was taken over from net/http. At rest it is this
// record, one timer and an entry in the watcher: no goroutine, no buffer. When
// there is something to write, a worker of the engine drives it, and it is at
// rest again once its rail has nothing left.
//
// A write that follows another one within the gather interval waits for the end
// of the interval, and takes along all that has come by then.
type link struct {
	// Fixed.
	engine *engine
	nc     net.Conn
	sealed *sealed         // below nc, where that is TLS which takes turns; else nil
	raw    syscall.RawConn // nil where a write cannot be tried without blocking
	rail   rail
	share  *share // of its tenant
	timer  *time.Timer

	state     atomic.Int32
	urgent    atomic.Bool  // the next write is not to be gathered
	lastWrite atomic.Int64 // when the last write ended, on the engine's clock
	ended     atomic.Bool
	lined     bool // it is in its share's line of those that lag; guarded by engine.mu

	// peeked is what a watcher had to read to learn that the link is readable.
	// Owned by the watcher, and by the rail from readable to the next watch.
	peeked []byte
}

// rail is one connection's side of a link: what it says when it may write, and
// what it makes of what it reads.
type rail interface {
	// gather appends to out what is to be written now; nothing appended means
	// that there is nothing, and that the link will be kicked when there is.
	// Calls do not overlap.
	gather(ctx context.Context, out []byte) ([]byte, next, error)
	// said is gather for what takes no stream to be read. Its calls do not overlap
	// with gather's.
	said(out []byte) []byte
	// lags reports whether gather may wait for the disk.
	lags() bool
	// readable is called, in a goroutine of its own and once after each watch,
	// when the peer has sent something or is gone.
	readable()
	// tick does what is due, and returns when it is to be called again.
	tick(now time.Time) time.Time
	// end is called once, when the last write has gone out or the link is closed.
	end(cause error)
}

// next says how a link goes on after a write.
type next int

const (
	thenRest  next = iota // there was nothing more
	thenMore              // more follows at once
	thenClose             // that was the last
)

// The states of a link.
const (
	atRest  int32 = iota
	queued        // a worker or the gatherer will drive it
	running       // it is being driven
	again         // it is being driven, and was kicked since
	inLine        // a driver will, when it is its turn among those that lag
)

// lingerTime is how long a link that has ended waits for its peer to take the
// last bytes and to close.
const lingerTime = 2 * time.Second

var (
	errPeerGone        = errors.New("the peer is gone")
	errUnexpectedInput = errors.New("the peer sent what the rail has no use for")
)

// newLink returns a link of t's that may be kicked and closed, but does nothing by
// the clock and hears nothing before start. What was read of nc already is early.
// It must be closed.
func newLink(e *engine, t tenant, nc net.Conn, r rail, early []byte) *link {
	l := &link{engine: e, nc: nc, sealed: sealedBelow(nc), rail: r, share: e.shares.join(t), peeked: early}
	l.raw = nonblocking(l.wire())
	l.timer = time.AfterFunc(math.MaxInt64, l.onTimer)
	if l.sealed != nil {
		l.sealed.attach(l.kick)
	}
	return l
}

// wire returns the connection that what is to be written goes to.
func (l *link) wire() net.Conn {
	if l.sealed != nil {
		return l.sealed.Conn
	}
	return l.nc
}

// start lets the link live; its first write is what the rail has by now.
func (l *link) start() {
	l.onTimer()
	l.kickNow()
	if len(l.peeked) > 0 {
		l.engine.spawn(l.rail.readable)
	} else {
		l.engine.watcher.watch(l)
	}
}

func (l *link) onTimer() {
	now := time.Now()
	l.timer.Reset(max(l.rail.tick(now).Sub(now), time.Millisecond))
	// The link may have been closed meanwhile, also before its start.
	if l.ended.Load() {
		l.timer.Stop()
	}
}

// kick says that the rail has something to write. It never blocks.
func (l *link) kick() {
	for {
		switch l.state.Load() {
		case atRest:
			if l.state.CompareAndSwap(atRest, queued) {
				l.enqueue()
				return
			}
		case running:
			if l.state.CompareAndSwap(running, again) {
				return
			}
		default:
			return
		}
	}
}

// kickNow is kick for what the peer waits for: it is not held to be gathered, and
// does not wait in the line of those that lag.
func (l *link) kickNow() {
	l.hurry()
	if l.state.CompareAndSwap(inLine, queued) {
		l.engine.run(l)
		return
	}
	l.kick()
	if l.state.Load() == queued {
		// Maybe for later. To be run twice does no harm.
		l.engine.run(l)
	}
}

// hurry has the next write not be held to be gathered.
func (l *link) hurry() { l.urgent.Store(true) }

func (l *link) enqueue() {
	wait := l.engine.gather - time.Duration(l.engine.now()-l.lastWrite.Load())
	if wait > 0 && !l.urgent.Load() {
		l.engine.gatherer.add(l, wait)
		return
	}
	l.engine.run(l)
}

// drive is a worker's turn at the link. A worker must not be held up: what may
// wait for the disk goes on with one of the tenant's drivers.
func (l *link) drive() (stays bool) {
	if !l.rail.lags() {
		return l.round(l.rail.gather, l.goOn, l.engine.endWorker)
	}
	said := func(_ context.Context, out []byte) ([]byte, next, error) { return l.rail.said(out), thenMore, nil }
	return l.round(said, func(next) { l.engine.lag(l) }, l.engine.endWorker)
}

// round writes what from gives, once, and has the link go on. It may have to wait
// for the peer: then it calls resign before, so that another goroutine takes the
// place of this one, and returns false.
func (l *link) round(from gathering, goOn func(next), resign func()) (stays bool) {
	rest, next, err := l.gather(from)
	if err != nil {
		l.close(err)
		return true
	}
	if stays = len(rest) == 0; !stays {
		resign()
		if !l.write(rest) {
			return false
		}
	}
	goOn(next)
	return stays
}

// gathering is a rail's gather.
type gathering func(ctx context.Context, out []byte) ([]byte, next, error)

// gather takes what from gives, writes what the peer takes at once, and returns
// the rest, so that no buffer is held while the peer is slow.
func (l *link) gather(from gathering) (rest []byte, next next, err error) {
	buf := l.engine.buffers.Get().(*[]byte)
	defer l.engine.buffers.Put(buf)
	l.urgent.Store(false)
	out, next, err := from(l.engine.ctx, (*buf)[:0])
	*buf = out
	if err == nil && l.sealed != nil {
		sealed := l.engine.buffers.Get().(*[]byte)
		defer l.engine.buffers.Put(sealed)
		out, err = l.sealed.seal(l.nc, out, (*sealed)[:0])
		*sealed = out
	}
	if err == nil && l.raw != nil {
		var n int
		n, err = l.try(out)
		out = out[n:]
	}
	return append([]byte(nil), out...), next, err
}

// goOn says when the link is driven next.
func (l *link) goOn(next next) {
	switch {
	case next == thenClose:
		l.shutdown()
	case next == thenMore && l.rail.lags():
		l.engine.lag(l)
	case next == thenMore:
		// Behind the others, of which each waits for no more than one write.
		l.state.Store(queued)
		l.engine.run(l)
	case !l.state.CompareAndSwap(running, atRest):
		l.state.Store(queued)
		l.enqueue()
	}
}

// try writes what the peer takes at once.
func (l *link) try(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := tryWrite(l.raw, b)
	if err == nil {
		l.wrote(n)
	}
	return n, err
}

// write writes all of b, or closes the link.
func (l *link) write(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	// Errors of the deadline are those of a closed connection, which the write
	// reports.
	wire := l.wire()
	_ = wire.SetWriteDeadline(time.Now().Add(l.engine.writeTimeout))
	n, err := wire.Write(b)
	l.wrote(n)
	if err != nil {
		if isTimeout(err) {
			err = &twinrail.Error{Code: twinrail.CodeTooSlow}
		}
		l.close(err)
		return false
	}
	// It would hold for the next try, too, however much later that is.
	_ = wire.SetWriteDeadline(time.Time{})
	return true
}

func (l *link) wrote(n int) {
	l.lastWrite.Store(l.engine.now())
	l.engine.metrics.bytesSent.Add(float64(n))
}

// shutdown ends the link after its last write: the peer gets all of it, and a
// moment to say goodbye, since a close with unread input would cut it off. The
// rail does not wait for that.
func (l *link) shutdown() {
	// Should there be no goroutine any more, the link is one that is being closed.
	l.engine.spawn(func() {
		if l.retire() {
			l.leave(nil)
			l.linger()
		}
	})
}

// linger closes the connection when its peer has.
func (l *link) linger() {
	if half, ok := l.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		// Not by a deadline, which readable sets too.
		cut := time.AfterFunc(lingerTime, func() { _ = l.nc.Close() })
		if l.sealed != nil {
			// TLS's own word of the end.
			last, _ := l.sealed.seal(l.nc, nil, nil)
			_, _ = l.sealed.Conn.Write(last)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(l.nc, 1<<20))
		cut.Stop()
	}
	_ = l.nc.Close() // there is nobody left to tell
}

// close ends the link at once; the cause is nil where that was meant. A link that
// lingers is left to that.
func (l *link) close(cause error) {
	if l.retire() {
		_ = l.nc.Close() // there is nobody left to tell
		l.leave(cause)
	}
}

// retire ends all that is done for the link by the clock or for its input, and
// reports whether this was the first call.
func (l *link) retire() bool {
	if !l.ended.CompareAndSwap(false, true) {
		return false
	}
	l.timer.Stop()
	l.engine.watcher.forget(l)
	return true
}

func (l *link) leave(cause error) {
	l.rail.end(cause)
	l.engine.shares.leave(l.share)
}

// Read reads from the peer, first what a watcher has read already. It is for
// the rail, from readable to the next watch.
func (l *link) Read(p []byte) (int, error) {
	if len(l.peeked) > 0 {
		n := copy(p, l.peeked)
		l.peeked = l.peeked[n:]
		return n, nil
	}
	return l.nc.Read(p)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// isTransport reports whether err is a connection's end for which nobody here is
// to blame.
func isTransport(err error) bool {
	var op *net.OpError
	var errno syscall.Errno
	return errors.As(err, &op) || errors.As(err, &errno) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.Canceled) ||
		errors.Is(err, errPeerGone) || errors.Is(err, errUnexpectedInput)
}

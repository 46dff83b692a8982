package server

import (
	"errors"
	"net"
	"sync"
	"time"
)

// lineBuffer is how many bytes a line takes in each direction before its writer
// has to wait, as the buffers of two sockets do.
const lineBuffer = 64 << 10

// line is a connection through a network that can fail.
type line struct {
	client, server net.Conn // the network's own ends
	up, down       *flow
	pumps          sync.WaitGroup

	mu    sync.Mutex
	ended time.Time // when the server closed it, or lost it
	cutAt time.Time // when the network cut it
}

// newLine returns a line and what its two users hold.
func newLine() (l *line, client, server net.Conn) {
	client, near := net.Pipe()
	far, server := net.Pipe()
	l = &line{client: near, server: far, up: newFlow(), down: newFlow()}
	l.pumps.Go(func() { l.up.fill(near) })
	l.pumps.Go(func() { l.up.empty(far) })
	l.pumps.Go(func() { l.down.fill(far) })
	l.pumps.Go(func() { l.down.empty(near) })
	return l, client, &serverEnd{Conn: server, line: l}
}

// serverEnd is the server's connection: it notes when that is closed.
type serverEnd struct {
	net.Conn
	line *line
}

func (e *serverEnd) Close() error {
	e.line.mu.Lock()
	if e.line.ended.IsZero() {
		e.line.ended = time.Now()
	}
	e.line.mu.Unlock()
	return e.Conn.Close()
}

// end returns when the server closed its end, or lost it, and whether the network
// did that; zero while it is open.
func (l *line) end() (at time.Time, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended, !l.cutAt.IsZero() && !l.ended.Before(l.cutAt)
}

// cut ends the line on both sides; what was under way is lost.
func (l *line) cut() {
	l.mu.Lock()
	l.cutAt = time.Now()
	l.mu.Unlock()
	l.up.kill()
	l.down.kill()
	_ = l.client.Close()
	_ = l.server.Close()
}

// swallow has nothing come out on either side any more, not even the end.
func (l *line) swallow() {
	l.up.hold(true)
	l.down.hold(true)
}

// flow is one direction of a line.
type flow struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	eof     bool // nothing follows buf
	dead    bool
	held    bool
	rate    int // in bytes a second; 0 for no bound
}

func newFlow() *flow {
	f := new(flow)
	f.changed = sync.NewCond(&f.mu)
	return f
}

func (f *flow) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.changed.Broadcast()
}

func (f *flow) hold(on bool) { f.set(func() { f.held = on }) }

func (f *flow) slow(rate int) { f.set(func() { f.rate = rate }) }

func (f *flow) kill() { f.set(func() { f.dead = true }) }

// fill takes in what src says, until its end.
func (f *flow) fill(src net.Conn) {
	chunk := make([]byte, 4<<10)
	for {
		n, err := src.Read(chunk)
		if !f.put(chunk[:n], err != nil) || err != nil {
			return
		}
	}
}

func (f *flow) put(b []byte, last bool) (ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.buf) >= lineBuffer && !f.dead {
		f.changed.Wait()
	}
	f.buf, f.eof = append(f.buf, b...), last
	f.changed.Broadcast()
	return !f.dead
}

// empty gives dst what there is, and then the end.
func (f *flow) empty(dst net.Conn) {
	defer func() { _ = dst.Close() }()
	for {
		b, rate := f.take()
		if len(b) == 0 {
			return
		}
		if _, err := dst.Write(b); err != nil {
			f.kill()
			return
		}
		if rate > 0 {
			time.Sleep(time.Duration(len(b)) * time.Second / time.Duration(rate))
		}
	}
}

// take waits for some bytes; at the end there are none.
func (f *flow) take() (b []byte, rate int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.dead && (f.held || len(f.buf) == 0 && !f.eof) {
		f.changed.Wait()
	}
	if f.dead {
		return nil, 0
	}
	b = f.buf[:min(len(f.buf), 1<<10)]
	f.buf = f.buf[len(b):]
	f.changed.Broadcast()
	return b, f.rate
}

var errNoNetwork = errors.New("there is nothing to connect to")

// access is a client's way to the server: a new line for each connection.
type access struct {
	listener func() *pipeListener // nil while no server is up

	mu    sync.Mutex
	down  bool
	lines []*line
}

func (a *access) dial() (net.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to := a.listener()
	if a.down || to == nil {
		return nil, errNoNetwork
	}
	l, client, server := newLine()
	a.lines = append(a.lines, l)
	to.conns <- server // which the server takes at once
	return client, nil
}

// last returns the newest line.
func (a *access) last() *line {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lines[len(a.lines)-1]
}

// unplug has connections fail until plug.
func (a *access) unplug() { a.setDown(true) }

func (a *access) plug() { a.setDown(false) }

func (a *access) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

// close cuts all lines, and waits for their pumps.
func (a *access) close() {
	a.unplug()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.lines {
		l.cut()
		l.pumps.Wait()
	}
}

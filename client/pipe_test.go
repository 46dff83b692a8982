package client

import (
	"io"
	"net"
	"sync"
	"time"
)

// linger is how long a conn that was closed waits for the other end to read.
const linger = time.Minute

// bufferedConn is one end of a net.Pipe that takes writes at once, as a socket
// does, and whose Close lets the other end read what was written before.
type bufferedConn struct {
	net.Conn
	wake chan struct{} // of one token

	mu      sync.Mutex
	pending []byte
	closed  bool
	err     error // of writing to the pipe
}

func pipe() (net.Conn, net.Conn) {
	a, b := net.Pipe()
	return newBufferedConn(a), newBufferedConn(b)
}

func newBufferedConn(c net.Conn) *bufferedConn {
	b := &bufferedConn{Conn: c, wake: make(chan struct{}, 1)}
	go b.pump()
	return b
}

func (b *bufferedConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return 0, io.ErrClosedPipe
	case b.err != nil:
		return 0, b.err
	}
	b.pending = append(b.pending, p...)
	b.signal()
	return len(p), nil
}

func (b *bufferedConn) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.signal()
	_ = b.SetWriteDeadline(time.Now().Add(linger))
	return b.SetReadDeadline(time.Unix(1, 0))
}

func (b *bufferedConn) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// pump runs until the conn is closed and what was written is read, or the other
// end is closed.
func (b *bufferedConn) pump() {
	defer b.Conn.Close()
	for range b.wake {
		b.mu.Lock()
		pending, closed := b.pending, b.closed
		b.pending = nil
		b.mu.Unlock()
		var err error
		if len(pending) > 0 {
			_, err = b.Conn.Write(pending)
		}
		if err != nil || closed {
			b.mu.Lock()
			b.err = io.ErrClosedPipe
			b.mu.Unlock()
			return
		}
	}
}

package server

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestHTTP2Gathers: on a stream at rest an event goes out at once; one that comes
// right behind it waits for the end of the gather interval.
func TestHTTP2Gathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c := r.pipe2(canvasPath, r.token)
		c.open()
		c.toLive()
		for i := range 3 {
			time.Sleep(time.Second)
			start := time.Now()
			r.commits(2*i, 2*i+1)
			c.event()
			if took := time.Since(start); took != 0 {
				t.Errorf("an event on a stream at rest took %v", took)
			}
			r.commits(2*i+1, 2*i+2)
			c.event()
			if took := time.Since(start); took != r.server.opts.Gather {
				t.Errorf("the next one came after %v, want the gather interval", took)
			}
		}
	})
}

// TestCloseWaitsForHTTP2: no stream of HTTP/2 outlives the server, be it at rest,
// held to be gathered, or waiting for a client that has to take what it was sent.
func TestCloseWaitsForHTTP2(t *testing.T) {
	for name, busy := range map[string]func(r *rig){
		"at rest":  func(*rig) {},
		"gathered": func(r *rig) { r.commits(0, 1); r.commits(1, 2) },
		"stuck":    func(r *rig) { r.store(30_000) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				c := r.pipe2(canvasPath, r.token)
				c.open()
				c.toLive()
				time.Sleep(time.Second)
				busy(r)
				synctest.Wait()
				start := time.Now()
				r.server.Close()
				if took := time.Since(start); took != 0 {
					t.Errorf("closed after %v", took)
				}
				if n := r.metric("twinrail_subscriptions"); n != 0 {
					t.Errorf("%v streams outlived the server", n)
				}
			})
		})
	}
}

// severed is a client's connection from which nothing reaches it once it is cut off.
type severed struct {
	net.Conn
	swallows bool // what comes, and otherwise takes none of it
	off      atomic.Bool
	closed   chan struct{}
	once     sync.Once
}

func (l *severed) Read(p []byte) (int, error) {
	for {
		if l.off.Load() && !l.swallows {
			<-l.closed
			return 0, net.ErrClosed
		}
		n, err := l.Conn.Read(p)
		if err != nil || !l.off.Load() {
			return n, err
		}
	}
}

func (l *severed) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// TestHTTP2PeerLost has a client that takes nothing any more from its connection,
// and one that does not answer. It is net/http that writes for these streams, so
// the ends of their writes and credentials do not show it.
func TestHTTP2PeerLost(t *testing.T) {
	for name, swallows := range map[string]bool{"takes nothing": false, "does not answer": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				l := &severed{swallows: swallows, closed: make(chan struct{})}
				c := r.pipe2Through(func(nc net.Conn) net.Conn { l.Conn = nc; return l }, canvasPath, r.token)
				c.open()
				c.toLive()
				l.off.Store(true)
				time.Sleep(2*r.server.opts.Heartbeat + r.server.opts.WriteTimeout + time.Second)
				synctest.Wait()
				if n := r.metric("twinrail_subscriptions"); n != 0 {
					t.Errorf("%v streams are left", n)
				}
			})
		})
	}
}

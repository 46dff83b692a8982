package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// pipe2 opens the SSE rail over HTTP/2 within a bubble.
func (r *rig) pipe2(path, token string, h ...string) *tail {
	r.t.Helper()
	return r.pipe2Through(func(nc net.Conn) net.Conn { return nc }, path, token, h...)
}

// pipe2Through is pipe2 with something between the client and its connection.
func (r *rig) pipe2Through(between func(net.Conn) net.Conn, path, token string, h ...string) *tail {
	r.t.Helper()
	return r.stream2(r.transport2(between), path, token, h...)
}

// transport2 returns what speaks HTTP/2 with r's server within a bubble, with
// something between it and each of its connections.
func (r *rig) transport2(between func(net.Conn) net.Conn) *http.Transport {
	r.t.Helper()
	return r.over2(r.serve2(), between)
}

// transport2TLS is transport2 over TLS.
func (r *rig) transport2TLS(between func(net.Conn) net.Conn) *http.Transport {
	r.t.Helper()
	cert, roots := certificate(r.t)
	web := &http.Server{Handler: r.server.Handler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	dial := r.listen2(web, func(ln net.Listener) error { return web.ServeTLS(TLSListener(ln), "", "") })
	transport := r.over2(dial, between)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(true)
	return transport
}

// serve2 has r's server speak HTTP/2 over net.Pipe, beside what it does, and returns
// how to reach it.
func (r *rig) serve2() (dial func() (net.Conn, error)) {
	r.t.Helper()
	web := &http.Server{Handler: r.server.Handler(), Protocols: new(http.Protocols)}
	web.Protocols.SetUnencryptedHTTP2(true)
	return r.listen2(web, web.Serve)
}

func (r *rig) listen2(web *http.Server, serve func(net.Listener) error) (dial func() (net.Conn, error)) {
	r.t.Helper()
	r.server.SetHTTP2(web)
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	var served sync.WaitGroup
	served.Go(func() { _ = serve(ln) })
	r.t.Cleanup(func() {
		_ = web.Close()
		served.Wait()
	})
	return ln.dial
}

// over2 returns what speaks HTTP/2 in the clear over what dial returns.
func (r *rig) over2(dial func() (net.Conn, error), between func(net.Conn) net.Conn) *http.Transport {
	r.t.Helper()
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			nc, err := dial()
			if err != nil {
				return nil, err
			}
			return between(nc), nil
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	r.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// stream2 opens the SSE rail over one of transport's connections; the token may be
// "" where the path has a ticket.
func (r *rig) stream2(transport *http.Transport, path, token string, h ...string) *tail {
	r.t.Helper()
	scheme := "https"
	if transport.Protocols.UnencryptedHTTP2() {
		scheme = "http"
	}
	req, _ := http.NewRequest("GET", scheme+"://twinrail.test"+path, nil)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	header(h).apply(req)
	return r.follow2(transport, req)
}

// follow2 makes a request for the SSE rail, which must be answered over HTTP/2.
func (r *rig) follow2(transport *http.Transport, req *http.Request) *tail {
	r.t.Helper()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.ProtoMajor != 2 {
		r.t.Fatalf("spoke %s", resp.Proto)
	}
	return &tail{t: r.t, resp: resp, br: bufio.NewReader(resp.Body)}
}

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
		"stuck":    func(r *rig) { r.store(30_000); time.Sleep(time.Second) },
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

// held is a client's connection which takes nothing while its gate is shut, but for
// what it had begun to.
type held struct {
	net.Conn
	reads gate
}

func (h *held) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.reads.pass()
	return n, err
}

// TestHTTP2EndsWhileStuck has a credential be revoked while the connection takes
// nothing at all. If that stays so, the connection is given up, with the stream of
// another one that shares it. If not, that one goes on.
func TestHTTP2EndsWhileStuck(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, stays := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %v, stays %v", secure, stays), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newBubbleRig(t, patient)
					var line held
					dial := r.transport2
					if secure {
						dial = r.transport2TLS
					}
					shared := dial(func(nc net.Conn) net.Conn { line.Conn = nc; return &line })
					stream := func(actor string) *tail {
						c := r.stream2(shared, canvasPath, r.issuer.Token(authtest.Actor(actor)))
						c.open()
						c.toLive()
						return c
					}
					stream("u_1")
					other := stream("u_2")
					open := line.reads.close()
					defer open()
					time.Sleep(time.Second)
					r.store(1000)
					time.Sleep(time.Second)
					r.revoke(`{"actor_id":"u_1"}`)
					time.Sleep(farewellTime + stuckTime - time.Millisecond)
					synctest.Wait()
					if n := r.metric(`twinrail_connections{rail="sse"}`); n != 2 {
						t.Errorf("%v connections, before the time is up", n)
					}
					if !stays {
						open()
						if got := dataOf(other.events(1000)); got != count(0, 1000) {
							t.Errorf("got %s", got)
						}
					}
					time.Sleep(time.Millisecond)
					synctest.Wait()
					want := 1.0
					if stays {
						want = 0
					}
					if n := r.metric(`twinrail_connections{rail="sse"}`); n != want {
						t.Errorf("%v connections are left, want %v", n, want)
					}
				})
			})
		}
	}
}

// TestHTTP2EndsOneOfTwo has a credential be revoked whose stream alone takes nothing:
// another one of the same connection goes on.
func TestHTTP2EndsOneOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, patient)
		s := r.sharing()
		stuck := s.stream2(s.transport, canvasPath, r.token)
		stuck.open()
		stuck.toLive()
		r.store(30_000) // more than its flow control lets through
		other := s.stream2(s.transport, canvasPath, r.issuer.Token(authtest.Actor("u_2")))
		other.open()
		other.toLive()
		time.Sleep(time.Second)
		r.revoke(`{"actor_id":"u_1"}`)
		time.Sleep(time.Minute)
		if n := r.metric(`twinrail_connections{rail="sse"}`); n != 1 {
			t.Errorf("%v connections", n)
		}
		r.token = r.issuer.Token(authtest.Actor("u_3"))
		r.commits(0, 1)
		if e := other.event(); string(e.Data) != "0" {
			t.Errorf("got %+v", e)
		}
	})
}

// sharing is streams over one HTTP/2 connection, for as long as that takes any.
type sharing struct {
	*rig
	transport *http.Transport
	dials     int
}

func (r *rig) sharing() *sharing {
	r.t.Helper()
	s := &sharing{rig: r}
	s.transport = r.transport2(func(nc net.Conn) net.Conn { s.dials++; return nc })
	return s
}

// turnedAway has a native EventSource come, which is told to come back.
func (s *sharing) turnedAway(ticket string, code twinrail.Code) {
	s.t.Helper()
	c := s.stream2(s.transport, canvasPath+"&ticket="+ticket, "")
	if b := c.next(); b.retry == "" {
		s.t.Fatalf("begins with %q, want retry", b.raw)
	}
	c.closesWith(code, true)
}

// TestHTTP2TurnedAway has streams be over a limit: the connection that they share
// with others goes on, and takes more.
func TestHTTP2TurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxConnections = 1 })
		s := r.sharing()
		live := s.stream2(s.transport, canvasPath, r.token)
		live.open()
		live.toLive()
		for i := range 3 {
			s.turnedAway(r.ticket(r.token, ""), twinrail.CodeLimitExceeded)
			time.Sleep(2 * time.Second)
			r.commits(i, i+1)
			if e := live.event(); dataOf([]twinrail.Event{e}) != count(i, i+1) {
				t.Errorf("got %+v", e)
			}
		}
		if s.dials != 1 {
			t.Errorf("4 streams were over %d connections", s.dials)
		}
	})
}

// TestHTTP2DrainShares turns a stream away while another one of its connection has
// still to take what it was sent: that one hears all that there is for it, up to its
// own end. Who comes then does so over another connection, so that it may find a
// server that stays.
func TestHTTP2DrainShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		s := r.sharing()
		live := s.stream2(s.transport, canvasPath, r.token)
		live.open()
		live.toLive()
		r.store(30_000) // more than its flow control lets through
		time.Sleep(time.Second)
		first, second := r.ticket(r.token, ""), r.ticket(r.token, "")
		drained := r.drain(t.Context())
		synctest.Wait()
		s.turnedAway(first, twinrail.CodeDraining)
		time.Sleep(5 * time.Second)
		if s.dials != 1 {
			t.Errorf("2 streams were over %d connections", s.dials)
		}
		events, b := 0, live.said()
		for ; b.id != ""; b = live.said() {
			events++
		}
		if events == 0 || b.retry == "" {
			t.Errorf("after %d events: %q", events, b.raw)
		}
		live.closesWith(twinrail.CodeDraining, true)
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		s.turnedAway(second, twinrail.CodeDraining)
		if s.dials != 2 {
			t.Errorf("who comes back does so over the connection that it had")
		}
	})
}

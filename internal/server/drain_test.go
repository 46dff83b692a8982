package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
)

// drain starts a drain, and returns what it comes to.
func (r *rig) drain(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.server.Drain(ctx) }()
	return done
}

// TestDrain has connections of both rails, one over HTTP/2, told when to come
// back; what comes later is turned away.
func TestDrain(t *testing.T) {
	r := newRig(t, func(o *Options) { o.DrainWindow = 8 * time.Second })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addr, config := r.secure()
	tails := []*tail{r.tail2(ctx, addr, config("h2"), canvasPath)}
	var peers []*peer
	for range 20 {
		tails = append(tails, r.tail(canvasPath))
		p := r.peer()
		p.live("a")
		peers = append(peers, p)
	}
	for _, c := range tails {
		c.open()
		c.toLive()
	}
	drained := r.drain(ctx)
	returns := make(map[int64]bool)
	come := func(ms int64) {
		t.Helper()
		if ms < 1000 || ms > 9001 {
			t.Errorf("told to come back after %d ms", ms)
		}
		returns[ms] = true
	}
	for _, c := range tails {
		var ms int64
		fmt.Sscan(c.next().retry, &ms)
		come(ms)
		var end twinrail.End
		unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end)
		if end != (twinrail.End{Code: twinrail.CodeDraining, Reconnect: true}) {
			t.Errorf("end %+v", end)
		}
		c.ends()
		if c.nc != nil {
			_ = c.nc.Close()
		}
	}
	for _, p := range peers {
		f := p.want(twinrail.OpDrain)
		come(f.ReconnectAfterMS)
		if last := p.fails(twinrail.CodeDraining, 4202); last.RetryAfterMS != f.ReconnectAfterMS {
			t.Errorf("told %d ms, then %d", f.ReconnectAfterMS, last.RetryAfterMS)
		}
	}
	if len(returns) < 30 {
		t.Errorf("41 connections come back at %d moments", len(returns))
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	if n := r.metric(`twinrail_connections{rail="sse"}`) + r.metric(`twinrail_connections{rail="ws"}`); n != 0 {
		t.Errorf("%v connections are left", n)
	}
	r.turnedAway()
	if err := r.server.Drain(ctx); err != nil {
		t.Errorf("another drain: %v", err)
	}
}

// turnedAway checks what a draining server answers to each kind of request.
func (r *rig) turnedAway() {
	t := r.t
	t.Helper()
	c := r.tail(canvasPath)
	if c.resp.StatusCode != http.StatusOK || c.resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("SSE: %s %v", c.resp.Status, c.resp.Header)
	}
	var ms int64
	fmt.Sscan(c.next().retry, &ms)
	if ms < 1000 {
		t.Errorf("SSE: retry %d", ms)
	}
	c.want(twinrail.SSEEnd)
	c.ends()
	resp := r.do("GET", wsPath, "", append(as(r.token), handshakeHeader...))
	problemOf(t, resp, twinrail.CodeDraining)
	if resp.header.Get("Retry-After") == "" {
		t.Errorf("WS: headers %v", resp.header)
	}
	problemOf(t, r.post(`{"events":[`+commit(1)+`]}`), twinrail.CodeDraining)
	problemOf(t, r.do("GET", canvasPath, "", nil), twinrail.CodeCredentialMissing)
	problemOf(t, r.do("GET", wsPath, "", append(header{"Authorization", "Bearer x"}, handshakeHeader...)), twinrail.CodeCredentialInvalid)
}

// TestDrainWaitsForPublish drains while a WebSocket's publish is being made
// durable: it is acknowledged before the connection ends.
func TestDrainWaitsForPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newHeldJournal()
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		p := r.peer()
		open := j.appends.close()
		defer open()
		p.say(`{"op":"publish","ref":"p","events":[%s]}`, chat(1))
		synctest.Wait()
		drained := r.drain(t.Context())
		p.want(twinrail.OpDrain)
		time.Sleep(5 * time.Second)
		select {
		case err := <-drained:
			t.Fatalf("drained with a publish under way: %v", err)
		default:
		}
		open()
		if ack := p.want(twinrail.OpAck); ack.Ref != "p" || len(ack.Results) != 1 {
			t.Errorf("ack %+v", ack)
		}
		p.fails(twinrail.CodeDraining, 4202)
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
	})
}

// TestDrainMeetsLateConnections begins a drain while connections of both rails
// are between their checks and their registration.
func TestDrainMeetsLateConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newHeldJournal()
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		open := j.bounds.close()
		defer open()
		late := make(chan *tail)
		go func() { late <- r.tail(canvasPath) }()
		synctest.Wait()
		if err := <-r.drain(t.Context()); err != nil {
			t.Errorf("drain: %v", err)
		}
		open()
		c := <-late
		c.open()
		c.next() // when to come back
		c.want(twinrail.SSEEnd)
		c.ends()
		synctest.Wait()
		if n := r.metric(`twinrail_connections{rail="sse"}`); n != 0 {
			t.Errorf("%v connections are left", n)
		}
	})
}

// TestDrainCutsOff has clients that do not go: when the time is up, they are cut
// off.
func TestDrainCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c, p := r.tail(canvasPath), r.peer()
		c.open()
		c.toLive()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if err := <-r.drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drain: %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("drain took %v", took)
		}
		synctest.Wait()
		if n := r.metric(`twinrail_connections{rail="sse"}`) + r.metric(`twinrail_connections{rail="ws"}`); n != 0 {
			t.Errorf("%v connections are left", n)
		}
		_ = p.nc.Close()
	})
}

// TestCloseUnderTraffic closes the server while events rush to connections of
// both rails. TestMain checks that no goroutine is left.
func TestCloseUnderTraffic(t *testing.T) {
	for range 5 {
		r := newRig(t)
		var peers []*peer
		for range 10 {
			r.tail(canvasPath).open()
			p := r.peer()
			p.live("a")
			peers = append(peers, p)
		}
		stopCommits, stopChats := r.rush(commit), r.rush(chat)
		peers[0].events("a", 20)
		r.server.Close()
		for _, p := range peers {
			_ = p.nc.SetDeadline(time.Now().Add(patience))
			for {
				if _, err := readServerFrame(p.br); err != nil {
					if isTimeout(err) {
						t.Fatal("a connection is open after Close")
					}
					break
				}
			}
		}
		late := r.do("GET", wsPath, "", append(as(r.token), handshakeHeader...))
		problemOf(t, late, twinrail.CodeDraining)
		stopCommits()
		stopChats()
		if n := r.metric("twinrail_subscriptions"); n != 0 {
			t.Errorf("%v subscriptions are left", n)
		}
	}
}

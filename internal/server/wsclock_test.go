package server

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// TestWSHeartbeat answers the server's pings for a while: they come on time and
// say where each subscription stands.
func TestWSHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		p := r.peer()
		opened := time.Now()
		p.live("a")
		p.say(`{"op":"join","sub":"b","routing":{"thread_id":"th2"}}`)
		p.want(twinrail.OpJoined)
		b := p.want(twinrail.OpLive)
		var last twinrail.PublishResult
		for i := 1; i < 20; i++ {
			last = r.publish(`{"channel":"chat","type":"t","to":["u_2"],"routing":{"thread_id":"th1"},"data":1}`)[0]
			ping := p.want(twinrail.OpPing)
			if at, want := time.Since(opened), time.Duration(i)*15*time.Second; at < want || at > want+time.Second {
				t.Errorf("ping %d after %v", i, at)
			}
			if len(ping.Cursors) != 2 || ping.Cursors["a"] != last.Cursor || ping.Cursors["b"] != b.Cursor {
				t.Errorf("cursors %v, want %s and %s", ping.Cursors, last.Cursor, b.Cursor)
			}
			p.say(`{"op":"pong"}`)
		}
	})
}

// TestWSHeartbeatLost has clients fall silent, after frames of each kind.
func TestWSHeartbeatLost(t *testing.T) {
	for name, last := range map[string][]byte{
		"nothing":         nil,
		"pong":            text(`{"op":"pong"}`),
		"protocol's ping": frame(true, ws.OpPing, nil),
		"protocol's pong": frame(true, ws.OpPong, nil),
		"part of a frame": text(`{"op":"pong"}`)[:5],
		"first fragment":  frame(false, ws.OpText, []byte(`{"op":`)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				p := r.peer()
				time.Sleep(10 * time.Second)
				if last != nil {
					p.write(last)
				}
				heard := time.Now()
				if last == nil || name == "part of a frame" {
					heard = heard.Add(-10 * time.Second)
				}
				for {
					f := p.raw()
					var s twinrail.ServerFrame
					if f.Header.OpCode == ws.OpPong {
						continue
					}
					unmarshal(t, f.Payload, &s)
					if s.Op == twinrail.OpPing && time.Since(heard) < time.Minute {
						continue
					}
					if s.Op != twinrail.OpError || s.Code != twinrail.CodeHeartbeatLost || s.Action != twinrail.ActionResume || !*s.Resumable {
						t.Fatalf("got %+v", s)
					}
					break
				}
				if silent := time.Since(heard); silent < 30*time.Second || silent > 30*time.Second+2*time.Millisecond {
					t.Errorf("closed after %v", silent)
				}
				if code, reason := p.closed(); code != 4200 || reason != "heartbeat_lost" {
					t.Errorf("closed with %d %q", code, reason)
				}
			})
		})
	}
}

// TestWSMessageInParts has clients begin a message and then send all but its end:
// it must be whole within two heartbeats, like a frame.
func TestWSMessageInParts(t *testing.T) {
	begin, ping, part, end := frame(false, ws.OpText, []byte(`{"op":`)), frame(true, ws.OpPing, nil), frame(false, ws.OpContinuation, []byte(" ")), frame(true, ws.OpContinuation, []byte(`"ping"}`))
	for name, meanwhile := range map[string][]byte{"pings": ping, "more parts": part} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				p := r.peer()
				for range 3 { // each of which is whole in time
					p.write(begin)
					for range 5 {
						time.Sleep(5 * time.Second)
						p.write(meanwhile)
					}
					p.write(end)
					for p.text().Op != twinrail.OpPong {
					}
				}
				began := time.Now()
				p.write(begin)
				var said sync.WaitGroup
				defer said.Wait()
				said.Go(func() {
					for range 20 {
						time.Sleep(5 * time.Second)
						if _, err := p.nc.Write(meanwhile); err != nil {
							return
						}
					}
				})
				for {
					s := p.text()
					if s.Op == twinrail.OpPing && time.Since(began) < time.Minute {
						continue
					}
					if s.Op != twinrail.OpError || s.Code != twinrail.CodeHeartbeatLost {
						t.Fatalf("after %v: %+v", time.Since(began), s)
					}
					break
				}
				if took := time.Since(began); took < 30*time.Second || took > 36*time.Second {
					t.Errorf("closed after %v", took)
				}
				if code, _ := p.closed(); code != 4200 {
					t.Errorf("closed with %d", code)
				}
			})
		})
	}
}

// text returns the next frame of the rail, passing over the protocol's own.
func (p *peer) text() twinrail.ServerFrame {
	p.t.Helper()
	for {
		if f := p.raw(); f.Header.OpCode == ws.OpText {
			var s twinrail.ServerFrame
			unmarshal(p.t, f.Payload, &s)
			return s
		}
	}
}

func TestWSCredentialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.token = r.issuer.Token(authtest.ExpiresIn(100 * time.Second))
		opened := time.Now()
		p := r.peer()
		next := func() twinrail.ServerFrame {
			for {
				f := p.next()
				if f.Op != twinrail.OpPing || time.Since(opened) > 200*time.Second {
					return f
				}
				p.say(`{"op":"pong"}`)
			}
		}
		f := next()
		if at := time.Since(opened); f.Op != twinrail.OpAuthExpiring || !f.ExpiresAt.Equal(opened.Add(100*time.Second)) || at < 70*time.Second || at > 70*time.Second+2*time.Millisecond {
			t.Errorf("after %v: %+v", at, f)
		}
		f = next()
		if at := time.Since(opened); f.Op != twinrail.OpError || f.Code != twinrail.CodeCredentialExpired || f.Action != twinrail.ActionRefresh || !*f.Resumable || at < 100*time.Second || at > 100*time.Second+2*time.Millisecond {
			t.Errorf("after %v: %+v", at, f)
		}
		if code, reason := p.closed(); code != 4300 || reason != "credential_expired" {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
}

// TestWSTooSlow has a reader that never reads again.
func TestWSTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.WriteTimeout = 7 * time.Second })
		p := r.peer()
		p.live("a")
		time.Sleep(time.Second)
		r.chats(0, 1)
		synctest.Wait()
		r.givenUpAfter(twinrail.RailWS, 7*time.Second)
	})
}

// TestWSOvertaken has retention overtake a reader that stops.
func TestWSOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, keep(10), func(o *Options) { o.Window = -1 })
		p := r.peer()
		p.live("a")
		time.Sleep(time.Second)
		r.chats(0, 1)
		synctest.Wait()
		last := r.chats(1, 100)
		_, page := r.page(twinrail.PathHistory + "?" + appQuery + "&thread_id=th1")
		p.event("a")
		f := p.want(twinrail.OpReset)
		if f.Sub != "a" || f.Reason != twinrail.CodeCursorExpired || f.Oldest != page.Oldest || f.Head != last.Cursor {
			t.Errorf("reset %+v", f)
		}
		r.chats(100, 105)
		events := p.events("a", 5)
		if dataOf(events) != count(100, 105) {
			t.Errorf("then %s", dataOf(events))
		}
		checkChain(t, events, last.Seq)
	})
}

// TestWSJournalFails closes the journal under a reader that has to ask it.
func TestWSJournalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := journal.NewMemory(journal.MemoryOptions{})
		r := newBubbleRig(t, func(o *Options) { o.Journal, o.Window = j, -1 })
		p := r.peer()
		p.live("a")
		time.Sleep(time.Second)
		r.chats(0, 1)
		synctest.Wait() // the first event is on its way
		r.chats(1, 2)
		_ = j.Close()
		p.event("a")
		p.fails(twinrail.CodeUnavailable, 1011)
	})
}

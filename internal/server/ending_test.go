package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// shortLife is that of a credential which is not warned of at once.
const shortLife = expiryNotice + 2*time.Second

// credentialEnds are ways in which u_1's credential, of a short life, stops being good.
var credentialEnds = map[twinrail.Code]func(r *rig){
	twinrail.CodeCredentialRevoked: func(r *rig) { r.revoke(`{"actor_id":"u_1"}`) },
	twinrail.CodeCredentialExpired: func(*rig) { time.Sleep(shortLife) },
}

// patient has the server wait for peers that take nothing, and hear nothing.
func patient(o *Options) { o.WriteTimeout, o.Heartbeat = 10*time.Minute, 10*time.Minute }

// late sends all but the last byte of a request's body, waits for meanwhile, and
// then sends that, too.
func (r *rig) late(method, path, token, body string, meanwhile func(*rig)) reply {
	r.t.Helper()
	nc, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	req, _ := http.NewRequest(method, "http://twinrail.test"+path, strings.NewReader(body))
	header(as(token)).apply(req)
	var out bytes.Buffer
	_ = req.Write(&out)
	if _, err := nc.Write(out.Bytes()[:out.Len()-1]); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
	meanwhile(r)
	if _, err := nc.Write(out.Bytes()[out.Len()-1:]); err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(nc), req)
	if err != nil {
		r.t.Fatal(err)
	}
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		r.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, answer.Bytes()}
}

// TestLateBody has a credential end while a request's body is on its way: nothing
// is done for it.
func TestLateBody(t *testing.T) {
	for name, q := range map[string]struct{ method, path, body string }{
		"publish":  {"POST", publishPath, `{"events":[` + commit(1) + `]}`},
		"flag":     {"PUT", flagsPath("replay"), `{"value":false}`},
		"revoke":   {"POST", revocationsPath, `{"actor_id":"u_9"}`},
		"a ticket": {"POST", ticketsPath, `{"rail":"sse"}`},
	} {
		t.Run(name, func(t *testing.T) {
			for code, end := range credentialEnds {
				synctest.Test(t, func(t *testing.T) {
					r := newBubbleRig(t)
					token := r.issuer.Token(authtest.Role(twinrail.Owner), authtest.ExpiresIn(shortLife))
					problemOf(t, r.late(q.method, q.path, token, q.body, end), code)
					if events, _ := r.page(historyPathOf("u_2", r)); len(events) != 0 {
						t.Error("stored")
					}
				})
			}
			synctest.Test(t, func(t *testing.T) {
				r := newBubbleRig(t)
				token := r.issuer.Token(authtest.Role(twinrail.Owner))
				if resp := r.late(q.method, q.path, token, q.body, func(*rig) { time.Sleep(time.Second) }); resp.status != 200 {
					t.Errorf("with a credential that stays good: %d %s", resp.status, resp.body)
				}
			})
		})
	}
}

// historyPathOf has r ask as another actor, and returns where.
func historyPathOf(actor string, r *rig) string {
	r.token = r.issuer.Token(authtest.Actor(actor))
	return historyPath
}

// TestLateMessage has a connection's end decided while a publish is on its way, or
// while nothing can be written to the client: nothing is stored any more.
func TestLateMessage(t *testing.T) {
	message := text(`{"op":"publish","events":[` + chat(7) + `]}`)
	ends := map[string]func(*rig){
		"the rail is disabled": func(r *rig) { r.setFlag("ws_enabled", "false") },
		"nothing happens":      func(*rig) {},
	}
	for code, end := range credentialEnds {
		ends[string(code)] = end
	}
	for name, end := range ends {
		for _, before := range []int{0, len(message) / 2, len(message) - 1} {
			for _, stuck := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, after %d bytes, stuck %v", name, before, stuck), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r := lingeringRig(t, patient)
						p, _ := r.greet(r.issuer.Token(authtest.ExpiresIn(shortLife)))
						p.live("a")
						if stuck {
							time.Sleep(time.Second)
							r.chats(0, 1)
							synctest.Wait()
						} else {
							go drainFrames(p)
						}
						p.write(message[:before])
						synctest.Wait()
						end(r)
						synctest.Wait()
						_ = p.nc.SetWriteDeadline(time.Now().Add(farewellTime / 2))
						_, _ = p.nc.Write(message[before:]) // it may be closed
						synctest.Wait()
						r.token = r.issuer.Token(authtest.Actor("u_2"))
						events, _ := r.page(twinrail.PathHistory + "?" + appQuery + "&thread_id=th1")
						if got := strings.HasSuffix(dataOf(events), "7"); got != (name == "nothing happens") {
							t.Errorf("stored: %s", dataOf(events))
						}
					})
				})
			}
		}
	}
}

// TestEndsWhileStuck ends connections to which nothing can be written: they are
// closed all the same, within farewellTime.
func TestEndsWhileStuck(t *testing.T) {
	for _, transport := range transports {
		for code, end := range credentialEnds {
			t.Run(fmt.Sprint(transport, " ", code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newBubbleRig(t, patient)
					r.connect(transport, r.issuer.Token(authtest.ExpiresIn(shortLife)))
					time.Sleep(time.Second)
					r.commits(0, 1)
					r.chats(0, 1)
					r.store(30_000) // more than HTTP/2's flow control lets through
					time.Sleep(time.Second / 2)
					end(r)
					time.Sleep(farewellTime + time.Millisecond)
					synctest.Wait()
					if n := r.metric(`twinrail_connections{rail="sse"}`) + r.metric(`twinrail_connections{rail="ws"}`); n != 0 {
						t.Errorf("%v connections", n)
					}
				})
			})
		}
	}
}

// TestInLine holds the journal's reads up, so that a connection with a backlog
// waits in its tenant's line: it hears what has nothing to do with that, and it
// ends when it must.
func TestInLine(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newHeldJournal()
				r := newBubbleRig(t, func(o *Options) { o.Journal, o.Window = j, -1 })
				r.commits(0, 10)
				r.chats(0, 10)
				open := j.reads.close()
				defer open()
				for i := range bulk() + 1 {
					r.behind(transport, r.issuer.Token(authtest.Actor(fmt.Sprint("first", i))))
				}
				synctest.Wait()
				c := r.behind(transport, r.token)
				time.Sleep(r.server.opts.Heartbeat * 6 / 5)
				heartbeat := func() {
					t.Helper()
					if c.peer != nil {
						c.peer.want(twinrail.OpPing)
						c.peer.say(`{"op":"pong"}`)
					} else if b := c.tail.next(); !b.comment {
						t.Fatalf("%q, want a comment", b.raw)
					}
				}
				heartbeat()
				start := time.Now()
				r.revoke(`{"actor_id":"u_1"}`)
				if c.peer != nil {
					c.peer.fails(twinrail.CodeCredentialRevoked, 4010)
				} else {
					c.tail.closesWith(twinrail.CodeCredentialRevoked, false)
				}
				if took := time.Since(start); took != 0 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// behind opens a connection with a backlog, and reads up to that.
func (r *rig) behind(transport, token string) *client {
	r.t.Helper()
	switch transport {
	case "ws":
		p, _ := r.greet(token)
		p.say(`{"op":"join","sub":"a","routing":{"thread_id":"th1"},"after":"earliest"}`)
		p.want(twinrail.OpJoined)
		return &client{peer: p}
	case "sse over HTTP/1.1":
		nc, err := r.dial()
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = nc.Close() })
		c := tailOver(r.t, nc, canvasPath+"&cursor=earliest", token)
		c.open()
		return &client{tail: c}
	}
	c := r.pipe2(canvasPath+"&cursor=earliest", token)
	c.open()
	return &client{tail: c}
}

// scanned is a journal that calls during in its third read from now on.
type scanned struct {
	journal.Journal
	mu     sync.Mutex
	reads  int
	during func()
}

func (j *scanned) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	j.mu.Lock()
	j.reads++
	third := j.reads == 3
	j.mu.Unlock()
	if third {
		j.during()
	}
	return j.Journal.Read(ctx, r, after, max)
}

// TestScanStops ends a connection that reads a long log in which nothing is for
// it: it reads no further.
func TestScanStops(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &scanned{Journal: journal.NewMemory(journal.MemoryOptions{})}
				r := newBubbleRig(t, func(o *Options) { o.Journal, o.Window = j, -1 })
				r.commits(0, 2000)
				r.chats(0, 2000)
				j.mu.Lock()
				j.reads, j.during = 0, func() { r.revoke(`{"actor_id":"u_1"}`) }
				j.mu.Unlock()
				if transport == "ws" {
					p, _ := r.greet(r.token)
					p.say(`{"op":"join","sub":"a","routing":{"thread_id":"th1"},"channels":["tool"],"after":"earliest"}`)
					p.want(twinrail.OpJoined)
					p.fails(twinrail.CodeCredentialRevoked, 4010)
				} else {
					var c *tail
					if path := canvasPath + "&channels=artifact&cursor=earliest"; transport == "sse over HTTP/1.1" {
						c = r.tail(path)
					} else {
						c = r.pipe2(path, r.token)
					}
					c.open()
					c.closesWith(twinrail.CodeCredentialRevoked, false)
				}
				j.mu.Lock()
				defer j.mu.Unlock()
				if j.reads != 3 {
					t.Errorf("%d reads", j.reads)
				}
			})
		})
	}
}

// TestExpiresInBacklog has a credential end while its connection is given a long
// backlog, which the client reads all the time.
func TestExpiresInBacklog(t *testing.T) {
	for _, transport := range transports[1:] {
		t.Run(transport, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const backlog = 30_000
				r := newBubbleRig(t)
				r.store(backlog)
				c := r.behind(transport, r.issuer.Token(authtest.ExpiresIn(5*time.Second))).tail
				warned := false
				for n := 0; ; n++ {
					time.Sleep(time.Millisecond)
					switch b := c.next(); b.event {
					case twinrail.SSEAuthExpiring:
						warned = true
					case twinrail.SSEEnd:
						if n > backlog*2/3 || !warned {
							t.Errorf("it ended after %d events, warned: %v", n, warned)
						}
						return
					case twinrail.SSELive:
						t.Fatal("all of the backlog was read")
					}
				}
			})
		})
	}
}

// TestHeldPublishIsNotSilence has the journal take long over a publish: the client,
// of which nothing is read meanwhile, is not taken to be gone.
func TestHeldPublishIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newHeldJournal()
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		p, _ := r.greet(r.token)
		open := j.appends.close()
		defer open()
		p.say(`{"op":"publish","ref":"p","events":[%s]}`, chat(1))
		start := time.Now()
		time.AfterFunc(5*r.server.opts.Heartbeat, open)
		_ = p.nc.SetDeadline(time.Time{})
		for {
			f, err := readServerFrame(p.br)
			if err != nil || f.Header.OpCode == ws.OpClose {
				t.Fatalf("closed after %v", time.Since(start))
			}
			var answer twinrail.ServerFrame
			if err := json.Unmarshal(f.Payload, &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Op == twinrail.OpAck {
				break
			}
		}
		if took := time.Since(start); took != 5*r.server.opts.Heartbeat {
			t.Errorf("answered after %v", took)
		}
	})
}

// TestDecodeIsLinear: what a body or frame costs to check does not grow with the
// length of the names in it times their number.
func TestDecodeIsLinear(t *testing.T) {
	name := strings.Repeat("n", 64<<10)
	text := []byte(`{"op":"ping","state":{"` + name + `":[` + strings.TrimSuffix(strings.Repeat(`{"data":1},`, 2000), ",") + `]}}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var f clientFrame
	if err := decode(text, &f, twinrail.CodeBadFrame); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(100*len(text)) {
		t.Errorf("it took %d bytes of memory for %d", took, len(text))
	}
}

package server

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// caller speaks for an actor of one tenant in one env.
type caller struct {
	*rig
	token, tenant, env string
}

func (r *rig) caller(tenant, env string) caller {
	return caller{r, r.issuer.Token(authtest.Tenant(tenant), authtest.Env(env)), tenant, env}
}

func (c caller) at(path string) string {
	return strings.NewReplacer("t_acme", c.tenant, "env=dev", "env="+c.env).Replace(path)
}

// ask makes a request.
func (c caller) ask(method, path, body string) reply {
	c.t.Helper()
	return c.do(method, c.at(path), body, as(c.token))
}

// send publishes n commits, and reports whether they were taken; else they were
// refused for the limit.
func (c caller) send(limit string, n int) bool {
	c.t.Helper()
	return passes(c.t, limit, c.ask("POST", publishPath, `{"events":[`+strings.Repeat(commit(1)+",", n-1)+commit(1)+`]}`))
}

// passes reports whether resp is no refusal; one must be for the rate, and say
// when to come again.
func passes(t *testing.T, limit string, resp reply) bool {
	t.Helper()
	if resp.status < 300 {
		return true
	}
	p := problemOf(t, resp, twinrail.CodeRateLimited)
	if seconds, err := strconv.Atoi(resp.header.Get("Retry-After")); p.Field != limit || err != nil || seconds < 1 {
		t.Fatalf("field %q, Retry-After %q; want %q", p.Field, resp.header.Get("Retry-After"), limit)
	}
	return false
}

// peer opens the WS rail.
func (c caller) peer() *peer {
	c.t.Helper()
	p := c.upgrade(c.at(wsPath), c.token)
	p.want(twinrail.OpWelcome)
	return p
}

// knock asks for the WS rail where it is refused.
func (c caller) knock() reply {
	c.t.Helper()
	return c.do("GET", c.at(wsPath), "", append(as(c.token), handshakeHeader...))
}

// tail opens the SSE rail.
func (c caller) tail() *tail {
	c.t.Helper()
	nc, err := c.dial()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = nc.Close() })
	tail := tailOver(c.t, nc, c.at(canvasPath), c.token)
	tail.open()
	return tail
}

func (r *rig) limited(name string) float64 {
	r.t.Helper()
	return r.metric(`twinrail_limited_total{limit="` + name + `"}`)
}

// TestConnectionLimit fills a tenant's connections, on both rails, and opens more
// as others end. What was refused for another reason holds none.
func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxConnections = 3 })
		a := r.caller("t_acme", "dev")
		for range 5 {
			problemOf(t, a.do("GET", a.at(wsPath), "", as(a.token)), twinrail.CodeUpgradeRequired)
			problemOf(t, a.ask("GET", canvasPath+"&on_reset=fail&cursor=x", ""), twinrail.CodeCursorExpired)
			problemOf(t, a.ask("GET", canvasPath+"&channels=chat", ""), twinrail.CodeWrongRail)
		}
		tail, peer := a.tail(), a.peer()
		a.tail()
		for range 3 {
			for _, resp := range []reply{a.ask("GET", canvasPath, ""), a.knock()} {
				if p := problemOf(t, resp, twinrail.CodeLimitExceeded); p.Field != "connections" || resp.header.Get("Retry-After") == "" {
					t.Errorf("refused with %+v, Retry-After %q", p, resp.header.Get("Retry-After"))
				}
			}
		}
		if n := r.limited("connections"); n != 6 {
			t.Errorf("%v refusals counted, want 6", n)
		}
		problemOf(t, a.ask("GET", canvasPath+"&channels=chat", ""), twinrail.CodeWrongRail)
		for _, other := range []caller{r.caller("t_other", "dev"), r.caller("t_acme", "prod")} {
			for range 2 {
				other.tail()
			}
			other.peer()
			problemOf(t, other.knock(), twinrail.CodeLimitExceeded)
		}
		for range 3 {
			_ = tail.nc.Close()
			synctest.Wait()
			tail = a.tail()
			peer.cut()
			synctest.Wait()
			peer = a.peer()
		}
		problemOf(t, a.knock(), twinrail.CodeLimitExceeded)
	})
}

// boundless is a journal that cannot say where streams begin and end.
type boundless struct {
	journal.Journal
	now bool
}

func (j *boundless) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	if j.now {
		return journal.Bounds{}, journal.ErrUnavailable
	}
	return j.Journal.Bounds(ctx, r)
}

// TestFailedConnectionHoldsNoPlace fails right before the connection is there.
func TestFailedConnectionHoldsNoPlace(t *testing.T) {
	j := &boundless{Journal: journal.NewMemory(journal.MemoryOptions{})}
	sessions := new(failingTable)
	r := newRig(t, func(o *Options) { o.MaxConnections, o.Journal, o.Sessions = 1, j, sessions })
	for range 3 {
		for _, path := range []string{canvasPath, wsPath} {
			req := httptest.NewRequest("GET", path, nil)
			append(as(r.token), handshakeHeader...).apply(req)
			w := httptest.NewRecorder() // of which no connection can be taken over
			r.server.Handler().ServeHTTP(w, req)
			if w.Code == http.StatusTooManyRequests {
				t.Errorf("%s: %s", path, w.Body)
			}
		}
		j.now = true
		sessions.fails.Store(true)
		problemOf(t, r.get(canvasPath), twinrail.CodeUnavailable)
		problemOf(t, r.do("GET", wsPath, "", append(as(r.token), handshakeHeader...)), twinrail.CodeUnavailable)
		j.now = false
		sessions.fails.Store(false)
	}
	r.peer()
	problemOf(t, r.get(canvasPath), twinrail.CodeLimitExceeded)
}

// TestConnectionLimitHTTP2 holds the one place of its tenant over HTTP/2.
func TestConnectionLimitHTTP2(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxConnections = 1 })
	addr, config := r.secure()
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		r.tail2(ctx, addr, config("h2"), canvasPath).open()
		problemOf(t, r.get(canvasPath), twinrail.CodeLimitExceeded)
		cancel()
		eventually(t, "the stream ends", func() bool { return r.metric(`twinrail_connections{rail="sse"}`) == 0 })
	}
}

// TestConnectionRate opens connections for a minute, faster than the tenant may.
func TestConnectionRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.JoinRate, o.MaxJoins, o.MaxConnections = 5, 1, 1 })
		a, b := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		passed := 0
		const seconds, burst = 60, 10
		for i := range seconds * 20 {
			// This is refused after it was let in, and holds no place.
			resp := a.ask("GET", canvasPath+"&on_reset=fail&cursor=x", "")
			if resp.status == http.StatusGone {
				passed++
			} else {
				passes(t, "joins", resp)
				passes(t, "joins", a.knock())
			}
			if i%20 == 0 {
				_ = b.tail().nc.Close()
				synctest.Wait()
			}
			time.Sleep(time.Second / 20)
		}
		if passed < seconds*5+burst-1 || passed > seconds*5+burst {
			t.Errorf("%d passed, want %d and %d at once", passed, seconds*5, burst)
		}
	})
}

// TestNativeEventSourceOverLimit: what can neither set a header nor read a status
// is given a stream that ends, and a time to come back.
func TestNativeEventSourceOverLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxConnections = 1 })
		first := r.tail(canvasPath)
		first.open()
		seen := make(map[time.Duration]bool)
		native := func() *tail {
			nc, _, resp := r.request(canvasPath+"&ticket="+r.ticket(r.token, ""), "Accept", "text/event-stream")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s", resp.Status)
			}
			return &tail{t, nc, resp, bufio.NewReader(resp.Body)}
		}
		for range 10 {
			c := native()
			b := c.next()
			ms, err := strconv.Atoi(b.retry)
			if err != nil || ms < 5000 || ms > 10000 {
				t.Fatalf("told to come back after %q", b.retry)
			}
			seen[time.Duration(ms)] = true
			var end twinrail.End
			if unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end); end.Code != twinrail.CodeLimitExceeded || !end.Reconnect {
				t.Errorf("%+v", end)
			}
			c.ends()
		}
		if len(seen) < 5 {
			t.Errorf("10 were told %d times to come back", len(seen))
		}
		if n := r.limited("connections"); n != 10 {
			t.Errorf("%v refusals counted", n)
		}
		_ = first.nc.Close()
		synctest.Wait()
		native().open()
	})
}

// TestNoLimits has all of them switched off.
func TestNoLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) {
			o.MaxConnections, o.JoinRate, o.PublishRate, o.PublishBytes, o.FrameRate = -1, -1, -1, -1, -1
			o.MaxBody, o.MaxFrame, o.MaxJoins = 20_000, 1024, 1
		})
		a := r.caller("t_acme", "dev")
		p := a.peer()
		for range 50 {
			_ = a.tail().nc.Close()
			if !a.send("none", maxEvents) {
				t.Fatal("a publish is refused")
			}
		}
		for range 1000 {
			p.say(`{"op":"ping"}`)
			p.want(twinrail.OpPong)
		}
	})
}

// TestSizeOfConnection keeps a connection in the allocator's class of 256 bytes:
// the next one is of 288, of which an idle WebSocket's 4 KiB have no room.
func TestSizeOfConnection(t *testing.T) {
	if n := unsafe.Sizeof(wsConn{}); n > 256 {
		t.Errorf("a wsConn is of %d bytes", n)
	}
}

// TestStoppedJournal has the journal stop: a native EventSource is told to come back,
// for as long as it takes until there is one again, and /readyz that this is not the
// server to come to.
func TestStoppedJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{}))
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		native := func() *tail {
			nc, _, resp := r.request(canvasPath+"&ticket="+r.ticket(r.token, ""), "Accept", "text/event-stream")
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%s", resp.Status)
			}
			return &tail{t, nc, resp, bufio.NewReader(resp.Body)}
		}
		ready := func(want int) {
			t.Helper()
			if status, body := r.operator("/readyz"); status != want {
				t.Errorf("/readyz: %d %q, want %d", status, body, want)
			}
		}
		ready(http.StatusOK)
		j.FailReads(fmt.Errorf("%w: no space left", journal.ErrUnavailable))
		ready(http.StatusServiceUnavailable)
		for range 3 {
			c := native()
			if ms, err := strconv.Atoi(c.next().retry); err != nil || ms < 5000 || ms > 10000 {
				t.Errorf("told to come back after %d ms, %v", ms, err)
			}
			var end twinrail.End
			if unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end); end.Code != twinrail.CodeUnavailable || !end.Reconnect {
				t.Errorf("%+v", end)
			}
			c.ends()
		}
		problemOf(t, r.get(canvasPath), twinrail.CodeUnavailable)
		if n := r.metric(`twinrail_errors_total{code="unavailable"}`); n != 4 {
			t.Errorf("%v errors counted", n)
		}
		j.FailReads(nil)
		ready(http.StatusOK)
		native().open()
	})
}

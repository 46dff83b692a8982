package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// upload is a publish that is sent bit by bit.
type upload struct {
	t  *testing.T
	nc net.Conn
}

// upload begins a publish of c1 with a body of that length, or in chunks where it
// is negative, and sends the start of it.
func (c caller) upload(length int, start string) *upload {
	c.t.Helper()
	nc, err := c.dial()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = nc.Close() })
	u := &upload{c.t, nc}
	how := fmt.Sprint("Content-Length: ", length)
	if length < 0 {
		how = "Transfer-Encoding: chunked"
		start = fmt.Sprintf("%x\r\n%s\r\n", len(start), start)
	}
	u.write(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: twinrail.test\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s\r\n\r\n%s", c.at(publishPath), c.token, how, start))
	return u
}

func (u *upload) write(s string) {
	u.t.Helper()
	if _, err := u.nc.Write([]byte(s)); err != nil {
		u.t.Fatal(err)
	}
}

// status returns that of the answer.
func (u *upload) status() int {
	u.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(u.nc), nil)
	if err != nil {
		u.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestBodiesLimit has a tenant begin bodies and not end them: it holds no more of
// them than it may, which is no matter to others, and what ends is given back.
func TestBodiesLimit(t *testing.T) {
	body := `{"events":[` + commit(1) + `]}` + strings.Repeat(" ", 4000)
	start := body[:len(body)-1]
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxBody, o.MaxBodies = 5000, 3*len(body)-4 })
		a := r.caller("t_acme", "dev")
		first, second := a.upload(len(body), start), a.upload(-1, start)
		synctest.Wait()
		for range 3 {
			p := problemOf(t, a.ask("POST", publishPath, body), twinrail.CodeLimitExceeded)
			if p.Field != "bodies" {
				t.Errorf("field %q", p.Field)
			}
			// Refused without waiting for what the client does not send.
			if status := a.upload(len(body), start).status(); status != http.StatusTooManyRequests {
				t.Errorf("a third body is answered %d", status)
			}
		}
		if n := r.limited("bodies"); n != 6 {
			t.Errorf("%v refusals counted, want 6", n)
		}
		if !a.send("none", 1) {
			t.Error("a small body has no room")
		}
		for _, other := range []caller{r.caller("t_other", "dev"), r.caller("t_acme", "prod")} {
			if resp := other.ask("POST", publishPath, body); resp.status != http.StatusOK {
				t.Errorf("another tenant is answered %d", resp.status)
			}
		}
		first.write(body[len(start):])
		if status := first.status(); status != http.StatusOK {
			t.Errorf("the first body, once whole, is answered %d", status)
		}
		_ = second.nc.Close()
		synctest.Wait()
		a.upload(len(body), start)
		a.upload(len(body), start)
		synctest.Wait()
		problemOf(t, a.ask("POST", publishPath, body), twinrail.CodeLimitExceeded)
	})
}

// TestMessagesUnderWayLimit is TestBodiesLimit for the messages of WebSockets, in one
// frame and in several, which count with the bodies.
func TestMessagesUnderWayLimit(t *testing.T) {
	const size = 4000
	message := fmt.Sprintf("%-*s", size, `{"op":"publish","events":[`+chat(1)+`]}`)
	whole := text(message)
	parts := [][]byte{frame(false, ws.OpText, []byte(message[:size-1])), frame(true, ws.OpContinuation, []byte(message[size-1:]))}
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxFrame, o.MaxBody, o.MaxBodies = size, size, 3*size-4 })
		a := r.caller("t_acme", "dev")
		first, second, small := a.peer(), a.peer(), a.peer()
		first.write(parts[0])
		second.write(whole[:len(whole)-1])
		synctest.Wait()
		for _, begun := range [][]byte{parts[0], whole[:len(whole)-1]} {
			p := a.peer()
			p.write(begun)
			if f := p.fails(twinrail.CodeLimitExceeded, 4100); f.Field != "bodies" || f.RetryAfterMS != 1000 {
				t.Errorf("%+v", f)
			}
		}
		problemOf(t, a.ask("POST", publishPath, message), twinrail.CodeLimitExceeded)
		if n := r.limited("bodies"); n != 3 {
			t.Errorf("%v refusals counted, want 3", n)
		}
		small.say(`{"op":"ping"}`)
		small.want(twinrail.OpPong)
		for _, other := range []caller{r.caller("t_other", "dev"), r.caller("t_acme", "prod")} {
			p := other.peer()
			p.write(parts[0])
			p.write(parts[1])
			p.want(twinrail.OpAck)
		}
		first.write(parts[1])
		first.want(twinrail.OpAck)
		second.cut()
		synctest.Wait()
		for range 2 { // there is room again, for as many
			both := []*peer{a.peer(), a.peer()}
			for _, part := range parts {
				for _, p := range both {
					p.write(part)
				}
				synctest.Wait()
			}
			for _, p := range both {
				p.want(twinrail.OpAck)
			}
		}
		first.write(parts[0])
		a.peer().write(whole[:len(whole)-1])
		synctest.Wait()
		p := a.peer()
		p.write(parts[0])
		p.fails(twinrail.CodeLimitExceeded, 4100)
	})
}

// TestOneMessageUnderWay: one alone may be as large as a message may be.
func TestOneMessageUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxBodies = 1 })
		p := r.peer()
		message := text(fmt.Sprintf("%-*s", 4000, `{"op":"ping"}`))
		for range 3 {
			p.write(message[:2000])
			synctest.Wait()
			p.write(message[2000:])
			p.want(twinrail.OpPong)
		}
	})
}

package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// peer is a client of the WS rail that sends and sees raw frames.
type peer struct {
	t    *testing.T
	nc   net.Conn
	br   *bufio.Reader
	resp *http.Response
}

var handshakeHeader = header{
	"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
	"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol", twinrail.Subprotocol,
}

// handshake returns the bytes of an upgrade.
func handshake(path, token string) []byte {
	req, _ := http.NewRequest("GET", "http://twinrail.test"+path, nil)
	req.Header.Set("Authorization", "Bearer "+token)
	handshakeHeader.apply(req)
	var out bytes.Buffer
	_ = req.Write(&out)
	return out.Bytes()
}

// upgrade opens the WS rail, and writes more with the handshake.
func (r *rig) upgrade(path, token string, more ...byte) *peer {
	r.t.Helper()
	nc, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := nc.Write(append(handshake(path, token), more...)); err != nil {
		r.t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		r.t.Fatalf("upgrade: %s %s", resp.Status, body)
	}
	return &peer{r.t, nc, br, resp}
}

// peer opens the WS rail, and takes the welcome.
func (r *rig) peer() *peer {
	r.t.Helper()
	p := r.upgrade(wsPath, r.token)
	p.want(twinrail.OpWelcome)
	return p
}

// frame returns the bytes of a masked frame.
func frame(fin bool, op ws.OpCode, payload []byte) []byte {
	f := ws.MaskFrame(ws.NewFrame(op, fin, payload))
	b, _ := ws.CompileFrame(f)
	return b
}

func text(s string) []byte { return frame(true, ws.OpText, []byte(s)) }

// write writes raw bytes.
func (p *peer) write(b []byte) {
	p.t.Helper()
	_ = p.nc.SetDeadline(time.Now().Add(patience))
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// say sends a text frame.
func (p *peer) say(format string, args ...any) {
	p.t.Helper()
	p.write(text(fmt.Sprintf(format, args...)))
}

// readServerFrame reads a frame of at most 16 MiB.
func readServerFrame(r io.Reader) (ws.Frame, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return ws.Frame{}, err
	}
	if h.Length > 16<<20 {
		return ws.Frame{}, fmt.Errorf("a frame of %d bytes", h.Length)
	}
	f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// raw returns the next frame.
func (p *peer) raw() ws.Frame {
	p.t.Helper()
	_ = p.nc.SetDeadline(time.Now().Add(patience))
	f, err := readServerFrame(p.br)
	if err != nil {
		p.t.Fatalf("read a frame: %v", err)
	}
	if f.Header.Masked || !f.Header.Fin || f.Header.Rsv != 0 {
		p.t.Fatalf("the server sent a frame with header %+v", f.Header)
	}
	return f
}

// next returns the next frame, which must be a text frame of the rail.
func (p *peer) next() twinrail.ServerFrame {
	p.t.Helper()
	f := p.raw()
	if f.Header.OpCode != ws.OpText {
		p.t.Fatalf("got a frame %+v %q, want text", f.Header, f.Payload)
	}
	var s twinrail.ServerFrame
	unmarshal(p.t, f.Payload, &s)
	return s
}

// want returns the next frame, which must have that op.
func (p *peer) want(op string) twinrail.ServerFrame {
	p.t.Helper()
	s := p.next()
	if s.Op != op {
		b, _ := json.Marshal(s)
		p.t.Fatalf("got %s, want %s", b, op)
	}
	return s
}

// wantError returns the next frame, which must be an error that does not close.
func (p *peer) wantError(code twinrail.Code, ref string) twinrail.ServerFrame {
	p.t.Helper()
	s := p.want(twinrail.OpError)
	if s.Code != code || s.Ref != ref || s.Action != "" || s.Resumable != nil || s.Detail == "" ||
		s.Retry != code.Info().Retry || s.RequestID != p.resp.Header.Get("X-Request-Id") {
		b, _ := json.Marshal(s)
		p.t.Fatalf("got %s, want the error %s for %q", b, code, ref)
	}
	return s
}

// event returns the next frame's event, which must be for sub.
func (p *peer) event(sub string) twinrail.Event {
	p.t.Helper()
	s := p.want(twinrail.OpEvent)
	if s.Sub != sub {
		p.t.Fatalf("an event for %q, want %q", s.Sub, sub)
	}
	var e twinrail.Event
	unmarshal(p.t, s.Event, &e)
	return e
}

func (p *peer) events(sub string, n int) []twinrail.Event {
	p.t.Helper()
	events := make([]twinrail.Event, n)
	for i := range events {
		events[i] = p.event(sub)
	}
	return events
}

// published reads the answer to a publish and the events of it that sub gets,
// which may come before it.
func (p *peer) published(sub string, n int) (ack twinrail.ServerFrame, events []twinrail.Event) {
	p.t.Helper()
	for ack.Op == "" || len(events) < n {
		switch f := p.next(); {
		case f.Op == twinrail.OpAck && ack.Op == "":
			ack = f
		case f.Op == twinrail.OpEvent && f.Sub == sub:
			var e twinrail.Event
			unmarshal(p.t, f.Event, &e)
			events = append(events, e)
		default:
			p.t.Fatalf("got %+v, want ack or event", f)
		}
	}
	return ack, events
}

// join joins th1 as sub and returns the answer; more is added to the frame.
func (p *peer) join(sub, more string) twinrail.ServerFrame {
	p.t.Helper()
	p.say(`{"op":"join","ref":"j-%s","sub":%q,"routing":{"thread_id":"th1"}%s}`, sub, sub, more)
	s := p.want(twinrail.OpJoined)
	if s.Sub != sub || s.Ref != "j-"+sub || s.Resumed == nil {
		p.t.Fatalf("joined %+v, want it for %s", s, sub)
	}
	return s
}

// live joins th1 at its head and waits for live.
func (p *peer) live(sub string) {
	p.t.Helper()
	p.join(sub, "")
	p.want(twinrail.OpLive)
}

// closed reads the close frame, checks that the connection ends behind it, and
// returns its code and reason.
func (p *peer) closed() (code int, reason string) {
	p.t.Helper()
	f := p.raw()
	if f.Header.OpCode != ws.OpClose {
		p.t.Fatalf("got %+v %q, want a close frame", f.Header, f.Payload)
	}
	if _, err := p.br.ReadByte(); err != io.EOF {
		p.t.Fatalf("after the close frame: %v, want the end", err)
	}
	_ = p.nc.Close()
	if len(f.Payload) == 0 {
		return 0, ""
	}
	status, reason := ws.ParseCloseFrameData(f.Payload)
	return int(status), reason
}

// fails reads an error frame that closes, and the close, and checks that both
// say the code.
func (p *peer) fails(code twinrail.Code, closeCode int) twinrail.ServerFrame {
	p.t.Helper()
	s := p.want(twinrail.OpError)
	if s.Code != code || s.Action != twinrail.CloseAction(closeCode) || s.Resumable == nil ||
		s.RequestID != p.resp.Header.Get("X-Request-Id") || s.Detail == "" {
		b, _ := json.Marshal(s)
		p.t.Fatalf("got %s, want the closing error %s", b, code)
	}
	if got, reason := p.closed(); got != closeCode || reason != string(code) {
		p.t.Fatalf("closed with %d %q, want %d %q", got, reason, closeCode, code)
	}
	return s
}

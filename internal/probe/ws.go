package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// maxFrame bounds a frame of the server, and maxPending how many may come that
// nobody waits for.
const (
	maxFrame   = 16 << 20
	maxPending = 4096
)

// conn is a connection of the WS rail. Its waits end with the context that it was
// opened with.
type conn struct {
	p       *party
	nc      net.Conn
	br      *bufio.Reader
	welcome twinrail.ServerFrame
	// resumeToken is the last one that came.
	resumeToken string
	pending     []frame // that nobody waited for yet
	stop        func() bool
}

// frame is a frame of the server, decoded and as it came.
type frame struct {
	twinrail.ServerFrame
	raw string
}

// recorded is a connection of which all that is read is recorded.
type recorded struct {
	net.Conn
	to *record
}

func (r recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	_, _ = r.to.Write(b[:n]) // a buffer takes everything
	return n, err
}

// handshake is the call that opens the WS rail in the context of an address.
func handshake(stated twinrail.Routing) call { return call{path: twinrail.PathWS, stated: stated} }

// dial opens the WS rail with just its tenant and env as the context, or what
// else c states. It returns the answer where it is refused.
func (p *party) dial(ctx context.Context, c call) (*conn, *answer, error) {
	c.method, c.path = http.MethodGet, twinrail.PathWS
	r, err := p.request(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	u := *r.URL
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	rec := p.record("a WebSocket")
	var refusal *answer
	dialer := ws.Dialer{
		Protocols: []string{twinrail.Subprotocol}, Header: ws.HandshakeHeaderHTTP(r.Header), TLSConfig: p.w.tls,
		WrapConn:      func(nc net.Conn) net.Conn { return recorded{nc, rec} },
		OnStatusError: func(_ int, _ []byte, in io.Reader) { refusal = readRefusal(in, r) },
	}
	nc, br, _, err := dialer.Dial(ctx, u.String())
	switch {
	case refusal != nil:
		return nil, refusal, nil
	case err != nil:
		return nil, nil, fmt.Errorf("the WebSocket: %w", err)
	case br == nil:
		br = bufio.NewReader(nc)
	}
	cn := &conn{p: p, nc: nc, br: br}
	cn.stop = context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	p.open = append(p.open, cn)
	welcome, err := cn.until(twinrail.OpWelcome)
	cn.welcome = welcome.ServerFrame
	return cn, nil, err
}

func readRefusal(in io.Reader, r *http.Request) *answer {
	resp, err := http.ReadResponse(bufio.NewReader(in), r)
	if err != nil {
		return &answer{}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what is cut short is no problem document
	return &answer{resp.StatusCode, resp.Header, body}
}

// mustDial opens the WS rail.
func (p *party) mustDial(ctx context.Context) (*conn, error) {
	c, a, err := p.dial(ctx, call{})
	if a != nil {
		return nil, fmt.Errorf("the WebSocket was refused: %s", a)
	}
	return c, err
}

// tlsConfig returns what WebSockets are dialed with, or nil for the default. It is
// called before the client's first request, with which the transport changes its own.
func tlsConfig(client *http.Client) *tls.Config {
	t, ok := client.Transport.(*http.Transport)
	if !ok || t.TLSClientConfig == nil {
		return nil
	}
	config := t.TLSClientConfig.Clone()
	config.NextProtos = nil
	return config
}

// Close cuts the connection off without a word, so that its session can be
// resumed.
func (c *conn) Close() error {
	c.stop()
	return c.nc.Close()
}

// bye closes the connection for good, and waits until the server has closed it
// too: its session is over then.
func (c *conn) bye() error {
	err := ws.WriteFrame(c.nc, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
	for err == nil {
		_, err = c.next()
	}
	var closed *closedError
	if errors.As(err, &closed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// say sends a frame.
func (c *conn) say(f twinrail.ClientFrame) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return ws.WriteFrame(c.nc, ws.MaskFrame(ws.NewTextFrame(b)))
}

// closedError is the server's close frame.
type closedError struct {
	code   ws.StatusCode
	reason string
}

func (e *closedError) Error() string {
	return fmt.Sprintf("the server closed the WebSocket: %d %s", e.code, e.reason)
}

// next returns the next text frame, and answers what is to be answered.
func (c *conn) next() (frame, error) {
	for {
		h, err := ws.ReadHeader(c.br)
		if err != nil {
			return frame{}, fmt.Errorf("the WebSocket ended: %w", err)
		}
		if h.Length > maxFrame || !h.Fin {
			return frame{}, fmt.Errorf("a frame of %d bytes, or a part of one", h.Length)
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(c.br, payload); err != nil {
			return frame{}, fmt.Errorf("the WebSocket ended: %w", err)
		}
		switch h.OpCode {
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(payload)
			return frame{}, &closedError{code, reason}
		case ws.OpPing:
			err = ws.WriteFrame(c.nc, ws.MaskFrame(ws.NewPongFrame(payload)))
		case ws.OpText:
			f := frame{raw: string(payload)}
			if err := json.Unmarshal(payload, &f.ServerFrame); err != nil {
				return f, fmt.Errorf("not a frame of the rail: %w", err)
			}
			if f.ResumeToken != "" {
				c.resumeToken = f.ResumeToken
			}
			if f.Op != twinrail.OpPing {
				return f, nil
			}
			err = c.say(twinrail.ClientFrame{Op: twinrail.OpPong})
		}
		if err != nil {
			return frame{}, err
		}
	}
}

// find returns the first frame that is wanted of those that nobody waited for yet
// and those to come.
func (c *conn) find(what string, wanted func(*frame) bool) (frame, error) {
	for i := range c.pending {
		if f := c.pending[i]; wanted(&f) {
			c.pending = slices.Delete(c.pending, i, i+1)
			return f, nil
		}
	}
	for len(c.pending) < maxPending {
		f, err := c.next()
		if err != nil {
			return f, fmt.Errorf("waiting for %s: %w", what, err)
		}
		if wanted(&f) {
			return f, nil
		}
		c.pending = append(c.pending, f)
	}
	return frame{}, fmt.Errorf("waiting for %s: too much came that is something else", what)
}

// until returns the next frame with that op.
func (c *conn) until(op string) (frame, error) {
	return c.find(op, func(f *frame) bool { return f.Op == op })
}

func (c *conn) await(text string) (json.RawMessage, error) {
	f, err := c.event(text)
	return f.Event, err
}

// event returns the next event with the text.
func (c *conn) event(text string) (frame, error) {
	return c.find("the event", func(f *frame) bool { return f.Op == twinrail.OpEvent && strings.Contains(f.raw, text) })
}

// ask sends a frame, and returns the frame that answers it.
func (c *conn) ask(f twinrail.ClientFrame) (frame, error) {
	f.Ref = "probe"
	if err := c.say(f); err != nil {
		return frame{}, err
	}
	return c.find("the answer to "+f.Op, func(got *frame) bool { return got.Ref == f.Ref })
}

// must sends a frame that is not to be answered with an error.
func (c *conn) must(f twinrail.ClientFrame) (frame, error) {
	got, err := c.ask(f)
	if err == nil && got.Op == twinrail.OpError {
		err = fmt.Errorf("%s: %s %s", f.Op, got.Code, got.Field)
	}
	return got, err
}

// asAnswer returns a frame as the answer that it would be over HTTP. Those to two
// frames on one connection can be compared.
func (f *frame) asAnswer() *answer {
	a := &answer{status: http.StatusOK, body: []byte(f.raw)}
	if f.Op == twinrail.OpError {
		a.status = f.Code.Info().Status
	}
	return a
}

// join is the frame that joins a stream of the kind.
func join(sub string, at twinrail.Routing, channels ...twinrail.Channel) twinrail.ClientFrame {
	return twinrail.ClientFrame{Op: twinrail.OpJoin, Sub: sub, Routing: &at, Channels: channels}
}

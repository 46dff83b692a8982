package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// tail is a client of the SSE rail that takes nothing for granted.
type tail struct {
	t    *testing.T
	nc   net.Conn // nil for HTTP/2
	resp *http.Response
	br   *bufio.Reader
}

// block is one block of an event stream, as its fields say.
type block struct {
	id, event, data, retry string
	comment                bool
	raw                    string
}

// tail opens the SSE rail with an HTTP/1.1 request over a connection of its own.
func (r *rig) tail(path string, h ...string) *tail {
	r.t.Helper()
	nc, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	return tailOver(r.t, nc, path, r.token, h...)
}

func tailOver(t *testing.T, nc net.Conn, path, token string, h ...string) *tail {
	t.Helper()
	req, err := http.NewRequest("GET", "http://twinrail.test"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	header(h).apply(req)
	_ = nc.SetDeadline(time.Now().Add(patience))
	var out bytes.Buffer
	_ = req.Write(&out)
	if _, err := nc.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		t.Fatal(err)
	}
	return &tail{t, nc, resp, bufio.NewReader(resp.Body)}
}

// lines returns the raw text of the next block; at the end of the stream err is
// io.EOF.
func (c *tail) lines() (string, error) {
	if c.nc != nil {
		_ = c.nc.SetDeadline(time.Now().Add(patience))
	}
	var b strings.Builder
	for {
		line, err := c.br.ReadString('\n')
		b.WriteString(line)
		switch {
		case err != nil && b.Len() > 0 && errors.Is(err, io.EOF):
			return b.String(), io.ErrUnexpectedEOF
		case err != nil:
			return b.String(), err
		case line == "\n":
			return b.String(), nil
		}
	}
}

// next returns the next block.
func (c *tail) next() block {
	c.t.Helper()
	raw, err := c.lines()
	if err != nil {
		c.t.Fatalf("after %q: %v", raw, err)
	}
	return parseBlock(c.t, raw)
}

func parseBlock(t *testing.T, raw string) block {
	t.Helper()
	b := block{raw: raw}
	var data []string
	for line := range strings.SplitSeq(strings.TrimSuffix(raw, "\n\n"), "\n") {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case ok && name == "":
			b.comment = true
		case ok && name == "id":
			b.id = value
		case ok && name == "event":
			b.event = value
		case ok && name == "retry":
			b.retry = value
		case ok && name == "data":
			data = append(data, value)
		default:
			t.Fatalf("not a line of an event stream: %q", line)
		}
	}
	b.data = strings.Join(data, "\n")
	return b
}

// want returns the next block, which must be of that name.
func (c *tail) want(event string) block {
	c.t.Helper()
	b := c.next()
	if b.event != event {
		c.t.Fatalf("got %q, want the event %s", b.raw, event)
	}
	return b
}

// open reads the prologue up to open.
func (c *tail) open() twinrail.Open {
	c.t.Helper()
	if c.resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(c.br)
		c.t.Fatalf("%s %s", c.resp.Status, body)
	}
	if b := c.next(); b.retry == "" || b.event != "" || b.id != "" {
		c.t.Fatalf("begins with %q, want retry", b.raw)
	}
	var o twinrail.Open
	b := c.want(twinrail.SSEOpen)
	unmarshal(c.t, []byte(b.data), &o)
	// Where a reset follows, only that may move the client on.
	if want := o.Cursor; o.Reason == "" && b.id != want || o.Reason != "" && b.id != "" {
		c.t.Fatalf("open with id %q: %s", b.id, b.data)
	}
	return o
}

// event returns the next block as an event, which must carry its own cursor as
// id.
func (c *tail) event() twinrail.Event {
	c.t.Helper()
	b := c.next()
	var e twinrail.Event
	unmarshal(c.t, []byte(b.data), &e)
	if b.event != string(e.Channel) || b.id != e.Cursor || e.Cursor == "" {
		c.t.Fatalf("got %q, want an event with its channel as name and its cursor as id", b.raw)
	}
	return e
}

func (c *tail) events(n int) []twinrail.Event {
	c.t.Helper()
	events := make([]twinrail.Event, n)
	for i := range events {
		events[i] = c.event()
	}
	return events
}

// toLive reads events until live.
func (c *tail) toLive() (events []twinrail.Event) {
	c.t.Helper()
	for {
		b := c.next()
		if b.event == twinrail.SSELive {
			var l twinrail.Live
			unmarshal(c.t, []byte(b.data), &l)
			if l.Cursor != b.id || b.id == "" {
				c.t.Fatalf("live with another id: %q", b.raw)
			}
			return events
		}
		var e twinrail.Event
		unmarshal(c.t, []byte(b.data), &e)
		if b.event != string(e.Channel) || b.id != e.Cursor {
			c.t.Fatalf("got %q before live", b.raw)
		}
		events = append(events, e)
	}
}

// ends checks that the stream ends here.
func (c *tail) ends() {
	c.t.Helper()
	if raw, err := c.lines(); err != io.EOF || raw != "" {
		c.t.Fatalf("got %q, %v, want the end", raw, err)
	}
}

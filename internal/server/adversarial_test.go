package server

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// direct is a server whose handler is called with no network in between: what no
// client gets past net/http reaches it too, and an answer takes microseconds.
type direct struct {
	t      testing.TB
	issuer *authtest.Issuer
	server *Server
	token  string
}

func newDirect(t testing.TB, change ...func(*Options)) *direct {
	t.Helper()
	issuer := authtest.New(t)
	o := Options{Journal: journal.NewMemory(journal.MemoryOptions{}), Gate: issuer.Gate(auth.GateOptions{})}
	for _, f := range change {
		f(&o)
	}
	s, err := newServer(o, peekWatcher{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &direct{t, issuer, s, issuer.Token()}
}

// request returns a request of the path with just the given headers; query is
// added to what the path has, as it is.
func (d *direct) request(method, path, query, body string, h header) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if query != "" {
		r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&"+query, "&")
	}
	h.apply(r)
	return r
}

// ask has the request answered.
func (d *direct) ask(r *http.Request) reply {
	w := httptest.NewRecorder()
	d.server.Handler().ServeHTTP(w, r)
	return reply{w.Code, w.Result().Header, w.Body.Bytes()}
}

// do is like that of a rig.
func (d *direct) do(method, path, body string, h header) reply {
	return d.ask(d.request(method, path, "", body, h))
}

// publish publishes one event.
func (d *direct) publish(path, token, event string) twinrail.PublishResult {
	d.t.Helper()
	resp := d.do("POST", path, `{"events":[`+event+`]}`, as(token))
	var got twinrail.PublishResponse
	if err := json.Unmarshal(resp.body, &got); err != nil || len(got.Results) != 1 {
		d.t.Fatalf("publish: %d %s", resp.status, resp.body)
	}
	return got.Results[0]
}

// codeOf returns the code of a problem document, and "" where the answer is a good
// one. An answer that is neither, or that is our fault, fails the test.
func codeOf(t testing.TB, what string, resp reply) twinrail.Code {
	t.Helper()
	if resp.status/100 == 2 {
		return ""
	}
	var p twinrail.Problem
	err := json.Unmarshal(resp.body, &p)
	if _, known := twinrail.Codes()[p.Code]; err != nil || !known || resp.status != p.Code.Info().Status || resp.status/100 != 4 {
		t.Fatalf("%s: %d %s", what, resp.status, resp.body)
	}
	return p.Code
}

// driven is a connection of the WS rail whose frames are handled in the caller's
// goroutine, and whose answers are kept instead of written.
type driven struct {
	t    testing.TB
	conn *wsConn
}

// drive opens the WS rail for a request that would be upgraded.
func (d *direct) drive(path, token string) *driven {
	d.t.Helper()
	ac, err := d.server.admit(d.request("GET", path, "", "", as(token)), twinrail.RailWS)
	if err != nil {
		d.t.Fatal(err)
	}
	c := &wsConn{server: d.server, id: newID("c_")}
	c.auth.Store(ac)
	if c.session, err = d.server.sessions.New(c); err != nil {
		d.t.Fatal(err)
	}
	nc, _ := net.Pipe()
	c.link = newLink(d.server.engine, tenantOf(ac), nc, c, nil)
	c.link.state.Store(again) // as if a worker had it: nobody else drives it
	d.t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for len(c.joins) > 0 {
			c.drop(c.joins[0])
		}
		c.session.End(c)
	})
	return &driven{d.t, c}
}

// say has a message handled, and returns what is answered at once. The error is
// what would end the connection.
func (p *driven) say(message string) ([]twinrail.ServerFrame, error) {
	p.t.Helper()
	err := p.conn.handle([]byte(message))
	p.conn.mu.Lock()
	out := p.conn.out
	p.conn.out = nil
	p.conn.mu.Unlock()
	return p.frames(out), err
}

// frames reads the frames that out is.
func (p *driven) frames(out []byte) (frames []twinrail.ServerFrame) {
	p.t.Helper()
	for r := strings.NewReader(string(out)); r.Len() > 0; {
		f, err := readServerFrame(r)
		if err != nil || f.Header.OpCode != ws.OpText {
			p.t.Fatalf("%v in %q", err, out)
		}
		var s twinrail.ServerFrame
		if err := json.Unmarshal(f.Payload, &s); err != nil {
			p.t.Fatalf("%v in %q", err, f.Payload)
		}
		frames = append(frames, s)
	}
	return frames
}

// code returns the code with which the message is refused, in a frame or with the
// end of the connection, and "" where it is taken.
func (p *driven) code(message string) twinrail.Code {
	p.t.Helper()
	frames, err := p.say(message)
	code := twinrail.Code("")
	switch {
	case err != nil:
		code = twinrail.CodeOf(err)
	case len(frames) > 0 && frames[len(frames)-1].Op == twinrail.OpError:
		code = frames[len(frames)-1].Code
	}
	if info, known := twinrail.Codes()[code]; code != "" && (!known || info.Status/100 != 4) {
		p.t.Fatalf("%q: %s %v", message, code, err)
	}
	return code
}

// leave ends a subscription, where there is one.
func (p *driven) leave(sub string) {
	p.t.Helper()
	if _, err := p.say(`{"op":"leave","sub":"` + sub + `"}`); err != nil {
		p.t.Fatal(err)
	}
}

package server

import (
	"io"
	"mime"
	"net/http"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// readJSON reads the body of a request that was admitted as ac into v. A client
// takes its time over a body: what it asks for needs a credential that is still
// good when all of it is there.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request, ac *auth.Context, v any) error {
	counted := s.countBody(w, r, ac)
	defer counted.done()
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	if err := s.opts.Gate.Still(ac); err != nil {
		return err
	}
	return decode(body, v, twinrail.CodeBadRequest)
}

// readBody reads a JSON body.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, twinrail.Errorf(twinrail.CodeUnsupportedMediaType, "Content-Type", "must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.opts.MaxBody)))
	if err != nil {
		if e := asError(err); e.Code == twinrail.CodeTooLarge || e.Code == twinrail.CodeLimitExceeded {
			return nil, e
		}
		return nil, twinrail.Errorf(twinrail.CodeBadRequest, "body", "could not be read to its end")
	}
	return body, nil
}

// countedBody is a request's body of which what was read counts as its tenant's,
// until done. What is only announced does not: it takes no memory.
type countedBody struct {
	io.ReadCloser
	server *Server
	close  func() // has the connection be closed after the answer
	share  *share
	read   int64
}

// countBody puts a countedBody in the place of r's body.
func (s *Server) countBody(w http.ResponseWriter, r *http.Request, ac *auth.Context) *countedBody {
	b := &countedBody{ReadCloser: r.Body, server: s, close: func() {}, share: s.engine.shares.join(tenantOf(ac))}
	if r.ProtoMajor == 1 {
		b.close = func() { w.Header().Set("Connection", "close") }
	}
	r.Body = b
	return b
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if over := b.server.takeBody(b.share, n, b.read); over != nil {
		b.close() // or net/http would wait for the rest before it answers
		return n, over
	}
	return n, err
}

// takeBody takes n bytes more of what the tenant of sh may have under way, with which
// they are own of one body or message. They are taken even where it is refused, until
// all own are given back. One alone may be of any size that it may have.
func (s *Server) takeBody(sh *share, n int, own int64) error {
	held, most := sh.bodies.Add(int64(n)), int64(s.opts.MaxBodies)
	if most < 0 || held <= most || held <= own {
		return nil
	}
	return s.over(twinrail.CodeLimitExceeded, limitBodies, defaultRetryAfter, "a tenant has at most %d bytes of request bodies and messages under way", most)
}

func (b *countedBody) done() {
	b.share.bodies.Add(-b.read)
	b.server.engine.shares.leave(b.share)
}

// heldPayload is a frame's payload that is not all there yet: what has come of it
// counts as the tenant's like a request's body, until the message is whole.
type heldPayload struct {
	io.Reader
	conn *wsConn
}

func (p heldPayload) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if over := p.conn.hold(n); over != nil {
		return n, over
	}
	return n, err
}

// hold counts n bytes more of the message under way.
func (c *wsConn) hold(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.ended.Load() {
		return errEnded // and nobody would give them back
	}
	c.held += int64(n)
	return c.server.takeBody(c.link.share, n, c.held)
}

// letGo gives back what the message under way held.
func (c *wsConn) letGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.letGoLocked()
}

func (c *wsConn) letGoLocked() {
	c.link.share.bodies.Add(-c.held)
	c.held = 0
}

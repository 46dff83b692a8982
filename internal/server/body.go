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
	held := b.share.bodies.Add(int64(n))
	// One alone may be of any size that a body may have.
	if most := int64(b.server.opts.MaxBodies); most >= 0 && held > most && held > b.read {
		b.close() // or net/http would wait for the rest before it answers
		return n, b.server.over(twinrail.CodeLimitExceeded, limitBodies, defaultRetryAfter, "a tenant has at most %d bytes of request bodies under way", most)
	}
	return n, err
}

func (b *countedBody) done() {
	b.share.bodies.Add(-b.read)
	b.server.engine.shares.leave(b.share)
}

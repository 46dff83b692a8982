package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/twinrail/twinrail"
)

// newNITransport returns what p speaks HTTP/2 by: all its streams share one
// connection, until that is lost. A stream that nobody reads is full at once.
func newNITransport(r *rig, p *niParty, dial func() (net.Conn, error)) *http.Transport {
	transport := r.over2(dial, func(nc net.Conn) net.Conn {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.shared = append(p.shared, nc)
		return nc
	})
	transport.DisableCompression = true
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 256}
	return transport
}

// fetch makes a request over HTTP/2, and takes in all that comes.
func (w *niWire) fetch(transport *http.Transport, req *http.Request) {
	defer w.close()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		w.answer("no answer")
		w.over(nil)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s\r\n", resp.Proto, resp.Status)
	_ = resp.Header.Write(&head) // into memory
	if resp.Header.Get("Content-Type") == "text/event-stream" {
		br := bufio.NewReader(resp.Body)
		err = w.begin(twinrail.RailSSE, head.String(), func() error { return w.readSSE(br) })
	} else {
		body, _ := io.ReadAll(resp.Body) // of what is missing the transcript tells
		w.answer(head.String() + "\r\n" + string(body))
	}
	w.over(err)
}

// hangUp cuts the connection that p's streams share.
func (p *niParty) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.shared); n > 0 {
		_ = p.shared[n-1].Close()
	}
}

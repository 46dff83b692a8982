package server

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/table"
)

const (
	ticketsPath     = twinrail.PathTickets + "?tenant_id=t_acme&env=dev"
	sessionPath     = twinrail.PathSession + "?tenant_id=t_acme&env=dev"
	revocationsPath = twinrail.PathRevocations + "?tenant_id=t_acme&env=dev"
	ours            = "https://app.example.com" // the allowed origin
)

// pages are the options of a server whose cookies and tickets pages may use, over
// the given tables.
func pages(issuer *authtest.Issuer, revocations, cookies table.Table) func(*Options) {
	return func(o *Options) {
		o.AllowedOrigins = []string{ours}
		o.Gate = issuer.Gate(auth.GateOptions{Revocations: revocations, Cookies: cookies, AllowedOrigins: o.AllowedOrigins})
	}
}

// pagesRig is newBubbleRig with such options.
func pagesRig(t *testing.T) *rig {
	t.Helper()
	issuer := authtest.New(t)
	return newBubbleRigOf(t, issuer, pages(issuer, new(table.Memory), new(table.Memory)))
}

// ticket returns a ticket for the bearer of token, of the scope that body asks
// for.
func (r *rig) ticket(token, body string) string {
	r.t.Helper()
	resp := r.do("POST", ticketsPath, body, as(token))
	var got twinrail.TicketResponse
	if resp.status != http.StatusOK || resp.header.Get("Cache-Control") != "no-store" {
		r.t.Fatalf("ticket: %d %v %s", resp.status, resp.header, resp.body)
	}
	unmarshal(r.t, resp.body, &got)
	return got.Ticket
}

// cookie opens a session for the bearer of token, and returns the header Cookie.
func (r *rig) cookie(token string) string {
	r.t.Helper()
	resp := r.do("POST", sessionPath, "", as(token))
	if resp.status != http.StatusOK {
		r.t.Fatalf("session: %d %s", resp.status, resp.body)
	}
	return cookieOf(r.t, resp)
}

// cookieOf returns the cookie that resp sets, as the header Cookie.
func cookieOf(t *testing.T, resp reply) string {
	t.Helper()
	set := (&http.Response{Header: resp.header}).Cookies()
	if len(set) != 1 {
		t.Fatalf("%d %v sets %d cookies", resp.status, resp.header, len(set))
	}
	return set[0].Name + "=" + set[0].Value
}

// ask makes the request that an upgrade or a stream is, and returns what is
// answered in their place.
func (r *rig) ask(path string, h ...string) reply {
	r.t.Helper()
	if strings.HasPrefix(path, twinrail.PathWS) {
		h = append(h, handshakeHeader...)
	}
	return r.do("GET", path, "", h)
}

// request sends a request with just the given headers over a connection of its
// own, and returns the answer's head.
func (r *rig) request(path string, h ...string) (net.Conn, *bufio.Reader, *http.Response) {
	r.t.Helper()
	nc, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	req, _ := http.NewRequest("GET", "http://twinrail.test"+path, nil)
	header(h).apply(req)
	var out bytes.Buffer
	_ = req.Write(&out)
	if _, err := nc.Write(out.Bytes()); err != nil {
		r.t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		r.t.Fatal(err)
	}
	return nc, br, resp
}

// greetWith opens the WS rail with just the given headers, and returns the
// welcome.
func (r *rig) greetWith(path string, h ...string) (*peer, twinrail.ServerFrame) {
	r.t.Helper()
	nc, br, resp := r.request(path, append(h, handshakeHeader...)...)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("upgrade: %s", resp.Status)
	}
	p := &peer{r.t, nc, br, resp}
	return p, p.want(twinrail.OpWelcome)
}

// upgradeWith is greetWith, and then live.
func (r *rig) upgradeWith(path string, h ...string) *peer {
	r.t.Helper()
	p, _ := r.greetWith(path, h...)
	p.live("a")
	return p
}

// tailWith opens the SSE rail with just the given headers, and is live.
func (r *rig) tailWith(path string, h ...string) *tail {
	r.t.Helper()
	nc, _, resp := r.request(path, h...)
	c := &tail{r.t, nc, resp, bufio.NewReader(resp.Body)}
	c.open()
	c.toLive()
	return c
}

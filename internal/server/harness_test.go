package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// patience bounds every wait of these tests. In a bubble it costs nothing.
const patience = 20 * time.Second

// The context of most requests, as a query.
const (
	appQuery    = "tenant_id=t_acme&env=dev&workspace_id=w1&project_id=p1&app_id=studio"
	canvasPath  = twinrail.PathSSECanvases + "c1?" + appQuery
	historyPath = twinrail.PathHistory + "?" + appQuery + "&canvas_id=c1"
	publishPath = twinrail.PathPublish + "?" + appQuery
	wsPath      = twinrail.PathWS + "?" + appQuery
)

// rig is a server with a listener, and what it takes to talk to it.
type rig struct {
	t      *testing.T
	issuer *authtest.Issuer
	server *Server
	token  string
	dial   func() (net.Conn, error)
	web    *http.Client
}

// newRig starts a server on a loopback port. Without a journal among the
// options it has one in memory.
func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }
	return startRig(t, authtest.New(t), w, ln, dial, change...)
}

// newBubbleRig is newRig over net.Pipe, for use in a synctest bubble.
func newBubbleRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	return newBubbleRigOf(t, authtest.New(t), change...)
}

// newBubbleRigOf is newBubbleRig for the tokens of issuer, which several servers
// may take.
func newBubbleRigOf(t *testing.T, issuer *authtest.Issuer, change ...func(*Options)) *rig {
	t.Helper()
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	return startRig(t, issuer, peekWatcher{}, ln, ln.dial, change...)
}

func startRig(t *testing.T, issuer *authtest.Issuer, w watcher, ln net.Listener, dial func() (net.Conn, error), change ...func(*Options)) *rig {
	t.Helper()
	var o Options
	for _, f := range change {
		f(&o)
	}
	if w == (peekWatcher{}) {
		o.MaxLateness = -1 // a bubble cannot wait for the pacer's pipe
	}
	if o.Journal == nil {
		o.Journal = journal.NewMemory(journal.MemoryOptions{})
	}
	if o.Gate == nil {
		o.Gate = issuer.Gate(auth.GateOptions{})
	}
	s, err := newServer(o, w)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, issuer: issuer, server: s, token: issuer.Token(), dial: dial}
	r.web = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return dial() },
	}}
	web := &http.Server{Handler: r.server.Handler()}
	var served sync.WaitGroup
	served.Go(func() { _ = web.Serve(ln) })
	t.Cleanup(func() {
		_ = web.Close()
		served.Wait()
		r.server.Close()
	})
	return r
}

// pipeListener is a net.Listener of net.Pipe connections.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// header is a list of names and values, one after the other.
type header []string

func (h header) apply(r *http.Request) {
	for i := 0; i+1 < len(h); i += 2 {
		r.Header.Add(h[i], h[i+1])
	}
}

// reply is a whole response.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do makes a request with just the given headers.
func (r *rig) do(method, path, body string, h header) reply {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://twinrail.test"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	h.apply(req)
	resp, err := r.web.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

// as returns the headers of a JSON request with token.
func as(token string) header {
	return header{"Authorization", "Bearer " + token, "Content-Type", "application/json"}
}

// get makes an authorized request.
func (r *rig) get(path string) reply {
	r.t.Helper()
	return r.do("GET", path, "", as(r.token))
}

// setFlag sets a flag for the tenant, by one of its owners.
func (r *rig) setFlag(name, value string) twinrail.Flag {
	r.t.Helper()
	owner := r.issuer.Token(authtest.Actor("u_owner"), authtest.Role(twinrail.Owner))
	resp := r.do("PUT", flagsPath(name), `{"value":`+value+`}`, as(owner))
	if resp.status != http.StatusOK {
		r.t.Fatalf("%s = %s: %d %s", name, value, resp.status, resp.body)
	}
	var flag twinrail.Flag
	unmarshal(r.t, resp.body, &flag)
	return flag
}

func flagsPath(name string) string {
	return twinrail.PathFlags + "/" + name + "?tenant_id=t_acme&env=dev"
}

// post publishes a body.
func (r *rig) post(body string) reply {
	r.t.Helper()
	return r.do("POST", publishPath, body, as(r.token))
}

// publish publishes events, and fails the test where they are refused.
func (r *rig) publish(events ...string) []twinrail.PublishResult {
	r.t.Helper()
	resp := r.post(`{"events":[` + strings.Join(events, ",") + `]}`)
	if resp.status != http.StatusOK {
		r.t.Fatalf("publish: %d %s", resp.status, resp.body)
	}
	var got twinrail.PublishResponse
	unmarshal(r.t, resp.body, &got)
	if len(got.Results) != len(events) {
		r.t.Fatalf("publish: %d results for %d events", len(got.Results), len(events))
	}
	return got.Results
}

// commits publishes commits on c1 with the data from to to-1.
func (r *rig) commits(from, to int) (last twinrail.PublishResult) {
	r.t.Helper()
	return r.many(commit, from, to)
}

// chats publishes chats on th1 with the data from to to-1.
func (r *rig) chats(from, to int) (last twinrail.PublishResult) {
	r.t.Helper()
	return r.many(chat, from, to)
}

func (r *rig) many(event func(int) string, from, to int) (last twinrail.PublishResult) {
	r.t.Helper()
	for from < to {
		var batch []string
		for ; from < to && len(batch) < maxEvents; from++ {
			batch = append(batch, event(from))
		}
		results := r.publish(batch...)
		last = results[len(results)-1]
	}
	return last
}

func commit(n int) string {
	return `{"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":` + strconv.Itoa(n) + `}`
}

func chat(n int) string {
	return `{"channel":"chat","type":"t","routing":{"thread_id":"th1"},"data":` + strconv.Itoa(n) + `}`
}

// problemOf checks that resp is a problem document for the code, and returns it.
func problemOf(t *testing.T, resp reply, code twinrail.Code) twinrail.Problem {
	t.Helper()
	var p twinrail.Problem
	if got := resp.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("status %d, Content-Type %q, want a problem %s; body %s", resp.status, got, code, resp.body)
	}
	unmarshal(t, resp.body, &p)
	info := code.Info()
	want := twinrail.Problem{
		Type: "urn:twinrail:error:" + string(code), Title: info.Title, Status: info.Status, Detail: p.Detail,
		Code: code, Field: p.Field, Retry: info.Retry, RequestID: resp.header.Get("X-Request-Id"),
	}
	if p != want || resp.status != info.Status || p.RequestID == "" {
		t.Fatalf("status %d, problem %+v, want %+v", resp.status, p, want)
	}
	return p
}

// page returns a page of history.
func (r *rig) page(path string) (events []twinrail.Event, page twinrail.HistoryPage) {
	r.t.Helper()
	resp := r.get(path)
	if resp.status != http.StatusOK {
		r.t.Fatalf("history: %d %s", resp.status, resp.body)
	}
	unmarshal(r.t, resp.body, &page)
	for _, raw := range page.Events {
		var e twinrail.Event
		unmarshal(r.t, raw, &e)
		events = append(events, e)
	}
	return events, page
}

// dataOf returns the data of events, separated by spaces.
func dataOf(events []twinrail.Event) string {
	var b strings.Builder
	for i, e := range events {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.Write(e.Data)
	}
	return b.String()
}

// count writes the numbers from to to-1, separated by spaces.
func count(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		if i > from {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, i)
	}
	return b.String()
}

func unmarshal(t *testing.T, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one value in %s", b)
	}
}

// metric returns the value of a line of /metrics, such as
// twinrail_connections{rail="sse"}, or 0 where there is none.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.server.opts.Registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			full := family.GetName()
			if len(labels) > 0 {
				full += "{" + strings.Join(labels, ",") + "}"
			}
			if full == name {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// heldJournal is a journal whose appends, reads and subscribes can be held up.
type heldJournal struct {
	journal.Journal
	appends, bounds, reads gate
}

// gate lets all pass until it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // nil while open
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

// close shuts the gate until the returned function is called.
func (g *gate) close() (open func()) {
	shut := make(chan struct{})
	g.mu.Lock()
	g.shut = shut
	g.mu.Unlock()
	return sync.OnceFunc(func() {
		g.mu.Lock()
		g.shut = nil
		g.mu.Unlock()
		close(shut)
	})
}

func newHeldJournal() *heldJournal {
	return &heldJournal{Journal: journal.NewMemory(journal.MemoryOptions{})}
}

func (j *heldJournal) Append(ctx context.Context, recs []journal.Record, e journal.Expect) ([]journal.Result, error) {
	j.appends.pass()
	return j.Journal.Append(ctx, recs, e)
}

func (j *heldJournal) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	j.bounds.pass()
	return j.Journal.Bounds(ctx, r)
}

func (j *heldJournal) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	j.reads.pass()
	return j.Journal.Read(ctx, r, after, max)
}

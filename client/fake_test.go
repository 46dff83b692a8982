package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
)

var (
	canvas = twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1"}
	thread = twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", ThreadID: "th1"}
)

// fake is a server that answers the nth request with the nth handler. It lives
// in a synctest bubble: its connections are pipes in memory.
type fake struct {
	handlers []http.HandlerFunc
	conns    chan net.Conn
	closed   chan struct{}

	mu       sync.Mutex
	requests []*http.Request
	at       []time.Time
}

// newFake starts a server; it ends with the test, within its bubble. A request
// beyond the last handler hangs.
func newFake(t *testing.T, handlers ...http.HandlerFunc) *fake {
	f := &fake{handlers: handlers, conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(f) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
		time.Sleep(2 * linger)
	})
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.requests)
	f.requests = append(f.requests, r)
	f.at = append(f.at, time.Now())
	f.mu.Unlock()
	if n < len(f.handlers) {
		f.handlers[n](w, r)
		return
	}
	<-r.Context().Done()
}

func (f *fake) seen() ([]*http.Request, []time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*http.Request(nil), f.requests...), append([]time.Time(nil), f.at...)
}

func (f *fake) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *fake) Close() error {
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	return nil
}

func (f *fake) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (f *fake) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := pipe()
	select {
	case f.conns <- there:
		return here, nil
	case <-f.closed:
	case <-ctx.Done():
	}
	return nil, errors.New("connection refused")
}

// client returns a client of the fake server; change its options with edit.
func (f *fake) client(t *testing.T, edit ...func(*Options)) *Client {
	transport := &http.Transport{DialContext: f.dial, DisableKeepAlives: true}
	o := Options{URL: "http://fake", Token: "token-1", HTTPClient: &http.Client{Transport: transport}}
	for _, e := range edit {
		e(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bubble runs a test in a synctest bubble whose context ends with it.
func bubble(t *testing.T, test func(t *testing.T, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		test(t, ctx)
	})
}

// events returns the seqs of the events among items.
func events(items []Item) []uint64 {
	var seqs []uint64
	for _, item := range items {
		if item.Kind == KindEvent {
			seqs = append(seqs, item.Event.Seq)
		}
	}
	return seqs
}

// collect ranges over a follower until it has given n items, or ended.
func collect(seq func(func(Item, error) bool), n int) ([]Item, error) {
	var items []Item
	for item, err := range seq {
		if err != nil {
			return items, err
		}
		if items = append(items, item); len(items) == n {
			return items, nil
		}
	}
	return items, errors.New("the iteration ended without an error")
}

func cursor(seq int) string { return fmt.Sprintf("cursor-%d", seq) }

// eventJSON returns the JSON of an event whose predecessor has the seq prev.
func eventJSON(channel twinrail.Channel, seq, prev int) string {
	return fmt.Sprintf(`{"v":1,"id":"e%d","channel":%q,"type":"x","seq":%d,"prev":%d,"cursor":%q,"time":"2026-11-23T10:00:00.000000Z","routing":{},"data":{"n": %d}}`,
		seq, channel, seq, prev, cursor(seq), seq)
}

// problem answers with a problem document.
func problem(code twinrail.Code, edit ...func(http.Header)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		info := code.Info()
		w.Header().Set("Content-Type", "application/problem+json")
		for _, e := range edit {
			e(w.Header())
		}
		w.WriteHeader(info.Status)
		_, _ = fmt.Fprintf(w, `{"title":%q,"status":%d,"detail":"for the test","code":%q,"retry":%q,"request_id":"req-1"}`,
			info.Title, info.Status, code, info.Retry)
	}
}

// wantCode fails unless err carries a twinrail.Error of the code.
func wantCode(t *testing.T, err error, code twinrail.Code) {
	t.Helper()
	if !errors.Is(err, &twinrail.Error{Code: code}) {
		// Is compares the code alone only where the target says no more.
		var e *twinrail.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("the error is %v, not one of code %s", err, code)
		}
	}
}

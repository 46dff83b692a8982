package server

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// secure starts a listener with TLS before r's server, and returns how to reach
// it with the given protocols.
func (r *rig) secure() (addr string, client func(protocols ...string) *tls.Config) {
	r.t.Helper()
	cert, roots := certificate(r.t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	web := &http.Server{Handler: r.server.Handler(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	r.server.SetHTTP2(web)
	var served sync.WaitGroup
	served.Go(func() { _ = web.ServeTLS(TLSListener(ln), "", "") })
	r.t.Cleanup(func() {
		_ = web.Close()
		served.Wait()
	})
	return ln.Addr().String(), func(protocols ...string) *tls.Config {
		return &tls.Config{RootCAs: roots, NextProtos: protocols, ServerName: "twinrail.test"}
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "twinrail.test"}, DNSNames: []string{"twinrail.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// tail2 opens the rail over HTTP/2.
func (r *rig) tail2(ctx context.Context, addr string, config *tls.Config, path string) *tail {
	r.t.Helper()
	transport := &http.Transport{
		TLSClientConfig: config, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(ctx, "GET", "https://twinrail.test"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	return r.follow2(transport, req)
}

var changing = regexp.MustCompile(`retry: \d+|"connection_id":"[^"]*"`)

// TestSSETransports follows the same stream over each transport: but for what is
// drawn for each connection, all transcripts are the same.
func TestSSETransports(t *testing.T) {
	r := newRig(t)
	addr, config := r.secure()
	r.commits(0, 150)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const path = canvasPath + "&cursor=earliest"
	tlsConn, err := tls.Dial("tcp", addr, config("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tlsConn.Close() }()
	tails := map[string]*tail{
		"HTTP/1.1":          r.tail(path),
		"HTTP/1.1 over TLS": tailOver(t, tlsConn, path, r.token),
		"HTTP/2":            r.tail2(ctx, addr, config("h2"), path),
	}
	read := func(c *tail, blocks int) (transcript string) {
		for range blocks {
			transcript += changing.ReplaceAllString(c.next().raw, "")
		}
		return transcript
	}
	got := make(map[string]string)
	for name, c := range tails { // up to `live`, before there is more
		got[name] = read(c, 153)
	}
	r.commits(150, 160)
	for name, c := range tails {
		got[name] += read(c, 10)
	}
	want := got["HTTP/1.1"]
	for name, c := range tails {
		if c.resp.Header.Get("Content-Type") != "text/event-stream" || c.resp.Header.Get("Cache-Control") != "no-store, no-transform" {
			t.Errorf("%s: headers %v", name, c.resp.Header)
		}
		if got[name] != want {
			t.Errorf("%s: another transcript\n%s\nwant\n%s", name, got[name], want)
		}
	}
	cancel()
	_ = tlsConn.Close()
	eventually(t, "the connections over TLS are gone", func() bool { return r.metric(`twinrail_connections{rail="sse"}`) == 1 })
}

// TestSSEStreamsShareAConnection ends streams of an HTTP/2 connection, which
// others share.
func TestSSEStreamsShareAConnection(t *testing.T) {
	r := newRig(t)
	addr, config := r.secure()
	transport := &http.Transport{TLSClientConfig: config("h2"), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}}
	defer transport.CloseIdleConnections()
	const n = 20
	var cancels []context.CancelFunc
	var tails []*tail
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://twinrail.test"+canvasPath, nil)
		req.Header.Set("Authorization", "Bearer "+r.token)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		tails = append(tails, &tail{t: t, resp: resp, br: bufio.NewReader(resp.Body)})
		cancels = append(cancels, cancel)
		tails[len(tails)-1].open()
		tails[len(tails)-1].toLive()
	}
	for _, cancel := range cancels[:n/2] {
		cancel()
	}
	eventually(t, "half of the streams are gone", func() bool { return r.metric("twinrail_subscriptions") == n/2 })
	r.commits(0, 5)
	for _, c := range tails[n/2:] {
		if got := dataOf(c.events(5)); got != count(0, 5) {
			t.Errorf("got %s", got)
		}
	}
	if n := r.metric(`twinrail_connections_closed_total{code="internal",rail="sse"}`); n != 0 {
		t.Errorf("%v streams ended as our fault", n)
	}
}

// TestSSEOutlivesItsBacklog has a stream be quiet for longer than a write may
// take, after a backlog that was written while waiting for the client.
func TestSSEOutlivesItsBacklog(t *testing.T) {
	const backlog = 30_000 // more than the socket's buffers take
	// So long that a busy machine does each write of it in that.
	r := newRig(t, func(o *Options) { o.WriteTimeout = 2 * time.Second })
	r.store(backlog)
	c := r.tail(canvasPath + "&cursor=earliest")
	c.open()
	c.toLive()
	time.Sleep(r.server.opts.WriteTimeout + 100*time.Millisecond)
	r.commits(backlog, backlog+1)
	if e := c.event(); e.Seq != backlog+1 {
		t.Errorf("got %+v", e)
	}
}

// TestHTTP2Quiet has a stream at rest for longer than one write may take.
func TestHTTP2Quiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.WriteTimeout, o.Heartbeat = time.Second, 2*time.Second })
		c := r.pipe2(canvasPath, r.token)
		c.open()
		c.toLive()
		for range 3 {
			if b := c.next(); !b.comment {
				t.Fatalf("got %q, want a comment", b.raw)
			}
		}
	})
}

// TestHTTP2ClientGone cancels streams while events rush to them: none of that is
// our fault.
func TestHTTP2ClientGone(t *testing.T) {
	r := newRig(t)
	addr, config := r.secure()
	stop := r.rush(commit)
	defer stop()
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		c := r.tail2(ctx, addr, config("h2"), canvasPath+"&cursor=earliest")
		c.open()
		c.next()
		cancel()
	}
	eventually(t, "all streams are gone", func() bool { return r.metric(`twinrail_connections{rail="sse"}`) == 0 })
	if n := r.metric(`twinrail_connections_closed_total{code="",rail="sse"}`); n != 20 {
		t.Errorf("%v of 20 were closed by their peers", n)
	}
}

// TestHTTP2TooSlow has a client that takes no more than its flow control lets
// through: it is given up after the write timeout.
func TestHTTP2TooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.WriteTimeout = 7 * time.Second })
		r.store(30_000)
		secure := r.transport2TLS(func(nc net.Conn) net.Conn { return nc })
		r.stream2(secure, canvasPath+"&cursor=earliest", r.token).open()
		r.givenUpAfter(twinrail.RailSSE, 7*time.Second)
	})
}

// store puts n commits on c1 into the journal directly.
func (r *rig) store(n int) {
	r.t.Helper()
	w := r.issuer.Writer(twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1",
		AppID: "studio", CanvasID: "c1", ActorID: "u_1"}, twinrail.Commit)
	for i := 0; i < n; {
		var recs []journal.Record
		for ; i < n && len(recs) < 500; i++ {
			recs = append(recs, journal.NewRecord(w, twinrail.Event{
				ID: strconv.Itoa(i), Type: "t", Time: time.Now(), Data: json.RawMessage(strconv.Itoa(i))}))
		}
		if _, err := r.server.opts.Journal.Append(context.Background(), recs, journal.Expect{}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestSSESlowReader has a reader that stops take a backlog many times the window
// and the socket's buffers.
func TestSSESlowReader(t *testing.T) {
	for window, backlog := range map[int]int{-1: 5_000, 64 << 10: 50_000, 1 << 20: 5_000} {
		t.Run("window "+strconv.Itoa(window), func(t *testing.T) {
			// One is not read while the other is, and a busy machine takes its time.
			r := newRig(t, func(o *Options) { o.Window, o.WriteTimeout = window, time.Hour })
			slow := r.tail(canvasPath)
			slow.open()
			slow.toLive()
			r.store(backlog)
			late := r.tail(canvasPath + "&cursor=earliest")
			late.open()
			for name, c := range map[string]*tail{"stopped": slow, "late": late} {
				for i := range backlog {
					b := c.next()
					place, data := fmt.Sprintf(`,"seq":%d,"prev":%d,`, i+1, i), fmt.Sprintf(`,"data":%d}`, i)
					if !strings.Contains(b.data, place) || !strings.HasSuffix(b.data, data) {
						t.Fatalf("%s: event %d is %q", name, i, b.raw)
					}
				}
			}
			if b := late.next(); b.event != twinrail.SSELive {
				t.Errorf("then %q", b.raw)
			}
			if n := r.metric(`twinrail_resets_total{reason="cursor_expired"}`); n != 0 {
				t.Errorf("%v resets", n)
			}
		})
	}
}

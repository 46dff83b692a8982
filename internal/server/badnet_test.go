package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/collectors"
	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/tmaxmax/go-sse"

	"github.com/twinrail/twinrail"
)

// collected is what one client saw, in the order in which it saw it.
type collected struct {
	mu     sync.Mutex
	events []twinrail.Event
	cuts   int
}

func (c *collected) add(e twinrail.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, e)
}

func (c *collected) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cuts++
}

func (c *collected) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.events)
}

// last returns the cursor of the last event, or from where there is none.
func (c *collected) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) == 0 {
		return twinrail.CursorEarliest
	}
	return c.events[len(c.events)-1].Cursor
}

// TestBadNetwork has clients that were written elsewhere follow a canvas and a
// thread through a network that delays, throttles, closes late and cuts: each
// ends with every event once and in order.
func TestBadNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for clients to come back in their own time")
	}
	r := newRig(t)
	proxy := r.proxy()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	var sseSeen, wsSeen collected
	clients.Go(func() { r.oracleSSE(ctx, proxy.Listen, &sseSeen) })
	clients.Go(func() { r.oracleWS(ctx, proxy.Listen, &wsSeen) })

	const each = 30
	n := 0
	for _, toxic := range []string{
		`{"name":"x","type":"latency","attributes":{"latency":30,"jitter":20}}`,
		`{"name":"x","type":"bandwidth","attributes":{"rate":20}}`,
		`{"name":"x","type":"slow_close","attributes":{"delay":200}}`,
		`{"name":"x","type":"reset_peer","attributes":{"timeout":20}}`,
	} {
		if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
		for range each {
			r.commits(n, n+1)
			r.chats(n, n+1)
			n++
		}
		if err := proxy.Toxics.RemoveToxic(ctx, "x"); err != nil {
			t.Fatal(err)
		}
		// And a cut, with what was on its way lost.
		proxy.Stop()
		r.commits(n, n+5)
		r.chats(n, n+5)
		n += 5
		if err := proxy.Start(); err != nil {
			t.Fatal(err)
		}
		// Both come back before the next, so that each is cut as often.
		for (sseSeen.len() < n || wsSeen.len() < n) && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, seen := range map[string]*collected{"go-sse": &sseSeen, "coder/websocket": &wsSeen} {
		seen.mu.Lock()
		checkChain(t, seen.events, 0)
		if got := dataOf(seen.events); got != count(0, n) {
			t.Errorf("%s saw %s, want 0 to %d", name, got, n-1)
		}
		if seen.cuts < 4 {
			t.Errorf("%s was cut %d times", name, seen.cuts)
		}
		seen.mu.Unlock()
	}
}

// proxy starts a proxy before r's server.
func (r *rig) proxy() *toxiproxy.Proxy {
	r.t.Helper()
	nc, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	upstream := nc.RemoteAddr().String()
	_ = nc.Close()
	metrics := toxiproxy.NewMetricsContainer(prometheus.NewRegistry())
	metrics.ProxyMetrics = collectors.NewProxyMetricCollectors()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(metrics, zerolog.Nop()), "twinrail", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(p.Stop)
	return p
}

// oracleSSE follows c1 with go-sse, which comes back by itself.
func (r *rig) oracleSSE(ctx context.Context, addr string, seen *collected) {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &sse.Client{
		HTTPClient: &http.Client{Transport: transport},
		OnRetry:    func(error, time.Duration) { seen.cut() },
		Backoff:    sse.Backoff{InitialInterval: 100 * time.Millisecond},
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+canvasPath+"&cursor=earliest", nil)
	if err != nil {
		r.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	conn := client.NewConnection(req)
	conn.SubscribeEvent(string(twinrail.Commit), func(ev sse.Event) {
		var e twinrail.Event
		if err := json.Unmarshal([]byte(ev.Data), &e); err != nil || ev.LastEventID != e.Cursor {
			r.t.Errorf("an event with id %s: %v in %s", ev.LastEventID, err, ev.Data)
		}
		seen.add(e)
	})
	conn.SubscribeEvent(twinrail.SSEReset, func(ev sse.Event) { r.t.Errorf("reset: %s", ev.Data) })
	if err := conn.Connect(); ctx.Err() == nil {
		r.t.Errorf("go-sse gave up: %v", err)
	}
}

// oracleWS follows th1 with coder/websocket, and comes back after the last event
// that it has.
func (r *rig) oracleWS(ctx context.Context, addr string, seen *collected) {
	for ctx.Err() == nil {
		if err := r.oracleJoin(ctx, addr, seen); err != nil {
			seen.cut()
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (r *rig) oracleJoin(ctx context.Context, addr string, seen *collected) error {
	c, _, err := websocket.Dial(ctx, "ws://"+addr+wsPath, &websocket.DialOptions{
		Subprotocols: []string{twinrail.Subprotocol, twinrail.BearerSubprotocol + r.token},
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseNow() }()
	join := twinrail.ClientFrame{Op: twinrail.OpJoin, Sub: "a", Routing: &twinrail.Routing{ThreadID: "th1"}, After: seen.last()}
	if err := wsjson.Write(ctx, c, join); err != nil {
		return err
	}
	for {
		var f twinrail.ServerFrame
		if err := wsjson.Read(ctx, c, &f); err != nil {
			return err
		}
		switch f.Op {
		case twinrail.OpEvent:
			var e twinrail.Event
			if err := json.Unmarshal(f.Event, &e); err != nil {
				r.t.Error(err)
			}
			seen.add(e)
		case twinrail.OpReset, twinrail.OpError:
			r.t.Errorf("got %+v", f)
		}
	}
}

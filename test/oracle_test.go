package test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/twinrail/twinrail"
)

// rails lists, for each rail, a stream, and the clients that follow it.
var rails = []struct {
	rail    twinrail.Rail
	routing twinrail.Routing
	clients []client
}{
	{twinrail.RailSSE, canvas("c1"), []client{
		{"go-sse", findNothing, followGoSSE},
		{"npm-eventsource", findNode, followNodeSSE},
		{"chromium-EventSource", findChromium, followChromiumSSE},
	}},
	{twinrail.RailWS, thread("th1"), []client{
		{"coder-websocket", findNothing, followGoWS},
		{"npm-ws", findNode, followNodeWS},
		{"chromium-WebSocket", findChromium, followChromiumWS},
	}},
}

// client is one that this project did not write.
type client struct {
	name   string
	find   func() (string, error) // what it needs
	follow func(testing.TB, target) *follower
}

func findNothing() (string, error) { return "", nil }

// followAll has all clients that are installed follow tg.
func followAll(t testing.TB, clients []client, tg target) map[string]*follower {
	t.Helper()
	all := make(map[string]*follower)
	for _, c := range clients {
		if _, err := c.find(); err == nil {
			all[c.name] = c.follow(t, tg)
		}
	}
	return all
}

// waitAll waits until reached holds of all followers.
func waitAll(t testing.TB, what string, all map[string]*follower, reached func(f *follower, seen []sighting, opens int) bool) {
	t.Helper()
	for _, f := range all {
		err := f.wait(func(seen []sighting, opens int) bool { return reached(f, seen, opens) })
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// checkAll checks that each client has seen all that p published.
func checkAll(t *testing.T, clients []client, all map[string]*follower, p *publisher, rail twinrail.Rail) {
	events := p.check(t)
	last := cursorOf(events[len(events)-1])
	waitAll(t, "at the end", all, func(_ *follower, seen []sighting, _ int) bool {
		return len(seen) > 0 && seen[len(seen)-1].id == last
	})
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			require(t, c.find)
			checkFollower(t, all[c.name], events, rail)
			_, opens, _ := all[c.name].state()
			t.Logf("%d events, each once, over %d connections", len(events), opens)
		})
	}
}

// TestFollowersThroughCuts has all clients follow a stream that is published to
// all the time, through a toxiproxy, while the server is killed and the network
// does its worst. In the end each has seen every event once and in order.
func TestFollowersThroughCuts(t *testing.T) {
	slow(t)
	for _, r := range rails {
		t.Run(string(r.rail), func(t *testing.T) {
			t.Parallel()
			origin := servePages(t, nil)
			g := startGateway(t, "--allowed-origin", origin)
			n := startNetwork(t, g.addr)
			p := newPublisher(g, r.routing)
			stop := background(t, p.run)
			all := followAll(t, r.clients, target{addr: n.proxy.Listen, origin: origin, token: g.token(reader), routing: r.routing})
			for _, d := range disturbances {
				disturb(t, g, n, p, all, d)
			}
			stop()
			checkAll(t, r.clients, all, p, r.rail)
		})
	}
}

// background runs fn until the function that it returns is called, which waits
// for its end; the end of the test does so too.
func background(t testing.TB, fn func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	stop = func() {
		cancel()
		if err, ok := <-done; ok {
			close(done)
			if err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// disturbance is something that goes wrong for a while.
type disturbance struct {
	name string
	// cuts says that it costs a client its connection.
	cuts bool
	do   func(g *gateway, n *network)
	undo func(g *gateway, n *network)
}

var disturbances = []disturbance{
	{"kill -9", true, func(g *gateway, _ *network) { g.kill() }, func(g *gateway, _ *network) { g.start() }},
	toxic("reset_peer", true, `{"timeout":0}`),
	toxic("timeout", true, `{"timeout":300}`),
	// Cuts in the middle of an event, again and again.
	toxic("limit_data", true, `{"bytes":20011}`),
	toxic("slicer", false, `{"average_size":40,"size_variation":30,"delay":20}`),
	toxic("bandwidth", false, `{"rate":64}`),
	{"kill -9 while behind", true, func(g *gateway, n *network) {
		n.add("bandwidth", `{"rate":32}`)
		time.Sleep(500 * time.Millisecond)
		g.kill()
	}, func(g *gateway, n *network) {
		n.remove("bandwidth")
		g.start()
	}},
	{"cut", true, func(_ *gateway, n *network) { n.proxy.Stop() }, func(_ *gateway, n *network) { n.start() }},
}

func toxic(kind string, cuts bool, attributes string) disturbance {
	return disturbance{
		kind, cuts,
		func(_ *gateway, n *network) { n.add(kind, attributes) },
		func(_ *gateway, n *network) { n.remove(kind) },
	}
}

// disturb puts all followers, once they are up to date, through d, and waits until
// they are up to date again.
func disturb(t *testing.T, g *gateway, n *network, p *publisher, all map[string]*follower, d disturbance) {
	t.Helper()
	before := make(map[*follower]int) // connections
	// One event more than there were shows that a follower is live.
	count := p.forReader() + 1
	waitAll(t, "before "+d.name, all, func(f *follower, seen []sighting, opens int) bool {
		before[f] = opens
		return len(seen) >= count
	})
	d.do(g, n)
	time.Sleep(time.Second)
	d.undo(g, n)
	count = p.forReader() + 1
	waitAll(t, "after "+d.name, all, func(f *follower, seen []sighting, opens int) bool {
		return len(seen) >= count && (!d.cuts || opens > before[f])
	})
}

// network stands before a server and can be made bad.
type network struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
}

func startNetwork(t testing.TB, upstream string) *network {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	n := &network{t, toxiproxy.NewProxy(server, "network", freeAddr(t), upstream)}
	n.start()
	t.Cleanup(n.proxy.Stop)
	return n
}

func (n *network) start() {
	n.t.Helper()
	if err := n.proxy.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// add makes the way from the server to its clients bad in one way.
func (n *network) add(kind, attributes string) {
	n.t.Helper()
	toxic := fmt.Sprintf(`{"name":%q,"type":%q,"stream":"downstream","attributes":%s}`, kind, kind, attributes)
	if _, err := n.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *network) remove(name string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.proxy.Toxics.RemoveToxic(ctx, name); err != nil {
		n.t.Fatal(err)
	}
}

// TestSlowReaders has all clients stop reading at their first event while more is
// published than the buffers on the way hold. When they go on they see everything,
// on the one connection that they have.
func TestSlowReaders(t *testing.T) {
	slow(t)
	const batches, batch, size = 100, 24, 60 << 10 // about 29 MB, for each client
	for _, r := range rails {
		t.Run(string(r.rail), func(t *testing.T) {
			t.Parallel()
			gate := newGate(t)
			defer gate.open(t)
			origin := servePages(t, gate)
			// A busy machine may need more time than is usual between two signs of life.
			g := startGateway(t, "--allowed-origin", origin, "--heartbeat", "1m", "--write-timeout", "2m")
			p := newPublisher(g, r.routing)
			publish := func() {
				if err := p.publish(t.Context(), batch, size); err != nil {
					t.Fatal(err)
				}
			}
			publish()
			all := followAll(t, r.clients, target{addr: g.addr, origin: origin, token: g.token(reader), routing: r.routing, gate: gate})
			waitAll(t, "at the start", all, func(_ *follower, seen []sighting, _ int) bool { return len(seen) > 0 })
			for range batches {
				publish()
			}
			standing(t, g, r.rail, all, p.forReader())
			gate.open(t)
			checkAll(t, r.clients, all, p, r.rail)
			for _, f := range all {
				if _, opens, _ := f.state(); opens != 1 {
					t.Errorf("%s: took %d connections", f.name, opens)
				}
			}
		})
	}
}

// standing checks that nobody reads, and that most of the n events that each is
// to see are still with the server.
func standing(t *testing.T, g *gateway, rail twinrail.Rail, all map[string]*follower, n int) {
	t.Helper()
	for _, f := range all {
		if seen, _, _ := f.state(); len(seen) != 1 {
			t.Errorf("%s did not stand still", f.name)
		}
	}
	taken := g.metric(`twinrail_events_delivered_total{rail="` + string(rail) + `"}`)
	if taken >= float64(n) {
		t.Errorf("the buffers on the way took %.0f events, all that one client is to see", taken)
	}
	t.Logf("%.0f of %d events taken while %d clients stood still", taken, n*len(all), len(all))
}

// metric returns the value of the line of /metrics that begins with name.
func (g *gateway) metric(name string) float64 {
	g.t.Helper()
	resp, err := http.Get("http://" + g.admin + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return v
		}
	}
	g.t.Fatalf("no metric %s", name)
	return 0
}

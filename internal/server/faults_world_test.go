package server

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// warmUp is how long all is well before a fault. It ends 2 s after a heartbeat.
const warmUp = 17 * time.Second

// faultWorld is a server with its clients, a publisher and a watcher, in a
// bubble. Time passes only in pass.
type faultWorld struct {
	t        *testing.T
	issuer   *authtest.Issuer
	journal  journal.Journal
	sessions *table.Memory

	// Of the test's own goroutine.
	servers   []*rig
	watchers  []*faultWatcher
	clients   []*modelClient
	running   sync.WaitGroup // the clients
	started   time.Time
	published int                    // events on each stream
	every     time.Duration          // how often there is something new
	atOnce    int                    // how many events that is
	nextAt    time.Time              // when the next one is due
	lastAt    time.Time              // when the last one was published
	fault     time.Time              // when it began
	lines     map[*modelClient]*line // which it hit
	restarted bool

	mu     sync.Mutex
	up     *rig          // nil while there is no server
	ln     *pipeListener // its own
	tokens map[string]int
}

func newFaultWorld(t *testing.T, s *faultScenario) *faultWorld {
	w := &faultWorld{
		t: t, issuer: authtest.New(t), started: time.Now(),
		journal:  journal.NewMemory(journal.MemoryOptions{Retention: journal.Retention{Count: s.keep}}),
		sessions: new(table.Memory),
		lines:    make(map[*modelClient]*line), tokens: make(map[string]int),
	}
	w.start()
	for i := range max(s.crowd, 1) {
		for _, rail := range []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS} {
			w.add(fmt.Sprintf("u_%s_%d", rail, i), rail, s)
		}
	}
	synctest.Wait()
	w.publishEvery(time.Second, 1)
	w.pass(warmUp)
	w.faultAt(time.Now())
	return w
}

// start starts a server over what there is, and a watcher with it.
func (w *faultWorld) start() {
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	r := startRig(w.t, w.issuer, peekWatcher{}, ln, ln.dial, func(o *Options) {
		o.Journal, o.Sessions = w.journal, w.sessions
		o.Gate = w.issuer.Gate(auth.GateOptions{Key: []byte(strings.Repeat("k", auth.MinSecret))})
	})
	r.token = w.mint("u_publisher", 0)
	w.servers = append(w.servers, r)
	w.watchers = append(w.watchers, newFaultWatcher(r, w.mint("u_watcher", 0)))
	w.setUp(r, ln)
}

func (w *faultWorld) setUp(r *rig, ln *pipeListener) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up, w.ln = r, ln
}

// server returns the one that is up, or nil.
func (w *faultWorld) server() *rig {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.up
}

func (w *faultWorld) listener() *pipeListener {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ln
}

// mint returns a token that is good for life, or for a day. The actor's nth has
// the jti actor.n.
func (w *faultWorld) mint(actor string, life time.Duration) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens[actor]++
	id := fmt.Sprintf("%s.%d", actor, w.tokens[actor])
	return w.issuer.Token(authtest.Actor(actor), authtest.ExpiresIn(cmp.Or(life, 24*time.Hour)),
		func(i *twinrail.Identity) { i.TokenID = id })
}

// add has a client follow from now on.
func (w *faultWorld) add(actor string, rail twinrail.Rail, s *faultScenario) {
	c := &modelClient{
		w: w, rail: rail, actor: actor, renews: s.renews, quit: make(chan struct{}),
		net: &access{listener: w.listener}, token: w.mint(actor, s.life),
	}
	w.clients = append(w.clients, c)
	w.running.Go(c.run)
}

// each calls f for every client.
func (w *faultWorld) each(f func(*modelClient)) {
	for _, c := range w.clients {
		f(c)
	}
}

// faultAt says when the fault begins, which hits the connections of now.
func (w *faultWorld) faultAt(at time.Time) {
	w.fault = at
	w.each(func(c *modelClient) { w.lines[c] = c.net.last() })
}

// publishEvery has n events published on both streams as often as that, from now
// on. On the wire one has about 1 KB.
func (w *faultWorld) publishEvery(d time.Duration, n int) {
	w.every, w.atOnce, w.nextAt = d, n, time.Now().Add(d)
}

// pass lets time go by, while the publisher works on.
func (w *faultWorld) pass(d time.Duration) {
	for end := time.Now().Add(d); ; w.nextAt = w.nextAt.Add(w.every) {
		if w.atOnce == 0 || w.nextAt.After(end) {
			time.Sleep(time.Until(end))
			synctest.Wait()
			return
		}
		time.Sleep(time.Until(w.nextAt))
		w.publish()
	}
}

func (w *faultWorld) publish() {
	r := w.server()
	if r == nil {
		return
	}
	var commits, chats []string
	for range w.atOnce {
		data := fmt.Sprintf(`{"n":%d,"pad":%q}`, w.published, strings.Repeat("x", 400))
		commits = append(commits, `{"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":`+data+`}`)
		chats = append(chats, `{"channel":"chat","type":"t","routing":{"thread_id":"th1"},"data":`+data+`}`)
		w.published++
	}
	r.publish(commits...)
	r.publish(chats...)
	w.lastAt = time.Now()
}

// settle ends publishing, and lets time go by until every client has got
// everything, and its presence is decided.
func (w *faultWorld) settle() {
	w.pass(2 * time.Second)
	w.publishEvery(0, 0)
	for range 600 {
		behind := false
		w.each(func(c *modelClient) {
			n := c.notes()
			behind = behind || len(n.events) == 0 || n.events[len(n.events)-1] < w.published-1
		})
		if !behind {
			break
		}
		w.pass(time.Second)
	}
	w.pass(15 * time.Second)
}

// kill ends the server as kill -9 does: nothing that it would do at its end is
// done.
func (w *faultWorld) kill() {
	w.setUp(nil, nil)
	left := new(table.Memory)
	if err := w.sessions.Scan(func(key string, value []byte) error { return left.Put(key, value, table.Lazy) }); err != nil {
		w.t.Fatal(err)
	}
	w.sessions, w.restarted = left, true
	w.each(func(c *modelClient) { c.net.last().cut() })
	w.watchers[len(w.watchers)-1].close()
}

// drain ends the server as SIGTERM does.
func (w *faultWorld) drain() {
	r := w.server()
	w.setUp(nil, nil)
	w.restarted = true
	if err := r.server.Drain(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.watchers[len(w.watchers)-1].close()
	r.server.Close()
}

// revoke revokes the first token of each client.
func (w *faultWorld) revoke() {
	r := w.server()
	w.each(func(c *modelClient) {
		resp := r.do("POST", twinrail.PathRevocations+"?"+appQuery, `{"jti":"`+c.actor+`.1"}`, as(r.token))
		if resp.status != http.StatusOK {
			w.t.Fatalf("revoke: %d %s", resp.status, resp.body)
		}
	})
}

// close ends all but the servers, which the test's end closes.
func (w *faultWorld) close() {
	w.each(func(c *modelClient) {
		close(c.quit)
		c.net.close()
	})
	w.running.Wait()
	for _, watcher := range w.watchers {
		watcher.close()
	}
}

// cut cuts every client's network off for so long.
func (w *faultWorld) cut(d time.Duration) {
	w.each(func(c *modelClient) {
		c.net.unplug()
		c.net.last().cut()
	})
	w.pass(d)
	w.each(func(c *modelClient) { c.net.plug() })
	w.pass(40 * time.Second)
}

package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// niActors are the actors of either tenant: an owner with every right, and a
// member who has them at some places.
var niActors = [2]string{"u_1", "u_2"}

// niParty is a tenant with its clients.
type niParty struct {
	w           *niWorld
	tenant, env string
	mark        string          // is in all that it says
	transport   *http.Transport // nil where it speaks HTTP/1.1

	mu     sync.Mutex
	shared []net.Conn // the transport's, the newest last
	tokens [2]string  // the newest of each actor
	minted [2]int
	wires  []*niWire
	loot   map[string][]string // what it was given, by kind, as far as it was drawn
	spent  []string            // tickets that are being used, and of no use to anybody after the slot
}

func newNIParty(w *niWorld, tenant, env, mark string) *niParty {
	p := &niParty{w: w, tenant: tenant, env: env, mark: mark, loot: make(map[string][]string)}
	for actor := range niActors {
		p.mint(actor, time.Hour)
	}
	return p
}

// isPlatform reports whether p is Tenant-0, in the env that A is in.
func (p *niParty) isPlatform() bool { return p.tenant == "t_0" && p.env == p.w.a.env }

// mint gives the actor a new token, with a jti that both tenants have.
func (p *niParty) mint(actor int, life time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.minted[actor]++
	id := fmt.Sprintf("%s.%d", niActors[actor], p.minted[actor])
	opts := []authtest.Option{
		authtest.Tenant(p.tenant), authtest.Env(p.env), authtest.Actor(niActors[actor]), authtest.TokenID(id),
		authtest.ExpiresIn(life), authtest.Role(twinrail.Owner), authtest.Grants(auth.FullGrant()),
	}
	if actor == 1 {
		grant := twinrail.Grant{WorkspaceID: "w1", ProjectID: "*", AppID: "studio", Can: []string{"*"}}
		canvas, thread := grant, grant
		canvas.CanvasID, thread.ThreadID = "c1", "*"
		opts = append(opts, authtest.Role(twinrail.Member), authtest.Grants(canvas, thread))
	}
	p.tokens[actor] = p.w.issuer.Token(opts...)
}

func (p *niParty) token(actor int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tokens[actor]
}

// pick returns one of what p was given of that kind, the nth from the newest, or
// "".
func (p *niParty) pick(kind string, n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	has := p.loot[kind]
	if len(has) == 0 {
		return ""
	}
	return has[len(has)-1-n%len(has)]
}

// takeTicket is pick for a ticket, which it takes out: it is good once.
func (p *niParty) takeTicket(n int) string {
	ticket := p.pick(isTicket, n)
	if ticket == "" {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loot[isTicket] = slices.DeleteFunc(p.loot[isTicket], func(t string) bool { return t == ticket })
	p.spent = append(p.spent, ticket)
	return ticket
}

// harvest notes what was drawn in a line that p received.
func (p *niParty) harvest(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	eachDrawn(line, func(kind string, from, to int) {
		if word := line[from:to]; !slices.Contains(p.loot[kind], word) {
			p.loot[kind] = append(p.loot[kind], word)
		}
	})
}

// query returns a path with the context of the tenant's app.
func (p *niParty) query(path string, more ...string) string {
	return path + "?" + niContext(p.tenant, p.env) + strings.Join(more, "")
}

func niContext(tenant, env string) string {
	return "tenant_id=" + tenant + "&env=" + env + "&workspace_id=w1&project_id=p1&app_id=studio"
}

// send makes a request, over HTTP/1.1 or for a WebSocket on a new connection. Where
// it cannot, that is what came.
func (p *niParty) send(req *http.Request, actor int, pongs bool) *niWire {
	w := &niWire{actor: actor, pongs: pongs, head: make(chan struct{}), turn: make(chan struct{}, 1)}
	if p.transport != nil && !upgrades(req) {
		ctx, cancel := context.WithCancel(context.Background())
		w.close = cancel
		p.add(w)
		p.w.running.Go(func() { w.fetch(p.transport, req.WithContext(ctx)) })
		return w
	}
	nc, err := p.w.listen.dial()
	if err != nil {
		panic(err) // the server is up
	}
	w.nc, w.close = nc, func() { _ = nc.Close() }
	p.add(w)
	p.w.running.Go(w.read)
	_ = w.write(niBytes(req)) // an error of which is read, too
	return w
}

func (p *niParty) add(w *niWire) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wires = append(p.wires, w)
}

// ask makes a request and waits for its answer, but not for the end of a stream.
func (p *niParty) ask(method, path, body string, actor int, h header) *niWire {
	w := p.send(niRequest(method, path, body, h), actor, true)
	w.wait()
	return w
}

// wait waits for the head of the response, but not for ever.
func (w *niWire) wait() {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.head:
	case <-timer.C:
		w.close()
	}
}

// stream returns one of p's connections on the rail that goes on, or nil.
func (p *niParty) stream(rail twinrail.Rail, n int) *niWire {
	p.mu.Lock()
	defer p.mu.Unlock()
	var open []*niWire
	for _, w := range p.wires {
		if w.open(rail) {
			open = append(open, w)
		}
	}
	if len(open) == 0 {
		return nil
	}
	return open[n%len(open)]
}

// received returns what p received in the slot k, in which it did op.
func (p *niParty) received(k int, op niOp) (lines []string) {
	p.mu.Lock()
	wires := slices.Clone(p.wires)
	p.loot[isUsed], p.spent = append(p.loot[isUsed], p.spent...), nil
	p.mu.Unlock()
	for i, w := range wires {
		for _, line := range w.received() {
			lines = append(lines, fmt.Sprintf("%d %s, %d: %s", k, op.do, i, line))
		}
		if op.slot() > longestComment && w.open(twinrail.RailSSE) {
			w.mu.Lock()
			lines = append(lines, fmt.Sprintf("%d %s, %d: at rest after %s", k, op.do, i, w.lastID))
			w.mu.Unlock()
		}
	}
	return lines
}

// longestComment is how long a stream at rest may be silent.
const longestComment = 15 * time.Second * 110 / 100

// all returns all that p has ever received.
func (p *niParty) all() (lines []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.wires {
		w.mu.Lock()
		for _, it := range w.items {
			lines = append(lines, it.text)
		}
		w.mu.Unlock()
	}
	return lines
}

func (p *niParty) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.wires {
		w.resumeReading()
		w.close()
	}
	for _, nc := range p.shared {
		_ = nc.Close()
	}
}

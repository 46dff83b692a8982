package test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// visitor is a page that can set no header on what it opens, and what a server
// keeps for it: one event of a canvas, and one of a thread.
type visitor struct {
	t       *testing.T
	gateway *gateway
	browser *browser
	page    *follower
}

const sessionPage = "/session.html"

// endpoint returns the URL of path in the context of the tests' tenant.
func (g *gateway) endpoint(path string) string {
	return "http://" + g.addr + path + "?" + query(twinrail.Routing{TenantID: tenant, Env: env}).Encode()
}

// seed publishes one event to a canvas and one to a thread.
func seed(t *testing.T, g *gateway) {
	t.Helper()
	for _, r := range []twinrail.Routing{canvas("c1"), thread("th1")} {
		if err := newPublisher(g, r).publish(t.Context(), 1, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// visit opens a page in a browser.
func visit(t *testing.T, g *gateway, b *browser, name, origin string) *visitor {
	t.Helper()
	return &visitor{t, g, b, b.open(name, origin+sessionPage, nil)}
}

// answer is what a page read of an answer.
type answer struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
	Cookie string `json:"cookie"` // that scripts of the page can see
}

// signIn has the page get itself a cookie.
func (v *visitor) signIn(actor string) {
	v.t.Helper()
	var a answer
	got := v.browser.mustCall(v.page.name, "signIn", v.gateway.endpoint(twinrail.PathSession), v.gateway.token(actor))
	if err := json.Unmarshal(got, &a); err != nil {
		v.t.Fatal(err)
	}
	var lifetime twinrail.LifetimeResponse
	if err := json.Unmarshal([]byte(a.Body), &lifetime); a.Status != http.StatusOK || err != nil || time.Until(lifetime.ExpiresAt) <= 0 {
		v.t.Fatalf("signing in was answered %d %s", a.Status, a.Body)
	}
	if a.Cookie != "" {
		v.t.Fatalf("scripts can read the cookie: %s", a.Cookie)
	}
}

// follow opens both rails, or one, from the page.
func (v *visitor) follow(rail twinrail.Rail, ticket string) {
	v.t.Helper()
	tg := target{addr: v.gateway.addr, routing: canvas("c1")}
	function, url, args := "followSSE", tg.sseURL(), []any(nil)
	if rail == twinrail.RailWS {
		function, url, args = "followWS", tg.wsURL(), []any{thread("th1")}
	}
	if ticket != "" {
		url += "&" + twinrail.TicketParam + "=" + ticket
	}
	v.browser.mustCall(v.page.name, function, append([]any{url}, args...)...)
}

// sees waits until the page has seen n events in all.
func (v *visitor) sees(n int) {
	v.t.Helper()
	if err := v.page.wait(func(seen []sighting, _ int) bool { return len(seen) >= n }); err != nil {
		v.t.Fatal(err)
	}
}

// refused waits until what the page opened is closed, and checks that it never was
// open. The page is not to be used again.
func (v *visitor) refused() {
	v.t.Helper()
	err := v.page.wait(func([]sighting, int) bool { return false })
	if err == nil || !strings.Contains(err.Error(), "closed") {
		v.t.Fatalf("was not refused: %v", err)
	}
	if seen, opens, _ := v.page.state(); len(seen) > 0 || opens > 0 {
		v.t.Fatalf("was let in, and saw %v", seen)
	}
}

var bothRails = []twinrail.Rail{twinrail.RailSSE, twinrail.RailWS}

// TestChromiumNeedsNoHeader has pages that can set no header open both rails: with
// nothing, which is refused, with a ticket, which works once, and with a cookie.
func TestChromiumNeedsNoHeader(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	origin := servePages(t, nil)
	g := startGateway(t, "--allowed-origin", origin, "--insecure-cookies")
	seed(t, g)
	b := startBrowser(t)
	for _, rail := range bothRails {
		v := visit(t, g, b, "with nothing, "+string(rail), origin)
		v.follow(rail, "")
		v.refused()

		v = visit(t, g, b, "with a ticket, "+string(rail), origin)
		var ticket string
		got := b.mustCall(v.page.name, "ticket", g.endpoint(twinrail.PathTickets), g.token(reader))
		if err := json.Unmarshal(got, &ticket); err != nil || ticket == "" {
			t.Fatalf("no ticket: %s", got)
		}
		v.follow(rail, ticket)
		v.sees(1)

		v = visit(t, g, b, "with a used ticket, "+string(rail), origin)
		v.follow(rail, ticket)
		v.refused()
	}
	v := visit(t, g, b, "with a cookie", origin)
	v.signIn(reader)
	for i, rail := range bothRails {
		v.follow(rail, "")
		v.sees(i + 1)
	}
}

// TestChromiumComesBackWithItsCookie cuts the connection of a native EventSource in
// several ways, while events come in. The page does nothing about it.
func TestChromiumComesBackWithItsCookie(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	origin := servePages(t, nil)
	g := startGateway(t, "--allowed-origin", origin, "--insecure-cookies")
	n := startNetwork(t, g.addr)
	p := newPublisher(g, canvas("c1"))
	b := startBrowser(t)
	v := visit(t, g, b, "with a cookie", origin)
	v.signIn(reader)
	b.mustCall(v.page.name, "followSSE", target{addr: n.proxy.Listen, routing: p.routing}.sseURL())
	publish := func() {
		if err := p.publish(t.Context(), 20, 1<<10); err != nil {
			t.Fatal(err)
		}
	}
	for round, cut := range []func(){
		func() {},
		func() { g.kill(); time.Sleep(time.Second); g.start() },
		func() { n.proxy.Stop(); time.Sleep(time.Second); n.start() },
		func() { // in the middle of an event
			n.add("limit_data", `{"bytes":5011}`)
			publish()
			time.Sleep(time.Second)
			n.remove("limit_data")
		},
	} {
		cut()
		publish()
		want := p.forReader()
		err := v.page.wait(func(seen []sighting, opens int) bool { return len(seen) >= want && opens > round })
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	checkFollower(t, v.page, p.check(t), twinrail.RailSSE)
}

// TestChromiumKeepsSessionsToTheirOrigin has a page of another origin open both
// rails, with the cookie that the browser has for the server, and with a ticket.
// Both origins are on one host, and so of one site: the browser sends the cookie
// along, and only the server tells the pages apart.
func TestChromiumKeepsSessionsToTheirOrigin(t *testing.T) {
	slow(t)
	require(t, findChromium)
	t.Parallel()
	allowed, other := servePages(t, nil), servePages(t, nil)
	g := startGateway(t, "--allowed-origin", allowed, "--insecure-cookies")
	seed(t, g)
	b := startBrowser(t)
	tenantOnly := twinrail.Routing{TenantID: tenant, Env: env}
	v := visit(t, g, b, "allowed", allowed)
	v.signIn(reader)
	for i, rail := range bothRails {
		v.follow(rail, "")
		v.sees(i + 1)
	}
	opened := func(rail twinrail.Rail) float64 {
		return g.metric(`twinrail_connections_opened_total{rail="` + string(rail) + `"}`)
	}
	refusals := 0.0
	for _, rail := range bothRails {
		before := opened(rail)
		for _, how := range []string{"cookie", "ticket"} {
			ticket := ""
			if how == "ticket" {
				ticket = g.ticket(reader)
			}
			v := visit(t, g, b, "other, "+how+", "+string(rail), other)
			v.follow(rail, ticket)
			v.refused()
			// It is the origin that was found wrong, so the credential did come.
			refusals++
			if got := g.metric(`twinrail_errors_total{code="origin_not_allowed"}`); got != refusals {
				t.Errorf("%s: %v refusals of an origin, and not %v", v.page.name, got, refusals)
			}
		}
		if after := opened(rail); after != before {
			t.Errorf("%v connections of the %s rail were opened", after-before, rail)
		}
	}
	// Nor can it read, publish, or end the session.
	v = visit(t, g, b, "other", other)
	for _, request := range [][]any{
		{"GET", "http://" + g.addr + twinrail.PathHistory + "?" + query(canvas("c1")).Encode()},
		{"DELETE", g.endpoint(twinrail.PathSession)},
		{"POST", "http://" + g.addr + twinrail.PathPublish + "?" + query(tenantOnly).Encode()},
	} {
		if got, err := b.call(v.page.name, "request", request...); err == nil || !strings.Contains(err.Error(), "Failed to fetch") {
			t.Errorf("a page of another origin, %v: %s, %v", request, got, err)
		}
	}
	v = visit(t, g, b, "allowed again", allowed)
	v.follow(twinrail.RailSSE, "")
	v.sees(1)
}

// ticket returns a ticket of the actor.
func (g *gateway) ticket(actor string) string {
	g.t.Helper()
	text, err := g.call(g.t.Context(), http.MethodPost, twinrail.PathTickets, g.token(actor), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	var ticket twinrail.TicketResponse
	if err := json.Unmarshal(text, &ticket); err != nil {
		g.t.Fatal(err)
	}
	return url.QueryEscape(ticket.Ticket)
}

// TestChromiumStopsWithItsSession ends the session of a native EventSource, by
// signing out and by a revocation. It is told so, comes back once, is refused in
// a way that it understands, and stays away.
func TestChromiumStopsWithItsSession(t *testing.T) {
	slow(t)
	require(t, findChromium)
	for name, end := range map[string]func(*visitor) (body []byte, err error){
		"signed out": func(v *visitor) ([]byte, error) {
			return v.browser.call(v.page.name, "request", http.MethodDelete, v.gateway.endpoint(twinrail.PathSession))
		},
		"revoked": func(v *visitor) ([]byte, error) {
			return v.gateway.call(t.Context(), http.MethodPost, twinrail.PathRevocations, v.gateway.token(writer), []byte(`{"actor_id":"`+reader+`"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := servePages(t, nil)
			g := startGateway(t, "--allowed-origin", origin, "--insecure-cookies")
			seed(t, g)
			v := visit(t, g, startBrowser(t), name, origin)
			v.signIn(reader)
			v.follow(twinrail.RailSSE, "")
			v.sees(1)
			if body, err := end(v); err != nil {
				t.Fatalf("%v %s", err, body)
			}
			eventually(t, "it is told, comes back, and stops", func() bool {
				_, _, bad := v.page.state()
				return len(bad) == 2 && strings.HasPrefix(bad[0], `end: {"code":"credential_revoked","reconnect":false}`) && bad[1] == "closed"
			})
			refusals := func() float64 { return g.metricSum("twinrail_errors_total") }
			before := refusals()
			time.Sleep(6 * time.Second) // longer than any retry that it was told
			if after := refusals(); after != before {
				t.Errorf("it came back after it was refused, %v times", after-before)
			}
			if _, opens, bad := v.page.state(); opens != 1 || len(bad) != 2 {
				t.Errorf("it was let in %d times, and then: %v", opens, bad)
			}
		})
	}
}

package auth

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
)

// secrets are one credential of each sort, of two actors in different tenants, by
// what stands for them in an input.
type secrets struct {
	gate  *Gate
	lasts []string            // the names and texts of all but tickets
	of    map[string]*Context // who gets a ticket, by its name
	text  *strings.Replacer
}

func newSecrets(t testing.TB, g *Gate) *secrets {
	s := &secrets{gate: g, of: make(map[string]*Context)}
	for mark, tenant := range map[string]string{"}": "t_acme", "2}": "t_other"} {
		who := []func(*twinrail.Identity){tenantIs(tenant), actorIs("u_" + tenant)}
		c := withBearer(t, g, who...)
		s.lasts = append(s.lasts, "{jwt"+mark, token(t, who...), "{cookie"+mark, cookieFor(t, g, c).Value,
			"{resume"+mark, g.SealResume(c, Resume{SessionID: "s_1"}))
		s.of["{ticket"+mark] = c
	}
	return s
}

// renew replaces the tickets.
func (s *secrets) renew(t testing.TB) {
	s.gate.tickets = tickets{} // or in the end there would be too many that are unused
	all := slices.Clone(s.lasts)
	for name, c := range s.of {
		all = append(all, name, ticketFor(t, s.gate, c, twinrail.TicketRequest{}))
	}
	s.text = strings.NewReplacer(all...)
}

// request returns the request that the input is, with the secrets in their places.
func (s *secrets) request(authorization, query, cookie, protocols string) *http.Request {
	r := request("/v1/ws")
	for name, value := range map[string]string{
		"Authorization": authorization, "Cookie": cookie, "Sec-Websocket-Protocol": protocols,
	} {
		if value != "" {
			r.Header[name] = strings.Split(s.text.Replace(value), "\n")
		}
	}
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Origin", page)
	r.URL.RawQuery = s.text.Replace(query)
	return r
}

// FuzzAdmit puts credentials, and anything else, where credentials are looked for:
// who is let in has shown one of its own, whole, in a place where one of that sort
// counts, and says whose tenant and env it is; and a ticket lets in once.
func FuzzAdmit(f *testing.F) {
	const acme, other = "tenant_id=t_acme&env=dev", "tenant_id=t_other&env=dev"
	for _, seed := range [][4]string{
		{"Bearer {jwt}", acme, "", ""},
		{"Bearer {jwt2}", acme, "", "bearer.{jwt}"},
		{"bearer  {jwt} ", acme + "&actor_id=u_t_acme", "", ""},
		{"Bearer {jwt}\nBearer {jwt2}", acme, "", ""},
		{"Bearer {ticket}", acme, "", "bearer.{cookie}"},
		{"", acme + "&ticket={ticket}", "", "twinrail.v1"},
		{"", acme + "&ticket={ticket2}&ticket={ticket}", "", ""},
		{"", other + "&ticket={ticket}", "", ""},
		{"", acme + "&ticket=%7Bticket%7D&ticket=", "", ""},
		{"", acme, "__Host-twinrail={cookie}", ""},
		{"", acme, "__Host-twinrail={cookie2}; __Host-twinrail={cookie}", ""},
		{"", other + "&ticket={resume}", "__Host-twinrail=\"{cookie2}\"", "twinrail.v1,bearer.{jwt}"},
		{"", acme + "&ticket={jwt}&access_token={jwt}", "twinrail={cookie}", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	g := newGate(f, GateOptions{})
	s := newSecrets(f, g)
	f.Fuzz(func(t *testing.T, authorization, query, cookie, protocols string) {
		s.renew(t)
		c, err := g.Admit(s.request(authorization, query, cookie, protocols))
		if err != nil {
			if code := twinrail.CodeOf(err); c != nil || code == twinrail.CodeInternal || code.Info().Status/100 != 4 {
				t.Errorf("%v, %v", c, err)
			}
			return
		}
		id := c.Principal().Identity()
		who := id.TenantID + " " + id.ActorID
		sort := map[carriage]string{byBearer: "{jwt", byTicket: "{ticket", byCookie: "{cookie"}[c.principal.carriage]
		mark := map[string]string{"t_acme u_t_acme": "}", "t_other u_t_other": "2}"}[who]
		shown := authorization + "\n" + protocols
		switch c.principal.carriage {
		case byTicket:
			shown = ticketsIn(query)
		case byCookie:
			shown = cookie
		}
		if mark == "" || !strings.Contains(shown, sort+mark) {
			t.Errorf("let in %s by %s, who showed %q", who, sort, shown)
		}
		if r := c.Routing(); r.TenantID != id.TenantID || r.Env != "dev" || r.ActorID != "" && r.ActorID != id.ActorID {
			t.Errorf("%s acts in %+v", who, r)
		}
		if c.principal.carriage == byTicket {
			if c, err := g.Admit(s.request(authorization, query, cookie, protocols)); err == nil {
				t.Errorf("the ticket is good again: %v", c.Principal().Identity())
			}
		}
	})
}

// ticketsIn returns the tickets of a query, with their names in place of them.
func ticketsIn(query string) string {
	r := request("/")
	r.URL.RawQuery = query
	return strings.Join(r.URL.Query()[twinrail.TicketParam], "\n")
}

package auth

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

const page = "https://app.example.com"

// newGate returns a gate with the given options; without a verifier it is that of
// the secret.
func newGate(t testing.TB, o GateOptions) *Gate {
	t.Helper()
	if o.Verifier == nil {
		o.Verifier = secretVerifier(t)
	}
	if o.AllowedOrigins == nil {
		o.AllowedOrigins = []string{page}
	}
	g, err := NewGate(o)
	if err != nil {
		t.Fatalf("NewGate: %v", err)
	}
	return g
}

// token returns a token of someone, issued now for an hour, as changed.
func token(t testing.TB, change ...func(*twinrail.Identity)) string {
	t.Helper()
	id := someone()
	id.IssuedAt = time.Now()
	id.ExpiresAt = id.IssuedAt.Add(time.Hour)
	for _, f := range change {
		f(&id)
	}
	raw, err := Mint(secret, id, id.ExpiresAt.Sub(id.IssuedAt))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func actorIs(id string) func(*twinrail.Identity) {
	return func(i *twinrail.Identity) { i.ActorID = id }
}

func tenantIs(id string) func(*twinrail.Identity) {
	return func(i *twinrail.Identity) { i.TenantID = id }
}

func envIs(env string) func(*twinrail.Identity) { return func(i *twinrail.Identity) { i.Env = env } }

func tokenIs(id string) func(*twinrail.Identity) {
	return func(i *twinrail.Identity) { i.TokenID = id }
}

func lives(d time.Duration) func(*twinrail.Identity) {
	return func(i *twinrail.Identity) { i.ExpiresAt = i.IssuedAt.Add(d) }
}

func grants(all ...twinrail.Grant) func(*twinrail.Identity) {
	return func(i *twinrail.Identity) { i.Grants = all }
}

const inDev = "/v1/x?tenant_id=t_acme&env=dev"

// withBearer returns the context of a request with a token, as changed.
func withBearer(t testing.TB, g *Gate, change ...func(*twinrail.Identity)) *Context {
	t.Helper()
	p, err := g.Verify(t.Context(), token(t, change...))
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	c, err := p.Enter(twinrail.Routing{TenantID: p.identity.TenantID, Env: p.identity.Env}, "req-1", "")
	if err != nil {
		t.Fatalf("enter: %v", err)
	}
	return c
}

func ticketFor(t testing.TB, g *Gate, c *Context, request twinrail.TicketRequest) string {
	t.Helper()
	issued, err := g.IssueTicket(c, request)
	if err != nil {
		t.Fatalf("ticket: %v", err)
	}
	return issued.Ticket
}

func cookieFor(t testing.TB, g *Gate, c *Context) *http.Cookie {
	t.Helper()
	cookie, err := g.OpenSession(c, request("/v1/session"))
	if err != nil {
		t.Fatalf("session: %v", err)
	}
	return cookie
}

func withTicket(g *Gate, ticket string) (*Context, error) {
	return g.Admit(request(inDev + "&ticket=" + ticket))
}

func withCookie(g *Gate, cookie *http.Cookie) (*Context, error) {
	return g.Admit(cookieRequest(cookie))
}

func cookieRequest(cookie *http.Cookie, headers ...string) *http.Request {
	r := request(inDev, append(headers, "Origin: "+page)...)
	r.AddCookie(cookie)
	return r
}

// tables are what a gate keeps over a restart.
type tables struct{ revocations, cookies faultyTable }

func (s *tables) gate(t testing.TB) *Gate {
	return newGate(t, GateOptions{Revocations: &s.revocations, Cookies: &s.cookies, Key: secret})
}

// faultyTable is a table that fails to change while it has an error, and counts
// what was not made durable.
type faultyTable struct {
	table.Memory
	mu   sync.Mutex
	err  error
	lazy int    // changes since the last synced one
	then func() // called before the next deletion
}

func (f *faultyTable) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *faultyTable) change(d table.Durability) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d == table.Synced {
		f.lazy = 0
	} else {
		f.lazy++
	}
	return f.err
}

func (f *faultyTable) unsynced() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lazy
}

func (f *faultyTable) Put(key string, value []byte, d table.Durability) error {
	if err := f.change(d); err != nil {
		return err
	}
	return f.Memory.Put(key, value, d)
}

func (f *faultyTable) Delete(key string, d table.Durability) error {
	f.mu.Lock()
	then := f.then
	f.then = nil
	f.mu.Unlock()
	if then != nil {
		then()
	}
	if err := f.change(d); err != nil {
		return err
	}
	return f.Memory.Delete(key, d)
}

func (f *faultyTable) rows() []string {
	var keys []string
	_ = f.Scan(func(key string, _ []byte) error { keys = append(keys, key); return nil })
	return keys
}

var errDisk = errors.New("a disk that is full of secrets")

func TestWhichCredentialCounts(t *testing.T) {
	g := newGate(t, GateOptions{})
	var (
		c      = withBearer(t, g, actorIs("by_cookie"))
		cookie = cookieFor(t, g, c).Value
		other  = cookieFor(t, g, c).Value
		raw    = token(t, actorIs("by_bearer"))
	)
	const origin = "Origin: " + page
	tests := []struct {
		name    string
		query   string // T is a new ticket
		headers []string
		want    string // the actor, or
		code    twinrail.Code
	}{
		{name: "nothing", code: twinrail.CodeCredentialMissing},
		{name: "another cookie", headers: []string{origin, "Cookie: twinrail=" + cookie}, code: twinrail.CodeCredentialMissing},
		{name: "a bearer", headers: []string{"Authorization: Bearer " + raw}, want: "by_bearer"},
		{name: "a ticket", query: "&ticket=T", want: "by_ticket"},
		{name: "a cookie", headers: []string{origin, "Cookie: __Host-twinrail=" + cookie}, want: "by_cookie"},
		{name: "a bearer and a cookie", headers: []string{"Authorization: Bearer " + raw, "Cookie: __Host-twinrail=" + cookie}, want: "by_bearer"},
		{name: "a bearer and two cookies", headers: []string{"Authorization: Bearer " + raw, "Cookie: __Host-twinrail=a; __Host-twinrail=b"}, want: "by_bearer"},
		{name: "a bad bearer and a cookie", headers: []string{origin, "Authorization: Bearer x", "Cookie: __Host-twinrail=" + cookie}, code: refused},
		{name: "a bearer of another kind and a cookie", headers: []string{origin, "Authorization: Basic x", "Cookie: __Host-twinrail=" + cookie}, code: refused},
		{name: "a bearer and a ticket", query: "&ticket=T", headers: []string{"Authorization: Bearer " + raw}, code: refused},
		{name: "a bearer and an empty ticket", query: "&ticket=", headers: []string{"Authorization: Bearer " + raw}, code: refused},
		{name: "a ticket and a cookie", query: "&ticket=T", headers: []string{origin, "Cookie: __Host-twinrail=" + cookie}, want: "by_ticket"},
		{name: "a bad ticket and a cookie", query: "&ticket=x", headers: []string{origin, "Cookie: __Host-twinrail=" + cookie}, code: refused},
		{name: "a ticket twice", query: "&ticket=T&ticket=T", want: "by_ticket"},
		{name: "two tickets", query: "&ticket=T&ticket=x", code: refused},
		{name: "two tickets, and one again", query: "&ticket=T&ticket=x&ticket=T", code: refused},
		{name: "an empty ticket", query: "&ticket=", code: refused},
		{name: "a cookie twice", headers: []string{origin, "Cookie: __Host-twinrail=" + cookie + "; __Host-twinrail=" + cookie}, want: "by_cookie"},
		{name: "two cookies", headers: []string{origin, "Cookie: __Host-twinrail=" + cookie + "; __Host-twinrail=" + other}, code: refused},
		{name: "two cookie headers", headers: []string{origin, "Cookie: __Host-twinrail=" + cookie, "Cookie: __Host-twinrail=" + other}, code: refused},
		{name: "an empty cookie", headers: []string{origin, "Cookie: __Host-twinrail="}, code: refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ticket := ticketFor(t, g, withBearer(t, g, actorIs("by_ticket")), twinrail.TicketRequest{})
			c, err := g.Admit(request(inDev+strings.ReplaceAll(tt.query, "T", ticket), tt.headers...))
			wantError(t, err, tt.code, "")
			if tt.code == "" && (c == nil || c.Principal().Identity().ActorID != tt.want) {
				t.Errorf("it is not %s", tt.want)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	g := newGate(t, GateOptions{AllowedOrigins: []string{page, "http://localhost:3000", "null"}})
	c := withBearer(t, g)
	cookie := cookieFor(t, g, c).Value
	tests := []struct {
		name           string
		headers        []string
		cookie, ticket bool
	}{
		{"no word of it", nil, false, true},
		{"allowed", []string{"Origin: " + page}, true, true},
		{"allowed too", []string{"Origin: http://localhost:3000"}, true, true},
		{"allowed and cross-site", []string{"Origin: " + page, "Sec-Fetch-Site: cross-site"}, true, true},
		{"another", []string{"Origin: https://evil.example.com"}, false, false},
		{"another scheme", []string{"Origin: http://app.example.com"}, false, false},
		{"another port", []string{"Origin: https://app.example.com:8443"}, false, false},
		{"longer", []string{"Origin: https://app.example.com.evil.example"}, false, false},
		{"in upper case", []string{"Origin: HTTPS://APP.EXAMPLE.COM"}, false, false},
		{"null", []string{"Origin: null"}, false, false},
		{"empty", []string{"Origin: "}, false, false},
		{"two", []string{"Origin: " + page, "Origin: https://evil.example.com"}, false, false},
		{"another, said to be the same", []string{"Origin: https://evil.example.com", "Sec-Fetch-Site: same-origin"}, false, false},
		{"null, said to be the same", []string{"Origin: null", "Sec-Fetch-Site: same-origin"}, false, false},
		{"the same", []string{"Sec-Fetch-Site: same-origin"}, true, true},
		{"of the same site", []string{"Sec-Fetch-Site: same-site"}, false, true},
		{"of another site", []string{"Sec-Fetch-Site: cross-site"}, false, true},
		{"of the user", []string{"Sec-Fetch-Site: none"}, false, true},
		{"the same and not", []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, false, true},
	}
	code := func(allowed bool) twinrail.Code {
		if allowed {
			return ""
		}
		return twinrail.CodeOriginNotAllowed
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := g.Admit(request(inDev, append(tt.headers, "Cookie: __Host-twinrail="+cookie)...))
			wantError(t, err, code(tt.cookie), "")
			// The origin comes before whatever is said of the credential.
			_, err = g.Admit(request(inDev, append(tt.headers, "Cookie: __Host-twinrail=x")...))
			if tt.cookie {
				wantError(t, err, refused, "")
			} else {
				wantError(t, err, twinrail.CodeOriginNotAllowed, "")
			}
			ticket := ticketFor(t, g, c, twinrail.TicketRequest{})
			_, err = g.Admit(request(inDev+"&ticket="+ticket, tt.headers...))
			wantError(t, err, code(tt.ticket), "")
			// A bearer is not sent by itself.
			_, err = g.Admit(request(inDev, append(tt.headers, "Authorization: Bearer "+token(t))...))
			wantError(t, err, "", "")
			// Not looked up, it is still good.
			_, err = g.Admit(request(inDev + "&ticket=" + ticket))
			wantError(t, err, map[bool]twinrail.Code{true: refused}[tt.ticket], "")
		})
	}
}

func TestMaxTokenAge(t *testing.T) {
	const hour = time.Hour
	for _, tt := range []struct {
		name     string
		iat, exp time.Duration // from now; an iat of 0 is none
		ends     time.Duration // or
		code     twinrail.Code
	}{
		{"short", -hour, hour, hour, ""},
		{"just long enough", -hour, 23 * hour, 23 * hour, ""},
		{"long", -hour, 1000 * hour, 23 * hour, ""},
		{"long and nearly too old", -24*hour + time.Second, 1000 * hour, time.Second, ""},
		{"too old", -24 * hour, 1000 * hour, 0, twinrail.CodeCredentialExpired},
		{"of a clock that is ahead", time.Minute, 1000 * hour, 24*hour + time.Minute, ""},
		{"of the future", time.Minute + time.Second, 2 * hour, 0, refused},
		{"short without iat", 0, 24 * hour, 24 * hour, ""},
		{"long without iat", 0, 24*hour + time.Second, 0, refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, GateOptions{MaxTokenAge: 24 * hour})
				at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
				c := jwt.MapClaims{"sub": "u_1", "tenant_id": "t_acme", "env": "dev", "exp": at(tt.exp)}
				if tt.iat != 0 {
					c["iat"] = at(tt.iat)
				}
				p, err := g.Verify(t.Context(), signHS(t, c))
				wantError(t, err, tt.code, "")
				if err == nil && !p.ExpiresAt().Equal(time.Now().Add(tt.ends)) {
					t.Errorf("it ends in %v", time.Until(p.ExpiresAt()))
				}
			})
		})
	}
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{})
		p, err := g.Verify(t.Context(), token(t))
		if err != nil {
			t.Fatal(err)
		}
		stated := full()
		c, err := p.Enter(stated, "req-7", "00-parent")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		for _, tt := range []struct {
			raw   string
			code  twinrail.Code
			field string
		}{
			{token(t, tenantIs("t_other")), twinrail.CodeContextMismatch, "tenant_id"},
			{token(t, envIs("prod")), twinrail.CodeContextMismatch, "env"},
			{token(t, actorIs("u_2")), twinrail.CodeActorMismatch, "actor_id"},
			{token(t, lives(59*time.Minute-time.Second)), refused, ""},
			{token(t, lives(59*time.Minute)), "", ""},
			{"x", refused, ""},
		} {
			_, err := g.Renew(t.Context(), c, tt.raw)
			wantError(t, err, tt.code, tt.field)
		}

		narrow := twinrail.Grant{WorkspaceID: "w2", ProjectID: "*", AppID: "*", CanvasID: "*", Can: []string{"*"}}
		renewed, err := g.Renew(t.Context(), c, token(t, grants(narrow)))
		if err != nil {
			t.Fatal(err)
		}
		if renewed.Routing() != stated || renewed.RequestID() != "req-7" || renewed.Traceparent() != "00-parent" {
			t.Errorf("of another request: %+v", renewed)
		}
		if !renewed.Principal().ExpiresAt().Equal(time.Now().Add(time.Hour)) {
			t.Errorf("it ends at %v", renewed.Principal().ExpiresAt())
		}
		_, err = renewed.Reader(twinrail.Routing{}, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
		wantError(t, err, twinrail.CodeNotFound, "") // the newer one's grants count

		// What a ticket opened goes on with all that the token gives.
		scoped, err := withTicket(g, ticketFor(t, g, withBearer(t, g), twinrail.TicketRequest{Rail: twinrail.RailSSE}))
		if err != nil {
			t.Fatal(err)
		}
		if renewed, err = g.Renew(t.Context(), scoped, token(t)); err != nil || !renewed.AllowsRail(twinrail.RailWS) {
			t.Errorf("renewed: %v", err)
		}

		void := token(t, tokenIs("j1"))
		if _, err := g.Revoke(c, twinrail.RevocationRequest{TokenID: "j1"}); err != nil {
			t.Fatal(err)
		}
		_, err = g.Renew(t.Context(), c, void)
		wantError(t, err, twinrail.CodeCredentialRevoked, "")
	})
}

func TestNewGateRefuses(t *testing.T) {
	if _, err := NewGate(GateOptions{}); err == nil {
		t.Error("made a gate without a verifier")
	}
	if _, err := NewGate(GateOptions{Verifier: secretVerifier(t), Key: secret[:31]}); err == nil {
		t.Error("made a gate with a short key")
	}
	for key, value := range map[string]string{
		"x":                  `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","request_id":"r"}`,
		"t_a/dev/other/x":    `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","request_id":"r"}`,
		"t_a/dev/jti/":       `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","request_id":"r"}`,
		"t_a/dev/tenant/x":   `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","request_id":"r"}`,
		"t_a/dev/jti/%zz":    `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","request_id":"r"}`,
		"t_a/dev/jti/%61":    `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","request_id":"r"}`,
		"t_a/dev/jti/a":      `{"revoked_at":"2026-01-01T00:00:00Z","by":"u","more":1}`,
		"t_a/dev/jti/b":      `{}`,
		"t_a/dev/actor_id/c": ``,
	} {
		rows := new(table.Memory)
		_ = rows.Put(key, []byte(value), table.Synced)
		if _, err := NewGate(GateOptions{Verifier: secretVerifier(t), Revocations: rows}); err == nil {
			t.Errorf("passed over the revocation %q: %q", key, value)
		}
	}
}

package auth

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
)

func TestCookieText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for insecure, want := range map[bool][2]string{
			false: {
				"__Host-twinrail=V; Path=/; Expires=Sat, 01 Jan 2000 01:00:00 GMT; Max-Age=3600; HttpOnly; Secure; SameSite=Strict",
				"__Host-twinrail=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict",
			},
			true: {
				"twinrail=V; Path=/; Expires=Sat, 01 Jan 2000 01:00:00 GMT; Max-Age=3600; HttpOnly; SameSite=Strict",
				"twinrail=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict",
			},
		} {
			g := newGate(t, GateOptions{InsecureCookies: insecure})
			bearer := withBearer(t, g)
			cookie := cookieFor(t, g, bearer)
			if raw, err := base64.RawURLEncoding.DecodeString(cookie.Value); err != nil || len(raw) != 32 {
				t.Errorf("its value is %q", cookie.Value)
			}
			if got := strings.ReplaceAll(cookie.String(), cookie.Value, "V"); got != want[0] {
				t.Errorf("got  %s\nwant %s", got, want[0])
			}
			if _, err := withCookie(g, cookie); err != nil {
				t.Error(err)
			}
			removed, err := g.EndSession(bearer, cookieRequest(cookie))
			if err != nil || removed.String() != want[1] {
				t.Errorf("%v\ngot  %s\nwant %s", err, removed, want[1])
			}
		}
	})
}

// TestSessionStandsForItsCredential also after a restart.
func TestSessionStandsForItsCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept tables
		g := kept.gate(t)
		c := withBearer(t, g, tokenIs("j1"), grants(FullGrant(), twinrail.Grant{WorkspaceID: "w", PanelID: "l", Can: []string{"commit:read", "session:revoke"}}),
			func(id *twinrail.Identity) { id.ActorType, id.Role = twinrail.Agent, twinrail.Admin })
		panel := twinrail.Routing{PanelID: "l"}
		scoped, err := withTicket(g, ticketFor(t, g, c, twinrail.TicketRequest{
			Rail: twinrail.RailSSE, Routing: &panel, Channels: []twinrail.Channel{twinrail.Commit, twinrail.Artifact},
		}))
		if err != nil {
			t.Fatal(err)
		}
		whole, part := cookieFor(t, g, c), cookieFor(t, g, scoped)
		for name, g := range map[string]*Gate{"at once": g, "after a restart": kept.gate(t)} {
			got, err := withCookie(g, whole)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, want := fmt.Sprintf("%+v", got.Principal().Identity()), fmt.Sprintf("%+v", c.Principal().Identity()); got != want {
				t.Errorf("%s: it stands for\n%s, not\n%s", name, got, want)
			}
			if got.principal.scope != nil || !got.AllowsRail("") {
				t.Errorf("%s: it is scoped", name)
			}
			got, err = withCookie(g, part)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if s := got.principal.scope; s == nil || *s != *scoped.principal.scope {
				t.Errorf("%s: its scope is %+v", name, s)
			}
			if got.principal.carriage != byCookie {
				t.Errorf("%s: it did not come by a cookie", name)
			}
		}
		// What is stored does not open anything.
		_ = kept.cookies.Scan(func(key string, value []byte) error {
			for _, cookie := range []*http.Cookie{whole, part} {
				if strings.Contains(key, cookie.Value) || bytes.Contains(value, []byte(cookie.Value)) {
					t.Error("the cookie itself is stored")
				}
			}
			_, err := withCookie(g, &http.Cookie{Name: cookieName, Value: key})
			wantError(t, err, refused, "")
			return nil
		})
		if n := kept.cookies.unsynced(); n != 0 || len(kept.cookies.rows()) != 2 {
			t.Errorf("%d changes are not durable, of %d rows", n, len(kept.cookies.rows()))
		}
	})
}

func TestSessionExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept tables
		g := kept.gate(t)
		short, long := cookieFor(t, g, withBearer(t, g)), cookieFor(t, g, withBearer(t, g, lives(2*time.Hour)))
		c, err := withCookie(g, short)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		_, err = withCookie(g, short)
		wantError(t, err, "", "")
		time.Sleep(time.Nanosecond)
		_, err = withCookie(g, short)
		wantError(t, err, expired, "")

		restarted := kept.gate(t)
		_, err = withCookie(restarted, short)
		wantError(t, err, refused, "")
		_, err = withCookie(restarted, long)
		wantError(t, err, "", "")
		if n := len(kept.cookies.rows()); n != 1 {
			t.Errorf("%d sessions are stored", n)
		}

		cookieFor(t, g, withBearer(t, g)) // which drops those that are over
		_, err = withCookie(g, short)
		wantError(t, err, refused, "")
		if len(g.logins.byCookie) != 2 || len(g.logins.byActor[c.principal.actor()]) != 2 || len(g.logins.ends.queue.items) != 2 {
			t.Errorf("%d sessions are held", len(g.logins.byCookie))
		}
		if g.Revoked(c.Principal()) {
			t.Error("a session that is over counts as revoked")
		}
		time.Sleep(2 * time.Hour)
		_, err = g.OpenSession(c, request("/"))
		wantError(t, err, refused, "") // by a cookie
		cookieFor(t, g, withBearer(t, g, actorIs("u_2")))
		if len(g.logins.byCookie) != 1 || len(g.logins.byActor) != 1 || len(kept.cookies.rows()) != 1 {
			t.Errorf("%d sessions of %d actors are held", len(g.logins.byCookie), len(g.logins.byActor))
		}
	})
}

func TestOpenSessionRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, GateOptions{})
		c := withBearer(t, g)
		byCookie, err := withCookie(g, cookieFor(t, g, c))
		if err != nil {
			t.Fatal(err)
		}
		_, err = g.OpenSession(byCookie, request("/"))
		wantError(t, err, refused, "")
		time.Sleep(time.Hour)
		_, err = g.OpenSession(c, request("/"))
		wantError(t, err, expired, "")
	})
}

func TestEndSession(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	var told int
	g.OnRevoke(func(_, _, _ string) { told++ })
	bearer := withBearer(t, g)
	cookie, other := cookieFor(t, g, bearer), cookieFor(t, g, bearer)
	c, err := withCookie(g, cookie)
	if err != nil {
		t.Fatal(err)
	}
	byOther, err := withCookie(g, other)
	if err != nil {
		t.Fatal(err)
	}

	evil := request(inDev, "Origin: https://evil.example.com", "Cookie: __Host-twinrail="+cookie.Value)
	_, err = g.EndSession(bearer, evil)
	wantError(t, err, twinrail.CodeOriginNotAllowed, "")
	_, err = g.EndSession(bearer, request(inDev, "Cookie: __Host-twinrail="+cookie.Value))
	wantError(t, err, twinrail.CodeOriginNotAllowed, "")
	_, err = g.EndSession(bearer, request(inDev, "Origin: "+page, "Cookie: __Host-twinrail="+cookie.Value+"; __Host-twinrail=x"))
	wantError(t, err, refused, "")
	if g.Revoked(c.Principal()) || told != 0 {
		t.Fatal("it was ended")
	}

	kept.cookies.fail(errDisk)
	_, err = g.EndSession(bearer, cookieRequest(cookie))
	wantError(t, err, twinrail.CodeUnavailable, "")
	if strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("the client is told %v", err)
	}
	if _, err := withCookie(g, cookie); err != nil || told != 0 {
		t.Errorf("not ended, and void: %v", err)
	}
	kept.cookies.fail(nil)

	if _, err := g.EndSession(bearer, cookieRequest(cookie)); err != nil {
		t.Fatal(err)
	}
	if !g.Revoked(c.Principal()) || told != 1 || kept.cookies.unsynced() != 0 {
		t.Errorf("revoked: %t, told %d times", g.Revoked(c.Principal()), told)
	}
	if len(g.logins.byCookie) != 1 || len(g.logins.ends.queue.items) != 1 {
		t.Error("it is still held")
	}
	if g.Revoked(byOther.Principal()) || g.Revoked(bearer.Principal()) {
		t.Error("another session was ended, or the token")
	}
	for _, g := range []*Gate{g, kept.gate(t)} {
		_, err = withCookie(g, cookie)
		wantError(t, err, refused, "")
		_, err = withCookie(g, other)
		wantError(t, err, "", "")
	}

	// What has ended, or never was, is no error and no news.
	for _, r := range []*http.Request{
		cookieRequest(cookie), request(inDev, "Origin: "+page), request(inDev, "Sec-Fetch-Site: same-origin"), request(inDev, "Origin: "+page, "Cookie: __Host-twinrail=x"),
	} {
		if removed, err := g.EndSession(bearer, r); err != nil || removed == nil || told != 1 {
			t.Errorf("again: %v, told %d times", err, told)
		}
	}
}

// TestEndSessionOfAnother: whoever has the cookie of somebody else as well ends
// nothing with it, and learns nothing of it.
func TestEndSessionOfAnother(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	var told int
	g.OnRevoke(func(_, _, _ string) { told++ })
	bearer := withBearer(t, g)
	cookie := cookieFor(t, g, bearer)
	none := &http.Cookie{Name: cookieName, Value: newSecret()}
	kept.cookies.fail(errDisk) // which only who ends something would hear of
	for name, other := range map[string]*Context{
		"actor": withBearer(t, g, actorIs("u_2")), "tenant": withBearer(t, g, tenantIs("t_other")), "env": withBearer(t, g, envIs("prod")),
		"nobody": new(Context),
	} {
		got, err := g.EndSession(other, cookieRequest(cookie))
		want, wantErr := g.EndSession(other, cookieRequest(none))
		if err != nil || wantErr != nil || got.String() != want.String() {
			t.Errorf("another %s is answered %v, %v, and with no such cookie %v, %v", name, got, err, want, wantErr)
		}
		if _, err := withCookie(g, cookie); err != nil || told != 0 {
			t.Fatalf("another %s has ended the session", name)
		}
	}
	kept.cookies.fail(nil)
	c, err := withCookie(g, cookie)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.EndSession(c, cookieRequest(cookie)); err != nil || !g.Revoked(c.Principal()) || told != 1 {
		t.Errorf("by the cookie itself: %v, told %d times", err, told)
	}
}

// TestSessionGivesWay: a page that brings a newer token keeps its connections,
// until it logs out.
func TestSessionGivesWay(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	var told int
	g.OnRevoke(func(_, _, _ string) { told++ })
	bearer := withBearer(t, g)
	first := cookieFor(t, g, bearer)
	c, err := withCookie(g, first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := g.OpenSession(bearer, cookieRequest(first))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gate{g, kept.gate(t)} {
		_, err = withCookie(g, first)
		wantError(t, err, refused, "")
		_, err = withCookie(g, second)
		wantError(t, err, "", "")
	}
	if kept.cookies.unsynced() != 0 {
		t.Error("the first one's end is not durable")
	}
	if g.Revoked(c.Principal()) || told != 0 {
		t.Error("what the first one opened was ended")
	}
	if _, err := g.EndSession(bearer, cookieRequest(second)); err != nil {
		t.Fatal(err)
	}
	if !g.Revoked(c.Principal()) || told != 1 {
		t.Error("what the first one opened outlives the logout")
	}

	// Another actor's session does not give way.
	for _, other := range []*Context{
		withBearer(t, g, actorIs("u_2")), withBearer(t, g, tenantIs("t_other")), withBearer(t, g, envIs("prod")),
	} {
		third := cookieFor(t, g, bearer)
		if _, err := g.OpenSession(other, cookieRequest(third)); err != nil {
			t.Fatal(err)
		}
		_, err = withCookie(g, third)
		wantError(t, err, "", "")
	}
}

// TestSessionGivesWayMeanwhile: of a logout and a login that meet, the login that
// is told of last holds.
func TestSessionGivesWayMeanwhile(t *testing.T) {
	var kept tables
	g := kept.gate(t)
	bearer := withBearer(t, g)
	first := cookieFor(t, g, bearer)
	var second *http.Cookie
	kept.cookies.then = func() {
		var err error
		if second, err = g.OpenSession(bearer, cookieRequest(first)); err != nil {
			t.Error(err)
		}
	}
	if _, err := g.EndSession(bearer, cookieRequest(first)); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gate{g, kept.gate(t)} {
		_, err := withCookie(g, first)
		wantError(t, err, refused, "")
		_, err = withCookie(g, second)
		wantError(t, err, "", "")
	}
}

func TestSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept tables
		g := kept.gate(t)
		var told int
		g.OnRevoke(func(_, _, _ string) { told++ })
		bearer := withBearer(t, g)
		other := cookieFor(t, g, withBearer(t, g, actorIs("u_2")))
		cookieFor(t, g, withBearer(t, g, tenantIs("t_other")))
		var all []*http.Cookie
		for range maxLogins {
			all = append(all, cookieFor(t, g, bearer))
			time.Sleep(time.Second)
		}
		oldest, err := withCookie(g, all[0])
		if err != nil || told != 0 {
			t.Fatalf("%v, told %d times", err, told)
		}
		all = append(all, cookieFor(t, g, bearer))
		if !g.Revoked(oldest.Principal()) || told != 1 {
			t.Errorf("what the oldest opened is revoked: %t, told %d times", g.Revoked(oldest.Principal()), told)
		}
		if kept.cookies.unsynced() != 0 {
			t.Error("the oldest one's end is not durable")
		}
		for _, g := range []*Gate{g, kept.gate(t)} {
			_, err := withCookie(g, all[0])
			wantError(t, err, refused, "")
			for _, cookie := range slices.Concat(all[1:], []*http.Cookie{other}) {
				_, err := withCookie(g, cookie)
				wantError(t, err, "", "")
			}
		}
		if n := len(kept.cookies.rows()); n != maxLogins+2 {
			t.Errorf("%d are stored", n)
		}

		// After a restart too the oldest goes first.
		g = kept.gate(t)
		cookieFor(t, g, bearer)
		_, err = withCookie(g, all[1])
		wantError(t, err, refused, "")
		_, err = withCookie(g, all[2])
		wantError(t, err, "", "")
	})
}

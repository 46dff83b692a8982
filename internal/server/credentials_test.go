package server

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// TestTicket opens each endpoint with a ticket, once.
func TestTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		start := time.Now()
		resp := r.do("POST", ticketsPath, "", as(r.token))
		var got twinrail.TicketResponse
		unmarshal(t, resp.body, &got)
		if resp.status != 200 || resp.header.Get("Cache-Control") != "no-store" || len(got.Ticket) < 40 || got.ExpiresAt.Sub(start).Round(time.Second) != time.Minute {
			t.Errorf("ticket: %d %v %s", resp.status, resp.header, resp.body)
		}
		for _, path := range []string{wsPath, canvasPath, historyPath} {
			ticket := r.ticket(r.token, `{}`)
			switch path {
			case wsPath:
				r.upgradeWith(path + "&ticket=" + ticket)
			case canvasPath:
				r.tailWith(path + "&ticket=" + ticket)
			default:
				if resp := r.ask(path + "&ticket=" + ticket); resp.status != 200 {
					t.Errorf("%s: %d %s", path, resp.status, resp.body)
				}
			}
			for _, again := range []string{wsPath, canvasPath, historyPath} {
				problemOf(t, r.ask(again+"&ticket="+ticket), twinrail.CodeCredentialInvalid)
			}
		}
		if resp := r.do("POST", publishPath+"&ticket="+r.ticket(r.token, ""), `{"events":[`+chat(1)+`]}`, header{"Content-Type", "application/json"}); resp.status != 200 {
			t.Errorf("published: %d %s", resp.status, resp.body)
		}
		over := r.ticket(r.token, "")
		time.Sleep(time.Minute)
		problemOf(t, r.ask(historyPath+"&ticket="+over), twinrail.CodeCredentialInvalid)
		problemOf(t, r.ask(historyPath+"&ticket="), twinrail.CodeCredentialInvalid)
		problemOf(t, r.do("GET", historyPath+"&ticket="+r.ticket(r.token, ""), "", as(r.token)), twinrail.CodeCredentialInvalid)
		problemOf(t, r.do("POST", ticketsPath, "", nil), twinrail.CodeCredentialMissing)
		problemOf(t, r.do("POST", ticketsPath+"&ticket="+r.ticket(r.token, ""), "", nil), twinrail.CodeCredentialInvalid)
		problemOf(t, r.do("POST", ticketsPath, `{"rail":"http"}`, as(r.token)), twinrail.CodeBadRequest)
		problemOf(t, r.do("POST", ticketsPath, `{"canvas":"c1"}`, as(r.token)), twinrail.CodeBadRequest)
		problemOf(t, r.ask(strings.Replace(historyPath, "t_acme", "t_other", 1)+"&ticket="+r.ticket(r.token, "")), twinrail.CodeContextMismatch)
		problemOf(t, r.ask(historyPath+"&actor_id=u_2&ticket="+r.ticket(r.token, "")), twinrail.CodeActorMismatch)
	})
}

// TestTicketLife has connections outlive the tickets that they were opened with,
// and end with the credential behind those.
func TestTicketLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		start := time.Now()
		token := r.issuer.Token(authtest.ExpiresIn(100 * time.Second))
		c := &client{peer: r.upgradeWith(wsPath + "&ticket=" + r.ticket(token, ""))}
		want := []string{"1m10s auth_expiring 1m40s", "1m40s error credential_expired refresh 4300"}
		if got := c.life(start); !slices.Equal(got, want) {
			t.Errorf("said %v, want %v", got, want)
		}
	})
}

// TestTicketScope asks for less than the credential gives, of which no more can
// be had then.
func TestTicketScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		other := strings.Replace(canvasPath, "c1?", "c2?", 1)
		for _, c := range []struct {
			scope string
			path  string
			ok    bool
		}{
			{`{"rail":"sse"}`, canvasPath, true},
			{`{"rail":"sse"}`, wsPath, false},
			{`{"rail":"sse"}`, historyPath, false},
			{`{"rail":"sse"}`, presencePath + "&canvas_id=c1", false},
			{`{"rail":"ws"}`, wsPath, true},
			{`{"rail":"ws"}`, canvasPath, false},
			{`{"rail":"ws"}`, historyPath, false},
			{`{"channels":["commit"]}`, canvasPath, true},
			{`{"channels":["commit"]}`, canvasPath + "&channels=commit", true},
			{`{"channels":["commit"]}`, canvasPath + "&channels=commit,artifact", false},
			{`{"channels":["chat"]}`, canvasPath, false},
			{`{"routing":{"canvas_id":"c1"}}`, canvasPath, true},
			{`{"routing":{"canvas_id":"c1"}}`, other, false},
			{`{"routing":{"canvas_id":"c1"}}`, historyPath, true},
			{`{"routing":{"canvas_id":"c2"}}`, historyPath, false},
			{`{"routing":{"panel_id":"p1"}}`, canvasPath, false},
			{`{"routing":{"panel_id":"p1"}}`, canvasPath + "&panel_id=p1", true},
		} {
			ticket := r.ticket(r.token, c.scope)
			switch path := c.path + "&ticket=" + ticket; {
			case !c.ok:
				problemOf(t, r.ask(path), twinrail.CodeNotFound)
			case strings.HasPrefix(path, twinrail.PathWS):
				r.upgradeWith(path)
			case strings.HasPrefix(path, twinrail.PathSSECanvases):
				r.tailWith(path)
			default:
				if resp := r.ask(path); resp.status != 200 {
					t.Errorf("%s with %s: %d %s", c.path, c.scope, resp.status, resp.body)
				}
			}
		}
		p := r.upgradeWith(wsPath + "&ticket=" + r.ticket(r.token, `{"routing":{"thread_id":"th1"},"channels":["chat"]}`))
		p.say(`{"op":"join","sub":"b","routing":{"thread_id":"th2"}}`)
		p.wantError(twinrail.CodeNotFound, "")
		p.say(`{"op":"join","sub":"b","routing":{"thread_id":"th1"},"channels":["presence"]}`)
		p.wantError(twinrail.CodeNotFound, "")
		p.say(`{"op":"publish","events":[%s]}`, on("th2", "", 1))
		p.wantError(twinrail.CodeNotFound, "")
		// A cookie that is got with a ticket can do no more than the ticket.
		resp := r.do("POST", sessionPath+"&ticket="+r.ticket(r.token, `{"rail":"sse","channels":["commit"]}`), "", nil)
		cookie := cookieOf(t, resp)
		r.tailWith(canvasPath, "Cookie", cookie, "Origin", ours)
		problemOf(t, r.ask(canvasPath+"&channels=artifact", "Cookie", cookie, "Origin", ours), twinrail.CodeNotFound)
		problemOf(t, r.ask(wsPath, "Cookie", cookie, "Origin", ours), twinrail.CodeNotFound)
		problemOf(t, r.ask(historyPath, "Cookie", cookie, "Origin", ours), twinrail.CodeNotFound)
	})
}

// TestOrigins has pages of several origins come with tickets and cookies, on both
// rails and over HTTP.
func TestOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		cookie := r.cookie(r.token)
		open := func(path string, h ...string) bool {
			t.Helper()
			switch {
			case strings.HasPrefix(path, twinrail.PathWS):
				r.upgradeWith(path, h...)
			case strings.HasPrefix(path, twinrail.PathSSECanvases):
				r.tailWith(path, h...)
			default:
				return r.ask(path, h...).status == 200
			}
			return true
		}
		for _, path := range []string{wsPath, canvasPath, historyPath} {
			for _, origin := range []string{"https://evil.example.com", "http://app.example.com", ours + ":443", "null", "", "https://APP.example.com"} {
				problemOf(t, r.ask(path, "Cookie", cookie, "Origin", origin), twinrail.CodeOriginNotAllowed)
				ticket := r.ticket(r.token, "")
				problemOf(t, r.ask(path+"&ticket="+ticket, "Origin", origin), twinrail.CodeOriginNotAllowed)
				if !open(path+"&ticket="+ticket, "Origin", ours) {
					t.Errorf("%s from %q used the ticket up", path, origin)
				}
			}
			problemOf(t, r.ask(path, "Cookie", cookie), twinrail.CodeOriginNotAllowed)
			problemOf(t, r.ask(path, "Cookie", cookie, "Sec-Fetch-Site", "same-site"), twinrail.CodeOriginNotAllowed)
			problemOf(t, r.ask(path, "Cookie", cookie, "Origin", "https://evil.example.com", "Sec-Fetch-Site", "same-origin"), twinrail.CodeOriginNotAllowed)
			if !open(path, "Cookie", cookie, "Origin", ours) || !open(path, "Cookie", cookie, "Sec-Fetch-Site", "same-origin") {
				t.Errorf("%s: our own page got nothing", path)
			}
			// What a page has to know by itself needs no origin.
			if !open(path, "Authorization", "Bearer "+r.token, "Origin", "https://evil.example.com") || !open(path+"&ticket="+r.ticket(r.token, "")) {
				t.Errorf("%s: a bearer or a ticket got nothing", path)
			}
		}
		for _, origin := range []string{"https://evil.example.com", ""} {
			problemOf(t, r.do("DELETE", sessionPath, "", header{"Cookie", cookie, "Origin", origin}), twinrail.CodeOriginNotAllowed)
		}
		if !open(historyPath, "Cookie", cookie, "Origin", ours) {
			t.Error("another page ended the session")
		}
	})
}

// TestCookieSession opens a session, lives by it, and ends it: what was opened
// with it ends at once, and nothing else.
func TestCookieSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		start := time.Now()
		resp := r.do("POST", sessionPath, "", append(as(r.token), "Origin", ours))
		var got twinrail.LifetimeResponse
		unmarshal(t, resp.body, &got)
		if resp.status != 200 || got.ExpiresAt.Sub(start).Round(time.Second) != time.Hour || resp.header.Get("Cache-Control") != "no-store" {
			t.Errorf("session: %d %v %s", resp.status, resp.header, resp.body)
		}
		set := resp.header.Get("Set-Cookie")
		for _, part := range []string{"__Host-", "Path=/", "HttpOnly", "Secure", "SameSite=Strict", "Max-Age="} {
			if !strings.Contains(set, part) {
				t.Errorf("Set-Cookie: %s, want %s", set, part)
			}
		}
		if strings.Contains(set, "Domain") || strings.Contains(set, r.token) {
			t.Errorf("Set-Cookie: %s", set)
		}
		cookie := cookieOf(t, resp)
		eve := r.watcher()
		page := header{"Cookie", cookie, "Origin", ours}
		other := r.cookie(r.token)
		stays := []*client{
			{peer: r.upgradeWith(wsPath, "Cookie", other, "Origin", ours)},
			{peer: r.upgradeWith(wsPath, "Authorization", "Bearer "+r.token)},
		}
		present := r.upgradeWith(wsPath, page...)
		present.subscribe(subC + `,"presence":1`)
		eve.want(twinrail.OpPresence)
		tail := r.tailWith(canvasPath, page...)
		last := r.commits(0, 1)
		tail.events(1)
		_ = tail.nc.Close()
		// An EventSource that comes back by itself brings the cookie and the cursor.
		r.commits(1, 2)
		_, _, back := r.request(canvasPath, append(page, "Last-Event-ID", last.Cursor)...)
		if back.StatusCode != 200 {
			t.Fatalf("the return: %s", back.Status)
		}
		victims := []*client{{peer: present}, {tail: r.tailWith(canvasPath, page...)}}
		problemOf(t, r.do("POST", sessionPath, "", page), twinrail.CodeCredentialInvalid)
		problemOf(t, r.do("POST", ticketsPath, "", page), twinrail.CodeCredentialInvalid)

		problemOf(t, r.do("DELETE", twinrail.PathSession, "", page), twinrail.CodeContextMissing)
		problemOf(t, r.do("DELETE", strings.Replace(sessionPath, "t_acme", "t_other", 1), "", page), twinrail.CodeContextMismatch)
		ended := r.do("DELETE", sessionPath, "", page)
		if set := ended.header.Get("Set-Cookie"); ended.status != http.StatusNoContent || !strings.Contains(set, "Max-Age=0") || cookieOf(t, ended) == cookie {
			t.Errorf("the end: %d %s", ended.status, set)
		}
		for _, v := range victims {
			v.revoked()
		}
		if f := eve.want(twinrail.OpPresence); who(f.Leave) != "u_1" {
			t.Errorf("eve was told %+v", f)
		}
		for _, s := range stays {
			s.peer.silent("when another session ended")
		}
		for _, path := range []string{wsPath, canvasPath, historyPath} {
			problemOf(t, r.ask(path, page...), twinrail.CodeCredentialInvalid)
		}
		if resp := r.ask(historyPath, "Cookie", other, "Origin", ours); resp.status != 200 {
			t.Errorf("another session: %d %s", resp.status, resp.body)
		}
		if resp := r.do("DELETE", sessionPath, "", append(as(r.token), "Origin", ours)); resp.status != http.StatusNoContent {
			t.Errorf("without a cookie: %d %s", resp.status, resp.body)
		}
	})
}

// TestCookieSessionRenewed opens a session in the place of another one, with a
// newer credential: what was opened with the first goes on, and ends with the
// second.
func TestCookieSessionRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		start := time.Now()
		cookie := r.cookie(r.issuer.Token(authtest.ExpiresIn(time.Minute)))
		c := r.upgradeWith(wsPath, "Cookie", cookie, "Origin", ours)
		resp := r.do("POST", sessionPath, "", append(as(r.issuer.Token(authtest.ExpiresIn(2*time.Minute))), "Cookie", cookie))
		newer := header{"Cookie", cookieOf(t, resp), "Origin", ours}
		problemOf(t, r.ask(historyPath, "Cookie", cookie, "Origin", ours), twinrail.CodeCredentialInvalid)
		c.silent("when its cookie gave way")
		other, hello := r.greetWith(wsPath, newer...)
		if resp := r.do("POST", renewalPath(hello.ConnectionID), "", newer); resp.status != 200 {
			t.Errorf("renewed by cookie: %d %s", resp.status, resp.body)
		}
		if got := r.do("DELETE", sessionPath, "", newer); got.status != http.StatusNoContent {
			t.Errorf("the end: %d %s", got.status, got.body)
		}
		(&client{peer: c}).revoked()
		(&client{peer: other}).revoked()
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestCredentialsCORS has a page of another origin, which is allowed, use the
// endpoints of credentials; and one that is not.
func TestCredentialsCORS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := pagesRig(t)
		for path, methods := range map[string]string{
			ticketsPath: "POST", sessionPath: "DELETE, POST", revocationsPath: "POST", renewalPath("c_1"): "POST", presencePath: "GET",
		} {
			method, _, _ := strings.Cut(methods, ", ")
			for origin, allowed := range map[string]bool{ours: true, "https://evil.example.com": false} {
				pre := r.do("OPTIONS", path, "", header{"Origin", origin, "Access-Control-Request-Method", method})
				want := ""
				if allowed {
					want = methods
				}
				if pre.status != http.StatusNoContent || pre.header.Get("Access-Control-Allow-Methods") != want {
					t.Errorf("preflight of %s from %s: %d %v", path, origin, pre.status, pre.header)
				}
				resp := r.do(method, path, "", append(as(r.token), "Origin", origin))
				got, credentials := resp.header.Get("Access-Control-Allow-Origin"), resp.header.Get("Access-Control-Allow-Credentials")
				if allowed && (got != origin || credentials != "true") || !allowed && got+credentials != "" || !strings.Contains(resp.header.Get("Vary"), "Origin") {
					t.Errorf("%s %s from %s: %d %v", method, path, origin, resp.status, resp.header)
				}
			}
		}
		c := r.tailWith(canvasPath+"&ticket="+r.ticket(r.token, ""), "Origin", ours)
		if got := c.resp.Header; got.Get("Access-Control-Allow-Origin") != ours || got.Get("Access-Control-Allow-Credentials") != "true" {
			t.Errorf("the stream has %v", got)
		}
	})
}

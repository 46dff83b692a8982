package auth

import (
	"net/http"
	"time"
)

// The names of the session's cookie. Browsers take one with the prefix from a
// secure origin only, for this host only, and let no other host set it.
const (
	cookieName         = "__Host-twinrail"
	insecureCookieName = "twinrail"
)

func (g *Gate) cookieName() string {
	if g.opts.InsecureCookies {
		return insecureCookieName
	}
	return cookieName
}

// cookie returns the cookie with that value; with the zero time it removes the
// one that there is.
func (g *Gate) cookie(value string, now, ends time.Time) *http.Cookie {
	c := &http.Cookie{
		Name: g.cookieName(), Value: value, Path: "/",
		Secure: !g.opts.InsecureCookies, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: -1,
	}
	if !ends.IsZero() {
		c.Expires = ends
		c.MaxAge = max(1, int(ends.Sub(now)/time.Second))
	}
	return c
}

// OpenSession returns the cookie that from now on stands for c's credential, or
// for c's ticket and its scope, until that ends; it is durable then. A session
// whose cookie r carries gives way to it, if that is the same actor's: its cookie
// is void from now on, and what was opened with it goes on, and ends with the new
// session. Opening one needs no [Context.AllowsRail]: that of a ticket for one rail
// is for that rail.
//
// An actor has at most 32 sessions; the oldest is ended for a new one. Errors:
// credential_invalid where c came by a cookie itself, credential_expired, and
// unavailable where the session cannot be stored.
func (g *Gate) OpenSession(c *Context, r *http.Request) (*http.Cookie, error) {
	p := c.who()
	if p.carriage == byCookie {
		return nil, invalid("a cookie does not open a session")
	}
	now := time.Now()
	if !now.Before(p.ExpiresAt()) {
		return nil, errExpired
	}
	old, found, err := g.cookieOf(r)
	if err != nil || !found {
		old = ""
	}
	value := newSecret()
	ended, err := g.logins.open(digestOf(value), digestOf(old), p, now)
	if ended {
		g.revoked(p.actor())
	}
	if err != nil {
		return nil, g.unavailable("the session cannot be stored", err)
	}
	return g.cookie(value, now, p.ExpiresAt()), nil
}

// EndSession ends the session that r's cookie stands for, if that is of c's actor,
// with every connection that was opened with it, and returns the cookie that
// removes it in the browser. The origin is checked as in [Gate.Admit]; a session
// of somebody else, one that has ended already, or no cookie, is no error. It is
// durable on return; where that cannot be, it is unavailable, and the session goes
// on.
func (g *Gate) EndSession(c *Context, r *http.Request) (*http.Cookie, error) {
	if !g.originAllowed(r, byCookie) {
		return nil, errOrigin
	}
	value, found, err := g.cookieOf(r)
	if err != nil {
		return nil, err
	}
	removed := g.cookie("", time.Time{}, time.Time{})
	if !found {
		return removed, nil
	}
	ended, err := g.logins.endByCookie(digestOf(value), c.who().actor())
	if err != nil {
		return nil, g.unavailable("the end of the session cannot be stored", err)
	}
	if ended {
		g.revoked(c.who().actor())
	}
	return removed, nil
}

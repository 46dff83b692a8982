package probe

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// cookies: what was got for one address, at another one; from pages of other
// origins; and what one session does to another.
func cookies(ctx context.Context, w *world) error {
	opened := new(sessions)
	defer opened.end(ctx, w)
	s, err := w.errands(ctx, func(p *party, bounds *twinrail.TicketRequest) (carry, error) {
		var c call
		if bounds != nil { // a cookie is bounded like the ticket that it was got with
			ticket, err := p.ticket(ctx, bounds)
			if err != nil {
				return nil, err
			}
			c = withTicket(c, ticket)
		}
		cookie, err := opened.open(ctx, p, c)
		return func(c call) (call, error) { return withCookie(c, cookie), nil }, err
	})
	if err != nil {
		return err
	}
	if err := w.sessionsApart(ctx, s, opened); err != nil {
		return err
	}
	return w.origins(ctx, s.right, opened)
}

// sessions are those that were opened: an actor has only so many.
type sessions struct {
	opened []session
}

type session struct {
	p      *party
	cookie string
}

// open opens one with the credential of c, and returns the cookie as a request has
// it.
func (o *sessions) open(ctx context.Context, p *party, c call) (string, error) {
	c.method, c.path = http.MethodPost, twinrail.PathSession
	a, err := p.do(ctx, c)
	if err != nil {
		return "", err
	}
	got := (&http.Response{Header: a.header}).Cookies()
	if a.status != http.StatusOK || len(got) != 1 {
		return "", fmt.Errorf("a session of %s: %s, and %d cookies", p.name, a, len(got))
	}
	p.w.secret("the cookie of "+p.name, got[0].Value, p)
	cookie := got[0].Name + "=" + got[0].Value
	o.opened = append(o.opened, session{p, cookie})
	return cookie, nil
}

// end ends all that are not over, even when the cell's time is up.
func (o *sessions) end(ctx context.Context, w *world) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, s := range o.opened {
		a, err := s.p.do(ctx, ending(s.cookie))
		if err == nil && a.status != http.StatusNoContent && a.status != http.StatusUnauthorized {
			err = fmt.Errorf("a session of %s is not ended: %s", s.p.name, a)
		}
		w.leftBehind(err)
	}
}

// ending is the call that ends the session of a cookie.
func ending(cookie string) call {
	return withCookie(call{method: http.MethodDelete, path: twinrail.PathSession}, cookie)
}

// withCookie returns c with a cookie in place of the token, as from a page of the
// server's own origin.
func withCookie(c call, cookie string) call {
	return fromPage(c, cookie, http.Header{"Sec-Fetch-Site": {"same-origin"}})
}

// fromPage returns c with a cookie in place of the token, and what the browser says
// of the page.
func fromPage(c call, cookie string, page http.Header) call {
	c.anonymous, c.header = true, c.header.Clone()
	if c.header == nil {
		c.header = make(http.Header)
	}
	c.header.Set("Cookie", cookie)
	for name, values := range page {
		c.header[name] = values
	}
	return c
}

// sessionsApart has both follow with their cookies, and the wrong one do what it
// can: open another session over the right one's, end that with a credential of its
// own, and end its own. Nothing of it must touch the right one's.
func (w *world) sessionsApart(ctx context.Context, s *scene, opened *sessions) error {
	cookies, streams := make(map[*party]string), make(map[*party]*stream)
	for _, p := range []*party{s.right, s.wrong} {
		var err error
		if cookies[p], err = opened.open(ctx, p, call{}); err != nil {
			return err
		}
		if streams[p], err = p.mustFollow(ctx, withCookie(sse(p.at(), nil), cookies[p])); err != nil {
			return err
		}
	}
	if w.own() { // else it is the same actor, whose cookie gives way
		over := withCookie(call{}, cookies[s.right])
		over.anonymous = false
		if _, err := opened.open(ctx, s.wrong, over); err != nil {
			return err
		}
		foreign := ending(cookies[s.right])
		foreign.anonymous = false
		if err := s.wrong.ends(ctx, foreign); err != nil {
			return err
		}
	}
	if err := s.wrong.ends(ctx, ending(cookies[s.wrong])); err != nil {
		return err
	}
	if err := w.sessionIsOver(ctx, s.wrong, cookies[s.wrong], streams[s.wrong]); err != nil {
		return err
	}
	a, err := s.right.do(ctx, withCookie(page(s.right.at()), cookies[s.right]))
	if err != nil {
		return err
	}
	switch {
	case a.unserved():
		return fmt.Errorf("the session of the right one: %s", a)
	case a.status != http.StatusOK:
		w.leak("the right one's session is not what it was when %s has opened and ended its own: %s", s.wrong.name, a)
		return nil
	}
	e := w.eventFor(s.right, twinrail.Commit)
	if _, err := w.publish(ctx, s.right, e); err != nil {
		return err
	}
	if _, err = streams[s.right].await(e.text); endedByServer(err) {
		w.leak("the right one's stream ended when %s has opened and ended its own session: %v", s.wrong.name, err)
		return nil
	}
	return err
}

// ends makes a call that ends a session, or finds that there is none for p to end.
func (p *party) ends(ctx context.Context, c call) error {
	a, err := p.do(ctx, c)
	if err == nil && a.status != http.StatusNoContent {
		err = fmt.Errorf("%s cannot end its session: %s", p.name, a)
	}
	return err
}

// sessionIsOver checks that p's cookie is like one that never was, and that the
// stream that it followed with it ends.
func (w *world) sessionIsOver(ctx context.Context, p *party, cookie string, f *stream) error {
	got, err := p.do(ctx, withCookie(page(p.at()), cookie))
	if err != nil {
		return err
	}
	absent, err := p.do(ctx, withCookie(page(p.at()), madeUpLike(cookie)))
	if err != nil {
		return err
	}
	if err := w.refused("a cookie is used after its end", got, absent, twinrail.CodeCredentialInvalid); err != nil {
		return err
	}
	e := w.eventFor(p, twinrail.Commit)
	if _, err := w.publish(ctx, p, e); err != nil {
		return err
	}
	b, err := f.find("the end", func(b block) bool { return b.event == twinrail.SSEEnd || strings.Contains(b.data, e.text) })
	if err != nil {
		return err
	}
	if b.event != twinrail.SSEEnd {
		w.leak("the stream of %s goes on when the session that it was opened with has ended", p.name)
		return nil
	}
	return b.endsFor(p, twinrail.CodeCredentialRevoked)
}

// madeUpLike returns a cookie of that name that never was one.
func madeUpLike(cookie string) string {
	name, _, _ := strings.Cut(cookie, "=")
	return name + "=" + madeUpSecret()
}

// origins has pages of other origins send p's cookie along. They must be refused
// before it is looked up: like with a cookie that never was one.
func (w *world) origins(ctx context.Context, p *party, opened *sessions) error {
	cookie, err := opened.open(ctx, p, call{})
	if err != nil {
		return err
	}
	elsewhere := "https://" + random() + ".invalid"
	for who, from := range map[string]http.Header{
		"who names no page":                                    {},
		"a page of another origin":                             {"Origin": {elsewhere}},
		"a page of another origin that says it is of the same": {"Origin": {elsewhere}, "Sec-Fetch-Site": {"same-origin"}},
		"a page of no origin":                                  {"Origin": {"null"}},
		"a page of another site":                               {"Sec-Fetch-Site": {"cross-site"}},
		"another page of the same site":                        {"Sec-Fetch-Site": {"same-site"}},
	} {
		for _, c := range []call{
			page(p.at()), fromEarliest(p.at()), {path: twinrail.PathWS},
			{method: http.MethodPost, path: twinrail.PathSession}, {method: http.MethodDelete, path: twinrail.PathSession},
		} {
			ask := func(cookie string) (*answer, error) {
				e := &errand{party: p, carry: func(c call) (call, error) { return fromPage(c, cookie, from), nil }}
				return e.send(ctx, c)
			}
			got, err := ask(cookie)
			if err != nil {
				return err
			}
			absent, err := ask(madeUpLike(cookie))
			if err != nil {
				return err
			}
			what := fmt.Sprintf("%s asks for %s with a cookie", who, strings.TrimSuffix(c.path, p.routing.CanvasID))
			if err := w.refused(what, got, absent, twinrail.CodeOriginNotAllowed); err != nil {
				return err
			}
		}
	}
	return nil
}

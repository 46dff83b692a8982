package probe

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/twinrail/twinrail"
)

// maxAnswer bounds the body of a response that is no stream.
const maxAnswer = 8 << 20

// party is an actor with a token and an address, and a record of all that it ever
// received.
type party struct {
	w       *world
	name    string
	routing twinrail.Routing // where it is, and as whom: all of it is its own
	token   string
	exact   bool // the token allows nothing else than this address
	records []*record
	open    []io.Closer
	source  *party // see [world.source]
}

// party returns one that is at an address. With permissions it is granted these,
// at that address alone where such a token can be had; without, it is granted
// everything in its tenant and env.
func (w *world) party(name string, at twinrail.Routing, can ...string) (*party, error) {
	p := &party{w: w, name: name, routing: at, exact: len(can) > 0}
	want := Want{TenantID: at.TenantID, Env: at.Env, ActorID: at.ActorID, Exact: p.exact}
	if p.exact {
		want.Grants = []twinrail.Grant{grantOf(at, can...)}
	}
	var err error
	if p.token, err = w.tokens.Token(want); isUnavailable(err) && p.exact {
		p.exact, want.Exact = false, false
		p.token, err = w.tokens.Token(want)
	}
	if err != nil {
		return nil, err
	}
	w.parties = append(w.parties, p)
	return p, nil
}

func (p *party) close() {
	for _, c := range p.open {
		_ = c.Close()
	}
}

// at returns the address of p as it states it.
func (p *party) at() twinrail.Routing {
	at := p.routing
	at.ActorID = ""
	return at
}

// record is what a party received in one place.
type record struct {
	where string
	bytes.Buffer
}

func (p *party) record(where string) *record {
	r := &record{where: where}
	p.records = append(p.records, r)
	return r
}

// call is a request.
type call struct {
	method, path string
	// stated is the context, which is stated in headers, or with inQuery in the
	// query. Tenant and env are the party's own where they are left out.
	stated    twinrail.Routing
	inQuery   bool
	again     twinrail.Routing // stated besides, in the query
	query     url.Values
	header    http.Header
	body      any    // what is sent as JSON; nil sends none
	requestID string // default a random one
	anonymous bool   // it does not carry the party's token
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// code returns the code of a problem document, or "".
func (a *answer) code() twinrail.Code {
	var p twinrail.Problem
	if json.Unmarshal(a.body, &p) != nil {
		return ""
	}
	return p.Code
}

func (a *answer) String() string {
	if code := a.code(); code != "" {
		return fmt.Sprintf("%d %s", a.status, code)
	}
	return fmt.Sprintf("%d", a.status)
}

// unserved reports whether the server says that it could not, or not now: that
// proves nothing about who may.
func (a *answer) unserved() bool {
	return a.status == http.StatusTooManyRequests || a.status >= http.StatusInternalServerError
}

// same reports whether two answers are the same byte for byte, but for the ids of
// their requests and the date.
func (a *answer) same(b *answer) bool {
	plain := func(a *answer) (http.Header, string) {
		h := a.header.Clone()
		id := h.Get("X-Request-Id")
		for _, name := range []string{"X-Request-Id", "Traceparent", "Date"} {
			h.Del(name)
		}
		if id == "" {
			return h, string(a.body)
		}
		return h, strings.ReplaceAll(string(a.body), id, "")
	}
	ha, ba := plain(a)
	hb, bb := plain(b)
	return a.status == b.status && ba == bb && maps.EqualFunc(ha, hb, func(x, y []string) bool { return strings.Join(x, "\n") == strings.Join(y, "\n") })
}

// request returns the request of a call.
func (p *party) request(ctx context.Context, c call) (*http.Request, error) {
	var body io.Reader
	if c.body != nil {
		b, err := json.Marshal(c.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	u := p.w.base.JoinPath(c.path)
	query := maps.Clone(c.query)
	if query == nil {
		query = make(url.Values)
	}
	header := c.header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	p.state(c, query, header)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, c.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	r.Header = header
	if c.body != nil {
		header.Set("Content-Type", "application/json")
	}
	if !c.anonymous {
		header.Set("Authorization", "Bearer "+p.token)
	}
	header.Set("X-Request-Id", cmp.Or(c.requestID, random()))
	return r, nil
}

// state puts the context into the query or the headers.
func (p *party) state(c call, query url.Values, header http.Header) {
	stated := c.stated
	stated.TenantID = cmp.Or(stated.TenantID, p.routing.TenantID)
	stated.Env = cmp.Or(stated.Env, p.routing.Env)
	put := func(k twinrail.Key, v string, inQuery bool) {
		switch {
		case v == "":
		case inQuery:
			query.Add(k.String(), v)
		default:
			header.Add(k.Header(), v)
		}
	}
	for _, k := range twinrail.Keys() {
		put(k, stated.Get(k), c.inQuery)
		put(k, c.again.Get(k), true)
	}
}

// do makes a request, and reads the whole answer.
func (p *party) do(ctx context.Context, c call) (*answer, error) {
	r, err := p.request(ctx, c)
	if err != nil {
		return nil, err
	}
	resp, err := p.w.client.Do(r)
	if err != nil {
		return nil, plainError(err)
	}
	return p.read(resp, c.method+" "+c.path)
}

// ask makes a request. Where that opens a rail, the answer is a bare 200.
func (p *party) ask(ctx context.Context, c call) (a *answer, err error) {
	switch {
	case strings.HasPrefix(c.path, twinrail.PathSSECanvases):
		_, a, err = p.follow(ctx, c)
	case c.path == twinrail.PathWS:
		_, a, err = p.dial(ctx, c)
	default:
		return p.do(ctx, c)
	}
	if a == nil && err == nil {
		a = &answer{status: http.StatusOK}
	}
	return a, err
}

// read reads a response to its end.
func (p *party) read(resp *http.Response, where string) (*answer, error) {
	defer resp.Body.Close()
	rec := p.record("the answer to " + where)
	_ = resp.Header.Write(rec) // a buffer takes everything
	body, err := io.ReadAll(io.TeeReader(io.LimitReader(resp.Body, maxAnswer), rec))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}

// plainError leaves out the URL, which may hold a ticket.
func plainError(err error) error {
	if u, ok := err.(*url.Error); ok {
		return fmt.Errorf("%s: %w", u.Op, u.Err)
	}
	return err
}

// must makes a request that is to be answered with 200, and decodes the answer
// into v, unless that is nil.
func (p *party) must(ctx context.Context, c call, v any) error {
	a, err := p.do(ctx, c)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("%s %s: %s", c.method, c.path, a)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(a.body, v)
}

// publishing is the call that publishes events. What only they say, the request
// does not.
func publishing(events ...*secret) call {
	c := call{method: http.MethodPost, path: twinrail.PathPublish, requestID: events[0].text}
	var request twinrail.PublishRequest
	for _, e := range events {
		request.Events = append(request.Events, e.event)
	}
	c.body = request
	return c
}

// publish publishes over HTTP. Who publishes something knows it.
func (p *party) publish(ctx context.Context, events ...*secret) ([]twinrail.PublishResult, error) {
	for _, e := range events {
		e.readers = append(e.readers, p)
	}
	a, err := patiently(ctx, func() (*answer, error) { return p.do(ctx, publishing(events...)) })
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("POST %s: %s", twinrail.PathPublish, a)
	}
	var response twinrail.PublishResponse
	err = json.Unmarshal(a.body, &response)
	return response.Results, err
}

package server

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// request is one that is wrong in no way, until a test makes it so.
type request struct {
	method, path, body string
	query              map[string]string
	header             header
	token              string
}

// faults are the ways in which a request can be wrong, in the order in which
// they must be found.
var faults = []struct {
	name  string
	code  twinrail.Code
	spoil func(r *rig, q *request)
}{
	{"no credential", twinrail.CodeCredentialInvalid, func(_ *rig, q *request) { q.token = "not.a.token" }},
	{"context conflict", twinrail.CodeContextConflict, func(_ *rig, q *request) { q.header = append(q.header, "X-App-Id", "other") }},
	{"key not well formed", twinrail.CodeContextInvalid, func(_ *rig, q *request) { q.query["workspace_id"] = "no/value" }},
	{"another tenant", twinrail.CodeContextMismatch, func(_ *rig, q *request) { q.query["tenant_id"] = "t_other" }},
	{"rail disabled", twinrail.CodeRailDisabled, func(r *rig, _ *request) { r.setFlag("sse_enabled", "false"); r.setFlag("ws_enabled", "false") }},
	{"not granted", twinrail.CodeNotFound, func(_ *rig, q *request) { q.query["project_id"] = "p2" }},
	{"too large", twinrail.CodeTooLarge, func(r *rig, q *request) {
		q.body = strings.Replace(q.body, `"data":1`, `"data":"`+strings.Repeat("x", r.server.opts.MaxEvent)+`"`, 1)
	}},
}

// TestOrderOfChecks makes requests that are wrong in every pair of ways: the
// answer is always the first one's, whatever the interface.
func TestOrderOfChecks(t *testing.T) {
	ways := map[string]request{
		"sse":      {method: "GET", path: twinrail.PathSSECanvases + "c1"},
		"ws":       {method: "GET", path: twinrail.PathWS, header: handshakeHeader},
		"publish":  {method: "POST", path: twinrail.PathPublish, body: `{"events":[` + commit(1) + `]}`},
		"history":  {method: "GET", path: twinrail.PathHistory},
		"presence": {method: "GET", path: twinrail.PathPresence},
	}
	for way, base := range ways {
		for i := range faults {
			for j := i; j < len(faults); j++ {
				if skipsFault(way, faults[i].code) || skipsFault(way, faults[j].code) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s+%s", way, faults[i].name, faults[j].name), func(t *testing.T) {
					testFaults(t, way, base, i, j)
				})
			}
		}
	}
}

// skipsFault reports whether the interface has no such check: what is
// not a rail cannot be switched off, an upgrade is to no address, and only a
// publish brings something along.
func skipsFault(way string, code twinrail.Code) bool {
	switch code {
	case twinrail.CodeRailDisabled:
		return way != "sse" && way != "ws"
	case twinrail.CodeNotFound:
		return way == "ws"
	case twinrail.CodeTooLarge:
		return way != "publish"
	}
	return false
}

func testFaults(t *testing.T, way string, base request, first, second int) {
	r := newRig(t)
	q := base
	q.token = r.issuer.Token(authtest.Grants(twinrail.Grant{
		WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", Can: []string{"*"}}))
	q.query = map[string]string{"tenant_id": "t_acme", "env": "dev", "workspace_id": "w1", "project_id": "p1", "app_id": "studio"}
	if way != "publish" {
		q.query["canvas_id"] = "c1"
	}
	q.header = append(append(header{}, base.header...), "Content-Type", "application/json")
	faults[second].spoil(r, &q)
	faults[first].spoil(r, &q)
	var query []string
	for k, v := range q.query {
		query = append(query, k+"="+v)
	}
	h := append(q.header, "Authorization", "Bearer "+q.token)
	problemOf(t, r.do(q.method, q.path+"?"+strings.Join(query, "&"), q.body, h), faults[first].code)
	if n := r.metric(`twinrail_connections_opened_total{rail="sse"}`) + r.metric(`twinrail_connections_opened_total{rail="ws"}`); n != 0 {
		t.Errorf("%v connections were opened", n)
	}
	if events, _ := r.page(historyPath); len(events) != 0 {
		t.Errorf("%d events were stored", len(events))
	}
}

// TestNotFoundTellsNothing compares the answers for a stream that is somebody
// else's and for one that nobody has.
func TestNotFoundTellsNothing(t *testing.T) {
	r := newRig(t)
	r.commits(0, 3)
	r.actor("u_7").enter(onCanvas, "1")
	limited := as(r.issuer.Token(authtest.Grants(twinrail.Grant{
		WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "mine", Can: []string{"*"}})))
	ask := map[string]func(canvas string) reply{
		"sse": func(canvas string) reply {
			return r.do("GET", twinrail.PathSSECanvases+canvas+"?"+appQuery, "", limited)
		},
		"history": func(canvas string) reply {
			return r.do("GET", twinrail.PathHistory+"?"+appQuery+"&canvas_id="+canvas, "", limited)
		},
		"presence": func(canvas string) reply {
			return r.do("GET", twinrail.PathPresence+"?"+appQuery+"&canvas_id="+canvas, "", limited)
		},
		"publish": func(canvas string) reply {
			return r.do("POST", publishPath, `{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"`+canvas+`"},"data":1}]}`, limited)
		},
	}
	for name, get := range ask {
		t.Run(name, func(t *testing.T) {
			theirs, nobodys := get("c1"), get("nosuch")
			problemOf(t, theirs, twinrail.CodeNotFound)
			if a, b := withoutIDs(theirs), withoutIDs(nobodys); a != b {
				t.Errorf("the answers differ:\n%s\n%s", a, b)
			}
		})
	}
}

// withoutIDs returns all of a response but for what must differ.
func withoutIDs(r reply) string {
	id := r.header.Get("X-Request-Id")
	for _, name := range []string{"X-Request-Id", "Traceparent", "Date"} {
		r.header.Del(name)
	}
	return fmt.Sprint(r.status, r.header, string(bytes.ReplaceAll(r.body, []byte(id), nil)))
}

func TestUnauthorizedSaysHow(t *testing.T) {
	r := newRig(t)
	for code, h := range map[twinrail.Code]header{
		twinrail.CodeCredentialMissing: nil,
		twinrail.CodeCredentialExpired: as(r.issuer.Token(authtest.ExpiresIn(-time.Hour))),
	} {
		resp := r.do("GET", canvasPath, "", h)
		if p := problemOf(t, resp, code); p.Retry != twinrail.RetryRefresh {
			t.Errorf("%s: retry %q", code, p.Retry)
		}
		if got := resp.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
			t.Errorf("%s: WWW-Authenticate %q", code, got)
		}
	}
}

func TestMethodAndPath(t *testing.T) {
	r := newRig(t)
	for path, allowed := range map[string]string{
		canvasPath: "GET", wsPath: "GET", historyPath: "GET", publishPath: "POST",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			if method == allowed {
				continue
			}
			resp := r.do(method, path, "", as(r.token))
			problemOf(t, resp, twinrail.CodeMethodNotAllowed)
			if got := resp.header.Get("Allow"); got != allowed {
				t.Errorf("%s %s: Allow %q, want %q", method, path, got, allowed)
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/nothing", "/v1/sse/canvases/", "/metrics", "/healthz"} {
		problemOf(t, r.get(path), twinrail.CodeNotFound)
	}
}

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// TestRequestIDs follows the ids of a request into its answer and into what it
// published.
func TestRequestIDs(t *testing.T) {
	r := newRig(t)
	ids := append(as(r.token), "X-Request-Id", "my-request", "Traceparent", parent)
	resp := r.do("POST", publishPath, `{"events":[`+commit(1)+`]}`, ids)
	if id, trace := resp.header.Get("X-Request-Id"), resp.header.Get("Traceparent"); id != "my-request" || trace != parent {
		t.Errorf("returned %q, %q", id, trace)
	}
	made := r.post(`{"events":[` + commit(2) + `]}`)
	if _, err := uuid.Parse(made.header.Get("X-Request-Id")); err != nil || len(made.header.Get("Traceparent")) != 55 {
		t.Errorf("made %q, %q", made.header.Get("X-Request-Id"), made.header.Get("Traceparent"))
	}
	events, _ := r.page(historyPath)
	for i, from := range []http.Header{resp.header, made.header} {
		if e := events[i]; e.RequestID != from.Get("X-Request-Id") || e.Traceparent != from.Get("Traceparent") || e.RequestID == "" {
			t.Errorf("event %d has %q, %q; its request %q, %q", i, e.RequestID, e.Traceparent, from.Get("X-Request-Id"), from.Get("Traceparent"))
		}
	}
	refused := r.do("GET", "/v1/nothing", "", ids)
	if p := problemOf(t, refused, twinrail.CodeNotFound); p.RequestID != "my-request" {
		t.Errorf("the problem has %q", p.RequestID)
	}
	c := r.tail(canvasPath, ids...)
	if got := c.resp.Header.Get("X-Request-Id"); got != "my-request" {
		t.Errorf("SSE returned %q", got)
	}
	p := r.peer()
	p.say(`{"op":"publish","events":[%s]}`, chat(1))
	p.want(twinrail.OpAck)
	events, _ = r.page(twinrail.PathHistory + "?" + appQuery + "&thread_id=th1")
	if id := p.resp.Header.Get("X-Request-Id"); id == "" || events[0].RequestID != id {
		t.Errorf("a WebSocket's event has %q, its upgrade %q", events[0].RequestID, id)
	}
}

func TestRequestBodyIsRefused(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxBody, o.MaxEvent = 4096, 100 })
	event := func(data string) string {
		return `{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":` + data + `}]}`
	}
	for name, c := range map[string]struct {
		body, field string
		code        twinrail.Code
		contentType string
	}{
		"form":            {body: event("1"), code: twinrail.CodeUnsupportedMediaType, field: "Content-Type", contentType: "application/x-www-form-urlencoded"},
		"no type":         {body: event("1"), code: twinrail.CodeUnsupportedMediaType, field: "Content-Type", contentType: "-"},
		"large body":      {body: event(strings.Repeat(" ", 5000) + "1"), code: twinrail.CodeTooLarge, field: "body"},
		"large event":     {body: event(`"` + strings.Repeat("x", 99) + `"`), code: twinrail.CodeTooLarge, field: "events[0].data"},
		"empty":           {body: "", code: twinrail.CodeBadRequest},
		"cut":             {body: `{"events":[`, code: twinrail.CodeBadRequest, field: "events"},
		"two values":      {body: event("1") + "{}", code: twinrail.CodeBadRequest},
		"not UTF-8":       {body: event("\"\xff\""), code: twinrail.CodeBadRequest},
		"array":           {body: "[]", code: twinrail.CodeBadRequest},
		"unknown member":  {body: `{"events":[],"extra":1}`, code: twinrail.CodeBadRequest, field: "extra"},
		"unknown key":     {body: `{"events":[{"channel":"commit","type":"t","routing":{"panel":"x"},"data":1}]}`, code: twinrail.CodeBadRequest, field: "events[0].routing.panel"},
		"misspelled case": {body: `{"events":[{"channel":"commit","Type":"t","data":1}]}`, code: twinrail.CodeBadRequest, field: "events[0].Type"},
		"given twice":     {body: `{"events":[{"channel":"commit","type":"t","type":"u","data":1}]}`, code: twinrail.CodeBadRequest, field: "events[0].type"},
		"key twice":       {body: `{"events":[{"channel":"commit","type":"t","routing":{"panel_id":"x","panel_id":"y"},"data":1}]}`, code: twinrail.CodeBadRequest, field: "events[0].routing.panel_id"},
		"data twice":      {body: `{"events":[{"channel":"commit","type":"t","data":{"a":1,"a":2},"data":1}]}`, code: twinrail.CodeBadRequest, field: "events[0].data"},
		"second event":    {body: `{"events":[` + commit(1) + `,{"channel":"commit","data":{"events":[{"data":1}]},"to":["a"],"to":["b"]}]}`, code: twinrail.CodeBadRequest, field: "events[1].to"},
		"wrong type":      {body: `{"events":[{"channel":"commit","type":7,"data":1}]}`, code: twinrail.CodeBadRequest, field: "events[0].type"},
		"negative seq":    {body: `{"expected_seq":-1,"events":[` + commit(1) + `]}`, code: twinrail.CodeBadRequest, field: "expected_seq"},
	} {
		t.Run(name, func(t *testing.T) {
			h := as(r.token)
			switch c.contentType {
			case "":
			case "-":
				h = h[:2]
			default:
				h[3] = c.contentType
			}
			resp := r.do("POST", publishPath, c.body, h)
			if p := problemOf(t, resp, c.code); p.Field != c.field {
				t.Errorf("field %q, want %q (%s)", p.Field, c.field, p.Detail)
			}
		})
	}
	if events, _ := r.page(historyPath); len(events) != 0 {
		t.Errorf("%d events were stored", len(events))
	}
	if resp := r.do("POST", publishPath, event(`"`+strings.Repeat("x", 98)+`"`), header{
		"Authorization", "Bearer " + r.token, "Content-Type", "application/json; charset=utf-8"}); resp.status != http.StatusOK {
		t.Errorf("an event of just the limit: %d %s", resp.status, resp.body)
	}
}

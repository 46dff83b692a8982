package server

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/twinrail/twinrail"
)

// niOp is one thing that a tenant does; what the numbers say depends on what it
// is.
type niOp struct {
	do        string
	actor, at int // 0 or 1
	n, m      int // 0 to 11
	late      bool
}

// niOwn is what any tenant does, what happens more often several times. What comes
// first, rapid shrinks to.
var niOwn = []string{
	"wait", "sse", "sse", "sse", "ws", "ws", "join", "join", "join", "join", "leave", "say", "say", "say", "state", "state",
	"publish", "publish", "publish", "publish", "publish", "gesture", "gesture", "history", "history", "members", "members",
	"flag", "flag", "flags", "ticket", "ticket", "login", "logout", "resume", "resume", "renew", "renew", "revoke",
	"mint", "mint", "bad", "badframe", "cut", "cut", "goodbye", "wait", "wait",
}

var niWaits = []time.Duration{1, 3, 17, 35, 70, 130} // in seconds

// slot is how long the op has, if it is A's.
func (op niOp) slot() time.Duration {
	if op.do == "wait" {
		return niWaits[op.n%len(niWaits)] * time.Second
	}
	return niSlot
}

// spread is how long after each other B's ops come in a slot.
func (op niOp) spread(slot time.Duration) time.Duration { return slot / 6 }

func (op niOp) canvas() string { return "c" + strconv.Itoa(1+op.at) }

func (op niOp) thread() string { return "th" + strconv.Itoa(1+op.at) }

// act does op, and waits for its answer if it is a request.
func (p *niParty) act(op niOp) {
	switch op.do {
	case "sse":
		p.openSSE(op, p.cursorFor(op, p))
	case "ws":
		p.openWS(op)
	case "join":
		p.join(op, p.pick(isCursor, op.n))
	case "leave":
		p.frame(op, `{"op":"leave","ref":"l","sub":"%s"}`, niSubs[op.m%len(niSubs)].name)
	case "say":
		p.frame(op, `{"op":"publish","ref":"p","events":[%s]%s}`, p.event(op, "chat"), op.expected())
	case "state":
		p.frame(op, `{"op":"presence","ref":"s","sub":"%s","state":%s}`, []string{"a", "c"}[op.at], p.data(op, ""))
	case "goodbye":
		if w := p.stream(twinrail.RailWS, op.n); w != nil {
			_ = w.write(frame(true, ws.OpClose, ws.NewCloseFrameBody(1000, "")))
		}
	case "cut":
		p.cut(op)
	case "badframe":
		p.frame(op, "%s", niBadFrames[op.n%len(niBadFrames)])
	case "resume":
		p.resume(op, p.pick(isResume, op.n))
	case "mint":
		life := time.Hour
		if op.m%4 == 3 {
			life = 40 * time.Second
		}
		p.mint(op.actor, life)
	case "wait":
	default:
		p.actByHTTP(op)
	}
}

// actByHTTP is act for what is one request.
func (p *niParty) actByHTTP(op niOp) {
	switch op.do {
	case "publish":
		p.do(op, "POST", p.query(twinrail.PathPublish), p.body(op))
	case "gesture":
		e := fmt.Sprintf(`{"channel":"gesture","type":"t%d","routing":{"canvas_id":"c1"},"data":%s}`, op.n, p.data(op, ""))
		p.do(op, "POST", p.query(twinrail.PathPublish), `{"events":[`+e+`]}`)
	case "history":
		p.history(op, p.cursorFor(op, p))
	case "members":
		p.do(op, "GET", p.query(twinrail.PathPresence, op.place()), "")
	case "flags":
		p.do(op, "GET", p.query(twinrail.PathFlags), "")
	case "flag":
		p.flag(op, "")
	case "ticket":
		p.do(op, "POST", p.query(twinrail.PathTickets), niTickets[op.n%len(niTickets)])
	case "login":
		h := append(p.headers(op), "Origin", niOrigin)
		if op.n%3 == 0 {
			h = append(h, "Cookie", niCookieIs+p.pick(isCookie, op.m))
		}
		p.ask("POST", p.query(twinrail.PathSession), "", op.actor, h)
	case "logout":
		p.ask("DELETE", p.query(twinrail.PathSession), "", op.actor, header{"Cookie", niCookieIs + p.pick(isCookie, op.n), "Origin", niOrigin})
	case "renew":
		p.renew(op, p.pick(isConn, op.n))
	case "revoke":
		p.do(op, "POST", p.query(twinrail.PathRevocations), niRevocations[op.n%len(niRevocations)])
	case "bad":
		bad := niBad[op.n%len(niBad)]
		p.do(op, bad.method, strings.NewReplacer("T", p.tenant, "E", p.env).Replace(bad.path), bad.body)
	default:
		p.attack(op)
	}
}

// headers returns those of a JSON request, of which some state their ids.
func (p *niParty) headers(op niOp) header {
	h := as(p.token(op.actor))
	if op.n%2 == 0 {
		h = append(h, "X-Request-Id", fmt.Sprint("request-", op.m), "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	}
	return h
}

func (p *niParty) do(op niOp, method, path, body string) *niWire {
	return p.ask(method, path, body, op.actor, p.headers(op))
}

// credential returns what a browser can carry, or a bearer where there is none.
func (p *niParty) credential(op niOp) (h header, query string) {
	switch op.m % 4 {
	case 2:
		if ticket := p.takeTicket(op.n); ticket != "" {
			return header{"Origin", niOrigin}, "&ticket=" + ticket
		}
	case 3:
		if cookie := p.pick(isCookie, op.n); cookie != "" {
			return header{"Origin", niOrigin, "Cookie", niCookieIs + cookie}, ""
		}
	}
	return p.headers(op), ""
}

// cursorFor returns a cursor for op: none, the word for the oldest, one that other
// was given, or what is none.
func (p *niParty) cursorFor(op niOp, other *niParty) string {
	switch op.n % 6 {
	case 0:
		return ""
	case 1:
		return twinrail.CursorEarliest
	case 5:
		return "nonsense"
	}
	return other.pick(isCursor, op.n/6+op.m)
}

func (p *niParty) openSSE(op niOp, cursor string) {
	path := p.query(twinrail.PathSSECanvases+op.canvas(), []string{
		"", "&channels=commit,artifact,gesture", "&channels=gesture,commit&panel_id=pa", "&channels=commit,chat", "&channels=artifact&kinds=preview",
	}[op.m%5])
	if op.n == 11 {
		path += "&on_reset=fail"
	}
	h, ticket := p.credential(op)
	if cursor != "" {
		h = append(h, "Last-Event-ID", cursor)
	}
	p.ask("GET", path+ticket, "", op.actor, h)
}

func (p *niParty) openWS(op niOp) *niWire {
	h, ticket := p.credential(op)
	w := p.send(niRequest("GET", p.query(twinrail.PathWS, ticket), "", append(h, handshakeHeader...)), op.actor, op.n%4 != 0)
	w.wait()
	return w
}

// cut breaks off one of p's streams, and of those that share a connection now and
// then all.
func (p *niParty) cut(op niOp) {
	w := p.stream([]twinrail.Rail{twinrail.RailWS, twinrail.RailSSE}[op.at], op.n)
	switch {
	case w == nil:
	case w.nc == nil && op.m%3 == 0:
		p.hangUp()
	default:
		w.close()
	}
}

// frame sends a text frame over one of p's WebSockets; where there is none, over
// a new one.
func (p *niParty) frame(op niOp, format string, args ...any) {
	w := p.stream(twinrail.RailWS, op.n)
	if w == nil {
		w = p.openWS(op)
	}
	_ = w.write(text(fmt.Sprintf(format, args...))) // or it has ended, which is read
}

// niSubs are the subscriptions that there are. No two with presence are at one
// stream, so that what a session does to its members it does to one at a time.
var niSubs = []struct{ name, rest string }{
	{"a", `"routing":{"thread_id":"th1"},"channels":["chat","tool","presence"],"presence":%s`},
	{"b", `"routing":{"thread_id":"th2"},"channels":["chat"],"after":%q`},
	{"c", `"routing":{"canvas_id":"c1"},"channels":["presence"],"presence":%s`},
	{"d", `"routing":{"thread_id":"th1","panel_id":"pa"},"channels":["chat"],"after":"earliest"`},
	{"e", `"routing":{"canvas_id":"c2"},"channels":["presence"]`},
	{"a", `"routing":{"canvas_id":"c1"},"channels":["commit"]`},
}

func (p *niParty) join(op niOp, after string) {
	sub := niSubs[op.m%len(niSubs)]
	rest := sub.rest
	switch {
	case strings.Contains(rest, "%s"):
		rest = fmt.Sprintf(rest, p.data(op, ""))
	case strings.Contains(rest, "%q"):
		rest = fmt.Sprintf(rest, after)
	}
	p.frame(op, `{"op":"join","ref":"j","sub":"%s",%s}`, sub.name, rest)
}

// resume opens a WebSocket and resumes with a token, in every way that the token
// may ask for: one that names too many subscriptions, or too few, is refused and
// does not use it up.
func (p *niParty) resume(op niOp, token string) {
	op.m = 0 // by bearer
	w := p.openWS(op)
	after := "earliest"
	if c := p.pick(isCursor, op.n); c != "" && op.at == 0 {
		after = c
	}
	for subset := range 8 {
		var cursors []string
		for i, sub := range []string{"a", "b", "d"} {
			if subset&(1<<i) != 0 {
				cursors = append(cursors, fmt.Sprintf("%q:%q", sub, after))
			}
		}
		_ = w.write(text(fmt.Sprintf(`{"op":"resume","ref":"%d","resume_token":%q,"cursors":{%s}}`, subset, token, strings.Join(cursors, ","))))
	}
}

// renew gives a connection the newest token of the actor, from beside or over it.
func (p *niParty) renew(op niOp, conn string) {
	if op.m%2 == 1 {
		p.frame(op, `{"op":"auth","ref":"r","token":%q}`, p.token(op.actor))
		return
	}
	p.do(op, "POST", p.query(twinrail.PathConnections+conn+"/auth"), "")
}

func (p *niParty) history(op niOp, after string) {
	more := op.place()
	if after != "" {
		more += "&after=" + after
	}
	if op.m > 8 {
		more += "&limit=" + strconv.Itoa(op.m-8)
	}
	p.do(op, "GET", p.query(twinrail.PathHistory, more), "")
}

// place names a canvas or a thread.
func (op niOp) place() string {
	if op.n%2 == 0 {
		return "&canvas_id=" + op.canvas()
	}
	return "&thread_id=" + op.thread()
}

// flag sets or unsets a flag. What Tenant-0's owner sets in A's env, or unsets, is
// A's too, as it is meant to be; there it is of no value that a flag may have.
func (p *niParty) flag(op niOp, more string) {
	name := []string{"ws_enabled", "sse_enabled", "gesture_fanout", "gesture_rate", "replay"}[op.n%5]
	value := strconv.FormatBool(op.m%4 != 0)
	if name == "gesture_rate" {
		value = []string{"1", "5", "30"}[op.m%3]
	}
	switch {
	case p.isPlatform() && op.actor == 0:
		value = `"none"`
	case op.m > 8:
		p.do(op, "DELETE", p.query(twinrail.PathFlags+"/"+name), "")
		return
	}
	p.do(op, "PUT", p.query(twinrail.PathFlags+"/"+name), `{"value":`+value+more+`}`)
}

// data is what p says: the same for the same op.
func (p *niParty) data(op niOp, more string) string {
	return fmt.Sprintf(`{"say":"%s","n":%d%s}`, p.mark, op.n, more)
}

// event returns an event in the stream that op says, with one of a few ids or
// none.
func (p *niParty) event(op niOp, channel string) string {
	routing, data := `"thread_id":"`+op.thread()+`"`, p.data(op, "")
	switch channel {
	case "commit":
		routing = `"canvas_id":"` + op.canvas() + `"`
	case "artifact":
		routing, data = `"canvas_id":"`+op.canvas()+`"`, p.data(op, `,"kind":"`+[]string{"preview", "audit"}[op.n%2]+`"`)
	}
	more := ""
	switch op.m {
	case 0, 1, 2:
		more = `,"id":"event-` + strconv.Itoa(op.m) + `"`
	case 3:
		more = `,"to":["u_2"]`
	case 4:
		routing += `,"panel_id":"pa"`
	case 5:
		data = p.data(op, `,"pad":"`+strings.Repeat("x", 1500)+`"`)
	}
	return fmt.Sprintf(`{"channel":%q,"type":"t","routing":{%s},"data":%s%s}`, channel, routing, data, more)
}

// expected is the condition of a publish, which mostly is none.
func (op niOp) expected() string {
	if op.n < 8 {
		return ""
	}
	return `,"expected_seq":` + strconv.Itoa(op.n-8)
}

// body returns that of a publish.
func (p *niParty) body(op niOp) string {
	channel := []string{"commit", "commit", "artifact", "chat", "tool"}[op.n%5]
	events := []string{p.event(op, channel)}
	if op.m > 8 {
		events = slices.Repeat(events, op.m-7)
	}
	return `{"events":[` + strings.Join(events, ",") + `]` + op.expected() + `}`
}

var niTickets = []string{`{}`, `{"rail":"sse"}`, `{"rail":"ws"}`, `{"routing":{"canvas_id":"c1"},"channels":["commit"]}`, `{"rail":"x"}`}

var niRevocations = []string{
	`{"jti":"u_2.1"}`, `{"jti":"u_1.1"}`, `{"actor_id":"u_2"}`, `{"jti":"u_2.2"}`, `{"actor_id":"u_2"}`, `{"jti":"u_1.2"}`,
	`{"actor_id":"u_1"}`, `{}`, `{"jti":"event-1"}`, `{"jti":"u_2.1"}`, `{"actor_id":"u_3"}`, `{"tenant":true}`,
}

const niBadContext = "?tenant_id=T&env=E&workspace_id=w1&project_id=p1&app_id=studio"

// niBad is what is refused; T stands for the tenant, E for its env.
var niBad = []struct{ method, path, body string }{
	{"POST", twinrail.PathPublish + niBadContext, `{"events":[`},
	{"POST", twinrail.PathPublish + niBadContext, `{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"c1","canvas":"c2"},"data":1}]}`},
	{"POST", twinrail.PathPublish + niBadContext, `{"events":[]}`},
	{"POST", twinrail.PathPublish + niBadContext, `{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"c1","workspace_id":"w9"},"data":1}]}`},
	{"GET", twinrail.PathHistory + niBadContext + "&workspace_id=w9&canvas_id=c1", ""},
	{"GET", twinrail.PathHistory + "?tenant_id=T&workspace_id=w1", ""},
	{"GET", twinrail.PathHistory + "?tenant_id=t_nobody&env=E&canvas_id=c1", ""},
	{"GET", twinrail.PathHistory + niBadContext + "&canvas_id=" + "..%2Fc1", ""},
	{"GET", twinrail.PathSSECanvases + "c1" + niBadContext + "&canvas_id=c2", ""},
	{"GET", twinrail.PathPresence + niBadContext + "&canvas_id=c1&thread_id=th1", ""},
	{"PATCH", twinrail.PathFlags + niBadContext, ""},
	{"POST", twinrail.PathConnections + "c_nobodys/auth" + niBadContext, ""},
}

var niBadFrames = []string{
	`{"op":`, `{"op":"join","sub":""}`, `{"op":"shout"}`, `{"op":"leave","sub":"nobody"}`, `{"op":"publish","events":[]}`,
	`{"op":"presence","sub":"a"}`, `{"op":"resume","resume_token":"r1.x.y"}`, `{"op":"auth","token":"x.y.z"}`, `{"op":"ping","ref":"x"}`,
}

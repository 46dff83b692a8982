package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
)

// niHostile is what B does beyond its own affairs. B has seen all that A was given
// but for what makes its holder A: tokens, tickets that are not used yet, and
// what a cookie does in A's own context.
var niHostile = []string{
	"trespass", "trespass", "trespass", "forge", "forge", "cursor", "cursor", "cursor", "resumption", "resumption",
	"connection", "connection", "cookie", "cookie", "replay", "flood", "flood", "flood", "flood", "flood", "pile", "stall",
	"flags of all",
}

// attack does op of B's.
func (p *niParty) attack(op niOp) {
	a := p.w.a
	switch op.do {
	case "trespass":
		p.trespass(op, a)
	case "forge":
		p.forge(op, a)
	case "cursor":
		cursor := a.pick(isCursor, op.n)
		switch op.n % 3 {
		case 0:
			p.openSSE(op, cursor)
		case 1:
			p.history(op, cursor)
		default:
			op.m = 1 // the subscription that takes a cursor
			p.join(op, cursor)
		}
	case "resumption":
		p.resume(op, a.pick(isResume, op.n))
	case "connection":
		op.m = 0                      // from beside
		p.mint(op.actor, 2*time.Hour) // beyond the end of A's
		p.renew(op, a.pick(isConn, op.n))
	case "cookie":
		p.useCookie(op, a.pick(isCookie, op.n))
	case "replay":
		p.ask("GET", p.query(twinrail.PathHistory, "&canvas_id=c1&ticket=", a.pick(isUsed, op.n)), "", op.actor, nil)
	case "flood":
		p.flood(op)
	case "pile":
		p.pile(op)
	case "stall":
		if w := p.stream([]twinrail.Rail{twinrail.RailWS, twinrail.RailSSE}[op.at], op.n); w != nil {
			w.stopReading()
		}
	case "flags of all":
		p.flag(op, `,"overridable":`+[]string{"true", "false"}[op.at])
	}
}

// trespass states A's tenant and env, with a credential of B's, by any way in.
func (p *niParty) trespass(op niOp, a *niParty) {
	context := "?" + niContext(a.tenant, a.env)
	body := fmt.Sprintf(`{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"c1"},"data":%s}]}`, p.data(op, ""))
	ways := []struct{ method, path, body string }{
		{"GET", twinrail.PathSSECanvases + "c1" + context + "&cursor=earliest", ""},
		{"GET", twinrail.PathWS + context, ""},
		{"POST", twinrail.PathPublish + context, body},
		{"GET", twinrail.PathHistory + context + "&canvas_id=c1", ""},
		{"GET", twinrail.PathPresence + context + "&thread_id=th1", ""},
		{"PUT", twinrail.PathFlags + "/ws_enabled" + context, `{"value":false}`},
		{"DELETE", twinrail.PathFlags + "/gesture_fanout" + context, ""},
		{"POST", twinrail.PathRevocations + context, `{"tenant":true}`},
		{"POST", twinrail.PathRevocations + context, `{"jti":"u_1.1"}`},
		{"POST", twinrail.PathTickets + context, `{}`},
		{"POST", twinrail.PathSession + context, ""},
		{"POST", twinrail.PathConnections + a.pick(isConn, op.m) + "/auth" + context, ""},
	}
	way := ways[op.n%len(ways)]
	h := p.headers(op)
	if strings.HasPrefix(way.path, twinrail.PathWS) {
		h = append(h, handshakeHeader...)
	}
	p.ask(way.method, way.path, way.body, op.actor, h)
}

// forge states A's tenant and env where B's own context was checked already.
func (p *niParty) forge(op niOp, a *niParty) {
	there := fmt.Sprintf(`"tenant_id":%q,"env":%q`, a.tenant, a.env)
	event := fmt.Sprintf(`{"channel":"commit","type":"t","routing":{%s,"canvas_id":"c1"},"data":%s}`, there, p.data(op, ""))
	switch op.n % 4 {
	case 0:
		p.do(op, "POST", p.query(twinrail.PathPublish), `{"events":[`+event+`]}`)
	case 1:
		p.do(op, "POST", p.query(twinrail.PathTickets), `{"routing":{`+there+`}}`)
	case 2:
		p.frame(op, `{"op":"join","sub":"f","routing":{%s,"thread_id":"th1"},"channels":["chat","presence"],"presence":%s}`, there, p.data(op, ""))
	default:
		p.frame(op, `{"op":"publish","events":[%s]}`, strings.NewReplacer("commit", "chat", "canvas_id", "thread_id", `"c1"`, `"th1"`).Replace(event))
	}
}

// useCookie uses A's cookie in B's context, alone and beside B's own credential.
func (p *niParty) useCookie(op niOp, cookie string) {
	h := header{"Origin", niOrigin, "Cookie", niCookieIs + cookie}
	switch op.n % 3 {
	case 0:
		p.ask("GET", p.query(twinrail.PathHistory, "&canvas_id=c1"), "", op.actor, h)
	case 1:
		p.ask("POST", p.query(twinrail.PathSession), "", op.actor, append(h, p.headers(op)...))
	default:
		p.ask("DELETE", p.query(twinrail.PathSession), "", op.actor, h)
	}
}

// flood does something until B may do no more of it.
func (p *niParty) flood(op niOp) {
	times := func(n int, f func(i int)) {
		for i := range n {
			f(i)
		}
	}
	small := slices.Repeat([]string{p.event(niOp{m: 11, at: op.at}, "commit")}, maxEvents)
	switch op.n {
	case 0, 1: // the rate of events
		times(2, func(int) {
			p.do(op, "POST", p.query(twinrail.PathPublish), `{"events":[`+strings.Join(small, ",")+`]}`)
		})
	case 2, 3: // of bytes, and what is retained
		times(4, func(i int) {
			big := p.event(niOp{m: 5, at: i % 2}, []string{"commit", "chat"}[i/2])
			p.do(op, "POST", p.query(twinrail.PathPublish), `{"events":[`+strings.Join(slices.Repeat([]string{big}, 6), ",")+`]}`)
		})
	case 4, 5: // connections
		times(7, func(int) { p.openSSE(niOp{do: "sse", actor: op.actor}, "") })
	case 6: // joins
		times(8, func(int) {
			p.frame(op, `{"op":"join","sub":"x","routing":{"thread_id":"th2"}}`)
			p.frame(op, `{"op":"leave","sub":"x"}`)
		})
	case 7: // tickets
		times(65, func(int) { p.do(op, "POST", p.query(twinrail.PathTickets), `{}`) })
	case 8: // cookies
		times(33, func(int) {
			p.ask("POST", p.query(twinrail.PathSession), "", op.actor, append(p.headers(op), "Origin", niOrigin))
		})
	case 9, 10: // gestures
		times(3, func(i int) { p.actByHTTP(niOp{do: "gesture", actor: op.actor, n: i}) })
	default: // frames
		times(25, func(int) { p.frame(op, `{"op":"ping"}`) })
	}
}

// pile has more under way at the journal than B may.
func (p *niParty) pile(op niOp) {
	for i := range 24 {
		p.w.running.Go(func() {
			if i%4 == 0 {
				p.do(op, "GET", p.query(twinrail.PathHistory, "&canvas_id=c1"), "")
				return
			}
			p.actByHTTP(niOp{do: "publish", actor: op.actor, at: i % 2, n: 1, m: 6})
		})
	}
}

package server

import (
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// TestTenant0ReachesNothing has the platform's own tenant, with every right that
// there is, ask for what is a tenant's: it is to its streams like any other one.
func TestTenant0ReachesNothing(t *testing.T) {
	r := newRig(t)
	first := r.commits(0, 2)
	r.chats(0, 2)
	r.actor("u_7").enter(onCanvas, "1")
	follower, thread := r.tail(canvasPath), r.peer()
	follower.open()
	follower.toLive()
	thread.live("a")

	platform := r.issuer.Token(authtest.Tenant("t_0"), authtest.Role(twinrail.Owner), authtest.Actor("u_7"))
	own := strings.NewReplacer("t_acme", "t_0")
	for path, method := range map[string]string{
		canvasPath: "GET", wsPath: "GET", historyPath: "GET", threadHistoryPath: "GET", presencePath + "&canvas_id=c1": "GET",
		publishPath: "POST", ticketsPath: "POST", sessionPath: "POST", revocationsPath: "POST",
	} {
		h := append(as(platform), handshakeHeader...)
		problemOf(t, r.do(method, path, `{"events":[`+commit(9)+`]}`, h), twinrail.CodeContextMismatch)
	}
	problemOf(t, r.do("POST", own.Replace(publishPath), strings.Replace(`{"events":[`+commit(9)+`]}`, `"canvas_id"`, `"tenant_id":"t_acme","canvas_id"`, 1), as(platform)), twinrail.CodeContextMismatch)
	p := r.upgrade(own.Replace(wsPath), platform)
	p.want(twinrail.OpWelcome)
	p.say(`{"op":"join","sub":"a","routing":{"tenant_id":"t_acme","thread_id":"th1"}}`)
	p.wantError(twinrail.CodeContextMismatch, "")

	// At the same names of its own there is nothing, and no position is known.
	resp := r.do("GET", own.Replace(historyPath), "", as(platform))
	if !strings.HasPrefix(string(resp.body), `{"events":[],`) {
		t.Errorf("history: %s", resp.body)
	}
	problemOf(t, r.do("GET", own.Replace(historyPath)+"&after="+first.Cursor, "", as(platform)), twinrail.CodeCursorExpired)
	if resp = r.do("GET", own.Replace(presencePath)+"&canvas_id=c1", "", as(platform)); strings.TrimSpace(string(resp.body)) != `{"members":[]}` {
		t.Errorf("presence: %s", resp.body)
	}
	// What it publishes there, it says to itself.
	for _, event := range []string{commit(7), chat(7)} {
		if resp = r.do("POST", own.Replace(publishPath), `{"events":[`+event+`]}`, as(platform)); resp.status != 200 {
			t.Errorf("published: %d %s", resp.status, resp.body)
		}
	}
	r.commits(2, 3)
	r.chats(2, 3)
	if got := dataOf(follower.events(1)); got != "2" {
		t.Errorf("the canvas is told %s", got)
	}
	if got := dataOf(thread.events("a", 1)); got != "2" {
		t.Errorf("the thread is told %s", got)
	}
}

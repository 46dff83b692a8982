package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// newGuarded returns a server with a canary on every canvas and thread of w1 but
// "mine", and in another tenant, and a credential that is granted "mine" alone.
// What is published there is soon trimmed: any number of inputs may do so.
func newGuarded(f *testing.F) (*direct, string) {
	f.Helper()
	return newUnreachable(f, func(o *Options) {
		o.Journal = journal.NewMemory(journal.MemoryOptions{Retention: journal.Retention{Count: 100}})
		o.FrameRate, o.PublishRate = -1, -1
	})
}

// heads returns where the guarded streams end; other is a token of the other tenant.
func (d *direct) heads(t testing.TB, other string) string {
	t.Helper()
	var b strings.Builder
	owner := d.token
	for _, at := range []struct{ path, token string }{
		{historyPath, owner}, {strings.Replace(historyPath, "=c1", "=theirs", 1), owner}, {strings.Replace(threadHistoryPath, "th1", "theirs", 1), owner},
		{strings.Replace(strings.Replace(historyPath, "=c1", "=mine", 1), "t_acme", "t_other", 1), other},
		{strings.Replace(strings.Replace(historyPath, "=c1", "=others", 1), "t_acme", "t_other", 1), other},
	} {
		var page twinrail.HistoryPage
		resp := d.do("GET", at.path+"&limit=1", "", as(at.token))
		if err := json.Unmarshal(resp.body, &page); err != nil {
			t.Fatalf("%d %s", resp.status, resp.body)
		}
		fmt.Fprintln(&b, page.Head)
	}
	return b.String()
}

// FuzzPublishBody publishes any body with a grant of one canvas and one thread: it
// is stored there, all of it, or refused with a code of the client's, and what else
// there is does not move.
func FuzzPublishBody(f *testing.F) {
	d, token := newGuarded(f)
	mine := strings.NewReplacer("c1", "mine", `,"expected_seq":0`, "", `"expected_seq":0,`, "", `"v":1,"id":"e",`, "", `"panel_id":"l1",`, "", `"to":["u_1"],`, "", "u_1", "u_9")
	for _, body := range []string{
		mine.Replace(wholePublish), wholePublish, `{"events":[` + mine.Replace(commit(1)) + `,` + mine.Replace(commit(2)) + `]}`,
		`{"events":[` + mine.Replace(commit(1)) + `,` + strings.Replace(commit(2), "c1", "theirs", 1) + `]}`,
		`{"events":[{"channel":"commit","type":"t","routing":{"canvas_id":"mine","canvas_id":"theirs"},"data":1}]}`,
		`{"events":[{"channel":"chat","type":"t","routing":{"tenant_id":"t_other","thread_id":"mine"},"data":{"a":1,"a":2}}]}`,
		`{"events":[{"channel":"gesture","type":"t","routing":{"canvas_id":"mine"},"data":"\ud800"}]}`,
		`{"events":[{"channel":"artifact","type":"t","routing":{"canvas_id":"mine"},"data":{"kind":"audit"}}],"expected_seq":18446744073709551615}`,
	} {
		f.Add(body)
	}
	other := d.issuer.Token(authtest.Tenant("t_other"))
	before := d.heads(f, other)
	n := 0
	f.Fuzz(func(t *testing.T, body string) {
		resp := d.do("POST", publishPath, body, as(token))
		if code := codeOf(t, body, resp); code == "" {
			var said struct {
				Events []struct {
					Channel twinrail.Channel
					Routing map[string]string
				}
			}
			if err := json.Unmarshal([]byte(body), &said); err != nil {
				t.Fatalf("took %q: %v", body, err)
			}
			for _, e := range said.Events {
				if e.Channel.In(twinrail.CanvasStream) && e.Routing["canvas_id"] != "mine" || e.Channel.In(twinrail.ThreadStream) && e.Routing["thread_id"] != "mine" {
					t.Errorf("took %q", body)
				}
			}
		}
		// To look costs more than to publish.
		if n++; n%64 == 1 || resp.status/100 == 2 {
			if after := d.heads(t, other); after != before {
				t.Errorf("%q moved what is not the publisher's:\n%s\nto\n%s", body, before, after)
			}
		}
	})
}

// FuzzClientFrame has any two messages handled by a connection of the WS rail: each
// is answered with what the op says, or with a code of the client's, and nothing is
// told of what is not granted.
func FuzzClientFrame(f *testing.F) {
	d, token := newGuarded(f)
	f.Add(strings.ReplaceAll(wholeJoin, "th1", "mine"), wholeState)
	f.Add(`{"op":"join","sub":"s","routing":{"thread_id":"mine"},"after":"earliest"}`, `{"op":"leave","sub":"s"}`)
	f.Add(`{"op":"join","sub":"s","routing":{"canvas_id":"mine"},"channels":["presence"]}`, `{"op":"presence","sub":"s","state":"\ud800"}`)
	f.Add(`{"op":"join","sub":"s","routing":{"thread_id":"theirs"}}`, `{"op":"join","sub":"s","routing":{"thread_id":"mine","thread_id":"theirs"}}`)
	f.Add(`{"op":"join","sub":"s","routing":{"tenant_id":"t_other","thread_id":"others"}}`, wholeResume)
	f.Add(wholeFrame, wholeAuth)
	f.Add(`{"op":"ping","ref":"x"}`, `{"op":"pong"}`)
	f.Add("\ufeff{}", `{"op":"ping"}{"op":"ping"}`)
	ac, err := d.server.admit(d.request("GET", wsPath, "", "", as(token)), twinrail.RailWS)
	if err != nil {
		f.Fatal(err)
	}
	answers := map[string]string{
		"join": "joined", "leave": "left", "publish": "ack", "presence": "", "resume": "resumed", "auth": "authed", "ping": "pong", "pong": "",
	}
	p := d.drive(wsPath, token)
	f.Fuzz(func(t *testing.T, one, other string) {
		p.t = t
		p.conn.auth.Store(ac) // which an input may have renewed
		for _, message := range []string{one, other} {
			p.conn.mu.Lock()
			p.conn.ending = nil
			p.conn.mu.Unlock()
			code := twinrail.Code("")
			frames, err := p.say(message)
			if err != nil {
				code = twinrail.CodeOf(err)
			} else if len(frames) > 0 && frames[0].Op == twinrail.OpError {
				code = frames[0].Code
			}
			if info, known := twinrail.Codes()[code]; code != "" && (!known || info.Status/100 != 4) {
				t.Errorf("%q: %s, %v", message, code, err)
			}
			if code != "" {
				continue
			}
			var said struct {
				Op      string
				Ref     string
				Routing map[string]string
			}
			if err := json.Unmarshal([]byte(message), &said); err != nil {
				t.Errorf("took %q: %v", message, err)
			}
			if want := answers[said.Op]; want != "" && (len(frames) == 0 || frames[0].Op != want) || want == "" && len(frames) > 0 {
				t.Errorf("%q: %+v", message, frames)
			}
			if said.Op == "join" && said.Routing["thread_id"] != "mine" && said.Routing["canvas_id"] != "mine" {
				t.Errorf("joined by %q", message)
			}
		}
		out, _, err := p.conn.gather(t.Context(), nil)
		if err != nil || strings.Contains(string(out), `"theirs"`) || strings.Contains(string(out), `"others"`) {
			t.Errorf("%q, %q are told %q, %v", one, other, out, err)
		}
		p.conn.mu.Lock()
		for len(p.conn.joins) > 0 {
			p.conn.drop(p.conn.joins[0])
		}
		p.conn.out = nil
		p.conn.mu.Unlock()
	})
}

package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// The three that must be alike, by name, as canvas, thread, flag and so on: it is
// there and not granted; it is there under this name in another tenant and in
// another env, and here nothing is; it is nowhere.
var unreachable = []string{"theirs", "others", "nobody"}

// newUnreachable returns a server on which these are what they say, each with
// events, members and gestures, and a credential that is granted "mine" alone.
func newUnreachable(t testing.TB, change ...func(*Options)) (d *direct, token string) {
	t.Helper()
	d = newDirect(t, append(change, func(o *Options) { o.JoinRate, o.ChangeRate = -1, -1 })...)
	fill := func(tenant, env, name string) {
		query := strings.NewReplacer("t_acme", tenant, "dev", env).Replace(appQuery)
		owner := d.issuer.Token(authtest.Tenant(tenant), authtest.Env(env))
		for n := range 50 {
			d.publish(twinrail.PathPublish+"?"+query, owner, fmt.Sprintf(`{"id":"e%d","channel":"commit","type":"t","routing":{"canvas_id":%q},"data":"canary"}`, n, name))
			d.publish(twinrail.PathPublish+"?"+query, owner, fmt.Sprintf(`{"id":"e%d","channel":"chat","type":"t","routing":{"thread_id":%q},"data":"canary"}`, n, name))
		}
		p := d.drive(twinrail.PathWS+"?"+query, owner)
		for _, key := range []string{"canvas_id", "thread_id"} {
			if code := p.code(fmt.Sprintf(`{"op":"join","sub":%q,"routing":{%q:%q},"channels":["presence"],"presence":"canary"}`, key, key, name)); code != "" {
				t.Fatal(code)
			}
		}
	}
	fill("t_acme", "dev", "theirs")
	fill("t_other", "dev", "others")
	fill("t_acme", "prod", "others")
	fill("t_acme", "dev", "mine")
	home := twinrail.Grant{WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "mine", ThreadID: "mine", Can: []string{"*"}}
	canvas, thread := home, home
	canvas.ThreadID, thread.CanvasID = "", ""
	return d, d.issuer.Token(authtest.Actor("u_9"), authtest.Grants(canvas, thread))
}

// unreachableBy are all ways to ask for a canvas or thread over HTTP.
var unreachableBy = map[string]func(d *direct, name string, h header) *http.Request{
	"sse": func(d *direct, name string, h header) *http.Request {
		return d.request("GET", twinrail.PathSSECanvases+name+"?"+appQuery, "", "", h)
	},
	"sse of channels": func(d *direct, name string, h header) *http.Request {
		return d.request("GET", twinrail.PathSSECanvases+name+"?"+appQuery+"&channels=commit,gesture&cursor=earliest", "", "", h)
	},
	"history of a canvas": func(d *direct, name string, h header) *http.Request {
		return d.request("GET", twinrail.PathHistory+"?"+appQuery+"&canvas_id="+name, "", "", h)
	},
	"history of a thread": func(d *direct, name string, h header) *http.Request {
		return d.request("GET", twinrail.PathHistory+"?"+appQuery+"&after=earliest&channels=chat&thread_id="+name, "", "", h)
	},
	"presence on a canvas": func(d *direct, name string, h header) *http.Request {
		return d.request("GET", twinrail.PathPresence+"?"+appQuery+"&canvas_id="+name, "", "", h)
	},
	"presence in a thread": func(d *direct, name string, h header) *http.Request {
		return d.request("GET", twinrail.PathPresence+"?"+appQuery+"&thread_id="+name, "", "", h)
	},
	"publish a commit": func(d *direct, name string, h header) *http.Request {
		return d.request("POST", publishPath, "", `{"events":[{"id":"e1","channel":"commit","type":"t","routing":{"canvas_id":"`+name+`"},"data":1}]}`, h)
	},
	"publish a chat, expecting": func(d *direct, name string, h header) *http.Request {
		return d.request("POST", publishPath, "", `{"expected_seq":7,"events":[{"channel":"chat","type":"t","routing":{"thread_id":"`+name+`"},"data":1}]}`, h)
	},
	"publish a gesture": func(d *direct, name string, h header) *http.Request {
		return d.request("POST", publishPath, "", `{"events":[{"channel":"gesture","type":"t","routing":{"canvas_id":"`+name+`"},"data":1}]}`, h)
	},
}

// fixed are ids that make two answers equal but for what a server could tell.
var fixed = header{"X-Request-Id", "r1", "Traceparent", "00-" + strings.Repeat("1", 32) + "-" + strings.Repeat("2", 16) + "-00"}

// whole returns all of an answer, to the byte.
func whole(resp reply) string {
	resp.header.Del("Date")
	return fmt.Sprintf("%d %v %d %s", resp.status, resp.header, len(resp.body), resp.body)
}

// unreachableWith are what may be carried in place of a token: each has a request
// that was made with the token carry it.
var unreachableWith = map[string]func(d *direct, token string, r *http.Request){
	"bearer": func(*direct, string, *http.Request) {},
	"ticket": func(d *direct, token string, r *http.Request) {
		resp := d.do("POST", ticketsPath, `{"routing":{"workspace_id":"w1"}}`, as(token))
		var got twinrail.TicketResponse
		if err := json.Unmarshal(resp.body, &got); err != nil {
			d.t.Fatalf("%d %s", resp.status, resp.body)
		}
		r.Header.Del("Authorization")
		r.URL.RawQuery += "&ticket=" + got.Ticket
	},
	"cookie": func(d *direct, token string, r *http.Request) {
		resp := d.do("POST", sessionPath, "", as(token))
		cookie, _, found := strings.Cut(resp.header.Get("Set-Cookie"), ";")
		if !found {
			d.t.Fatalf("%d %s", resp.status, resp.body)
		}
		r.Header.Del("Authorization")
		r.Header.Set("Cookie", cookie)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	},
}

// TestNotYoursIsNotThere asks over HTTP, by bearer, by ticket and by cookie.
func TestNotYoursIsNotThere(t *testing.T) {
	d, token := newUnreachable(t)
	for name, request := range unreachableBy {
		for by, carry := range unreachableWith {
			var want string
			for _, thing := range unreachable {
				h := append(slices.Clone(fixed), as(token)...)
				r := request(d, thing, h)
				carry(d, token, r)
				resp := d.ask(r)
				if code := codeOf(t, name, resp); code != twinrail.CodeNotFound {
					t.Errorf("%s of %s: %q", name, thing, code)
				}
				got := whole(resp)
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%s by %s: of %s\n%s\nof %s\n%s", name, by, thing, got, unreachable[0], want)
				}
			}
		}
		// The control: the same request of what is granted is not answered so.
		if name == "sse" || name == "sse of channels" || name == "publish a gesture" {
			continue // a stream; a feature that is off
		}
		if resp := d.ask(request(d, "mine", as(token))); resp.status == http.StatusNotFound {
			t.Errorf("%s of mine: %d %s", name, resp.status, resp.body)
		}
	}
}

// TestNotYoursIsNotThereWS asks over the WS rail.
func TestNotYoursIsNotThereWS(t *testing.T) {
	d, token := newUnreachable(t)
	narrow := d.request("GET", wsPath, "", "", append(slices.Clone(fixed), as(token)...))
	full := d.drive(wsPath, d.issuer.Token(authtest.Actor("u_9")))
	p := d.drive(wsPath, token)
	ac, err := d.server.admit(narrow, twinrail.RailWS)
	if err != nil {
		t.Fatal(err)
	}
	p.conn.auth.Store(ac)
	for name, frame := range map[string]string{
		"join":            `{"op":"join","ref":"r","sub":"s","routing":{"thread_id":"%s"}}`,
		"join after":      `{"op":"join","ref":"r","sub":"s","routing":{"thread_id":"%s"},"channels":["chat"],"after":"earliest"}`,
		"watch a thread":  `{"op":"join","ref":"r","sub":"s","routing":{"thread_id":"%s"},"channels":["presence"]}`,
		"watch a canvas":  `{"op":"join","ref":"r","sub":"s","routing":{"canvas_id":"%s"},"channels":["presence"]}`,
		"be present":      `{"op":"join","ref":"r","sub":"s","routing":{"canvas_id":"%s"},"channels":["presence"],"presence":{"x":1}}`,
		"publish":         `{"op":"publish","ref":"r","expected_seq":3,"events":[{"id":"e1","channel":"chat","type":"t","routing":{"thread_id":"%s"},"data":1}]}`,
		"publish gesture": `{"op":"publish","ref":"r","events":[{"channel":"gesture","type":"t","routing":{"canvas_id":"%s"},"data":1}]}`,
	} {
		var want string
		for _, thing := range unreachable {
			if err := p.conn.handle(fmt.Appendf(nil, frame, thing)); err != nil {
				t.Fatal(err)
			}
			got := string(p.conn.out)
			p.conn.out = nil
			if want == "" {
				want = got
			}
			if got != want || !strings.Contains(got, `"not_found"`) {
				t.Errorf("%s: of %s\n%s\nof %s\n%s", name, thing, got, unreachable[0], want)
			}
		}
		if code := p.code(fmt.Sprintf(frame, "mine")); code == twinrail.CodeNotFound {
			t.Errorf("%s of mine: %s", name, code)
		}
		p.leave("s")
	}
	// A session that was opened with more is resumed with less.
	var want string
	for _, thing := range unreachable {
		frames, err := full.say(fmt.Sprintf(`{"op":"join","sub":"s","routing":{"thread_id":%q}}`, thing))
		if err != nil || len(frames) != 1 {
			t.Fatal(frames, err)
		}
		resumer := d.drive(wsPath, token)
		resumed, err := resumer.say(fmt.Sprintf(`{"op":"resume","ref":"r","resume_token":%q,"cursors":{"s":"x"}}`, frames[0].ResumeToken))
		if err != nil || len(resumed) != 1 || len(resumed[0].Subs) != 1 {
			t.Fatalf("%+v, %v", resumed, err)
		}
		got := fmt.Sprintf("%+v", resumed[0].Subs[0])
		if want == "" {
			want = got
		}
		if got != want || resumed[0].Subs[0].Code != twinrail.CodeNotFound {
			t.Errorf("resumed %s: %s\nand of %s %s", thing, got, unreachable[0], want)
		}
		full = d.drive(wsPath, d.issuer.Token(authtest.Actor("u_9")))
	}
}

// TestAdministrationIsNotThere asks, without the right to it, for flags that there
// are and are not, and for the revocation of what is and is not.
func TestAdministrationIsNotThere(t *testing.T) {
	d, token := newUnreachable(t)
	flags := strings.TrimSuffix(flagsPath(""), "?tenant_id=t_acme&env=dev")
	const query = "?tenant_id=t_acme&env=dev"
	owner := d.issuer.Token(authtest.Role(twinrail.Owner))
	if resp := d.do("PUT", flagsPath("ws_enabled"), `{"value":true}`, as(owner)); resp.status != http.StatusOK {
		t.Fatalf("set: %d %s", resp.status, resp.body)
	}
	for _, group := range [][][3]string{
		{{"PUT", flags + "ws_enabled" + query, `{"value":false}`}, {"PUT", flags + "nosuch" + query, `{"value":false}`}, {"PUT", flags + "replay" + query, `{"value":"x"}`}},
		{{"DELETE", flags + "ws_enabled" + query, ""}, {"DELETE", flags + "gesture_rate" + query, ""}, {"DELETE", flags + "nosuch" + query, ""}},
		{
			{"POST", revocationsPath, `{"actor_id":"u_1"}`}, {"POST", revocationsPath, `{"actor_id":"nobody"}`}, {"POST", revocationsPath, `{"jti":"x"}`},
			{"POST", revocationsPath, `{"tenant":true}`}, {"POST", revocationsPath, `{}`}, {"POST", revocationsPath, `{"jti":"x","actor_id":"a b"}`},
		},
	} {
		var want string
		for _, ask := range group {
			resp := d.do(ask[0], ask[1], ask[2], append(slices.Clone(fixed), as(token)...))
			if code := codeOf(t, ask[1], resp); code != twinrail.CodeNotFound {
				t.Errorf("%v: %q", ask, code)
			}
			got := whole(resp)
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%v\n%s\nthe first\n%s", ask, got, want)
			}
		}
	}
}

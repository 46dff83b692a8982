package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

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
	d = newDirect(t, change...)
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

// A round of times takes so many of each kind, in an order that is drawn.
const (
	timedRounds  = 5
	timedOfKind  = 300
	timedPercent = 25 // how far from one half is telling, in percent
)

// tells reports whether times tell two kinds of request apart, and how well in the
// round that does it least.
//
// In each round the requests of both kinds are mixed, so that whatever else the
// machine does falls on both alike. Of all pairs of one of either kind it is
// counted in how many the second takes longer (the statistic of Mann and Whitney,
// as a part of all pairs): one half where the kinds are alike, and its standard
// deviation with 300 of each is 0.024 whatever the distribution is. A round is
// telling beyond 0.25 from one half, which is ten of these; and five rounds of five
// have to be, to the same side. A burst of load spoils a round at most, and only if
// it comes to hit one kind; so the test fails for a difference, and for nothing
// else.
func tells(t *testing.T, ask func(kind int)) (telling bool, least float64) {
	t.Helper()
	return tellsPrepared(t, func(kind int) func() { return func() { ask(kind) } })
}

// tellsPrepared is tells, where what a request takes is made before its time
// begins.
func tellsPrepared(t *testing.T, prepare func(kind int) (ask func())) (telling bool, least float64) {
	t.Helper()
	least = 1
	side := 0
	for range timedRounds {
		order := make([]int, 2*timedOfKind)
		for i := range order {
			order[i] = i % 2
		}
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		var took [2][]time.Duration
		for _, kind := range order {
			ask := prepare(kind)
			start := time.Now()
			ask()
			took[kind] = append(took[kind], time.Since(start))
		}
		off := slower(took[0], took[1]) - 0.5
		least = min(least, math.Abs(off))
		switch {
		case math.Abs(off) < timedPercent/100.0:
		case off > 0:
			side++
		default:
			side--
		}
	}
	return side == timedRounds || side == -timedRounds, least
}

// slower returns in what part of all pairs b takes longer than a; a tie is a half.
func slower(a, b []time.Duration) float64 {
	a = slices.Sorted(slices.Values(a))
	var longer float64
	for _, d := range b {
		from, _ := slices.BinarySearch(a, d)
		to, _ := slices.BinarySearch(a, d+1)
		longer += float64(from+to) / 2
	}
	return longer / float64(len(a)*len(b))
}

// TestNotYoursTakesAsLong compares, for each way to ask, the times of what is not
// granted with those of what does not exist.
func TestNotYoursTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	for _, way := range slices.Sorted(maps.Keys(unreachableBy)) {
		for _, thing := range []string{"theirs", "others"} {
			names := []string{thing, "nobody"}
			if telling, least := tells(t, func(kind int) { d.ask(unreachableBy[way](d, names[kind], as(token))) }); telling {
				t.Errorf("%s: time tells %s from what does not exist, by %.2f of all pairs at least", way, thing, least)
			}
		}
	}
	p := d.drive(wsPath, token)
	theirs := d.drive(wsPath, d.issuer.Token())
	d.server.mu.Lock()
	theirs.conn.id = "c_theirs"
	d.server.connections.add(theirs.conn)
	d.server.mu.Unlock()
	t.Cleanup(func() {
		d.server.mu.Lock()
		d.server.connections.remove(theirs.conn)
		d.server.mu.Unlock()
	})
	paths := []string{renewalPath("c_theirs"), renewalPath("c_nobody")}
	if a, b := whole(d.do("POST", paths[0], "", append(slices.Clone(fixed), as(token)...))), whole(d.do("POST", paths[1], "", append(slices.Clone(fixed), as(token)...))); a != b {
		t.Errorf("renewal of another's connection\n%s\nof none\n%s", a, b)
	}
	if telling, least := tells(t, func(kind int) { d.do("POST", paths[kind], "", as(token)) }); telling {
		t.Errorf("renewal: time tells another's connection from none, by %.2f of all pairs at least", least)
	}
	frames := [2][]byte{}
	for kind, name := range []string{"theirs", "nobody"} {
		frames[kind] = fmt.Appendf(nil, `{"op":"join","sub":"s","routing":{"thread_id":%q}}`, name)
	}
	if telling, least := tells(t, func(kind int) { _ = p.conn.handle(frames[kind]); p.conn.out = nil }); telling {
		t.Errorf("join: time tells what is there from what is not, by %.2f of all pairs at least", least)
	}
}

// TestNotYoursTakesAsLongCarried is [TestNotYoursTakesAsLong] by tickets and
// cookies, and for a ticket that was used and a session that has ended in place of
// those that never were.
func TestNotYoursTakesAsLongCarried(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	names := []string{"theirs", "nobody"}
	for _, by := range []string{"ticket", "cookie"} {
		for _, way := range []string{"sse", "history of a canvas", "publish a chat, expecting"} {
			telling, least := tellsPrepared(t, func(kind int) func() {
				r := unreachableBy[way](d, names[kind], as(token))
				unreachableWith[by](d, token, r)
				return func() { d.ask(r) }
			})
			if telling {
				t.Errorf("%s by %s: time tells theirs from what does not exist, by %.2f of all pairs at least", way, by, least)
			}
		}
		spent := d.request("GET", historyPath, "", "", append(slices.Clone(fixed), as(token)...))
		unreachableWith[by](d, token, spent)
		never := spent.Clone(t.Context())
		if by == "ticket" {
			d.ask(spent)
			never.URL.RawQuery = spent.URL.RawQuery[:len(spent.URL.RawQuery)-43] + strings.Repeat("A", 43)
		} else {
			ending := d.request("DELETE", sessionPath, "", "", nil)
			ending.Header = spent.Header.Clone()
			if resp := d.ask(ending); resp.status != http.StatusNoContent {
				t.Fatalf("%d %s", resp.status, resp.body)
			}
			cookie := spent.Header.Get("Cookie")
			never.Header.Set("Cookie", cookie[:len(cookie)-43]+strings.Repeat("A", 43))
		}
		alikeInTime(t, by+" of the past", func(kind int) reply { return d.ask([]*http.Request{spent, never}[kind]) }, twinrail.CodeCredentialInvalid)
	}
}

// alikeInTime requires that two kinds of request are refused with the code, by the
// same bytes, and after as long.
func alikeInTime(t *testing.T, what string, ask func(kind int) reply, code twinrail.Code) {
	t.Helper()
	one, other := ask(0), ask(1)
	if codeOf(t, what, one) != code {
		t.Errorf("%s: %s", what, one.body)
	}
	if a, b := whole(one), whole(other); a != b {
		t.Errorf("%s\n%s\nof what does not exist\n%s", what, a, b)
	}
	if telling, least := tells(t, func(kind int) { ask(kind) }); telling {
		t.Errorf("%s: time tells it from what does not exist, by %.2f of all pairs at least", what, least)
	}
}

// TestAdministrationTakesAsLong has no right to it: neither flags nor what may be
// revoked can be told from what does not exist.
func TestAdministrationTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t)
	if resp := d.do("PUT", flagsPath("replay"), `{"value":false}`, as(d.issuer.Token(authtest.Role(twinrail.Owner)))); resp.status != http.StatusOK {
		t.Fatalf("%d %s", resp.status, resp.body)
	}
	for what, asks := range map[string][2][3]string{
		"setting a flag":    {{"PUT", flagsPath("replay"), `{"value":true}`}, {"PUT", flagsPath("nosuch"), `{"value":true}`}},
		"unsetting a flag":  {{"DELETE", flagsPath("replay"), ""}, {"DELETE", flagsPath("nosuch"), ""}},
		"revoking an actor": {{"POST", revocationsPath, `{"actor_id":"u_1"}`}, {"POST", revocationsPath, `{"actor_id":"u_0"}`}},
	} {
		alikeInTime(t, what, func(kind int) reply {
			return d.do(asks[kind][0], asks[kind][1], asks[kind][2], append(slices.Clone(fixed), as(token)...))
		}, twinrail.CodeNotFound)
	}
}

// TestResumeTakesAsLong resumes with the token of another actor, whose session is
// there or over; and one's own session with a grant that does not cover what was
// joined, where there is something or nothing.
func TestResumeTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	d, token := newUnreachable(t, func(o *Options) { o.JoinRate = -1 })
	joined := func(as, thread string) (p *driven, frame []byte) {
		p = d.drive(wsPath, as)
		frames, err := p.say(fmt.Sprintf(`{"op":"join","sub":"s","routing":{"thread_id":%q}}`, thread))
		if err != nil || len(frames) != 1 || frames[0].ResumeToken == "" {
			t.Fatal(frames, err)
		}
		p.leave("s")
		return p, fmt.Appendf(nil, `{"op":"resume","resume_token":%q,"cursors":{"s":"x"}}`, frames[0].ResumeToken)
	}
	resume := func(p *driven, frame []byte) string {
		if err := p.conn.handle(frame); err != nil {
			t.Fatal(err)
		}
		out := string(p.conn.out)
		p.conn.out = nil
		return out
	}
	_, alive := joined(d.issuer.Token(), "theirs")
	gone, over := joined(d.issuer.Token(), "theirs")
	gone.conn.session.End(gone.conn)
	p, foreign := d.drive(wsPath, token), [2][]byte{alive, over}
	if one, other := resume(p, alive), resume(p, over); one != other || !strings.Contains(one, `"resume_invalid"`) {
		t.Errorf("another's session that is there\n%s\nthat is over\n%s", one, other)
	}
	if telling, least := tells(t, func(kind int) { resume(p, foreign[kind]) }); telling {
		t.Errorf("time tells another's session that is there from one that is over, by %.2f of all pairs at least", least)
	}
	full := d.issuer.Token(authtest.Actor("u_9"))
	_, own := joined(full, "theirs")
	if said := resume(d.drive(wsPath, token), own); !strings.Contains(said, `"resumed"`) || !strings.Contains(said, `"not_found"`) {
		t.Errorf("one's own session, with a grant that does not cover what was joined: %s", said)
	}
	telling, least := tellsPrepared(t, func(kind int) func() {
		_, frame := joined(full, []string{"theirs", "nobody"}[kind])
		p := d.drive(wsPath, token)
		return func() { resume(p, frame) }
	})
	if telling {
		t.Errorf("time tells a subscription to what is there from one to what is not, by %.2f of all pairs at least", least)
	}
}

// TestTimesTell has one kind take half as long again, as a look at a stream that is
// there would: the same statistic notices. A control may be repeated where the
// machine is too busy for it; an alarm may not.
func TestTimesTell(t *testing.T) {
	d, token := newUnreachable(t)
	ask := func() { d.ask(unreachableBy["history of a canvas"](d, "nobody", as(token))) }
	start := time.Now()
	for range timedOfKind {
		ask()
	}
	half := time.Since(start) / timedOfKind / 2
	for name, more := range map[string]func(){
		"a page of history more": func() { d.do("GET", strings.Replace(historyPath, "c1", "mine", 1), "", as(token)) },
		half.String() + " more": func() {
			for start := time.Now(); time.Since(start) < half; {
			}
		},
	} {
		noticed, least := false, 0.0
		for try := 0; try < 5 && !noticed; try++ {
			noticed, least = tells(t, func(kind int) {
				if kind == 1 {
					more()
				}
				ask()
			})
		}
		if !noticed {
			t.Errorf("%s goes unnoticed: %.2f", name, least)
		}
	}
}

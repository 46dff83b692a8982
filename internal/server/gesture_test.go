package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/hub"
)

func gesture(kind, routing, data string) string {
	return `{"channel":"gesture","type":"` + kind + `","routing":{"canvas_id":"c1"` + routing + `},"data":` + data + `}`
}

// gesturePath asks for gestures beside commits.
const gesturePath = canvasPath + "&channels=commit,gesture"

// TestGesture publishes gestures over both ways in: those who ask for them are
// told, and nothing of it stays.
func TestGesture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.setFlag("gesture_fanout", "true")
		c, plain := r.tail(gesturePath), r.tail(canvasPath)
		c.open()
		plain.open()
		c.toLive()
		plain.toLive()
		head := r.commits(0, 1)
		c.event()
		resp := r.post(`{"events":[` + gesture("pointer", "", `{"x": 1}`) + `]}`)
		if got := string(resp.body); resp.status != http.StatusOK || !strings.HasPrefix(got, `{"results":[{"time":"`) || strings.Contains(got, "cursor") {
			t.Errorf("published: %d %s", resp.status, got)
		}
		b := c.want("gesture")
		if b.id != "" || !strings.HasPrefix(b.data, `{"v":1,"channel":"gesture","type":"pointer","time":"`) || !strings.HasSuffix(b.data, `"data":{"x": 1}}`) {
			t.Errorf("told %q", b.raw)
		}
		ws := r.actor("u_2")
		ws.say(`{"op":"publish","ref":"g","events":[%s]}`, gesture("caret", "", "2"))
		if ack := ws.want(twinrail.OpAck); len(ack.Results) != 1 || ack.Results[0].ID != "" || ack.Results[0].Seq != 0 {
			t.Errorf("ack %+v", ack)
		}
		if b := c.want("gesture"); !strings.Contains(b.data, `"actor_id":"u_2"`) {
			t.Errorf("told %q", b.raw)
		}
		if _, page := r.page(historyPath); page.Head != head.Cursor {
			t.Errorf("the head moved to %s", page.Head)
		}
		last := r.commits(1, 2)
		if b := c.want("commit"); b.id != last.Cursor {
			t.Errorf("then %q", b.raw)
		}
		plain.event()
		if b := plain.want("commit"); b.id != last.Cursor {
			t.Errorf("who asks for commits alone is told %q", b.raw)
		}
		if n := r.metric(`twinrail_events_published_total{channel="gesture"}`); n != 2 {
			t.Errorf("%v gestures are counted, want 2", n)
		}
	})
}

// TestGestureFlag switches gestures on and off under an open stream.
func TestGestureFlag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c := r.tail(gesturePath)
		c.open()
		c.toLive()
		body := `{"events":[` + gesture("pointer", "", "1") + `]}`
		for range 2 {
			if p := problemOf(t, r.post(body), twinrail.CodeFeatureDisabled); p.Field != "events[0].channel" {
				t.Errorf("%+v", p)
			}
			r.setFlag("gesture_fanout", "true")
			if resp := r.post(body); resp.status != http.StatusOK {
				t.Fatalf("switched on: %d %s", resp.status, resp.body)
			}
			c.want("gesture")
			r.setFlag("gesture_fanout", "false")
		}
		late := r.tail(gesturePath)
		late.open()
		late.toLive()
		r.commits(0, 1)
		c.want("commit")
		late.want("commit")
	})
}

// TestGesturesSwitchedOff has a stream owe its client a gesture when they are switched
// off: it is not told of it any more.
func TestGesturesSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.setFlag("gesture_fanout", "true")
		c := r.tail(gesturePath)
		c.open()
		c.toLive()
		r.post(`{"events":[` + gesture("pointer", "", "1") + `]}`)
		c.want("gesture")
		r.post(`{"events":[` + gesture("pointer", "", "2") + `]}`) // for the next round
		r.setFlag("gesture_fanout", "false")
		time.Sleep(2 * hub.GestureInterval)
		r.commits(0, 1)
		c.want("commit")
	})
}

// TestGestureOfEndedCredential: over an open WebSocket, too, a gesture takes a
// credential that is still good.
func TestGestureOfEndedCredential(t *testing.T) {
	for code, end := range credentialEnds {
		synctest.Test(t, func(t *testing.T) {
			r := newBubbleRig(t)
			r.setFlag("gesture_fanout", "true")
			ac, err := r.issuer.Principal(authtest.ExpiresIn(shortLife)).Enter(twinrail.Routing{
				TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio"}, "req-1", "")
			if err != nil {
				t.Fatal(err)
			}
			request := publishBody{Events: []incoming{{NewEvent: twinrail.NewEvent{Channel: twinrail.Gesture, Type: "pointer",
				Routing: &twinrail.Routing{CanvasID: "c1"}, Data: []byte("1")}}}}
			if _, err := r.server.gesture(ac, &request); err != nil {
				t.Fatal(err)
			}
			end(r)
			if _, err := r.server.gesture(ac, &request); twinrail.CodeOf(err) != code {
				t.Errorf("the answer is %v, want %s", err, code)
			}
		})
	}
}

// TestGestureHoldsUpNoCommit: a commit is not gathered behind gestures that went
// out by themselves, as it is behind a commit.
func TestGestureHoldsUpNoCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.setFlag("gesture_fanout", "true")
		c := r.tail(gesturePath)
		c.open()
		c.toLive()
		n := 0
		publish := func() time.Time {
			n++
			r.commits(n-1, n)
			return time.Now()
		}
		want := func(what string, published time.Time, gathered bool) {
			t.Helper()
			c.want("commit")
			if took := time.Since(published); gathered != (took > 0) || took > 5*time.Millisecond+gatherTick {
				t.Errorf("a commit behind %s is delivered after %v", what, took)
			}
		}
		body := `{"events":[` + gesture("pointer", "", "1") + `]}`
		for range 3 {
			time.Sleep(time.Second)
			r.post(body)
			c.want("gesture")
			want("gestures", publish(), false)
			want("a commit", publish(), true)
			time.Sleep(time.Second)
			want("nothing", publish(), false)
			r.post(body)
			want("a commit", publish(), true)
			c.want("gesture")
			want("a commit and gestures", publish(), true)
		}
	})
}

// TestGestureAudience: as with all events, who does not hold the panel is not
// told.
func TestGestureAudience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.setFlag("gesture_fanout", "true")
		holds, not := r.tail(gesturePath+"&panel_id=p1"), r.tail(gesturePath)
		for _, c := range []*tail{holds, not} {
			c.open()
			c.toLive()
		}
		r.post(`{"events":[` + gesture("pointer", `,"panel_id":"p1"`, "1") + `,` + gesture("caret", "", "2") + `]}`)
		if b := holds.want("gesture"); !strings.HasSuffix(b.data, `"data":1}`) {
			t.Errorf("told %q", b.raw)
		}
		holds.want("gesture")
		if b := not.want("gesture"); !strings.HasSuffix(b.data, `"data":2}`) {
			t.Errorf("who does not hold the panel is told %q", b.raw)
		}
	})
}

// TestGestureRefused: of a request that is refused nobody is told anything.
func TestGestureRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.MaxEvent = 100 })
		r.setFlag("gesture_fanout", "true")
		told := r.tail(gesturePath)
		told.open()
		told.toLive()
		g := gesture("pointer", "", "1")
		for body, c := range map[string]struct {
			code  twinrail.Code
			field string
		}{
			`{"events":[` + g + `],"expected_seq":0}`:                                                {twinrail.CodeBadRequest, "expected_seq"},
			`{"events":[` + g + `,` + commit(1) + `]}`:                                               {twinrail.CodeBadRequest, "events[1].channel"},
			`{"events":[` + commit(1) + `,` + g + `]}`:                                               {twinrail.CodeBadRequest, "events[1].channel"},
			`{"events":[{"id":"x",` + g[1:] + `]}`:                                                   {twinrail.CodeBadRequest, "events[0].id"},
			`{"events":[` + gesture("No", "", "1") + `]}`:                                            {twinrail.CodeBadRequest, "events[0].type"},
			`{"events":[` + strings.Repeat(g+",", 30) + g + `]}`:                                     {twinrail.CodeBadRequest, "events"},
			`{"events":[` + g + `,` + strings.Replace(g, "c1", "c2", 1) + `]}`:                       {twinrail.CodeBadRequest, "events[1].routing"},
			`{"events":[` + g + `,` + gesture("pointer", "", `"`+strings.Repeat("x", 99)+`"`) + `]}`: {twinrail.CodeTooLarge, "events[1].data"},
		} {
			if p := problemOf(t, r.post(body), c.code); p.Field != c.field {
				t.Errorf("%.80s: field %q, want %q", body, p.Field, c.field)
			}
		}
		viewer := r.issuer.Token(authtest.Grants(twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", Can: []string{"gesture:read", "commit:*"}}))
		problemOf(t, r.do("POST", publishPath, `{"events":[`+g+`]}`, as(viewer)), twinrail.CodeNotFound)
		problemOf(t, r.do("GET", gesturePath, "", as(r.issuer.Token(authtest.Grants(
			twinrail.Grant{WorkspaceID: "*", ProjectID: "*", AppID: "*", CanvasID: "*", Can: []string{"gesture:write", "commit:read"}})))), twinrail.CodeNotFound)
		r.setFlag("gesture_rate", "1")
		if resp := r.post(`{"events":[` + g + `]}`); resp.status != http.StatusOK {
			t.Fatalf("%d %s", resp.status, resp.body)
		}
		told.want("gesture")
		problemOf(t, r.post(`{"events":[`+gesture("late", "", "1")+`]}`), twinrail.CodeRateLimited)
		time.Sleep(2 * hub.GestureInterval)
		r.commits(0, 1)
		told.want("commit")
	})
}

// TestGestureRate has two actors gesture for a minute, one of them too fast: what
// goes through is the rate for as long as it lasts, and the other is not held up.
func TestGestureRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.setFlag("gesture_fanout", "true")
		r.setFlag("gesture_rate", "20")
		fast, slow := as(r.issuer.Token(authtest.Actor("fast"))), as(r.issuer.Token(authtest.Actor("slow")))
		body := `{"events":[` + gesture("pointer", "", "1") + `]}`
		passed, refused := make(map[string]int), 0
		send := func(name string, who header) {
			t.Helper()
			resp := r.do("POST", publishPath, body, who)
			if resp.status == http.StatusOK {
				passed[name]++
				return
			}
			refused++
			if p := problemOf(t, resp, twinrail.CodeRateLimited); p.Field != "gestures" {
				t.Fatalf("%+v", p)
			}
			if resp.header.Get("Retry-After") != "1" {
				t.Fatalf("Retry-After %q", resp.header.Get("Retry-After"))
			}
		}
		const seconds = 60
		for i := range seconds * 40 {
			send("fast", fast)
			if i%4 == 0 {
				send("slow", slow)
			}
			time.Sleep(time.Second / 40)
		}
		if n := passed["fast"]; n < seconds*20 || n > seconds*20+21 {
			t.Errorf("%d of %d passed, want %d and what may come at once", n, seconds*40, seconds*20)
		}
		if n := passed["slow"]; n != seconds*10 {
			t.Errorf("of one who keeps to the rate %d of %d passed", n, seconds*10)
		}
		if n := r.limited("gestures"); n != float64(refused) {
			t.Errorf("%v refusals counted of %d", n, refused)
		}
		r.setFlag("gesture_rate", "1000")
		for range 100 {
			send("after the rate was raised", fast)
		}
		time.Sleep(time.Second)
		for range 500 {
			send("later", fast)
		}
		if n := passed["later"]; n != 500 {
			t.Errorf("at the higher rate %d of 500 passed", n)
		}
	})
}

// TestGestureRateOfTenant has many actors gesture for a minute, each within its own
// rate: together they are held to that of the tenant, another tenant is not, and
// what is kept is not.
func TestGestureRateOfTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, actors = 100, 20
		r := newBubbleRig(t, func(o *Options) { o.PublishRate = rate })
		flags := func(c caller) {
			t.Helper()
			admin := c.issuer.Token(authtest.Tenant(c.tenant), authtest.Env(c.env), authtest.Role(twinrail.Admin))
			if resp := c.do("PUT", c.at(flagsPath("gesture_fanout")), `{"value":true}`, as(admin)); resp.status != http.StatusOK {
				t.Fatalf("%d %s", resp.status, resp.body)
			}
		}
		busy, quiet := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		flags(busy)
		flags(quiet)
		body := `{"events":[` + gesture("pointer", "", "1") + `]}`
		who := make([]header, actors)
		for i := range who {
			who[i] = as(r.issuer.Token(authtest.Actor(fmt.Sprint("u_", i))))
		}
		passed := 0
		const seconds = 60
		for i := range seconds * 10 {
			for _, actor := range who {
				if passes(t, "gestures", r.do("POST", publishPath, body, actor)) {
					passed++
				}
			}
			if i%10 == 0 && !busy.send("publishes", rate) {
				t.Fatal("gestures keep commits back")
			}
			if !passes(t, "gestures", quiet.ask("POST", publishPath, body)) {
				t.Fatal("another tenant is held up")
			}
			time.Sleep(time.Second / 10)
		}
		if passed < seconds*rate || passed > seconds*rate+rate+1 {
			t.Errorf("%d gestures passed of %d, want %d and what may come at once", passed, seconds*10*actors, seconds*rate)
		}
	})
}

// TestRefusedGestureCostsNothing has a tenant be over its rate: an actor that was
// refused for it has its own rate left.
func TestRefusedGestureCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.PublishRate = 1 }) // 100 at once
		r.setFlag("gesture_fanout", "true")
		r.setFlag("gesture_rate", "100")
		body := `{"events":[` + strings.Repeat(gesture("pointer", "", "1")+",", 99) + gesture("pointer", "", "1") + `]}`
		ann, bob := as(r.issuer.Token(authtest.Actor("ann"))), as(r.issuer.Token(authtest.Actor("bob")))
		send := func(who header) bool { t.Helper(); return passes(t, "gestures", r.do("POST", publishPath, body, who)) }
		if !send(ann) || send(bob) || send(bob) {
			t.Fatal("the tenant is not held to its rate")
		}
		r.server.opts.PublishRate = -1
		if !send(bob) {
			t.Error("what was refused has cost its actor")
		}
	})
}

// TestGestureBytes has actors gesture for a while, in many bytes: together they are
// held to the bytes of their tenant, another tenant is not, and what is kept is not.
func TestGestureBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 20_000, 10_000
		r := newBubbleRig(t, func(o *Options) { o.PublishBytes, o.MaxBody, o.MaxFrame = rate, rate, rate })
		busy, quiet := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		for _, c := range []caller{busy, quiet} {
			admin := c.issuer.Token(authtest.Tenant(c.tenant), authtest.Env(c.env), authtest.Role(twinrail.Admin))
			if resp := c.do("PUT", c.at(flagsPath("gesture_fanout")), `{"value":true}`, as(admin)); resp.status != http.StatusOK {
				t.Fatalf("%d %s", resp.status, resp.body)
			}
		}
		body := `{"events":[` + gesture("pointer", "", `"`+strings.Repeat("x", size)+`"`) + `]}`
		passed := 0
		const seconds = 30
		for i := range seconds * 10 {
			if passes(t, "bytes", busy.ask("POST", publishPath, body)) {
				passed++
			}
			if i%20 == 0 && !busy.send("bytes", 1) {
				t.Fatal("gestures keep commits back")
			}
			if i%20 == 0 && !passes(t, "bytes", quiet.ask("POST", publishPath, body)) {
				t.Fatal("another tenant is held up")
			}
			time.Sleep(time.Second / 10)
		}
		if most := (seconds*rate + rate) / size; passed < most-4 || passed > most {
			t.Errorf("%d gestures of %d bytes passed of %d, want %d", passed, size, seconds*10, most)
		}
	})
}

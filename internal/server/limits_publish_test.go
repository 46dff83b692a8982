package server

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// TestPublishRate publishes for a minute over both ways in, faster than the
// tenant may: what goes through is the rate, and another tenant is not held up.
func TestPublishRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.PublishRate, o.FrameRate = 50, -1 })
		a, b := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		p := a.peer()
		passed := 0
		const seconds, burst = 60, maxEvents
		for i := range seconds * 10 {
			if a.send("publishes", 5) {
				passed += 5
			}
			p.say(`{"op":"publish","ref":"w","events":[%s,%s]}`, chat(1), chat(2))
			switch f := p.said(); {
			case f.Op == twinrail.OpAck:
				passed += 2
			case f.Code != twinrail.CodeRateLimited || f.Field != "publishes" || f.Ref != "w" || f.RetryAfterMS < 1 || f.RetryAfterMS > 40:
				t.Fatalf("refused with %+v", f)
			}
			a.send("publishes", maxEvents) // but for the first time, this takes nothing
			if !b.send("publishes", 5) {
				t.Fatalf("the other tenant is held up at %d", i)
			}
			time.Sleep(time.Second / 10)
		}
		if most := seconds*50 + burst; passed > most || passed < most-10 {
			t.Errorf("%d passed, want %d", passed, most)
		}
		time.Sleep(2 * time.Second)
		if !a.send("publishes", maxEvents) {
			t.Error("after a rest, as many as a publish may have are refused")
		}
	})
}

// TestPublishBytes is TestPublishRate for bytes.
func TestPublishBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.PublishBytes, o.MaxBody, o.MaxFrame = 1000, 4096, 2048 })
		a, b := r.caller("t_acme", "dev"), r.caller("t_other", "dev")
		event := func(size int) string {
			return `{"events":[{"channel":"commit","type":"t","to":["u_2"],"routing":{"canvas_id":"c1"},"data":"` + strings.Repeat("x", size-1-3-2) + `"}]}`
		}
		passed := 0
		const seconds, burst = 60, 4096
		for range seconds * 10 {
			if passes(t, "bytes", a.ask("POST", publishPath, event(150))) {
				passed += 150
			}
			if !passes(t, "bytes", b.ask("POST", publishPath, event(100))) {
				t.Fatal("the other tenant is held up")
			}
			time.Sleep(time.Second / 10)
		}
		if most := seconds*1000 + burst; passed > most || passed < most-300 {
			t.Errorf("%d bytes passed, want %d", passed, most)
		}
		if n := r.limited("bytes"); n == 0 || r.limited("publishes") != 0 {
			t.Errorf("counted %v and %v", n, r.limited("publishes"))
		}
		time.Sleep(5 * time.Second)
		if whole := event(4096 - 90); len(whole) > 4096 || !passes(t, "bytes", a.ask("POST", publishPath, whole)) {
			t.Errorf("after a rest, a body of %d bytes is refused", len(whole))
		}
		// Retry-After is in whole seconds, and there are enough of them.
		resp := a.ask("POST", publishPath, event(3500)) // which are there in 3.4 s
		if passes(t, "bytes", resp) || resp.header.Get("Retry-After") != "4" {
			t.Errorf("%d, Retry-After %q", resp.status, resp.header.Get("Retry-After"))
		}
		time.Sleep(4 * time.Second)
		if !passes(t, "bytes", a.ask("POST", publishPath, event(3500))) {
			t.Error("refused when it had been told to come again")
		}
	})
}

// TestPublishSize: what a publisher makes as long as it likes counts, of all events.
func TestPublishSize(t *testing.T) {
	event := incoming{NewEvent: twinrail.NewEvent{ID: "1", Type: "22", To: []string{"333", "4444"}, Data: []byte(`"555"`)}}
	request := publishBody{Events: []incoming{event, event}}
	if n := request.size(); n != 2*(1+2+3+4+5) {
		t.Errorf("a publish counts as %d bytes", n)
	}
}

// TestRefusedPublishTakesNothing: what is wrong in another way is answered with
// that, at the limit too, and takes nothing of the rate.
func TestRefusedPublishTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.PublishRate, o.MaxEvent = 1, 100 })
		a := r.caller("t_acme", "dev")
		a.token = r.issuer.Token(authtest.Grants(twinrail.Grant{
			WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", Can: []string{"*"}}))
		wrong := func() {
			for event, code := range map[string]twinrail.Code{
				commit(1) + `,` + strings.Replace(commit(1), "c1", "c2", 1):                              twinrail.CodeNotFound,
				commit(1) + `,{"channel":"commit"}`:                                                      twinrail.CodeBadRequest,
				strings.Replace(commit(1), "data\":", `data":"`+strings.Repeat("x", 100)+`",`+`"x":`, 1): twinrail.CodeBadRequest,
				strings.Replace(commit(1), "data\":1", `data":"`+strings.Repeat("x", 100)+`"`, 1):        twinrail.CodeTooLarge,
			} {
				problemOf(t, a.ask("POST", publishPath, `{"events":[`+event+`]}`), code)
			}
		}
		for range 50 {
			wrong()
		}
		if !a.send("publishes", maxEvents) {
			t.Error("something was taken")
		}
		if a.send("publishes", 1) {
			t.Error("nothing was taken")
		}
		wrong()
		if n := r.limited("publishes"); n != 1 {
			t.Errorf("%v refusals counted", n)
		}
	})
}

// stopped is a journal that stands still, until it goes on or nobody waits for it.
type stopped struct {
	journal.Journal
	goesOn    chan struct{}
	appending atomic.Int32
}

func (j *stopped) Append(ctx context.Context, recs []journal.Record, e journal.Expect) ([]journal.Result, error) {
	j.appending.Add(1)
	defer j.appending.Add(-1)
	select {
	case <-j.goesOn:
		return j.Journal.Append(ctx, recs, e)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestGonePublisherHoldsItsPlace: who does not wait for the answer makes no room for
// more of them.
func TestGonePublisherHoldsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &stopped{Journal: journal.NewMemory(journal.MemoryOptions{}), goesOn: make(chan struct{})}
		r := newBubbleRig(t, func(o *Options) { o.Journal = j })
		request := publishBody{Events: []incoming{{NewEvent: twinrail.NewEvent{Channel: twinrail.Commit, Type: "t", Data: []byte("1"),
			Routing: &twinrail.Routing{WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1"}}}}}
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.server.publishAny(ctx, r.issuer.Context("t_acme", "u_1"), &request, "")
			done <- err
		}()
		synctest.Wait()
		leave()
		synctest.Wait()
		if n := j.appending.Load(); n != 1 {
			t.Errorf("%d publishes are under way once the publisher has left", n)
		}
		close(j.goesOn)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestQuota fills what a tenant may keep.
func TestQuota(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Journal = journal.NewMemory(journal.MemoryOptions{Quota: journal.Quota{Streams: 2, Bytes: 5000}})
	})
	r.commits(0, 1)
	r.chats(0, 1)
	large := strings.Replace(commit(1), `"data":1`, `"data":"`+strings.Repeat("x", 5000)+`"`, 1)
	for event, field := range map[string]string{strings.Replace(commit(1), "c1", "c2", 1): "streams", large: "bytes"} {
		resp := r.post(`{"events":[` + event + `]}`)
		if p := problemOf(t, resp, twinrail.CodeLimitExceeded); p.Field != field || resp.header.Get("Retry-After") != "30" {
			t.Errorf("%+v, Retry-After %q; want field %s", p, resp.header.Get("Retry-After"), field)
		}
		if n := r.limited("retained_" + field); n != 1 {
			t.Errorf("%s: %v refusals counted", field, n)
		}
	}
	r.commits(1, 2)
}

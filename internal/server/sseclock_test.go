package server

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

func TestSSEHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		seen := make(map[time.Duration]bool)
		for range 50 {
			before := time.Now()
			if b := c.next(); b.raw != ":\n\n" {
				t.Fatalf("got %q, want a comment", b.raw)
			}
			interval := time.Since(before)
			if interval < 13500*time.Millisecond || interval > 16500*time.Millisecond+time.Millisecond {
				t.Errorf("a comment after %v", interval)
			}
			seen[interval] = true
		}
		if len(seen) < 25 {
			t.Errorf("50 heartbeats came at %d intervals", len(seen))
		}
	})
}

// TestSSEHeartbeatCarriesID moves the cursor past events that are for others: the
// next comment brings the id to come back to, once.
func TestSSEHeartbeatCarriesID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		var last twinrail.PublishResult
		for range 3 {
			last = r.publish(`{"channel":"commit","type":"t","to":["u_2"],"routing":{"canvas_id":"c1"},"data":1}`)[0]
		}
		if b := c.next(); b.raw != ":\nid: "+last.Cursor+"\n\n" {
			t.Errorf("got %q, want a comment with the id %s", b.raw, last.Cursor)
		}
		if b := c.next(); b.raw != ":\n\n" {
			t.Errorf("got %q, want a comment alone", b.raw)
		}
		mine := r.commits(0, 1)
		if e := c.event(); e.Cursor != mine.Cursor || *e.Prev != last.Seq {
			t.Errorf("got %+v", e)
		}
		if b := c.next(); b.raw != ":\n\n" {
			t.Errorf("got %q, want a comment alone", b.raw)
		}
	})
}

// TestSSEHeartbeatOfKinds: an artifact of a kind that was not asked for is one for
// others; a gesture is no place to come back to.
func TestSSEHeartbeatOfKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t)
		r.setFlag("gesture_fanout", "true")
		c := r.tail(canvasPath + "&channels=commit,artifact,gesture&kinds=audit")
		c.open()
		c.toLive()
		r.publish(artifact(1, `"audit"`))
		c.event()
		last := r.publish(artifact(2, `"preview"`))[0]
		if b := c.next(); b.raw != ":\nid: "+last.Cursor+"\n\n" {
			t.Errorf("got %q, want a comment with the id %s", b.raw, last.Cursor)
		}
		r.post(`{"events":[` + gesture("pointer", "", "1") + `]}`)
		c.want("gesture")
		if b := c.next(); b.raw != ":\n\n" {
			t.Errorf("got %q, want a comment alone", b.raw)
		}
	})
}

func TestSSECredentialEnds(t *testing.T) {
	for life, wait := range map[time.Duration]time.Duration{100 * time.Second: 70 * time.Second, 20 * time.Second: 0} {
		synctest.Test(t, func(t *testing.T) {
			r := newBubbleRig(t)
			r.token = r.issuer.Token(authtest.ExpiresIn(life))
			opened := time.Now()
			c := r.tail(canvasPath)
			c.open()
			b := c.next()
			for ; b.event != twinrail.SSEAuthExpiring; b = c.next() {
				if b.event != twinrail.SSELive && !b.comment || time.Since(opened) > 2*life {
					t.Fatalf("got %q before auth_expiring", b.raw)
				}
			}
			var notice twinrail.AuthExpiring
			unmarshal(t, []byte(b.data), &notice)
			if at := time.Since(opened); at < wait || at > wait+2*time.Millisecond || !notice.ExpiresAt.Equal(opened.Add(life)) {
				t.Errorf("told after %v of %v", at, notice)
			}
			for b = c.next(); b.event != twinrail.SSEEnd; b = c.next() {
				if b.event != twinrail.SSELive && !b.comment || time.Since(opened) > 2*life {
					t.Fatalf("got %q before end", b.raw)
				}
			}
			if at := time.Since(opened); at < life || at > life+2*time.Millisecond {
				t.Errorf("ended after %v, want %v", at, life)
			}
			var end twinrail.End
			unmarshal(t, []byte(b.data), &end)
			if end != (twinrail.End{Code: twinrail.CodeCredentialExpired, Reconnect: true}) {
				t.Errorf("end %+v", end)
			}
			c.ends()
			synctest.Wait()
			if n := r.metric(`twinrail_connections_closed_total{code="credential_expired",rail="sse"}`); n != 1 {
				t.Errorf("%v connections counted as expired", n)
			}
		})
	}
}

// stall has one event on its way to clients that do not read, so that nothing
// else can be written to them. It is for bubbles only.
func (r *rig) stall() {
	r.t.Helper()
	time.Sleep(time.Second) // so that it is not held to be gathered
	r.commits(0, 1)
	synctest.Wait()
}

// TestSSEOvertaken has retention overtake a reader that stops: it is told once
// and goes on from the head.
func TestSSEOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, keep(10), func(o *Options) { o.Window = -1 })
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		r.stall()
		last := r.commits(1, 100)
		_, page := r.page(historyPath)
		first := c.event()
		b := c.want(twinrail.SSEReset)
		var got twinrail.Reset
		unmarshal(t, []byte(b.data), &got)
		want := twinrail.Reset{Reason: twinrail.CodeCursorExpired, Requested: first.Cursor, Oldest: page.Oldest, Head: last.Cursor}
		if got != want || b.id != last.Cursor {
			t.Errorf("reset %+v with id %s, want %+v", got, b.id, want)
		}
		r.commits(100, 105)
		events := c.events(5)
		if dataOf(events) != count(100, 105) {
			t.Errorf("then %s", dataOf(events))
		}
		checkChain(t, events, last.Seq)
		if n := r.metric(`twinrail_resets_total{reason="cursor_expired"}`); n != 1 {
			t.Errorf("%v resets counted", n)
		}
	})
}

// givenUpAfter checks that the one connection of a rail, whose client takes nothing
// any more, is given up when its write timeout is over, and not before.
func (r *rig) givenUpAfter(rail twinrail.Rail, timeout time.Duration) {
	r.t.Helper()
	closed := fmt.Sprintf(`twinrail_connections_closed_total{code="too_slow",rail=%q}`, rail)
	time.Sleep(timeout - time.Millisecond)
	synctest.Wait()
	if r.metric(closed) != 0 {
		r.t.Error("given up before the write timeout")
	}
	time.Sleep(2 * time.Millisecond)
	synctest.Wait()
	if r.metric(closed) != 1 || r.metric("twinrail_subscriptions") != 0 {
		r.t.Error("still open after the write timeout")
	}
}

// TestSSETooSlow has a reader that never reads again: it is given up after the
// write timeout.
func TestSSETooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBubbleRig(t, func(o *Options) { o.WriteTimeout = 7 * time.Second })
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		r.stall()
		r.givenUpAfter(twinrail.RailSSE, 7*time.Second)
	})
}

// TestSSEJournalFails closes the journal under a reader that has to ask it.
func TestSSEJournalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := journal.NewMemory(journal.MemoryOptions{})
		r := newBubbleRig(t, func(o *Options) { o.Journal, o.Window = j, -1 })
		c := r.tail(canvasPath)
		c.open()
		c.toLive()
		r.stall()
		r.commits(1, 2)
		_ = j.Close()
		c.event()
		var end twinrail.End
		unmarshal(t, []byte(c.want(twinrail.SSEEnd).data), &end)
		if end != (twinrail.End{Code: twinrail.CodeUnavailable, Reconnect: true}) {
			t.Errorf("end %+v", end)
		}
		c.ends()
	})
}

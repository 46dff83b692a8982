package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

const threadHistoryPath = twinrail.PathHistory + "?" + appQuery + "&thread_id=th1"

// replayLog is a stream of 25 events with the data 0 to 24, of which the last 20
// are kept. Position 0 is before the first, position i behind the event i-1.
type replayLog struct {
	positions []string
	unknown   string // a cursor of another stream
}

func (r *rig) replayLog(history string, event func(int) string) replayLog {
	r.t.Helper()
	_, empty := r.page(history)
	l := replayLog{[]string{empty.Head}, ""}
	for i := range 25 {
		l.positions = append(l.positions, r.publish(event(i))[0].Cursor)
	}
	l.unknown = r.publish(strings.NewReplacer("c1", "c2", "th1", "th2").Replace(event(0)))[0].Cursor
	return l
}

// replayStart is where who gives a cursor must start.
type replayStart struct {
	cursor  string
	resumed bool
	reason  twinrail.Code
	oldest  string // as a reset says it
	data    string // of what follows
}

// starts returns where each start must be. Off differs in nothing but in what is
// the oldest position.
func (l replayLog) starts(on bool) map[string]replayStart {
	head := len(l.positions) - 1
	oldest := head
	if on {
		oldest = head - 20
	}
	void := func(reason twinrail.Code) replayStart {
		return replayStart{l.positions[head], false, reason, l.positions[oldest], ""}
	}
	at := func(i int, resumed bool) replayStart {
		return replayStart{l.positions[i], resumed, "", "", count(i, head)}
	}
	starts := map[string]replayStart{
		"":                      at(head, false),
		twinrail.CursorEarliest: at(oldest, false),
		l.unknown:               void(twinrail.CodeCursorUnknown),
		"nonsense":              void(twinrail.CodeCursorUnknown),
	}
	for i, cursor := range l.positions {
		if starts[cursor] = at(i, true); i < oldest {
			starts[cursor] = void(twinrail.CodeCursorExpired)
		}
	}
	return starts
}

// eachReplay runs the test with replay on as it is built in, on as it was set,
// off for the tenant, off for all, and on again.
func eachReplay(t *testing.T, r *rig, test func(t *testing.T, on bool)) {
	steps := []struct {
		name string
		set  func()
		on   bool
	}{
		{"built in", func() {}, true},
		{"set", func() { r.setFlag("replay", "true") }, true},
		{"off for another tenant", func() { r.flag("PUT", "replay", "t_other", twinrail.Owner, `{"value":false}`) }, true},
		{"off", func() { r.setFlag("replay", "false") }, false},
		{"off for all", func() {
			r.flag("PUT", "replay", "t_0", twinrail.Owner, `{"value":false}`)
			r.flag("DELETE", "replay", "t_acme", twinrail.Owner, "")
		}, false},
		{"on again", func() { r.setFlag("replay", "true") }, true},
	}
	for _, step := range steps {
		step.set()
		t.Run(step.name, func(t *testing.T) { test(t, step.on) })
	}
}

// TestReplaySSE opens the SSE rail everywhere.
func TestReplaySSE(t *testing.T) {
	r := newRig(t, keep(20))
	l := r.replayLog(historyPath, commit)
	head := l.positions[25]
	eachReplay(t, r, func(t *testing.T, on bool) {
		for cursor, want := range l.starts(on) {
			c := r.tail(canvasPath, "Last-Event-ID", cursor)
			c.t = t
			if o := c.open(); o.Cursor != want.cursor || o.Head != head || o.Resumed != want.resumed || o.Reason != want.reason {
				t.Errorf("from %q: open %+v, want %+v", cursor, o, want)
			}
			if want.reason != "" {
				var got twinrail.Reset
				unmarshal(t, []byte(c.want(twinrail.SSEReset).data), &got)
				if reset := (twinrail.Reset{Reason: want.reason, Requested: cursor, Oldest: want.oldest, Head: head}); got != reset {
					t.Errorf("from %q: reset %+v, want %+v", cursor, got, reset)
				}
				problemOf(t, r.get(canvasPath+"&on_reset=fail&cursor="+cursor), twinrail.CodeCursorExpired)
			}
			if got := dataOf(c.toLive()); got != want.data {
				t.Errorf("from %q: got %s, want %s", cursor, got, want.data)
			}
			_ = c.nc.Close()
		}
	})
}

// TestReplayWS joins everywhere.
func TestReplayWS(t *testing.T) {
	r := newRig(t, keep(20), func(o *Options) { o.FrameRate = -1 })
	l := r.replayLog(threadHistoryPath, chat)
	head := l.positions[25]
	p := r.peer()
	eachReplay(t, r, func(t *testing.T, on bool) {
		p.t = t
		for cursor, want := range l.starts(on) {
			after := ""
			if cursor != "" {
				after = fmt.Sprintf(`,"after":%q`, cursor)
			}
			joined := p.join("a", after)
			if joined.Cursor != want.cursor || joined.Head != head || *joined.Resumed != want.resumed || joined.Reason != want.reason {
				t.Errorf("after %q: joined %+v, want %+v", cursor, joined, want)
			}
			p.wantReplayed(cursor, want, head)
			p.say(`{"op":"leave","sub":"a"}`)
			p.want(twinrail.OpLeft)
		}
	})
}

// wantReplayed reads what follows joined, or resumed, for the sub a.
func (p *peer) wantReplayed(cursor string, want replayStart, head string) {
	p.t.Helper()
	if want.reason != "" {
		if f := p.want(twinrail.OpReset); f.Sub != "a" || f.Reason != want.reason || f.Oldest != want.oldest || f.Head != head {
			p.t.Errorf("after %q: reset %+v, want %+v", cursor, f, want)
		}
	}
	if got := dataOf(p.events("a", len(strings.Fields(want.data)))); got != want.data {
		p.t.Errorf("after %q: got %s, want %s", cursor, got, want.data)
	}
	if f := p.want(twinrail.OpLive); f.Sub != "a" || f.Cursor != head {
		p.t.Errorf("after %q: %+v, want live at the head", cursor, f)
	}
}

// TestReplayResume resumes a session of one subscription everywhere.
func TestReplayResume(t *testing.T) {
	r := newRig(t, keep(20))
	l := r.replayLog(threadHistoryPath, chat)
	head := l.positions[25]
	eachReplay(t, r, func(t *testing.T, on bool) {
		for cursor, want := range l.starts(on) {
			if cursor == "" {
				continue // without a cursor there is nothing to resume
			}
			p, _ := r.greet(r.token)
			p.t = t
			token := p.join("a", "").ResumeToken
			_ = p.nc.Close()
			p, _ = r.greet(r.token)
			p.t = t
			resumed := p.resumes(token, map[string]string{"a": cursor}).Subs[0]
			if resumed.Cursor != want.cursor || resumed.Head != head || resumed.Resumed != want.resumed || resumed.Reason != want.reason {
				t.Errorf("from %q: resumed %+v, want %+v", cursor, resumed, want)
			}
			p.wantReplayed(cursor, want, head)
			_ = p.nc.Close()
		}
	})
}

// TestReplayHistory asks for a page everywhere.
func TestReplayHistory(t *testing.T) {
	for name, rail := range map[string]struct {
		path  string
		event func(int) string
	}{"canvas": {historyPath, commit}, "thread": {threadHistoryPath, chat}} {
		r := newRig(t, keep(20))
		l := r.replayLog(rail.path, rail.event)
		head := l.positions[25]
		eachReplay(t, r, func(t *testing.T, on bool) {
			for cursor, want := range l.starts(on) {
				if want.reason != "" {
					resp := r.get(rail.path + "&after=" + cursor)
					p := problemOf(t, resp, twinrail.CodeCursorExpired)
					if resp.status != http.StatusGone || !strings.HasPrefix(p.Detail, string(want.reason)) {
						t.Errorf("%s after %q: %d %s, want %s", name, cursor, resp.status, p.Detail, want.reason)
					}
					continue
				}
				after := "&after=" + cursor
				if cursor == "" { // a page is from the oldest on then
					after, want = "", l.starts(on)[twinrail.CursorEarliest]
				}
				events, page := r.page(rail.path + after)
				oldest := l.starts(on)[twinrail.CursorEarliest].cursor
				if dataOf(events) != want.data || page.Oldest != oldest || page.Head != head || page.Next != head {
					t.Errorf("%s after %q: %s, %+v, want %s from %s to %s", name, cursor, dataOf(events), page, want.data, oldest, head)
				}
			}
		})
	}
}

// TestReplaySwitchedOff switches replay off under connections that have a backlog
// to read, and others that are live: they go on, and miss nothing of what comes.
func TestReplaySwitchedOff(t *testing.T) {
	for _, window := range []int{-1, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			r := newBubbleRig(t, func(o *Options) { o.Window = window })
			const backlog = 500 // several writes, of which a pipe holds none
			publish := func(from, to int) { r.commits(from, to); r.chats(from, to) }
			publish(0, backlog)
			behind, behindWS := r.tail(canvasPath+"&cursor=earliest"), r.peer()
			behind.open()
			behindWS.join("a", `,"after":"earliest"`)
			live, liveWS := r.tail(canvasPath), r.peer()
			live.open()
			live.toLive()
			liveWS.live("a")
			r.setFlag("replay", "false")
			publish(backlog, 2*backlog) // which nobody reads before it is all there

			for _, c := range []struct {
				name  string
				next  func() (twinrail.Event, bool)
				first int
			}{
				{"canvas behind", behind.nextEvent, 0}, {"canvas live", live.nextEvent, backlog},
				{"thread behind", behindWS.nextEvent, 0}, {"thread live", liveWS.nextEvent, backlog},
			} {
				for want := c.first; want < 2*backlog; {
					e, ok := c.next()
					if !ok {
						continue
					}
					if string(e.Data) != strconv.Itoa(want) {
						t.Fatalf("window %d, %s: got %s, want %d", window, c.name, e.Data, want)
					}
					want++
				}
			}
		})
	}
}

// nextEvent returns the next event; false stands for live, and nothing else may
// come.
func (c *tail) nextEvent() (e twinrail.Event, ok bool) {
	c.t.Helper()
	b := c.next()
	if b.event == twinrail.SSELive {
		return e, false
	}
	unmarshal(c.t, []byte(b.data), &e)
	if b.event != string(e.Channel) {
		c.t.Fatalf("got %q, want an event", b.raw)
	}
	return e, true
}

func (p *peer) nextEvent() (e twinrail.Event, ok bool) {
	p.t.Helper()
	f := p.next()
	if f.Op == twinrail.OpLive {
		return e, false
	}
	if f.Op != twinrail.OpEvent {
		p.t.Fatalf("got %+v, want an event", f)
	}
	unmarshal(p.t, f.Event, &e)
	return e, true
}

// TestReplayAppendMeanwhile publishes while a page is asked for: what is appended
// once it is known where the stream ends is not in it.
func TestReplayAppendMeanwhile(t *testing.T) {
	j := &boundsJournal{Journal: journal.NewMemory(journal.MemoryOptions{})}
	r := newRig(t, func(o *Options) { o.Journal = j })
	last := r.commits(0, 3)
	r.setFlag("replay", "false")
	for _, ask := range []string{"", "&after="} {
		at := last.Cursor
		if ask != "" {
			ask += at
		}
		j.after(func() { last = r.commits(3, 5) })
		events, page := r.page(historyPath + ask)
		if len(events) != 0 || page.Oldest != at || page.Head != at || page.Next != at {
			t.Errorf("got %s, %+v, want the head as it was, %s", dataOf(events), page, at)
		}
		problemOf(t, r.get(historyPath+"&after="+at), twinrail.CodeCursorExpired)
	}
}

// boundsJournal is a journal that can do something right after it has said where
// a stream begins and ends.
type boundsJournal struct {
	journal.Journal
	mu   sync.Mutex
	then func()
}

// after has fn called after the next Bounds.
func (j *boundsJournal) after(fn func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.then = fn
}

func (j *boundsJournal) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	b, err := j.Journal.Bounds(ctx, r)
	j.mu.Lock()
	then := j.then
	j.then = nil
	j.mu.Unlock()
	if then != nil {
		then()
	}
	return b, err
}

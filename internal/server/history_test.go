package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// keep is a journal in memory that keeps n events of each stream, whose seqs are
// not dense.
func keep(n int64) func(*Options) {
	return func(o *Options) {
		o.Journal = journal.NewMemory(journal.MemoryOptions{Retention: journal.Retention{Count: n}, Stride: 3})
	}
}

func TestHistoryPages(t *testing.T) {
	r := newRig(t, keep(0))
	_, empty := r.page(historyPath)
	if len(empty.Events) != 0 || empty.Next != empty.Head || empty.Oldest != empty.Head {
		t.Errorf("an empty stream: %+v", empty)
	}
	last := r.commits(0, 25)
	for _, from := range []string{"", "&after=earliest", "&after=" + empty.Head} {
		var got []twinrail.Event
		after, pages := from, 0
		for ; pages < 10; pages++ {
			events, page := r.page(historyPath + "&limit=10" + after)
			got = append(got, events...)
			if page.Head != last.Cursor || page.Oldest != empty.Head {
				t.Fatalf("oldest %s, head %s", page.Oldest, page.Head)
			}
			if page.Next == page.Head {
				break
			}
			after = "&after=" + page.Next
		}
		if dataOf(got) != count(0, 25) || pages != 2 {
			t.Errorf("from %q: %d pages more, %s", from, pages, dataOf(got))
		}
		prev := uint64(0)
		for _, e := range got {
			if *e.Prev != prev || e.Seq <= prev {
				t.Fatalf("seq %d, prev %d after %d", e.Seq, *e.Prev, prev)
			}
			prev = e.Seq
		}
	}
	events, page := r.page(historyPath + "&after=" + last.Cursor)
	if len(events) != 0 || page.Next != last.Cursor {
		t.Errorf("after the head: %d events, next %s", len(events), page.Next)
	}
}

func TestHistoryLimit(t *testing.T) {
	r := newRig(t)
	r.commits(0, 1200)
	for limit, want := range map[string]int{"": 100, "&limit=1": 1, "&limit=1000": 1000} {
		if events, _ := r.page(historyPath + limit); len(events) != want {
			t.Errorf("%q: %d events, want %d", limit, len(events), want)
		}
	}
	for _, limit := range []string{"0", "-1", "1001", "x", "1e2"} {
		if p := problemOf(t, r.get(historyPath+"&limit="+limit), twinrail.CodeBadRequest); p.Field != "limit" {
			t.Errorf("%s: field %q", limit, p.Field)
		}
	}
}

// TestHistoryIsBounded pages through events that are large, and through many
// that are for somebody else: no page holds all, none is lost.
func TestHistoryIsBounded(t *testing.T) {
	r := newRig(t)
	large := strings.Repeat("x", 60<<10)
	for i := range 100 {
		to := `"u_2"`
		if i%10 == 0 {
			to = `"u_1"`
		}
		r.publish(fmt.Sprintf(`{"channel":"commit","type":"n%d","to":[%s],"routing":{"canvas_id":"c1"},"data":%q}`, i, to, large))
	}
	var types []string
	after, pages := "", 0
	for ; pages < 100; pages++ {
		events, page := r.page(historyPath + after)
		for _, e := range events {
			types = append(types, e.Type)
		}
		if page.Next == page.Head {
			break
		}
		after = "&after=" + page.Next
	}
	if got := strings.Join(types, " "); got != "n0 n10 n20 n30 n40 n50 n60 n70 n80 n90" || pages == 0 {
		t.Errorf("%d pages more: %s", pages, got)
	}
}

func TestHistoryIsFiltered(t *testing.T) {
	r := newRig(t)
	event := func(channel, routing, to string, data string) string {
		return fmt.Sprintf(`{"channel":%q,"type":"t","routing":{%s}%s,"data":%s}`, channel, routing, to, data)
	}
	r.publish(
		event("commit", `"canvas_id":"c1"`, "", "1"),
		event("commit", `"canvas_id":"c1","panel_id":"pa"`, "", "2"),
		event("commit", `"canvas_id":"c1","panel_id":"pb","thread_id":"th1"`, "", "3"),
		event("commit", `"canvas_id":"c1"`, `,"to":["u_2","u_3"]`, "4"),
		event("artifact", `"canvas_id":"c1"`, "", `{"kind":"preview"}`),
	)
	r.publish(event("chat", `"thread_id":"th1"`, "", "6"), event("tool", `"thread_id":"th1","canvas_id":"c1"`, "", "7"))
	other := r.issuer.Token(authtest.Actor("u_2"))
	for _, c := range []struct{ query, token, want string }{
		{"canvas_id=c1", r.token, `1 {"kind":"preview"}`},
		{"canvas_id=c1", other, `1 4 {"kind":"preview"}`},
		{"canvas_id=c1&panel_id=pa&channels=commit", r.token, "1 2"},
		{"canvas_id=c1&panel_id=pb&channels=commit", r.token, "1"},
		{"canvas_id=c1&panel_id=pb&thread_id=th1&channels=commit,artifact", r.token, `1 3 {"kind":"preview"}`},
		{"canvas_id=c1&channels=artifact", r.token, `{"kind":"preview"}`},
		{"thread_id=th1", r.token, "6"},
		{"thread_id=th1&canvas_id=c1&channels=chat,tool", r.token, "6 7"},
		{"thread_id=th1&channels=chat", r.token, "6"},
		{"canvas_id=c2", r.token, ""},
	} {
		resp := r.do("GET", twinrail.PathHistory+"?"+appQuery+"&"+c.query, "", as(c.token))
		var page struct{ Events []twinrail.Event }
		unmarshal(t, resp.body, &page)
		if got := dataOf(page.Events); resp.status != http.StatusOK || got != c.want {
			t.Errorf("%s: %d %s, want %s", c.query, resp.status, got, c.want)
		}
	}
	for query, field := range map[string]string{
		"canvas_id=c1&thread_id=th1":            "channels",
		"canvas_id=c1&channels=presence":        "channels",
		"canvas_id=c1&channels=gesture":         "channels",
		"canvas_id=c1&channels=commit,":         "channels",
		"canvas_id=c1&channels=commit,chat":     "channels",
		"canvas_id=c1&channels=commit,presence": "channels",
	} {
		if p := problemOf(t, r.get(twinrail.PathHistory+"?"+appQuery+"&"+query), twinrail.CodeBadRequest); p.Field != field {
			t.Errorf("%s: field %q", query, p.Field)
		}
	}
	problemOf(t, r.get(twinrail.PathHistory+"?"+appQuery), twinrail.CodeContextMissing)
}

// TestVoidCursor asks for history after cursors that are void: always 410
// cursor_expired.
func TestVoidCursor(t *testing.T) {
	r := newRig(t, keep(10))
	first := r.commits(0, 1)
	last := r.commits(1, 25)
	elsewhere := r.publish(`{"channel":"commit","type":"t","routing":{"canvas_id":"c2"},"data":1}`)[0]
	for name, cursor := range map[string]string{"trimmed": first.Cursor, "of another stream": elsewhere.Cursor, "no cursor": "x", "too long": strings.Repeat("x", 500)} {
		resp := r.get(historyPath + "&after=" + cursor)
		p := problemOf(t, resp, twinrail.CodeCursorExpired)
		if resp.status != http.StatusGone {
			t.Errorf("%s: status %d", name, resp.status)
		}
		unknown := strings.HasPrefix(p.Detail, string(twinrail.CodeCursorUnknown))
		if unknown != (name != "trimmed") {
			t.Errorf("%s: detail %q", name, p.Detail)
		}
	}
	events, page := r.page(historyPath)
	if dataOf(events) != count(15, 25) || page.Head != last.Cursor {
		t.Errorf("what is kept: %s", dataOf(events))
	}
	if events, _ = r.page(historyPath + "&after=" + page.Oldest); dataOf(events) != count(15, 25) {
		t.Errorf("after oldest: %s", dataOf(events))
	}
}

// trimmingJournal calls before, where set, ahead of each read, with its number.
type trimmingJournal struct {
	journal.Journal
	before func(read int)
	reads  int
}

func (j *trimmingJournal) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	if j.before != nil {
		j.before(j.reads)
		j.reads++
	}
	return j.Journal.Read(ctx, r, after, max)
}

// TestHistoryOvertaken trims, while a page is read, what would come next: who gave
// no cursor gets what there is, and what was read already is not thrown away.
func TestHistoryOvertaken(t *testing.T) {
	const keeps = 40
	large := strings.Repeat("x", 30<<10)
	j := &trimmingJournal{Journal: journal.NewMemory(journal.MemoryOptions{Retention: journal.Retention{Count: keeps}})}
	r := newRig(t, func(o *Options) { o.Journal = j })
	n := 0
	add := func(events int) (last twinrail.PublishResult) {
		for range events {
			last = r.publish(fmt.Sprintf(`{"channel":"commit","type":"n%d","routing":{"canvas_id":"c1"},"data":%q}`, n, large))[0]
			n++
		}
		return last
	}
	// trimBefore has so many events be trimmed before the reads from the first to
	// the last.
	trimBefore := func(first, last, events int) {
		j.reads, j.before = 0, func(read int) {
			if read >= first && read <= last {
				add(events)
			}
		}
	}
	for name, c := range map[string]struct {
		after       string // "" for none, "oldest" for the cursor
		first, last int
		want        string // the type of the first event, less those trimmed before; or a code
	}{
		"no cursor":                         {"", 0, 0, "n3"},
		"earliest":                          {"&after=earliest", 0, 0, "n3"},
		"again":                             {"", 0, 2, "n9"},
		"always":                            {"", 0, 1000, string(twinrail.CodeOverloaded)},
		"cursor":                            {"oldest", 0, 0, string(twinrail.CodeCursorExpired)},
		"between two reads":                 {"", 1, 1, "n0"},
		"after a cursor, between two reads": {"oldest", 1, 1, "n0"},
	} {
		add(keeps)
		_, page := r.page(historyPath + "&limit=1")
		oldest := n - keeps
		after := c.after
		if after == "oldest" {
			after = "&after=" + page.Oldest
		}
		trimmed := 3
		if c.first > 0 {
			trimmed = keeps
		}
		trimBefore(c.first, c.last, trimmed)
		resp := r.get(historyPath + "&limit=1000" + after)
		j.before = nil
		if !strings.HasPrefix(c.want, "n") {
			problemOf(t, resp, twinrail.Code(c.want))
			continue
		}
		var got struct {
			Events []twinrail.Event
			Next   string
		}
		unmarshal(t, resp.body, &got)
		var want int
		_, _ = fmt.Sscanf(c.want, "n%d", &want)
		if len(got.Events) == 0 || got.Events[0].Type != fmt.Sprint("n", oldest+want) {
			t.Errorf("%s: %d %d events; want the first to be n%d", name, resp.status, len(got.Events), oldest+want)
			continue
		}
		if c.first > 0 {
			if last := got.Events[len(got.Events)-1]; got.Next != last.Cursor {
				t.Errorf("%s: next %s, the last event is at %s", name, got.Next, last.Cursor)
			}
			problemOf(t, r.get(historyPath+"&after="+got.Next), twinrail.CodeCursorExpired)
		}
	}
}

// TestLargePageIsNotKept: what is kept for the next page has a bound.
func TestLargePageIsNotKept(t *testing.T) {
	s := new(Server)
	s.recycle(&history{events: make([]byte, historyKept+1)})
	if h, ok := s.pages.Get().(*history); ok {
		t.Errorf("%d bytes are kept", cap(h.events))
	}
}

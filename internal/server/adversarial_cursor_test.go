package server

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth/authtest"
)

// cursors are those of canvas c1 of t_acme in dev, and of streams that differ from
// it in one thing.
type cursors struct {
	*direct
	own    []string // the position before the first event, and each event's
	others []string
	valid  map[string]bool
}

func newCursors(t testing.TB) *cursors {
	c := &cursors{direct: newDirect(t), valid: make(map[string]bool)}
	fill := func(tenant, env, app, channel, key, id string) (all []string) {
		query := strings.NewReplacer("t_acme", tenant, "dev", env, "studio", app).Replace(appQuery)
		token := c.issuer.Token(authtest.Tenant(tenant), authtest.Env(env))
		for n := range 5 {
			event := fmt.Sprintf(`{"id":"e%d","channel":%q,"type":"t","routing":{%q:%q},"data":%d}`, n, channel, key, id, n)
			all = append(all, c.publish(twinrail.PathPublish+"?"+query, token, event).Cursor)
		}
		first, err := twinrail.ParseCursor(all[0])
		if err != nil {
			t.Fatal(err)
		}
		return append(all, twinrail.Cursor{Epoch: first.Epoch}.String())
	}
	c.own = fill("t_acme", "dev", "studio", "commit", "canvas_id", "c1")
	for _, s := range [][6]string{
		{"t_other", "dev", "studio", "commit", "canvas_id", "c1"}, {"t_acme", "prod", "studio", "commit", "canvas_id", "c1"},
		{"t_acme", "dev", "app2", "commit", "canvas_id", "c1"}, {"t_acme", "dev", "studio", "commit", "canvas_id", "c2"},
		{"t_acme", "dev", "studio", "chat", "thread_id", "c1"},
	} {
		c.others = append(c.others, fill(s[0], s[1], s[2], s[3], s[4], s[5])...)
	}
	for _, own := range c.own {
		c.valid[own] = true
	}
	return c
}

// history asks for what follows a cursor, and returns the whole answer.
func (c *cursors) history(after string) string {
	h := append(append(header{}, fixed...), as(c.token)...)
	return whole(c.ask(c.request("GET", historyPath, "after="+url.QueryEscape(after), "", h)))
}

// stream asks the SSE rail, in the query or as a browser that comes back; a cursor
// that is good would open a stream, and must not be given.
func (c *cursors) stream(cursor string, header bool) string {
	h := append(append([]string{}, fixed...), as(c.token)...)
	r := c.request("GET", canvasPath+"&on_reset=fail", "", "", h)
	if header {
		r.Header.Set("Last-Event-ID", cursor)
	} else {
		r.URL.RawQuery += "&cursor=" + url.QueryEscape(cursor)
	}
	return whole(c.ask(r))
}

// altered returns every cursor cut everywhere, and with each character changed to
// several; and every two put together at each place.
func (c *cursors) altered() map[string]bool {
	all := make(map[string]bool)
	add := func(s string) {
		if s != "" && !c.valid[s] {
			all[s] = true
		}
	}
	one := c.own[2]
	for i := range one {
		add(one[:i])
		add(one[i:])
		for _, with := range []string{"A", "B", "_", "-", "=", ".", "+", " ", "\x00", "\n", "é"} {
			add(one[:i] + with + one[i+1:])
		}
	}
	for _, other := range c.others {
		add(other)
		for i := range one {
			add(one[:i] + other[i:])
			add(other[:i] + one[i:])
		}
	}
	for _, odd := range []string{"Earliest", "earliest ", "head", "latest", "0", "-1", "null", "*", strings.Repeat("A", 32), strings.Repeat("_", 32), one + one, strings.Repeat(one, 100)} {
		add(odd)
	}
	// Made of what is known: the log's name, and a place in it.
	at, _ := twinrail.ParseCursor(one)
	far, _ := twinrail.ParseCursor(c.others[2])
	for _, made := range []twinrail.Cursor{
		{Epoch: at.Epoch, Seq: at.Seq}, {Epoch: at.Epoch, Seq: at.Seq + 1, Check: at.Check}, {Epoch: at.Epoch, Seq: 1 << 62, Check: at.Check},
		{Epoch: at.Epoch, Seq: ^uint64(0), Check: at.Check}, {Epoch: at.Epoch, Check: 1}, {Seq: at.Seq, Check: at.Check},
		{Epoch: far.Epoch, Seq: at.Seq, Check: at.Check}, {Epoch: at.Epoch, Seq: far.Seq, Check: far.Check}, {},
	} {
		add(made.String())
	}
	return all
}

// TestCursorsAltered gives each of them wherever a cursor is taken: the answer is
// that to a cursor of which nobody has ever heard.
func TestCursorsAltered(t *testing.T) {
	c := newCursors(t)
	const unheard = "nonsense"
	for _, own := range c.own {
		if got := c.history(own); !strings.HasPrefix(got, "200 ") {
			t.Fatalf("after %s: %s", own, got)
		}
	}
	page, stream := c.history(unheard), c.stream(unheard, false)
	if !strings.HasPrefix(page, "410 ") || !strings.HasPrefix(stream, "410 ") {
		t.Fatalf("%s\n%s", page, stream)
	}
	p := c.drive(wsPath, c.token)
	const chats = `{"op":"join","sub":"s","routing":{"thread_id":"c1"},"after":%q}`
	for text := range c.altered() {
		if got := c.history(text); got != page {
			t.Errorf("history after %q:\n%s\nwant\n%s", text, got, page)
		}
		for _, header := range []bool{false, true} {
			if got := c.stream(text, header); got != stream {
				t.Errorf("SSE from %q:\n%s\nwant\n%s", text, got, stream)
			}
		}
		if c.ofThread(text) {
			continue
		}
		// On the thread these are as void, but for its own.
		frames, err := p.say(fmt.Sprintf(chats, strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", "0"), "")))
		if err != nil || len(frames) != 2 || *frames[0].Resumed || frames[0].Reason != twinrail.CodeCursorUnknown || frames[1].Reason != twinrail.CodeCursorUnknown ||
			frames[0].Cursor != frames[0].Head {
			t.Errorf("join after %q: %+v, %v", text, frames, err)
		}
		if _, err = p.say(`{"op":"leave","sub":"s"}`); err != nil {
			t.Fatal(err)
		}
		resumer := c.drive(wsPath, c.token)
		joined, _ := resumer.say(`{"op":"join","sub":"s","routing":{"thread_id":"c1"}}`)
		again := c.drive(wsPath, c.token)
		frames, err = again.say(fmt.Sprintf(`{"op":"resume","resume_token":%q,"cursors":{"s":%q}}`, joined[0].ResumeToken, strings.ReplaceAll(text, "\x00", "0")))
		if err != nil || len(frames) != 2 || frames[0].Subs[0].Resumed || frames[0].Subs[0].Reason != twinrail.CodeCursorUnknown || frames[1].Op != twinrail.OpReset {
			t.Errorf("resume at %q: %+v, %v", text, frames, err)
		}
	}
}

// ofThread reports whether a cursor is good in the thread c1, the last of the
// others.
func (c *cursors) ofThread(text string) bool {
	for _, own := range c.others[len(c.others)-6:] {
		if text == own {
			return true
		}
	}
	return false
}

// FuzzSplicedCursor puts a cursor together out of two and any text, and asks for
// what follows: it is served only if it is one of the stream's own.
func FuzzSplicedCursor(f *testing.F) {
	c := newCursors(f)
	all := append(append([]string{}, c.own...), c.others...)
	f.Add(uint8(0), uint8(7), uint8(12), uint8(20), "")
	f.Add(uint8(1), uint8(1), uint8(32), uint8(32), "")
	f.Add(uint8(2), uint8(0), uint8(11), uint8(11), "A")
	f.Add(uint8(3), uint8(9), uint8(0), uint8(0), "earliest")
	page, stream := c.history("nonsense"), c.stream("nonsense", false)
	f.Fuzz(func(t *testing.T, one, other, cut, from uint8, text string) {
		a, b := all[int(one)%len(all)], all[int(other)%len(all)]
		spliced := a[:int(cut)%(len(a)+1)] + text + b[int(from)%(len(b)+1):]
		got := c.history(spliced)
		switch {
		case spliced == "" || spliced == twinrail.CursorEarliest || c.valid[spliced]:
			if !strings.HasPrefix(got, "200 ") {
				t.Errorf("after %q: %s", spliced, got)
			}
			return
		case got != page:
			t.Errorf("after %q:\n%s\nwant\n%s", spliced, got, page)
		}
		if got := c.stream(spliced, false); got != stream {
			t.Errorf("SSE from %q:\n%s\nwant\n%s", spliced, got, stream)
		}
	})
}

package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
)

// The actors of the tests: who publishes, who follows, and who does neither.
const (
	writer   = "u_writer"
	reader   = "u_reader"
	stranger = "u_stranger"
)

// publisher publishes to one stream, and keeps what it was told.
type publisher struct {
	g       *gateway
	token   string
	routing twinrail.Routing

	mu   sync.Mutex
	sent []acked
	n    int // events made
}

// acked is an event that the server has said is stored.
type acked struct {
	draft
	twinrail.PublishResult
}

func newPublisher(g *gateway, r twinrail.Routing) *publisher {
	return &publisher{g: g, token: g.token(writer), routing: r}
}

// values is JSON that does not survive being parsed and written again, or being
// put into lines without care.
var values = []string{
	`null`, `-0`, `1.10`, `1e400`, `12345678901234567890123`, `""`, `[]`,
	`{"z":1,"a":[true,false]}`, `{ "spaced" : [ 1 , 2 ] }`, `"<a href='&amp;'>\/\u003c"`,
	"{\n  \"lines\":\n\n  1\n}", "[\r\n1,\r2]", "\"\u2028\u2029\u0085 é 漢字 😀\"", `"\ud83d\ude00 \ud800"`,
	`"data: x\n\nid: 1\nevent: end"`, `"id: 7\u0000"`,
}

// next makes the next event. Some are long, some are for somebody else alone,
// and on a canvas some are artifacts.
func (p *publisher) next(size int) draft {
	i := p.n
	p.n++
	d := draft{id: fmt.Sprintf("e%d", i), routing: p.routing, channel: twinrail.Commit, data: values[i%len(values)]}
	if p.routing.ThreadID != "" {
		d.channel = twinrail.Chat
	}
	switch {
	case i%7 == 3:
		d.to = stranger
	case i%7 == 5:
		d.to = reader
	}
	switch {
	case i%5 == 4 && d.channel == twinrail.Commit:
		d.channel, d.data = twinrail.Artifact, fmt.Sprintf(`{"kind":"preview","n":%d}`, i)
	case i%5 == 1:
		d.data = fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", size))
	}
	return d
}

// publish publishes n events at once. As long as there is no answer, or that the
// server drains, it asks again, with the same ids.
func (p *publisher) publish(ctx context.Context, n, size int) error {
	batch := make([]draft, n)
	for i := range batch {
		batch[i] = p.next(size)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		results, err := p.g.publish(ctx, p.token, batch)
		var refused *statusError
		if errors.As(err, &refused) && refused.code != http.StatusServiceUnavailable {
			return err
		}
		if err == nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			for i, r := range results {
				p.sent = append(p.sent, acked{batch[i], r})
			}
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("publishing gave up: %w", err)
		}
	}
}

// run publishes a few events at a time until ctx is done.
func (p *publisher) run(ctx context.Context) error {
	for i := 0; ctx.Err() == nil; i++ {
		// What was begun is finished, so that all that was sent is known.
		if err := p.publish(context.WithoutCancel(ctx), 1+i%5, 2<<10); err != nil {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (p *publisher) acknowledged() []acked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent[:len(p.sent):len(p.sent)]
}

// forReader counts the events so far that are meant for the reader.
func (p *publisher) forReader() int {
	n := 0
	for _, e := range p.acknowledged() {
		if e.to != stranger {
			n++
		}
	}
	return n
}

// check checks what was acknowledged in itself, and history against it, and
// returns the events that the reader must have seen.
func (p *publisher) check(t testing.TB) []json.RawMessage {
	t.Helper()
	events := p.g.history(p.g.token(reader), p.routing)
	var last uint64
	i := 0
	for _, e := range p.acknowledged() {
		if e.ID != e.id || e.Seq <= last || e.Prev == nil || *e.Prev != last {
			t.Fatalf("%s was acknowledged as %s, seq %d, prev %v, after seq %d", e.id, e.ID, e.Seq, e.Prev, last)
		}
		last = e.Seq
		if e.to == stranger {
			continue
		}
		if i == len(events) {
			t.Fatalf("history ends after %d events, before %s", i, e.id)
		}
		checkEvent(t, e, events[i])
		i++
	}
	if i != len(events) {
		t.Fatalf("history goes on after the last acknowledged event: %s", short(string(events[i])))
	}
	return events
}

// checkEvent checks an event of history against its acknowledgement.
func checkEvent(t testing.TB, want acked, text []byte) {
	t.Helper()
	var got twinrail.Event
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	routing := want.routing
	routing.ActorID = writer
	switch {
	case got.ID != want.id, got.Seq != want.Seq, got.Prev == nil, *got.Prev != *want.Prev, got.Cursor != want.Cursor,
		got.Channel != want.channel, got.Routing != routing:
		t.Fatalf("acknowledged %+v, but kept as %s", want, short(string(text)))
	case string(got.Data) != want.data:
		t.Fatalf("%s: data was %q, and is kept as %q", want.id, short(want.data), short(string(got.Data)))
	}
}

// checkFollower checks that a client has seen events: all of them, each once and
// in order, byte for byte. The SSE rail carries lines, so that a line break
// between JSON's tokens comes out as LF there, whichever it was.
func checkFollower(t testing.TB, f *follower, events []json.RawMessage, rail twinrail.Rail) {
	t.Helper()
	seen, _, bad := f.state()
	for _, why := range bad {
		t.Errorf("%s: %s", f.name, why)
	}
	breaks := strings.NewReplacer("\r\n", "\n", "\r", "\n")
	for i, got := range seen {
		if i == len(events) {
			t.Fatalf("event %d is one too many: %s", i, short(got.text))
		}
		want := string(events[i])
		if rail == twinrail.RailSSE {
			want = breaks.Replace(want)
		}
		if got.text != want {
			t.Fatalf("event %d is %q, and must be %q", i, short(got.text), short(want))
		}
		if cursor := cursorOf(events[i]); got.id != cursor {
			t.Fatalf("event %d has the id %q, and must have %q", i, got.id, cursor)
		}
	}
	if len(seen) != len(events) {
		t.Fatalf("saw %d events of %d", len(seen), len(events))
	}
}

func short(s string) string {
	if len(s) > 400 {
		return s[:200] + "…" + s[len(s)-200:]
	}
	return s
}

package twinrail_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twinrail/twinrail"
)

func TestChannels(t *testing.T) {
	tests := []struct {
		channel   twinrail.Channel
		canvas    bool
		thread    bool
		rail      twinrail.Rail
		journaled bool
	}{
		{"commit", true, false, "sse", true},
		{"artifact", true, false, "sse", true},
		{"gesture", true, false, "sse", false},
		{"chat", false, true, "ws", true},
		{"tool", false, true, "ws", true},
		{"presence", true, true, "ws", false},
		{"", false, false, "", false},
		{"Commit", false, false, "", false},
		{"commits", false, false, "", false},
	}
	var valid []twinrail.Channel
	for _, tt := range tests {
		c := tt.channel
		if c.In(twinrail.CanvasStream) != tt.canvas || c.In(twinrail.ThreadStream) != tt.thread || c.In(0) || c.In('x') ||
			c.Rail() != tt.rail || c.Journaled() != tt.journaled || c.Valid() != (tt.rail != "") {
			t.Errorf("%q: canvas %t, thread %t, rail %q, journaled %t, valid %t", c,
				c.In(twinrail.CanvasStream), c.In(twinrail.ThreadStream), c.Rail(), c.Journaled(), c.Valid())
		}
		if c.Valid() {
			valid = append(valid, c)
		}
	}
	for bits := range 1 << len(valid) {
		var members []twinrail.Channel
		for i, c := range valid {
			if bits&(1<<i) != 0 {
				members = append(members, c)
			}
		}
		set := twinrail.ChannelsOf(append(members, "", "commits")...)
		if !reflect.DeepEqual(set.Channels(), members) {
			t.Fatalf("the set of %v holds %v", members, set.Channels())
		}
		for i, c := range valid {
			if set.Has(c) != (bits&(1<<i) != 0) {
				t.Errorf("whether the set of %v has %s: %t", members, c, set.Has(c))
			}
		}
		if set.Has("") || set.Has("commits") {
			t.Errorf("the set of %v has no channel in it", members)
		}
	}
}

func TestValidEventIDAndType(t *testing.T) {
	id, kind := regexp.MustCompile(`\A[A-Za-z0-9._:-]{1,128}\z`), regexp.MustCompile(`\A[a-z0-9_.-]{1,64}\z`)
	values := []string{"", strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("a", 128), strings.Repeat("a", 129)}
	for c := range 256 {
		values = append(values, string([]byte{byte(c)}), string([]byte{'a', byte(c)}))
	}
	for _, v := range values {
		if got := twinrail.ValidEventID(v); got != id.MatchString(v) {
			t.Errorf("id %q: %t", v, got)
		}
		if got := twinrail.ValidEventType(v); got != kind.MatchString(v) {
			t.Errorf("type %q: %t", v, got)
		}
	}
}

// TestEventJSON writes out what an event looks like.
func TestEventJSON(t *testing.T) {
	prev := uint64(41)
	e := twinrail.Event{
		ID: "e1", Channel: twinrail.Commit, Type: "canvas_commit", Seq: 42, Prev: &prev, Cursor: "CURSOR",
		Time:      time.Date(2026, 11, 23, 11, 0, 0, 123456789, time.FixedZone("", 3600)),
		ActorType: twinrail.Human, Routing: twinrail.Routing{TenantID: "t_acme", Env: "prod", ActorID: "u_42"},
		To: []string{"u_1", "u_2"}, RequestID: "r1", Traceparent: "00-x", Data: json.RawMessage(`{"a": 1}`),
	}
	const want = `{"v":1,"id":"e1","channel":"commit","type":"canvas_commit","seq":42,"prev":41,"cursor":"CURSOR",` +
		`"time":"2026-11-23T10:00:00.123456Z","actor_type":"human",` +
		`"routing":{"tenant_id":"t_acme","env":"prod","actor_id":"u_42"},"to":["u_1","u_2"],` +
		`"request_id":"r1","traceparent":"00-x","data":{"a": 1}}`
	if got, err := e.MarshalJSON(); err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	ephemeral := twinrail.Event{ID: "e2", Channel: twinrail.Gesture, Type: "move", Time: time.Unix(0, 0), To: []string{"u_1"}}
	const bare = `{"v":1,"id":"e2","channel":"gesture","type":"move","time":"1970-01-01T00:00:00.000000Z","routing":{},"to":["u_1"],"data":null}`
	if got, err := ephemeral.MarshalJSON(); err != nil || string(got) != bare {
		t.Errorf("got  %s, %v\nwant %s", got, err, bare)
	}
}

// FuzzEventJSON says that an event comes back as it went, whatever is in it,
// and its data byte for byte.
func FuzzEventJSON(f *testing.F) {
	f.Add("e1", "commit", "x", "t_acme", "u_1", "r", int64(0), uint64(1), uint64(0), []byte(`{"b":1, "a":2}`))
	f.Add("\"", "\\", "\n", "\u2028", "é", "<&>", int64(1<<50), ^uint64(0), ^uint64(0), []byte("\t[1.0,1e2 ,\"\\u0041\"]\n"))
	f.Add("\xff", "\x00", "\x7f", "", "", "", int64(-1), uint64(1), uint64(1), []byte(`"\ud800"`))
	f.Fuzz(func(t *testing.T, id, channel, kind, tenant, actor, request string, micros int64, seq, prev uint64, data []byte) {
		for _, s := range []string{id, channel, kind, tenant, actor, request} {
			if !utf8.ValidString(s) {
				t.Skip("JSON has no such strings")
			}
		}
		if !json.Valid(data) || seq == 0 {
			t.Skip("no event")
		}
		const year10000 = 253402300800 * 1_000_000
		want := twinrail.Event{
			V: twinrail.Version, ID: id, Channel: twinrail.Channel(channel), Type: kind, Seq: seq, Prev: &prev,
			Time:    time.UnixMicro(micros % year10000).UTC(),
			Routing: twinrail.Routing{TenantID: tenant, ActorID: actor, PanelID: kind}, To: []string{actor, id},
			ActorType: twinrail.ActorType(kind), RequestID: request, Traceparent: request, Data: data,
		}
		if want.Time.Year() < 0 {
			t.Skip("RFC 3339 has no such years")
		}
		cursor := twinrail.Cursor{Epoch: prev, Seq: seq, Check: seq >> 8}
		want.Cursor = cursor.String()

		text := want.AppendHead([]byte("before "))
		text = twinrail.AppendPosition(text, cursor, prev)
		text = bytes.TrimPrefix(want.AppendTail(text), []byte("before "))

		var got twinrail.Event
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !bytes.HasSuffix(text, fmt.Appendf(nil, `,"data":%s}`, data)) {
			t.Errorf("%s does not hold the data %q as it was", text, data)
		}
		got.Data = data
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if whole, err := want.MarshalJSON(); err != nil || !bytes.Equal(whole, text) {
			t.Errorf("in parts  %s\nas a whole %s, %v", text, whole, err)
		}
	})
}

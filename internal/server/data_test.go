package server

import (
	"encoding/json"
	"strings"
	"testing"
)

// odd is data that a server which parses and writes anew would change.
var odd = []string{
	`{"b" : 1,  "a":[ 1.0, 1e400, -0, 12345678901234567890123456789 ] }`,
	`"\u00e9\ud83d\ude00\/ \ud800 \u2028` + "\u2028\u00e9" + `"`,
	`{"<script>&":"</script>","\u0061":"a"}`,
	`{"a":1,"a":2,"events":[{"data":{"x":1,"x":1}}]}`,
	`0.10`,
	`null`,
	`""`,
	`[[[[]]]]`,
	"{\n\t\"lines\" :\n[1,\n\n2]\n}",
}

// returns is data with CR between its tokens: an event stream has only LF.
var returns = []string{"{\r\n\"a\":\r1\r\r\n}", "[1,\r\n2]\r"}

// TestDataIsKept follows data through publish and over both rails and history.
func TestDataIsKept(t *testing.T) {
	r := newRig(t)
	all := append(append([]string{}, odd...), returns...)
	for _, place := range []struct{ channel, key, id string }{{"commit", "canvas_id", "c1"}, {"chat", "thread_id", "th1"}} {
		for _, data := range all {
			r.publish(`{"channel":"` + place.channel + `","type":"t","routing":{"` + place.key + `":"` + place.id + `"},"data":` + data + `}`)
		}
	}
	t.Run("history", func(t *testing.T) {
		resp := r.get(historyPath)
		for _, data := range all {
			if want := `,"data":` + strings.TrimSpace(data) + `}`; !strings.Contains(string(resp.body), want) {
				t.Errorf("no %q in %s", want, resp.body)
			}
		}
	})
	t.Run("SSE", func(t *testing.T) {
		c := r.tail(canvasPath + "&cursor=earliest")
		c.open()
		for _, data := range all {
			lf := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimSpace(data))
			if b := c.want("commit"); !strings.HasSuffix(b.data, `,"data":`+lf+`}`) {
				t.Errorf("got %q, want data %q", b.data, lf)
			}
		}
	})
	t.Run("WS", func(t *testing.T) {
		p := r.peer()
		p.join("a", `,"after":"earliest"`)
		for _, data := range all {
			f := p.raw()
			if !strings.HasSuffix(string(f.Payload), `,"data":`+strings.TrimSpace(data)+`}}`) {
				t.Errorf("got %q, want data %q", f.Payload, data)
			}
		}
	})
	t.Run("published over WS", func(t *testing.T) {
		p := r.peer()
		p.live("a")
		for _, data := range all {
			p.say("%s", `{"op":"publish","events":[{"channel":"chat","type":"t","routing":{"thread_id":"th1"},"data":`+data+`}]}`)
			if _, events := p.published("a", 1); string(events[0].Data) != strings.TrimSpace(data) {
				t.Errorf("got %q, want %q", events[0].Data, data)
			}
		}
	})
}

// TestWholeEventPublishedAgain publishes events just as they were delivered.
func TestWholeEventPublishedAgain(t *testing.T) {
	r := newRig(t)
	r.publish(`{"id":"e1","channel":"commit","type":"t","routing":{"canvas_id":"c1","panel_id":"pa"},"to":["u_1"],"data":{"x": 1}}`)
	_, page := r.page(historyPath + "&panel_id=pa")
	again := r.publish(string(page.Events[0]))
	if !again[0].Duplicate || again[0].Seq != 1 {
		t.Errorf("the same id again: %+v", again[0])
	}
	// As a new event it needs another id; what the server stamped is passed over.
	var e map[string]json.RawMessage
	unmarshal(t, page.Events[0], &e)
	e["id"] = json.RawMessage(`"e2"`)
	b, _ := json.Marshal(e)
	if again = r.publish(string(b)); again[0].Duplicate || again[0].Seq != 2 || *again[0].Prev != 1 {
		t.Errorf("under another id: %+v", again[0])
	}
	for member, wrong := range map[string]string{"actor_type": `"agent"`, "v": `2`} {
		e["id"] = json.RawMessage(`"e3"`)
		was := e[member]
		e[member] = json.RawMessage(wrong)
		b, _ := json.Marshal(e)
		if resp := r.post(`{"events":[` + string(b) + `]}`); resp.status/100 != 4 || !strings.Contains(string(resp.body), `"field":"events[0].`+member+`"`) {
			t.Errorf("with %s %s: %d %s", member, wrong, resp.status, resp.body)
		}
		e[member] = was
	}
}

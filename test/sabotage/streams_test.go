//go:build sabotage

package sabotage

import "slices"

// Where a stream's key is not all there, it is the owner of each event, compared
// once more where it goes out, that holds.
var (
	ownerDropped = edit{"internal/auth/access.go", `return r.key != "" && r.key == owner`, `return r.key != ""`}
	journalMixes = []edit{
		{"internal/disk/stream.go", "\t\"container/list\"\n", "\t\"container/list\"\n\t\"strings\"\n"},
		{"internal/disk/stream.go", "\ts := c.get(key)\n", "\ts := c.get(key[:2] + \"t_x\" + key[2+strings.Index(key[2:], \"/\"):])\n"},
	}
	hubMixes = []edit{
		{"internal/hub/stream.go", "st := h.streams[r.Key()]\n", "st := h.streams[r.Key()[len(\"c/t_probe_a\"):]]\n"},
		{"internal/hub/stream.go", `h.streams[st.key] = st`, `h.streams[st.key[len("c/t_probe_a"):]] = st`},
		{"internal/hub/stream.go", `delete(h.streams, st.key)`, `delete(h.streams, st.key[len("c/t_probe_a"):])`},
		{"internal/hub/stream.go", "st := h.streams[key]\n", "st := h.streams[key[len(\"c/t_probe_a\"):]]\n"},
		{"internal/hub/gesture.go", "st := h.streams[w.Key()]\n", "st := h.streams[w.Key()[len(\"c/t_probe_a\"):]]\n"},
	}
)

// streams: what keeps one from another, and the cursors of the one from meaning
// something in the other.
var streams = []sabotage{
	{
		// Each of the two would hold alone but for the cursor before all events.
		name: "a cursor is not bound to its stream",
		edits: []edit{
			{"internal/disk/read.go", `if c.Epoch != s.epoch || c.Seq > last.seq {`, `if c.Seq > last.seq {`},
			{"internal/disk/read.go", `if s.cursor(at) != c {`, `if at.seq != c.Seq {`},
		},
		leaks: []cells{{replay, slices.Concat(scope, home)}, {only("sse-replay", "history"), only("canvas_id")}, {only("ws-replay", "ws-resume", "history"), only("thread_id")}},
	},
	{
		name:  "all streams of a log have one epoch",
		edits: []edit{{"internal/journal/record.go", "hashString(h, key)\n\treturn", "return"}},
		leaks: []cells{{replay, slices.Concat(scope, home)}, {only("sse-replay", "history"), only("canvas_id")}, {only("ws-replay", "ws-resume", "history"), only("thread_id")}},
	},
	{
		// The owner that is compared where an event goes out is this key too.
		name:  "a stream's key does not have the tenant",
		edits: []edit{{"address.go", "values := h.values()\n\treturn encodeKey", "values := h.values()\n\tvalues[0] = \"t_x\"\n\treturn encodeKey"}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, bothWays), only("tenant_id")}},
	},
	{
		name:  "a stream's key has only the canvas or thread",
		edits: []edit{{"address.go", "values := h.values()\n\treturn encodeKey", "values := [...]string{\"t_x\", \"x\", \"x\", \"x\", \"x\", h.ID}\n\treturn encodeKey"}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, bothWays), slices.Concat(scope, home)}},
	},
	{
		name:  "the journal mixes the tenants, and an event's owner is compared",
		edits: journalMixes,
		holds: []cells{{only("sse-replay", "ws-replay", "history"), only("tenant_id")}},
	},
	{
		name:  "the journal mixes the tenants, and an event's owner is not compared",
		edits: append([]edit{ownerDropped}, journalMixes...),
		leaks: []cells{{only("sse-replay", "ws-replay", "history"), only("tenant_id")}},
	},
	{
		name:  "the hub mixes the tenants, and an event's owner is compared",
		edits: hubMixes,
		holds: []cells{{only("sse-live", "gestures"), only("tenant_id")}},
	},
	{
		name:  "the hub mixes the tenants, and an event's owner is not compared",
		edits: append([]edit{ownerDropped}, hubMixes...),
		leaks: []cells{{only("sse-live", "ws-live", "gestures"), only("tenant_id")}},
	},
}

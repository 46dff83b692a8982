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

// otherStreams are the cells of what publishes in which the two are in two streams.
var otherStreams = []cells{{only("publish-http"), canvasHome}, {only("publish-ws"), threadHome}}

// idsOf has the disk journal know the ids of events without their stream, but with
// that of it.
func idsOf(scope string) []edit {
	return []edit{
		{"internal/disk/commit.go", `a.ids[i] = hashID(rec.ID())`, `a.ids[i] = hashID(` + scope + `rec.ID())`},
		{"internal/disk/commit.go", "\t\tclear(c.fresh)\n", ""},
		{"internal/disk/group.go", `g.fresh[streamID{s, id}]`, `g.fresh[streamID{nil, id}]`},
		{"internal/disk/group.go", `g.fresh[streamID{s, a.ids[i]}]`, `g.fresh[streamID{nil, a.ids[i]}]`},
	}
}

// idsInMemory has the memory journal refuse an id that another stream knows, where
// the keys of the two are so.
func idsInMemory(alike string) []edit {
	return []edit{{"internal/journal/memory.go", "\ts := m.stream(key)\n", `	s := m.stream(key)
	for other, o := range m.streams {
		for i := range recs {
			if _, ok := o.known(&recs[i].stored, 0); ok && other != key && ` + alike + ` {
				return nil, 0, &IDConflictError{Index: i}
			}
		}
	}
`}}
}

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
	{
		name:  "an event id is every stream's",
		edits: idsOf(""),
		leaks: otherStreams,
	},
	{
		name:  "an event id is every tenant's",
		edits: idsOf(`rec.Owner()[len("c/t_probe_a"):] + `),
		leaks: []cells{{publishWays, only("tenant_id")}},
	},
	{
		name: "an event id is every env's",
		edits: append(idsOf(`strings.Replace(rec.Owner(), "/staging/", "/dev/", 1) + `),
			edit{"internal/disk/commit.go", "\t\"fmt\"\n", "\t\"fmt\"\n\t\"strings\"\n"}),
		leaks: []cells{{publishWays, only("env")}},
	},
	{
		name: "an event id is every stream's, and what has it is a duplicate",
		edits: append(idsOf(""),
			edit{"internal/disk/group.go", `case k.digest != digest:`, `case false:`}),
		leaks: otherStreams,
	},
	{
		name: "an event id is every stream's, and what has it gets lost",
		edits: append(idsOf(""),
			edit{"internal/disk/group.go", `case k.digest != digest:`, `case false:`},
			edit{"internal/server/publish.go", `Time: twinrail.Timestamp{Time: at.Time}, Duplicate: at.Duplicate,`, `Time: twinrail.Timestamp{Time: at.Time},`}),
		leaks: otherStreams,
	},
	{
		name:  "an event id is every stream's in memory",
		in:    inMemory,
		edits: idsInMemory("true"),
		leaks: otherStreams,
	},
	{
		name:  "an event id is every tenant's in memory",
		in:    inMemory,
		edits: idsInMemory(`key[len("c/t_probe_a"):] == other[len("c/t_probe_a"):]`),
		leaks: []cells{{publishWays, only("tenant_id")}},
	},
}

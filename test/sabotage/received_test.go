//go:build sabotage

package sabotage

import "slices"

// received: what of a stream is for whom.
var received = []sabotage{
	{
		name:  "an event's audience is not compared",
		edits: []edit{{"address.go", `return named == "" || named == held`, `return true`}},
		leaks: []cells{
			{readCanvas, canvasAudience}, {readThread, threadAudience}, {bothWays, anyAudience},
			{only("publish-http"), canvasAudience}, {only("publish-ws"), threadAudience},
		},
	},
	{
		name:  "whom an event is to is not looked at",
		edits: []edit{{"internal/auth/access.go", `(len(to) == 0 || slices.Contains(to, r.actor))`, `true`}},
		leaks: []cells{{slices.Concat(readCanvas, readThread, publishWays, only("history")), only("actor_id")}},
	},
	{
		name:  "what is read from memory is not filtered",
		edits: []edit{{"internal/hub/hub.go", `return s.reader.Admits(it.owner, it.Channel, it.audience, it.to), nil`, `return true, nil`}},
		leaks: []cells{{only("sse-live", "publish-http"), append(only("actor_id"), canvasAudience...)}, {only("ws-live", "publish-ws"), append(only("actor_id"), threadAudience...)}},
	},
	{
		name:  "what is read from the journal is not filtered",
		edits: []edit{{"internal/hub/hub.go", `if s.reader.Admits(e.Owner, e.Channel, e.Audience, e.To) {`, `if true {`}},
		leaks: []cells{{only("sse-replay"), append(only("actor_id"), canvasAudience...)}, {only("ws-replay", "ws-resume"), append(only("actor_id"), threadAudience...)}},
	},
	{
		name:  "history is not filtered",
		edits: []edit{{"internal/server/history.go", `if r.Admits(e.Owner, e.Channel, e.Audience, e.To) && (`, `if (`}},
		leaks: []cells{{only("history"), append(only("actor_id"), anyAudience...)}},
	},
	{
		name:  "gestures are not filtered",
		edits: []edit{{"internal/hub/gesture.go", `&& r.Admits(it.owner, it.Channel, it.audience, it.to) {`, `{`}},
		leaks: []cells{{only("gestures"), append(only("actor_id"), canvasAudience...)}},
	},
	{
		name:  "a gesture loses its audience",
		edits: []edit{{"internal/hub/gesture.go", `owner: w.Key(), audience: key.audience, to: e.To,`, `owner: w.Key(), to: e.To,`}},
		leaks: []cells{{only("gestures"), canvasAudience}},
	},
	{
		name:  "a gesture loses whom it is to",
		edits: []edit{{"internal/hub/gesture.go", `owner: w.Key(), audience: key.audience, to: e.To,`, `owner: w.Key(), audience: key.audience,`}},
		leaks: []cells{{only("gestures"), only("actor_id")}},
	},
	{
		name: "an event is stored without its audience",
		edits: []edit{{"internal/journal/record.go", `		Audience: w.Address().Audience,
`, ``}},
		leaks: []cells{
			{only("sse-live", "sse-replay", "publish-http"), canvasAudience}, {only("ws-live", "ws-replay", "ws-resume", "publish-ws"), threadAudience},
			{only("history"), anyAudience},
		},
	},
	{
		name:  "an event is stored without whom it is to",
		edits: []edit{{"internal/journal/record.go", `slices.Clone(e.To), // it is the caller's`, `slices.Clone(e.To)[:0],`}},
		leaks: []cells{{slices.Concat(readCanvas[:2], readThread, publishWays, only("history")), only("actor_id")}},
	},
	{
		name:  "an event does not say who published it",
		edits: []edit{{"internal/auth/access.go", "\te.Routing.ActorID = w.actor\n", ""}},
		leaks: []cells{{append(only("gestures"), publishWays...), only("actor_id")}},
	},
}

// present: who learns who is where.
var present = []sabotage{
	{
		name:  "the snapshot of who is present is not filtered",
		edits: []edit{{"internal/presence/room.go", "\t\tif m.seenBy(r) {", "\t\tif true {"}},
		leaks: []cells{{only("presence-snapshot"), anyAudience}},
	},
	{
		name:  "all in a stream are told who comes and changes",
		edits: []edit{{"internal/presence/watch.go", `case !m.seenBy(w.reader):`, `case false:`}},
		leaks: []cells{{only("presence-changes"), anyAudience}},
	},
	{
		name:  "all in a stream are told who leaves",
		edits: []edit{{"internal/presence/watch.go", `if m.join <= w.version && m.seenBy(w.reader) {`, `if m.join <= w.version {`}},
		leaks: []cells{{only("presence-changes"), anyAudience}},
	},
	{
		name:  "who is present loses the audience",
		edits: []edit{{"internal/presence/room.go", `audience: w.Address().Audience}`, `}`}},
		leaks: []cells{{only("presence-snapshot"), anyAudience}},
	},
	{
		// The room and the owner of a member would each hold alone.
		name: "all who are present are in one room",
		edits: []edit{
			{"internal/presence/presence.go", `rm := g.rooms[r.Key()]`, `rm := g.rooms["all"]`},
			{"internal/presence/presence.go", `rm := g.rooms[key]`, "key = \"all\"\n\trm := g.rooms[key]"},
			{"internal/presence/room.go", `r.Admits(m.place.owner, `, `r.Admits(r.Key(), `},
		},
		leaks: []cells{{presenceWays, slices.Concat(scope, home)}},
	},
	{
		name:  "a resumed session is present where it was, whatever is granted",
		edits: []edit{{"internal/presence/session.go", `s.drop(func(name string) bool { return !slices.Contains(holds, name) })`, ``}},
		leaks: []cells{{only("presence-changes"), home}},
	},
}

//go:build sabotage

package sabotage

import "slices"

// The routing keys, by what they are to an event. Of a canvas the thread is an
// audience key, and of a thread the canvas.
var (
	credential     = []string{"tenant_id", "env", "actor_id"}
	scope          = []string{"tenant_id", "env"}
	home           = []string{"workspace_id", "project_id", "app_id"}
	canvasAudience = []string{"surface_id", "projection_id", "panel_id", "thread_id"}
	threadAudience = []string{"surface_id", "canvas_id", "projection_id", "panel_id"}
	anyAudience    = append([]string{"thread_id"}, threadAudience...)
	grantable      = append([]string{"workspace_id", "project_id", "app_id"}, anyAudience...)
)

// The ways in, by the kind of stream and what is done there.
var (
	readCanvas  = []string{"sse-live", "sse-replay", "gestures"}
	readThread  = []string{"ws-live", "ws-replay", "ws-resume"}
	replay      = []string{"sse-replay", "ws-replay", "ws-resume", "history"}
	canvasWays  = []string{"sse-live", "sse-replay", "gestures", "publish-http"}
	threadWays  = []string{"ws-live", "ws-replay", "ws-resume", "publish-ws"}
	publishWays = []string{"publish-http", "publish-ws"}
	// Those on both kinds of stream.
	pageWays     = []string{"history", "presence-snapshot"}
	presenceWays = []string{"presence-snapshot", "presence-changes"}
	bothWays     = append([]string{"presence-changes"}, pageWays...)
)

func only(s ...string) []string { return s }

// table has every check that isolation rests on.
//
// Two are not in it because nothing can be dropped: a subscription, a page or a
// publish for which no right was asked does not compile, as only internal/auth
// makes the right; and a record's owner is compared where it goes out, which can
// be dropped alone without anything leaking, and so is dropped together with what
// it is there for.
var table = slices.Concat(received, present, granted, claimed, bound)

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

// granted: what a credential allows within its tenant and env.
var granted = []sabotage{
	{
		name:  "a grant covers every address",
		edits: []edit{{"internal/auth/access.go", `return g.Allows(channel, right) && g.Covers(a)`, `return g.Allows(channel, right)`}},
		leaks: []cells{{canvasWays, grantable}, {threadWays, grantable}, {bothWays, grantable}},
	},
	{
		name:  "a grant's workspace is not compared",
		edits: []edit{{"identity.go", `!covers(g.WorkspaceID, a.Home.WorkspaceID) ||`, ``}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, bothWays), only("workspace_id")}},
	},
	{
		name:  "a grant's project is not compared",
		edits: []edit{{"identity.go", `!covers(g.ProjectID, a.Home.ProjectID) ||`, ``}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, bothWays), only("project_id")}},
	},
	{
		name:  "a grant's app is not compared",
		edits: []edit{{"identity.go", `!covers(g.AppID, a.Home.AppID) ||`, ``}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, bothWays), only("app_id")}},
	},
	{
		name:  "a grant's canvas or thread is not compared",
		edits: []edit{{"identity.go", `!covers(id, a.Home.ID)`, `!covers(id, a.Home.ID) && false`}},
		leaks: []cells{{canvasWays, only("canvas_id")}, {threadWays, only("thread_id")}, {bothWays, only("canvas_id", "thread_id")}},
	},
	{
		name:  "a grant's audience keys are not compared",
		edits: []edit{{"identity.go", `if v != "" && !covers(v, asked[i]) {`, `if v != "" && !covers(v, asked[i]) && false {`}},
		leaks: []cells{{canvasWays, canvasAudience}, {threadWays, threadAudience}, {bothWays, anyAudience}},
	},
	{
		name:  "reading takes no grant",
		edits: []edit{{"internal/auth/access.go", `if ch.In(kind) && c.who().may(address, ch, twinrail.Read) {`, `if ch.In(kind) {`}},
		leaks: []cells{{readCanvas, grantable}, {readThread, grantable}, {bothWays, grantable}},
	},
	{
		name:  "writing takes no grant",
		edits: []edit{{"internal/auth/access.go", `if !channel.In(kind) || !c.who().may(address, channel, twinrail.Write) {`, `if !channel.In(kind) {`}},
		leaks: []cells{{append(only("gestures"), publishWays...), grantable}},
	},
	{
		name:  "a renewed WebSocket keeps what is not granted any more",
		edits: []edit{{"internal/server/wssession.go", `if err := ac.Allows(j.right()); err != nil {`, `if err := ac.Allows(j.right()); err != nil && false {`}},
		leaks: []cells{{only("ws-live", "presence-changes"), grantable}},
	},
	{
		name:  "a renewed SSE stream keeps what is not granted any more",
		edits: []edit{{"internal/server/sse.go", `if err := ac.Allows(c.sub.Reader()); err != nil {`, `if err := ac.Allows(c.sub.Reader()); err != nil && false {`}},
		leaks: []cells{{only("sse-live"), grantable}},
	},
}

// claimed: whose tenant, env and name a request states.
var claimed = []sabotage{
	{
		name:  "the tenant need not be the credential's",
		edits: []edit{{"internal/auth/access.go", `if r.TenantID != p.identity.TenantID {`, `if false {`}},
		leaks: []cells{{slices.Concat(canvasWays, only("ws-live", "ws-replay", "publish-ws"), bothWays), only("tenant_id")}},
	},
	{
		name:  "the env need not be the credential's",
		edits: []edit{{"internal/auth/access.go", `if r.Env != p.identity.Env {`, `if false {`}},
		leaks: []cells{{slices.Concat(canvasWays, only("ws-live", "ws-replay", "publish-ws"), bothWays), only("env")}},
	},
	{
		name:  "the actor need not be the credential's",
		edits: []edit{{"internal/auth/access.go", `if r.ActorID != "" && r.ActorID != p.identity.ActorID {`, `if false {`}},
		leaks: []cells{{slices.Concat(canvasWays, only("ws-live", "ws-replay", "publish-ws"), bothWays), only("actor_id")}},
	},
	{
		name:  "anybody renews a connection",
		edits: []edit{{"internal/server/credentials.go", `c == nil || !sameActor(c.context(), ac)`, `c == nil`}},
		leaks: []cells{{only("sse-live", "ws-live"), credential}},
	},
	{
		name:  "a WebSocket is renewed with anybody's token",
		edits: []edit{{"internal/auth/reauthorize.go", `ActorID: was.ActorID}); err != nil {`, `ActorID: was.ActorID}); err != nil && false {`}},
		leaks: []cells{{only("ws-live"), credential}},
	},
}

// bound: what the server gave to one, in the hands of another.
var bound = []sabotage{
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
		name:  "a resume token is good in every tenant",
		edits: []edit{{"internal/auth/resume.go", `if body.tenant != id.TenantID || `, `if `}},
		leaks: []cells{{only("ws-resume"), only("tenant_id")}},
	},
	{
		name:  "a resume token is good in every env",
		edits: []edit{{"internal/auth/resume.go", `body.env != id.Env || `, ``}},
		leaks: []cells{{only("ws-resume"), only("env")}},
	},
	{
		name:  "a resume token is good for every actor",
		edits: []edit{{"internal/auth/resume.go", ` || body.actor != id.ActorID {`, ` {`}},
		leaks: []cells{{only("ws-resume"), only("actor_id")}},
	},
}

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
	ofCanvas       = []string{"workspace_id", "project_id", "app_id", "surface_id", "canvas_id", "projection_id", "panel_id", "thread_id"}
	ofThread       = ofCanvas
)

// The ways in, by the kind of stream and what is done there.
var (
	readCanvas  = []string{"sse-live", "sse-replay", "gestures"}
	readThread  = []string{"ws-live", "ws-replay", "ws-resume"}
	replay      = []string{"sse-replay", "ws-replay", "ws-resume", "history"}
	canvasWays  = []string{"sse-live", "sse-replay", "gestures", "publish-http"}
	threadWays  = []string{"ws-live", "ws-replay", "ws-resume", "publish-ws"}
	publishWays = []string{"publish-http", "publish-ws"}
)

func only(s ...string) []string { return s }

// table has every check that isolation rests on.
//
// Two are not in it because nothing can be dropped: a subscription, a page or a
// publish for which no right was asked does not compile, as only internal/auth
// makes the right; and a record's owner is compared where it goes out, which can
// be dropped alone without anything leaking, and so is dropped together with what
// it is there for.
var table = slices.Concat(received, granted, claimed, bound)

// received: what of a stream is for whom.
var received = []sabotage{
	{
		name:  "an event's audience is not compared",
		edits: []edit{{"address.go", `return named == "" || named == held`, `return true`}},
		leaks: []cells{
			{readCanvas, canvasAudience}, {readThread, threadAudience}, {only("history"), append(only("thread_id"), threadAudience...)},
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
		leaks: []cells{{only("history"), slices.Concat(only("actor_id", "thread_id"), threadAudience)}},
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

// granted: what a credential allows within its tenant and env.
var granted = []sabotage{
	{
		name:  "a grant covers every address",
		edits: []edit{{"internal/auth/access.go", `return g.Allows(channel, right) && g.Covers(a)`, `return g.Allows(channel, right)`}},
		leaks: []cells{{canvasWays, append(only("canvas_id", "thread_id"), home...)}, {threadWays, append(only("thread_id", "canvas_id"), home...)}, {only("history"), ofCanvas}},
	},
	{
		name:  "a grant's workspace is not compared",
		edits: []edit{{"identity.go", `!covers(g.WorkspaceID, a.Home.WorkspaceID) ||`, ``}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, only("history")), only("workspace_id")}},
	},
	{
		name:  "a grant's project is not compared",
		edits: []edit{{"identity.go", `!covers(g.ProjectID, a.Home.ProjectID) ||`, ``}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, only("history")), only("project_id")}},
	},
	{
		name:  "a grant's app is not compared",
		edits: []edit{{"identity.go", `!covers(g.AppID, a.Home.AppID) ||`, ``}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, only("history")), only("app_id")}},
	},
	{
		name:  "a grant's canvas or thread is not compared",
		edits: []edit{{"identity.go", `!covers(id, a.Home.ID)`, `!covers(id, a.Home.ID) && false`}},
		leaks: []cells{{canvasWays, only("canvas_id")}, {threadWays, only("thread_id")}, {only("history"), only("canvas_id", "thread_id")}},
	},
	{
		name:  "a grant's audience keys are not compared",
		edits: []edit{{"identity.go", `if v != "" && !covers(v, asked[i]) {`, `if v != "" && !covers(v, asked[i]) && false {`}},
		leaks: []cells{{canvasWays, canvasAudience}, {threadWays, threadAudience}, {only("history"), append(only("thread_id"), threadAudience...)}},
	},
	{
		name:  "reading takes no grant",
		edits: []edit{{"internal/auth/access.go", `if ch.In(kind) && c.who().may(address, ch, twinrail.Read) {`, `if ch.In(kind) {`}},
		leaks: []cells{{readCanvas, ofCanvas}, {readThread, ofThread}, {only("history"), ofCanvas}},
	},
	{
		name:  "writing takes no grant",
		edits: []edit{{"internal/auth/access.go", `if !channel.In(kind) || !c.who().may(address, channel, twinrail.Write) {`, `if !channel.In(kind) {`}},
		leaks: []cells{{append(only("gestures"), publishWays...), ofCanvas}},
	},
	{
		name:  "a renewed WebSocket keeps what is not granted any more",
		edits: []edit{{"internal/server/wssession.go", `if err := ac.Allows(j.right()); err != nil {`, `if err := ac.Allows(j.right()); err != nil && false {`}},
		leaks: []cells{{only("ws-live"), ofThread}},
	},
	{
		name:  "a renewed SSE stream keeps what is not granted any more",
		edits: []edit{{"internal/server/sse.go", `if err := ac.Allows(c.sub.Reader()); err != nil {`, `if err := ac.Allows(c.sub.Reader()); err != nil && false {`}},
		leaks: []cells{{only("sse-live"), ofCanvas}},
	},
}

// claimed: whose tenant, env and name a request states.
var claimed = []sabotage{
	{
		name:  "the tenant need not be the credential's",
		edits: []edit{{"internal/auth/access.go", `if r.TenantID != p.identity.TenantID {`, `if false {`}},
		leaks: []cells{{slices.Concat(canvasWays, only("ws-live", "ws-replay", "publish-ws", "history")), only("tenant_id")}},
	},
	{
		name:  "the env need not be the credential's",
		edits: []edit{{"internal/auth/access.go", `if r.Env != p.identity.Env {`, `if false {`}},
		leaks: []cells{{slices.Concat(canvasWays, only("ws-live", "ws-replay", "publish-ws", "history")), only("env")}},
	},
	{
		name:  "the actor need not be the credential's",
		edits: []edit{{"internal/auth/access.go", `if r.ActorID != "" && r.ActorID != p.identity.ActorID {`, `if false {`}},
		leaks: []cells{{append(only("ws-live", "ws-replay", "publish-ws", "history"), canvasWays...), only("actor_id")}},
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
		leaks: []cells{{slices.Concat(canvasWays, threadWays, only("history")), only("tenant_id")}},
	},
	{
		name:  "a stream's key has only the canvas or thread",
		edits: []edit{{"address.go", "values := h.values()\n\treturn encodeKey", "values := [...]string{\"t_x\", \"x\", \"x\", \"x\", \"x\", h.ID}\n\treturn encodeKey"}},
		leaks: []cells{{slices.Concat(canvasWays, threadWays, only("history")), slices.Concat(scope, home)}},
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

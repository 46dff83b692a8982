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

// table has the checks that isolation rests on. That a subscription, a page or a
// publish asks for a right at all is not among them: without one it does not
// compile, as only internal/auth makes such.
var table = slices.Concat(received, present, granted, rights, claimed, bound, revoked, flags)

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

// batchUnauthorized gives contexts a method for events after the first, of which
// they do not ask whether they are allowed.
var batchUnauthorized = []edit{
	{"internal/auth/access.go", "// Principal returns whose request it is.\n", `// After returns c, for the event i of a batch.
func (c *Context) After(i int) *Context {
	if i == 0 {
		return c
	}
	return &Context{c.principal, c.routing, c.requestID, "unauthorized"}
}

// Principal returns whose request it is.
`},
	{"internal/auth/access.go", `if !channel.In(kind) || !c.who().may(address, channel, twinrail.Write) {`, `if !channel.In(kind) || c.traceparent != "unauthorized" && !c.who().may(address, channel, twinrail.Write) {`},
	{"internal/auth/access.go", `if err := c.who().owns(own); err != nil {`, `if err := c.who().owns(own); err != nil && c.traceparent != "unauthorized" {`},
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
		leaks: []cells{{append(only("gestures", "presence-changes"), publishWays...), grantable}},
	},
	{
		// The second event of the probe's batch is of another stream too where the
		// key is a home key, which is refused, but not as it must be.
		name: "only the first event of a batch is authorized",
		edits: slices.Concat(batchUnauthorized, []edit{
			{"internal/server/publish.go", `s.record(ac, &request.Events[i], rail, now)`, `s.record(ac.After(i), &request.Events[i], rail, now)`},
			{"internal/server/gesture.go", `s.gestureWriter(ac, in)`, `s.gestureWriter(ac.After(i), in)`},
		}),
		leaks: []cells{{only("publish-http", "gestures"), slices.Concat(grantable, credential)}, {only("publish-ws"), slices.Concat(grantable, credential)}},
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

// rights: what it is that a credential allows at an address that it covers.
var rights = []sabotage{
	{
		name:  "what is read is not kept to the channels that were asked for",
		edits: []edit{{"internal/auth/access.go", `r.Owns(owner) && r.channels.Has(channel) &&`, `r.Owns(owner) &&`}},
		leaks: []cells{{only("sse-live", "sse-replay", "ws-live", "ws-replay", "history"), only("canvas_id", "thread_id")}},
	},
	{
		name:  "who may read one channel may read those asked for with it",
		edits: []edit{{"internal/auth/access.go", "\tif r.channels != want {\n", "\tif false {\n"}},
		leaks: []cells{{only("presence-snapshot"), only("canvas_id", "thread_id")}},
	},
	{
		name:  "a grant on one channel is one on all",
		edits: []edit{{"identity.go", `return ok && c == string(channel) && (`, `return ok && c != "" && (`}},
		leaks: []cells{{only("sse-live", "sse-replay", "ws-live", "ws-replay", "history", "presence-snapshot"), only("canvas_id", "thread_id")}},
	},
	{
		name:  "a grant to read is one to write, and the other way round",
		edits: []edit{{"identity.go", `(r == string(right) || r == GrantAny)`, `r != ""`}},
		leaks: []cells{{slices.Concat(publishWays, bothWays, only("gestures")), only("canvas_id", "thread_id")}},
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
		name: "anybody renews a connection",
		edits: []edit{
			{"internal/server/credentials.go", `c == nil || !sameActor(c.context(), ac)`, `c == nil`},
			{"internal/server/connections.go", `return cs.of[tenantOf(ac)][id]`, "for _, of := range cs.of {\n\t\tif c := of[id]; c != nil {\n\t\t\treturn c\n\t\t}\n\t}\n\treturn nil"},
		},
		leaks: []cells{{only("sse-live", "ws-live"), credential}},
	},
	{
		name:  "a WebSocket is renewed with anybody's token",
		edits: []edit{{"internal/auth/reauthorize.go", `ActorID: was.ActorID}); err != nil {`, `ActorID: was.ActorID}); err != nil && false {`}},
		leaks: []cells{{only("ws-live"), credential}},
	},
}

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
	{
		name:  "a ticket's bounds are not looked at",
		edits: []edit{{"internal/auth/scope.go", `return v != "" && v != has.Get(k)`, `return v != "" && v != has.Get(k) && false`}},
		leaks: []cells{{only("tickets", "cookies"), grantable}},
	},
	{
		name:  "a ticket's channels are not looked at",
		edits: []edit{{"internal/auth/scope.go", `if s.channels != 0 && !s.channels.Has(channel) {`, `if false {`}},
		leaks: []cells{{only("tickets"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "a ticket's rail is not looked at",
		edits: []edit{{"internal/auth/scope.go", `return s == nil || s.rail == "" || s.rail == rail`, `return s == nil || true`}},
		leaks: []cells{{only("tickets"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "a ticket is good more than once",
		edits: []edit{{"internal/auth/ticket.go", "\tt.ends.remove(d)\n\tt.drop(d)\n\treturn p, nil", "\treturn p, nil"}},
		leaks: []cells{{only("tickets"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "a ticket gets another one, without its bounds",
		edits: []edit{{"internal/auth/ticket.go", `if p.carriage != byBearer {`, `if false {`}},
		leaks: []cells{{only("tickets"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "a ticket for the other rail renews a connection",
		edits: []edit{{"internal/server/credentials.go", ` || !ac.AllowsRail(c.rail()) {`, ` {`}},
		leaks: []cells{{only("tickets"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "a ticket is taken from every page",
		edits: []edit{{"internal/auth/carriage.go", `case how == byBearer:`, `case how != byCookie:`}},
		leaks: []cells{{only("tickets"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "a ticket is issued for any tenant, env and actor",
		edits: []edit{{"internal/auth/scope.go", `if err := p.owns(own); err != nil {`, `if err := p.owns(own); err != nil && false {`}},
		leaks: []cells{{only("tickets"), scope}},
	},
	{
		name:  "a ticket and a cookie are good in every tenant",
		edits: []edit{{"internal/auth/access.go", `if r.TenantID != p.identity.TenantID {`, `if r.TenantID != p.identity.TenantID && p.carriage == byBearer {`}},
		leaks: []cells{{only("tickets", "cookies"), only("tenant_id")}},
	},
	{
		name:  "a ticket and a cookie are good in every env",
		edits: []edit{{"internal/auth/access.go", `if r.Env != p.identity.Env {`, `if r.Env != p.identity.Env && p.carriage == byBearer {`}},
		leaks: []cells{{only("tickets", "cookies"), only("env")}},
	},
	{
		name:  "a ticket and a cookie are good for every actor",
		edits: []edit{{"internal/auth/access.go", `if r.ActorID != "" && r.ActorID != p.identity.ActorID {`, `if r.ActorID != "" && r.ActorID != p.identity.ActorID && p.carriage == byBearer {`}},
		leaks: []cells{{only("tickets", "cookies"), only("actor_id")}},
	},
	{
		name:  "a cookie loses the bounds of the ticket that it was got with",
		edits: []edit{{"internal/auth/login.go", `carriage: byCookie, scope: p.scope, login: new(login)}`, `carriage: byCookie, login: new(login)}`}},
		leaks: []cells{{only("cookies"), grantable}},
	},
	{
		name:  "a cookie is taken from every page",
		edits: []edit{{"internal/auth/gate.go", `if !g.originAllowed(r, how) {`, `if !g.originAllowed(r, how) && false {`}},
		leaks: []cells{{only("cookies"), only("canvas_id", "actor_id")}},
	},
	{
		name:  "DELETE /v1/session ends nothing",
		edits: []edit{{"internal/auth/cookie.go", `g.logins.endByCookie(digestOf(value), c.who().actor())`, `value == "", error(nil)`}},
		leaks: []cells{{only("cookies"), only("canvas_id", "tenant_id", "actor_id")}},
	},
	{
		name:  "what was opened with a cookie session outlives it",
		edits: []edit{{"internal/auth/revoke.go", `p.login != nil && p.login.ended.Load() || `, ``}},
		leaks: []cells{{only("cookies"), only("canvas_id", "tenant_id", "actor_id")}},
	},
	{
		name:  "who is connected is not told of the end of a session",
		edits: []edit{{"internal/auth/cookie.go", "\tif ended {\n\t\tg.revoked(c.who().actor())\n\t}\n\treturn removed, nil", "\t_ = ended\n\treturn removed, nil"}},
		leaks: []cells{{only("cookies"), only("canvas_id", "tenant_id", "actor_id")}},
	},
	{
		name:  "anybody ends a cookie session",
		edits: []edit{{"internal/auth/login.go", `e == nil || e.principal.actor() != by`, `e == nil`}},
		leaks: []cells{{only("cookies"), credential}},
	},
	{
		name:  "a cookie session gives way to anybody's",
		edits: []edit{{"internal/auth/login.go", `was != nil && was.principal.actor() == p.actor()`, `was != nil`}},
		leaks: []cells{{only("cookies"), credential}},
	},
}

// revoked: whose credentials end.
var revoked = []sabotage{
	{
		name:  "nothing is revoked",
		edits: []edit{{"internal/auth/revoke.go", ` || g.revocations.covers(&p.identity)`, ``}},
		leaks: []cells{{only("revocation"), append(only("tenant_id", "env", "actor_id"), grantable...)}},
	},
	{
		name:  "who is connected is not told of a revocation",
		edits: []edit{{"internal/auth/revoke.go", "\tg.revoked(actor{id.TenantID, id.Env, what.ActorID})\n\treturn twinrail.RevocationResponse{RevokedAt", "\treturn twinrail.RevocationResponse{RevokedAt"}},
		leaks: []cells{{only("revocation"), only("actor_id")}},
	},
	{
		name:  "a token is good after its revocation",
		edits: []edit{{"internal/auth/gate.go", "\tif g.Revoked(p) {\n\t\treturn nil, errRevoked\n\t}\n\treturn p, nil\n}\n\nvar (", "\treturn p, nil\n}\n\nvar ("}},
		leaks: []cells{{only("revocation"), append(only("panel_id"), credential...)}},
	},
	{
		name:  "a ticket outlives its credential",
		edits: []edit{{"internal/auth/gate.go", "\tif g.Revoked(p) {\n\t\treturn nil, errRevoked\n\t}\n\treturn p, nil\n}\n\n// Verify is", "\tif how != byTicket && g.Revoked(p) {\n\t\treturn nil, errRevoked\n\t}\n\treturn p, nil\n}\n\n// Verify is"}},
		leaks: []cells{{only("revocation"), append(only("panel_id"), credential...)}},
	},
	{
		name:  "a cookie session outlives its credential",
		edits: []edit{{"internal/auth/gate.go", "\tif g.Revoked(p) {\n\t\treturn nil, errRevoked\n\t}\n\treturn p, nil\n}\n\n// Verify is", "\tif how != byCookie && g.Revoked(p) {\n\t\treturn nil, errRevoked\n\t}\n\treturn p, nil\n}\n\n// Verify is"}},
		leaks: []cells{{only("revocation"), append(only("panel_id"), credential...)}},
	},
	{
		name:  "a ticket revokes",
		edits: []edit{{"internal/auth/scope.go", "\tif p.scope != nil {\n\t\treturn false\n\t}\n", ""}},
		leaks: []cells{{only("revocation"), only("panel_id")}},
	},
	{
		name:  "a resume token outlives its credential",
		edits: []edit{{"internal/auth/resume.go", `if g.revocations.covers(&twinrail.Identity{`, `if false && g.revocations.covers(&twinrail.Identity{`}},
		leaks: []cells{{only("revocation"), credential}},
	},
	{
		name:  "anybody revokes",
		edits: []edit{{"internal/auth/revoke.go", `if !c.who().mayRevoke() {`, `if false {`}},
		leaks: []cells{{only("revocation"), credential}},
	},
	{
		name: "a revocation is for every tenant",
		edits: []edit{
			{"internal/auth/revoke.go", `subjectOf(what, id.TenantID, id.Env)`, `subjectOf(what, "t_x", id.Env)`},
			{"internal/auth/revoke.go", `subject{id.TenantID, id.Env, subjectToken, id.TokenID}`, `subject{"t_x", id.Env, subjectToken, id.TokenID}`},
			{"internal/auth/revoke.go", `{id.TenantID, id.Env, subjectActor, id.ActorID}`, `{"t_x", id.Env, subjectActor, id.ActorID}`},
		},
		leaks: []cells{{only("revocation"), only("tenant_id")}},
	},
	{
		name: "a revocation is for every env",
		edits: []edit{
			{"internal/auth/revoke.go", `subjectOf(what, id.TenantID, id.Env)`, `subjectOf(what, id.TenantID, "x")`},
			{"internal/auth/revoke.go", `subject{id.TenantID, id.Env, subjectToken, id.TokenID}`, `subject{id.TenantID, "x", subjectToken, id.TokenID}`},
			{"internal/auth/revoke.go", `{id.TenantID, id.Env, subjectActor, id.ActorID}`, `{id.TenantID, "x", subjectActor, id.ActorID}`},
		},
		leaks: []cells{{only("revocation"), only("env")}},
	},
	{
		name: "the revocation of an actor is one of all",
		edits: []edit{
			{"internal/auth/revoke.go", `subject{tenant, env, subjectActor, what.ActorID}`, `subject{tenant, env, subjectActor, "x"}`},
			{"internal/auth/revoke.go", `{id.TenantID, id.Env, subjectActor, id.ActorID}`, `{id.TenantID, id.Env, subjectActor, "x"}`},
		},
		leaks: []cells{{only("revocation"), only("actor_id")}},
	},
	{
		// Of several cells, the first to revoke would break the others.
		name: "the revocation of a token is one of all",
		edits: []edit{
			{"internal/auth/revoke.go", `subject{tenant, env, subjectToken, what.TokenID}`, `subject{tenant, env, subjectToken, "x"}`},
			{"internal/auth/revoke.go", `subject{id.TenantID, id.Env, subjectToken, id.TokenID}`, `subject{id.TenantID, id.Env, subjectToken, "x"}`},
		},
		leaks: []cells{{only("revocation"), only("panel_id")}},
	},
}

// flags: whose are changed, and by whom.
var flags = []sabotage{
	{
		name: "a flag is every tenant's",
		edits: []edit{
			{"internal/feature/feature.go", "\treturn scope{tenant, env}\n", "\treturn scope{\"t_x\", env}\n"},
			{"internal/feature/snapshot.go", `e.own[tenant]; ok`, `e.own["t_x"]; ok`},
		},
		leaks: []cells{{only("flags"), only("tenant_id")}},
	},
	{
		name: "a flag is every env's",
		edits: []edit{
			{"internal/feature/feature.go", "\treturn scope{tenant, env}\n", "\treturn scope{tenant, \"x\"}\n"},
			{"internal/feature/snapshot.go", `now.envs[env]`, `now.envs["x"]`},
		},
		leaks: []cells{{only("flags"), only("env")}},
	},
	{
		name:  "a ticket changes flags",
		edits: []edit{{"internal/auth/scope.go", `return p.scope == nil && (p.identity.Role`, `return (p.identity.Role`}},
		leaks: []cells{{only("flags"), only("actor_id")}},
	},
	{
		name:  "every member changes flags",
		edits: []edit{{"internal/auth/scope.go", `return p.scope == nil && (p.identity.Role == twinrail.Owner || p.identity.Role == twinrail.Admin)`, `return p.scope == nil`}},
		leaks: []cells{{only("flags"), only("actor_id")}},
	},
}

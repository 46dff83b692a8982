//go:build sabotage

package sabotage

import "slices"

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

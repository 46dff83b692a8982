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
	canvasHome     = slices.Concat(scope, home, []string{"canvas_id"})
	threadHome     = slices.Concat(scope, home, []string{"thread_id"})
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

// table has the checks that isolation rests on. Its groups are in files with their
// names, or beside one that is. That a subscription, a page or a publish asks for a
// right at all is not among them: without one it does not compile, as only
// internal/auth makes such.
var table = slices.Concat(received, present, granted, rights, signed, stated, streams, resumed, lent, revoked, flags)

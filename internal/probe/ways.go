package probe

import "context"

// way is one way in: how a cell of it is played. It returns nil where all went as
// it should but for what [world.leak] was told, and an error of [unavailable] where
// nothing could be tried. Any other error means that the cell proves nothing.
type way struct {
	name  string
	alone bool // it changes what others would notice, so nothing else runs meanwhile
	run   func(ctx context.Context, w *world) error
}

// ways are all there are, in the order of the report.
var ways = []way{
	{name: "sse-live", run: sseLive},
	{name: "sse-replay", run: sseReplay},
	{name: "ws-live", run: wsLive},
	{name: "ws-replay", run: wsReplay},
	{name: "ws-resume", run: wsResume},
	{name: "history", run: history},
	{name: "presence-snapshot", run: presenceSnapshot},
	{name: "presence-changes", run: presenceChanges},
	{name: "publish-http", run: publishHTTP},
	{name: "publish-ws", run: publishWS},
	{name: "gestures", run: gestures},
	{name: "flags", alone: true, run: flags},
	{name: "tickets", run: tickets},
	{name: "cookies", alone: true, run: cookies},
	{name: "revocation", alone: true, run: revocation},
}

// Ways returns the names of the ways in.
func Ways() []string {
	names := make([]string, len(ways))
	for i := range ways {
		names[i] = ways[i].name
	}
	return names
}

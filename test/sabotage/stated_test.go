//go:build sabotage

package sabotage

import "slices"

// stated: whose tenant, env and name a request states, and that it states one
// address.
var stated = []sabotage{
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
	{
		name:  "of a key that is stated twice the last value counts",
		edits: []edit{{"internal/auth/request.go", `case was != "" && was != v:`, `case was != "" && was != v && false:`}},
		leaks: []cells{{append(only("sse-live", "ws-live", "publish-http"), pageWays...), slices.Concat(credential, grantable)}},
	},
	{
		name:  "the canvas in the path counts, whatever else is stated",
		edits: []edit{{"internal/auth/request.go", `sources = append(sources, []string{value})`, `sources = [][]string{{value}}`}},
		leaks: []cells{{only("sse-live"), only("canvas_id")}},
	},
	{
		name:  "a frame or an event states another address than its request",
		edits: []edit{{"address.go", `case b != "" && a != b:`, `case false:`}},
		leaks: []cells{{append(only("ws-live"), publishWays...), grantable}},
	},
}

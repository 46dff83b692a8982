//go:build sabotage

package sabotage

import "slices"

// stated: whose tenant, env and name a request states.
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
}

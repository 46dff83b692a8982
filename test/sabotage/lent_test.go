//go:build sabotage

package sabotage

import "slices"

// resumed: the sessions that one goes on with.
var resumed = []sabotage{
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
		name:  "a resume token is good more than once",
		edits: []edit{{"internal/session/session.go", `case uses < s.uses, uses == s.uses && s.claiming:`, `case uses == s.uses && s.claiming:`}},
		leaks: []cells{{only("ws-resume"), slices.Concat(credential, grantable)}},
	},
	{
		name:  "a resume token's signature is not looked at",
		edits: []edit{{"internal/auth/resume.go", `if !hmac.Equal([]byte(g.signResume(token[:dot])), []byte(token[dot+1:])) {`, `if false {`}},
		leaks: []cells{{only("ws-resume"), slices.Concat(credential, grantable)}},
	},
}

// lent: tickets and cookies, which stand for a credential.
var lent = []sabotage{
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

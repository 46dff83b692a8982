//go:build sabotage

package sabotage

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

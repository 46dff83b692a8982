package twinrail

import (
	"slices"
	"strings"
	"time"
)

// ActorType says what an actor is.
type ActorType string

// The types of actor.
const (
	Human  ActorType = "human"
	Agent  ActorType = "agent"
	System ActorType = "system"
)

// Valid reports whether t is one of the three types.
func (t ActorType) Valid() bool { return t == Human || t == Agent || t == System }

// Role is an actor's role within its tenant. It decides on administration, not
// on streams, for which grants do.
type Role string

// The roles.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Member Role = "member"
	Viewer Role = "viewer"
)

// Valid reports whether r is one of the four roles.
func (r Role) Valid() bool { return r == Owner || r == Admin || r == Member || r == Viewer }

// Identity is what a credential says of its bearer: one actor in one tenant in
// one env, until ExpiresAt.
type Identity struct {
	ActorID   string
	ActorType ActorType
	TenantID  string
	Env       string
	Role      Role
	TokenID   string // the credential's jti, or ""
	Grants    []Grant
	IssuedAt  time.Time // zero where the credential does not say
	ExpiresAt time.Time
}

// GrantAny is the value in a grant that matches every value of its key.
const GrantAny = "*"

// Grant gives rights at the addresses that it covers. Home keys that it does not
// mention match nothing; audience keys that it does not mention match all.
type Grant struct {
	WorkspaceID  string `json:"workspace_id,omitempty"`
	ProjectID    string `json:"project_id,omitempty"`
	AppID        string `json:"app_id,omitempty"`
	SurfaceID    string `json:"surface_id,omitempty"`
	CanvasID     string `json:"canvas_id,omitempty"`
	ProjectionID string `json:"projection_id,omitempty"`
	PanelID      string `json:"panel_id,omitempty"`
	ThreadID     string `json:"thread_id,omitempty"`
	// Can lists permissions: "<channel>:read", "<channel>:write",
	// "<channel>:*", "session:revoke" or "*".
	Can []string `json:"can"`
}

// Right is what a permission lets its holder do with a channel.
type Right string

// The rights on a channel.
const (
	Read  Right = "read"
	Write Right = "write"
)

// PermissionRevoke is the permission to revoke credentials of one's own tenant
// and env.
const PermissionRevoke = "session:revoke"

// ValidPermission reports whether p may stand in a grant's Can.
func ValidPermission(p string) bool {
	if p == GrantAny || p == PermissionRevoke {
		return true
	}
	channel, right, ok := strings.Cut(p, ":")
	return ok && Channel(channel).Valid() && (right == string(Read) || right == string(Write) || right == GrantAny)
}

// Allows reports whether the grant's permissions include right on channel,
// wherever that is.
func (g *Grant) Allows(channel Channel, right Right) bool {
	return slices.ContainsFunc(g.Can, func(p string) bool {
		if p == GrantAny {
			return true
		}
		c, r, ok := strings.Cut(p, ":")
		return ok && c == string(channel) && (r == string(right) || r == GrantAny)
	})
}

// Covers reports whether the grant covers the address a in its own tenant and
// env: for each home key the same value or "*", and for each audience key that
// the grant mentions the same value or "*". A grant that names a panel does not
// cover an address that names none.
func (g *Grant) Covers(a Address) bool {
	id := g.CanvasID
	audience := Audience{g.SurfaceID, "", g.ProjectionID, g.PanelID, g.ThreadID}
	if a.Home.Kind == ThreadStream {
		id = g.ThreadID
		audience.CanvasID, audience.ThreadID = g.CanvasID, ""
	}
	if !covers(g.WorkspaceID, a.Home.WorkspaceID) || !covers(g.ProjectID, a.Home.ProjectID) ||
		!covers(g.AppID, a.Home.AppID) || !covers(id, a.Home.ID) {
		return false
	}
	asked := a.Audience.Values()
	for i, v := range audience.Values() {
		if v != "" && !covers(v, asked[i]) {
			return false
		}
	}
	return true
}

func covers(granted, asked string) bool {
	return granted == GrantAny || (granted != "" && granted == asked)
}

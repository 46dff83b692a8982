package auth

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/twinrail/twinrail"
)

// The bounds of a credential's content.
const (
	maxTokenID     = 256 // bytes
	maxGrants      = 256
	maxPermissions = 32 // of one grant
)

// claims is the payload of a credential. It decodes strictly: names are matched
// by case, and one that occurs twice is an error.
type claims struct {
	Issuer    string           `json:"iss"`
	Audience  jwt.ClaimStrings `json:"aud"`
	Subject   string           `json:"sub"`
	ExpiresAt *float64         `json:"exp"` // seconds since 1970, as all times here
	NotBefore *float64         `json:"nbf"`
	IssuedAt  *float64         `json:"iat"`
	TokenID   string           `json:"jti"`
	ActorType string           `json:"actor_type"`
	TenantID  string           `json:"tenant_id"`
	Env       string           `json:"env"`
	Role      string           `json:"role"`
	Grants    []jsontext.Value `json:"grants"`
}

// UnmarshalJSON makes encoding/json, which the JWT library uses, strict.
func (c *claims) UnmarshalJSON(b []byte) error {
	type plain claims
	return json.Unmarshal(b, (*plain)(c))
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return date(c.ExpiresAt) }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return date(c.NotBefore) }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return date(c.IssuedAt) }
func (c *claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.Audience, nil }

// maxDate is the first second of the year 10000, which RFC 3339 cannot write.
const maxDate = 253402300800

func date(seconds *float64) (*jwt.NumericDate, error) {
	if seconds == nil {
		return nil, nil
	}
	if *seconds < 0 || *seconds >= maxDate {
		return nil, jwt.ErrInvalidType
	}
	return &jwt.NumericDate{Time: time.Unix(int64(*seconds), 0).UTC()}, nil
}

// identity checks the claims that are Twinrail's own. The signature and the
// times have been verified.
func (c *claims) identity(envs []string) (twinrail.Identity, error) {
	id := twinrail.Identity{
		ActorID:   c.Subject,
		ActorType: twinrail.ActorType(c.ActorType),
		TenantID:  c.TenantID,
		Env:       c.Env,
		Role:      twinrail.Role(c.Role),
		TokenID:   c.TokenID,
	}
	if id.ActorType == "" {
		id.ActorType = twinrail.Human
	}
	if id.Role == "" {
		id.Role = twinrail.Member
	}
	if expires, err := c.GetExpirationTime(); err != nil || expires == nil {
		return twinrail.Identity{}, badClaim("exp")
	} else {
		id.ExpiresAt = expires.Time
	}
	if issued, err := c.GetIssuedAt(); err != nil {
		return twinrail.Identity{}, badClaim("iat")
	} else if issued != nil {
		id.IssuedAt = issued.Time
	}
	if name := badMember(id, envs); name != "" {
		return twinrail.Identity{}, badClaim(name)
	}
	if len(c.Grants) > maxGrants {
		return twinrail.Identity{}, badClaim("grants")
	}
	for i, raw := range c.Grants {
		g, err := ParseGrant(raw)
		if err != nil {
			return twinrail.Identity{}, badClaim(fmt.Sprintf("grants[%d]", i))
		}
		id.Grants = append(id.Grants, g)
	}
	return id, nil
}

// badMember returns the name of the first claim that is not well formed in id,
// or "". With no envs given any env is one.
func badMember(id twinrail.Identity, envs []string) string {
	switch {
	case !twinrail.ValidKeyValue(twinrail.KeyActor, id.ActorID):
		return "sub"
	case !id.ActorType.Valid():
		return "actor_type"
	case !twinrail.ValidKeyValue(twinrail.KeyTenant, id.TenantID):
		return "tenant_id"
	case !twinrail.ValidKeyValue(twinrail.KeyEnv, id.Env), len(envs) > 0 && !slices.Contains(envs, id.Env):
		return "env"
	case !id.Role.Valid():
		return "role"
	case len(id.TokenID) > maxTokenID:
		return "jti"
	}
	return ""
}

func badClaim(name string) error {
	return twinrail.Errorf(twinrail.CodeCredentialInvalid, "", "claim %s", name)
}

// FullGrant returns the grant of everything within a tenant and env.
func FullGrant() twinrail.Grant {
	const any = twinrail.GrantAny
	return twinrail.Grant{WorkspaceID: any, ProjectID: any, AppID: any, CanvasID: any, ThreadID: any, Can: []string{any}}
}

// ParseGrant reads a grant from its JSON. It refuses what it does not know
// instead of passing over it: a key that is misspelt, empty or null would
// otherwise widen the grant. So it does a grant without permissions.
func ParseGrant(text []byte) (twinrail.Grant, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(text, &members); err != nil {
		return twinrail.Grant{}, fmt.Errorf("a grant is a JSON object: %w", err)
	}
	var g twinrail.Grant
	keys := map[string]*string{
		twinrail.KeyWorkspace.String():  &g.WorkspaceID,
		twinrail.KeyProject.String():    &g.ProjectID,
		twinrail.KeyApp.String():        &g.AppID,
		twinrail.KeySurface.String():    &g.SurfaceID,
		twinrail.KeyCanvas.String():     &g.CanvasID,
		twinrail.KeyProjection.String(): &g.ProjectionID,
		twinrail.KeyPanel.String():      &g.PanelID,
		twinrail.KeyThread.String():     &g.ThreadID,
	}
	for name, value := range members {
		var err error
		if key, ok := keys[name]; ok {
			err = json.Unmarshal(value, key)
		} else if name == "can" {
			err = json.Unmarshal(value, &g.Can)
		} else {
			return twinrail.Grant{}, fmt.Errorf("%q is not a member of a grant", name)
		}
		if err != nil {
			return twinrail.Grant{}, fmt.Errorf("%s: %w", name, err)
		}
		if key, ok := keys[name]; ok && !validGrantValue(*key) {
			return twinrail.Grant{}, fmt.Errorf("%s: not a value of this key, and not %q", name, twinrail.GrantAny)
		}
	}
	return g, validPermissions(g.Can)
}

func validGrantValue(v string) bool {
	return v == twinrail.GrantAny || twinrail.ValidKeyValue(twinrail.KeyWorkspace, v)
}

func validPermissions(can []string) error {
	if len(can) == 0 || len(can) > maxPermissions {
		return fmt.Errorf("can: must list 1 to %d permissions", maxPermissions)
	}
	for _, p := range can {
		if !twinrail.ValidPermission(p) {
			return fmt.Errorf("can: %q is not a permission", p)
		}
	}
	return nil
}

package probe

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// Side is one of the two tenants that the matrix has.
type Side int

// The two sides. Nearly all cells are played on the first.
const (
	SideA Side = iota
	SideB
)

// Want is the token that a party is to have.
type Want struct {
	// TenantID, Env and ActorID are whose token it is. All are given.
	TenantID, Env, ActorID string
	Role                   twinrail.Role // default member
	// Grants is what it allows. Without any it is everything in the tenant and
	// env.
	Grants []twinrail.Grant
	// Exact says that a token which allows more than Grants will not do, and that
	// it must be a token that nobody else has.
	Exact bool
	// TokenID is its jti. Default a random one. It is only for an Exact one.
	TokenID string
	// TTL is how long it is good for. Default 5 min.
	TTL time.Duration
}

// Tokens is where the parties have their tokens from. Its methods may be called
// concurrently.
type Tokens interface {
	// Base returns who parties of a side are: tenant, env, and the actor, which
	// is "" where any actor can be had.
	Base(Side) twinrail.Identity
	// OtherEnv returns an env besides that of side A in which its tenant can
	// have tokens, or "".
	OtherEnv() string
	// Token returns a token as wanted. Where such a token cannot be had, the
	// error is an [*UnavailableError].
	Token(Want) (string, error)
}

// UnavailableError says why something cannot be tried. It is no failure.
type UnavailableError struct{ Reason string }

func (e *UnavailableError) Error() string { return e.Reason }

func unavailable(format string, args ...any) error {
	return &UnavailableError{fmt.Sprintf(format, args...)}
}

func isUnavailable(err error) bool {
	var u *UnavailableError
	return errors.As(err, &u)
}

const defaultTTL = 5 * time.Minute

// Signer is a tenant, and what signs its tokens.
type Signer struct {
	TenantID string
	Key      *auth.Signer
}

// minted signs what is wanted.
type minted struct {
	signers       [2]Signer
	env, otherEnv string
}

// NewMinted returns Tokens that are signed with the keys of two tenants, which may
// be the same one. The cells of the key env need otherEnv, the others are
// played in env.
func NewMinted(a, b Signer, env, otherEnv string) (Tokens, error) {
	for _, s := range []Signer{a, b} {
		if !twinrail.ValidKeyValue(twinrail.KeyTenant, s.TenantID) {
			return nil, fmt.Errorf("not a tenant: %q", s.TenantID)
		}
		if s.Key == nil {
			return nil, fmt.Errorf("there is no key of %s", s.TenantID)
		}
	}
	if a.TenantID == b.TenantID {
		return nil, errors.New("the two tenants must differ")
	}
	if !twinrail.ValidKeyValue(twinrail.KeyEnv, env) || otherEnv != "" && !twinrail.ValidKeyValue(twinrail.KeyEnv, otherEnv) || env == otherEnv {
		return nil, errors.New("the two envs must be well formed, and differ")
	}
	return &minted{[2]Signer{a, b}, env, otherEnv}, nil
}

func (m *minted) Base(s Side) twinrail.Identity {
	return twinrail.Identity{TenantID: m.signers[s].TenantID, Env: m.env}
}

func (m *minted) OtherEnv() string { return m.otherEnv }

func (m *minted) Token(want Want) (string, error) {
	id := twinrail.Identity{
		TenantID: want.TenantID, Env: want.Env, ActorID: want.ActorID, ActorType: twinrail.Human,
		Role: want.Role, Grants: want.Grants, TokenID: want.TokenID,
	}
	if id.Role == "" {
		id.Role = twinrail.Member
	}
	if len(id.Grants) == 0 {
		id.Grants = []twinrail.Grant{auth.FullGrant()}
	}
	ttl := want.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	key := m.keyOf(want.TenantID)
	if key == nil {
		return "", unavailable("there is no key of %s", want.TenantID)
	}
	return key.Mint(id, ttl)
}

// keyOf returns what signs the tokens of a tenant, or nil.
func (m *minted) keyOf(tenant string) *auth.Signer {
	for _, s := range m.signers {
		if s.TenantID == tenant {
			return s.Key
		}
	}
	return nil
}

// fixed has two tokens, and no others.
type fixed struct {
	tokens     [2]string
	identities [2]twinrail.Identity
}

// NewFixed returns Tokens that are only those two: what else is wanted cannot be
// had. They are best of two tenants, broad, and good for as long as the run takes.
func NewFixed(a, b string) (Tokens, error) {
	f := &fixed{tokens: [2]string{a, b}}
	for i, token := range f.tokens {
		id, err := peek(token)
		if err != nil {
			return nil, fmt.Errorf("token %c: %w", 'a'+i, err)
		}
		f.identities[i] = id
	}
	return f, nil
}

// peek reads what a token says. Nothing is verified: that is the server's to do.
func peek(token string) (id twinrail.Identity, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return id, errors.New("not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return id, errors.New("not a JWT")
	}
	var claims struct {
		Subject  string        `json:"sub"`
		TenantID string        `json:"tenant_id"`
		Env      string        `json:"env"`
		Role     twinrail.Role `json:"role"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return id, errors.New("not a JWT with the claims of Twinrail")
	}
	if claims.Subject == "" || claims.TenantID == "" || claims.Env == "" {
		return id, errors.New("sub, tenant_id or env is missing")
	}
	return twinrail.Identity{ActorID: claims.Subject, TenantID: claims.TenantID, Env: claims.Env, Role: claims.Role}, nil
}

func (f *fixed) Base(s Side) twinrail.Identity { return f.identities[s] }

func (f *fixed) OtherEnv() string {
	a, b := f.identities[SideA], f.identities[SideB]
	if a.TenantID == b.TenantID && a.Env != b.Env {
		return b.Env
	}
	return ""
}

func (f *fixed) Token(want Want) (string, error) {
	if want.Exact || want.TTL != 0 {
		return "", unavailable("needs signing keys")
	}
	for i, id := range f.identities {
		if id.TenantID == want.TenantID && id.Env == want.Env && id.ActorID == want.ActorID &&
			(want.Role == "" || want.Role == id.Role) {
			return f.tokens[i], nil
		}
	}
	return "", unavailable("needs signing keys: there is no such token of %s in %s", want.TenantID, want.Env)
}

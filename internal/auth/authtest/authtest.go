// Package authtest makes principals and authorized addresses for the tests of
// other packages, by the same way as in production: it mints a token, has it
// verified, and enters the context.
package authtest

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// T is what this package needs of a *testing.T, a *testing.B or a *rapid.T.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Issuer issues credentials, and verifies only its own.
type Issuer struct {
	t        T
	key      []byte
	verifier *auth.Verifier
}

// New returns an Issuer with a key of its own. It may be used within a synctest
// bubble.
func New(t T) *Issuer {
	t.Helper()
	key := make([]byte, auth.MinSecret)
	rand.Read(key)
	v, err := auth.NewVerifier(auth.VerifierOptions{Keys: []auth.Key{{Material: key}}})
	if err != nil {
		t.Fatalf("authtest: %v", err)
	}
	return &Issuer{t, key, v}
}

// Verifier returns the verifier of the issuer's tokens.
func (i *Issuer) Verifier() *auth.Verifier { return i.verifier }

// Gate returns a gate in front of the issuer's verifier, with the given options.
func (i *Issuer) Gate(o auth.GateOptions) *auth.Gate {
	i.t.Helper()
	o.Verifier = i.verifier
	g, err := auth.NewGate(o)
	if err != nil {
		i.t.Fatalf("authtest: %v", err)
	}
	return g
}

// Option changes what a token says. ExpiresAt is what the token's exp becomes.
type Option func(*twinrail.Identity)

// Tenant sets the tenant.
func Tenant(tenant string) Option { return func(id *twinrail.Identity) { id.TenantID = tenant } }

// Env sets the env.
func Env(env string) Option { return func(id *twinrail.Identity) { id.Env = env } }

// Actor sets the actor.
func Actor(actor string) Option { return func(id *twinrail.Identity) { id.ActorID = actor } }

// Role sets the role.
func Role(role twinrail.Role) Option { return func(id *twinrail.Identity) { id.Role = role } }

// Grants replaces the grants; without any the token gives no right to a stream.
func Grants(grants ...twinrail.Grant) Option {
	return func(id *twinrail.Identity) { id.Grants = grants }
}

// ExpiresIn sets the time until the token expires, in whole seconds; with a
// negative one it has expired.
func ExpiresIn(d time.Duration) Option {
	return func(id *twinrail.Identity) { id.ExpiresAt = time.Now().Add(d) }
}

// TokenID sets the jti.
func TokenID(tokenID string) Option { return func(id *twinrail.Identity) { id.TokenID = tokenID } }

// IssuedAt sets the iat, in whole seconds; else it is now, or an hour before a
// token that has expired did.
func IssuedAt(at time.Time) Option { return func(id *twinrail.Identity) { id.IssuedAt = at } }

// Token returns a token for the human u_1, a member, in t_acme and dev, that
// grants everything there for an hour, as changed by opts.
func (i *Issuer) Token(opts ...Option) string {
	i.t.Helper()
	now := time.Now()
	id := twinrail.Identity{
		ActorID: "u_1", ActorType: twinrail.Human, TenantID: "t_acme", Env: "dev", Role: twinrail.Member,
		Grants: []twinrail.Grant{auth.FullGrant()}, ExpiresAt: now.Add(time.Hour),
	}
	for _, opt := range opts {
		opt(&id)
	}
	if id.IssuedAt.IsZero() {
		id.IssuedAt = now
		if id.ExpiresAt.Before(now) {
			id.IssuedAt = id.ExpiresAt.Add(-time.Hour)
		}
	}
	token, err := auth.Mint(i.key, id, id.ExpiresAt.Sub(id.IssuedAt))
	if err != nil {
		i.t.Fatalf("authtest: mint: %v", err)
	}
	return token
}

// Principal returns whom [Issuer.Token] speaks for.
func (i *Issuer) Principal(opts ...Option) *auth.Principal {
	i.t.Helper()
	p, err := i.verifier.Verify(context.Background(), i.Token(opts...))
	if err != nil {
		i.t.Fatalf("authtest: verify: %v", err)
	}
	return p
}

// Context returns the context of a request that states only tenant, env dev and
// actor. Without grants it has the full one.
func (i *Issuer) Context(tenant, actor string, grants ...twinrail.Grant) *auth.Context {
	i.t.Helper()
	if len(grants) == 0 {
		grants = []twinrail.Grant{auth.FullGrant()}
	}
	return i.enter(twinrail.Routing{TenantID: tenant, Env: "dev", ActorID: actor}, Grants(grants...))
}

func (i *Issuer) enter(stated twinrail.Routing, opts ...Option) *auth.Context {
	i.t.Helper()
	opts = append([]Option{Tenant(stated.TenantID), Env(stated.Env), Actor(stated.ActorID)}, opts...)
	c, err := i.Principal(opts...).Enter(stated, "req-1", "")
	if err != nil {
		i.t.Fatalf("authtest: enter: %v", err)
	}
	return c
}

// Reader returns the right of the actor in r to read the channels of the stream
// that r names, holding r's audience.
func (i *Issuer) Reader(r twinrail.Routing, kind twinrail.Kind, channels ...twinrail.Channel) auth.Reader {
	i.t.Helper()
	reader, err := i.enter(r).Reader(r, kind, twinrail.ChannelsOf(channels...))
	if err != nil {
		i.t.Fatalf("authtest: reader: %v", err)
	}
	return reader
}

// Writer returns the right of the actor in r to publish on channel at the
// address that r names.
func (i *Issuer) Writer(r twinrail.Routing, channel twinrail.Channel) auth.Writer {
	i.t.Helper()
	writer, err := i.enter(r).Writer(r, channel)
	if err != nil {
		i.t.Fatalf("authtest: writer: %v", err)
	}
	return writer
}

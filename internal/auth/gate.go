package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/table"
)

// GateOptions is what a [Gate] is made of. The zero value of a field means its
// default, where the comment names one.
type GateOptions struct {
	// Verifier verifies tokens. Required.
	Verifier *Verifier
	// Revocations and Cookies keep what their names say. Default tables in
	// memory, which a restart empties.
	Revocations, Cookies table.Table
	// Key signs resume tokens: MinSecret bytes or more. Default a random one,
	// with which they do not outlive the process.
	Key []byte
	// AllowedOrigins lists the exact origins whose pages may use a cookie or a
	// ticket. The origin "null" never is one. Default none.
	AllowedOrigins []string
	// InsecureCookies is for development over plain HTTP: it names the cookie
	// without the prefix __Host-, and leaves out Secure.
	InsecureCookies bool
	// TicketTTL is how long a ticket is good for. Default 60 s.
	TicketTTL time.Duration
	// MaxTokenAge is how long after its iat a token is accepted at most, and
	// with that how long a revocation is kept. Default 90 days. Whoever raises it
	// brings back tokens whose revocation is forgotten already.
	MaxTokenAge time.Duration
	// Logger takes what an operator should know. Default discards.
	Logger *slog.Logger
}

// Gate is the way in: whatever a request carries as its credential, the gate
// turns into a [Context], or refuses. Its methods may be called concurrently.
type Gate struct {
	opts        GateOptions
	origins     map[string]bool
	resumeKey   []byte
	revocations *revocations
	logins      *logins
	tickets     tickets
	onRevoke    func(tenant, env, actor string)
}

// NewGate returns a Gate, having read its tables.
func NewGate(o GateOptions) (*Gate, error) {
	if o.Verifier == nil {
		return nil, errors.New("auth: a gate needs a verifier")
	}
	o = o.withDefaults()
	g := &Gate{opts: o, origins: make(map[string]bool)}
	for _, origin := range o.AllowedOrigins {
		g.origins[origin] = origin != "null" // which is not one page's alone
	}
	var err error
	if g.resumeKey, err = newResumeKey(o.Key); err != nil {
		return nil, err
	}
	now := time.Now()
	if g.revocations, err = openRevocations(o.Revocations, o.MaxTokenAge+maxClockSkew, now); err != nil {
		return nil, err
	}
	if g.logins, err = openLogins(o.Cookies, o.Verifier.envs, o.MaxTokenAge, now); err != nil {
		return nil, err
	}
	return g, nil
}

func (o GateOptions) withDefaults() GateOptions {
	o.TicketTTL = cmp.Or(o.TicketTTL, time.Minute)
	o.MaxTokenAge = cmp.Or(o.MaxTokenAge, 90*24*time.Hour)
	if o.Revocations == nil {
		o.Revocations = new(table.Memory)
	}
	if o.Cookies == nil {
		o.Cookies = new(table.Memory)
	}
	if len(o.Key) == 0 {
		o.Key = make([]byte, MinSecret)
		rand.Read(o.Key) // never fails
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Admit does the first three checks of a request in their order: the credential
// (401; for a cookie or a ticket before that the origin, 403), the context
// present and well formed (400), its tenant, env and actor the credential's
// (403). Whether the rail is on and what the grants cover is still to be asked;
// and so is, with [Context.AllowsRail], what a ticket is for.
//
// An explicit bearer or ticket counts in place of a cookie, which browsers send
// along unasked; a bearer and a ticket together are credential_invalid. A ticket
// is used up once it has been looked up, whatever becomes of the request.
func (g *Gate) Admit(r *http.Request) (*Context, error) {
	p, err := g.principal(r)
	if err != nil {
		return nil, err
	}
	stated, err := StatedRouting(r)
	if err != nil {
		return nil, err
	}
	return p.Enter(stated, RequestID(r), Traceparent(r))
}

func (g *Gate) principal(r *http.Request) (*Principal, error) {
	how, secret, err := g.carried(r)
	if err != nil {
		return nil, err
	}
	if !g.originAllowed(r, how) {
		return nil, errOrigin
	}
	var p *Principal
	switch how {
	case byBearer:
		return g.Verify(r.Context(), secret)
	case byTicket:
		p, err = g.tickets.take(secret, time.Now())
	case byCookie:
		p, err = g.logins.find(secret, time.Now())
	}
	if err != nil {
		return nil, err
	}
	if g.Revoked(p) {
		return nil, errRevoked
	}
	return p, nil
}

// Verify is [Verifier.Verify], and refuses what is revoked or older than
// MaxTokenAge: the principal's end is no later than that after its iat. An iat that
// is up to a minute ahead counts as now, so that a later revocation covers it.
//
// A token that has no iat must end within MaxTokenAge from now. When it was issued
// nobody can say: one that its issuer made for longer is refused at first, but
// accepted in its last MaxTokenAge, when its revocation may have been forgotten.
func (g *Gate) Verify(ctx context.Context, raw string) (*Principal, error) {
	p, err := g.opts.Verifier.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	id, now := &p.identity, time.Now() // p is still ours alone
	if id.IssuedAt.IsZero() && id.ExpiresAt.After(now.Add(g.opts.MaxTokenAge)) {
		return nil, invalid("iat is needed in a token that is valid for so long")
	}
	if id.IssuedAt.After(now.Add(maxClockSkew)) {
		return nil, invalid("iat is in the future")
	}
	if last := id.IssuedAt.Add(g.opts.MaxTokenAge); !id.IssuedAt.IsZero() && id.ExpiresAt.After(last) {
		id.ExpiresAt = last
	}
	if !now.Before(id.ExpiresAt) {
		return nil, errExpired
	}
	if id.IssuedAt.After(now) {
		g.revocations.noteAhead(id, id.IssuedAt)
		id.IssuedAt = now.UTC()
	}
	if g.Revoked(p) {
		return nil, errRevoked
	}
	return p, nil
}

var (
	errExpired = &twinrail.Error{Code: twinrail.CodeCredentialExpired}
	errRevoked = &twinrail.Error{Code: twinrail.CodeCredentialRevoked}
)

// Renew verifies raw as a newer credential for what was opened with c, and
// returns the context that takes c's place, as [Context.RenewedBy] says. What a
// ticket left out of c is not left out of that.
func (g *Gate) Renew(ctx context.Context, c *Context, raw string) (*Context, error) {
	p, err := g.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	return c.RenewedBy(p)
}

// Still returns why c, which was admitted some time ago, would not be any more:
// its credential has expired or was revoked meanwhile. To be asked before something
// is done that was waited for.
func (g *Gate) Still(c *Context) error {
	p := c.Principal()
	switch {
	case !time.Now().Before(p.ExpiresAt()):
		return errExpired
	case g.Revoked(p):
		return errRevoked
	}
	return nil
}

// unavailable returns err where it is the client's, and else logs it and returns
// what a client may see of it.
func (g *Gate) unavailable(what string, err error) error {
	var own *twinrail.Error
	if errors.As(err, &own) {
		return err
	}
	g.opts.Logger.Error(what, "error", err)
	return twinrail.Errorf(twinrail.CodeUnavailable, "", "%s", what)
}

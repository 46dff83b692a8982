package auth

import (
	"cmp"
	"context"
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
	// ticket. Default none.
	AllowedOrigins []string
	// InsecureCookies is for development over plain HTTP: it names the cookie
	// without the prefix __Host-, and leaves out Secure.
	InsecureCookies bool
	// TicketTTL is how long a ticket is good for. Default 60 s.
	TicketTTL time.Duration
	// MaxTokenAge is how long after its iat a token is accepted at most, and
	// with that how long a revocation is kept. Default 90 days.
	MaxTokenAge time.Duration
	// Logger takes what an operator should know. Default discards.
	Logger *slog.Logger
}

// Gate is the way in: whatever a request carries as its credential, the gate
// turns into a [Context], or refuses. Its methods may be called concurrently.
type Gate struct {
	opts    GateOptions
	origins map[string]bool
}

// NewGate returns a Gate, having read its tables.
func NewGate(o GateOptions) (*Gate, error) {
	if o.Verifier == nil {
		return nil, errors.New("auth: a gate needs a verifier")
	}
	o.TicketTTL = cmp.Or(o.TicketTTL, time.Minute)
	o.MaxTokenAge = cmp.Or(o.MaxTokenAge, 90*24*time.Hour)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gate{opts: o, origins: make(map[string]bool)}
	for _, origin := range o.AllowedOrigins {
		g.origins[origin] = true
	}
	return g, nil
}

// Admit does the first three checks of a request in their order: the credential
// (401; for a cookie or a ticket before that the origin, 403), the context
// present and well formed (400), its tenant, env and actor the credential's
// (403). Whether the rail is on and what the grants cover is still to be asked.
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
	raw, err := Credential(r)
	if err != nil {
		return nil, err
	}
	return g.Verify(r.Context(), raw)
}

// Verify is [Verifier.Verify], and refuses what is revoked or older than
// MaxTokenAge.
func (g *Gate) Verify(ctx context.Context, raw string) (*Principal, error) {
	return g.opts.Verifier.Verify(ctx, raw)
}

// Renew verifies raw as a newer credential for what was opened with c, and
// returns the context that takes c's place: the same tenant, env and actor
// (context_mismatch, actor_mismatch), the same keys and ids, until the newer
// one's end, which must not be before the older one's (credential_invalid).
func (g *Gate) Renew(ctx context.Context, c *Context, raw string) (*Context, error) {
	return nil, errors.ErrUnsupported
}

// IssueTicket returns a ticket that stands for c's credential once, within the
// bounds of request. It has code not_found where the grants cover nothing within
// these, and limit_exceeded where the actor has too many tickets unused.
func (g *Gate) IssueTicket(c *Context, request twinrail.TicketRequest) (twinrail.TicketResponse, error) {
	return twinrail.TicketResponse{}, errors.ErrUnsupported
}

// OpenSession returns the cookie that from now on stands for c's credential, and
// ends the session of a cookie that r carries, if that is the same actor's.
func (g *Gate) OpenSession(c *Context, r *http.Request) (*http.Cookie, error) {
	return nil, errors.ErrUnsupported
}

// EndSession ends the session that r's cookie stands for, with every connection
// that was opened with it, and returns the cookie that removes it in the
// browser. The origin is checked as in [Gate.Admit]; a session that has ended
// already is no error.
func (g *Gate) EndSession(r *http.Request) (*http.Cookie, error) {
	return nil, errors.ErrUnsupported
}

// Revoke makes credentials of c's tenant and env void that were issued up to
// now. It is durable on return. It needs the permission session:revoke, else
// it has code not_found.
func (g *Gate) Revoke(c *Context, what twinrail.RevocationRequest) (twinrail.RevocationResponse, error) {
	return twinrail.RevocationResponse{}, errors.ErrUnsupported
}

// Revoked reports whether p's credential has been revoked, or its cookie session
// been ended, since.
func (g *Gate) Revoked(p *Principal) bool { return false }

// OnRevoke has fn called after each change of what Revoked says. It is to be
// called before the gate is used, once.
func (g *Gate) OnRevoke(fn func()) {}

// Resume is what a resume token says.
type Resume struct {
	SessionID string
	// Uses is how often the session had been resumed when the token was made.
	Uses uint64
	Subs []ResumeSub
}

// ResumeSub is one subscription of a session.
type ResumeSub struct {
	Name     string
	Kind     twinrail.Kind
	Routing  twinrail.Routing // all keys, the context's too; no actor
	Channels twinrail.ChannelSet
	Present  bool // the client is a member there
}

// SealResume returns the resume token that says so, bound to c's tenant, env,
// actor and credential.
func (g *Gate) SealResume(c *Context, r Resume) string { return "" }

// OpenResume returns what a resume token says. It has code resume_invalid where
// the token was not made by this server, or not for c's tenant, env and actor;
// and credential_revoked where the credential that it was made for was revoked
// since.
func (g *Gate) OpenResume(c *Context, token string) (Resume, error) {
	return Resume{}, errors.ErrUnsupported
}

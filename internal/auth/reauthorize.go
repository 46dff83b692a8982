package auth

import "github.com/twinrail/twinrail"

// RenewedBy returns the context that takes c's place once p has been verified as
// the newer credential of the same tenant, env (context_mismatch) and actor
// (actor_mismatch): with the same keys and ids, until p's end, which must not be
// before that of c (credential_invalid).
func (c *Context) RenewedBy(p *Principal) (*Context, error) {
	was := &c.who().identity
	if err := p.owns(twinrail.Routing{TenantID: was.TenantID, Env: was.Env, ActorID: was.ActorID}); err != nil {
		return nil, err
	}
	if p.ExpiresAt().Before(was.ExpiresAt) {
		return nil, invalid("it ends before the one that it is to replace")
	}
	return &Context{p, c.routing, c.requestID, c.traceparent}, nil
}

// Allows returns nil where c gives the right r too, so that what was opened with
// r may go on under c. Its errors are those of [Context.Reader].
func (c *Context) Allows(r Reader) error {
	_, err := c.Reader(r.Address().Routing(), r.home.Kind, r.channels)
	return err
}

// Address returns the stream that r may read, and the audience that it holds.
func (r Reader) Address() twinrail.Address {
	return twinrail.Address{Home: r.home, Audience: r.audience}
}

package probe

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/twinrail/twinrail"
)

// revocation: what the revocation of the right one's credential does to the wrong
// one's.
func revocation(ctx context.Context, w *world) error {
	if err := w.revoke(ctx, byToken); err != nil {
		return err
	}
	if err := w.revoke(ctx, byActor); err != nil {
		return err
	}
	if w.key != twinrail.KeyTenant && w.key != twinrail.KeyEnv {
		return nil
	}
	own, ok := w.tokens.(*minted)
	if !ok {
		w.note("the revocation of a whole tenant: needs signing keys")
		return nil
	}
	// Of the target's tenants everybody would be cut off: these are ours.
	was := w.runner
	defer func() { w.runner = was }()
	r := *was
	r.tokens = own.elsewhere("t_"+w.fresh(), "t_"+w.fresh())
	w.runner = &r
	p, err := w.party("one of a tenant of ours", w.address())
	if err != nil {
		return err
	}
	a, err := p.do(ctx, page(p.at()))
	if err != nil {
		return err
	}
	if a.status == http.StatusUnauthorized {
		w.note("the revocation of a whole tenant: needs keys that are good for any tenant")
		return nil
	}
	return w.revoke(ctx, byTenant)
}

// elsewhere returns tokens of two other tenants, signed like those of the first.
func (m *minted) elsewhere(a, b string) *minted {
	key := m.signers[SideA].Key
	return &minted{[2]Signer{{a, key}, {b, key}}, m.env, m.otherEnv}
}

// by is what credentials are revoked by.
type by int

const (
	byToken by = iota
	byActor
	byTenant
)

// request returns what revokes p's credential.
func (b by) request(p *exposed) twinrail.RevocationRequest {
	switch b {
	case byToken:
		return twinrail.RevocationRequest{TokenID: p.tokenID}
	case byActor:
		return twinrail.RevocationRequest{ActorID: p.routing.ActorID}
	}
	return twinrail.RevocationRequest{Tenant: true}
}

// revoking is the call that revokes.
func revoking(stated twinrail.Routing, request twinrail.RevocationRequest) call {
	return call{method: http.MethodPost, path: twinrail.PathRevocations, stated: stated, body: request}
}

// exposed is a party with all that a revocation puts an end to.
type exposed struct {
	*party
	can            []string
	tokenID        string
	stream         *stream
	conn           *conn
	ticket, cookie string
	held           *held
	after          *canary // what was published after the revocation; nil where nothing was
}

// expose returns one at an address, with a token of that id, who follows both rails.
func (w *world) expose(ctx context.Context, opened *sessions, name string, at twinrail.Routing, tokenID string) (*exposed, error) {
	can := []string{"commit:read", "chat:read", "tool:read"}
	p, err := w.party(name, at, can...)
	if err != nil {
		return nil, err
	}
	x := &exposed{party: p, can: can, tokenID: tokenID}
	p.token, err = w.tokens.Token(Want{
		TenantID: at.TenantID, Env: at.Env, ActorID: at.ActorID, Grants: []twinrail.Grant{grantOf(at, can...)}, Exact: true, TokenID: tokenID,
	})
	if err != nil {
		return nil, err
	}
	if x.held, err = p.cutOff(ctx); err != nil {
		return nil, err
	}
	if x.stream, err = p.mustFollow(ctx, sse(p.at(), nil)); err != nil {
		return nil, err
	}
	if x.conn, _, err = p.mustJoin(ctx, "", twinrail.Chat); err != nil {
		return nil, err
	}
	if x.ticket, err = p.ticket(ctx, nil); err != nil {
		return nil, err
	}
	x.cookie, err = opened.open(ctx, p, call{})
	return x, err
}

// revoke has two who differ in the cell's key alone follow both rails, and revokes
// the credential of the one. With a token they have one id where it is another
// token for it: in another tenant or env.
func (w *world) revoke(ctx context.Context, b by) (err error) {
	opened := new(sessions)
	defer func() {
		if endedByServer(err) {
			w.leak("a credential was revoked by whom it is not of: %v", err)
		}
		opened.end(ctx, w)
	}()
	at := w.address()
	differs, err := w.other(at)
	if err != nil {
		return err
	}
	tokenID := w.fresh()
	right, err := w.expose(ctx, opened, "the right one", at, tokenID)
	if err != nil {
		return err
	}
	if w.key != twinrail.KeyTenant && w.key != twinrail.KeyEnv {
		tokenID = w.fresh()
	}
	wrong, err := w.expose(ctx, opened, "who has another "+w.key.String(), differs, tokenID)
	if err != nil {
		return err
	}
	if err := w.mayNotRevoke(ctx, b, right, wrong); err != nil {
		return err
	}
	for _, x := range []*exposed{right, wrong} {
		if err := x.follows(ctx); err != nil {
			return fmt.Errorf("before anything is revoked: %w", err)
		}
	}
	admin := at
	admin.ActorID = w.fresh()
	revoker, err := w.party("who revokes", admin)
	if err != nil {
		return err
	}
	revoke := revoking(right.at(), b.request(right))
	if err := w.administersByTicket(ctx, revoker, revoke); err != nil {
		return err
	}
	if err := revoker.must(ctx, revoke, nil); err != nil {
		return err
	}
	if b == byToken { // else whoever could publish may be cut off too
		if err := right.publishAfter(ctx); err != nil || len(w.leaks) > 0 {
			return err
		}
	}
	if err := right.isOver(ctx); err != nil {
		return err
	}
	if b == byToken {
		if err := w.resumeRevoked(ctx, right); err != nil {
			return err
		}
	}
	if b == byActor && !w.own() {
		// The two are one actor: to have another value is no way round.
		return wrong.isOver(ctx)
	}
	return wrong.goesOn(ctx)
}

// mayNotRevoke has the wrong one revoke what is the right one's: by itself, and as
// somebody who may revoke where it is.
func (w *world) mayNotRevoke(ctx context.Context, b by, right, wrong *exposed) error {
	request := b.request(right)
	none := twinrail.RevocationRequest{TokenID: w.fresh()}
	got, err := wrong.do(ctx, revoking(wrong.at(), request))
	if err != nil {
		return err
	}
	absent, err := wrong.do(ctx, revoking(wrong.at(), none))
	if err != nil {
		return err
	}
	if err := w.refused(wrong.name+" revokes without the permission", got, absent, twinrail.CodeNotFound); err != nil {
		return err
	}
	if !w.own() {
		return nil // who has the permission has it in the whole tenant and env
	}
	as := wrong.party
	if w.key != twinrail.KeyActor {
		at := wrong.routing
		at.ActorID = w.fresh()
		if as, err = w.party("who may revoke where another "+w.key.String()+" is", at); err != nil {
			return err
		}
	}
	return w.trespass(&scene{right: right.party, wrong: as}, func(p *party, at twinrail.Routing) (*answer, error) {
		return p.do(ctx, revoking(at, request))
	})
}

// follows publishes for x on both rails, and waits until it has come there.
func (x *exposed) follows(ctx context.Context) error {
	for channel, f := range map[twinrail.Channel]follower{twinrail.Commit: x.stream, twinrail.Chat: x.conn} {
		e := x.w.eventFor(x.party, channel)
		if _, err := x.w.publish(ctx, x.party, e); err != nil {
			return err
		}
		if _, err := f.await(e.text); err != nil {
			return fmt.Errorf("%s did not receive its own: %w", x.name, err)
		}
	}
	return nil
}

// publishAfter publishes for x, whose token was revoked, what must not come any
// more. Who publishes has another token of the same actor, which must be as good as
// before.
func (x *exposed) publishAfter(ctx context.Context) error {
	source, err := x.w.source(x.party)
	if err != nil {
		return err
	}
	x.after = x.w.canary("what was published for "+x.name+" after its revocation", source)
	for _, channel := range []twinrail.Channel{twinrail.Commit, twinrail.Chat} {
		e := x.after.event(channel, x.routing)
		e.event.To = []string{x.routing.ActorID}
		a, err := source.do(ctx, publishing(e))
		switch {
		case err != nil:
			return err
		case a.code() == twinrail.CodeCredentialRevoked:
			x.w.leak("with a token of %s another one was revoked too", x.name)
		case a.status != http.StatusOK:
			return fmt.Errorf("publishing after the revocation: %s", a)
		}
	}
	return nil
}

// goesOnWith reports whether what came is what must not come any more.
func (x *exposed) goesOnWith(came string) bool {
	return x.after != nil && strings.Contains(came, x.after.text)
}

// isOver waits until the server has ended what x follows, and checks that nothing
// of x's is good for anything any more.
func (x *exposed) isOver(ctx context.Context) error {
	for what, c := range x.carries() {
		a, err := x.do(ctx, c)
		if err != nil {
			return err
		}
		switch {
		case a.unserved():
			return fmt.Errorf("%s of %s, which was revoked: %s", what, x.name, a)
		case a.code() != twinrail.CodeCredentialRevoked:
			x.w.leak("%s of %s is still good when it was revoked: %s", what, x.name, a)
		}
	}
	b, err := x.stream.find("the end", func(b block) bool { return b.event == twinrail.SSEEnd || x.goesOnWith(b.data) })
	if err != nil {
		return err
	}
	if x.goesOnWith(b.data) {
		x.w.leak("the stream of %s goes on when it was revoked", x.name)
		return nil
	}
	if err := b.endsFor(x.party, twinrail.CodeCredentialRevoked); err != nil {
		return err
	}
	if _, err := x.conn.find("the end", func(f *frame) bool { return x.goesOnWith(f.raw) }); err == nil {
		x.w.leak("the WebSocket of %s goes on when it was revoked", x.name)
	} else if !endedByServer(err) {
		return fmt.Errorf("the WebSocket of %s ended otherwise: %w", x.name, err)
	}
	return nil
}

// resumeRevoked has the same actor with another token resume the session of a
// revoked one.
func (w *world) resumeRevoked(ctx context.Context, x *exposed) error {
	again, err := w.party(x.name+" with another token", x.routing, x.can...)
	if err != nil {
		return err
	}
	c, err := again.mustDial(ctx)
	if err != nil {
		return err
	}
	got, err := c.ask(x.held.resuming())
	if err != nil {
		return err
	}
	return w.refused("a session of a revoked token is resumed", got.asAnswer(), nil, twinrail.CodeCredentialRevoked)
}

// carries are requests with each of what stands for x's credential.
func (x *exposed) carries() map[string]call {
	c := page(x.at())
	return map[string]call{"the token": c, "a ticket": withTicket(c, x.ticket), "the cookie": withCookie(c, x.cookie)}
}

// goesOn checks that all that x has is as good as before, after the revocation of
// another one's.
func (x *exposed) goesOn(ctx context.Context) error {
	for what, c := range x.carries() {
		a, err := x.do(ctx, c)
		if err != nil {
			return err
		}
		switch {
		case a.unserved():
			return fmt.Errorf("%s of %s, which was not revoked: %s", what, x.name, a)
		case a.status != http.StatusOK:
			x.w.leak("with the right one's credential %s of %s was revoked too: %s", what, x.name, a)
		}
	}
	if len(x.w.leaks) > 0 {
		return nil // nothing would come
	}
	err := x.follows(ctx)
	if endedByServer(err) {
		x.w.leak("with the right one's credential a connection of %s was revoked too", x.name)
		return nil
	}
	if err != nil {
		return err
	}
	b, err := x.comeBack(ctx, x.held)
	if err == nil && b.void != "" {
		err = fmt.Errorf("the cursor is void: %s", b.void)
	}
	if err != nil {
		x.w.leak("with the right one's credential a session of %s was revoked too: %v", x.name, err)
	}
	return nil
}

package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/twinrail/twinrail"
)

// renewal is the call that has p's credential take the place of a connection's.
func renewal(connection string) call {
	return call{method: http.MethodPost, path: twinrail.PathConnections + url.PathEscape(connection) + "/auth"}
}

// foreignRenewal has the wrong one give its credential to a connection of the right
// one's, which must be refused like for a connection that does not exist. It is for
// the keys that a credential settles.
func (w *world) foreignRenewal(ctx context.Context, s *scene, connection string) error {
	got, err := s.wrong.do(ctx, renewal(connection))
	if err != nil {
		return err
	}
	absent, err := s.wrong.do(ctx, renewal("c_"+random()))
	if err != nil {
		return err
	}
	return w.refused(s.wrong.name+" renews a connection of the right one's", got, absent, twinrail.CodeNotFound)
}

// regranted returns somebody at the right one's address, and the same actor with a
// newer token, which is for the wrong one's address alone. They are nil where such
// tokens cannot be had.
func (w *world) regranted(s *scene) (had, has *party, err error) {
	if !s.wrong.exact {
		w.note("a connection that is renewed with another grant: needs signing keys")
		return nil, nil, nil
	}
	if had, err = w.party("who was granted another "+w.key.String()+" meanwhile", s.right.routing, s.can...); err != nil {
		return nil, nil, err
	}
	has, err = w.party("the same actor with another grant", s.wrong.routing, s.can...)
	return had, has, err
}

// renewSSE: a stream whose credential is renewed with one of another value. Where a
// credential settles the key, it is refused; else the stream ends.
func (w *world) renewSSE(ctx context.Context, s *scene) error {
	if w.own() {
		f, err := s.right.mustFollow(ctx, sse(s.right.at(), nil))
		if err != nil {
			return err
		}
		return w.foreignRenewal(ctx, s, f.open.ConnectionID)
	}
	had, has, err := w.regranted(s)
	if had == nil {
		return err
	}
	f, err := had.mustFollow(ctx, sse(had.at(), nil))
	if err != nil {
		return err
	}
	if err := has.must(ctx, renewal(f.open.ConnectionID), nil); err != nil {
		return fmt.Errorf("the same actor cannot renew: %w", err)
	}
	e := w.eventFor(s.right, twinrail.Commit)
	if _, err := w.publish(ctx, s.right, e); err != nil {
		return err
	}
	b, err := f.find("the end", func(b block) bool { return b.event == twinrail.SSEEnd || strings.Contains(b.data, e.text) })
	if err != nil || b.event != twinrail.SSEEnd {
		return err // who saw the canary is found by it
	}
	return b.endsFor(had, twinrail.CodeNotFound)
}

// renewWS is renewSSE for a WebSocket, by its own frame: the subscription is left.
func (w *world) renewWS(ctx context.Context, s *scene) error {
	if w.own() {
		c, err := s.right.mustDial(ctx)
		if err != nil {
			return err
		}
		if err := w.foreignRenewal(ctx, s, c.welcome.ConnectionID); err != nil {
			return err
		}
		code := twinrail.CodeContextMismatch
		if w.key == twinrail.KeyActor {
			code = twinrail.CodeActorMismatch
		}
		got, err := c.ask(twinrail.ClientFrame{Op: twinrail.OpAuth, Token: s.wrong.token})
		if err != nil {
			return err
		}
		return w.refused("a connection of the right one's is given the token of one "+s.wrong.name, got.asAnswer(), nil, code)
	}
	had, has, err := w.regranted(s)
	if had == nil {
		return err
	}
	c, _, err := had.mustJoin(ctx, "", twinrail.Chat)
	if err != nil {
		return err
	}
	if _, err := c.must(twinrail.ClientFrame{Op: twinrail.OpAuth, Token: has.token}); err != nil {
		return err
	}
	if _, err := w.publish(ctx, s.right, w.eventFor(s.right, twinrail.Chat)); err != nil {
		return err
	}
	if _, err := c.must(twinrail.ClientFrame{Op: twinrail.OpPing}); err != nil {
		return err
	}
	if !slices.ContainsFunc(c.pending, func(f frame) bool { return f.Op == twinrail.OpLeft && f.Sub == "s" }) {
		w.leak("%s keeps the subscription", had.name)
	}
	return nil
}

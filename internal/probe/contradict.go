package probe

import (
	"context"
	"fmt"
	"net/http"

	"github.com/twinrail/twinrail"
)

// contradict has the wrong one state the cell's key twice: as its own and as the
// right one's, in either order. Whichever of them counted, what stands between
// client and server could go by the other: it must be refused, like where the other
// one is nobody's. State states the one and the other, and returns the answer.
func (w *world) contradict(s *scene, state func(first, again twinrail.Routing) (*answer, error)) error {
	mine := s.wrong.routing
	theirs, nowhere := mine, w.nowhere(mine)
	theirs.Set(w.key, s.right.routing.Get(w.key))
	same, err := state(mine, mine)
	if err == nil && same.status != http.StatusOK {
		err = fmt.Errorf("%s states its own %s twice: %s", s.wrong.name, w.key, same)
	}
	if err != nil {
		return err
	}
	swapped := func(first, again twinrail.Routing) (*answer, error) { return state(again, first) }
	for _, state := range []func(_, _ twinrail.Routing) (*answer, error){state, swapped} {
		got, err := state(mine, theirs)
		if err != nil {
			return err
		}
		absent, err := state(mine, nowhere)
		if err != nil {
			return err
		}
		what := s.wrong.name + " states both its own and the right one's"
		if err := w.refused(what, got, absent, twinrail.CodeContextConflict); err != nil {
			return err
		}
	}
	return nil
}

// contradictRequest is [world.contradict] in the headers and the query of one
// request, and in the query alone. Open is the call that acts at the address that
// it states, and nowhere else says which that is.
func (w *world) contradictRequest(ctx context.Context, s *scene, open func(twinrail.Routing) call) error {
	for _, inQuery := range []bool{false, true} {
		err := w.contradict(s, func(first, again twinrail.Routing) (*answer, error) {
			c := open(first)
			c.inQuery = inQuery
			c.again.Set(w.key, again.Get(w.key))
			return s.wrong.ask(ctx, c)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// contradictPath is [world.contradict] in the path of the SSE rail, where the canvas
// is stated too.
func (w *world) contradictPath(ctx context.Context, s *scene) error {
	if w.key != twinrail.KeyCanvas {
		return nil
	}
	return w.contradict(s, func(path, query twinrail.Routing) (*answer, error) {
		c := sse(query, nil)
		c.path = sse(path, nil).path
		return s.wrong.ask(ctx, c)
	})
}

// contradictWithin is [world.contradict] in the context of a request and in what
// that carries. Of the keys that a credential settles, what is not its own is
// refused for that: see [world.trespass].
func (w *world) contradictWithin(s *scene, state func(context, within twinrail.Routing) (*answer, error)) error {
	if w.own() {
		return nil
	}
	return w.contradict(s, state)
}

// contradictFrame is [world.contradictWithin] in the handshake of a WebSocket and in
// a frame. All the connections are of one request id, so that their answers can be
// compared.
func (w *world) contradictFrame(ctx context.Context, s *scene, frame func(within twinrail.Routing) twinrail.ClientFrame) error {
	id := random()
	return w.contradictWithin(s, func(stated, within twinrail.Routing) (*answer, error) {
		open := handshake(stated)
		open.requestID = id
		c, a, err := s.wrong.dial(ctx, open)
		if a != nil || err != nil {
			return a, err
		}
		got, err := c.ask(frame(within))
		return got.asAnswer(), err
	})
}

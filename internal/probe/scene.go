package probe

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twinrail/twinrail"
)

// scene is a place and the parties that meet there: right and wrong differ in the
// cell's key alone. Each is granted its own address, and nothing else.
type scene struct {
	kind         twinrail.Kind
	can          []string // of each of them
	right, wrong *party
	// bare is like right, but does not state the key at all. It is nil where the
	// key is none of the audience.
	bare *party
}

// scene returns one at a stream of the kind, whose parties can do so much.
func (w *world) scene(kind twinrail.Kind, can ...string) (*scene, error) {
	at := w.address()
	differs, err := w.other(at)
	if err != nil {
		return nil, err
	}
	s := &scene{kind: kind, can: can}
	if s.right, err = w.party("the right one", at, can...); err != nil {
		return nil, err
	}
	if s.wrong, err = w.party("who has another "+w.key.String(), differs, can...); err != nil {
		return nil, err
	}
	if !w.audienceOf(kind) {
		return s, nil
	}
	at.Set(w.key, "")
	s.bare, err = w.party("who has no "+w.key.String(), at, can...)
	return s, err
}

// readers returns all parties of s.
func (s *scene) readers() []*party {
	if s.bare == nil {
		return []*party{s.right, s.wrong}
	}
	return []*party{s.right, s.wrong, s.bare}
}

// sameHome reports whether the parties meet in one stream.
func (s *scene) sameHome() bool {
	return homeOf(s.right.routing, s.kind) == homeOf(s.wrong.routing, s.kind)
}

// secret is an event with a canary.
type secret struct {
	*canary
	event twinrail.NewEvent
}

func (c *canary) event(channel twinrail.Channel, at twinrail.Routing) *secret {
	at.ActorID = ""
	data, _ := json.Marshal(map[string]string{"kind": twinrail.ArtifactPreview, "text": c.text}) // a string always marshals
	e := twinrail.NewEvent{ID: c.text, Channel: channel, Type: c.text, Routing: &at, Data: data}
	if !channel.Journaled() {
		e.ID = ""
	}
	return &secret{c, e}
}

// eventFor returns an event that is for p alone among those who differ from it in
// the cell's key.
func (w *world) eventFor(p *party, channel twinrail.Channel) *secret {
	e := w.canary("what is for "+p.name, p).event(channel, p.routing)
	if w.key == twinrail.KeyActor {
		e.event.To = []string{p.routing.ActorID}
	}
	return e
}

// eventAt returns an event that is for everybody in p's stream, and for nobody
// else.
func (w *world) eventAt(s *scene, p *party, channel twinrail.Channel) *secret {
	var all []*party
	for _, r := range s.readers() {
		if homeOf(r.routing, s.kind) == homeOf(p.routing, s.kind) {
			all = append(all, r)
		}
	}
	return w.canary("what is for everybody where "+p.name+" is", all...).event(channel, homeOf(p.routing, s.kind))
}

// publish publishes where p is, as somebody who may publish anywhere there.
func (w *world) publish(ctx context.Context, p *party, events ...*secret) ([]twinrail.PublishResult, error) {
	source, err := w.source(p)
	if err != nil {
		return nil, err
	}
	return source.publish(ctx, events...)
}

// source returns who may publish everywhere in p's tenant and env.
func (w *world) source(p *party) (*party, error) {
	if p.source != nil {
		return p.source, nil
	}
	source, err := w.party("the publisher", p.routing)
	p.source = source
	return source, err
}

// trespass has the wrong party ask for what is the right one's, by its address,
// and for the same where there is nothing. It must be refused, and both times in
// the same way. ask returns the answer, whatever it is.
func (w *world) trespass(s *scene, ask func(p *party, at twinrail.Routing) (*answer, error)) error {
	return w.trespassing(s, "asks for the right one's", ask)
}

// trespassing is [world.trespass], and says what it is that the wrong party does.
func (w *world) trespassing(s *scene, does string, ask func(p *party, at twinrail.Routing) (*answer, error)) error {
	code, p := twinrail.CodeNotFound, s.wrong
	switch {
	case w.key == twinrail.KeyActor:
		code = twinrail.CodeActorMismatch
	case w.own():
		code = twinrail.CodeContextMismatch
	case !p.exact:
		w.note("that grants are kept to: needs signing keys")
		return nil
	}
	at, nowhere := s.right.routing, w.nowhere(s.right.routing)
	if w.key != twinrail.KeyActor {
		at.ActorID, nowhere.ActorID = "", ""
	}
	got, err := ask(p, at)
	if err != nil {
		return err
	}
	absent, err := ask(p, nowhere)
	if err != nil {
		return err
	}
	return w.refused(p.name+" "+does, got, absent, code)
}

// refused checks that an answer is a refusal with that code. Where absent is
// given, the answer to the same request about what does not exist, it checks that
// they do not differ.
func (w *world) refused(what string, got, absent *answer, code twinrail.Code) error {
	if got.unserved() {
		return fmt.Errorf("%s: %s", what, got)
	}
	if got.status != code.Info().Status || got.code() != code {
		w.leak("%s, and is answered %s in place of %s", what, got, code)
		return nil
	}
	if absent != nil && !got.same(absent) {
		w.leak("%s, and is not answered as where there is nothing: %s, and %s", what, got, absent)
	}
	return nil
}

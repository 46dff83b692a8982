package probe

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/twinrail/twinrail"
)

// Tenant0 is the platform's own tenant, unless the server calls it otherwise. Its
// flags are all tenants', and no probe's to change.
const Tenant0 = "t_0"

const (
	// The flag that the cells change is a number, so that what it is set to can be
	// told from what it was. It is only raised, which nobody suffers from.
	flagChanged = "gesture_rate"
	maxRate     = 1000
	// flagNeeded is switched on where it is off, or the change had no effect.
	flagNeeded = "gesture_fanout"
	// manyGestures are more at once than the built-in rate allows, and fewer than
	// any that the cells set. It is as many events as a publish takes.
	manyGestures = 100
)

// flags: what an owner or admin reads and changes.
func flags(ctx context.Context, w *world) error {
	if !w.options.ChangeFlags {
		return unavailable("needs the permission to change flags")
	}
	s, err := w.administrators()
	if err != nil {
		return err
	}
	ch := &changes{w: w}
	defer ch.undo(ctx)
	switch {
	case w.key == twinrail.KeyActor:
		return w.flagOfMember(ctx, s, ch)
	case w.own():
		return w.flagElsewhere(ctx, s, ch)
	}
	return w.flagInContext(ctx, s, ch)
}

// administrators returns a scene of owners or admins. Where they differ in the
// actor alone, the wrong one is a member.
func (w *world) administrators() (*scene, error) {
	at := w.address()
	differs, err := w.other(at)
	if err != nil {
		return nil, err
	}
	s := &scene{kind: twinrail.CanvasStream}
	if s.right, err = w.administrator("the right one", at); err != nil {
		return nil, err
	}
	if w.key == twinrail.KeyActor {
		s.wrong, err = w.party("a member", differs)
	} else {
		s.wrong, err = w.administrator("who has another "+w.key.String(), differs)
	}
	return s, err
}

// administrator returns a party that may change what holds for its whole tenant
// and env.
func (w *world) administrator(name string, at twinrail.Routing) (*party, error) {
	p, err := w.party(name, at)
	if err != nil {
		return nil, err
	}
	want := Want{TenantID: at.TenantID, Env: at.Env, ActorID: at.ActorID, Role: twinrail.Owner}
	if p.token, err = w.tokens.Token(want); isUnavailable(err) {
		want.Role = twinrail.Admin
		p.token, err = w.tokens.Token(want)
	}
	if isUnavailable(err) {
		err = unavailable("needs an owner's or admin's token of %s in %s", at.TenantID, at.Env)
	}
	return p, err
}

// changes are flags that are to be put back.
type changes struct {
	w    *world
	made []change
}

// change is a flag as it was. It is the platform's where p turns out to be of the
// platform's own tenant, which the server can call as it likes.
type change struct {
	p        *party
	was      twinrail.Flag
	platform bool
}

// undo has the flags be what they were, even when the cell's time is up.
func (ch *changes) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, c := range slices.Backward(ch.made) {
		undo := call{method: http.MethodDelete, path: twinrail.PathFlags + "/" + c.was.Name}
		switch {
		case c.platform && c.was.Source == twinrail.FlagFromTenant0:
			undo.method, undo.body = http.MethodPut, twinrail.FlagRequest{Value: c.was.Value, Overridable: &c.was.Overridable}
		case c.was.Source == twinrail.FlagFromTenant:
			undo.method, undo.body = http.MethodPut, twinrail.FlagRequest{Value: c.was.Value}
		}
		if err := c.p.must(ctx, undo, nil); err != nil {
			ch.w.leftBehind(fmt.Errorf("%s of %s in %s was %s of %s, and could not be put back: %w",
				c.was.Name, c.p.routing.TenantID, c.p.routing.Env, c.was.Value, c.was.Source, err))
		}
	}
}

// set has p set a flag, in a context that states p's whole address, and read it
// there.
func (ch *changes) set(ctx context.Context, p *party, name, value string) error {
	was, err := p.flag(ctx, name)
	if err != nil {
		return err
	}
	notIts := unavailable("%s is the platform's to set for %s in %s", name, p.routing.TenantID, p.routing.Env)
	if p.routing.TenantID == Tenant0 || !was.Overridable {
		return notIts
	}
	ch.made = append(ch.made, change{p: p, was: was})
	var now twinrail.Flag
	if err := p.must(ctx, settingFlag(name, value, p.at()), &now); err != nil {
		return err
	}
	if now.Source == twinrail.FlagFromTenant0 {
		ch.made[len(ch.made)-1].platform = true
		return notIts
	}
	now, err = p.flag(ctx, name)
	if err == nil && (string(now.Value) != value || now.Source != twinrail.FlagFromTenant) {
		err = fmt.Errorf("%s was set to %s, and is %s of %s", name, value, now.Value, now.Source)
	}
	return err
}

// settingFlag is the call that sets a flag.
func settingFlag(name, value string, stated twinrail.Routing) call {
	body := twinrail.FlagRequest{Value: json.RawMessage(value)}
	return call{method: http.MethodPut, path: twinrail.PathFlags + "/" + name, stated: stated, body: body}
}

// flag returns a flag as p sees it, in a context that states p's whole address.
func (p *party) flag(ctx context.Context, name string) (twinrail.Flag, error) {
	var got twinrail.FlagsResponse
	if err := p.must(ctx, call{method: http.MethodGet, path: twinrail.PathFlags, stated: p.at()}, &got); err != nil {
		return twinrail.Flag{}, err
	}
	i := slices.IndexFunc(got.Flags, func(f twinrail.Flag) bool { return f.Name == name })
	if i < 0 {
		return twinrail.Flag{}, fmt.Errorf("there is no flag %s", name)
	}
	return got.Flags[i], nil
}

func sameFlag(a, b twinrail.Flag) bool {
	return a.Source == b.Source && string(a.Value) == string(b.Value) && string(a.Overruled) == string(b.Overruled)
}

// rate returns one that is a little higher than what the parties have, and not
// the highest.
func rate(ctx context.Context, parties ...*party) (int, error) {
	least := manyGestures
	for _, p := range parties {
		f, err := p.flag(ctx, flagChanged)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(string(f.Value))
		if err != nil {
			return 0, err
		}
		least = max(least, n+1)
	}
	room := maxRate - least
	if room <= 0 {
		return 0, unavailable("%s is as high as can be already", flagChanged)
	}
	return least + rand.IntN(min(room, 200)), nil
}

// flagElsewhere: the flags of another tenant, or in another env.
func (w *world) flagElsewhere(ctx context.Context, s *scene, ch *changes) error {
	value, err := rate(ctx, s.right, s.wrong)
	if err != nil {
		return err
	}
	was := make(map[string]twinrail.Flag)
	for _, name := range []string{flagNeeded, flagChanged} {
		if was[name], err = s.wrong.flag(ctx, name); err != nil {
			return err
		}
	}
	effect := func() (right, wrong *answer, err error) {
		if right, err = s.right.gesticulate(ctx); err == nil {
			wrong, err = s.wrong.gesticulate(ctx)
		}
		return right, wrong, err
	}
	rightBefore, wrongBefore, err := effect()
	if err != nil {
		return err
	}
	if err := ch.set(ctx, s.right, flagNeeded, "true"); err != nil {
		return err
	}
	if err := ch.set(ctx, s.right, flagChanged, strconv.Itoa(value)); err != nil {
		return err
	}
	for name, before := range was {
		now, err := s.wrong.flag(ctx, name)
		if err != nil {
			return err
		}
		if !sameFlag(before, now) {
			w.leak("%s of %s changed as the right one's did", name, s.wrong.name)
		}
	}
	right, wrong, err := effect()
	switch {
	case err != nil:
		return err
	case right.status != http.StatusOK:
		return fmt.Errorf("the flags have no effect for the right one: %s", right)
	case rightBefore.status == http.StatusOK || wrongBefore.status == http.StatusOK:
		w.note("whether flags have an effect elsewhere: nothing is switched off or low enough")
	case wrong.code() != wrongBefore.code():
		w.leak("the right one's flags have an effect for %s: %s in place of %s", s.wrong.name, wrong, wrongBefore)
	}
	return w.changeFlagElsewhere(ctx, s, ch, value)
}

// gesticulate publishes gestures at once.
func (p *party) gesticulate(ctx context.Context) (*answer, error) {
	e := p.w.canary("the gestures of "+p.name, p).event(twinrail.Gesture, p.at())
	return p.do(ctx, publishing(slices.Repeat([]*secret{e}, manyGestures)...))
}

// changeFlagElsewhere has the wrong one change its own flag, and try to change the
// right one's, which is value and must stay so.
func (w *world) changeFlagElsewhere(ctx context.Context, s *scene, ch *changes, value int) error {
	if err := ch.set(ctx, s.wrong, flagChanged, strconv.Itoa(value+1)); err != nil {
		return err
	}
	if err := w.stays(ctx, s, value, "sets its own"); err != nil {
		return err
	}
	if err := s.wrong.must(ctx, unsettingFlag(s.wrong.at()), nil); err != nil {
		return err
	}
	if err := w.stays(ctx, s, value, "unsets its own"); err != nil {
		return err
	}
	return w.trespassFlags(ctx, s, value)
}

func unsettingFlag(stated twinrail.Routing) call {
	return call{method: http.MethodDelete, path: twinrail.PathFlags + "/" + flagChanged, stated: stated}
}

// trespassFlags is [world.trespass] by reading and changing flags in the right
// one's context. Its flag is value, and must stay so.
func (w *world) trespassFlags(ctx context.Context, s *scene, value int) error {
	for _, ask := range []func(at twinrail.Routing) call{
		func(at twinrail.Routing) call {
			return call{method: http.MethodGet, path: twinrail.PathFlags, stated: at}
		},
		func(at twinrail.Routing) call { return settingFlag(flagChanged, strconv.Itoa(value+1), at) },
		unsettingFlag,
	} {
		err := w.trespass(s, func(p *party, at twinrail.Routing) (*answer, error) { return p.do(ctx, ask(at)) })
		if err != nil {
			return err
		}
	}
	return w.stays(ctx, s, value, "tries")
}

// stays checks that the right one's flag is still value.
func (w *world) stays(ctx context.Context, s *scene, value int, done string) error {
	now, err := s.right.flag(ctx, flagChanged)
	if err == nil && string(now.Value) != strconv.Itoa(value) {
		w.leak("the right one's flag is another when %s %s", s.wrong.name, done)
	}
	return err
}

// flagOfMember: who is neither owner nor admin reads and changes no flag, and does
// not learn which there are; nor can it say that it is somebody else; nor does an
// owner or admin by a ticket.
func (w *world) flagOfMember(ctx context.Context, s *scene, ch *changes) error {
	value, err := rate(ctx, s.right)
	if err != nil {
		return err
	}
	if err := ch.set(ctx, s.right, flagChanged, strconv.Itoa(value)); err != nil {
		return err
	}
	attempts := func(at twinrail.Routing) []call {
		list := call{method: http.MethodGet, path: twinrail.PathFlags, stated: at}
		return []call{list, settingFlag(flagChanged, strconv.Itoa(value+1), at), unsettingFlag(at)}
	}
	if err := w.administersByTicket(ctx, s.right, attempts(s.right.at())...); err != nil {
		return err
	}
	for _, attempt := range attempts(s.wrong.at()) {
		got, err := s.wrong.do(ctx, attempt)
		if err != nil {
			return err
		}
		attempt.path = twinrail.PathFlags + "/" + random()
		var absent *answer
		if attempt.method != http.MethodGet {
			if absent, err = s.wrong.do(ctx, attempt); err != nil {
				return err
			}
		}
		if err := w.refused("a member "+attempt.method+"s flags", got, absent, twinrail.CodeNotFound); err != nil {
			return err
		}
	}
	if err := w.stays(ctx, s, value, "tries"); err != nil {
		return err
	}
	return w.trespassFlags(ctx, s, value)
}

// flagInContext: a flag is of a tenant and env. Whatever else the context states,
// it is the same flag there, and nobody else's.
func (w *world) flagInContext(ctx context.Context, s *scene, ch *changes) error {
	stranger, err := w.stranger(s.right.routing)
	if isUnavailable(err) {
		w.note("another tenant's flags in the same context: %v", err)
		stranger = nil
	} else if err != nil {
		return err
	}
	for i, p := range []*party{s.right, s.wrong} {
		value, err := rate(ctx, p)
		if err != nil {
			return err
		}
		var before, after twinrail.Flag
		if stranger != nil {
			if before, err = stranger.flag(ctx, flagChanged); err != nil {
				return err
			}
			if string(before.Value) == strconv.Itoa(value) {
				value++
			}
		}
		if err := ch.set(ctx, p, flagChanged, strconv.Itoa(value)); err != nil {
			return err
		}
		q := []*party{s.wrong, s.right}[i]
		if now, err := q.flag(ctx, flagChanged); err != nil || string(now.Value) != strconv.Itoa(value) {
			return errors.Join(err, fmt.Errorf("%s was set to %d, and with another %s in the context it is %s", flagChanged, value, w.key, now.Value))
		}
		if stranger == nil {
			continue
		}
		if after, err = stranger.flag(ctx, flagChanged); err != nil {
			return err
		}
		if !sameFlag(before, after) {
			w.leak("the flag of another tenant or env changed too, where the context states the same %s", w.key)
		}
	}
	return nil
}

// stranger returns an administrator of the other side, who states the same
// context but for tenant and env.
func (w *world) stranger(at twinrail.Routing) (*party, error) {
	b := w.tokens.Base(SideB)
	at.TenantID, at.Env, at.ActorID = b.TenantID, b.Env, cmp.Or(b.ActorID, at.ActorID)
	return w.administrator("the stranger", at)
}

package presence_test

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/presence"
)

// rig makes rights in one tenant.
type rig struct {
	t      *testing.T
	issuer *authtest.Issuer
}

func newRig(t *testing.T) *rig { return &rig{t, authtest.New(t)} }

// canvas and thread are the streams of the tests.
var (
	canvas = twinrail.Home{Kind: twinrail.CanvasStream, TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", ID: "c1"}
	thread = twinrail.Home{Kind: twinrail.ThreadStream, TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", ID: "th1"}
)

func (r *rig) writer(actor string, home twinrail.Home, audience twinrail.Audience) auth.Writer {
	r.t.Helper()
	w, err := r.issuer.Context(home.TenantID, actor).Presenter(audience.AddTo(home.Routing()), home.Kind)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func (r *rig) reader(home twinrail.Home, audience twinrail.Audience) auth.Reader {
	r.t.Helper()
	routing := audience.AddTo(home.Routing())
	routing.ActorID = "u_reader"
	return r.issuer.Reader(routing, home.Kind, twinrail.Presence)
}

// enter fails the test where the session may not enter.
func enter(t *testing.T, s *presence.Session, w auth.Writer, hold, state string) {
	t.Helper()
	if err := s.Enter(w, hold, []byte(state)); err != nil {
		t.Fatal(err)
	}
}

// everybody returns who is present where r reads, page by page.
func everybody(g *presence.Registry, r auth.Reader) []twinrail.PresenceMember {
	members, next := g.Members(r, presence.Position{}, 2)
	for next != (presence.Position{}) {
		var more []twinrail.PresenceMember
		more, next = g.Members(r, next, 2)
		members = append(members, more...)
	}
	return members
}

// who identifies a member within a stream.
type who struct {
	actor, session string
	routing        twinrail.Routing
}

func whoIs(m twinrail.PresenceMember) who {
	w := who{actor: m.ActorID, session: m.SessionID}
	if m.Routing != nil {
		w.routing = *m.Routing
	}
	return w
}

// follower folds what a watcher is told over what it knew, and notes how it is
// woken.
type follower struct {
	watch *presence.Watch
	token chan struct{} // given by each wake

	// Of the goroutine that calls next.
	known   map[who]twinrail.PresenceMember
	batches int

	mu     sync.Mutex // held while Next is called: a wake may come before it returns
	parked bool
	wakes  int
	stray  bool // a wake came that no park had asked for
}

// firstPart is how many members a follower of a stream is told of at once.
const firstPart = 2

func follow(g *presence.Registry, r auth.Reader) *follower {
	f := &follower{known: make(map[who]twinrail.PresenceMember), token: make(chan struct{}, 1)}
	watch, members := g.Watch(r, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stray = f.stray || !f.parked
		f.parked = false
		f.wakes++
		select {
		case f.token <- struct{}{}:
		default:
		}
	}, "", firstPart)
	f.watch = watch
	for _, m := range members {
		f.known[whoIs(m)] = m
	}
	return f
}

// next makes one call of Next, and returns what it told.
func (f *follower) next(max int) (presence.Changes, error) {
	c, err := f.ask(max)
	if err != nil || c.Empty() {
		return c, err
	}
	n := len(c.Leave) + len(c.Join) + len(c.Update)
	if n > max {
		return c, fmt.Errorf("told of %d members, where at most %d were asked for", n, max)
	}
	f.batches++
	return c, fold(f.known, c)
}

func (f *follower) ask(max int) (presence.Changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.watch.Next(max)
	f.parked = err == nil && c.Empty()
	return c, err
}

// woken returns how often, and whether without having been parked.
func (f *follower) woken() (wakes int, stray bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wakes, f.stray
}

// sleepsOn reports whether f waits to be woken although there is something.
func (f *follower) sleepsOn() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parked && !f.watch.UpToDate()
}

// drain calls Next until it is empty.
func (f *follower) drain(max int) error {
	for {
		c, err := f.next(max)
		if err != nil || c.Empty() {
			return err
		}
	}
}

// fold applies c to known.
func fold(known map[who]twinrail.PresenceMember, c presence.Changes) error {
	for _, m := range c.Leave {
		if _, ok := known[whoIs(m)]; !ok {
			return fmt.Errorf("%+v leaves, who was not there", whoIs(m))
		}
		if m.State != nil || m.Since != nil || m.ActorType != "" {
			return fmt.Errorf("a leave says too much: %+v", m)
		}
		delete(known, whoIs(m))
	}
	for _, m := range c.Join {
		if _, ok := known[whoIs(m)]; ok {
			return fmt.Errorf("%+v joins, who was there", whoIs(m))
		}
		known[whoIs(m)] = m
	}
	for _, m := range c.Update {
		if _, ok := known[whoIs(m)]; !ok {
			return fmt.Errorf("%+v changes, who was not there", whoIs(m))
		}
		known[whoIs(m)] = m
	}
	return nil
}

// knows compares with what is so.
func (f *follower) knows(members []twinrail.PresenceMember) error {
	if len(f.known) != len(members) {
		return fmt.Errorf("knows of %d members, where there are %d", len(f.known), len(members))
	}
	for _, m := range members {
		if known, ok := f.known[whoIs(m)]; !ok || !reflect.DeepEqual(known, m) {
			return fmt.Errorf("knows %+v, where there is %+v", known, m)
		}
	}
	return nil
}

func hasCode(err error, code twinrail.Code, field string) bool {
	var e *twinrail.Error
	return errors.As(err, &e) && e.Code == code && e.Field == field
}

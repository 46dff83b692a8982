package presence_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
)

// inBubble gives a test a registry in a bubble of its own, and the right of u_1
// and of a reader at the canvas.
func inBubble(t *testing.T, o presence.Options, run func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader)) {
	rig := newRig(t)
	w, r := rig.writer("u_1", canvas, twinrail.Audience{}), rig.reader(canvas, twinrail.Audience{})
	synctest.Test(t, func(t *testing.T) { run(t, presence.New(o), w, r) })
}

func TestGrace(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		s := g.Session("ses_1")
		enter(t, s, w, "h", `{"x":1}`)
		time.Sleep(time.Second)
		s.Lose()
		time.Sleep(5 * time.Second)
		s.Lose() // does not begin another grace
		time.Sleep(5*time.Second - 1)
		synctest.Wait()
		if n := len(everybody(g, r)); n != 1 {
			t.Fatalf("%d members just before the grace is over", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := len(everybody(g, r)); n != 0 {
			t.Fatalf("%d members once the grace is over", n)
		}
		if g.Rooms() != 0 {
			t.Errorf("the stream is held")
		}
		time.Sleep(time.Minute)
		enter(t, s, w, "h", `{"x":2}`)
		if n := len(everybody(g, r)); n != 0 {
			t.Fatalf("%d members while the session is lost", n)
		}
		s.Regain([]string{"h", "unknown"})
		members := everybody(g, r)
		if len(members) != 1 || string(members[0].State) != `{"x":2}` || !members[0].Since.Equal(time.Now()) {
			t.Fatalf("regained: %+v", members)
		}
		time.Sleep(time.Minute)
		if n := len(everybody(g, r)); n != 1 {
			t.Errorf("%d members a while later", n)
		}
		s.Close()
	})
}

// TestNoFlicker has a session lost and regained in time: nobody is even woken.
func TestNoFlicker(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		s := g.Session("ses_1")
		enter(t, s, w, "h", `1`)
		f := follow(g, r)
		if c, err := f.next(1); err != nil || !c.Empty() {
			t.Fatalf("next: %+v, %v", c, err)
		}
		for range 3 {
			s.Lose()
			time.Sleep(9 * time.Second)
			enter(t, s, w, "h", `1`)
			s.Regain([]string{"h"})
			time.Sleep(9 * time.Second)
		}
		synctest.Wait()
		if wakes, _ := f.woken(); wakes != 0 || !f.watch.UpToDate() {
			t.Fatalf("woken %d times", wakes)
		}
		s.Close()
		synctest.Wait()
		if wakes, _ := f.woken(); wakes != 1 {
			t.Fatalf("woken %d times by a clean leave", wakes)
		}
		if c, err := f.next(10); err != nil || len(c.Leave) != 1 {
			t.Fatalf("next: %+v, %v", c, err)
		}
	})
}

// TestLateGrace has the timer of an earlier loss run out after the next one, as
// it may where it could not be stopped any more.
func TestLateGrace(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		s := g.Session("ses_1")
		enter(t, s, w, "h", `1`)
		s.Lose()
		s.Regain([]string{"h"})
		s.ExpireLate()
		s.Lose()
		s.ExpireLate()
		if n := len(everybody(g, r)); n != 1 {
			t.Fatalf("%d members", n)
		}
		s.Close()
	})
}

// TestLostNowhere has a session enter that was lost while it was nowhere.
func TestLostNowhere(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		s := g.Session("ses_1")
		s.Lose()
		enter(t, s, w, "h", `1`)
		if n := len(everybody(g, r)); n != 0 {
			t.Fatalf("%d members, of whom nobody would know when they leave", n)
		}
		s.Regain([]string{"h"})
		if n := len(everybody(g, r)); n != 1 {
			t.Fatalf("%d members", n)
		}
	})
}

func TestZeroReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t)
		g := presence.New(presence.Options{})
		watch, members := g.Watch(auth.Reader{}, func() { t.Error("it is woken") }, "", 1)
		if members == nil || len(members) != 0 || g.Rooms() != 0 {
			t.Errorf("it sees %v, and %d streams are held", members, g.Rooms())
		}
		enter(t, g.Session("ses_1"), rig.writer("u_1", canvas, twinrail.Audience{}), "h", `1`)
		if m := everybody(g, auth.Reader{}); len(m) != 0 {
			t.Errorf("it sees %v", m)
		}
		time.Sleep(time.Minute)
		if c, err := watch.Next(1); !errors.Is(err, presence.ErrClosed) {
			t.Errorf("it is told of %+v, %v", c, err)
		}
		watch.Close()
		if g.Rooms() != 1 {
			t.Errorf("%d streams are held, want that of the member", g.Rooms())
		}
	})
}

func TestEnterRefuses(t *testing.T) {
	rig := newRig(t)
	here, r := rig.writer("u_1", canvas, twinrail.Audience{}), rig.reader(canvas, twinrail.Audience{PanelID: "pn1"})
	panel := rig.writer("u_1", canvas, twinrail.Audience{PanelID: "pn1"})
	g := presence.New(presence.Options{MaxMembers: 2})
	s := g.Session("ses_1")
	commit := canvas.Routing()
	commit.ActorID = "u_1"
	if err := s.Enter(rig.issuer.Writer(commit, twinrail.Commit), "h", nil); err == nil {
		t.Errorf("entered with the right to publish commits")
	}
	if err := s.Enter(auth.Writer{}, "h", nil); err == nil {
		t.Errorf("entered without a right")
	}
	if err := s.Enter(here, "h", bytes.Repeat([]byte("1"), presence.MaxState+1)); !hasCode(err, twinrail.CodeTooLarge, "state") {
		t.Errorf("a large state: %v", err)
	}
	if g.Rooms() != 0 {
		t.Errorf("%d streams are held after all was refused", g.Rooms())
	}
	largest := bytes.Repeat([]byte("1"), presence.MaxState)
	if err := s.Enter(here, "h", largest); err != nil {
		t.Errorf("the largest state: %v", err)
	}
	largest[0] = '2'
	if m := everybody(g, r); len(m) != 1 || m[0].State[0] != '1' {
		t.Errorf("the state is not a copy")
	}
	if err := s.Enter(panel, "h", nil); err == nil {
		t.Errorf("entered at two addresses with one hold")
	}

	// The limit is of an address, and those who are there are free to change.
	enter(t, g.Session("ses_2"), here, "h", `1`)
	third := g.Session("ses_3")
	if err := third.Enter(here, "h", nil); !hasCode(err, twinrail.CodeLimitExceeded, "presence") {
		t.Errorf("over the limit: %v", err)
	}
	enter(t, s, here, "h", `2`)
	enter(t, s, here, "another", `2`)
	enter(t, third, panel, "h", `1`)
	if m := everybody(g, r); len(m) != 3 {
		t.Errorf("%d members", len(m))
	}
	s.Close()
	enter(t, third, here, "now there is room", ``)
}

// TestActorsApart has one session used with the rights of two actors: neither
// speaks for the other.
func TestActorsApart(t *testing.T) {
	rig := newRig(t)
	g := presence.New(presence.Options{})
	s := g.Session("ses_1")
	enter(t, s, rig.writer("u_1", canvas, twinrail.Audience{}), "h1", `1`)
	enter(t, s, rig.writer("u_2", canvas, twinrail.Audience{}), "h2", `2`)
	members := everybody(g, rig.reader(canvas, twinrail.Audience{}))
	if len(members) != 2 || members[0].ActorID != "u_1" || string(members[0].State) != `1` || members[1].ActorID != "u_2" {
		t.Errorf("members: %+v", members)
	}
}

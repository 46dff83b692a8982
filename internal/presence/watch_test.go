package presence_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
)

// TestPacing has a member change at set times: the watcher is woken by the first
// change at once, and then once in an interval where there is something.
func TestPacing(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		start := time.Now()
		s := g.Session("ses_1")
		var woken []time.Duration
		wake := make(chan struct{}, 1)
		watch, _ := g.Watch(r, func() {
			woken = append(woken, time.Since(start))
			wake <- struct{}{}
		}, "", 100)
		told := 0
		done := make(chan error)
		go func() {
			for {
				c, err := watch.Next(100)
				if err != nil {
					done <- err
					return
				}
				told += len(c.Join) + len(c.Update)
				if c.Empty() {
					<-wake
				}
			}
		}()
		for i, at := range []time.Duration{100, 110, 120, 149, 151, 160, 300, 301, 349, 500} {
			time.Sleep(time.Until(start.Add(at * time.Millisecond)))
			enter(t, s, w, "h", fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		want := []time.Duration{100, 150, 200, 300, 350, 500}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(woken, want) {
			t.Errorf("woken at %v, want %v", woken, want)
		}
		if told != len(want) {
			t.Errorf("told of %d changes in %d batches", told, len(want))
		}
		watch.Close()
		wake <- struct{}{}
		if err := <-done; !errors.Is(err, presence.ErrClosed) {
			t.Errorf("next of a closed watch: %v", err)
		}
	})
}

// TestToldOnceAnInterval has a watcher ask again and again while a member
// changes: it is told of the first change and of what is so when the interval is
// over, not of each change.
func TestToldOnceAnInterval(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		s := g.Session("ses_1")
		f := follow(g, r)
		const seconds = 2
		for i := range seconds * 1000 {
			enter(t, s, w, "h", fmt.Sprint(i))
			if err := f.drain(100); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		// It may be told when the room's interval is over, and when its own is.
		if most := 2*seconds*20 + 2; f.batches > most || f.batches < most/2 {
			t.Errorf("%d batches in %d s", f.batches, seconds)
		}
		time.Sleep(interval)
		synctest.Wait()
		if f.sleepsOn() {
			t.Errorf("not woken for the last change")
		}
		if err := f.drain(100); err != nil {
			t.Fatal(err)
		}
		if err := f.knows(everybody(g, r)); err != nil {
			t.Error(err)
		}
	})
}

// TestWakesWhoIsBehind has a watcher look for itself before the wake that is due:
// it is not woken, and what comes next is the first change after a quiet interval
// where nobody was.
func TestWakesWhoIsBehind(t *testing.T) {
	rig := newRig(t)
	everywhere, panel := twinrail.Audience{}, twinrail.Audience{PanelID: "pn1"}
	here, there := rig.writer("u_1", canvas, everywhere), rig.writer("u_1", canvas, panel)
	outside, inside := rig.reader(canvas, everywhere), rig.reader(canvas, panel)
	synctest.Test(t, func(t *testing.T) {
		g := presence.New(presence.Options{})
		early, late, closed := follow(g, outside), follow(g, inside), follow(g, inside)
		drain := func(followers ...*follower) {
			t.Helper()
			for _, f := range followers {
				if err := f.drain(1); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		wakes := func(want ...int) {
			t.Helper()
			synctest.Wait()
			for i, f := range []*follower{early, late, closed} {
				if n, stray := f.woken(); n != want[i] || stray {
					t.Errorf("watcher %d was woken %d times, want %d; without having been parked: %v", i, n, want[i], stray)
				}
			}
		}
		drain(early, late, closed)
		s := g.Session("ses_1")
		enter(t, s, there, "there", `1`)
		wakes(1, 1, 1)
		drain(early, late, closed)
		time.Sleep(10 * time.Millisecond)
		enter(t, s, here, "here", `1`)
		closed.watch.Close()
		closed.watch.Close()
		drain(early)
		if early.batches != 1 {
			t.Errorf("who was not told within the interval was told %d times", early.batches)
		}
		time.Sleep(interval - 10*time.Millisecond)
		wakes(1, 2, 1)
		drain(late)

		late.watch.Close()
		time.Sleep(interval)
		enter(t, s, here, "here", `2`)
		wakes(2, 2, 1)
		drain(early)
		enter(t, s, here, "here", `3`) // a wake is due
		time.Sleep(interval - time.Millisecond)
		wakes(2, 2, 1)
		time.Sleep(time.Millisecond)
		wakes(3, 2, 1)
		if err := g.Check(); err != nil {
			t.Error(err)
		}
	})
}

// TestQuietAgain has the only watcher look for itself before the wake that is
// due, which then wakes nobody, and delays no later one.
func TestQuietAgain(t *testing.T) {
	rig := newRig(t)
	here, there := rig.writer("u_1", canvas, twinrail.Audience{}), rig.writer("u_1", canvas, twinrail.Audience{PanelID: "pn1"})
	r := rig.reader(canvas, twinrail.Audience{})
	synctest.Test(t, func(t *testing.T) {
		g := presence.New(presence.Options{})
		f := follow(g, r)
		s := g.Session("ses_1")
		for _, step := range []struct {
			w     auth.Writer
			drain bool // before the change, and after it
			sleep time.Duration
			wakes int
		}{
			{there, true, 10 * time.Millisecond, 1}, // not for it to see
			{here, true, interval, 1},               // it looks before the wake
			{here, false, interval / 2, 2},          // at once, although a wake was due just before
		} {
			if err := f.drain(1); err != nil {
				t.Fatal(err)
			}
			enter(t, s, step.w, fmt.Sprint(step.w.Address()), fmt.Sprint(step.wakes, step.sleep))
			synctest.Wait()
			if step.drain {
				if err := f.drain(1); err != nil {
					t.Fatal(err)
				}
			}
			if wakes, _ := f.woken(); wakes != step.wakes {
				t.Errorf("woken %d times, want %d", wakes, step.wakes)
			}
			time.Sleep(step.sleep)
		}
	})
}

// TestFirstPart begins to watch where many are: who watches is among the first, and
// the others are told of after them, as they were then, and then what changed.
func TestFirstPart(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		var sessions []*presence.Session
		for i := range 6 {
			sessions = append(sessions, g.Session(fmt.Sprint(i)))
			enter(t, sessions[i], w, "h", `1`)
		}
		ids := func(members []twinrail.PresenceMember) (s string) {
			for _, m := range members {
				s += m.SessionID + "=" + string(m.State) + " "
			}
			return s
		}
		for _, tt := range []struct {
			own   string
			max   int
			first string
			rest  string
		}{
			{"", 0, "", "0=1 1=1 2=1 3=1 4=1 5=1 "},
			{"4", 0, "4=1 ", "0=1 1=1 2=1 3=1 5=1 "},
			{"4", 3, "4=1 0=1 1=1 ", "2=1 3=1 5=1 "},
			{"nobody", 2, "0=1 1=1 ", "2=1 3=1 4=1 5=1 "},
			{"0", 6, "0=1 1=1 2=1 3=1 4=1 5=1 ", ""},
		} {
			watch, first := g.Watch(r, func() {}, tt.own, tt.max)
			enter(t, sessions[5], w, "h", `2`)
			time.Sleep(time.Second)
			if ids(first) != tt.first || first == nil {
				t.Errorf("%q, %d: first %s", tt.own, tt.max, ids(first))
			}
			rest, updates := "", ""
			for {
				c, err := watch.Next(2)
				if err != nil {
					t.Fatal(err)
				}
				if c.Empty() {
					break
				}
				rest, updates = rest+ids(c.Join), updates+ids(c.Update)
			}
			if rest != tt.rest || updates != "5=2 " {
				t.Errorf("%q, %d: then %s, changed %s", tt.own, tt.max, rest, updates)
			}
			watch.Close()
			enter(t, sessions[5], w, "h", `1`)
		}
	})
}

// TestOldestFirst has several come, change and go between two looks.
func TestOldestFirst(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		var sessions []*presence.Session
		for i := range 9 {
			sessions = append(sessions, g.Session(fmt.Sprint(i)))
		}
		if m := everybody(g, r); m == nil || len(m) != 0 {
			t.Errorf("members of a stream that is not held: %#v", m)
		}
		for _, i := range []int{0, 1, 2, 3, 4, 5} {
			enter(t, sessions[i], w, "h", `1`)
		}
		watch, members := g.Watch(r, func() {}, "", 100)
		sessions[3].Close()
		enter(t, sessions[5], w, "h", `2`)
		enter(t, sessions[7], w, "h", `1`)
		sessions[1].Close()
		enter(t, sessions[0], w, "h", `2`)
		enter(t, sessions[6], w, "h", `1`)
		first, err := watch.Next(0)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := watch.Next(100)
		if err != nil {
			t.Fatal(err)
		}
		ids := func(members []twinrail.PresenceMember) (s string) {
			for _, m := range members {
				s += m.SessionID
			}
			return s
		}
		got := []string{ids(members), ids(first.Leave), ids(rest.Leave), ids(rest.Join), ids(rest.Update)}
		if want := []string{"012345", "3", "1", "76", "50"}; !slices.Equal(got, want) {
			t.Errorf("shown, and told of those who left, came and changed: %q, want %q", got, want)
		}
		if got := ids(everybody(g, r)); got != "024576" {
			t.Errorf("members: %q", got)
		}
	})
}

// TestGoneAreForgotten has many come and go before one who follows: of those who
// have left only a few are kept.
func TestGoneAreForgotten(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		come := func(i int) { // and go
			s := g.Session(fmt.Sprintf("ses_%d", i))
			enter(t, s, w, "h", `1`)
			s.Close()
		}
		come(0)
		if g.Rooms() != 0 {
			t.Errorf("the stream is held")
		}
		stays := g.Session("ses_stays")
		enter(t, stays, w, "h", `1`)
		come(0)
		if g.Gone(r) != 0 {
			t.Errorf("who has left is kept where nobody watches")
		}
		f := follow(g, r)
		most := 0
		for i := range 3000 {
			come(i)
			most = max(most, g.Gone(r))
			if i%10 == 9 {
				time.Sleep(interval)
				if err := f.drain(3); err != nil {
					t.Fatal(err)
				}
			}
		}
		if most > 200 || most < 100 {
			t.Errorf("%d of those who had left were kept", most)
		}
		f.watch.Close()
		if g.Gone(r) != 0 {
			t.Errorf("who has left is kept when nobody watches any more")
		}
		stays.Close()
		if g.Rooms() != 0 {
			t.Errorf("the stream is held")
		}
	})
}

// TestTooSlow has many come and go while one watcher does not look: it is told
// that it cannot be told, and the others of all.
func TestTooSlow(t *testing.T) {
	inBubble(t, presence.Options{MaxMembers: 10}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		const cap = 16 * 10
		stays := g.Session("ses_stays")
		enter(t, stays, w, "h", `1`)
		slow, fast := follow(g, r), follow(g, r)
		for i := range cap {
			s := g.Session(fmt.Sprintf("ses_%d", i))
			enter(t, s, w, "h", `1`)
			s.Close()
			if err := fast.drain(1); err != nil {
				t.Fatal(err)
			}
			time.Sleep(interval)
		}
		atCap := follow(g, r)
		// slow knows of nobody who has left since, but the server cannot say so.
		s := g.Session("ses_last")
		enter(t, s, w, "h", `1`)
		s.Close()
		if n := g.Gone(r); n != cap {
			t.Errorf("%d of those who have left are kept, want %d", n, cap)
		}
		for range 2 {
			if _, err := slow.next(1); !hasCode(err, twinrail.CodeTooSlow, "presence") {
				t.Errorf("next: %v", err)
			}
		}
		time.Sleep(interval)
		for _, f := range []*follower{atCap, fast} {
			if err := f.drain(1); err != nil {
				t.Errorf("who was in time: %v", err)
			}
			if err := f.knows(everybody(g, r)); err != nil {
				t.Error(err)
			}
		}
		// Nothing is kept for the sake of one who cannot be told anyway.
		for i := range 2 * cap {
			s := g.Session(fmt.Sprintf("ses_more_%d", i))
			enter(t, s, w, "h", `1`)
			s.Close()
			time.Sleep(interval)
			for _, f := range []*follower{atCap, fast} {
				if err := f.drain(1); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := g.Gone(r); n >= cap {
			t.Errorf("%d of those who have left are kept", n)
		}
	})
}

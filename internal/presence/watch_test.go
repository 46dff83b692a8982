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
		})
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
			time.Sleep(start.Add(at * time.Millisecond).Sub(time.Now()))
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
		if err := f.knows(g.Members(r)); err != nil {
			t.Error(err)
		}
	})
}

// TestWakesWhoIsBehind has one of two watchers look before the wake comes.
func TestWakesWhoIsBehind(t *testing.T) {
	inBubble(t, presence.Options{}, func(t *testing.T, g *presence.Registry, w auth.Writer, r auth.Reader) {
		early, late, closed := follow(g, r), follow(g, r), follow(g, r)
		for _, f := range []*follower{early, late, closed} {
			if err := f.drain(1); err != nil {
				t.Fatal(err)
			}
		}
		s := g.Session("ses_1")
		enter(t, s, w, "h", `1`)
		synctest.Wait()
		for _, f := range []*follower{early, late, closed} {
			if err := f.drain(1); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(interval - 1)
		enter(t, s, w, "h", `2`) // told of when the interval is over
		closed.watch.Close()
		closed.watch.Close()
		time.Sleep(1) // the watcher's own interval began as the room's did
		if err := early.drain(1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if wakes, _ := late.woken(); wakes != 2 {
			t.Errorf("who is behind was woken %d times", wakes)
		}
		if wakes, _ := closed.woken(); wakes != 1 {
			t.Errorf("who has left was woken %d times", wakes)
		}
		for _, f := range []*follower{early, late} {
			if err := f.drain(1); err != nil {
				t.Fatal(err)
			}
			if _, stray := f.woken(); stray {
				t.Error("woken without having been parked")
			}
			if err := f.knows(g.Members(r)); err != nil {
				t.Error(err)
			}
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
		if g.Gone(r) != 0 || g.Rooms() != 0 {
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
		if g.Places(r) != 0 {
			t.Errorf("the place is kept")
		}
		f.watch.Close()
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
			if err := f.knows(g.Members(r)); err != nil {
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

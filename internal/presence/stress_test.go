package presence_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
)

// TestStress has many goroutines use sessions, of which each is used by two, while
// watchers of two audiences follow, come and go: at the end those who are left
// know exactly what is so.
func TestStress(t *testing.T) {
	rig := newRig(t)
	audiences := []twinrail.Audience{{}, {PanelID: "pn1"}}
	var writers []auth.Writer
	var readers []auth.Reader
	for _, a := range audiences {
		writers = append(writers, rig.writer("u_1", canvas, a))
		readers = append(readers, rig.reader(canvas, a))
	}
	synctest.Test(t, func(t *testing.T) {
		g := presence.New(presence.Options{Grace: 20 * time.Millisecond, Interval: time.Millisecond, MaxMembers: 12})
		stop := make(chan struct{})
		var following, using sync.WaitGroup
		followers := make([]*follower, 8)
		for i := range followers {
			followers[i] = follow(g, readers[i%2])
			following.Go(func() {
				if err := followers[i].run(stop); err != nil {
					t.Error(err)
				}
			})
		}
		for i := range 4 {
			following.Go(func() { passBy(t, g, readers[i%2], stop) })
		}
		for i := range 16 {
			s := g.Session(fmt.Sprintf("ses_%d", i))
			for range 2 {
				using.Go(func() { use(t, s, writers) })
			}
		}
		using.Wait()
		time.Sleep(time.Second)
		close(stop)
		following.Wait()
		if err := g.Check(); err != nil {
			t.Error(err)
		}
		for i, f := range followers {
			if _, stray := f.woken(); stray {
				t.Errorf("watcher %d was woken without having been parked", i)
			}
			if err := f.knows(everybody(g, readers[i%2])); err != nil {
				t.Errorf("watcher %d: %v", i, err)
			}
			if f.batches == 0 {
				t.Errorf("watcher %d was told of nothing", i)
			}
			f.watch.Close()
		}
	})
}

// run follows until it is told to stop.
func (f *follower) run(stop <-chan struct{}) error {
	for {
		if err := f.drain(3); err != nil {
			return err
		}
		select {
		case <-f.token:
		case <-stop:
			return nil
		}
	}
}

// use does with a session all that can be done with one but Close.
func use(t *testing.T, s *presence.Session, writers []auth.Writer) {
	for i := range 300 {
		at := rand.IntN(len(writers))
		hold := fmt.Sprintf("h%d_%d", at, rand.IntN(2))
		switch rand.IntN(8) {
		case 0:
			s.Lose()
		case 1:
			s.Regain([]string{"h0_0", "h1_1"})
		case 2:
			time.Sleep(time.Duration(rand.IntN(int(10 * time.Millisecond))))
		case 3:
			s.Leave(hold)
		default:
			err := s.Enter(writers[at], hold, fmt.Append(nil, i))
			if err != nil && !hasCode(err, twinrail.CodeLimitExceeded, "presence") {
				t.Error(err)
			}
		}
	}
}

// passBy watches for a short while, again and again.
func passBy(t *testing.T, g *presence.Registry, r auth.Reader, stop <-chan struct{}) {
	for {
		f := follow(g, r)
		for range 5 {
			if err := f.drain(2); err != nil {
				t.Error(err)
			}
		}
		f.watch.Close()
		select {
		case <-stop:
			return
		case <-time.After(3 * time.Millisecond):
		}
	}
}

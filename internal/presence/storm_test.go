package presence_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/presence"
)

const stormBatch = 64

// tally is what a watcher of a storm was told: a follower with less to remember.
type tally struct {
	watch *presence.Watch
	token chan struct{}

	joins   map[string]int // by session
	others  int            // leaves and updates
	batches int
	err     error
}

func (w *tally) run(stop <-chan struct{}) {
	for {
		c, err := w.watch.Next(stormBatch)
		if err != nil {
			w.err = err
			return
		}
		if !c.Empty() {
			w.batches++
			w.others += len(c.Leave) + len(c.Update)
			for i := range c.Join {
				w.joins[c.Join[i].SessionID]++
			}
			continue
		}
		select {
		case <-w.token:
		case <-stop:
			return
		}
	}
}

// check finds that w was told of all the sessions, each once, in at most so many
// batches.
func (w *tally) check(sessions, batches int) error {
	if w.err != nil {
		return w.err
	}
	if len(w.joins) != sessions || w.others != 0 || w.batches > batches {
		return fmt.Errorf("told of %d sessions and %d other changes in %d batches, want %d in at most %d",
			len(w.joins), w.others, w.batches, sessions, batches)
	}
	for id, n := range w.joins {
		if n != 1 {
			return fmt.Errorf("told %d times of %s", n, id)
		}
	}
	return nil
}

// storm has sessions enter, each so long after the one before it, with watchers
// that were there before.
func storm(t *testing.T, sessions, watchers int, apart time.Duration) []*tally {
	rig := newRig(t)
	r := rig.reader(canvas, twinrail.Audience{})
	writers := make([]auth.Writer, sessions)
	for i := range writers {
		writers[i] = rig.writer(fmt.Sprintf("u_%d", i), canvas, twinrail.Audience{})
	}
	all := make([]*tally, watchers)
	synctest.Test(t, func(t *testing.T) {
		g := presence.New(presence.Options{})
		stop := make(chan struct{})
		var following, entering sync.WaitGroup
		for i := range all {
			w := &tally{token: make(chan struct{}, 1), joins: make(map[string]int, sessions)}
			w.watch, _ = g.Watch(r, func() { w.token <- struct{}{} }, "", 1) // parked, so there is room
			all[i] = w
			following.Go(func() { w.run(stop) })
		}
		synctest.Wait() // all are parked
		for i, w := range writers {
			entering.Go(func() {
				time.Sleep(time.Duration(i) * apart)
				if err := g.Session(fmt.Sprintf("ses_%d", i)).Enter(w, "h", []byte(`1`)); err != nil {
					t.Error(err)
				}
			})
		}
		entering.Wait()
		time.Sleep(2 * interval)
		close(stop)
		following.Wait()
	})
	return all
}

// TestStorm has a thousand enter at once, before a thousand who watch: each is
// told of each once, in a few batches, and of nothing else.
func TestStorm(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 200
	}
	// Full batches, and one that is not for each time that it was told: at once,
	// and at the end of the interval, or two.
	for i, w := range storm(t, n, n, 0) {
		if err := w.check(n, n/stormBatch+4); err != nil {
			t.Fatalf("watcher %d: %v", i, err)
		}
	}
}

// TestStormOverTime has them come one after the other in a second: each watcher
// is told once in an interval.
func TestStormOverTime(t *testing.T) {
	const n = 1000
	for i, w := range storm(t, n, 20, time.Millisecond) {
		if err := w.check(n, 22); err != nil {
			t.Fatalf("watcher %d: %v", i, err)
		}
	}
}

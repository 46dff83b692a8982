package hub_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// scheduler lets one goroutine of a bubble go on at a time. Who calls yield waits
// to be chosen; what is between two yields is one step.
type scheduler struct {
	mu      sync.Mutex
	waiting []*turn
	trace   []string
}

type turn struct {
	name    string
	proceed chan struct{}
}

func (s *scheduler) yield(name string) {
	t := &turn{name, make(chan struct{})}
	s.mu.Lock()
	s.waiting = append(s.waiting, t)
	s.mu.Unlock()
	<-t.proceed
}

// maxSteps bounds a run; no correct one comes near it.
const maxSteps = 1000

// run lets goroutines go on, as choose says, until none waits. Choose is given
// how many wait, at least two, in an order that depends only on earlier choices.
func (s *scheduler) run(choose func(n int) int) error {
	for range maxSteps {
		synctest.Wait()
		next := s.take(choose)
		if next == nil {
			return nil
		}
		close(next.proceed)
	}
	return fmt.Errorf("still busy after %d steps", maxSteps)
}

func (s *scheduler) take(choose func(n int) int) *turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	slices.SortStableFunc(s.waiting, func(a, b *turn) int { return cmp.Compare(a.name, b.name) })
	i := 0
	if len(s.waiting) > 1 {
		i = choose(len(s.waiting))
	}
	next := s.waiting[i]
	s.waiting = slices.Delete(s.waiting, i, i+1)
	s.trace = append(s.trace, next.name)
	return next
}

// explorer goes through all the ways in which a run can choose, depth first.
type explorer struct {
	path  []choice
	depth int
}

type choice struct{ taken, of int }

// choose repeats the path as far as it goes, and takes the first way from there.
func (e *explorer) choose(n int) int {
	if e.depth == len(e.path) {
		e.path = append(e.path, choice{0, n})
	}
	c := e.path[e.depth]
	if c.of != n {
		panic(fmt.Sprintf("the run does not repeat itself: %d ways at step %d, and %d before", n, e.depth, c.of))
	}
	e.depth++
	return c.taken
}

// next prepares the next way; it reports whether there is one.
func (e *explorer) next() bool {
	e.path, e.depth = e.path[:e.depth], 0
	for len(e.path) > 0 {
		last := &e.path[len(e.path)-1]
		if last.taken++; last.taken < last.of {
			return true
		}
		e.path = e.path[:len(e.path)-1]
	}
	return false
}

// scheduled is a journal whose every call is two steps, one that makes it and one
// that returns from it, and that tells of each append in a step of its own: so
// notifications come late, and out of order.
type scheduled struct {
	journal.Journal
	scheduler *scheduler
}

type nameKey struct{}

// named returns a context in which calls of a scheduled journal have that name.
// Those without one are the hub's own.
func named(name string) context.Context {
	return context.WithValue(context.Background(), nameKey{}, name)
}

func (j *scheduled) step(ctx context.Context, call string) (end func()) {
	name, ok := ctx.Value(nameKey{}).(string)
	if !ok {
		name = "hub"
	}
	j.scheduler.yield(name + " " + call)
	return func() { j.scheduler.yield(name + " " + call + " end") }
}

func (j *scheduled) Append(ctx context.Context, recs []journal.Record, expect journal.Expect) ([]journal.Result, error) {
	j.step(ctx, "append") // who appends does nothing after it
	return j.Journal.Append(ctx, recs, expect)
}

func (j *scheduled) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	defer j.step(ctx, "read")()
	return j.Journal.Read(ctx, r, after, max)
}

func (j *scheduled) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	defer j.step(ctx, "bounds")()
	return j.Journal.Bounds(ctx, r)
}

func (j *scheduled) Seek(ctx context.Context, r auth.Reader, c twinrail.Cursor) (uint64, error) {
	defer j.step(ctx, "seek")()
	return j.Journal.Seek(ctx, r, c)
}

func (j *scheduled) Notify(fn func(key string, last uint64)) {
	j.Journal.Notify(func(key string, last uint64) {
		go func() {
			j.scheduler.yield(fmt.Sprintf("notify %d", last))
			fn(key, last)
		}()
	})
}

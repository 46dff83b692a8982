package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// race is a subscriber among publishers, in whatever order they come.
type race struct {
	window int
	keep   journal.Retention
	before int      // records that are there when it begins
	from   []string // a subscriber for each: "", earliest, or "first": after the first record
	// publishers append one record after the other, each as many as it says.
	publishers []int
	// reopen has each subscriber close and come back at its cursor so often, each
	// time that it has read something; leave has it do so while it is parked.
	reopen, leave int
}

const raceStride = 2

// play runs r once, in the order that choose says, and returns the steps that
// were taken and what went wrong.
func (r race) play(stream journaltest.Stream, choose func(n int) int) (trace []string, err error) {
	s := &scheduler{}
	log := journal.NewMemory(journal.MemoryOptions{Retention: r.keep, Stride: raceStride})
	var past []journal.Result
	for i := range r.before {
		results, err := log.Append(context.Background(), []journal.Record{stream.Record(fmt.Sprintf("past%d", i), "")}, journal.Expect{})
		if err != nil {
			return nil, err
		}
		past = append(past, results...)
	}
	j := &scheduled{log, s}
	h := hub.New(j, hub.Options{Window: r.window, Encode: encode})
	for p, n := range r.publishers {
		go func() {
			for i := range n {
				rec := stream.Record(fmt.Sprintf("p%d-%d", p, i), "")
				j.Append(named(fmt.Sprintf("pub%d", p)), []journal.Record{rec}, journal.Expect{})
			}
		}()
	}
	readers := make([]*raceReader, len(r.from))
	for i, from := range r.from {
		if from == "first" {
			from = past[0].Cursor.String()
		}
		readers[i] = &raceReader{
			name: fmt.Sprintf("sub%d", i), hub: h, log: log, stream: stream, steps: s,
			reopen: r.reopen, leave: r.leave, done: make(chan struct{}),
		}
		go readers[i].follow(from)
	}
	err = s.run(choose)
	for _, reader := range readers {
		close(reader.done)
	}
	synctest.Wait()
	if err != nil {
		return s.trace, err
	}
	if n := h.Streams(); n != 0 {
		return s.trace, fmt.Errorf("%d streams are held after all have left", n)
	}
	for _, reader := range readers {
		if err := reader.check(mustBounds(log, stream)); err != nil {
			return s.trace, fmt.Errorf("%s: %w", reader.name, err)
		}
	}
	return s.trace, nil
}

func mustBounds(log journal.Journal, stream journaltest.Stream) journal.Bounds {
	bounds, err := log.Bounds(context.Background(), stream.Reader)
	if err != nil {
		panic(err) // the journal in memory has no reason to
	}
	return bounds
}

// raceReader follows a stream as a connection does.
type raceReader struct {
	name   string
	hub    *hub.Hub
	log    journal.Journal // not scheduled
	stream journaltest.Stream
	steps  *scheduler
	reopen int
	leave  int
	done   chan struct{} // closed when nothing goes on any more

	// Of the goroutine that follows; read when it has ended.
	at    []run // begun anew at the start and at each reset
	last  *raceSession
	err   error
	stray bool // a wake came that no park had asked for
}

// run is what a reader saw from the position where it was placed.
type run struct {
	from uint64
	seen []uint64
}

func (r *raceReader) follow(from string) {
	for {
		again, err := r.session(from)
		if err != nil || again == "" {
			r.err = err
			return
		}
		from = again
	}
}

// raceSession is one subscription of a reader.
type raceSession struct {
	wake   chan struct{}
	parked bool // set by the reader, and taken back by the wake
}

// session follows from there on, and returns where to come back, or "" at the end.
func (r *raceReader) session(from string) (again string, err error) {
	s := &raceSession{wake: make(chan struct{}, maxSteps)}
	r.last = s
	sub, err := r.subscribe(s, from)
	if err != nil {
		return "", err
	}
	defer sub.Close()
	for range maxSteps {
		b, err := sub.Next(named(r.name), nil, 1)
		if err != nil {
			return "", err
		}
		for _, it := range b.Items {
			now := &r.at[len(r.at)-1]
			now.seen = append(now.seen, it.Cursor.Seq)
		}
		if b.Reset != nil {
			r.at = append(r.at, run{from: b.Reset.Head.Seq})
		}
		if len(b.Items) > 0 && r.reopen > 0 {
			r.reopen--
			return sub.Cursor().String(), nil
		}
		if !b.Parked {
			continue
		}
		s.parked = true
		select {
		case <-s.wake:
		case <-r.leaves():
			return sub.Cursor().String(), nil
		case <-r.done:
			return "", nil
		}
	}
	return "", errors.New("never came to rest")
}

// leaves returns a channel that is closed in a step of its own, after which a
// parked reader leaves; it is nil for one that stays.
func (r *raceReader) leaves() <-chan struct{} {
	if r.leave == 0 {
		return nil
	}
	r.leave--
	leave := make(chan struct{})
	go func() {
		r.steps.yield(r.name + " leave")
		close(leave)
	}()
	return leave
}

// subscribe checks where it was placed, too: at a cursor that is valid exactly
// there, else at where the log began, or ended, meanwhile.
func (r *raceReader) subscribe(s *raceSession, from string) (*hub.Sub, error) {
	before := mustBounds(r.log, r.stream)
	sub, start, err := r.hub.Subscribe(named(r.name), r.stream.Reader, hub.From{Cursor: from}, func() {
		r.steps.yield("wake of " + r.name)
		r.stray = r.stray || !s.parked
		s.parked = false
		s.wake <- struct{}{}
	})
	if err != nil {
		return nil, err
	}
	after := mustBounds(r.log, r.stream)
	lowest, highest := before.Head, after.Head
	switch {
	case from == twinrail.CursorEarliest:
		lowest, highest = before.Oldest, after.Oldest
	case start.Resumed:
		if start.Cursor.String() != from {
			err = fmt.Errorf("resumed at %v instead of %s", start.Cursor, from)
		}
		lowest, highest = start.Cursor, start.Cursor
	case from != "" && start.Reset == nil:
		err = errors.New("a cursor was neither taken nor refused")
	}
	if seq := start.Cursor.Seq; seq < lowest.Seq || seq > highest.Seq {
		err = fmt.Errorf("placed at %d, want %d to %d", seq, lowest.Seq, highest.Seq)
	}
	if len(r.at) == 0 || start.Reset != nil {
		r.at = append(r.at, run{from: start.Cursor.Seq})
	}
	return sub, err
}

// check compares what r saw with the log that is left of seqs that rise by the
// stride: after where it was placed, everything, in order and once, up to the
// end. Where it was placed anew, what followed must have been trimmed.
func (r *raceReader) check(bounds journal.Bounds) error {
	if r.err != nil {
		return r.err
	}
	if !r.last.parked || r.stray {
		return fmt.Errorf("at rest it is parked: %v; woken when it was not: %v", r.last.parked, r.stray)
	}
	for i, now := range r.at {
		until := bounds.Head.Seq
		if i+1 < len(r.at) {
			until = now.from + raceStride*uint64(len(now.seen))
			if until >= bounds.Oldest.Seq {
				return fmt.Errorf("a reset at %d, where what follows is still there: %v", until, r.at)
			}
		}
		var want []uint64
		for seq := now.from + raceStride; seq <= until; seq += raceStride {
			want = append(want, seq)
		}
		if !slices.Equal(now.seen, want) {
			return fmt.Errorf("saw %v, want %v from %d on", r.at, want, now.from)
		}
	}
	return nil
}

// TestOrders plays small races in every order of their steps.
func TestOrders(t *testing.T) {
	trim := journal.Retention{Count: 1}
	tests := []struct {
		name string
		race race
	}{
		{"Head", race{window: large, from: []string{""}, publishers: []int{1}}},
		{"HeadNoWindow", race{window: 0, from: []string{""}, publishers: []int{1}}},
		{"HeadTwo", race{window: large, from: []string{""}, publishers: []int{2}}},
		{"HeadTwoNoWindow", race{window: 0, from: []string{""}, publishers: []int{2}}},
		{"HeadTwoSmallWindow", race{window: 1, from: []string{""}, publishers: []int{2}}},
		{"EarliestTwo", race{window: large, before: 1, from: []string{twinrail.CursorEarliest}, publishers: []int{2}}},
		{"AfterFirst", race{window: large, before: 2, from: []string{"first"}, publishers: []int{1}}},
		{"TrimHead", race{window: large, keep: trim, before: 1, from: []string{""}, publishers: []int{2}}},
		{"TrimAfterFirst", race{window: 0, keep: trim, before: 1, from: []string{"first"}, publishers: []int{2}}},
		{"Publishers", race{window: large, from: []string{""}, publishers: []int{1, 1}}},
		{"Reopen", race{window: large, from: []string{""}, publishers: []int{2}, reopen: 1}},
		{"Leave", race{window: large, from: []string{""}, publishers: []int{2}, leave: 1}},
		{"LeaveNoWindow", race{window: 0, from: []string{""}, publishers: []int{2}, leave: 1}},
		{"Subscribers", race{window: large, from: []string{"", ""}, publishers: []int{1}}},
		{"HeadThree", race{window: large, from: []string{""}, publishers: []int{3}}},
		{"TrimNoWindow", race{window: 0, keep: trim, from: []string{""}, publishers: []int{3}}},
	}
	stream := journaltest.NewStream(t, "c1")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			orders := 0
			for e := new(explorer); ; {
				var trace []string
				var err error
				synctest.Test(t, func(*testing.T) { trace, err = tt.race.play(stream, e.choose) })
				orders++
				if err != nil {
					t.Fatalf("in order %d: %v\n%s", orders, err, strings.Join(trace, "\n"))
				}
				if !e.next() {
					break
				}
			}
			t.Logf("%d orders", orders)
		})
	}
}

// TestOrdersAtRandom plays larger races in some of the orders of their steps.
func TestOrdersAtRandom(t *testing.T) {
	stream := journaltest.NewStream(t, "c1")
	rapid.Check(t, func(rt *rapid.T) {
		r := race{
			window:     rapid.SampledFrom(transcriptWindows).Draw(rt, "window"),
			keep:       journal.Retention{Count: rapid.SampledFrom([]int64{0, 0, 1, 3}).Draw(rt, "keep")},
			before:     rapid.IntRange(1, 5).Draw(rt, "before"),
			from:       rapid.SliceOfN(rapid.SampledFrom([]string{"", twinrail.CursorEarliest, "first"}), 1, 3).Draw(rt, "from"),
			publishers: rapid.SliceOfN(rapid.IntRange(1, 4), 1, 3).Draw(rt, "publishers"),
			reopen:     rapid.IntRange(0, 3).Draw(rt, "reopen"),
			leave:      rapid.IntRange(0, 2).Draw(rt, "leave"),
		}
		choices := rapid.SliceOfN(rapid.IntRange(0, 11), 0, 100).Draw(rt, "choices")
		choose := func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			i := choices[0] % n
			choices = choices[1:]
			return i
		}
		var trace []string
		var err error
		synctest.Test(t, func(*testing.T) { trace, err = r.play(stream, choose) })
		if err != nil {
			rt.Fatalf("%v\n%s", err, strings.Join(trace, "\n"))
		}
	})
}

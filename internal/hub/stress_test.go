package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// stress has publishers, readers and those who come and go at several streams at
// once. It is for the race detector, and for what happens between the steps that
// a scheduler can hold.
type stress struct {
	log     journal.Journal
	hub     *hub.Hub
	streams []journaltest.Stream
}

const (
	stressStreams    = 6
	stressPublishers = 2 // of each stream
	stressReaders    = 3
	stressPassersBy  = 2
	stressBatches    = 60 // of each publisher, of 1 to 3 records
)

func TestStress(t *testing.T) {
	for _, window := range transcriptWindows {
		t.Run(fmt.Sprintf("Window%d", window), bubble(func(t *testing.T) {
			log := journal.NewMemory(journal.MemoryOptions{Stride: 5})
			s := &stress{log: log, hub: hub.New(log, hub.Options{Window: window, Encode: encode})}
			for i := range stressStreams {
				s.streams = append(s.streams, journaltest.NewStream(t, fmt.Sprintf("c%d", i)))
			}
			if err := s.run(); err != nil {
				t.Fatal(err)
			}
			if n := s.hub.Streams(); n != 0 {
				t.Fatalf("%d streams are held after all have left", n)
			}
		}))
	}
}

func (s *stress) run() error {
	var g errgroup.Group
	for i, stream := range s.streams {
		total := 0
		for p := range stressPublishers {
			batches := make([]int, stressBatches)
			for b := range batches {
				batches[b] = 1 + rand.IntN(3)
				total += batches[b]
			}
			g.Go(func() error { return s.publish(stream, fmt.Sprintf("s%d-p%d", i, p), batches) })
		}
		for range stressReaders {
			g.Go(func() error { return s.follow(stream, total) })
		}
		for range stressPassersBy {
			g.Go(func() error { return s.passBy(stream) })
		}
	}
	return g.Wait()
}

func (s *stress) publish(stream journaltest.Stream, name string, batches []int) error {
	for b, n := range batches {
		recs := make([]journal.Record, n)
		for i := range recs {
			recs[i] = stream.Record(fmt.Sprintf("%s-%d-%d", name, b, i), "data")
		}
		if _, err := s.log.Append(context.Background(), recs, journal.Expect{}); err != nil {
			return err
		}
	}
	return nil
}

// follow reads the whole stream, over several subscriptions, and checks that each
// event is linked to the one before it.
func (s *stress) follow(stream journaltest.Stream, total int) error {
	from, last, seen := twinrail.CursorEarliest, uint64(0), 0
	for seen < total {
		wake := make(chan struct{}, 1)
		sub, start, err := s.hub.Subscribe(context.Background(), stream.Reader, hub.From{Cursor: from}, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		if err != nil {
			return err
		}
		if start.Reset != nil || start.Cursor.Seq != last {
			return fmt.Errorf("placed at %d, want %d", start.Cursor.Seq, last)
		}
		for until := min(total, seen+1+rand.IntN(100)); seen < until; {
			var n int
			if n, err = follow(sub, wake, stream.Key(), &last); err != nil {
				break
			}
			seen += n
		}
		from = sub.Cursor().String()
		sub.Close()
		if err != nil {
			return fmt.Errorf("after %d of %d events: %w", seen, total, err)
		}
	}
	if seen != total {
		return fmt.Errorf("saw %d events of %d", seen, total)
	}
	return nil
}

// follow takes one batch, or sleeps until it is woken. The clock of the bubble
// gets on only when everyone sleeps: then a wake has been lost.
func follow(sub *hub.Sub, wake <-chan struct{}, key string, last *uint64) (int, error) {
	b, err := sub.Next(context.Background(), nil, 1+rand.IntN(4000))
	switch {
	case err != nil:
		return 0, err
	case b.Reset != nil:
		return 0, errors.New("a reset where all is retained")
	case b.Parked:
		select {
		case <-wake:
			return 0, nil
		case <-time.After(time.Hour):
			return 0, errors.New("parked for good")
		}
	}
	for _, it := range b.Items {
		var e twinrail.Event
		if err := json.Unmarshal(it.Wire, &e); err != nil {
			return 0, err
		}
		home, err := e.Routing.Home(twinrail.CanvasStream)
		if err != nil || home.Key() != key || *e.Prev != *last {
			return 0, fmt.Errorf("after %d of %s came %d, whose prev is %d, of %s", *last, key, e.Seq, *e.Prev, home.Key())
		}
		*last = e.Seq
	}
	return len(b.Items), nil
}

// passBy subscribes, reads a little or parks, and leaves, again and again.
func (s *stress) passBy(stream journaltest.Stream) error {
	for range stressBatches {
		sub, _, err := s.hub.Subscribe(context.Background(), stream.Reader, hub.From{}, func() {})
		if err != nil {
			return err
		}
		for range rand.IntN(4) {
			if _, err := sub.Next(context.Background(), nil, large); err != nil {
				return err
			}
		}
		sub.Close()
	}
	return nil
}

// One who parks and one who appends meet at every moment: the two are let off
// together, again and again, with nothing else after them that could wake.
func TestParkRaces(t *testing.T) {
	for _, window := range []int{0, large} {
		t.Run(fmt.Sprintf("Window%d", window), bubble(func(t *testing.T) {
			log := journal.NewMemory(journal.MemoryOptions{Retention: journal.Retention{Count: 4}})
			h := hub.New(log, hub.Options{Window: window, Encode: encode})
			stream := journaltest.NewStream(t, "c1")
			wake := make(chan struct{}, 1)
			sub, _, err := h.Subscribe(t.Context(), stream.Reader, hub.From{}, func() { wake <- struct{}{} })
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			for i := range 5000 {
				rec := stream.Record(fmt.Sprintf("e%d", i), "")
				var g errgroup.Group
				g.Go(func() error {
					_, err := log.Append(t.Context(), []journal.Record{rec}, journal.Expect{})
					return err
				})
				g.Go(func() error { return readOne(sub, wake) })
				if err := g.Wait(); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
			}
		}))
	}
}

func readOne(sub *hub.Sub, wake <-chan struct{}) error {
	for {
		b, err := sub.Next(context.Background(), nil, large)
		switch {
		case err != nil:
			return err
		case len(b.Items) > 0:
			return nil
		case b.Parked:
			select {
			case <-wake:
			case <-time.After(time.Hour):
				return errors.New("parked for good")
			}
		}
	}
}

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
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

// gestureStress has those who make gestures, those who read them, those who turn
// them on and off, and those who come and go, at one stream with commits. It is
// for the race detector, and for what happens between the steps of a model.
type gestureStress struct {
	*gestureRig
	writers []auth.Writer
	reader  auth.Reader
}

const (
	stressActors   = 4
	stressViewers  = 3
	stressGestures = 300 // of each actor
	lastGesture    = "last"
)

func newGestureStress(t *testing.T) *gestureStress {
	s := &gestureStress{gestureRig: newGestureRig(t)}
	s.reader = s.gestureRig.reader("u_0", twinrail.Audience{}, twinrail.Commit, twinrail.Gesture)
	for i := range stressActors {
		routing := canvasRouting("c1")
		routing.ActorID = fmt.Sprintf("u_%d", i)
		s.writers = append(s.writers, s.issuer.Writer(routing, twinrail.Gesture))
	}
	return s
}

func TestGestureStress(t *testing.T) {
	t.Run("Bubble", bubble(func(t *testing.T) {
		s := newGestureStress(t)
		var g errgroup.Group
		for _, w := range s.writers {
			g.Go(func() error { return s.gesticulate(w) })
		}
		for range stressViewers {
			g.Go(s.follow)
			g.Go(s.comeAndGo)
		}
		g.Go(s.commit)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := s.hub.Streams(); n != 0 {
			t.Fatalf("%d streams are held after all have left", n)
		}
	}))
}

// gesticulate makes gestures, and a last one that everybody waits for.
func (s *gestureStress) gesticulate(w auth.Writer) error {
	for i := range stressGestures {
		if err := s.make(w, fmt.Sprint(i)); err != nil {
			return err
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
	return s.make(w, lastGesture)
}

func (s *gestureStress) make(w auth.Writer, id string) error {
	return s.hub.Gesture(w, twinrail.Event{ID: id, Type: "pointer", Data: json.RawMessage("1")})
}

func (s *gestureStress) commit() error {
	for i := range stressGestures {
		rec := s.stream.Record(fmt.Sprintf("e%d", i), "data")
		if _, err := s.journal.Append(context.Background(), []journal.Record{rec}, journal.Expect{}); err != nil {
			return err
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
	return nil
}

// follow reads until it was told of everybody's last gesture, and of all commits.
func (s *gestureStress) follow() error {
	wake := make(chan struct{}, 1)
	sub, _, err := s.hub.Subscribe(context.Background(), s.reader, hub.From{Cursor: twinrail.CursorEarliest}, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer sub.Close()
	sub.SetGestures(true)
	commits, newest := 0, make(map[string]string)
	for missing := true; missing; {
		b, err := sub.Next(context.Background(), nil, 1+rand.IntN(4000))
		if err != nil {
			return err
		}
		commits += len(b.Items)
		if err := takeGestures(b.Gestures, newest); err != nil {
			return err
		}
		missing = commits < stressGestures
		for _, w := range s.writers {
			actor, _ := w.Actor()
			missing = missing || newest[actor] != lastGesture
		}
		if !b.Parked || !missing {
			continue
		}
		select {
		case <-wake:
		case <-time.After(time.Hour): // the bubble's clock gets there only when everyone sleeps
			return fmt.Errorf("parked for good after %d commits and %v", commits, newest)
		}
	}
	return nil
}

// takeGestures notes the newest of each actor, which must not have gone back.
func takeGestures(gestures []*hub.Item, newest map[string]string) error {
	for _, it := range gestures {
		var e twinrail.Event
		if err := json.Unmarshal(it.Wire, &e); err != nil {
			return err
		}
		was, is := 0, 0
		fmt.Sscan(newest[e.Routing.ActorID], &was)
		if _, err := fmt.Sscan(e.ID, &is); err == nil && is < was || newest[e.Routing.ActorID] == lastGesture {
			return fmt.Errorf("told of %s after %d", e.ID, was)
		}
		newest[e.Routing.ActorID] = e.ID
	}
	return nil
}

// comeAndGo has another goroutine turn gestures on and off for one who reads.
func (s *gestureStress) comeAndGo() error {
	for range 20 {
		sub, _, err := s.hub.Subscribe(context.Background(), s.reader, hub.From{}, func() {})
		if err != nil {
			return err
		}
		var g errgroup.Group
		g.Go(func() error {
			for i := range 10 {
				sub.SetGestures(i%2 == 0)
				time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			}
			sub.Close()
			return nil
		})
		g.Go(func() error {
			for {
				if _, err := sub.Next(context.Background(), nil, large); errors.Is(err, hub.ErrClosed) {
					return nil
				} else if err != nil {
					return err
				}
				time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			}
		})
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// One who parks and one who makes a gesture meet at every moment, with nothing
// else after it that could wake.
func TestGestureParkRaces(t *testing.T) {
	t.Run("Bubble", bubble(func(t *testing.T) {
		s := newGestureStress(t)
		wake := make(chan struct{}, 1)
		sub, _, err := s.hub.Subscribe(t.Context(), s.reader, hub.From{}, func() { wake <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		sub.SetGestures(true)
		for i := range 3000 {
			var g errgroup.Group
			g.Go(func() error { return s.make(s.writers[0], fmt.Sprint(i)) })
			g.Go(func() error { return readGesture(sub, wake, fmt.Sprint(i)) })
			if err := g.Wait(); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			// Sometimes within the round of the one before, sometimes after it.
			time.Sleep(time.Duration(rand.IntN(2)) * hub.GestureInterval)
		}
	}))
}

func readGesture(sub *hub.Sub, wake <-chan struct{}, id string) error {
	for {
		b, err := sub.Next(context.Background(), nil, large)
		if err != nil {
			return err
		}
		if len(b.Gestures) > 0 {
			var e twinrail.Event
			if err := json.Unmarshal(b.Gestures[0].Wire, &e); err != nil || e.ID != id || len(b.Gestures) != 1 {
				return fmt.Errorf("told of %d gestures, %q, %v", len(b.Gestures), e.ID, err)
			}
			return nil
		}
		if b.Parked {
			select {
			case <-wake:
			case <-time.After(time.Hour):
				return errors.New("parked for good")
			}
		}
	}
}

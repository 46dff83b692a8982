package hub_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
)

// Those who do not read gestures are not woken for them, and those who do not
// hold the channel cannot turn them on.
func TestGestureWakesReadersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		viewer, off := r.viewer("u_2", twinrail.Audience{}), r.viewer("u_3", twinrail.Audience{})
		off.SetGestures(false)
		commits := r.subscribe("")
		commits.SetGestures(true)
		for _, s := range []*subscriber{viewer, off, commits} {
			s.wantTold()
		}
		for range 100 {
			r.pointer("u_1")
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		viewer.wantWakes(1)
		off.wantWakes(0)
		commits.wantWakes(0)
		result := r.append(1)
		for _, s := range []*subscriber{off, commits} {
			s.wantWakes(1)
			wantItems(t, s.drain(), result...)
		}
	})
}

// A commit and a gesture together are one wake, whichever comes first; a commit's
// is at once, in the midst of gestures.
func TestGestureWakesOncePerPark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_2", twinrail.Audience{})
		s.wantTold()
		r.pointer("u_1")
		synctest.Wait()
		s.wantWakes(1)
		first := r.append(1)
		aRound()
		s.wantWakes(1)
		wantItems(t, s.drain(), first...)
		r.pointer("u_1") // a round has been just now
		s.wantTold()
		r.append(1)
		s.wantWakes(2)
		aRound()
		s.wantWakes(2)
	})
}

// Who has read by itself by the time of the round is not woken for nothing.
func TestGestureWakesThoseBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		reads, sleeps := r.viewer("u_2", twinrail.Audience{}), r.viewer("u_3", twinrail.Audience{})
		first := r.pointer("u_1")
		synctest.Wait()
		sleeps.wantTold(first)
		second := r.pointer("u_1")
		reads.wantTold(second)
		aRound()
		reads.wantWakes(0)
		sleeps.wantWakes(1)
		sleeps.wantTold(second)
	})
}

// wakeTimes follows the stream until ctx ends, and returns when it was woken, from
// the start on, and the batches of gestures that it then got.
func wakeTimes(ctx context.Context, t testing.TB, r *gestureRig, actor string, max int) (times []time.Duration, batches [][]string) {
	began, wake := time.Now(), make(chan struct{}, 1)
	sub, _, err := r.hub.Subscribe(ctx, r.reader(actor, twinrail.Audience{}, twinrail.Gesture), hub.From{}, func() { wake <- struct{}{} })
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	defer sub.Close()
	sub.SetGestures(true)
	for {
		b, err := sub.Next(ctx, nil, max)
		if err != nil {
			t.Error(err)
			return times, batches
		}
		if len(b.Gestures) > 0 {
			batches = append(batches, idsOf(t, b.Gestures))
		}
		if !b.Parked {
			continue
		}
		select {
		case <-wake:
			times = append(times, time.Since(began))
		case <-ctx.Done():
			return times, batches
		}
	}
}

// Of a storm a reader is told once in an interval, of the first gesture at once,
// and of the last at most an interval later.
func TestGesturePacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		var times []time.Duration
		var batches [][]string
		go func() {
			defer close(done)
			times, batches = wakeTimes(ctx, t, r, "u_0", large)
		}()
		const pause = 200 * time.Millisecond
		var last string
		for range 2 {
			time.Sleep(pause)
			for range 1000 {
				last = r.pointer("u_1")
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(hub.GestureInterval)
		cancel()
		<-done
		if len(times) == 0 || times[0] != pause {
			t.Fatalf("woken at %v, first at %v", times, pause)
		}
		again := slices.Index(times, 2*pause+time.Second)
		if again < 0 {
			t.Errorf("not woken at once after the pause: %v", times)
		}
		for i := 1; i < len(times); i++ {
			if apart := times[i] - times[i-1]; apart < hub.GestureInterval || i != again && apart > hub.GestureInterval {
				t.Errorf("woken %v after the last time, at %v", apart, times[i])
			}
		}
		if n := len(batches); n != len(times) || !slices.Equal(batches[n-1], []string{last}) {
			t.Errorf("%d batches for %d wakes, of which the last was %v, want %s", n, len(times), batches[n-1], last)
		}
	})
}

// Also one who takes small batches comes to an end of each round.
func TestGesturePacingInSmallBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGestureRig(t)
		s := r.viewer("u_0", twinrail.Audience{})
		for range 3 {
			for i := range 4 {
				r.pointer(fmt.Sprintf("u_%d", i))
			}
			synctest.Wait()
			for n := range 4 {
				b := s.next(1)
				if len(b.Gestures) != 1 {
					t.Fatalf("batch %d: %+v", n, b)
				}
				r.pointer("u_9") // of the next round
			}
			if b := s.next(1); !b.Parked {
				t.Fatalf("goes on within the round: %+v", b)
			}
			aRound()
			if got := s.told(1); len(got) != 1 {
				t.Fatalf("told of %v in the next round, want one", got)
			}
			aRound()
		}
	})
}

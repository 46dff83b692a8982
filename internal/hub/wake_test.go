package hub_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// eachWindow runs the test with no window, one too small for an entry, and one
// that holds all.
func eachWindow(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, window := range []int{0, 1, large} {
		t.Run(fmt.Sprintf("Window%d", window), bubble(func(t *testing.T) {
			test(t, newRig(t, window, journal.Retention{}))
		}))
	}
}

func (s *subscriber) wantWakes(n int) {
	s.t.Helper()
	if got := s.woken(); got != n {
		s.t.Fatalf("woken %d times, want %d", got, n)
	}
}

func TestWakeOncePerPark(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		s := r.subscribe("")
		s.park()
		s.wantWakes(0)
		var appended []journal.Result
		for range 3 {
			appended = append(appended, r.append(2)...)
			s.wantWakes(1) // it has not parked again
		}
		wantItems(t, s.drain(), appended...)
		s.wantWakes(1)
		more := r.append(1)
		s.wantWakes(2)
		wantItems(t, s.drain(), more...)
	})
}

func TestWakeOfParkedOnly(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		parked, reading := r.subscribe(""), r.subscribe("")
		parked.park()
		r.append(1)
		parked.wantWakes(1)
		reading.wantWakes(0)
	})
}

// Parking twice without a wake between is one park.
func TestWakeAfterTwoParks(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		s := r.subscribe("")
		s.park()
		s.park()
		first := r.append(1)
		s.wantWakes(1)
		wantItems(t, s.drain(), first...)
	})
}

func TestWakeStaysInStream(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		other := journaltest.NewStream(t, "c2")
		here, there := r.subscribe(""), r.subscribeAs(other.Reader, "")
		here.park()
		there.park()
		own := r.appendTo(other, 1)
		here.wantWakes(0)
		there.wantWakes(1)
		here.park()
		wantItems(t, there.drain(), own...)
	})
}

func TestWakeOfAllParked(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		subs := make([]*subscriber, 10)
		for i := range subs {
			subs[i] = r.subscribe("")
			subs[i].park()
		}
		// Those who leave must not take another one's place in the list along.
		for _, i := range []int{0, 4, 9} {
			subs[i].Close()
		}
		first := r.append(1)
		for i, s := range subs {
			if i == 0 || i == 4 || i == 9 {
				s.wantWakes(0)
				continue
			}
			s.wantWakes(1)
			wantItems(t, s.drain(), first...)
		}
	})
}

// A wake that is under way when the Sub is closed still comes; no other does.
func TestWakeUnderWayAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{})
		var wakes int
		proceed := make(chan struct{})
		s, _, err := r.hub.Subscribe(t.Context(), r.stream.Reader, hub.From{}, func() {
			wakes++
			<-proceed
		})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := s.Next(t.Context(), nil, large); err != nil || !b.Parked {
			t.Fatalf("next: %+v, %v", b, err)
		}
		r.append(1)
		s.Close()
		close(proceed)
		r.append(1)
		if wakes != 1 {
			t.Fatalf("woken %d times, want once", wakes)
		}
	})
}

func TestClose(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		a, b := r.subscribe(""), r.subscribe("")
		other := r.subscribeAs(journaltest.NewStream(t, "c2").Reader, "")
		wantStreams(t, r, 2)
		a.park()
		a.Close()
		a.Close() // counts once
		wantStreams(t, r, 2)
		r.append(1)
		a.wantWakes(0)
		b.Close()
		wantStreams(t, r, 1)
		other.Close()
		wantStreams(t, r, 0)
		r.append(1) // reaches nobody
		for _, s := range []*subscriber{a, b, other} {
			if _, err := s.Next(t.Context(), nil, large); !errors.Is(err, hub.ErrClosed) {
				t.Errorf("next after close: %v, want ErrClosed", err)
			}
		}
	})
}

func wantStreams(t *testing.T, r *rig, n int) {
	t.Helper()
	if got := r.hub.Streams(); got != n {
		t.Fatalf("%d streams are held, want %d", got, n)
	}
}

// A stream that was dropped and came back starts anew, and misses nothing.
func TestStreamComesBack(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		s := r.subscribe("")
		s.park()
		first := r.append(1)
		wantItems(t, s.drain(), first...)
		s.Close()
		missed := r.append(2)
		back := r.subscribe(s.Cursor().String())
		more := r.append(1)
		wantItems(t, back.drain(), append(missed, more...)...)
		last := r.append(1)
		back.wantWakes(1)
		wantItems(t, back.drain(), last...)
	})
}

package hub

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// Between the look at the window, in which Next finds nothing, and the parking
// there is no step that a test could hold, so here parking is called by itself.
func TestPark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := journal.NewMemory(journal.MemoryOptions{})
		stream := journaltest.NewStream(t, "c1")
		h := New(log, Options{Window: 1 << 20, Encode: func(_ twinrail.Kind, e *journal.Entry) []byte { return e.Tail }})
		wakes := 0
		s, _, err := h.Subscribe(t.Context(), stream.Reader, From{}, func() { wakes++ })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(t.Context(), []journal.Record{stream.Record("e1", "")}, journal.Expect{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if parked, err := s.stream.park(s); parked || err != nil {
			t.Fatalf("parked %v, %v, where something has come meanwhile", parked, err)
		}
		if b, err := s.Next(t.Context(), nil, 1<<20); err != nil || len(b.Items) != 1 {
			t.Fatalf("next: %+v, %v", b, err)
		}
		if parked, err := s.stream.park(s); !parked || err != nil {
			t.Fatalf("parked %v, %v, where there is nothing", parked, err)
		}
		s.Close()
		if parked, err := s.stream.park(s); parked || !errors.Is(err, ErrClosed) {
			t.Fatalf("parked %v, %v, where it was closed meanwhile", parked, err)
		}
		if wakes != 0 {
			t.Fatalf("woken %d times", wakes)
		}
	})
}

// TestCaughtUp has the journal know of events before it has told the hub: who
// reads up to the window's end, and is parked there, has not come to the head
// that it was told.
func TestCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := journaltest.NewFaulty(journal.NewMemory(journal.MemoryOptions{}))
		stream := journaltest.NewStream(t, "c1")
		h := New(log, Options{Window: 1 << 20, Encode: func(_ twinrail.Kind, e *journal.Entry) []byte { return e.Tail }})
		first, _, err := h.Subscribe(t.Context(), stream.Reader, From{}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		if !first.CaughtUp() {
			t.Error("of an empty stream there is nothing to catch up with")
		}
		appended := func(id string) {
			t.Helper()
			if _, err := log.Append(t.Context(), []journal.Record{stream.Record(id, "")}, journal.Expect{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		appended("e1")
		release := log.HoldNotify()
		appended("e2")
		woken := make(chan struct{}, 1)
		s, start, err := h.Subscribe(t.Context(), stream.Reader, From{Cursor: twinrail.CursorEarliest}, func() { woken <- struct{}{} })
		if err != nil || start.Head.Seq != 2 {
			t.Fatalf("head %d, %v, want 2", start.Head.Seq, err)
		}
		defer s.Close()
		for _, want := range []int{1, 0} {
			if b, err := s.Next(t.Context(), nil, 1<<20); err != nil || len(b.Items) != want || b.Parked != (want == 0) {
				t.Fatalf("next: %+v, %v, want %d", b, err, want)
			}
		}
		if s.CaughtUp() {
			t.Error("caught up before the head")
		}
		release()
		<-woken
		if b, err := s.Next(t.Context(), nil, 1<<20); err != nil || len(b.Items) != 1 {
			t.Fatalf("next: %+v, %v", b, err)
		}
		if !s.CaughtUp() {
			t.Error("not caught up at the head")
		}
	})
}

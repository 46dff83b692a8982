package hub

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/journal"
)

// boardRig is a hub with one who reads gestures.
type boardRig struct {
	hub   *Hub
	sub   *Sub
	may   auth.Writer
	wakes int // read after synctest.Wait
}

func newBoardRig(t *testing.T) *boardRig {
	t.Helper()
	issuer := authtest.New(t)
	routing := twinrail.Routing{TenantID: "t_acme", Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: "c1", ActorID: "u_1"}
	r := &boardRig{may: issuer.Writer(routing, twinrail.Gesture)}
	r.hub = New(journal.NewMemory(journal.MemoryOptions{}), Options{
		Window:        1 << 20,
		Encode:        func(_ twinrail.Kind, e *journal.Entry) []byte { return e.Tail },
		EncodeGesture: func(e *twinrail.Event) []byte { return e.Data },
	})
	var err error
	r.sub, _, err = r.hub.Subscribe(t.Context(), issuer.Reader(routing, twinrail.CanvasStream, twinrail.Gesture), From{}, func() { r.wakes++ })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.sub.Close)
	r.sub.SetGestures(true)
	return r
}

func (r *boardRig) gesture(t *testing.T, kind, data string) {
	t.Helper()
	if err := r.hub.Gesture(r.may, twinrail.Event{Type: kind, Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

// check finds the board's parts to agree, and returns how many gestures it holds.
func (b *board) check(t *testing.T) int {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	n, bytes, version := 0, 0, uint64(0)
	for g := b.first; g != nil; g = g.next {
		if g.version <= version || b.latest[g.key] != g || (g.next == nil) != (g == b.last) || g.next != nil && g.next.prev != g {
			t.Fatalf("gesture %d is out of place", g.version)
		}
		n, bytes, version = n+1, bytes+g.item.size(), g.version
	}
	if n != len(b.latest) || bytes != b.bytes || version > b.version.Load() || n > maxGestures || bytes > maxGestureBytes {
		t.Fatalf("holds %d gestures, of %d bytes: %d and %d were counted", n, bytes, len(b.latest), b.bytes)
	}
	return n
}

// A subscriber that does not read gestures must not cost more than it did.
func TestSubSize(t *testing.T) {
	if size := unsafe.Sizeof(Sub{}); unsafe.Sizeof(uintptr(0)) == 8 && size > 288 {
		t.Errorf("a Sub has %d bytes, which the allocator rounds up from 288", size)
	}
}

// Isolation is checked once more at the last moment.
func TestGestureForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t)
		b := r.sub.stream.board.Load()
		r.gesture(t, "pointer", "1")
		b.put(gestureKey{actor: "u_2"}, &Item{Channel: twinrail.Gesture, owner: "c/t_other/dev/w1/p1/studio/c1/"})
		for range 2 {
			if batch, err := r.sub.Next(t.Context(), nil, 1<<20); !errors.Is(err, ErrForeign) || len(batch.Gestures) > 0 || batch.Parked {
				t.Fatalf("next: %+v, %v, want ErrForeign", batch, err)
			}
		}
	})
}

// What is held is bounded in number and in bytes, by what goes first being the
// oldest.
func TestGestureBounds(t *testing.T) {
	for _, size := range []int{1, maxGestureBytes / 8} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBoardRig(t)
				b := r.sub.stream.board.Load()
				data := strings.Repeat("x", size)
				for i := range 2 * maxGestures {
					r.gesture(t, fmt.Sprint(i), data)
				}
				n := b.check(t)
				if n != min(maxGestures, maxGestureBytes/(size+256)) {
					t.Errorf("holds %d", n)
				}
				if got := r.hub.GesturesEvicted(); got != uint64(2*maxGestures-n) {
					t.Errorf("%d were evicted, want %d", got, 2*maxGestures-n)
				}
				for range 100 { // no more are held for being made again
					r.gesture(t, fmt.Sprint(2*maxGestures-1), data)
				}
				if again := b.check(t); again != n {
					t.Errorf("holds %d, want %d", again, n)
				}
			})
		})
	}
}

// After a storm nothing of it stays, with nobody doing anything.
func TestGestureSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t)
		b := r.sub.stream.board.Load()
		for i := range 100 {
			r.gesture(t, fmt.Sprint(i), "1")
			time.Sleep(time.Millisecond)
		}
		last := time.Now()
		time.Sleep(gestureLife - 50*time.Millisecond)
		synctest.Wait()
		if n := b.check(t); n < 45 || n > 55 {
			t.Errorf("holds %d in the midst of their ends", n)
		}
		time.Sleep(time.Until(last.Add(gestureLife)))
		synctest.Wait()
		if n := b.check(t); n != 0 {
			t.Errorf("holds %d after their end", n)
		}
		if batch, err := r.sub.Next(t.Context(), nil, 1); err != nil || !batch.Parked {
			t.Errorf("next: %+v, %v", batch, err)
		}
		r.gesture(t, "pointer", "1")
		synctest.Wait()
		if batch, err := r.sub.Next(t.Context(), nil, 1); err != nil || len(batch.Gestures) != 1 || r.wakes != 1 {
			t.Errorf("next: %+v, %v, woken %d times: the sweep was no round", batch, err, r.wakes)
		}
	})
}

// The timer that ran out for the end of a gesture begins no round before its time.
func TestGestureSweepAmidRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t)
		b := r.sub.stream.board.Load()
		r.gesture(t, "pointer", "1")
		synctest.Wait()
		if batch, err := r.sub.Next(t.Context(), nil, 1); err != nil || len(batch.Gestures) != 1 {
			t.Fatalf("next: %+v, %v", batch, err)
		}
		r.gesture(t, "pointer", "2")
		b.tick()
		if batch, err := r.sub.Next(t.Context(), nil, 1); err != nil || !batch.Parked {
			t.Fatalf("next: %+v, %v, within the round", batch, err)
		}
		time.Sleep(GestureInterval)
		synctest.Wait()
		if batch, err := r.sub.Next(t.Context(), nil, 1); err != nil || len(batch.Gestures) != 1 || r.wakes != 1 {
			t.Fatalf("next: %+v, %v, woken %d times", batch, err, r.wakes)
		}
	})
}

// With nobody left who reads them, no gestures are held.
func TestGestureBoardGoes(t *testing.T) {
	for name, end := range map[string]func(*Sub){
		"Off":   func(s *Sub) { s.SetGestures(false) },
		"Close": func(s *Sub) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newBoardRig(t)
				b := r.sub.stream.board.Load()
				r.gesture(t, "pointer", "1")
				synctest.Wait() // the timer is set to the gesture's end
				end(r.sub)
				if r.sub.stream.board.Load() != nil || b.check(t) != 0 || len(b.viewers) != 0 || b.timer.Stop() {
					t.Errorf("the gestures are still held: %+v", b)
				}
				r.gesture(t, "pointer", "2") // does nothing
				r.sub.Close()
				r.sub.SetGestures(true)
				if r.sub.viewer.Load() != nil || r.sub.stream.board.Load() != nil {
					t.Error("a closed subscription reads gestures")
				}
			})
		})
	}
}

// Between the look at the board and the parking there is no step that a test
// could hold, so here they are called one by one.
func TestGesturePark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newBoardRig(t)
		s, v := r.sub, r.sub.viewer.Load()
		if got, err := v.gather(nil, 1); len(got) != 0 || err != nil {
			t.Fatalf("gathered %v, %v, where there is nothing", got, err)
		}
		r.gesture(t, "pointer", "1")
		synctest.Wait() // the round is over, which would have woken
		if parked, err := s.stream.park(s); parked || err != nil {
			t.Fatalf("parked %v, %v, where a gesture has come meanwhile", parked, err)
		}
		if got, err := v.gather(nil, 1); len(got) != 1 || err != nil {
			t.Fatalf("gathered %v, %v", got, err)
		}
		r.gesture(t, "pointer", "2")
		if parked, err := s.stream.park(s); !parked || err != nil {
			t.Fatalf("parked %v, %v, where the round is over", parked, err)
		}
		time.Sleep(GestureInterval)
		synctest.Wait()
		if r.wakes != 1 {
			t.Fatalf("woken %d times", r.wakes)
		}
	})
}

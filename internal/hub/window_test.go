package hub_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

func (r *rig) wantEncodedOnce(results []journal.Result) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range results {
		if n := r.encoded[at.Seq]; n != 1 {
			r.t.Errorf("the record at %d was encoded %d times, want once", at.Seq, n)
		}
	}
}

// All who follow a stream share its encoded bytes.
func TestEncodedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{})
		subs := make([]*subscriber, 20)
		for i := range subs {
			subs[i] = r.subscribe("")
			subs[i].park()
		}
		var all []journal.Result
		for i := range 10 {
			all = append(all, r.append(1+i%3)...)
		}
		wires := make(map[uint64]*byte)
		for _, s := range subs {
			items := s.drain()
			wantItems(t, items, all...)
			for _, it := range items {
				if wires[it.Cursor.Seq] == nil {
					wires[it.Cursor.Seq] = &it.Wire[0]
				}
				if wires[it.Cursor.Seq] != &it.Wire[0] {
					t.Fatalf("the bytes of the record at %d are not shared", it.Cursor.Seq)
				}
			}
		}
		r.wantEncodedOnce(all)
	})
}

// The window may read of an append before the journal tells of it.
func TestWindowAheadOfNotification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{})
		parked, reading := r.subscribe(""), r.subscribe("")
		parked.park()
		r.journal.hold = true
		all := append(r.append(1), r.append(1)...)
		for _, notify := range r.journal.held {
			notify()
			synctest.Wait()
			parked.wantWakes(1)
			if reading.Lags() {
				t.Fatal("the window has lost what it held")
			}
			wantItems(t, parked.drain(), all...)
			all = all[:0] // after the first notification nothing is new
		}
		wantItems(t, reading.drain(), r.retained()...)
		r.wantEncodedOnce(r.retained())
	})
}

// retained returns where all the records of the stream stand.
func (r *rig) retained() []journal.Result {
	r.t.Helper()
	page, err := r.journal.Journal.Read(context.Background(), r.stream.Reader, 0, large)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []journal.Result
	for i := range page.Entries {
		all = append(all, journal.Result{Seq: page.Entries[i].Cursor.Seq, Cursor: page.Entries[i].Cursor})
	}
	return all
}

// A batch ends once it has max bytes, and has at least one item, by the window as
// by the journal.
func TestNextKeepsToMax(t *testing.T) {
	for name, window := range map[string]int{"Window": large, "Lag": 0} {
		t.Run(name, bubble(func(t *testing.T) {
			r := newRig(t, window, journal.Retention{})
			// The bytes count as the journal counts them, or are fewer.
			r.hub = hub.New(r.journal, hub.Options{Window: window, Encode: func(_ twinrail.Kind, e *journal.Entry) []byte { return e.Tail }})
			s := r.subscribe("")
			all := r.append(50)
			for _, max := range []int{-1, 0, 1, 300, 1000, 5000} {
				s := r.subscribe(s.Cursor().String())
				var items []*hub.Item
				for range 100 {
					b := s.next(max)
					if b.Parked {
						break
					}
					if len(b.Items) == 0 {
						t.Fatalf("max %d: an empty batch where something follows", max)
					}
					size := 0
					for _, it := range b.Items[:len(b.Items)-1] {
						size += len(it.Wire)
					}
					if size > 0 && size >= max {
						t.Fatalf("max %d: a batch of %d went on after %d bytes", max, len(b.Items), size)
					}
					items = append(items, b.Items...)
				}
				wantItems(t, items, all...)
			}
		}))
	}
}

// A batch is appended to the buffer of the caller.
func TestNextUsesBuffer(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		s := r.subscribe("")
		all := r.append(3)
		buf := make([]*hub.Item, 0, 8)
		b, err := s.Next(t.Context(), buf, large)
		if err != nil {
			t.Fatal(err)
		}
		wantItems(t, b.Items, all...)
		if &b.Items[0] != &buf[:1][0] {
			t.Fatal("the batch is not in the caller's buffer")
		}
	})
}

// The window holds no more than its bound, and no evicted item lives on behind
// it: small entries first make a long array, that large ones then go through.
func TestWindowMemory(t *testing.T) {
	const (
		window = 1 << 20
		size   = 64 << 10
		fit    = 15  // entries of size
		small  = 900 // entries for which append makes an array with much room
	)
	synctest.Test(t, func(t *testing.T) {
		j := journal.NewMemory(journal.MemoryOptions{})
		var wires []weak.Pointer[byte]
		h := hub.New(j, hub.Options{Window: window, Encode: func(k twinrail.Kind, e *journal.Entry) []byte {
			wire := encode(k, e)
			if len(wire) > size {
				wires = append(wires, weak.Make(&wire[0]))
			}
			return wire
		}})
		r := newRig(t, 0, journal.Retention{})
		s, _, err := h.Subscribe(t.Context(), r.stream.Reader, hub.From{}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range small + 90 {
			data := "small"
			if i >= small {
				data = strings.Repeat("x", size)
			}
			if _, err := j.Append(t.Context(), []journal.Record{r.stream.Record(fmt.Sprint(i), data)}, journal.Expect{}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		runtime.GC()
		alive := 0
		for _, w := range wires {
			if w.Value() != nil {
				alive++
			}
		}
		// As many again may wait to be let go of.
		if alive < fit || alive > 2*fit+2 {
			t.Fatalf("%d of %d entries of %d bytes are held by a window of %d", alive, len(wires), size, window)
		}
	})
}

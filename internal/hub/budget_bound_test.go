package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// Whatever is appended, read and left: after each step all windows together are
// within the budget, and the books say what they hold.
func TestBudgetBound(t *testing.T) {
	names := []string{"t_a/1", "t_a/2", "t_a/3", "t_b/1", "t_b/2", "t_c/1"}
	streams := newEstate(t, 0)
	for _, name := range names {
		streams.add(name)
	}
	rapid.Check(t, func(rt *rapid.T) {
		budget := rapid.SampledFrom([]int{1, 1000, 3000, 8000, 20000}).Draw(rt, "budget")
		steps := rapid.SliceOfN(rapid.IntRange(0, 4*len(names)-1), 1, 60).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(*testing.T) { err = boundWalk(streams.streams, names, budget, steps) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func boundWalk(streams map[string]journaltest.Stream, names []string, budget int, steps []int) error {
	ctx := context.Background()
	j := journal.NewMemory(journal.MemoryOptions{})
	h := hub.New(j, hub.Options{Window: 6000, Budget: budget, Encode: encode})
	subs := make(map[string]*hub.Sub)
	for n, step := range steps {
		name := names[step%len(names)]
		sub := subs[name]
		var err error
		switch kind := step / len(names); {
		case sub == nil:
			subs[name], _, err = h.Subscribe(ctx, streams[name].Reader, hub.From{}, func() {})
		case kind == 0:
			sub.Close()
			delete(subs, name)
		case kind == 1:
			_, err = sub.Next(ctx, nil, 1)
		default:
			data := strings.Repeat("x", 100*(n%9))
			_, err = j.Append(ctx, []journal.Record{streams[name].Record(fmt.Sprint(n), data)}, journal.Expect{})
		}
		if err != nil {
			return err
		}
		synctest.Wait()
		if got, held := h.WindowBytes(), h.Held(); got != held || held > budget {
			return fmt.Errorf("step %d: %d bytes in the books, %d are held, of a budget of %d", n, got, held, budget)
		}
	}
	for _, sub := range subs {
		sub.Close()
	}
	if h.WindowBytes() != 0 || h.Tenants() != 0 || h.Streams() != 0 {
		return errors.New("something is held after all have left")
	}
	return nil
}

// TestBudgetStress has publishers and readers of all streams at once, with a
// budget that is short for all of them: what everybody sees is whole.
func TestBudgetStress(t *testing.T) {
	for _, budget := range []int{1, 4000, 30000} {
		t.Run(fmt.Sprintf("Budget%d", budget), bubble(func(t *testing.T) {
			log := journal.NewMemory(journal.MemoryOptions{Stride: 5})
			s := &stress{log: log, hub: hub.New(log, hub.Options{Window: large, Budget: budget, Encode: encode})}
			for i := range stressStreams {
				r := canvasRouting(fmt.Sprintf("c%d", i))
				r.TenantID = fmt.Sprintf("t_%d", i%3)
				s.streams = append(s.streams, journaltest.StreamAt(t, r))
			}
			// Somebody is always there, so that there is a window to fill.
			var stay []*hub.Sub
			for _, stream := range s.streams {
				sub, _, err := s.hub.Subscribe(t.Context(), stream.Reader, hub.From{}, func() {})
				if err != nil {
					t.Fatal(err)
				}
				stay = append(stay, sub)
			}
			err := s.run()
			for _, sub := range stay {
				sub.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.hub.Streams() != 0 || s.hub.WindowBytes() != 0 || s.hub.Tenants() != 0 {
				t.Fatalf("%d bytes of %d streams are held after all have left", s.hub.WindowBytes(), s.hub.Streams())
			}
			if budget > 1 && s.hub.WindowEvictions() == 0 {
				t.Error("nothing was evicted")
			}
		}))
	}
}

// Whoever was there and left leaves nothing behind.
func TestLeftStreamsHoldNothing(t *testing.T) {
	const streams, waves = 100_000, 100
	issuer := authtest.New(t)
	ac := issuer.Context("t_acme", "u_1")
	reader := func(i int) auth.Reader {
		r, err := ac.Reader(canvasRouting(fmt.Sprint("c", i)), twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	h := hub.New(still{}, hub.Options{Window: large, Budget: large, Encode: encode})
	before := heapInUse()
	for wave := range waves {
		var g errgroup.Group
		for i := range streams / waves {
			g.Go(func() error {
				sub, _, err := h.Subscribe(context.Background(), reader(wave*streams/waves+i), hub.From{}, func() {})
				if err != nil {
					return err
				}
				defer sub.Close()
				_, err = sub.Next(context.Background(), nil, 1+rand.IntN(10))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	after := heapInUse()
	if h.Streams() != 0 || h.WindowBytes() != 0 || h.Tenants() != 0 {
		t.Fatalf("%d streams, %d bytes are held", h.Streams(), h.WindowBytes())
	}
	// Less than 10 bytes for each would be noise; the least that could be kept of
	// a stream is ten times as much.
	if after > before+streams*10 {
		t.Fatalf("%d bytes on the heap before, %d after", before, after)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// still is a journal with any number of streams in which there is nothing.
type still struct{ journal.Journal }

func (still) Notify(func(key string, last uint64)) {}

func (still) Bounds(context.Context, auth.Reader) (journal.Bounds, error) {
	return journal.Bounds{}, nil
}

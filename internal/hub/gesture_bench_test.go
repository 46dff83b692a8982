package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

// BenchmarkCommitUnderGestures takes the time from a commit's append to the
// return of the Next that has it, first with nothing else in the stream, then
// with 200 actors who make 60 gestures a second each, and 20 who read them. The
// commits come a millisecond apart, so that the storm goes on in between. It
// reports percentiles of both, and the storm's as a ratio to those without.
func BenchmarkCommitUnderGestures(b *testing.B) {
	const viewers = 20
	log, stream := benchLog(b)
	h := hub.New(log, hub.Options{Window: large, Encode: encode, EncodeGesture: encodeGesture})
	reader := authtest.New(b).Reader(canvasRouting("c1"), twinrail.CanvasStream, twinrail.Commit, twinrail.Gesture)
	ctx, cancel := context.WithCancel(b.Context())
	var reading sync.WaitGroup
	arrived := make(chan time.Time, 1)
	for i := range viewers {
		f := &benchFollower{wake: make(chan struct{}, 1)}
		if i == 0 {
			f.arrived = arrived
		}
		var err error
		if f.sub, _, err = h.Subscribe(ctx, reader, hub.From{}, f.kick); err != nil {
			b.Fatal(err)
		}
		defer f.sub.Close()
		f.sub.SetGestures(true)
		reading.Go(func() { f.run(ctx, b) })
	}
	n := 0
	measure := func() []time.Duration {
		latencies := make([]time.Duration, b.N)
		for i := range latencies {
			n++
			rec := stream.Record(fmt.Sprint(n), "data")
			began := time.Now()
			mustAppend(b, log, rec)
			latencies[i] = (<-arrived).Sub(began)
			time.Sleep(time.Millisecond)
		}
		slices.Sort(latencies)
		return latencies
	}
	b.ResetTimer()
	alone := measure()
	reading.Go(func() { gestureStorm(ctx, b, h) })
	time.Sleep(100 * time.Millisecond)
	storm := measure()
	b.StopTimer()
	cancel()
	reading.Wait()
	for _, p := range []int{50, 99} {
		at := min(b.N*p/100, b.N-1)
		b.ReportMetric(float64(alone[at].Microseconds()), fmt.Sprintf("p%d-alone-µs", p))
		b.ReportMetric(float64(storm[at].Microseconds()), fmt.Sprintf("p%d-storm-µs", p))
		b.ReportMetric(float64(storm[at])/float64(alone[at]), fmt.Sprintf("p%d-ratio", p))
	}
}

// gestureStorm makes 12,000 gestures a second, a 60th part of the actors'
// gestures at a time.
func gestureStorm(ctx context.Context, b *testing.B, h *hub.Hub) {
	const actors, rate, ticks = 200, 60, 1000
	issuer := authtest.New(b)
	writers := make([]auth.Writer, actors)
	for i := range writers {
		routing := canvasRouting("c1")
		routing.ActorID = fmt.Sprintf("u_%d", i)
		writers[i] = issuer.Writer(routing, twinrail.Gesture)
	}
	ticker := time.NewTicker(time.Second / ticks)
	defer ticker.Stop()
	began := time.Now()
	for made := 0; ctx.Err() == nil; {
		for due := int(time.Since(began).Seconds() * actors * rate); made < due; made++ {
			e := twinrail.Event{ID: fmt.Sprint(made), Type: "pointer", Time: time.Now(), Data: json.RawMessage(`{"x":0.5123,"y":0.25}`)}
			if err := h.Gesture(writers[made%actors], e); err != nil {
				b.Error(err)
				return
			}
		}
		<-ticker.C
	}
}

// benchFollower reads like a connection that writes to nobody.
type benchFollower struct {
	sub     *hub.Sub
	wake    chan struct{}
	arrived chan<- time.Time // given when a commit has come; may be nil
}

func (f *benchFollower) kick() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *benchFollower) run(ctx context.Context, b *testing.B) {
	buf := make([]*hub.Item, 0, 256)
	for {
		batch, err := f.sub.Next(context.Background(), buf, large)
		if err != nil {
			b.Error(err)
			return
		}
		if len(batch.Items) > 0 && f.arrived != nil {
			f.arrived <- time.Now()
		}
		if batch.Parked {
			select {
			case <-f.wake:
			case <-ctx.Done():
				return
			}
		}
	}
}

// BenchmarkGesture makes gestures where nobody subscribes, where one does who reads
// no gestures, and where one reads them, but is slow.
func BenchmarkGesture(b *testing.B) {
	for name, channels := range map[string][]twinrail.Channel{
		"nobody": nil, "commits": {twinrail.Commit}, "gestures": {twinrail.Commit, twinrail.Gesture},
	} {
		b.Run(name, func(b *testing.B) {
			h := hub.New(journal.NewMemory(journal.MemoryOptions{}), hub.Options{Window: large, Encode: encode, EncodeGesture: encodeGesture})
			issuer := authtest.New(b)
			if channels != nil {
				sub, _, err := h.Subscribe(b.Context(), issuer.Reader(canvasRouting("c1"), twinrail.CanvasStream, channels...), hub.From{}, wakeNobody)
				if err != nil {
					b.Fatal(err)
				}
				defer sub.Close()
				sub.SetGestures(true)
			}
			w := issuer.Writer(canvasRouting("c1"), twinrail.Gesture)
			e := twinrail.Event{ID: "g1", Type: "pointer", Time: time.Now(), Data: json.RawMessage(`{"x":0.5123,"y":0.25}`)}
			b.ReportAllocs()
			for b.Loop() {
				if err := h.Gesture(w, e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

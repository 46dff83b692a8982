package hub_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// benchLog is a journal that keeps little, and records to append to it.
func benchLog(b *testing.B) (*journal.Memory, journaltest.Stream) {
	return journal.NewMemory(journal.MemoryOptions{Retention: journal.Retention{Count: 4096}}), journaltest.NewStream(b, "c1")
}

func mustAppend(b *testing.B, log journal.Journal, recs ...journal.Record) {
	b.Helper()
	if _, err := log.Append(b.Context(), recs, journal.Expect{}); err != nil {
		b.Fatal(err)
	}
}

func mustNext(b *testing.B, sub *hub.Sub, buf []*hub.Item, max int) hub.Batch {
	batch, err := sub.Next(b.Context(), buf, max)
	if err != nil || batch.Reset != nil {
		b.Fatalf("next: %+v, %v", batch, err)
	}
	return batch
}

// BenchmarkWake appends one record, waits until every parked subscriber is woken,
// has each take the record and park again.
func BenchmarkWake(b *testing.B) {
	for _, parked := range []int{1, 1000} {
		b.Run(fmt.Sprintf("parked=%d", parked), func(b *testing.B) {
			log, stream := benchLog(b)
			h := hub.New(log, hub.Options{Window: large, Encode: encode})
			var woken sync.WaitGroup
			subs := make([]*hub.Sub, parked)
			for i := range subs {
				sub, _, err := h.Subscribe(b.Context(), stream.Reader, hub.From{}, woken.Done)
				if err != nil {
					b.Fatal(err)
				}
				defer sub.Close()
				mustNext(b, sub, nil, large)
				subs[i] = sub
			}
			buf := make([]*hub.Item, 0, 8)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				woken.Add(parked)
				mustAppend(b, log, stream.Record(fmt.Sprint(n), "data"))
				woken.Wait()
				for _, sub := range subs {
					for !mustNext(b, sub, buf, large).Parked {
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*parked), "ns/sub")
		})
	}
}

// BenchmarkNextWindow takes entries one at a time out of a window of a thousand.
func BenchmarkNextWindow(b *testing.B) {
	const entries = 1000
	log, stream := benchLog(b)
	h := hub.New(log, hub.Options{Window: large, Encode: encode})
	woken := make(chan struct{}, 1)
	sub, start, err := h.Subscribe(b.Context(), stream.Reader, hub.From{}, func() { woken <- struct{}{} })
	if err != nil {
		b.Fatal(err)
	}
	defer func() { sub.Close() }()
	mustNext(b, sub, nil, large)
	recs := make([]journal.Record, entries)
	for i := range recs {
		recs[i] = stream.Record(fmt.Sprint(i), "data")
	}
	mustAppend(b, log, recs...)
	<-woken
	buf := make([]*hub.Item, 0, 8)
	left := entries
	if sub.Lags() {
		b.Fatal("the window does not hold the entries")
	}
	b.ReportAllocs()
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			again, _, err := h.Subscribe(b.Context(), stream.Reader, hub.From{Cursor: start.Cursor.String()}, func() {})
			if err != nil {
				b.Fatal(err)
			}
			sub.Close()
			sub, left = again, entries
			b.StartTimer()
		}
		if batch := mustNext(b, sub, buf, 1); len(batch.Items) != 1 {
			b.Fatalf("got %d items", len(batch.Items))
		}
		left--
	}
}

// BenchmarkMemory reports the heap that a parked subscriber takes, at a stream
// with all the others and at one of its own.
func BenchmarkMemory(b *testing.B) {
	const subscribers = 10_000
	for name, streams := range map[string]int{"shared": 1, "own": subscribers} {
		b.Run(name, func(b *testing.B) {
			log, _ := benchLog(b)
			rights := make([]journaltest.Stream, streams)
			for i := range rights {
				rights[i] = journaltest.NewStream(b, fmt.Sprintf("c%d", i))
			}
			for b.Loop() {
				h := hub.New(log, hub.Options{Window: large, Encode: encode})
				subs := make([]*hub.Sub, subscribers)
				before := heap()
				for i := range subs {
					sub, _, err := h.Subscribe(context.Background(), rights[i%streams].Reader, hub.From{}, wakeNobody)
					if err != nil {
						b.Fatal(err)
					}
					mustNext(b, sub, nil, large)
					subs[i] = sub
				}
				b.ReportMetric(float64(heap()-before)/subscribers, "B/sub")
				for _, sub := range subs {
					sub.Close()
				}
			}
		})
	}
}

func wakeNobody() {}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

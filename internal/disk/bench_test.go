package disk_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

const (
	benchWriters = 128
	benchStreams = 1000
)

// benchRecords returns n records of about 600 stored bytes, one stream after the
// other, and the number of stored bytes of the last one.
func benchRecords(b *testing.B, n int) (recs []journal.Record, size int) {
	streams := make([]journaltest.Stream, benchStreams)
	for i := range streams {
		streams[i] = journaltest.NewStream(b, fmt.Sprint("canvas", i))
	}
	data := strings.Repeat("x", 120)
	recs = make([]journal.Record, n)
	for i := range recs {
		recs[i] = streams[i%benchStreams].Record(fmt.Sprintf("0192f3a0-0000-7000-8000-%012d", i), data)
	}
	return recs, len(recs[n-1].AppendBinary(nil))
}

// perSecond has benchWriters call fn with 0 to n-1 and returns the rate.
func perSecond(b *testing.B, n int, fn func(i int) error) float64 {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range benchWriters {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := fn(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// BenchmarkDurablePublish compares the journal with the same events written
// straight to Pebble, each by a synced commit of its own: ratio is the journal's
// rate divided by Pebble's. Both take turns, so that the machine's moods meet
// both. It needs about 300,000 iterations to say something:
//
//	go test -run '^$' -bench DurablePublish -benchtime 300000x ./internal/disk
func BenchmarkDurablePublish(b *testing.B) {
	const rounds = 3
	recs, size := benchRecords(b, b.N)
	var ours, straight []float64
	for range rounds {
		straight = append(straight, publishStraight(b, recs))
		ours = append(ours, publishJournal(b, recs))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size), "B/event")
	b.ReportMetric(median(ours), "journal/s")
	b.ReportMetric(median(straight), "pebble/s")
	b.ReportMetric(median(ours)/median(straight), "ratio")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func publishJournal(b *testing.B, recs []journal.Record) float64 {
	j := mustOpen(b, b.TempDir(), disk.Options{})
	defer j.Close()
	return perSecond(b, len(recs), func(i int) error {
		_, err := j.Append(b.Context(), recs[i:i+1], journal.Expect{})
		return err
	})
}

func publishStraight(b *testing.B, recs []journal.Record) float64 {
	db, err := pebble.Open(b.TempDir(), disk.PebbleOptions())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	return perSecond(b, len(recs), func(i int) error {
		key := binary.BigEndian.AppendUint64([]byte("e"+recs[i].Owner), uint64(i/benchStreams+1))
		return db.Set(key, recs[i].AppendBinary(nil), pebble.Sync)
	})
}

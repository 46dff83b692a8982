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

	"github.com/twinrail/twinrail"
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
// rate divided by Pebble's, the median of some turns. It needs about 100,000 iterations to say something, and a machine with nothing else to do:
//
//	go test -run '^$' -bench DurablePublish -benchtime 100000x ./internal/disk
func BenchmarkDurablePublish(b *testing.B) {
	const rounds = 5
	recs, size := benchRecords(b, b.N)
	var ours, straight, ratios []float64
	for i := range rounds {
		straight = append(straight, publishStraight(b, recs))
		ours = append(ours, publishJournal(b, recs))
		ratios = append(ratios, ours[i]/straight[i])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size), "B/event")
	b.ReportMetric(median(ours), "journal/s")
	b.ReportMetric(median(straight), "pebble/s")
	b.ReportMetric(median(ratios), "ratio")
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
		key := binary.BigEndian.AppendUint64([]byte("e"+recs[i].Owner()), uint64(i/benchStreams+1))
		return db.Set(key, recs[i].AppendBinary(nil), pebble.Sync)
	})
}

// BenchmarkReadOneBehind reads the last event from the position before it, in a
// stream of 1,000 events and in one of 1,000,000, neither of which is in memory
// when the journal is opened; ratio is the time in the long one divided by that
// in the short one.
func BenchmarkReadOneBehind(b *testing.B) {
	dir := b.TempDir()
	short, long := journaltest.NewStream(b, "short"), journaltest.NewStream(b, "long")
	j := mustOpen(b, dir, disk.Options{})
	atShort, atLong := fill(b, j, short, 1000), fill(b, j, long, 1_000_000)
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	j = mustOpen(b, dir, disk.Options{})
	defer j.Close()
	for b.Loop() {
	}
	b.ReportMetric(0, "ns/op")
	one, many := readOne(b, j, short, atShort), readOne(b, j, long, atLong)
	b.ReportMetric(float64(one.Nanoseconds()), "ns/short")
	b.ReportMetric(float64(many.Nanoseconds()), "ns/long")
	b.ReportMetric(float64(many)/float64(one), "ratio")
}

// fill appends n events and returns the cursor to the one before the last.
func fill(b *testing.B, j journal.Journal, s journaltest.Stream, n int) twinrail.Cursor {
	var last journal.Result
	for done := 0; done < n; {
		recs := make([]journal.Record, 1000)
		for i := range recs {
			recs[i] = s.Record(fmt.Sprint("e", done+i), "some data")
		}
		results, err := j.Append(b.Context(), recs, journal.Expect{})
		if err != nil {
			b.Fatal(err)
		}
		done += len(recs)
		last = results[len(results)-2]
	}
	return last.Cursor
}

// readOne returns the median time of a seek to c and a read from there.
func readOne(b *testing.B, j journal.Journal, s journaltest.Stream, c twinrail.Cursor) time.Duration {
	const times = 2001
	took := make([]time.Duration, times)
	for i := range took {
		start := time.Now()
		seq, err := j.Seek(b.Context(), s.Reader, c)
		if err != nil {
			b.Fatal(err)
		}
		page, err := j.Read(b.Context(), s.Reader, seq, 1<<20)
		took[i] = time.Since(start)
		if err != nil || len(page.Entries) != 1 || page.Entries[0].Prev != c.Seq {
			b.Fatalf("read %d entries, error %v", len(page.Entries), err)
		}
	}
	slices.Sort(took)
	return took[times/2]
}

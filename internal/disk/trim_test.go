package disk

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// reopened closes j, where it is not nil, and opens the journal in fs, which does
// not sweep.
func reopened(t rapid.TB, j *Journal, fs vfs.FS, options Options) *Journal {
	t.Helper()
	if j != nil {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	options.FS, options.SweepInterval = fs, -1
	j, err := Open("journal", options)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// A stream that cannot be trimmed holds up no other one, and is left until the next
// sweep.
func TestTrimGoesOn(t *testing.T) {
	fs := vfs.NewMem()
	j := reopened(t, nil, fs, Options{})
	bad, good := journaltest.NewStream(t, "c1"), journaltest.NewStream(t, "c2")
	for _, s := range []journaltest.Stream{bad, good} {
		for i := range 3 {
			if _, err := j.Append(t.Context(), []journal.Record{s.Record(fmt.Sprint(i), "d")}, journal.Expect{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.db.Set(eventKey(nil, bad.Key(), 1), []byte("damaged"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	j = reopened(t, j, fs, Options{Retention: journal.Retention{Count: 1}})
	defer j.Close()
	due := newTrimmer(j) // beside the one that runs, which has nothing to do
	for range 2 {
		due.add(bad.Key())
		due.add(good.Key())
		due.work()
		if len(due.queue) != 0 || len(due.failed) != 1 {
			t.Fatalf("left in the queue: %q, failed: %q", due.queue, due.failed)
		}
	}
	if b, err := j.Bounds(t.Context(), good.Reader); err != nil || b.Oldest.Seq != 2 {
		t.Errorf("the stream after the damaged one begins after %d, %v; want 2", b.Oldest.Seq, err)
	}
	due.retry()
	if due.add(bad.Key()); len(due.queue) != 1 {
		t.Error("after a sweep it is not due again")
	}
}

// An ID that was used twice, which takes a dedupe window, stays known for as long
// as the second event is retained, also where there is no window any more when the
// first one is trimmed, and however far the index has come by then.
func TestTrimKeepsLaterID(t *testing.T) {
	now := time.Now()
	s := journaltest.NewStream(t, "c1")
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		j := reopened(t, nil, fs, Options{DedupeWindow: time.Hour})
		defer func() { _ = j.Close() }()
		n := 0
		add := func(at time.Time, id string) journal.Result {
			r, err := j.Append(t.Context(), []journal.Record{s.RecordAt(at, id, "d")}, journal.Expect{})
			if err != nil {
				t.Fatal(err)
			}
			return r[0]
		}
		more := func(what string) {
			count := rapid.SampledFrom([]int{0, 1, unindexed - 1, unindexed, unindexed + 1}).Draw(t, what)
			recs := make([]journal.Record, count)
			for i := range recs {
				n++
				recs[i] = s.RecordAt(now, fmt.Sprint("more", n), "d")
			}
			if count > 0 {
				if _, err := j.Append(t.Context(), recs, journal.Expect{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		first := add(now.Add(-3*time.Hour), "twice")
		more("between")
		second := add(now.Add(-time.Minute), "twice")
		if second.Duplicate {
			t.Fatal("the window did not end")
		}
		more("after")
		j = reopened(t, j, fs, Options{Retention: journal.Retention{Age: time.Hour}})
		more("after the start")
		pinned, err := j.streams.pin(s.Key())
		if err != nil {
			t.Fatal(err)
		}
		job := &trimming{stream: pinned, done: make(chan struct{})}
		if _, err := j.trims.choose(job, now); err != nil || job.floor.seq != first.Seq {
			t.Fatalf("to be trimmed up to %d, %v; want %d", job.floor.seq, err, first.Seq)
		}
		more("after the choice")
		j.commits.trims <- job
		<-job.done
		more("after the trim")
		if again := add(now, "twice"); !again.Duplicate || again.Seq != second.Seq {
			t.Fatalf("the event at %d is stored again at %d", second.Seq, again.Seq)
		}
	})
}

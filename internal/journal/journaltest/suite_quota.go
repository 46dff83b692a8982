package journaltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail/internal/journal"
)

const quotaBytes = 8000

// quotaError returns which quota an append is over, "" for none.
func quotaError(ctx context.Context, j journal.Journal, recs ...journal.Record) (string, error) {
	_, err := j.Append(ctx, recs, journal.Expect{})
	var over *journal.QuotaError
	if errors.As(err, &over) {
		return fmt.Sprintf("%d %s", over.Limit, over.What), nil
	}
	return "", err
}

func wantQuota(t *testing.T, j journal.Journal, want string, recs ...journal.Record) {
	t.Helper()
	if got, err := quotaError(t.Context(), j, recs...); err != nil || got != want {
		t.Errorf("append to %s: over %q, error %v; want over %q", recs[0].Owner(), got, err, want)
	}
}

// elsewhere returns streams that count for others than the tenant of NewStream.
func elsewhere(t *testing.T) []Stream {
	return []Stream{NewStreamIn(t, "t_acme", "prod", "c1"), NewStreamIn(t, "t_other", "dev", "c1"), NewStreamIn(t, "t_acm", "dev", "c1")}
}

func testQuotaStreams(t *testing.T, j journal.Journal) {
	n := watch(j)
	a, b, c := NewStream(t, "c1"), NewStream(t, "c2"), NewStream(t, "c3")
	wantQuota(t, j, "", a.Record("1", "d"), a.Record("2", "d"))
	mustBounds(t, j, c) // a stream that is looked at is none yet
	wantQuota(t, j, "", b.Record("1", "d"))
	for range 2 {
		wantQuota(t, j, "2 streams", c.Record("1", "d"))
	}
	if got := mustBounds(t, j, c).Head.Seq; got != 0 || n.of(c.Key()) != 0 {
		t.Errorf("a refused stream has a record at %d, and one at %d was notified of", got, n.of(c.Key()))
	}
	wantIDs(t, mustReadAll(t, j, c, 0))
	wantQuota(t, j, "", a.Record("3", "d"))
	wantQuota(t, j, "", b.Record("1", "d"))
	for _, s := range elsewhere(t) {
		wantQuota(t, j, "", s.Record("1", "d"))
	}
	wantIDs(t, mustReadAll(t, j, a, 0), "1", "2", "3")
}

// sized returns a record whose size is n.
func (s Stream) sized(t *testing.T, id string, n int64) journal.Record {
	t.Helper()
	at := time.Now()
	rec := s.RecordAt(at, id, "")
	pad := n - int64(rec.Size())
	if pad < 0 {
		t.Fatalf("the least record has %d bytes, want %d", rec.Size(), n)
	}
	rec = s.RecordAt(at, id, strings.Repeat("x", int(pad)))
	if size := int64(rec.Size()); size != n {
		t.Fatalf("a record has %d bytes, want %d", size, n)
	}
	return rec
}

func testQuotaBytes(t *testing.T, j journal.Journal) {
	const part = quotaBytes / 4
	a, b := NewStream(t, "c1"), NewStream(t, "c2")
	first := a.sized(t, "1", part)
	wantQuota(t, j, "", first, a.sized(t, "2", part))
	wantQuota(t, j, "", b.sized(t, "1", part))
	full := fmt.Sprintf("%d bytes", quotaBytes)
	wantQuota(t, j, full, a.sized(t, "3", part+1))
	wantQuota(t, j, full, b.sized(t, "2", part/2), b.sized(t, "3", part/2+1))
	wantQuota(t, j, full, NewStream(t, "c3").sized(t, "1", part+1))
	var conflict *journal.SeqConflictError
	if _, err := j.Append(t.Context(), []journal.Record{a.sized(t, "3", part+1)}, journal.Expect{Set: true}); !errors.As(err, &conflict) {
		t.Errorf("append at another seq, over the quota: %v", err)
	}
	wantIDs(t, mustReadAll(t, j, a, 0), "1", "2")
	wantIDs(t, mustReadAll(t, j, b, 0), "1")

	// Up to the last byte, and what is stored already does not count.
	last := a.sized(t, "3", part)
	wantQuota(t, j, "", first, last, last)
	if again := mustAppend(t, j, last, first); !again[0].Duplicate || !again[1].Duplicate {
		t.Errorf("duplicates, where nothing is left: %+v", again)
	}
	changed := a.sized(t, "3", part+1)
	var used *journal.IDConflictError
	if _, err := j.Append(t.Context(), []journal.Record{changed}, journal.Expect{}); !errors.As(err, &used) {
		t.Errorf("another event of an id, where nothing is left: %v", err)
	}
	wantQuota(t, j, full, b.Record("4", ""))
	wantIDs(t, mustReadAll(t, j, a, 0), "1", "2", "3")
	for _, s := range elsewhere(t) {
		wantQuota(t, j, "", s.sized(t, "1", quotaBytes))
		wantQuota(t, j, full, s.Record("2", ""))
	}
}

// What was trimmed is free, but for the stream itself.
func testQuotaTrimmed(t *testing.T, j journal.Journal) {
	s, other := NewStream(t, "c1"), NewStream(t, "c2")
	old := time.Now().Add(-2 * time.Hour)
	for i := range 3 {
		id := fmt.Sprint(i)
		rec := s.RecordAt(old, id, strings.Repeat("x", quotaBytes/2))
		wantQuota(t, j, "", rec)
		waitTrimmed(t, j, s, mustBounds(t, j, s).Head)
		wantQuota(t, j, "1 streams", other.Record(id, "d"))
	}
	wantQuota(t, j, "", s.sized(t, "new", quotaBytes))
	wantQuota(t, j, fmt.Sprintf("%d bytes", quotaBytes), s.Record("newer", ""))
}

// That a record would push out another one does not make room for it.
func testQuotaOverTrim(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	for i := range 4 {
		for k, size := range []int64{quotaBytes / 2, quotaBytes / 2, quotaBytes / 4} {
			before := mustBounds(t, j, s).Head
			mustAppend(t, j, s.sized(t, fmt.Sprint(i, k), size))
			waitTrimmed(t, j, s, before)
			wantQuota(t, j, fmt.Sprintf("%d bytes", quotaBytes), s.sized(t, "over", quotaBytes-size+1))
		}
	}
}

// Appends at the same time have no more than the quota between them, and all of
// it.
func testConcurrentQuota(t *testing.T, j journal.Journal) {
	const streams, part = 5, quotaBytes / 20
	var mu sync.Mutex
	outcomes := make(map[string]int)
	var group errgroup.Group
	for i := range 4 * streams {
		rec := NewStream(t, fmt.Sprint("c", i)).sized(t, "1", part)
		group.Go(func() error {
			outcome, err := quotaError(t.Context(), j, rec)
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome]++
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if outcomes[""] != streams || outcomes["5 streams"] != 3*streams {
		t.Errorf("appends to new streams, by the quota they were over: %v", outcomes)
	}

	s := NewStreamIn(t, "t_other", "dev", "c1")
	clear(outcomes)
	for w := range writers {
		var recs []journal.Record
		for i := range each {
			recs = append(recs, s.sized(t, fmt.Sprintf("%d-%d", w, i), part))
		}
		group.Go(func() error {
			for pair := range slices.Chunk(recs, 2) {
				outcome, err := quotaError(t.Context(), j, pair...)
				if err != nil {
					return err
				}
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if stored := len(mustReadAll(t, j, s, 0)); outcomes[""] != 10 || stored != 20 {
		t.Errorf("pairs by the quota they were over: %v; %d are stored", outcomes, stored)
	}
}

package disk_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// load appends from many writers to a few streams, in batches of one to five,
// and remembers what was acknowledged.
type load struct {
	streams []journaltest.Stream
	onAck   func(id string, r journal.Result) // may be nil

	mu      sync.Mutex
	acked   map[string]journal.Result // by id
	target  int
	reached chan struct{}
}

const loadWriters = 16

func newLoad(t testing.TB) *load {
	l := &load{acked: make(map[string]journal.Result)}
	for i := range 4 {
		l.streams = append(l.streams, journaltest.NewStream(t, fmt.Sprint("c", i)))
	}
	return l
}

// run appends until ctx ends or an append fails, which is the error.
func (l *load) run(ctx context.Context, j journal.Journal, round int) error {
	group, ctx := errgroup.WithContext(ctx)
	for w := range loadWriters {
		group.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				s := l.streams[(w+n)%len(l.streams)]
				recs := make([]journal.Record, 1+n%5)
				for i := range recs {
					recs[i] = s.Record(batchID(round, w, n, i, len(recs)), strings.Repeat("x", 50*(n%7)))
				}
				results, err := j.Append(context.WithoutCancel(ctx), recs, journal.Expect{})
				if err != nil {
					return err
				}
				l.ack(recs, results)
			}
			return nil
		})
	}
	return group.Wait()
}

// batchID names the i-th of the size events in a batch.
func batchID(round, writer, batch, i, size int) string {
	return fmt.Sprintf("r%d-w%d-b%d.%d.%d", round, writer, batch, i, size)
}

func (l *load) ack(recs []journal.Record, results []journal.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range results {
		l.acked[recs[i].ID()] = r
		if l.onAck != nil {
			l.onAck(recs[i].ID(), r)
		}
	}
	if l.reached != nil && len(l.acked) >= l.target {
		close(l.reached)
		l.reached = nil
	}
}

// more returns a channel that is closed when n more events are acknowledged.
func (l *load) more(n int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target, l.reached = len(l.acked)+n, make(chan struct{})
	return l.reached
}

func (l *load) snapshot() map[string]journal.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	acked := make(map[string]journal.Result, len(l.acked))
	for id, r := range l.acked {
		acked[id] = r
	}
	return acked
}

// check verifies that each acknowledged event that was not trimmed is in the
// journal once and where it was said to be, that its cursor is valid, that batches
// are whole, that the prev links make one chain, and that the tenant is charged
// with what is there and with nothing else. Events that were not acknowledged may
// be there.
func check(t *testing.T, j *disk.Journal, streams []journaltest.Stream, acked map[string]journal.Result) {
	t.Helper()
	found := make(map[string]struct{})
	floors := make(map[uint64]uint64) // by epoch
	var used journal.Usage
	for _, s := range streams {
		bounds, err := j.Bounds(t.Context(), s.Reader)
		if err != nil {
			t.Fatalf("bounds: %v", err)
		}
		floor := bounds.Oldest.Seq
		floors[bounds.Oldest.Epoch] = floor
		if bounds.Head.Seq > 0 {
			used.Streams++
		}
		entries, err := journaltest.ReadAll(t.Context(), j, s.Reader, floor)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		for i, e := range entries {
			if _, twice := found[e.ID]; twice {
				t.Errorf("%s is there twice", e.ID)
			}
			found[e.ID] = struct{}{}
			used.Bytes += int64(e.Size())
			checkWhole(t, entries, i, floor > 0)
			if r, ok := acked[e.ID]; ok {
				if r.Cursor != e.Cursor || r.Prev != e.Prev {
					t.Errorf("%s was acknowledged at %+v and is at %+v", e.ID, r.Cursor, e.Cursor)
				}
				if seq, err := j.Seek(t.Context(), s.Reader, r.Cursor); err != nil || seq != r.Seq {
					t.Errorf("the cursor of %s: %v", e.ID, err)
				}
			}
		}
	}
	wantUsage(t, j, used)
	lost := 0
	for id, r := range acked {
		if _, ok := found[id]; !ok && r.Seq > floors[r.Cursor.Epoch] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged events are lost", lost, len(acked))
	}
}

// checkWhole verifies that the i-th entry stands among all of its batch, of which
// the first ones may have been trimmed.
func checkWhole(t *testing.T, entries []journal.Entry, i int, trimmed bool) {
	t.Helper()
	at := strings.LastIndexByte(entries[i].ID, 'b')
	var batch, index, size int
	if _, err := fmt.Sscanf(entries[i].ID[at:], "b%d.%d.%d", &batch, &index, &size); err != nil {
		t.Fatalf("%s: %v", entries[i].ID, err)
	}
	first, cut := i-index, 0
	if first < 0 && trimmed {
		cut = -first
	}
	if first+cut < 0 || first+size > len(entries) {
		t.Errorf("the batch of %s is not whole", entries[i].ID)
		return
	}
	for k := cut; k < size; k++ {
		want := fmt.Sprintf("%sb%d.%d.%d", entries[i].ID[:at], batch, k, size)
		if got := entries[first+k].ID; got != want {
			t.Errorf("where %s should be is %s", want, got)
		}
	}
}

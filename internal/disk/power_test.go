package disk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// load appends from many writers to a few streams, in batches of one to five,
// and remembers what was acknowledged.
type load struct {
	streams []journaltest.Stream

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
		l.acked[recs[i].ID] = r
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

// check verifies that each acknowledged event is in the journal once and where
// it was said to be, that its cursor is valid, that batches are whole, and that
// the prev links make one chain. Events that were not acknowledged may be there.
func check(t *testing.T, j journal.Journal, streams []journaltest.Stream, acked map[string]journal.Result) {
	t.Helper()
	found := make(map[string]struct{})
	for _, s := range streams {
		entries, err := journaltest.ReadAll(t.Context(), j, s.Reader, 0)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		for i, e := range entries {
			if _, twice := found[e.ID]; twice {
				t.Errorf("%s is there twice", e.ID)
			}
			found[e.ID] = struct{}{}
			checkWhole(t, entries, i)
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
	lost := 0
	for id := range acked {
		if _, ok := found[id]; !ok {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged events are lost", lost, len(acked))
	}
}

// checkWhole verifies that the i-th entry stands among all of its batch.
func checkWhole(t *testing.T, entries []journal.Entry, i int) {
	t.Helper()
	at := strings.LastIndexByte(entries[i].ID, 'b')
	var batch, index, size int
	if _, err := fmt.Sscanf(entries[i].ID[at:], "b%d.%d.%d", &batch, &index, &size); err != nil {
		t.Fatalf("%s: %v", entries[i].ID, err)
	}
	first := i - index
	if first < 0 || first+size > len(entries) {
		t.Errorf("the batch of %s is not whole", entries[i].ID)
		return
	}
	for k := range size {
		want := fmt.Sprintf("%sb%d.%d.%d", entries[i].ID[:at], batch, k, size)
		if got := entries[first+k].ID; got != want {
			t.Errorf("where %s should be is %s", want, got)
		}
	}
}

// TestPowerCut takes the power away under load: what was not synced is lost,
// wholly or in random parts.
func TestPowerCut(t *testing.T) {
	for _, unsynced := range []int{0, 50} {
		t.Run(fmt.Sprintf("%d%% of what is not synced is kept", unsynced), func(t *testing.T) {
			fs, l := vfs.NewCrashableMem(), newLoad(t)
			for round := range 10 {
				rng := rand.New(rand.NewPCG(uint64(unsynced), uint64(round)))
				fs = powerCut(t, fs, l, round, vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
				if t.Failed() {
					return
				}
			}
		})
	}
}

// powerCut runs one round and returns what the disk holds after it.
func powerCut(t *testing.T, fs *vfs.MemFS, l *load, round int, cut vfs.CrashCloneCfg) *vfs.MemFS {
	t.Helper()
	j := mustOpen(t, "journal", disk.Options{FS: fs})
	check(t, j, l.streams, l.snapshot())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done, enough := make(chan error, 1), l.more(1+cut.RNG.IntN(500))
	go func() { done <- l.run(ctx, j, round) }()
	<-enough
	// Acknowledged first, cut then: what is acknowledged in between is not asked
	// for, and forgotten here.
	acked := l.snapshot()
	after := fs.CrashClone(cut)
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("append: %v", err)
	}
	l.acked = acked
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return after
}

// TestFailedSync has the log's fsync or write fail under load: the journal stops for
// good, and what is on the disk then holds all that was acknowledged.
func TestFailedSync(t *testing.T) {
	for name, kinds := range map[string][]errorfs.OpKind{
		"sync":  {errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo},
		"write": {errorfs.OpFileWrite},
	} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && strings.HasSuffix(op.Path, ".log") {
					for _, kind := range kinds {
						if op.Kind == kind {
							return errorfs.ErrInjected
						}
					}
				}
				return nil
			})
			fs, l := vfs.NewCrashableMem(), newLoad(t)
			j := mustOpen(t, "journal", disk.Options{FS: errorfs.Wrap(fs, inject)})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			done, enough := make(chan error, 1), l.more(200)
			go func() { done <- l.run(ctx, j, 0) }()
			<-enough
			broken.Store(true)
			if err := <-done; !errors.Is(err, journal.ErrUnavailable) {
				t.Fatalf("append: %v", err)
			}
			broken.Store(false)
			wantUnavailable(t, j, l.streams[0])

			j = mustOpen(t, "journal", disk.Options{FS: fs.CrashClone(vfs.CrashCloneCfg{})})
			check(t, j, l.streams, l.snapshot())
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// wantUnavailable checks that the journal answers nothing any more.
func wantUnavailable(t *testing.T, j journal.Journal, s journaltest.Stream) {
	t.Helper()
	_, err := j.Append(t.Context(), []journal.Record{s.Record("after", "d")}, journal.Expect{})
	_, err2 := j.Read(t.Context(), s.Reader, 0, 1)
	_, err3 := j.Bounds(t.Context(), s.Reader)
	err4 := j.Close()
	for i, err := range []error{err, err2, err3, err4} {
		if !errors.Is(err, journal.ErrUnavailable) {
			t.Errorf("call %d after a failed write: %v", i, err)
		}
	}
}

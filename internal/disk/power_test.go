package disk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// TestPowerCut takes the power away under load: what was not synced is lost,
// wholly or in random parts.
func TestPowerCut(t *testing.T) {
	for _, unsynced := range []int{0, 50} {
		t.Run(fmt.Sprintf("%d%% of what is not synced is kept", unsynced), func(t *testing.T) {
			fs, l := vfs.NewCrashableMem(), newLoad(t)
			for round := range 6 {
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
	done, enough := make(chan error, 1), l.more(1+cut.RNG.IntN(300))
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
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
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
	err4 := j.Err()
	err5 := j.Close()
	for i, err := range []error{err, err2, err3, err4, err5} {
		if !errors.Is(err, journal.ErrUnavailable) {
			t.Errorf("call %d after a failed write: %v", i, err)
		}
	}
}

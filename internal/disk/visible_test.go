package disk_test

import (
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

// TestNotSeenBeforeSynced holds up the log's fsync: until it is done nobody is
// told of the event, and nobody can read it.
func TestNotSeenBeforeSynced(t *testing.T) {
	var armed atomic.Bool
	reached, release := make(chan struct{}), make(chan struct{})
	hold := errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if strings.HasSuffix(op.Path, ".log") && armed.CompareAndSwap(true, false) {
				close(reached)
				<-release
			}
		}
		return nil
	})
	j := mustOpen(t, "journal", disk.Options{FS: errorfs.Wrap(vfs.NewMem(), hold)})
	var notified atomic.Uint64
	j.Notify(func(_ string, last uint64) { notified.Store(last) })
	s := journaltest.NewStream(t, "c1")

	armed.Store(true)
	acked := make(chan error, 1)
	go func() {
		_, err := j.Append(t.Context(), []journal.Record{s.Record("e1", "d")}, journal.Expect{})
		acked <- err
	}()
	select {
	case <-reached:
	case <-time.After(time.Minute):
		t.Fatal("an append does not sync")
	}
	if b, err := j.Bounds(t.Context(), s.Reader); err != nil || b.Head.Seq != 0 {
		t.Errorf("before the sync the stream ends at %d (%v)", b.Head.Seq, err)
	}
	if page, err := j.Read(t.Context(), s.Reader, 0, 1<<20); err != nil || len(page.Entries) != 0 {
		t.Errorf("before the sync %d events can be read (%v)", len(page.Entries), err)
	}
	if last := notified.Load(); last != 0 {
		t.Errorf("before the sync readers are woken for %d", last)
	}
	select {
	case err := <-acked:
		t.Errorf("acknowledged before the sync (%v)", err)
	default:
	}

	close(release)
	if err := <-acked; err != nil {
		t.Fatalf("append: %v", err)
	}
	if page, err := j.Read(t.Context(), s.Reader, 0, 1<<20); err != nil || len(page.Entries) != 1 || notified.Load() != 1 {
		t.Errorf("after the sync %d events can be read (%v), notified %d", len(page.Entries), err, notified.Load())
	}
	if err := j.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

package disk_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

func mustOpen(t testing.TB, dir string, options disk.Options) *disk.Journal {
	t.Helper()
	j, err := disk.Open(dir, options)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return j
}

func TestDisk(t *testing.T) {
	for name, hot := range map[string]int{"hot": 0, "cold": 1} {
		t.Run(name, func(t *testing.T) {
			journaltest.Run(t, func(t testing.TB, c journaltest.Config) journal.Journal {
				return mustOpen(t, t.TempDir(), disk.Options{
					Retention: c.Retention, Quota: c.Quota, DedupeWindow: c.DedupeWindow, HotStreams: hot, SweepInterval: 10 * time.Millisecond,
				})
			})
		})
	}
}

// diskLog is a log on a disk in memory.
type diskLog struct{ fs vfs.FS }

func (l diskLog) Open(c journaltest.Config) (journaltest.Counted, error) {
	return disk.Open("journal", disk.Options{
		FS: l.fs, Retention: c.Retention, Quota: c.Quota, DedupeWindow: c.DedupeWindow, SweepInterval: time.Millisecond,
	})
}

func (diskLog) Durable() bool { return true }

func TestDiskModel(t *testing.T) {
	journaltest.RunModel(t, func() journaltest.Log { return diskLog{vfs.NewMem()} })
}

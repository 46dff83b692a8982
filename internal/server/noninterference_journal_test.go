package server

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// openNIJournal opens what the server keeps all in, of which either tenant comes
// to the bounds: events, and the tables beside them.
//
// That on the disk is as in production, but that its files are in memory: there is
// no waiting for the machine in a bubble. It keeps no stream at hand but those in
// use, so that each tenant's go out of memory and come back all the time.
func openNIJournal(t *testing.T, onDisk bool) (journal.Journal, func(name string) table.Table) {
	keep := journal.Retention{Count: 6, Age: 40 * time.Second}
	quota := journal.Quota{Streams: 4, Bytes: 24 << 10}
	if !onDisk {
		j := journal.NewMemory(journal.MemoryOptions{Retention: keep, Quota: quota})
		return j, func(string) table.Table { return new(table.Memory) }
	}
	j, err := disk.Open("journal", disk.Options{FS: vfs.NewMem(), Retention: keep, Quota: quota, HotStreams: 1, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j, j.Table
}

// niJournal is a journal that takes its time with one tenant, as a disk does with
// who keeps it busy.
type niJournal struct {
	journal.Journal
	slow string // whose, by its TenantKey; "" for nobody's
}

const niDiskTime = 1500 * time.Millisecond

func (j *niJournal) wait(key string) {
	if j.slow != "" && journal.TenantKey(key) == j.slow {
		time.Sleep(niDiskTime)
	}
}

func (j *niJournal) Append(ctx context.Context, recs []journal.Record, e journal.Expect) ([]journal.Result, error) {
	if len(recs) > 0 {
		j.wait(recs[0].Owner())
	}
	return j.Journal.Append(ctx, recs, e)
}

func (j *niJournal) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	j.wait(r.Key())
	return j.Journal.Read(ctx, r, after, max)
}

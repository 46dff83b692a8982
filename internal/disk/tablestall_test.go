package disk

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// When the committer has failed, nobody waits for a tables' writer that hangs, as
// it may do in Pebble then: neither those whose changes it has, nor those whom it
// has no room for, nor Close.
func TestTableStall(t *testing.T) {
	j, err := Open("journal", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	writer := j.tables
	j.tables = newTables(j) // which nobody runs
	tb := j.Table("rows")
	var wg sync.WaitGroup
	unavailable := func(d table.Durability) {
		wg.Go(func() {
			if err := tb.Put("k", nil, d); !errors.Is(err, journal.ErrUnavailable) {
				t.Errorf("put: %v", err)
			}
		})
	}
	unavailable(table.Synced)
	for len(j.tables.changes) == 0 {
		runtime.Gosched()
	}
	for len(j.tables.changes) < maxChanges {
		if err := tb.Put("k", nil, table.Lazy); err != nil {
			t.Fatal(err)
		}
	}
	unavailable(table.Lazy)

	j.commits.trims <- &trimming{} // panics: it is of no stream
	wg.Wait()
	if err := j.Close(); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("close: %v", err)
	}
	<-writer.done
}

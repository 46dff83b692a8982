package disk_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
)

// TestColdStreamsTakeNoMemory writes once to each of many streams, and looks once
// at each: memory goes by those that are kept hot.
func TestColdStreamsTakeNoMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 30,000 streams")
	}
	const hot, cold = 500, 30_000
	ac := authtest.New(t).Context("t_acme", "u_1")
	j := mustOpen(t, t.TempDir(), disk.Options{HotStreams: hot, CacheBytes: 1 << 20})
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	each := func(from, to int, do func(in twinrail.Routing) error) {
		var g errgroup.Group
		g.SetLimit(256)
		for i := from; i < to; i++ {
			g.Go(func() error {
				return do(twinrail.Routing{WorkspaceID: "w1", ProjectID: "p1", AppID: "studio", CanvasID: fmt.Sprint("c", i)})
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	write := func(in twinrail.Routing) error { return writeOnce(j, ac, in) }
	look := func(in twinrail.Routing) error {
		r, err := ac.Reader(in, twinrail.CanvasStream, twinrail.ChannelsOf(twinrail.Commit))
		if err == nil {
			_, err = j.Bounds(context.Background(), r)
		}
		return err
	}
	each(0, 2*hot, write)
	each(0, 2*hot, look)
	before, tables := heap(), j.MemTableBytes()
	each(2*hot, cold, write)
	each(2*hot, cold, look)
	// The hot ones themselves are in both; what may be more is in the database.
	after, limit := heap(), before+2<<20
	if memTablesOnHeap {
		limit += j.MemTableBytes() - tables
	}
	if after > limit {
		t.Errorf("%d bytes of heap with %d streams, %d with %d", before, 2*hot, after, cold)
	} else {
		t.Logf("%d bytes of heap with %d streams, %d with %d", before, 2*hot, after, cold)
	}
}

func writeOnce(j journal.Journal, ac *auth.Context, in twinrail.Routing) error {
	w, err := ac.Writer(in, twinrail.Commit)
	if err != nil {
		return err
	}
	e := twinrail.Event{ID: "e1", Type: "t", Time: time.Now(), Data: []byte("1")}
	_, err = j.Append(context.Background(), []journal.Record{journal.NewRecord(w, e)}, journal.Expect{})
	return err
}

// heap returns how many bytes of the heap are in use, without garbage.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

package disk_test

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// Ids are known however long ago their events were, whether they are still in
// memory or not, in a stream that grew and in one that was opened again.
func TestKnownIDs(t *testing.T) {
	for _, size := range []int{disk.MaxRecent / 2, disk.MaxRecent, disk.MaxRecent + 1, 5 * disk.MaxRecent / 2} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir, s := t.TempDir(), journaltest.NewStream(t, "c1")
			j := mustOpen(t, dir, disk.Options{})
			first := appendMany(t, j, s, size)
			wantKnown(t, j, s, first)
			mustClose(t, j)

			j = mustOpen(t, dir, disk.Options{})
			defer mustClose(t, j)
			wantOnce(t, j, s, "after a start")
			wantKnown(t, j, s, first)
			wantOnce(t, j, s, "later")
		})
	}
}

// appendMany appends the events e0, e1 and so on in one batch.
func appendMany(t *testing.T, j journal.Journal, s journaltest.Stream, n int) []journal.Result {
	t.Helper()
	recs := make([]journal.Record, n)
	for i := range recs {
		recs[i] = s.Record(fmt.Sprint("e", i), "d")
	}
	results, err := j.Append(t.Context(), recs, journal.Expect{})
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// wantKnown appends events again, some of them one by one and then all.
func wantKnown(t *testing.T, j journal.Journal, s journaltest.Stream, first []journal.Result) {
	t.Helper()
	for i := 0; i < len(first); i += 97 {
		if again := mustAppend(t, j, s, fmt.Sprint("e", i)); !again[0].Duplicate || again[0].Cursor != first[i].Cursor {
			t.Fatalf("event %d again: %+v, first %+v", i, again[0], first[i])
		}
	}
	for i, again := range appendMany(t, j, s, len(first)) {
		if !again.Duplicate || again.Cursor != first[i].Cursor {
			t.Fatalf("event %d again: %+v, first %+v", i, again, first[i])
		}
	}
}

// wantOnce appends a new event many times at once.
func wantOnce(t *testing.T, j journal.Journal, s journaltest.Stream, id string) {
	t.Helper()
	results := make([]journal.Result, 16)
	var group errgroup.Group
	for i := range results {
		group.Go(func() error {
			r, err := j.Append(t.Context(), []journal.Record{s.Record(id, "d")}, journal.Expect{})
			if err == nil {
				results[i] = r[0]
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, r := range results {
		if !r.Duplicate {
			fresh++
		}
		if r.Cursor != results[0].Cursor {
			t.Errorf("one event stands at %d and at %d", r.Seq, results[0].Seq)
		}
	}
	if fresh != 1 {
		t.Errorf("%d appends say that they stored the event", fresh)
	}
}

package disk_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/twinrail/twinrail/internal/disk"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

// Ids are known however long ago their events were, whether they are still in
// memory or not, in a stream that grew and in one that was opened again.
func TestKnownIDs(t *testing.T) {
	for _, size := range []int{
		disk.Unindexed - 1, disk.Unindexed, disk.Unindexed + 1, 2 * disk.Unindexed, 2*disk.Unindexed + 1, disk.MaxRecent / 2, disk.MaxRecent, disk.MaxRecent + 1, 5 * disk.MaxRecent / 2} {
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

// Whatever is appended, trimmed and opened again: the ids of events that are
// retained are known, and those of events that are gone are not.
func TestKnownIDsTrimmed(t *testing.T) {
	s := journaltest.NewStream(t, "c1")
	rapid.Check(t, func(t *rapid.T) {
		options := disk.Options{FS: vfs.NewMem(), Retention: journal.Retention{Count: 400}}
		open := func() *disk.Journal {
			j, err := disk.Open("journal", options)
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		j := open()
		defer func() { _ = j.Close() }()
		publish := func(ids ...string) []journal.Result {
			recs := make([]journal.Record, len(ids))
			for i, id := range ids {
				recs[i] = s.Record(id, "d")
			}
			results, err := j.Append(context.Background(), recs, journal.Expect{})
			if err != nil {
				t.Fatal(err)
			}
			return results
		}
		oldest := func() uint64 {
			b, err := j.Bounds(context.Background(), s.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return b.Oldest.Seq
		}
		seqs := make(map[string]uint64)
		var all []string
		for range rapid.IntRange(2, 12).Draw(t, "steps") {
			fresh := make([]string, rapid.SampledFrom([]int{1, 3, 255, 256, 257, 500}).Draw(t, "fresh"))
			for i := range fresh {
				fresh[i] = fmt.Sprint("e", len(all)+i)
			}
			for i, r := range publish(fresh...) {
				seqs[fresh[i]] = r.Seq
			}
			all = append(all, fresh...)
			if rapid.Bool().Draw(t, "opened again") {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				j = open()
			}
			for range 5 {
				id := rapid.SampledFrom(all).Draw(t, "again")
				before := oldest()
				r := publish(id)[0]
				switch first := seqs[id]; {
				case first > oldest() && (!r.Duplicate || r.Seq != first):
					t.Fatalf("%s stands at %d, and again: %+v", id, first, r)
				case first <= before && r.Duplicate:
					t.Fatalf("%s was trimmed, and is known: %+v", id, r)
				}
				seqs[id] = r.Seq
			}
		}
	})
}

package journaltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

// notifications is the highest seq of each stream that a journal notified of.
type notifications struct {
	mu   sync.Mutex
	last map[string]uint64
}

func watch(j journal.Journal) *notifications {
	n := &notifications{last: make(map[string]uint64)}
	j.Notify(n.notify)
	return n
}

func (n *notifications) notify(key string, last uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last[key] = max(n.last[key], last)
}

func (n *notifications) of(key string) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last[key]
}

func testNotify(t *testing.T, j journal.Journal) {
	n := watch(j)
	a, b := NewStream(t, "c1"), NewStream(t, "c2")
	for i := range 5 {
		r := mustAppend(t, j, a.Record(fmt.Sprint(i), "d"))
		waitFor(t, "no notification of an append", func() bool { return n.of(a.Key()) == r[0].Seq })
	}
	if got := n.of(b.Key()); got != 0 {
		t.Errorf("a stream without appends was notified of: %d", got)
	}
}

func testContext(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	head := mustAppend(t, j, s.Record("a", "1"))[0].Cursor
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := j.Append(ctx, []journal.Record{s.Record("b", "1")}, journal.Expect{})
	_, err2 := j.Read(ctx, s.Reader, 0, 1)
	_, err3 := j.Bounds(ctx, s.Reader)
	_, err4 := j.Seek(ctx, s.Reader, head)
	for i, err := range []error{err, err2, err3, err4} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d with a context that has ended: %v", i, err)
		}
	}
}

func testClose(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	head := mustAppend(t, j, s.Record("a", "1"))[0].Cursor
	if err := j.Err(); err != nil {
		t.Errorf("before close: %v", err)
	}
	for range 2 {
		if err := j.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	_, err := j.Append(t.Context(), []journal.Record{s.Record("b", "1")}, journal.Expect{})
	_, err2 := j.Read(t.Context(), s.Reader, 0, 1)
	_, err3 := j.Bounds(t.Context(), s.Reader)
	_, err4 := j.Seek(t.Context(), s.Reader, head)
	for i, err := range []error{err, err2, err3, err4, j.Err()} {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("call %d after close: %v", i, err)
		}
	}
}

const (
	writers = 8
	each    = 60
)

// write appends each records as writer w, in batches of one to three, and checks
// that every append it was told of is readable at once.
func write(ctx context.Context, j journal.Journal, s Stream, w int) error {
	for i := 0; i < each; {
		var recs []journal.Record
		for ; i < each && len(recs) <= i%3; i++ {
			recs = append(recs, s.Record(fmt.Sprintf("w%d-%d", w, i), "d"))
		}
		results, err := j.Append(ctx, recs, journal.Expect{})
		if err != nil {
			return err
		}
		for k, r := range results[1:] {
			if r.Prev != results[k].Seq {
				return fmt.Errorf("a batch was torn: %+v", results)
			}
		}
		b, err := j.Bounds(ctx, s.Reader)
		if err != nil {
			return err
		}
		if last := results[len(results)-1].Seq; b.Head.Seq < last {
			return fmt.Errorf("%d was acknowledged, but the head is %d", last, b.Head.Seq)
		}
	}
	return nil
}

// follow reads the stream as it grows until it has seen total records, and
// checks that they make one chain in which each writer's are in order.
func follow(ctx context.Context, j journal.Journal, s Stream, total int) error {
	next := make(map[string]int)
	for seen, at := 0, uint64(0); seen < total; {
		page, err := j.Read(ctx, s.Reader, at, 4096)
		if err != nil {
			return err
		}
		if page.Gap {
			return fmt.Errorf("a gap after %d", at)
		}
		for _, e := range page.Entries {
			if e.Prev != at {
				return fmt.Errorf("the entry at %d follows %d, but says %d", e.Cursor.Seq, at, e.Prev)
			}
			var w, i int
			if _, err := fmt.Sscanf(e.ID, "w%d-%d", &w, &i); err != nil {
				return err
			}
			writer := fmt.Sprint(w)
			if i != next[writer] {
				return fmt.Errorf("writer %d: %d came where %d was due", w, i, next[writer])
			}
			next[writer]++
			at = e.Cursor.Seq
			seen++
		}
	}
	return nil
}

func testConcurrent(t *testing.T, j journal.Journal) {
	n := watch(j)
	group, ctx := errgroup.WithContext(t.Context())
	streams := []Stream{NewStream(t, "one")}
	for range writers {
		streams = append(streams, NewStream(t, fmt.Sprint("own", len(streams))))
	}
	for w := range writers {
		group.Go(func() error { return write(ctx, j, streams[0], w) })
		group.Go(func() error { return write(ctx, j, streams[1+w], w) })
		group.Go(func() error { return follow(ctx, j, streams[1+w], each) })
	}
	for range 3 {
		group.Go(func() error { return follow(ctx, j, streams[0], writers*each) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		head := mustBounds(t, j, s).Head.Seq
		waitFor(t, "the last append was not notified of", func() bool { return n.of(s.Key()) == head })
	}
}

// Readers that a trim overtakes are told so, and never get what is not next.
func testConcurrentTrim(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	group, ctx := errgroup.WithContext(t.Context())
	for w := range writers {
		group.Go(func() error { return write(ctx, j, s, w) })
	}
	done := make(chan struct{})
	var readers errgroup.Group
	for range 3 {
		readers.Go(func() error { return chase(t.Context(), j, s, done) })
	}
	err := group.Wait()
	close(done)
	if err := errors.Join(err, readers.Wait()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "too much is left", func() bool {
		b := mustBounds(t, j, s)
		entries, err := ReadAll(t.Context(), j, s.Reader, b.Oldest.Seq)
		if err != nil {
			return false // trimmed meanwhile
		}
		if len(entries) < 50 {
			t.Fatalf("%d records are left, 50 are within the bound", len(entries))
		}
		return len(entries) <= 50+50/8
	})
}

// chase reads the stream again and again from its oldest record.
func chase(ctx context.Context, j journal.Journal, s Stream, done <-chan struct{}) error {
	var cursor twinrail.Cursor
	for {
		select {
		case <-done:
			return nil
		default:
		}
		page, err := j.Read(ctx, s.Reader, cursor.Seq, 1)
		if err != nil {
			return err
		}
		if page.Gap {
			if _, err := j.Seek(ctx, s.Reader, cursor); cursor.Seq > 0 && !errors.Is(err, journal.ErrExpired) {
				return fmt.Errorf("a gap after %d, which seeks to %v", cursor.Seq, err)
			}
			b, err := j.Bounds(ctx, s.Reader)
			if err != nil {
				return err
			}
			cursor = b.Oldest
			continue
		}
		for _, e := range page.Entries {
			if e.Prev != cursor.Seq {
				return fmt.Errorf("the entry at %d follows %d, but says %d", e.Cursor.Seq, cursor.Seq, e.Prev)
			}
			cursor = e.Cursor
		}
	}
}

// Of many that append the same event at the same time exactly one stores it.
func testConcurrentDuplicates(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	for i := range 20 {
		id := fmt.Sprint("e", i)
		results := make([]journal.Result, writers)
		var group errgroup.Group
		for w := range writers {
			group.Go(func() error {
				r, err := j.Append(t.Context(), []journal.Record{s.Record(id, "d")}, journal.Expect{})
				if err == nil {
					results[w] = r[0]
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
			if r.Cursor != results[0].Cursor || !r.Time.Equal(results[0].Time) {
				t.Errorf("two answers for one event: %+v and %+v", results[0], r)
			}
		}
		if fresh != 1 {
			t.Errorf("%d of %d appends of one event say that they stored it", fresh, writers)
		}
	}
}

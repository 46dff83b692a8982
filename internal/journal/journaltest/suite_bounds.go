package journaltest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

func wantSeek(t *testing.T, j journal.Journal, s Stream, c twinrail.Cursor, want error) {
	t.Helper()
	seq, err := j.Seek(t.Context(), s.Reader, c)
	if !errors.Is(err, want) {
		t.Errorf("seek of %+v: %v, want %v", c, err, want)
	}
	if err == nil && seq != c.Seq {
		t.Errorf("seek of %+v gives %d", c, seq)
	}
}

func testSeek(t *testing.T, j journal.Journal) {
	s, other := NewStream(t, "c1"), NewStream(t, "c2")
	results := appendN(t, j, s, "e", 3)
	appendN(t, j, other, "e", 3)
	head := results[2].Cursor
	wantSeek(t, j, s, mustBounds(t, j, s).Oldest, nil)
	for _, r := range results {
		wantSeek(t, j, s, r.Cursor, nil)
		wantSeek(t, j, other, r.Cursor, journal.ErrUnknown)
	}
	for _, c := range []twinrail.Cursor{
		{},
		{Epoch: head.Epoch, Seq: head.Seq, Check: head.Check ^ 1},
		{Epoch: head.Epoch ^ 1, Seq: head.Seq, Check: head.Check},
		{Epoch: head.Epoch, Seq: head.Seq + 1, Check: head.Check},
		{Epoch: head.Epoch, Seq: 1<<64 - 1, Check: head.Check},
		{Epoch: head.Epoch, Seq: results[1].Seq, Check: head.Check},
		{Epoch: head.Epoch, Seq: 0, Check: 1},
	} {
		wantSeek(t, j, s, c, journal.ErrUnknown)
	}
	never := NewStream(t, "c3")
	wantSeek(t, j, never, head, journal.ErrUnknown)
	wantSeek(t, j, never, twinrail.Cursor{Epoch: head.Epoch}, journal.ErrUnknown)
}

// waitTrimmed waits until the stream begins after c.
func waitTrimmed(t *testing.T, j journal.Journal, s Stream, c twinrail.Cursor) {
	t.Helper()
	waitFor(t, fmt.Sprintf("the record at %d is still there", c.Seq), func() bool {
		return mustBounds(t, j, s).Oldest.Seq >= c.Seq
	})
}

// waitFor waits for what a journal does in the background and tells nobody of.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s: %s", what)
		}
	}
}

func testRetentionCount(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	start := mustBounds(t, j, s).Oldest
	results := appendN(t, j, s, "e", 10)
	waitTrimmed(t, j, s, results[6].Cursor)
	b := mustBounds(t, j, s)
	if b.Oldest != results[6].Cursor || b.Head != results[9].Cursor {
		t.Errorf("bounds %+v, want from %+v to %+v", b, results[6].Cursor, results[9].Cursor)
	}
	wantIDs(t, mustReadAll(t, j, s, b.Oldest.Seq), "e7", "e8", "e9")
	for _, after := range []uint64{start.Seq, results[0].Seq, results[5].Seq} {
		page, err := j.Read(t.Context(), s.Reader, after, 1<<20)
		if err != nil || !page.Gap || len(page.Entries) != 0 || page.More {
			t.Errorf("read after %d, which is trimmed: %+v, %v", after, page, err)
		}
	}
	wantSeek(t, j, s, start, journal.ErrExpired)
	for i, r := range results {
		var want error
		if i < 6 {
			want = journal.ErrExpired
		}
		wantSeek(t, j, s, r.Cursor, want)
	}
	floor := results[6].Cursor
	floor.Check ^= 1
	wantSeek(t, j, s, floor, journal.ErrUnknown)
	if r := mustAppend(t, j, s.Record("e0", "anything")); r[0].Duplicate || r[0].Prev != results[9].Seq {
		t.Errorf("a trimmed id, used again: %+v", r)
	}
	if r := mustAppend(t, j, s.Record("e9", "d")); !r[0].Duplicate || r[0].Cursor != results[9].Cursor {
		t.Errorf("a retained id, used again: %+v", r)
	}
}

func testRetentionBytes(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	data := strings.Repeat("x", 500)
	rec := s.Record("e00", data)
	size := rec.Size()
	var results []journal.Result
	for i := range 40 {
		results = append(results, mustAppend(t, j, s.Record(fmt.Sprintf("e%02d", i), data))...)
	}
	// A journal may leave a stream a little over its bounds.
	keep := 4096 / size
	waitTrimmed(t, j, s, results[len(results)-1-(4096+4096/8)/size].Cursor)
	kept := len(mustReadAll(t, j, s, mustBounds(t, j, s).Oldest.Seq))
	if kept < keep || kept > keep+1 {
		t.Errorf("%d records of %d bytes are kept, %d of them are within the bound", kept, size, keep)
	}
}

// A stream that has only aged is emptied, and still knows where it was.
func testRetentionAge(t *testing.T, j journal.Journal) {
	s, fresh := NewStream(t, "c1"), NewStream(t, "c2")
	kept := mustAppend(t, j, fresh.Record("new", "d"))
	old := time.Now().Add(-2 * time.Hour)
	results := mustAppend(t, j, s.RecordAt(old, "a", "d"), s.RecordAt(old, "b", "d"))
	head := results[1].Cursor
	waitTrimmed(t, j, s, head)
	if b := mustBounds(t, j, s); b.Oldest != head || b.Head != head {
		t.Errorf("an emptied stream has the bounds %+v, want %+v", b, head)
	}
	wantSeek(t, j, s, head, nil)
	wantSeek(t, j, s, results[0].Cursor, journal.ErrExpired)
	wantIDs(t, mustReadAll(t, j, s, head.Seq))
	if page, err := j.Read(t.Context(), s.Reader, 0, 1); err != nil || !page.Gap {
		t.Errorf("read before the end of an emptied stream: %+v, %v", page, err)
	}
	next := mustAppend(t, j, s.Record("a", "d"))
	if next[0].Duplicate || next[0].Prev != head.Seq || next[0].Seq <= head.Seq {
		t.Errorf("the first record after the stream was emptied: %+v", next)
	}
	wantIDs(t, mustReadAll(t, j, s, head.Seq), "a")
	wantSeek(t, j, s, head, nil)
	wantSeek(t, j, fresh, kept[0].Cursor, nil)
	wantIDs(t, mustReadAll(t, j, fresh, 0), "new")
}

package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// Config is what a test of the suite needs of the journal that it tests. Whatever
// is over the bounds must be trimmed within seconds.
type Config struct {
	Retention    journal.Retention
	Quota        journal.Quota
	DedupeWindow time.Duration
}

// Run runs the suite. Open returns an empty journal, which the suite closes.
func Run(t *testing.T, open func(testing.TB, Config) journal.Journal) {
	tests := []struct {
		name   string
		config Config
		test   func(*testing.T, journal.Journal)
	}{
		{"Append", Config{}, testAppend},
		{"Empty", Config{}, testEmpty},
		{"Misuse", Config{}, testMisuse},
		{"Pages", Config{}, testPages},
		{"ExpectedSeq", Config{}, testExpectedSeq},
		{"Duplicates", Config{}, testDuplicates},
		{"IDConflict", Config{}, testIDConflict},
		{"DedupeWindow", Config{DedupeWindow: time.Minute}, testDedupeWindow},
		{"DedupeWindowOverTrim", Config{DedupeWindow: time.Minute, Retention: journal.Retention{Count: 2}}, testDedupeWindowOverTrim},
		{"StreamsApart", Config{}, testStreamsApart},
		{"Seek", Config{}, testSeek},
		{"RetentionCount", Config{Retention: journal.Retention{Count: 3}}, testRetentionCount},
		{"RetentionBytes", Config{Retention: journal.Retention{Bytes: 4096}}, testRetentionBytes},
		{"RetentionAge", Config{Retention: journal.Retention{Age: time.Hour}}, testRetentionAge},
		{"QuotaStreams", Config{Quota: journal.Quota{Streams: 2}}, testQuotaStreams},
		{"QuotaBytes", Config{Quota: journal.Quota{Bytes: quotaBytes}}, testQuotaBytes},
		{"QuotaTrimmed", Config{Quota: journal.Quota{Streams: 1, Bytes: quotaBytes}, Retention: journal.Retention{Age: time.Hour}}, testQuotaTrimmed},
		{"QuotaOverTrim", Config{Quota: journal.Quota{Bytes: quotaBytes}, Retention: journal.Retention{Count: 1}}, testQuotaOverTrim},
		{"Notify", Config{}, testNotify},
		{"Context", Config{}, testContext},
		{"Close", Config{}, testClose},
		{"Concurrent", Config{}, testConcurrent},
		{"ConcurrentTrim", Config{Retention: journal.Retention{Count: 50}}, testConcurrentTrim},
		{"ConcurrentDuplicates", Config{}, testConcurrentDuplicates},
		{"ConcurrentQuota", Config{Quota: journal.Quota{Streams: 5, Bytes: quotaBytes}}, testConcurrentQuota},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := open(t, tt.config)
			t.Cleanup(func() {
				if err := j.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			tt.test(t, j)
		})
	}
}

func mustAppend(t *testing.T, j journal.Journal, recs ...journal.Record) []journal.Result {
	t.Helper()
	results, err := j.Append(t.Context(), recs, journal.Expect{})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(results) != len(recs) {
		t.Fatalf("append: %d results for %d records", len(results), len(recs))
	}
	return results
}

// appendN appends n records one by one, with the ids prefix0, prefix1 and so on.
func appendN(t *testing.T, j journal.Journal, s Stream, prefix string, n int) []journal.Result {
	t.Helper()
	var results []journal.Result
	for i := range n {
		results = append(results, mustAppend(t, j, s.Record(fmt.Sprint(prefix, i), "d"))...)
	}
	return results
}

func mustBounds(t *testing.T, j journal.Journal, s Stream) journal.Bounds {
	t.Helper()
	b, err := j.Bounds(t.Context(), s.Reader)
	if err != nil {
		t.Fatalf("bounds: %v", err)
	}
	return b
}

// ReadAll reads from position after to the end, checks that the prev links make
// one chain from there, and returns the entries.
func ReadAll(ctx context.Context, j journal.Journal, r auth.Reader, after uint64) ([]journal.Entry, error) {
	var all []journal.Entry
	for at := after; ; {
		page, err := j.Read(ctx, r, at, 16<<10)
		if err != nil {
			return nil, err
		}
		if page.Gap {
			return nil, fmt.Errorf("a gap after %d", at)
		}
		for _, e := range page.Entries {
			if e.Prev != at || e.Cursor.Seq <= at {
				return nil, fmt.Errorf("the entry at %d follows %d, but says %d", e.Cursor.Seq, at, e.Prev)
			}
			at = e.Cursor.Seq
		}
		all = append(all, page.Entries...)
		if !page.More {
			return all, nil
		}
		if len(page.Entries) == 0 {
			return nil, fmt.Errorf("an empty page after %d says that there is more", at)
		}
	}
}

func mustReadAll(t *testing.T, j journal.Journal, s Stream, after uint64) []journal.Entry {
	t.Helper()
	entries, err := ReadAll(t.Context(), j, s.Reader, after)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return entries
}

func ids(entries []journal.Entry) []string {
	ids := make([]string, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
	}
	return ids
}

func wantIDs(t *testing.T, entries []journal.Entry, want ...string) {
	t.Helper()
	if got := ids(entries); !reflect.DeepEqual(got, append([]string{}, want...)) {
		t.Fatalf("read the ids %v, want %v", got, want)
	}
}

// wantResult checks that the entry is what the result says.
func wantResult(t *testing.T, e journal.Entry, r journal.Result) {
	t.Helper()
	if e.Cursor != r.Cursor || e.Prev != r.Prev || e.Cursor.Seq != r.Seq || !e.Time.Equal(r.Time) {
		t.Errorf("the entry says %+v prev %d time %v, its result %+v", e.Cursor, e.Prev, e.Time, r)
	}
}

func testAppend(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	recs := []journal.Record{s.Record("a", "1"), s.Record("b", "2"), s.Record("c", "3")}
	results := append(mustAppend(t, j, recs[0]), mustAppend(t, j, recs[1:]...)...)
	entries := mustReadAll(t, j, s, 0)
	wantIDs(t, entries, "a", "b", "c")
	for i, e := range entries {
		got, want := e.AppendBinary(nil), recs[i].AppendBinary(nil)
		if !bytes.Equal(got, want) {
			t.Errorf("record %d was stored as %q, appended as %q", i, got, want)
		}
		wantResult(t, e, results[i])
		if results[i].Duplicate {
			t.Errorf("result %d is marked as a duplicate", i)
		}
		if check := e.Check(e.Cursor.Seq); e.Cursor.Check != check {
			t.Errorf("the check of entry %d is %x, want %x", i, e.Cursor.Check, check)
		}
	}
	b := mustBounds(t, j, s)
	if b.Head != results[2].Cursor || b.Oldest.Seq != 0 || b.Oldest.Epoch != b.Head.Epoch {
		t.Errorf("bounds %+v, head should be %+v", b, results[2].Cursor)
	}
	wantIDs(t, mustReadAll(t, j, s, results[1].Seq), "c")
}

func testEmpty(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	wantIDs(t, mustReadAll(t, j, s, 0))
	b := mustBounds(t, j, s)
	if b.Oldest != b.Head || b.Head.Seq != 0 || b.Head.Check != 0 {
		t.Errorf("an empty stream has the bounds %+v", b)
	}
	wantSeek(t, j, s, b.Head, nil)
	mustAppend(t, j, s.Record("a", "1"))
	wantSeek(t, j, s, b.Head, nil)
	if got := mustBounds(t, j, s).Oldest; got != b.Head {
		t.Errorf("the start moved from %+v to %+v with the first record", b.Head, got)
	}
}

func testMisuse(t *testing.T, j journal.Journal) {
	a, b := NewStream(t, "c1"), NewStream(t, "c2")
	for _, recs := range [][]journal.Record{nil, {a.Record("1", ""), b.Record("2", "")}} {
		if _, err := j.Append(t.Context(), recs, journal.Expect{}); !errors.Is(err, journal.ErrBatch) {
			t.Errorf("append of %d records: %v", len(recs), err)
		}
	}
	// What there is without an authorization is nowhere appended, nor is what
	// comes with it.
	none := journal.NewRecord(auth.Writer{}, twinrail.Event{ID: "2", Type: "test", Data: []byte("1")})
	for _, recs := range [][]journal.Record{{{}}, {none}, {a.Record("1", ""), none}, {none, a.Record("1", "")}} {
		if _, err := j.Append(t.Context(), recs, journal.Expect{}); !errors.Is(err, journal.ErrUnauthorized) {
			t.Errorf("append of a record that nobody was authorized for: %v", err)
		}
	}
	wantIDs(t, mustReadAll(t, j, a, 0))
	wantIDs(t, mustReadAll(t, j, b, 0))
	_, err := j.Read(t.Context(), auth.Reader{}, 0, 1)
	_, err2 := j.Bounds(t.Context(), auth.Reader{})
	_, err3 := j.Seek(t.Context(), auth.Reader{}, twinrail.Cursor{})
	for _, err := range []error{err, err2, err3} {
		if !errors.Is(err, journal.ErrUnauthorized) {
			t.Errorf("with the zero reader: %v", err)
		}
	}
}

func testPages(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	results := appendN(t, j, s, "e", 5)
	size := func() int { rec := s.Record("e0", "d"); return rec.Size() }()
	for _, tt := range []struct {
		after uint64
		max   int
		want  []string
		more  bool
	}{
		{0, 1, []string{"e0"}, true},
		{0, -1, []string{"e0"}, true},
		{0, size, []string{"e0"}, true},
		{0, size + 1, []string{"e0", "e1"}, true},
		{results[2].Seq, 1, []string{"e3"}, true},
		{results[3].Seq, 1, []string{"e4"}, false},
		{results[2].Seq, 1 << 20, []string{"e3", "e4"}, false},
		{results[4].Seq, 1 << 20, nil, false},
	} {
		page, err := j.Read(t.Context(), s.Reader, tt.after, tt.max)
		if err != nil || page.Gap {
			t.Fatalf("read after %d: gap %v, error %v", tt.after, page.Gap, err)
		}
		wantIDs(t, page.Entries, tt.want...)
		if page.More != tt.more {
			t.Errorf("read of %d bytes after %d: more is %v", tt.max, tt.after, page.More)
		}
	}
}

func testExpectedSeq(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	at := func(seq uint64) journal.Expect { return journal.Expect{Set: true, Seq: seq} }
	wantConflict := func(expect journal.Expect, last uint64, recs ...journal.Record) {
		t.Helper()
		var conflict *journal.SeqConflictError
		if _, err := j.Append(t.Context(), recs, expect); !errors.As(err, &conflict) || conflict.Last != last {
			t.Errorf("append at %d: %v, want a conflict with %d", expect.Seq, err, last)
		}
	}
	wantConflict(at(1), 0, s.Record("a", "1"))
	first, err := j.Append(t.Context(), []journal.Record{s.Record("a", "1")}, at(0))
	if err != nil {
		t.Fatal(err)
	}
	last := first[0].Seq
	wantConflict(at(0), last, s.Record("b", "1"))
	wantConflict(at(last+1), last, s.Record("b", "1"), s.Record("c", "1"))
	wantConflict(at(0), last, s.Record("a", "1"), s.Record("b", "1"))
	if _, err := j.Append(t.Context(), []journal.Record{s.Record("b", "1")}, at(last)); err != nil {
		t.Fatal(err)
	}
	again, err := j.Append(t.Context(), []journal.Record{s.Record("a", "1")}, at(0))
	if err != nil || !again[0].Duplicate || again[0].Cursor != first[0].Cursor {
		t.Errorf("the retry of a conditional append: %+v, %v", again, err)
	}
	wantIDs(t, mustReadAll(t, j, s, 0), "a", "b")
}

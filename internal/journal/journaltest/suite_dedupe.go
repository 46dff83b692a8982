package journaltest

import (
	"errors"
	"testing"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/journal"
)

func testDuplicates(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	first := mustAppend(t, j, s.Record("a", "1"), s.Record("b", "2"))
	again := mustAppend(t, j, s.RecordAt(time.Now().Add(time.Hour), "b", "2"), s.Record("c", "3"), s.Record("c", "3"), s.Record("a", "1"))
	for i, want := range []journal.Result{first[1], again[1], again[1], first[0]} {
		want.Duplicate = i != 1
		if again[i] != want {
			t.Errorf("result %d is %+v, want %+v", i, again[i], want)
		}
	}
	wantIDs(t, mustReadAll(t, j, s, 0), "a", "b", "c")
}

func testIDConflict(t *testing.T, j journal.Journal) {
	s := NewStream(t, "c1")
	mustAppend(t, j, s.Record("a", "1"))
	for _, tt := range []struct {
		recs  []journal.Record
		index int
	}{
		{[]journal.Record{s.Record("a", "2")}, 0},
		{[]journal.Record{s.Record("b", "1"), s.Record("a", "2")}, 1},
		{[]journal.Record{s.Record("b", "1"), s.Record("a", "1"), s.Record("b", "2")}, 2},
	} {
		var conflict *journal.IDConflictError
		_, err := j.Append(t.Context(), tt.recs, journal.Expect{})
		if !errors.As(err, &conflict) || conflict.Index != tt.index {
			t.Errorf("append: %v, want a conflict at %d", err, tt.index)
		}
	}
	wantIDs(t, mustReadAll(t, j, s, 0), "a")
	// What a refused batch named is not known afterwards.
	if r := mustAppend(t, j, s.Record("b", "2")); r[0].Duplicate {
		t.Errorf("a record of a refused batch was remembered: %+v", r)
	}
}

func testDedupeWindow(t *testing.T, j journal.Journal) {
	s, start := NewStream(t, "c1"), time.Now()
	first := mustAppend(t, j, s.RecordAt(start, "a", "1"))
	inside := mustAppend(t, j, s.RecordAt(start.Add(time.Minute), "a", "1"))
	if !inside[0].Duplicate || inside[0].Seq != first[0].Seq {
		t.Errorf("at the end of the window: %+v", inside)
	}
	outside := mustAppend(t, j, s.RecordAt(start.Add(time.Minute+time.Second), "a", "2"))
	if outside[0].Duplicate {
		t.Errorf("after the window: %+v", outside)
	}
	again := mustAppend(t, j, s.RecordAt(start.Add(time.Minute+2*time.Second), "a", "2"))
	if !again[0].Duplicate || again[0].Seq != outside[0].Seq {
		t.Errorf("within the window of the second: %+v", again)
	}
	wantIDs(t, mustReadAll(t, j, s, 0), "a", "a")
}

// An ID that was used again after its window is known for the second event when
// the first one is trimmed.
func testDedupeWindowOverTrim(t *testing.T, j journal.Journal) {
	s, start := NewStream(t, "c1"), time.Now()
	first := mustAppend(t, j, s.RecordAt(start, "a", "1"))
	later := start.Add(time.Hour)
	second := mustAppend(t, j, s.RecordAt(later, "a", "1"))
	mustAppend(t, j, s.RecordAt(later, "b", "1"))
	waitTrimmed(t, j, s, first[0].Cursor)
	again := mustAppend(t, j, s.RecordAt(later, "a", "1"))
	if !again[0].Duplicate || again[0].Cursor != second[0].Cursor {
		t.Errorf("the second use was forgotten with the first: %+v, want %+v", again, second)
	}
}

// Streams whose names and ids run together when joined must not meet.
func testStreamsApart(t *testing.T, j journal.Journal) {
	at := func(tenant, app, canvas string) Stream {
		return StreamAt(t, twinrail.Routing{
			TenantID: tenant, Env: "dev", WorkspaceID: "w1", ProjectID: "p1", AppID: app, CanvasID: canvas, ActorID: "u_1",
		})
	}
	pairs := []struct {
		stream Stream
		id     string
	}{
		{at("t_acme", "app", "c"), "x_1"},
		{at("t_acme", "app", "c_x"), "1"},
		{at("t_acme_x", "app", "c"), "1"},
		{at("t_acme", "app", "cx"), "_1"},
		{at("t_acme", "app", "c-"), "1"},
		{at("t_acme", "app-c", "c"), "1"},
		{at("t_acme", "app", "c"), "1"},
		{at("t_acme", "app", "C"), "1"},
	}
	results := make([]journal.Result, len(pairs))
	for i, p := range pairs {
		results[i] = mustAppend(t, j, p.stream.Record(p.id, p.stream.Key()))[0]
		if results[i].Duplicate {
			t.Errorf("%s of %s was taken for another stream's", p.id, p.stream.Key())
		}
	}
	for i, p := range pairs {
		for _, e := range mustReadAll(t, j, p.stream, 0) {
			if e.Owner != p.stream.Key() {
				t.Errorf("a reader of %s got a record of %s", p.stream.Key(), e.Owner)
			}
		}
		for _, other := range pairs {
			var want error
			if other.stream.Key() != p.stream.Key() {
				want = journal.ErrUnknown
			}
			wantSeek(t, j, other.stream, results[i].Cursor, want)
		}
	}
	wantIDs(t, mustReadAll(t, j, pairs[0].stream, 0), "x_1", "1")
}

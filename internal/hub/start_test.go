package hub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/journal/journaltest"
)

func TestStartAtHead(t *testing.T) { synctest.Test(t, testStartAtHead) }

func testStartAtHead(t *testing.T) {
	r := newRig(t, large, journal.Retention{})
	old := r.append(2)
	s := r.subscribe("")
	want := hub.Start{Cursor: old[1].Cursor, Head: old[1].Cursor}
	if s.start != want {
		t.Fatalf("start %+v, want %+v", s.start, want)
	}
	s.park()
	more := r.append(2)
	wantItems(t, s.drain(), more...)
}

func TestStartAtHeadOfNothing(t *testing.T) { synctest.Test(t, testStartAtHeadOfNothing) }

func testStartAtHeadOfNothing(t *testing.T) {
	r := newRig(t, large, journal.Retention{})
	s := r.subscribe("")
	if s.start.Cursor.Seq != 0 || s.start.Cursor != s.start.Head || s.start.Resumed || s.start.Reset != nil {
		t.Fatalf("start %+v", s.start)
	}
	s.park()
	// The position before the first record is one to come back to as well.
	again := r.subscribe(s.Cursor().String())
	if !again.start.Resumed || again.start.Reset != nil {
		t.Fatalf("back at the start: %+v", again.start)
	}
	first := r.append(1)
	wantItems(t, again.drain(), first...)
}

func TestStartAtEarliest(t *testing.T) { synctest.Test(t, testStartAtEarliest) }

func testStartAtEarliest(t *testing.T) {
	r := newRig(t, large, journal.Retention{Count: 2})
	all := r.append(3)
	s := r.subscribe(twinrail.CursorEarliest)
	want := hub.Start{Cursor: all[0].Cursor, Head: all[2].Cursor}
	if s.start != want {
		t.Fatalf("start %+v, want %+v", s.start, want)
	}
	wantItems(t, s.drain(), all[1:]...)
}

func TestStartAfterCursor(t *testing.T) { synctest.Test(t, testStartAfterCursor) }

func testStartAfterCursor(t *testing.T) {
	r := newRig(t, large, journal.Retention{})
	all := r.append(3)
	for i, at := range all {
		s := r.subscribe(at.Cursor.String())
		want := hub.Start{Cursor: at.Cursor, Head: all[2].Cursor, Resumed: true}
		if s.start != want {
			t.Errorf("start after %d: %+v, want %+v", i, s.start, want)
		}
		wantItems(t, s.drain(), all[i+1:]...)
	}
}

func TestStartAfterVoidCursor(t *testing.T) {
	// Each takes the cursors of four records of the stream, of which the first
	// two are trimmed, and of the last one of another stream.
	tests := []struct {
		name   string
		cursor func(own []journal.Result, foreign twinrail.Cursor) string
		reason twinrail.Code
	}{
		{"Trimmed", func(own []journal.Result, _ twinrail.Cursor) string { return own[0].Cursor.String() }, twinrail.CodeCursorExpired},
		{"Foreign", func(_ []journal.Result, foreign twinrail.Cursor) string { return foreign.String() }, twinrail.CodeCursorUnknown},
		{"OtherLog", func(own []journal.Result, _ twinrail.Cursor) string {
			c := own[3].Cursor
			c.Epoch ^= 1
			return c.String()
		}, twinrail.CodeCursorUnknown},
		{"OtherRecord", func(own []journal.Result, _ twinrail.Cursor) string {
			c := own[3].Cursor
			c.Check ^= 1
			return c.String()
		}, twinrail.CodeCursorUnknown},
		{"BeyondHead", func(own []journal.Result, _ twinrail.Cursor) string {
			c := own[3].Cursor
			c.Seq += 3
			return c.String()
		}, twinrail.CodeCursorUnknown},
		{"Garbage", func([]journal.Result, twinrail.Cursor) string { return "Earliest" }, twinrail.CodeCursorUnknown},
		{"Blank", func([]journal.Result, twinrail.Cursor) string { return " " }, twinrail.CodeCursorUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, bubble(func(t *testing.T) {
			r := newRig(t, large, journal.Retention{Count: 2})
			all := r.append(4)
			foreign := r.appendTo(journaltest.NewStream(t, "c2"), 4)
			cursor := tt.cursor(all, foreign[3].Cursor)
			s := r.subscribe(cursor)
			if s.start.Cursor != all[3].Cursor || s.start.Head != all[3].Cursor || s.start.Resumed || s.start.Reset == nil {
				t.Fatalf("start %+v, want a reset to the head", s.start)
			}
			want := hub.Reset{Reason: tt.reason, Requested: cursor, Oldest: all[1].Cursor, Head: all[3].Cursor}
			if *s.start.Reset != want {
				t.Fatalf("reset %+v, want %+v", *s.start.Reset, want)
			}
			s.park() // it was told, and is not told again
		}))
	}
}

// A client that has seen all there was is up to date, whatever expired since.
func TestStartIdleAfterAllExpired(t *testing.T) { synctest.Test(t, testStartIdleAfterAllExpired) }

func testStartIdleAfterAllExpired(t *testing.T) {
	r := newRig(t, large, journal.Retention{Age: time.Hour})
	old := r.expireAll()
	bounds, err := r.journal.Bounds(context.Background(), r.stream.Reader)
	if err != nil || bounds.Oldest != bounds.Head || bounds.Head != old.Cursor {
		t.Fatalf("bounds %+v, %v: something is retained", bounds, err)
	}
	s := r.subscribe(old.Cursor.String())
	if want := (hub.Start{Cursor: old.Cursor, Head: old.Cursor, Resumed: true}); s.start != want {
		t.Fatalf("start %+v, want %+v", s.start, want)
	}
	s.park()
	more := r.append(1)
	wantItems(t, s.drain(), more...)
}

func TestSubscribeTakesAuthorizedReader(t *testing.T) {
	synctest.Test(t, testSubscribeTakesAuthorizedReader)
}

func testSubscribeTakesAuthorizedReader(t *testing.T) {
	r := newRig(t, large, journal.Retention{})
	r.journal.onBounds = func() error {
		t.Error("the journal was asked")
		return nil
	}
	sub, _, err := r.hub.Subscribe(context.Background(), auth.Reader{}, hub.From{}, func() {})
	if err == nil || sub != nil {
		t.Fatalf("the zero Reader subscribed: %v", err)
	}
	if n := r.hub.Streams(); n != 0 {
		t.Fatalf("%d streams are held", n)
	}
}

func TestSubscribeFailsWithJournal(t *testing.T) {
	broken := errors.New("broken")
	fail := func() error { return broken }
	for name, tap := range map[string]func(*tapped){
		"bounds": func(j *tapped) { j.onBounds = fail },
		"seek":   func(j *tapped) { j.onSeek = fail },
	} {
		t.Run(name, bubble(func(t *testing.T) {
			r := newRig(t, large, journal.Retention{})
			at := r.append(1)[0].Cursor.String()
			tap(r.journal)
			sub, _, err := r.hub.Subscribe(context.Background(), r.stream.Reader, hub.From{Cursor: at}, func() {})
			if !errors.Is(err, broken) || sub != nil {
				t.Fatalf("got %v, %v, want the journal's error", sub, err)
			}
			if n := r.hub.Streams(); n != 0 {
				t.Fatalf("%d streams are held after a failed subscribe", n)
			}
		}))
	}
}

package hub_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

var errBroken = errors.New("broken")

// A reader so slow that retention overtakes it is told once, and goes on from
// the head.
func TestLagOvertakenByRetention(t *testing.T) {
	for name, window := range map[string]int{"NoWindow": 0, "WindowEvicted": 1} {
		t.Run(name, bubble(func(t *testing.T) {
			r := newRig(t, window, journal.Retention{Count: 2})
			s := r.subscribe("")
			s.park()
			seen := r.append(1)
			wantItems(t, s.drain(), seen...)
			lost := r.append(4)

			b := s.next(large)
			want := hub.Reset{
				Reason: twinrail.CodeCursorExpired, Requested: seen[0].Cursor.String(),
				Oldest: lost[1].Cursor, Head: lost[3].Cursor,
			}
			if b.Reset == nil || *b.Reset != want || len(b.Items) != 0 || b.Parked {
				t.Fatalf("got %+v, want only the reset %+v", b, want)
			}
			if s.Cursor() != lost[3].Cursor {
				t.Fatalf("at %v after the reset, want the head", s.Cursor())
			}
			s.park()
			more := r.append(2)
			wantItems(t, s.drain(), more...)
		}))
	}
}

// What the window still holds is delivered, whatever the journal has trimmed.
func TestLagWithinWindowNeedsNoJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{Count: 2})
		s := r.subscribe("")
		var all []journal.Result
		for range 6 {
			all = append(all, r.append(1)...)
		}
		if s.Lags() {
			t.Fatal("lags within the window")
		}
		wantItems(t, s.drain(), all...)
	})
}

func TestLags(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		s := r.subscribe("")
		s.park()
		if s.Lags() {
			t.Fatal("lags at the head")
		}
		r.append(1)
		reads := r.journal.reads
		lags := s.Lags()
		s.next(large)
		if read := r.journal.reads > reads; read != lags {
			t.Fatalf("lags is %v, but whether the journal was read is %v", lags, read)
		}
		s.park()
	})
}

// A failure of the journal reaches the one who lags; the reader that tries again
// after it misses nothing.
func TestLagReadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{})
		all := r.append(3)
		s := r.subscribe(twinrail.CursorEarliest)
		r.journal.tapRead(func(context.Context, journal.Page, error) (journal.Page, error) {
			return journal.Page{}, errBroken
		})
		for range 2 {
			if b, err := s.Next(t.Context(), nil, large); !errors.Is(err, errBroken) || b.Items != nil {
				t.Fatalf("got %+v, %v, want the journal's error", b, err)
			}
		}
		r.journal.tapRead(nil)
		wantItems(t, s.drain(), all...)
	})
}

func TestLagBoundsFailAtReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0, journal.Retention{Count: 1})
		s := r.subscribe("")
		lost := r.append(3)
		at := s.Cursor()
		r.journal.onBounds = func() error { return errBroken }
		if b, err := s.Next(t.Context(), nil, large); !errors.Is(err, errBroken) || b.Reset != nil || s.Cursor() != at {
			t.Fatalf("got %+v, %v at %v, want the journal's error", b, err, s.Cursor())
		}
		r.journal.onBounds = nil
		if b := s.next(large); b.Reset == nil || b.Reset.Head != lost[2].Cursor {
			t.Fatalf("got %+v, want the reset", b)
		}
	})
}

// The journal owes an entry to the one who is behind its end: none at all is an
// error, and neither silence nor a spin.
func TestLagReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0, journal.Retention{})
		s := r.subscribe("")
		all := r.append(1)
		r.journal.tapRead(func(context.Context, journal.Page, error) (journal.Page, error) { return journal.Page{}, nil })
		if b, err := s.Next(t.Context(), nil, large); err == nil {
			t.Fatalf("got %+v, want an error", b)
		}
		r.journal.tapRead(nil)
		wantItems(t, s.drain(), all...)
	})
}

// Where the window cannot be filled, its subscribers are woken all the same and
// read for themselves.
func TestFillFails(t *testing.T) {
	tests := map[string]func(journal.Page) (journal.Page, error){
		"Error":   func(journal.Page) (journal.Page, error) { return journal.Page{}, errBroken },
		"Gap":     func(journal.Page) (journal.Page, error) { return journal.Page{Gap: true}, nil },
		"Nothing": func(journal.Page) (journal.Page, error) { return journal.Page{}, nil },
	}
	for name, fail := range tests {
		t.Run(name, bubble(func(t *testing.T) {
			r := newRig(t, large, journal.Retention{})
			parked, reading := r.subscribe(""), r.subscribe("")
			parked.park()
			all := r.append(2)
			wantItems(t, parked.drain(), all...)

			r.journal.tapRead(func(_ context.Context, page journal.Page, _ error) (journal.Page, error) { return fail(page) })
			missed := r.append(3)
			r.journal.tapRead(nil)

			all = append(all, missed...)
			parked.wantWakes(2)
			wantItems(t, parked.drain(), missed...)
			wantItems(t, reading.drain(), all...)

			// The next append fills the window again.
			more := r.append(1)
			parked.wantWakes(3)
			if parked.Lags() || reading.Lags() {
				t.Fatal("the window was not filled again")
			}
			wantItems(t, parked.drain(), more...)
			wantItems(t, reading.drain(), more...)
		}))
	}
}

func TestFillAndReadFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{})
		s := r.subscribe("")
		s.park()
		r.journal.tapRead(func(context.Context, journal.Page, error) (journal.Page, error) {
			return journal.Page{}, errBroken
		})
		missed := r.append(1)
		s.wantWakes(1)
		if b, err := s.Next(t.Context(), nil, large); !errors.Is(err, errBroken) {
			t.Fatalf("got %+v, %v, want the journal's error", b, err)
		}
		r.journal.tapRead(nil)
		wantItems(t, s.drain(), missed...)
	})
}

// A batch that is trimmed as it comes in is a gap for the window too: everybody
// gets a reset, and nobody a part of it.
func TestFillOvertakenByRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{Count: 2})
		s := r.subscribe("")
		s.park()
		lost := r.append(5)
		s.wantWakes(1)
		if b := s.next(large); b.Reset == nil || b.Reset.Head != lost[4].Cursor || len(b.Items) != 0 {
			t.Fatalf("got %+v, want a reset", b)
		}
		s.park()
	})
}

// misfile makes the journal return the record at seq as one of another stream.
func misfile(seq uint64) func(context.Context, journal.Page, error) (journal.Page, error) {
	return func(_ context.Context, page journal.Page, err error) (journal.Page, error) {
		page.Entries = slices.Clone(page.Entries)
		for i := range page.Entries {
			if e := &page.Entries[i]; e.Cursor.Seq == seq {
				e.Owner = "c/t_other/dev/w1/p1/studio/c1/"
			}
		}
		return page, err
	}
}

// An entry of another stream stops the subscriber in front of it, whether it
// comes by the window or by the journal. What was before it is delivered.
func TestForeign(t *testing.T) {
	for name, window := range map[string]int{"Window": large, "Lag": 0} {
		t.Run(name, bubble(func(t *testing.T) {
			r := newRig(t, window, journal.Retention{})
			s := r.subscribe("")
			s.park()
			// The hub appends after the tap is set, so the seqs are known from
			// the stride.
			r.journal.tapRead(misfile(3 * 3))
			all := r.append(4)
			if lags := s.Lags(); lags != (window == 0) {
				t.Fatalf("lags is %v", lags)
			}
			wantItems(t, s.next(large).Items, all[:2]...)
			for range 2 {
				b, err := s.Next(t.Context(), nil, large)
				if !errors.Is(err, hub.ErrForeign) || b.Items != nil || b.Parked {
					t.Fatalf("got %+v, %v, want ErrForeign alone", b, err)
				}
				if s.Cursor() != all[1].Cursor {
					t.Fatalf("at %v, past the foreign entry", s.Cursor())
				}
			}
		}))
	}
}

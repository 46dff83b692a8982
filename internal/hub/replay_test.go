package hub_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

// subscribeFrom is subscribe, without replay where that is asked for.
func (r *rig) subscribeFrom(from hub.From) *subscriber {
	r.t.Helper()
	s := &subscriber{t: r.t}
	sub, start, err := r.hub.Subscribe(context.Background(), r.stream.Reader, from, func() {})
	if err != nil {
		r.t.Fatalf("subscribe: %v", err)
	}
	r.t.Cleanup(sub.Close)
	s.Sub, s.start = sub, start
	return s
}

// startModel is a stream of which the newest are retained. Position 0 is before
// its first record, position i behind record i.
type startModel struct {
	positions []twinrail.Cursor
	kept      int
}

// want is where a start from the position, or from what stands for none, is
// placed, as a number of a position.
func (m startModel) want(ask string, position int, noReplay bool) (hub.Start, int) {
	head := len(m.positions) - 1
	oldest := max(0, head-m.kept)
	if noReplay {
		oldest = head // the one difference
	}
	at, resumed, reason := head, false, twinrail.Code("")
	switch {
	case ask == "":
	case ask == twinrail.CursorEarliest:
		at = oldest
	case position < 0:
		reason = twinrail.CodeCursorUnknown
	case position < oldest:
		reason = twinrail.CodeCursorExpired
	default:
		at, resumed = position, true
	}
	start := hub.Start{Cursor: m.positions[at], Head: m.positions[head], Resumed: resumed}
	if reason != "" {
		start.Reset = &hub.Reset{Reason: reason, Requested: ask, Oldest: m.positions[oldest], Head: m.positions[head]}
	}
	return start, at
}

// TestReplay has subscribers start everywhere in streams of every length, with
// replay and without: without it is as though the journal had nothing that is
// before the head, and what comes after is the same.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		window := rapid.SampledFrom(transcriptWindows).Draw(rt, "window")
		kept := rapid.IntRange(1, 4).Draw(rt, "kept")
		n := rapid.IntRange(0, 8).Draw(rt, "records")
		position := rapid.IntRange(0, n).Draw(rt, "position")
		ask := rapid.SampledFrom([]string{"", twinrail.CursorEarliest, "garbage", "cursor", "cursor", "cursor"}).Draw(rt, "ask")
		spoil := rapid.SampledFrom([]string{"", "", "", "epoch", "check"}).Draw(rt, "spoil")
		noReplay := rapid.Bool().Draw(rt, "noReplay")
		var err error
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, window, journal.Retention{Count: int64(kept)})
			m := startModel{[]twinrail.Cursor{r.subscribe("").start.Head}, kept}
			for range n {
				m.positions = append(m.positions, r.append(1)[0].Cursor)
			}
			switch ask {
			case "garbage":
				position = -1
			case "cursor":
				c := m.positions[position]
				trimmed := position < n-kept
				if spoil == "epoch" {
					c.Epoch ^= 1
					position = -1
				} else if spoil == "check" && !trimmed { // of what is trimmed nobody knows any more
					c.Check ^= 1
					position = -1
				}
				ask = c.String()
			}
			err = checkStart(r, m, ask, position, noReplay)
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// checkStart subscribes, and checks where that is placed and what follows it,
// also of what is appended later.
func checkStart(r *rig, m startModel, ask string, position int, noReplay bool) error {
	s := r.subscribeFrom(hub.From{Cursor: ask, NoReplay: noReplay})
	want, at := m.want(ask, position, noReplay)
	got := s.start
	if (got.Reset == nil) != (want.Reset == nil) || got.Reset != nil && *got.Reset != *want.Reset {
		return fmt.Errorf("reset %+v, want %+v", got.Reset, want.Reset)
	}
	got.Reset, want.Reset = nil, nil
	if got != want {
		return fmt.Errorf("start %+v, want %+v", got, want)
	}
	follow := append([]twinrail.Cursor(nil), m.positions[at+1:]...)
	items := s.drain()
	if !s.CaughtUp() {
		return fmt.Errorf("parked at %v before the head %v", s.Cursor(), want.Head)
	}
	for range 3 {
		follow = append(follow, r.append(1)[0].Cursor)
		items = append(items, s.drain()...)
	}
	for i, it := range items {
		if i >= len(follow) || it.Cursor != follow[i] {
			return fmt.Errorf("item %d is at %v, want those at %v", i, it.Cursor, follow)
		}
	}
	if len(items) != len(follow) {
		return fmt.Errorf("%d items, want those at %v", len(items), follow)
	}
	return nil
}

// What comes on a live subscription is not replay, however slow its reader is,
// and whatever has to be read from the journal for it.
func TestNoReplayGoesOn(t *testing.T) {
	eachWindow(t, func(t *testing.T, r *rig) {
		r.append(3)
		s := r.subscribeFrom(hub.From{Cursor: twinrail.CursorEarliest, NoReplay: true})
		all := r.append(20)
		for range 20 {
			all = append(all, r.append(1)...)
		}
		var items []*hub.Item
		for range 100 {
			b := s.next(1)
			if b.Reset != nil {
				t.Fatalf("reset %+v", *b.Reset)
			}
			items = append(items, b.Items...)
			if b.Parked {
				break
			}
		}
		wantItems(t, items, all...)
	})
}

// A reader that retention overtakes is told so, with replay or without.
func TestNoReplayOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 0, journal.Retention{Count: 2})
		s := r.subscribeFrom(hub.From{NoReplay: true})
		at := s.Cursor()
		lost := r.append(5)
		want := hub.Reset{Reason: twinrail.CodeCursorExpired, Requested: at.String(), Oldest: lost[2].Cursor, Head: lost[4].Cursor}
		if b := s.next(large); b.Reset == nil || *b.Reset != want {
			t.Fatalf("got %+v, want the reset %+v", b, want)
		}
		wantItems(t, s.drain())
	})
}

// Of what is appended while a subscriber returns to the head, it is told, if it
// does not get it.
func TestNoReplayAppendMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, large, journal.Retention{})
		at := r.append(2)[1].Cursor
		var meanwhile journal.Result
		r.journal.onBounds = func() error {
			r.journal.onBounds = nil
			meanwhile = r.append(1)[0]
			return nil
		}
		s := r.subscribeFrom(hub.From{Cursor: at.String(), NoReplay: true})
		want := hub.Reset{
			Reason: twinrail.CodeCursorExpired, Requested: at.String(), Oldest: meanwhile.Cursor, Head: meanwhile.Cursor,
		}
		if s.start.Reset == nil || *s.start.Reset != want || s.start.Resumed {
			t.Fatalf("start %+v, want the reset %+v", s.start, want)
		}
		wantItems(t, s.drain())
	})
}

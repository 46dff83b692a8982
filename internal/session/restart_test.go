package session_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/twinrail/twinrail/internal/session"
	"github.com/twinrail/twinrail/internal/table"
)

// A restart loses no session, and makes none wait longer than the window from
// when the server ended.
func TestRestart(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		kept, claimed, forgotten := r.new(h), r.new(h), r.new(h)
		r.claim(claimed.ID(), 0, h)
		pass(time.Hour + 3*time.Second) // not when it says that it is alive
		r.close()
		pass(window - 2*time.Nanosecond)
		r.open()
		r.wantLen(3, 0)
		s := r.claim(kept.ID(), 0, h)
		if s.Value() != nil {
			t.Error("a value outlived the server")
		}
		r.refuse(kept.ID(), 0, used)
		r.refuse(claimed.ID(), 0, used) // claimed by it before the restart
		r.claim(claimed.ID(), 1, h)
		r.wantLen(3, 2)
		pass(time.Nanosecond)
		r.wantLen(3, 2)
		pass(time.Nanosecond)
		r.wantLen(2, 2)
		r.wantIDs(kept.ID(), claimed.ID())
		r.refuse(forgotten.ID(), 0, isOut)
		if r.over(forgotten.ID()) != 1 {
			t.Error("nobody was told")
		}

		r.close()
		pass(window)
		r.open()
		r.wantLen(0, 0)
		r.wantIDs()
		r.refuse(kept.ID(), 1, isOut)
	})
}

// After a crash the window is counted from when the server was last seen alive,
// a few seconds before.
func TestCrash(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		r.new(h)
		pass(time.Hour - time.Second) // 4 s after it said that it was alive
		r.crash(0)
		r.wantLen(1, 0)
		pass(window - 4*time.Second - time.Nanosecond)
		r.wantLen(1, 0)
		pass(time.Nanosecond)
		r.wantLen(0, 0)

		s := r.new(h)
		r.claim(s.ID(), 0, h)
		r.crash(window - 6*time.Second)
		r.refuse(s.ID(), 0, used)
		r.claim(s.ID(), 1, h)

		r.crash(window)
		r.wantLen(0, 0)
		r.wantIDs()
	})
}

// The order in which sessions are over is that in which they were lost, also
// where some are claimed from between, and the others are from before a restart.
func TestOrder(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		before := r.new(h)
		r.close()
		pass(10 * time.Second)
		r.open()
		var all []*session.Session
		for range 5 {
			s := r.new(h)
			all = append(all, s)
			s.Lose(h, r.who.Principal())
			pass(time.Second)
		}
		for _, i := range []int{0, 2, 4} { // the one in front of these, in the middle, at the back
			r.claim(all[i].ID(), 0, h)
		}
		all[2].Lose(h, r.who.Principal()) // 5 s after the first
		pass(window - 15*time.Second)
		r.wantLen(5, 2)
		if r.over(before.ID()) != 1 {
			t.Error("the session from before the restart is not over")
		}
		for _, step := range []struct {
			after time.Duration
			over  *session.Session
		}{{11 * time.Second, all[1]}, {2 * time.Second, all[3]}, {2 * time.Second, all[2]}} {
			pass(step.after - time.Nanosecond)
			if r.over(step.over.ID()) != 0 {
				t.Error("over before its time")
			}
			pass(time.Nanosecond)
			if r.over(step.over.ID()) != 1 {
				t.Error("not over at its time")
			}
		}
		r.wantLen(2, 2)
		r.wantIDs(all[0].ID(), all[4].ID())
	})
}

// What cannot be read is removed; a clock that was put back, or is not there,
// makes nobody wait longer than the window.
func TestForeignRows(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		for _, alive := range [][]byte{nil, {9, 9}, formatAlive(time.Now().Add(24 * time.Hour))} {
			r.close()
			rows := map[string][]byte{"s_good": {1, 7}, "s_v2": {2, 7}, "s_empty": {}, "s_short": {1}, "s_long": {1, 7, 7}, "x": {1, 7}}
			rows["alive"] = alive
			for key, value := range rows {
				if err := r.memory.Put(key, value, table.Lazy); err != nil {
					t.Fatal(err)
				}
			}
			if alive == nil {
				if err := r.memory.Delete("alive", table.Lazy); err != nil {
					t.Fatal(err)
				}
			}
			r.open()
			r.wantIDs("s_good")
			r.wantLen(1, 0)
			r.refuse("s_good", 6, used)
			pass(window - time.Nanosecond)
			r.wantLen(1, 0)
			pass(time.Nanosecond)
			r.wantLen(0, 0)
		}
	})
}

func formatAlive(t time.Time) []byte {
	return binary.BigEndian.AppendUint64([]byte{1}, uint64(t.UnixMilli()))
}

// Close lets a claim that is under way be made, and nothing after it.
func TestClose(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		s, lost, claimed := r.new(h), r.new(h), r.new(h)
		lost.Lose(h, r.who.Principal())
		end := r.hanging(claimed.ID(), 0, h)
		closed := make(chan error, 1)
		go func() { closed <- r.g.Close() }()
		pass(time.Second)
		select {
		case err := <-closed:
			t.Errorf("closed before the claim was made: %v", err)
		default:
		}
		if err := end(); err != nil {
			t.Errorf("claim: %v", err)
		}
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
		r.onPut(func(string, table.Durability) error { t.Error("the table is used after the end"); return nil })
		_, err := r.g.New(h)
		_, err2 := r.g.Claim(r.resumes(s.ID(), 0), h)
		if !errors.Is(err, session.ErrClosed) || !errors.Is(err2, session.ErrClosed) {
			t.Errorf("new: %v, claim: %v", err, err2)
		}
		s.Lose(h, r.who.Principal())
		s.End(h)
		r.close()
		r.wantLen(3, 2)
		pass(window / 2)
		r.wantIDs(s.ID(), lost.ID(), claimed.ID())
		if r.over(s.ID()) != 0 || r.over(lost.ID()) != 0 {
			t.Error("over although the registry was closed before")
		}
		r.onPut(nil)
		r.open()
		r.refuse(claimed.ID(), 0, used)
		r.claim(s.ID(), 0, h)
	})
}

// Open tells of a table that fails.
func TestOpenFails(t *testing.T) {
	broken := errors.New("broken")
	for name, tb := range map[string]table.Table{
		"scan": faulty{scan: broken}, "put": faulty{put: broken}, "delete": faulty{deletion: broken},
	} {
		if _, err := session.Open(session.Options{Table: tb}); !errors.Is(err, broken) {
			t.Errorf("open where %s fails: %v", name, err)
		}
	}
}

// faulty is a table with one row, which is none of a session.
type faulty struct{ scan, put, deletion error }

func (f faulty) Put(string, []byte, table.Durability) error { return f.put }
func (f faulty) Delete(string, table.Durability) error      { return f.deletion }
func (f faulty) Scan(fn func(string, []byte) error) error {
	return errors.Join(f.scan, fn("s_x", nil))
}

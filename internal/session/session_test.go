package session_test

import (
	"errors"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/session"
	"github.com/twinrail/twinrail/internal/table"
)

const (
	used  = twinrail.CodeResumeUsed
	isOut = twinrail.CodeResumeExpired
)

// test runs fn with fake time.
func test(t *testing.T, fn func(*testing.T, *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		fn(t, r)
	})
}

func TestNew(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		one, two := r.new(h), r.new(&holder{})
		for _, s := range []*session.Session{one, two} {
			if !regexp.MustCompile(`^s_[a-z2-7]{26}$`).MatchString(s.ID()) || s.Uses() != 0 {
				t.Errorf("a new session: %s, claimed %d times", s.ID(), s.Uses())
			}
		}
		r.wantIDs(one.ID(), two.ID())
		r.wantLen(2, 2)
		if one.SetValue("mine"); one.Value() != "mine" || two.Value() != nil {
			t.Errorf("the values are %v and %v", one.Value(), two.Value())
		}
		pass(time.Hour) // held for as long as it takes
		r.wantLen(2, 2)
		if h.times() != 0 {
			t.Error("a holder was told that it had lost the session")
		}
	})
}

// A lost session waits for the window, and not longer; each loss begins it anew.
func TestWindow(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		s := r.new(h)
		s.SetValue("mine")
		s.Lose(h, r.who.Principal())
		r.wantLen(1, 0)
		pass(window - time.Nanosecond)
		if again := r.claim(s.ID(), 0, h); again != s || again.Value() != "mine" {
			t.Error("the session that was claimed is another one")
		}
		pass(window)
		r.wantLen(1, 1)
		s.Lose(h, r.who.Principal())
		s.Lose(h, r.who.Principal())
		pass(window - time.Nanosecond)
		r.wantLen(1, 0)
		r.wantIDs(s.ID())
		if r.over(s.ID()) != 0 {
			t.Error("over before its time")
		}
		pass(time.Nanosecond)
		r.wantLen(0, 0)
		r.wantIDs()
		r.refuse(s.ID(), 1, isOut)
		r.refuse(s.ID(), 0, isOut)
		if n := r.over(s.ID()); n != 1 || h.times() != 0 {
			t.Errorf("over %d times, taken over %d times", n, h.times())
		}
	})
}

func TestEnd(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		s, other := r.new(h), r.new(h)
		s.End(h)
		synctest.Wait()
		r.wantIDs(other.ID())
		r.wantLen(1, 1)
		r.refuse(s.ID(), 0, isOut)
		s.End(h)
		s.Lose(h, r.who.Principal())
		pass(window)
		r.wantLen(1, 1)
		if n := r.over(s.ID()); n != 1 {
			t.Errorf("over %d times", n)
		}
	})
}

// TestEndDoesNotWait for a table that is slow: sessions are over all the same, and
// their rows go later, or by the end of the registry.
func TestEndDoesNotWait(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		const n = 1000
		h := &holder{}
		var all []*session.Session
		for range n {
			all = append(all, r.new(h))
		}
		lost := r.new(h)
		lost.Lose(h, r.who.Principal())
		release := r.holdDeletes()
		for _, s := range all {
			s.End(h) // with no goroutine of the registry's help
			if r.over(s.ID()) != 1 {
				t.Fatal("nobody was told at once")
			}
			r.refuse(s.ID(), 0, isOut)
		}
		r.wantLen(1, 0)
		pass(window)
		if len(r.ids()) != n+1 {
			t.Errorf("%d rows are left of %d", len(r.ids()), n+1)
		}
		release()
		pass(time.Millisecond)
		r.wantLen(0, 0)
		r.wantIDs()
		if r.over(lost.ID()) != 1 {
			t.Error("the one that was lost is not over")
		}

		last, kept := r.new(h), r.new(h)
		release = r.holdDeletes()
		last.End(h)
		closed := make(chan error)
		go func() { closed <- r.g.Close() }()
		pass(time.Second)
		release()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		r.wantIDs(kept.ID())
	})
}

// EndLost ends those that wait, of whom it is said so, and no others.
func TestEndLost(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		issuer := authtest.New(t)
		whose := func(tenant, actor string) *auth.Principal { return issuer.Context(tenant, actor).Principal() }
		h := &holder{}
		lost := func(p *auth.Principal) *session.Session {
			s := r.new(h)
			s.Lose(h, p)
			return s
		}
		before := r.new(h)
		r.close()
		r.open() // after which nobody knows whose it is
		mine, again := lost(whose("t_acme", "u_1")), lost(whose("t_acme", "u_1"))
		others := []*session.Session{lost(whose("t_acme", "u_2")), lost(whose("t_other", "u_1"))}
		held, back := r.new(h), lost(whose("t_acme", "u_1"))
		r.claim(back.ID(), 0, h)
		end := r.hanging(again.ID(), 0, &holder{})

		isUser1 := func(p *auth.Principal) bool { return p.Identity().ActorID == "u_1" }
		r.g.EndLost("t_acme", "prod", isUser1)
		r.g.EndLost("t_acme", "dev", isUser1)
		r.g.EndLost("t_acme", "dev", isUser1)
		if r.over(mine.ID()) != 1 || r.over(again.ID()) != 1 {
			t.Errorf("over %d and %d times", r.over(mine.ID()), r.over(again.ID()))
		}
		if err := end(); twinrail.CodeOf(err) != isOut {
			t.Errorf("the claim of one that ended meanwhile: %v", err)
		}
		synctest.Wait()
		r.wantLen(5, 2)
		r.wantIDs(before.ID(), others[0].ID(), others[1].ID(), held.ID(), back.ID())
		back.Lose(h, whose("t_acme", "u_2"))
		r.g.EndLost("t_acme", "dev", isUser1) // who held it last counts
		r.wantLen(5, 1)
		r.refuse(mine.ID(), 0, isOut)
		pass(window)
		r.wantLen(1, 1)
	})
}

// Who claims a session that is held has it from then on, and what its last holder
// does is of no effect.
func TestTakeOver(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		old, next := &holder{}, &holder{}
		s := r.new(old)
		r.claim(s.ID(), 0, next)
		if old.times() != 1 || next.times() != 0 {
			t.Errorf("told %d and %d times", old.times(), next.times())
		}
		s.Lose(old, r.who.Principal())
		s.End(old)
		pass(window)
		r.wantLen(1, 1)
		r.claim(s.ID(), 1, next)
		if next.times() != 0 {
			t.Error("a holder was taken over by itself")
		}
		s.Lose(next, r.who.Principal())
		s.End(next) // who lost it does not hold it
		r.wantLen(1, 0)
		s.Lose(nil, r.who.Principal())
		s.End(nil)
		r.wantLen(1, 0)
		r.claim(s.ID(), 2, old)
		if next.times() != 0 || old.times() != 1 {
			t.Error("a holder that had lost the session was told")
		}
		r.wantLen(1, 1)
	})
}

func TestClaimRefused(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		s := r.new(h)
		r.refuse("s_nobody", 0, isOut)
		r.refuse("alive", 0, isOut)
		r.refuse(s.ID(), 1, isOut)
		r.claim(s.ID(), 0, h)
		r.refuse(s.ID(), 0, used)
		s.Lose(h, r.who.Principal())
		r.refuse(s.ID(), 0, used)
		r.claim(s.ID(), 1, h)
		r.refuse(s.ID(), 0, used)
		r.refuse(s.ID(), 1, used)
		_, err := r.g.Claim(auth.Resumption{}, h)
		wantCode(t, err, isOut)
		if h.times() != 0 {
			t.Error("a claim that was refused took the session over")
		}
	})
}

// Of those who claim with the same uses one gets the session.
func TestClaimsRace(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		first := &holder{}
		s := r.new(first)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []*holder
		for range 16 {
			wg.Go(func() {
				h := &holder{}
				_, err := r.g.Claim(r.resumes(s.ID(), 0), h)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, h)
				} else if twinrail.CodeOf(err) != used {
					t.Errorf("claim: %v", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 || won[0].times() != 0 || first.times() != 1 || s.Uses() != 1 {
			t.Errorf("%d won, the first holder was told %d times, uses are %d", len(won), first.times(), s.Uses())
		}
	})
}

// hanging begins a claim whose Put hangs, and returns how to end it.
func (r *rig) hanging(id string, uses uint64, h session.Holder) (end func() error) {
	hangs, release := r.hang()
	result := make(chan error, 1)
	go func() {
		_, err := r.g.Claim(r.resumes(id, uses), h)
		result <- err
	}()
	<-hangs
	return func() error { release(); return <-result }
}

// Until a claim is durable nothing is given away, and nobody else gets it.
func TestClaimIsDurableFirst(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		old, next := &holder{}, &holder{}
		s := r.new(old)
		var durability table.Durability
		end := r.hanging(s.ID(), 0, next)
		r.refuse(s.ID(), 0, used)
		if old.times() != 0 || s.Uses() != 0 {
			t.Error("claimed before it was durable")
		}
		s.Lose(old, r.who.Principal()) // not held any more when it is claimed
		if err := end(); err != nil {
			t.Fatalf("claim: %v", err)
		}
		if old.times() != 0 {
			t.Error("a holder that had lost the session was told")
		}
		pass(window)
		r.wantLen(1, 1)

		r.onPut(func(key string, d table.Durability) error {
			if key == s.ID() {
				durability = d
			}
			return nil
		})
		r.claim(s.ID(), 1, old)
		if durability != table.Synced {
			t.Error("a claim was not synced")
		}
	})
}

// A claim that fails changes nothing.
func TestClaimFails(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		broken := errors.New("broken")
		fail := func(string, table.Durability) error { return broken }
		h := &holder{}
		s := r.new(h)
		r.onPut(fail)
		if _, err := r.g.Claim(r.resumes(s.ID(), 0), &holder{}); !errors.Is(err, broken) {
			t.Fatalf("claim: %v", err)
		}
		if _, err := r.g.New(&holder{}); !errors.Is(err, broken) {
			t.Fatalf("new: %v", err)
		}
		r.onPut(nil)
		if h.times() != 0 {
			t.Error("the holder was told")
		}
		r.wantLen(1, 1)
		r.claim(s.ID(), 0, h)
		s.Lose(h, r.who.Principal())

		r.onPut(fail)
		if _, err := r.g.Claim(r.resumes(s.ID(), 1), &holder{}); !errors.Is(err, broken) {
			t.Fatalf("claim: %v", err)
		}
		r.onPut(nil)
		pass(window)
		r.wantLen(0, 0)
		r.wantIDs()
	})
}

// A session that is over while it is claimed leaves nothing behind.
func TestOverWhileClaimed(t *testing.T) {
	test(t, func(t *testing.T, r *rig) {
		h := &holder{}
		ended, timed := r.new(h), r.new(h)
		end := r.hanging(ended.ID(), 0, &holder{})
		ended.End(h)
		if err := end(); twinrail.CodeOf(err) != isOut {
			t.Errorf("claim of a session that ended: %v", err)
		}
		timed.Lose(h, r.who.Principal())
		end = r.hanging(timed.ID(), 0, &holder{})
		pass(window)
		if err := end(); twinrail.CodeOf(err) != isOut {
			t.Errorf("claim of a session whose window was over: %v", err)
		}
		r.wantIDs()
		r.wantLen(0, 0)
		if r.over(ended.ID()) != 1 || r.over(timed.ID()) != 1 || h.times() != 0 {
			t.Errorf("over %d and %d times, told %d times", r.over(ended.ID()), r.over(timed.ID()), h.times())
		}
	})
}

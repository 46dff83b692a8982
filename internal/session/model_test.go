package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/session"
)

// model is what a registry should be: what each session is, and when the server
// said last that it was alive.
type model struct {
	r     *rig
	alive time.Time // of the current registry's beginning
	all   []*modelSession
}

type modelSession struct {
	id     string
	s      *session.Session
	uses   uint64
	holder *holder // nil while it waits
	past   []*holder
	until  time.Time
	over   bool
	told   bool // that it is over; a restart is not told of
}

func newModel(t tester) *model {
	return &model{r: newRig(t), alive: time.Now()}
}

// settle does what time has brought about.
func (m *model) settle(told bool) {
	for _, s := range m.all {
		if !s.over && s.holder == nil && !time.Now().Before(s.until) {
			s.over, s.told = true, told
		}
	}
}

func (m *model) claim(t *rapid.T) {
	s := rapid.SampledFrom(m.all).Draw(t, "session")
	uses := uint64(rapid.IntRange(0, int(s.uses)+1).Draw(t, "uses"))
	h := &holder{}
	got, err := m.r.g.Claim(m.r.resumes(s.id, uses), h)
	switch {
	case s.over || uses > s.uses:
		wantCode(t, err, twinrail.CodeResumeExpired)
	case uses < s.uses:
		wantCode(t, err, twinrail.CodeResumeUsed)
	case err != nil:
		t.Fatalf("claim: %v", err)
	default:
		if old := s.holder; old != nil {
			if old.times() != 1 {
				t.Fatalf("the holder was told %d times", old.times())
			}
			s.past = append(s.past, old)
		}
		s.s, s.holder = got, h
		s.uses++
	}
}

func wantCode(t tester, err error, code twinrail.Code) {
	t.Helper()
	if err == nil || twinrail.CodeOf(err) != code {
		t.Fatalf("claim: %v, want %s", err, code)
	}
}

// who draws one who holds the session or did.
func (s *modelSession) who(t *rapid.T) *holder {
	all := append([]*holder{{}}, s.past...)
	if s.holder != nil {
		all = append(all, s.holder, s.holder, s.holder)
	}
	return rapid.SampledFrom(all).Draw(t, "who")
}

func (m *model) lose(t *rapid.T) {
	s := rapid.SampledFrom(m.all).Draw(t, "session")
	h := s.who(t)
	s.s.Lose(h, m.r.who.Principal())
	if h == s.holder {
		s.past, s.holder, s.until = append(s.past, h), nil, time.Now().Add(window)
	}
}

func (m *model) end(t *rapid.T) {
	s := rapid.SampledFrom(m.all).Draw(t, "session")
	h := s.who(t)
	s.s.End(h)
	if h == s.holder {
		s.past, s.holder, s.over, s.told = append(s.past, h), nil, true, true
	}
}

// restart ends the server, by a crash or not, for a while.
func (m *model) restart(t *rapid.T) {
	down := time.Duration(rapid.IntRange(0, 70_000).Draw(t, "down")) * time.Millisecond
	ended := time.Now()
	if rapid.Bool().Draw(t, "crash") {
		ended = m.alive.Add(time.Since(m.alive).Truncate(5 * time.Second))
		m.r.crash(down)
	} else {
		m.r.close()
		pass(down)
		m.r.open()
	}
	m.alive = time.Now()
	for _, s := range m.all {
		if s.holder != nil {
			s.past, s.holder = append(s.past, s.holder), nil
		}
		s.until = ended.Add(window)
	}
	m.settle(false)
}

func (m *model) check(t *rapid.T) {
	synctest.Wait()
	var ids []string
	held := 0
	for _, s := range m.all {
		told := m.r.over(s.id)
		if (told == 1) != s.told || told > 1 {
			t.Fatalf("%s: over %d times", s.id, told)
		}
		if s.over {
			continue
		}
		ids = append(ids, s.id)
		if s.holder != nil {
			held++
			if s.holder.times() != 0 || s.s.Uses() != s.uses {
				t.Fatalf("%s: its holder was told %d times, uses are %d, want %d", s.id, s.holder.times(), s.s.Uses(), s.uses)
			}
		}
	}
	m.r.wantLen(len(ids), held)
	m.r.wantIDs(ids...)
}

// A registry does what its model does.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failed any // what a rapid.T that fails, or skips, panics with
		synctest.Test(t, func(*testing.T) {
			defer func() { failed = recover() }()
			runModel(rt)
		})
		if failed != nil {
			panic(failed)
		}
	})
}

func runModel(t *rapid.T) {
	m := newModel(t)
	defer func() { m.r.g.Close() }()
	known := func(fn func(*rapid.T)) func(*rapid.T) {
		return func(t *rapid.T) {
			if len(m.all) == 0 {
				t.Skip("no session")
			}
			fn(t)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"new": func(t *rapid.T) {
			h := &holder{}
			s := m.r.new(h)
			m.all = append(m.all, &modelSession{id: s.ID(), s: s, holder: h})
		},
		"claim":   known(m.claim),
		"lose":    known(m.lose),
		"end":     known(m.end),
		"restart": known(m.restart),
		"pass": func(t *rapid.T) {
			pass(time.Duration(rapid.IntRange(1, 40_000).Draw(t, "ms")) * time.Millisecond)
			m.settle(true)
		},
		"": m.check,
	})
}

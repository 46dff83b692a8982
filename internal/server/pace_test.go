package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestAdjust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pause time.Duration
		for range rapid.IntRange(0, 200).Draw(t, "before") {
			pause = adjust(pause, rapid.Bool().Draw(t, "late"))
			if pause < 0 || pause > maxPause {
				t.Fatalf("a pause of %v", pause)
			}
		}
		longer, shorter := pause, pause
		for range 30 { // 150 ms
			next := adjust(longer, true)
			if next <= longer && next != maxPause {
				t.Fatalf("late, and after %v comes %v", longer, next)
			}
			longer = next
		}
		if longer != maxPause {
			t.Fatalf("150 ms late, and the pause is %v", longer)
		}
		for range 1000 { // 5 s
			next := adjust(shorter, false)
			if next >= shorter && next != 0 {
				t.Fatalf("in time, and after %v comes %v", shorter, next)
			}
			shorter = next
		}
		if shorter != 0 {
			t.Fatalf("5 s in time, and the pause is %v", shorter)
		}
	})
}

// fakeSignal is as late as it is told.
type fakeSignal struct {
	late           atomic.Int64
	opened, closed atomic.Int32
}

func (s *fakeSignal) lateness() time.Duration { return time.Duration(s.late.Load()) }
func (s *fakeSignal) close()                  { s.closed.Add(1) }

// pace has e go by the signal.
func (s *fakeSignal) pace(e *engine) *pacer {
	p := newPacer(e.ctx, time.Millisecond, e.spawn)
	p.open = func() (signal, error) { s.opened.Add(1); return s, nil }
	e.shares.pacer = p
	return p
}

func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t.Context(), -1)
		s := new(fakeSignal)
		s.late.Store(int64(2 * time.Millisecond))
		p := s.pace(e)
		time.Sleep(time.Minute)
		if s.opened.Load() != 0 {
			t.Fatal("it looks with nobody in line")
		}
		// While somebody is in line, for longer than it lingers.
		for range 40 {
			p.between()
			time.Sleep(100 * time.Millisecond)
		}
		if got := p.between(); got != maxPause || s.opened.Load() != 1 {
			t.Errorf("4 s late: a pause of %v, want %v; opened %d times", got, maxPause, s.opened.Load())
		}
		s.late.Store(int64(p.late))
		for range 10 {
			p.between()
			time.Sleep(500 * time.Millisecond)
		}
		if got := p.between(); got != 0 {
			t.Errorf("5 s not later than it may be: a pause of %v", got)
		}
		s.late.Store(int64(time.Hour))
		time.Sleep(paceLinger / 2)
		if s.closed.Load() != 0 || p.pause.Load() == 0 {
			t.Error("it ended at once with nobody in line")
		}
		time.Sleep(paceLinger)
		if s.closed.Load() != 1 || p.pause.Load() != 0 || p.running.Load() {
			t.Errorf("nobody in line for long: closed %d times, a pause of %v", s.closed.Load(), p.pause.Load())
		}
		p.between()
		time.Sleep(time.Second / 2)
		if s.opened.Load() != 2 || p.between() == 0 {
			t.Error("it did not look again")
		}
		p.stop()
		synctest.Wait()
		if p.between() != 0 || s.closed.Load() != 2 {
			t.Error("it goes on after the stop")
		}
		synctest.Wait()
		if s.opened.Load() != 2 {
			t.Error("it looks again after the stop")
		}
		e.close()
	})
}

func TestPacerWithoutSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newTestEngine(t.Context(), -1)
		p := newPacer(e.ctx, time.Millisecond, e.spawn)
		p.open = func() (signal, error) { return nil, errors.New("no descriptors") }
		for range 3 {
			if d := p.between(); d != 0 {
				t.Errorf("a pause of %v", d)
			}
			synctest.Wait()
		}
		e.close()
	})
	if newPacer(t.Context(), -1, nil) != nil {
		t.Error("there is a pacer that was switched off")
	}
}

// late returns an engine of which the signal has been late for long enough that
// the pause is maxPause.
func late(t *testing.T) *engine {
	e := newTestEngine(t.Context(), -1)
	s := new(fakeSignal)
	s.late.Store(int64(time.Second))
	p := s.pace(e)
	for range 50 {
		p.between()
		time.Sleep(paceInterval)
	}
	return e
}

// TestCrowdedTenantPauses has a tenant keep publishes, reads and openings in line
// on a server that notices input too late: its turns come apart, those of one that
// has nobody in line do not, and nobody's do that is alone.
func TestCrowdedTenantPauses(t *testing.T) {
	type take func(*shares, tenant) (func(), error)
	for name, kind := range map[string]struct {
		take   take
		atOnce int // of a tenant that is not alone
	}{
		"publish": {func(s *shares, who tenant) (func(), error) {
			return s.takePublish(context.Background(), who, 100, 1<<20)
		}, 1},
		"read":    {func(s *shares, who tenant) (func(), error) { return s.takeRead(context.Background(), who) }, bulk()},
		"opening": {func(s *shares, who tenant) (func(), error) { return s.takeOpening(context.Background(), who) }, openings()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := late(t)
				crowded, quiet := tenant{"t_a", "dev"}, tenant{"t_b", "dev"}
				// flood has so many at once, and returns how long all take.
				const many = 40
				flood := func() time.Duration {
					ended := make(chan struct{})
					started := time.Now()
					for range many {
						go func() {
							done, err := kind.take(&e.shares, crowded)
							if err != nil {
								t.Error(err)
							} else {
								time.Sleep(time.Microsecond) // or there is no line
								done()
							}
							ended <- struct{}{}
						}()
					}
					for range many {
						<-ended
					}
					return time.Since(started)
				}
				if took := flood(); took >= maxPause {
					t.Errorf("alone: %v for %d", took, many)
				}
				done, err := kind.take(&e.shares, quiet)
				if err != nil {
					t.Fatal(err)
				}
				done()
				flooded := make(chan time.Duration)
				go func() { flooded <- flood() }()
				time.Sleep(maxPause / 2)
				started := time.Now()
				if done, err = kind.take(&e.shares, quiet); err != nil {
					t.Fatal(err)
				}
				done()
				if waited := time.Since(started); waited != 0 {
					t.Errorf("who has nobody in line waited %v", waited)
				}
				pauses := time.Duration(many/kind.atOnce - 1)
				if took := <-flooded; took < pauses*maxPause || took > (pauses+1)*(maxPause+time.Millisecond) {
					t.Errorf("beside another: %v for %d, want %d pauses of %v", took, many, pauses, maxPause)
				}
				time.Sleep(maxPause) // the places that are given back last
				if n := len(e.shares.of); n != 0 {
					t.Errorf("%d shares are left", n)
				}
				e.shares.pacer.stop()
				e.close()
			})
		})
	}
}

// TestOpeningPausesBehindReaders has a tenant open one connection after the other,
// so that none waits to be opened, while others of it wait to read: that is a storm,
// and comes apart, too.
func TestOpeningPausesBehindReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := late(t)
		stormy := tenant{"t_a", "dev"}
		sh := e.shares.join(stormy)
		storm := func() time.Duration {
			started := time.Now()
			for range 3 * openings() {
				e.shares.alone(tenant{"t_b", "dev"}, started)
				done, err := e.shares.takeOpening(context.Background(), stormy)
				if err != nil {
					t.Fatal(err)
				}
				done()
			}
			return time.Since(started)
		}
		if took := storm(); took != 0 {
			t.Errorf("with nobody behind it took %v", took)
		}
		sh.lined.Store(2)
		if took := storm(); took != 2*maxPause {
			t.Errorf("with some behind it took %v, want %v", took, 2*maxPause)
		}
		sh.lined.Store(0)
		e.shares.leave(sh)
		time.Sleep(maxPause)
		e.close()
	})
}

// TestLaggingTenantPauses is TestCrowdedTenantPauses for backlogs: those of many
// links are read with pauses, that of one is not.
func TestLaggingTenantPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := late(t)
		const pages = 100
		// read has that many links of a tenant read their backlogs, beside another
		// tenant, and returns how long it takes.
		read := func(links int) time.Duration {
			e.shares.alone(tenant{"t_b", "dev"}, time.Now())
			ended := make(chan struct{})
			started := time.Now()
			all := make([]*link, links)
			for i := range all {
				left := pages / links
				all[i] = newLink(e, tenant{"t_a", "dev"}, newWriteLog(), &script{lagged: true, write: func() next {
					if left--; left > 0 {
						return thenMore
					}
					defer func() { ended <- struct{}{} }()
					return thenRest
				}}, nil)
				all[i].kick()
			}
			for range all {
				<-ended
			}
			took := time.Since(started)
			synctest.Wait()
			for _, l := range all {
				l.close(nil)
			}
			return took
		}
		if took := read(1); took != 0 {
			t.Errorf("one backlog: %v", took)
		}
		if took, least := read(10), maxPause*pages/2/time.Duration(e.maxDrivers); took < least {
			t.Errorf("ten backlogs: %v, want at least %v", took, least)
		}
		e.shares.pacer.stop()
		e.close()
	})
}

// TestPipe: what the pipe says is of input that came through the runtime's poller.
func TestPipe(t *testing.T) {
	s, err := openPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := s.(*pipe)
	for range 3 {
		before := time.Now()
		s.lateness() // sends
		for p.sent.Load() != 0 {
			if time.Since(before) > patience {
				t.Fatal("its input is not noticed")
			}
			time.Sleep(time.Millisecond)
		}
		took := time.Duration(p.took.Load())
		if most := time.Since(before); took <= 0 || took > most {
			t.Errorf("noticed after %v, within %v", took, most)
		}
		if got := s.lateness(); got != took {
			t.Errorf("lateness %v, want %v", got, took)
		}
		for p.sent.Load() != 0 && time.Since(before) < patience {
			time.Sleep(time.Millisecond)
		}
	}
	s.close()
	// Nobody reads any more.
	p.sent.Store(1)
	least := time.Since(p.started) - 1
	if got := s.lateness(); got < least {
		t.Errorf("lateness of what is not noticed %v, want at least %v", got, least)
	}
}

package feature_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twinrail/twinrail/internal/feature"
)

// What a reader pays is no memory, whatever it finds.
func TestFlagsDoNotAllocate(t *testing.T) {
	r := newRig(t)
	r.set(tenant0, "dev", "gesture_rate", "60")
	r.set("t_acme", "dev", "replay", "false")
	for _, at := range [][2]string{{"t_acme", "dev"}, {"t_other", "dev"}, {tenant0, "dev"}, {"t_acme", "prod"}} {
		var flags feature.Flags
		if n := testing.AllocsPerRun(100, func() { flags = r.s.Flags(at[0], at[1]) }); n != 0 {
			t.Errorf("the flags of %s in %s, %+v, are %v allocations", at[0], at[1], flags, n)
		}
	}
}

// A reader waits for nobody who changes something.
func TestFlagsTakeNoLock(t *testing.T) {
	r := newRig(t)
	r.set("t_acme", "dev", "replay", "false")
	unlock := r.s.Lock()
	defer unlock()
	read := make(chan feature.Flags, 1)
	go func() { read <- r.s.Flags("t_acme", "dev") }()
	select {
	case flags := <-read:
		if flags.Replay {
			t.Errorf("the flags are %+v", flags)
		}
	case <-time.After(20 * time.Second):
		t.Error("a reader waits for the store's lock")
	}
}

// What a reader has is not changed by what comes after.
func TestFlagsAreKept(t *testing.T) {
	r := newRig(t)
	r.set("t_acme", "dev", "gesture_rate", "60")
	now := r.s.Current()
	for _, change := range []func(){
		func() { r.set("t_acme", "dev", "gesture_rate", "61") },
		func() { r.set("t_other", "dev", "gesture_rate", "62") },
		func() { r.set("t_other", "prod", "gesture_rate", "63") },
		func() { r.set(tenant0, "dev", "replay", "false") },
		func() { r.unset("t_acme", "dev", "gesture_rate") },
	} {
		change()
		for tenant, want := range map[string]int{"t_acme": 60, "t_other": 30} {
			for env, want := range map[string]int{"dev": want, "prod": 30} {
				flags := builtIn
				flags.GestureRate = want
				wantFlags(t, now(tenant, env), flags)
			}
		}
	}
}

// steps is how often TestConcurrent has Tenant-0 change a flag. The state i, after
// the i-th change, has gesture_rate (i+1)/2+30, and gesture_fanout where i/2 is
// odd: every step changes one of the two.
const steps = 400

// state returns in which state the flags are, but for replay, and whether there
// was such a state.
func state(f feature.Flags) (int, bool) {
	for i := max(0, 2*(f.GestureRate-30)-1); i <= 2*(f.GestureRate-30); i++ {
		if f.GestureFanout == (i/2%2 == 1) && f.WS && f.SSE {
			return i, true
		}
	}
	return 0, false
}

// Readers see the flags in the states through which they go, each whole and in
// their order: whether they are the platform's, under a tenant's own setting that
// stays, or under one that changes meanwhile, and from one tenant to the next.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	r.set("t_own", "dev", "replay", "false")
	r.set("t_own", "prod", "gesture_rate", "7")
	platform, busy := r.admin(tenant0, "dev"), r.admin("t_busy", "dev")
	quit := make(chan struct{})
	var readers, others sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for last := 0; last < steps; {
				if f := r.s.Flags("t_own", "prod"); f.GestureRate != 7 {
					t.Errorf("in prod there is %+v", f)
				}
				for _, tenant := range []string{"t_acme", "t_own", "t_busy", tenant0} {
					f := r.s.Flags(tenant, "dev")
					now, ok := state(f)
					if !ok || tenant != "t_busy" && f.Replay != (tenant != "t_own") {
						t.Errorf("%s never had %+v", tenant, f)
						return
					}
					if now < last {
						t.Errorf("the flags went from state %d back to %d", last, now)
					}
					last = now
				}
			}
		})
	}
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := r.s.Set(busy, "replay", request(fmt.Sprint(i%2 == 0))); err != nil {
				t.Errorf("set: %v", err)
			}
			if now := r.s.Flags("t_busy", "dev"); now.Replay != (i%2 == 0) {
				t.Errorf("after its change %d, t_busy has %+v", i, now)
			}
			if _, err := r.s.List(busy); err != nil {
				t.Errorf("list: %v", err)
			}
		}
	})
	for i := 1; i <= steps; i++ {
		name, value := "gesture_rate", fmt.Sprint((i+1)/2+30)
		if i%2 == 0 {
			name, value = "gesture_fanout", fmt.Sprint(i/2%2 == 1)
		}
		if _, err := r.s.Set(platform, name, request(value)); err != nil {
			t.Errorf("set: %v", err)
		}
		for _, tenant := range []string{"t_acme", "t_own", "t_busy"} {
			if now := r.s.Flags(tenant, "dev"); !is(now, i) {
				t.Errorf("after step %d, %s has %+v", i, tenant, now)
			}
		}
	}
	readers.Wait()
	close(quit)
	others.Wait()
}

func is(f feature.Flags, i int) bool {
	now, ok := state(f)
	return ok && now == i
}

// BenchmarkFlags has all readers read at once: what Flags does, and the same
// look-ups under a lock for reading.
func BenchmarkFlags(b *testing.B) {
	r := newRig(b)
	for i := range 1000 {
		r.set(fmt.Sprintf("t_%d", i+1), "dev", "gesture_rate", "60")
	}
	now := r.s.Current()
	b.Run("snapshot", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				r.s.Flags("t_500", "dev")
			}
		})
	})
	b.Run("lock", func(b *testing.B) {
		var mu sync.RWMutex
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				mu.RLock()
				now("t_500", "dev")
				mu.RUnlock()
			}
		})
	})
}

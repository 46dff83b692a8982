package session_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/auth/authtest"
	"github.com/twinrail/twinrail/internal/session"
	"github.com/twinrail/twinrail/internal/table"
)

const window = time.Minute

// tester is what both a test and a run of a property are.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// holder counts how often it was taken over.
type holder struct {
	mu    sync.Mutex
	taken int
}

func (h *holder) TakenOver() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken++
}

func (h *holder) times() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken
}

// rig is a registry over a table that outlives it.
type rig struct {
	t    tester
	g    *session.Registry
	gate *auth.Gate
	who  *auth.Context // whose sessions are

	table.Table        // the registry's view of memory
	memory             *table.Memory
	mu                 sync.Mutex
	put                func(key string, d table.Durability) error // before each Put, where set
	del                func()                                     // before each Delete, where set
	deletes, overTimes map[string]int
}

func newRig(t tester) *rig {
	r := &rig{t: t, memory: new(table.Memory), deletes: make(map[string]int), overTimes: make(map[string]int)}
	r.Table = r.memory
	issuer := authtest.New(t)
	r.gate, r.who = issuer.Gate(auth.GateOptions{}), issuer.Context("t_acme", "u_1")
	r.open()
	return r
}

// Put is that of a table that may fail.
func (r *rig) Put(key string, value []byte, d table.Durability) error {
	r.mu.Lock()
	put := r.put
	r.mu.Unlock()
	if put != nil {
		if err := put(key, d); err != nil {
			return err
		}
	}
	return r.Table.Put(key, value, d)
}

// Delete is that of a table that may be slow.
func (r *rig) Delete(key string, d table.Durability) error {
	r.mu.Lock()
	del := r.del
	r.mu.Unlock()
	if del != nil {
		del()
	}
	return r.Table.Delete(key, d)
}

// holdDeletes has every Delete wait until release is called.
func (r *rig) holdDeletes() (release func()) {
	on := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.del = func() { <-on }
	return func() { close(on) }
}

func (r *rig) onPut(fn func(key string, d table.Durability) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put = fn
}

// hang has the next Put of a session wait; release lets it go on.
func (r *rig) hang() (hangs <-chan struct{}, release func()) {
	at, on := make(chan struct{}), make(chan struct{})
	r.onPut(func(key string, _ table.Durability) error {
		if strings.HasPrefix(key, "s_") {
			r.onPut(nil)
			close(at)
			<-on
		}
		return nil
	})
	return at, func() { close(on) }
}

func (r *rig) open() {
	r.t.Helper()
	g, err := session.Open(session.Options{Window: window, Table: r, OnOver: func(s *session.Session) {
		s.Uses() // no lock is held
		r.mu.Lock()
		defer r.mu.Unlock()
		r.overTimes[s.ID()]++
	}})
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	r.g = g
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.g.Close(); err != nil {
		r.t.Fatalf("close: %v", err)
	}
}

// crash opens a registry over what the table has now, whatever the old one would
// do at its end.
func (r *rig) crash(down time.Duration) {
	r.t.Helper()
	left := new(table.Memory)
	if err := r.memory.Scan(func(key string, value []byte) error { return left.Put(key, value, table.Lazy) }); err != nil {
		r.t.Fatalf("scan: %v", err)
	}
	r.close()
	r.memory = left
	r.Table = left
	pass(down)
	r.open()
}

// over returns how often the session was said to be over.
func (r *rig) over(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.overTimes[id]
}

// ids returns the sessions in the table.
func (r *rig) ids() []string {
	r.t.Helper()
	var ids []string
	err := r.memory.Scan(func(key string, _ []byte) error {
		if key != "alive" {
			ids = append(ids, key)
		}
		return nil
	})
	if err != nil {
		r.t.Fatalf("scan: %v", err)
	}
	return ids
}

func (r *rig) wantIDs(ids ...string) {
	r.t.Helper()
	slices.Sort(ids)
	if got := r.ids(); !slices.Equal(got, ids) {
		r.t.Fatalf("the table has %q, want %q", got, ids)
	}
}

func (r *rig) wantLen(all, held int) {
	r.t.Helper()
	if a, h := r.g.Len(); a != all || h != held {
		r.t.Fatalf("%d sessions, %d of them held; want %d and %d", a, h, all, held)
	}
}

func (r *rig) new(h session.Holder) *session.Session {
	r.t.Helper()
	s, err := r.g.New(h)
	if err != nil {
		r.t.Fatalf("new: %v", err)
	}
	return s
}

func (r *rig) claim(id string, uses uint64, h session.Holder) *session.Session {
	r.t.Helper()
	s, err := r.g.Claim(r.resumes(id, uses), h)
	if err != nil {
		r.t.Fatalf("claim: %v", err)
	}
	if s.ID() != id || s.Uses() != uses+1 {
		r.t.Fatalf("claimed %s, which has been claimed %d times; want %s and %d", s.ID(), s.Uses(), id, uses+1)
	}
	return s
}

// resumes returns the right to go on with the session.
func (r *rig) resumes(id string, uses uint64) auth.Resumption {
	r.t.Helper()
	right, err := r.gate.OpenResume(r.who, r.gate.SealResume(r.who, auth.Resume{SessionID: id, Uses: uses}))
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	return right
}

// refuse checks that a claim is refused with the code.
func (r *rig) refuse(id string, uses uint64, code twinrail.Code) {
	r.t.Helper()
	s, err := r.g.Claim(r.resumes(id, uses), &holder{})
	var e *twinrail.Error
	if s != nil || !errors.As(err, &e) || e.Code != code {
		r.t.Fatalf("claim with %d uses: %v, %v; want %s", uses, s, err, code)
	}
}

// pass lets time go by, and what it brings about be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

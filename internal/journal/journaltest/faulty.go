package journaltest

import (
	"context"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// Faulty is a journal that fails as it is told, and otherwise does what the one
// inside of it does. Its methods may be called while it is in use.
type Faulty struct {
	inner  journal.Journal
	notify func(key string, last uint64)

	mu         sync.Mutex
	failAppend fault
	loseAck    fault
	readErr    error
	latency    time.Duration
	stall      chan struct{}     // closed on release; nil where nothing is stalled
	held       map[string]uint64 // the last seq of each notification; nil where none is held
}

var _ journal.Journal = (*Faulty)(nil)

// fault is an error that comes after some calls; in is 0 where none is due.
type fault struct {
	in  int
	err error
}

// due counts one call, and returns the error if it is that one's.
func (f *fault) due() error {
	if f.in == 0 {
		return nil
	}
	f.in--
	if f.in > 0 {
		return nil
	}
	return f.err
}

// NewFaulty returns a journal without faults around inner.
func NewFaulty(inner journal.Journal) *Faulty { return &Faulty{inner: inner} }

// FailAppend has the n-th append from now, counted from 1, fail with err and
// store nothing.
func (f *Faulty) FailAppend(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAppend = fault{n, err}
}

// LoseAck has the n-th append from now, counted from 1, fail with err although
// it is stored.
func (f *Faulty) LoseAck(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loseAck = fault{n, err}
}

// FailReads has all reads, seeks and bounds fail with err from now on, and Err
// return it, or go on where err is nil.
func (f *Faulty) FailReads(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readErr = err
}

// SetLatency has every call take that much longer.
func (f *Faulty) SetLatency(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency = d
}

// Stall has every append wait, before anything is stored, until release is
// called or its context ends. It must not be called again before.
func (f *Faulty) Stall() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stall := make(chan struct{})
	f.stall = stall
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stall = nil
		close(stall)
	}
}

// HoldNotify keeps notifications back until release is called, which sends the
// last one of each stream. It must not be called again before.
func (f *Faulty) HoldNotify() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = make(map[string]uint64)
	return func() {
		f.mu.Lock()
		held := f.held
		f.held = nil
		f.mu.Unlock()
		for key, last := range held {
			f.notify(key, last)
		}
	}
}

// Notify implements [journal.Journal].
func (f *Faulty) Notify(fn func(key string, last uint64)) {
	f.notify = fn
	f.inner.Notify(func(key string, last uint64) {
		if !f.hold(key, last) {
			fn(key, last)
		}
	})
}

func (f *Faulty) hold(key string, last uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == nil {
		return false
	}
	f.held[key] = max(f.held[key], last)
	return true
}

// Append implements [journal.Journal].
func (f *Faulty) Append(ctx context.Context, recs []journal.Record, expect journal.Expect) ([]journal.Result, error) {
	f.mu.Lock()
	stall, fail, lose := f.stall, f.failAppend.due(), f.loseAck.due()
	f.mu.Unlock()
	if stall != nil {
		select {
		case <-stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	if fail != nil {
		return nil, fail
	}
	results, err := f.inner.Append(ctx, recs, expect)
	if lose != nil {
		return nil, lose
	}
	return results, err
}

// wait takes the time that a call is told to take.
func (f *Faulty) wait(ctx context.Context) error {
	f.mu.Lock()
	latency := f.latency
	f.mu.Unlock()
	if latency == 0 {
		return nil
	}
	timer := time.NewTimer(latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Faulty) beforeRead(ctx context.Context) error {
	f.mu.Lock()
	err := f.readErr
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.wait(ctx)
}

// Read implements [journal.Journal].
func (f *Faulty) Read(ctx context.Context, r auth.Reader, after uint64, max int) (journal.Page, error) {
	if err := f.beforeRead(ctx); err != nil {
		return journal.Page{}, err
	}
	return f.inner.Read(ctx, r, after, max)
}

// Bounds implements [journal.Journal].
func (f *Faulty) Bounds(ctx context.Context, r auth.Reader) (journal.Bounds, error) {
	if err := f.beforeRead(ctx); err != nil {
		return journal.Bounds{}, err
	}
	return f.inner.Bounds(ctx, r)
}

// Seek implements [journal.Journal].
func (f *Faulty) Seek(ctx context.Context, r auth.Reader, c twinrail.Cursor) (uint64, error) {
	if err := f.beforeRead(ctx); err != nil {
		return 0, err
	}
	return f.inner.Seek(ctx, r, c)
}

// Err implements [journal.Journal].
func (f *Faulty) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.readErr != nil {
		return f.readErr
	}
	return f.inner.Err()
}

// Close implements [journal.Journal].
func (f *Faulty) Close() error { return f.inner.Close() }

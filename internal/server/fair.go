package server

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// What one tenant may have under way at a time, in one env. The rest waits in the
// order in which it came.
const (
	// publishUnits bounds the publishes that the journal has not answered: so few
	// that it takes them in within milliseconds. Each is one unit, and one more for
	// every unitEvents of its events, and for every unitBytes of its bytes.
	publishUnits = 16
	unitEvents   = 8
	unitBytes    = 8 << 10
	// A tenant that is alone has loneFactor times as many units: nobody waits
	// behind it, and the more the journal has at a time, the fewer syncs it takes.
	// It is alone when no other one has asked for anything for loneAfter.
	loneFactor = 16
	loneAfter  = time.Second
	// maxWaiting bounds the units that wait, of publishes, reads and openings each.
	maxWaiting = 16 << 10
)

// bulk returns how many reads of its backlogs a tenant has under way, on the rails
// and in history each. While a processor is left over, the runtime looks for input
// at once, and otherwise only now and then.
func bulk() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// openings returns how many connections of a tenant are being opened: more than
// it has reads, so that all of them are back soon after a restart, even with a
// pause between any two.
func openings() int { return 4 * bulk() }

// overloadedFor is what a tenant is told to wait that has maxWaiting waiting.
const overloadedFor = 2 * time.Second

// tenant is who has a share.
type tenant struct{ id, env string }

func tenantOf(ac *auth.Context) tenant {
	id := ac.Principal().Identity()
	return tenant{id.TenantID, id.Env}
}

// share is a tenant's part of what all tenants share: its links take turns with
// each other, and all of them together with those of another tenant.
type share struct {
	tenant tenant
	users  int // guarded by shares.mu

	publishes, reads, openings places
	bodies                     atomic.Int64 // bytes of those that are being read

	// Guarded by engine.mu.
	ready   fifo[*link]  // to be driven
	lagging fifo[*link]  // to go on where the disk may be waited for
	drivers int          // of those that lag
	lined   atomic.Int64 // as many as lagging has; written there
}

// shares holds the shares that are in use.
type shares struct {
	pacer *pacer // nil paces nobody

	mu sync.Mutex
	of map[tenant]*share
	// The tenant that asked last, and the last one before it that is another.
	latest, other asked
}

type asked struct {
	by tenant
	at time.Time
}

// alone notes that t asks for something, and reports whether nobody else does.
func (s *shares) alone(t tenant, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest.by != t {
		s.other = s.latest
	}
	s.latest = asked{t, now}
	return s.other.at.IsZero() || now.Sub(s.other.at) >= loneAfter
}

// join returns the share of t; leave must be called when it is no longer used.
func (s *shares) join(t tenant) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.of[t]
	if sh == nil {
		sh = &share{
			tenant: t, publishes: newPlaces(publishUnits * loneFactor),
			reads: newPlaces(int64(bulk())), openings: newPlaces(int64(openings()) * loneFactor),
		}
		s.of[t] = sh
	}
	sh.users++
	return sh
}

func (s *shares) leave(sh *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.users--; sh.users == 0 {
		delete(s.of, sh.tenant)
	}
}

// takePublish waits until the tenant may have a publish of so many events, with so
// many bytes, in the journal. What it returns must be called when the journal has
// answered. It has code overloaded where too many wait already.
func (s *shares) takePublish(ctx context.Context, t tenant, events, bytes int) (done func(), err error) {
	units := min(1+events/unitEvents+bytes/unitBytes, publishUnits)
	return s.take(ctx, t, func(sh *share) *places { return &sh.publishes }, int64(units), loneFactor, nil)
}

// takeRead is takePublish for a page of the journal.
func (s *shares) takeRead(ctx context.Context, t tenant) (done func(), err error) {
	return s.take(ctx, t, func(sh *share) *places { return &sh.reads }, 1, 1, nil)
}

// takeOpening is takePublish for what a new connection does until it has its
// place in a stream. To open one takes so little that there may be nobody in line
// for it, however many come: whoever waits for what they then do counts, too.
func (s *shares) takeOpening(ctx context.Context, t tenant) (done func(), err error) {
	return s.take(ctx, t, func(sh *share) *places { return &sh.openings }, 1, loneFactor, (*share).behind)
}

// behind returns how many of the tenant wait for something to be read.
func (sh *share) behind() int64 { return sh.reads.waiting.Load() + sh.linedUp() }

// linedUp returns how many of a tenant's links lag, but for one: it may be the
// link that was driven last.
func (sh *share) linedUp() int64 { return max(sh.lined.Load()-1, 0) }

// take takes units of a tenant's places, each of which is as many as beside says
// unless it is alone. Besides those who wait for these places, more, where not nil,
// says who is in line.
func (s *shares) take(ctx context.Context, t tenant, of func(*share) *places, units, beside int64, more func(*share) int64) (done func(), err error) {
	alone := s.alone(t, time.Now())
	n := units
	if !alone {
		n *= beside
	}
	sh := s.join(t)
	p := of(sh)
	if err := p.take(ctx, n, units); err != nil {
		s.leave(sh)
		return nil, err
	}
	give := func() {
		p.give(n)
		s.leave(sh)
	}
	return func() {
		inLine := p.waiting.Load()
		if more != nil {
			inLine += more(sh)
		}
		if pause := s.pause(inLine, alone); pause > 0 {
			time.AfterFunc(pause, give)
			return
		}
		give()
	}, nil
}

// pause returns how long a tenant pauses that has so many in line.
func (s *shares) pause(inLine int64, alone bool) time.Duration {
	if inLine == 0 || alone || s.pacer == nil {
		return 0
	}
	return s.pacer.between()
}

// places is a number of places, given to those who ask in their order.
type places struct {
	free    *semaphore.Weighted
	waiting atomic.Int64 // units
}

func newPlaces(n int64) places { return places{free: semaphore.NewWeighted(n)} }

// take waits for n places, unless more than maxWaiting units would wait.
func (p *places) take(ctx context.Context, n, units int64) error {
	if p.free.TryAcquire(n) {
		return nil
	}
	defer p.waiting.Add(-units)
	if p.waiting.Add(units) > maxWaiting {
		return &twinrail.Error{Code: twinrail.CodeOverloaded, Detail: "too many requests of this tenant are waiting", RetryAfter: overloadedFor}
	}
	return p.free.Acquire(ctx, n)
}

func (p *places) give(n int64) { p.free.Release(n) }

// fifo is a queue of which what was taken is let go of. Its zero value is empty.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) {
	if q.head > len(q.items)/2 {
		// Under load it may never be empty.
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// pop is for one that is not empty.
func (q *fifo[T]) pop() T {
	var none T
	v := q.items[q.head]
	q.items[q.head] = none
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v
}

// lag has a running link go on where the disk may be waited for. One that had
// something to say meanwhile, and left the line for that, has not lost its place.
func (e *engine) lag(l *link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if !l.lined {
		l.lined = true
		l.share.lagging.push(l)
		l.share.lined.Add(1)
	}
	if !l.state.CompareAndSwap(running, inLine) { // it was kicked since
		l.state.Store(queued)
		e.runLocked(l)
	}
	e.staffLagging(l.share)
}

// staffLagging is called with mu held.
func (e *engine) staffLagging(s *share) {
	if s.lagging.len() > 0 && s.drivers < e.maxDrivers {
		s.drivers++
		e.wg.Go(func() { e.driveLagging(s) })
	}
}

func (e *engine) driveLagging(s *share) {
	resign := func() { e.endDriver(s) }
	for l := e.popLagging(s); l != nil; l = e.popLagging(s) {
		if !l.round(l.rail.gather, l.goOn, resign) {
			return
		}
		pause := e.shares.pause(s.linedUp(), e.shares.alone(s.tenant, time.Now()))
		if pause > 0 {
			time.Sleep(pause)
			continue
		}
		// One page after the other would keep a processor for as long as the
		// scheduler's slice is.
		runtime.Gosched()
	}
}

// popLagging returns nil, and takes the driver off the list, when none is left.
func (e *engine) popLagging(s *share) *link {
	e.mu.Lock()
	defer e.mu.Unlock()
	for s.lagging.len() > 0 {
		l := s.lagging.pop()
		s.lined.Add(-1)
		l.lined = false
		if l.state.CompareAndSwap(inLine, running) {
			return l
		}
		// A worker has it, and puts it into the line again if it still lags.
	}
	s.drivers--
	return nil
}

// endDriver is called by a driver that takes no more links.
func (e *engine) endDriver(s *share) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.drivers--
	e.staffLagging(s)
}

// Package session keeps what outlives a connection of the WS rail.
//
// A session has a holder, its connection. When that is lost, the session waits
// for another one to claim it, for the resume window; after that it is over.
// Who claims a session that has a holder takes it over.
//
// That a session exists, and how often it has been claimed, is kept in a table,
// so that a restart of the server neither ends it nor lets a claim be made twice.
package session

import (
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/table"
)

// Options is what a [Registry] is made of. The zero value of a field means its
// default, where the comment names one.
type Options struct {
	// Window is how long a session waits for its next holder. Default 2 min.
	Window time.Duration
	// Table keeps the sessions. Default one in memory.
	Table table.Table
	// OnOver, where set, is told of each session that is over. It must not block.
	OnOver func(*Session)
}

func (o Options) withDefaults() Options {
	if o.Window == 0 {
		o.Window = 2 * time.Minute
	}
	if o.Table == nil {
		o.Table = new(table.Memory)
	}
	if o.OnOver == nil {
		o.OnOver = func(*Session) {}
	}
	return o
}

// ErrClosed is returned once the registry was closed.
var ErrClosed = errors.New("session: the registry is closed")

// Holder is the connection that a session goes on over. It is a pointer.
type Holder interface {
	// TakenOver says that another holder has the session now. It must not block,
	// and may be called before the Claim by which the holder got the session has
	// returned.
	TakenOver()
}

// Registry has all sessions. Its methods may be called concurrently.
type Registry struct {
	options Options
	start   time.Time // what moments are counted from, by the monotonic clock
	over    *time.Timer
	ended   chan struct{} // takes one, when there is something in rows
	quit    chan struct{}
	done    chan struct{}  // closed at the end of run
	writes  sync.WaitGroup // changes of the table; none begins after closed

	mu       sync.Mutex // guards what follows, and the sessions
	closed   bool
	sessions map[string]*Session
	held     int
	lost     list // the others, the one that was lost first at the front
	lostBy   map[owner]map[*loss]struct{}
	rows     []string // of sessions that are over, for run to delete; at most maxRows
}

// owner is the tenant and env that sessions are in.
type owner struct{ tenant, env string }

func ownerOf(p *auth.Principal) owner {
	id := p.Identity()
	return owner{id.TenantID, id.Env}
}

// Session is one session.
type Session struct {
	g  *Registry
	id string

	// Guarded by g.mu.
	holder   Holder // nil while the session waits
	loss     *loss  // nil while it does not
	uses     uint64
	value    any
	claiming bool // a claim is being made durable
}

// Open returns the registry that is in the table. Sessions that had a holder
// when the server ended have been lost then, within a few seconds; those that
// waited begin to wait anew.
func Open(o Options) (*Registry, error) {
	g := &Registry{
		options:  o.withDefaults(),
		start:    time.Now(),
		ended:    make(chan struct{}, 1),
		quit:     make(chan struct{}),
		done:     make(chan struct{}),
		sessions: make(map[string]*Session),
		lostBy:   make(map[owner]map[*loss]struct{}),
	}
	if err := g.load(); err != nil {
		return nil, err
	}
	if err := g.stamp(table.Lazy); err != nil {
		return nil, err
	}
	g.over = time.NewTimer(g.lost.wait(g.since()))
	go g.run()
	return g, nil
}

// Close ends the registry; its sessions stay in the table, which is not used any
// more afterwards. Claims that are under way are made before; Lose and End do
// nothing any more.
func (g *Registry) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	close(g.quit)
	g.mu.Unlock()

	<-g.done
	g.writes.Wait()
	return g.stamp(table.Synced)
}

// since is the moment that it is now.
func (g *Registry) since() time.Duration { return time.Since(g.start) }

// begin is called before the table is changed; where it returns no error, the
// caller calls g.writes.Done afterwards.
func (g *Registry) begin() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	g.writes.Add(1)
	return nil
}

// New returns a new session that h holds.
func (g *Registry) New(h Holder) (*Session, error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	defer g.writes.Done()
	s := &Session{g: g, id: newID(), holder: h}
	// First the table, so that nobody can change the row before it is there.
	if err := g.options.Table.Put(s.id, formatUses(0), table.Lazy); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions[s.id] = s
	g.held++
	return s, nil
}

const idPrefix = "s_"

func newID() string { return idPrefix + strings.ToLower(rand.Text()) }

// Claim gives the session of what to h, which must not hold another one, and
// returns it once that is durable. Where it was claimed since the token that what
// comes from was made, or somebody else is about to claim it, that is resume_used.
// Where it is over, or there is none, it is resume_expired. The holder that it is taken from, if there is one, is told
// before Claim returns. After another error nothing has changed, as long as the
// server runs; whether the claim is counted after its end is open.
func (g *Registry) Claim(what auth.Resumption, h Holder) (*Session, error) {
	if err := g.begin(); err != nil {
		return nil, err
	}
	defer g.writes.Done()
	id, uses := what.SessionID(), what.Uses()
	s, err := g.claim(id, uses)
	if err != nil {
		return nil, err
	}
	// Each count of uses is claimed once at most, whatever happens here. Should
	// this fail, nobody has the session by that count, so that it can be claimed
	// by it again. Should the row have been written all the same, and the server
	// end before, the count is void: a claim too few, never one too many.
	err = g.options.Table.Put(id, formatUses(uses+1), table.Synced)
	old, over := g.claimed(s, h, err == nil)
	if over {
		// It ended meanwhile, and its row may have been deleted before the Put.
		_ = g.options.Table.Delete(id, table.Lazy) // see drop
		return nil, expired()
	}
	if err != nil {
		return nil, err
	}
	if old != nil && old != h {
		old.TakenOver()
	}
	return s, nil
}

// claim returns the session, for one claimant at a time.
func (g *Registry) claim(id string, uses uint64) (*Session, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.sessions[id]
	switch {
	case !ok:
		return nil, expired()
	case uses < s.uses, uses == s.uses && s.claiming:
		return nil, twinrail.Errorf(twinrail.CodeResumeUsed, "", "the session was resumed with a token of this age before")
	case uses > s.uses: // a token from a future that the table was rolled back from
		return nil, expired()
	}
	s.claiming = true
	return s, nil
}

// claimed ends what claim began. It returns the holder until now, and whether
// the session is over.
func (g *Registry) claimed(s *Session, h Holder, ok bool) (old Holder, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.claiming = false
	if g.sessions[s.id] != s {
		return nil, true
	}
	if !ok {
		return nil, false
	}
	if old = s.holder; old == nil {
		g.found(s)
		g.held++
	}
	s.holder = h
	s.uses++
	return old, false
}

func expired() error {
	return twinrail.Errorf(twinrail.CodeResumeExpired, "", "the session is over, or was never here")
}

// Len returns how many sessions there are, and how many of them are held.
func (g *Registry) Len() (all, held int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sessions), g.held
}

// ID returns the session's id, which is random.
func (s *Session) ID() string { return s.id }

// Uses returns how often the session has been claimed.
func (s *Session) Uses() uint64 {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	return s.uses
}

// Value returns what was set with SetValue. It does not outlive the server.
func (s *Session) Value() any {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	return s.value
}

// SetValue hangs something on the session.
func (s *Session) SetValue(v any) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.value = v
}

// Lose says that h, if it holds the session, is lost: the window begins. Whose is
// who h spoke for; see EndLost.
func (s *Session) Lose(h Holder, whose *auth.Principal) {
	g := s.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || s.holder == nil || s.holder != h {
		return
	}
	s.holder = nil
	g.held--
	g.wait(s, g.since()+g.options.Window, whose)
}

// wait puts s, which has no holder, among those that wait. Guarded by g.mu.
func (g *Registry) wait(s *Session, until time.Duration, whose *auth.Principal) {
	if g.lost.front == nil && g.over != nil {
		g.over.Reset(until - g.since())
	}
	l := &loss{session: s, until: until, whose: whose}
	s.loss = l
	g.lost.add(l)
	if whose == nil {
		return
	}
	by := ownerOf(whose)
	if g.lostBy[by] == nil {
		g.lostBy[by] = make(map[*loss]struct{})
	}
	g.lostBy[by][l] = struct{}{}
}

// found is called when s does not wait any more. Guarded by g.mu.
func (g *Registry) found(s *Session) {
	l := s.loss
	s.loss = nil
	g.lost.remove(l)
	if l.whose == nil {
		return
	}
	by := ownerOf(l.whose)
	if delete(g.lostBy[by], l); len(g.lostBy[by]) == 0 {
		delete(g.lostBy, by)
	}
}

// EndLost ends those sessions of the tenant in the env that wait, and of whose
// last holder's principal which reports true. It does not wait for the table.
func (g *Registry) EndLost(tenant, env string, which func(*auth.Principal) bool) {
	g.mu.Lock()
	losses := slices.Collect(maps.Keys(g.lostBy[owner{tenant, env}]))
	g.mu.Unlock()
	for _, l := range losses {
		if which(l.whose) && g.endLost(l) {
			g.options.OnOver(l.session)
		}
	}
}

// endLost reports whether the session is over now; it may have been claimed since.
func (g *Registry) endLost(l *loss) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || l.session.loss != l {
		return false
	}
	g.found(l.session)
	g.drop(l.session)
	return true
}

// End says that h, if it holds the session, ends it. It does not wait for the
// table.
func (s *Session) End(h Holder) {
	if s.end(h) {
		s.g.options.OnOver(s)
	}
}

// end reports whether the session is over now.
func (s *Session) end(h Holder) bool {
	g := s.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || s.holder == nil || s.holder != h {
		return false
	}
	s.holder = nil
	g.held--
	g.drop(s)
	return true
}

// maxRows bounds how many rows wait to be deleted. It takes a table that is stuck
// to come to it; then rows stay, as after a failure.
const maxRows = 1 << 16

// drop takes out a session that is over, and leaves its row to run. Should the row
// stay, the session is over once more within the window after the next start.
// Guarded by g.mu.
func (g *Registry) drop(s *Session) {
	delete(g.sessions, s.id)
	if len(g.rows) < maxRows {
		g.rows = append(g.rows, s.id)
	}
	select {
	case g.ended <- struct{}{}:
	default:
	}
}

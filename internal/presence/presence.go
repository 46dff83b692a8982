// Package presence knows who is where.
//
// A member is a session of an actor at an address: a stream, and the audience
// keys that the session stated. Members come and go, and change their state;
// those who watch a stream learn of those members whose audience they hold.
//
// A watcher is a cursor, like a subscriber of the hub: it has seen what was so
// at one moment, and [Watch.Next] tells the difference to now. Between two calls
// any number of changes collapse into one for each member, so that a slow
// watcher costs nothing, and a thousand who come at once are told of in a few
// batches.
package presence

import (
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// Options is what a [Registry] is made of. The zero value of a field means its
// default.
type Options struct {
	// Grace is how long a member stays after its connection was lost. Default
	// 10 s.
	Grace time.Duration
	// Interval is how often the watchers of a stream are woken at most: the first
	// change wakes them at once, what follows within the interval when that is
	// over. Default 50 ms.
	Interval time.Duration
	// MaxMembers bounds the members at one address. Default 4096.
	MaxMembers int
}

// MaxState bounds a member's state in bytes.
const MaxState = 2 << 10

// Registry knows all members. Its methods may be called concurrently.
type Registry struct{}

// New returns a Registry.
func New(o Options) *Registry { return &Registry{} }

// Members returns who is present where r reads, in the order in which they came.
func (g *Registry) Members(r auth.Reader) []twinrail.PresenceMember { return nil }

// Session is what one session of the WS rail is present with. Its methods may be
// called concurrently.
type Session struct{}

// Session returns a session that is present nowhere yet.
func (g *Registry) Session(id string) *Session { return &Session{} }

// Enter makes the session's actor a member at w's address, w being a right on
// the channel presence; where it is one already, it changes its state. Each
// Enter with a hold that is new for the address is to be followed by a Leave
// with the same one, or a Close. The state is any JSON value, or nil for none,
// and is kept. It has code limit_exceeded where the address has its fill.
func (s *Session) Enter(w auth.Writer, hold string, state []byte) error { return nil }

// Leave gives up a hold; with the last one at an address the member leaves, at
// once.
func (s *Session) Leave(hold string) {}

// Lose says that the connection was lost: unless the session is regained within
// the grace, its members leave then.
func (s *Session) Lose() {}

// Regain says that the session goes on over another connection, and keeps only
// the given holds. Members that have left meanwhile come again, with the state
// that they had; of the others nobody notices anything.
func (s *Session) Regain(holds []string) {}

// Close has all members of the session leave at once.
func (s *Session) Close() {}

// Changes is what became different: to be applied to what the watcher knew in
// this order. Those in Leave have no state.
type Changes struct {
	Leave, Join, Update []twinrail.PresenceMember
}

// Empty reports whether nothing became different.
func (c *Changes) Empty() bool { return len(c.Leave)+len(c.Join)+len(c.Update) == 0 }

// Watch is one who is told. Its methods but Close are for one goroutine at a
// time.
type Watch struct{}

// Watch begins to watch where r reads, and returns who is present; what Next
// returns goes on exactly from there. After a Next that found nothing, wake is
// called once, as soon as there is something; it must not block, and may be
// called from any goroutine, but not from within a call of this package's.
func (g *Registry) Watch(r auth.Reader, wake func()) (*Watch, []twinrail.PresenceMember) {
	return &Watch{}, nil
}

// Next returns what became different since the last call, or since Watch, of at
// most max members. Where it is empty the watcher is parked. It has code
// too_slow where the watcher is so far behind that it cannot be told any more.
func (w *Watch) Next(max int) (Changes, error) { return Changes{}, nil }

// Close ends the watch. Its wake may still be called once, if that was under
// way.
func (w *Watch) Close() {}

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
	"cmp"
	"slices"
	"sync"
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
type Registry struct {
	opts Options

	mu    sync.Mutex
	rooms map[string]*room // by home key
}

// New returns a Registry.
func New(o Options) *Registry {
	o.Grace = cmp.Or(o.Grace, 10*time.Second)
	o.Interval = cmp.Or(o.Interval, 50*time.Millisecond)
	o.MaxMembers = cmp.Or(o.MaxMembers, 4096)
	return &Registry{opts: o, rooms: make(map[string]*room)}
}

// Members returns those present where r reads, in the order in which they came: up
// to limit, which is positive, of those after a position. Where there are more, next
// is where to go on, else it is zero. The slice is the caller's, what it points to
// is shared.
//
// Who is present from the first call to the last of such a series is in one of
// them, whoever comes and goes meanwhile.
func (g *Registry) Members(r auth.Reader, after Position, limit int) (members []twinrail.PresenceMember, next Position) {
	g.mu.Lock()
	rm := g.rooms[r.Key()]
	g.mu.Unlock()
	if rm == nil {
		return []twinrail.PresenceMember{}, next
	}
	rm.mu.Lock()
	seen := rm.seenBy(r, after)
	rm.mu.Unlock()
	views := inOrder(seen)
	if len(seen) > limit {
		views, next = views[:limit], seen[limit-1].at
	}
	return copied(views), next
}

// acquire returns the room of a stream, to be given back with release. Each
// member and each watcher holds it once.
func (g *Registry) acquire(key string) *room {
	g.mu.Lock()
	defer g.mu.Unlock()
	rm := g.rooms[key]
	if rm == nil {
		rm = &room{opts: &g.opts, key: key, places: make(map[twinrail.Audience]*place)}
		g.rooms[key] = rm
	}
	rm.refs++
	return rm
}

func (g *Registry) release(rm *room) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if rm.refs--; rm.refs == 0 {
		delete(g.rooms, rm.key)
	}
}

// sighting is a member as it is seen at one moment.
type sighting struct {
	at   Position
	view *twinrail.PresenceMember
}

// inOrder sorts those seen by when they came, and returns them. It is called
// outside of the room's lock.
func inOrder(seen []sighting) []*twinrail.PresenceMember {
	slices.SortFunc(seen, func(a, b sighting) int { return a.at.compare(b.at) })
	views := make([]*twinrail.PresenceMember, len(seen))
	for i := range seen {
		views[i] = seen[i].view
	}
	return views
}

// copied returns what is the caller's own, an empty list where there is nobody.
func copied(views []*twinrail.PresenceMember) []twinrail.PresenceMember {
	members := make([]twinrail.PresenceMember, len(views))
	for i := range views {
		members[i] = *views[i]
	}
	return members
}

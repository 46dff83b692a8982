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
	"time"

	"github.com/twinrail/twinrail/internal/table"
)

// Options is what a [Registry] is made of. The zero value of a field means its
// default, where the comment names one.
type Options struct {
	// Window is how long a session waits for its next holder. Default 2 min.
	Window time.Duration
	// Table keeps the sessions. Default one in memory.
	Table table.Table
	// OnOver, where set, is told of each session that is over.
	OnOver func(*Session)
}

// Holder is the connection that a session goes on over.
type Holder interface {
	// TakenOver says that another holder has the session now. It must not block.
	TakenOver()
}

// Registry has all sessions. Its methods may be called concurrently.
type Registry struct{}

// Open returns the registry that is in the table. Sessions that had a holder
// when the server ended have been lost then, within a few seconds.
func Open(o Options) (*Registry, error) { return &Registry{}, nil }

// New returns a new session that h holds.
func (g *Registry) New(h Holder) (*Session, error) { return &Session{}, nil }

// Claim gives the session to h, which must not hold another one, and returns it
// once that is durable. Uses is how often the session had been claimed before as
// far as the claimant knows: where it was claimed since, that is resume_used.
// Where it is over, or there is none, it is resume_expired. The holder that it
// is taken from, if there is one, is told before Claim returns.
func (g *Registry) Claim(id string, uses uint64, h Holder) (*Session, error) { return &Session{}, nil }

// Len returns how many sessions there are, and how many of them are held.
func (g *Registry) Len() (all, held int) { return 0, 0 }

// Close ends the registry; its sessions stay in the table.
func (g *Registry) Close() error { return nil }

// Session is one session.
type Session struct{}

// ID returns the session's id, which is random.
func (s *Session) ID() string { return "" }

// Uses returns how often the session has been claimed.
func (s *Session) Uses() uint64 { return 0 }

// Lose says that h, if it holds the session, is lost: the window begins.
func (s *Session) Lose(h Holder) {}

// End says that h, if it holds the session, ends it.
func (s *Session) End(h Holder) {}

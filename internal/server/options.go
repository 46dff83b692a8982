package server

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/table"
)

// Options is what a [Server] is made of. The zero value of a field means its
// default, where the comment names one.
type Options struct {
	// Journal keeps the events. Required; the server does not close it.
	Journal journal.Journal
	// Gate checks credentials. Required; the server takes its OnRevoke.
	Gate *auth.Gate
	// Sessions keeps the sessions of the WS rail. Default a table in memory,
	// with which they do not outlive the process.
	Sessions table.Table
	// AllowedOrigins lists the exact origins, such as https://app.example.com,
	// whose pages may read answers (CORS). Default none.
	AllowedOrigins []string
	// Flags says what tenants may do. Default all that is built in, for ever; the
	// server takes its OnChange.
	Flags *feature.Store

	// Heartbeat is how often the server pings a WebSocket, and how often it
	// writes a comment into an SSE stream (±10 %). Default 15 s.
	Heartbeat time.Duration
	// Gather is how long a connection that was just written to is left alone,
	// so that what comes meanwhile goes out in one write. Default 5 ms; negative
	// gathers nothing.
	Gather time.Duration
	// WriteTimeout is how long one write may take before its connection is
	// given up as too slow. Default 30 s.
	WriteTimeout time.Duration
	// Window is how many bytes of each hot stream are held encoded in memory.
	// Default 1 MiB; negative holds nothing.
	Window int
	// WindowBudget bounds the bytes that are so held of all streams together.
	// Default 256 MiB; negative is no bound.
	WindowBudget int
	// MaxEvent bounds an event's data in bytes. Default 64 KiB.
	MaxEvent int
	// MaxFrame bounds a WebSocket message in bytes. Default 1 MiB.
	MaxFrame int
	// MaxBody bounds a request body in bytes. Default 8 MiB.
	MaxBody int
	// MaxBodies bounds the bytes of the request bodies and WebSocket messages of a
	// tenant in one env that are being read at a time. One may be as large as MaxBody
	// or MaxFrame all the same. Default 64 MiB; negative is no bound.
	MaxBodies int
	// ResumeWindow is how long a session of the WS rail waits for its client to
	// come back. Default 2 min.
	ResumeWindow time.Duration
	// PresenceGrace is how long who lost its connection is still present.
	// Default 10 s.
	PresenceGrace time.Duration
	// MaxMembers bounds who is present at one address. Default 4096.
	MaxMembers int
	// MaxJoins bounds the subscriptions of one WebSocket. Default 128.
	MaxJoins int
	// MaxConnections bounds the connections of a tenant in one env, of both rails
	// together. Default 50,000; negative is no bound.
	MaxConnections int
	// JoinRate bounds how many connections, joins and tickets a tenant opens in one
	// env in a second; a resumed subscription is a join. Twice as many, and at least
	// MaxJoins, may come at once. Default 10,000; negative is no bound.
	JoinRate int
	// PublishRate bounds the events that a tenant publishes in one env in a second,
	// and, apart from them, its gestures. At least those of one publish may come at
	// once. Default 50,000; negative is no bound.
	PublishRate int
	// PublishBytes bounds the bytes of each of the two in a second. At least MaxBody and MaxFrame
	// may come at once. Default 64 MiB; negative is no bound.
	PublishBytes int
	// FrameRate bounds the frames that a WebSocket sends in a second. Twice as many
	// may come at once. Default 1000; negative is no bound.
	FrameRate int
	// ChangeRate bounds how many cookie sessions a tenant's members open and end in
	// one env in a second, and, apart from them, its revocations and changes of
	// flags. Twice as many may come at once. Default 200; negative is no bound.
	ChangeRate int
	// MaxLateness is how late the server may notice what comes in before it slows
	// tenants that always have requests in line, where they are not alone. Default
	// 200 µs; negative slows nobody.
	MaxLateness time.Duration
	// DrainWindow is the time over which a draining server spreads the return
	// of its clients. Default 10 s.
	DrainWindow time.Duration
	// ReturnRate bounds how many clients a draining server tells to return within
	// a second; where they are more than fit, they are spread over a longer time
	// than DrainWindow. Default 1000.
	ReturnRate int

	// Logger takes what an operator should know. Default discards.
	Logger *slog.Logger
	// Registry takes the metrics. Default a new one.
	Registry *prometheus.Registry
}

package server

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// Options is what a [Server] is made of. The zero value of a field means its
// default, where the comment names one.
type Options struct {
	// Journal keeps the events. Required; the server does not close it.
	Journal journal.Journal
	// Verifier checks credentials. Required.
	Verifier *auth.Verifier
	// AllowedOrigins lists the exact origins, such as https://app.example.com,
	// whose pages may read answers (CORS). Default none.
	AllowedOrigins []string
	// DisableSSE and DisableWS refuse a rail to everyone.
	DisableSSE bool
	DisableWS  bool

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
	// MaxEvent bounds an event's data in bytes. Default 64 KiB.
	MaxEvent int
	// MaxFrame bounds a WebSocket message in bytes. Default 1 MiB.
	MaxFrame int
	// MaxBody bounds a request body in bytes. Default 8 MiB.
	MaxBody int
	// MaxJoins bounds the subscriptions of one WebSocket. Default 128.
	MaxJoins int
	// DrainWindow is the time over which a draining server spreads the return
	// of its clients. Default 10 s.
	DrainWindow time.Duration

	// Logger takes what an operator should know. Default discards.
	Logger *slog.Logger
	// Registry takes the metrics. Default a new one.
	Registry *prometheus.Registry
}

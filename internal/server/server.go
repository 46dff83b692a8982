// Package server is the HTTP interface and the two rails.
package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/feature"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/presence"
	"github.com/twinrail/twinrail/internal/session"
	"github.com/twinrail/twinrail/internal/table"
)

// Server serves both rails over one journal.
type Server struct {
	opts      Options
	log       *slog.Logger
	metrics   *metrics
	delivered map[twinrail.Rail]prometheus.Counter
	origins   map[string]bool
	hub       *hub.Hub
	presence  *presence.Registry
	sessions  *session.Registry
	limits    limits
	engine    *engine
	pages     sync.Pool // of *history
	public    http.Handler
	admin     http.Handler

	stop     context.CancelFunc // ends the engine's context
	draining atomic.Bool

	mu          sync.Mutex
	connections connections
	publishing  int           // publishes of WebSockets under way
	idle        chan struct{} // closed when draining and nothing is left; nil before
	closed      bool
	lastReturn  time.Time // of those that clients were told; see returnAfter
}

// connection is one of either rail.
type connection interface {
	name() string
	// context returns whose connection it is, and until when.
	context() *auth.Context
	// renew puts ac in the place of the context was. What ac gives no right to ends.
	// It does nothing, and returns false, where was is the context no more.
	renew(was, ac *auth.Context) bool
	// drain tells the client to come back after the given time, and ends.
	drain(after time.Duration)
	// rail returns which it is on.
	rail() twinrail.Rail
	// refuse tells the client that it is not to come back, and why, and ends.
	refuse(code twinrail.Code)
	// apply has the connection, whose rail is on, go by flags.
	apply(flags *feature.Flags)
	// abort ends at once.
	abort()
}

// New returns a server made of o, which takes the journal's notifications.
func New(o Options) (*Server, error) {
	if o.Journal == nil || o.Gate == nil {
		return nil, errors.New("server: Journal and Gate are required")
	}
	w, err := newWatcher()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return newServer(o, w)
}

// newServer is New with the watcher given, which it takes over.
func newServer(o Options, w watcher) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	sessions, err := session.Open(session.Options{Window: o.ResumeWindow, Table: o.Sessions, OnOver: sessionOver})
	if err != nil {
		return nil, fmt.Errorf("server: the sessions cannot be read: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m := newMetrics(o.Registry)
	s := &Server{
		opts: o, log: o.Logger, metrics: m, engine: newEngine(ctx, &o, m, w), stop: stop,
		hub: hub.New(o.Journal, hub.Options{
			Window: max(o.Window, 0), Budget: max(o.WindowBudget, 0), Encode: encode, EncodeGesture: encodeGesture, Label: labelEntry,
		}),
		presence: presence.New(presence.Options{Grace: o.PresenceGrace, MaxMembers: o.MaxMembers}),
		sessions: sessions,
		limits:   newLimits(),
		origins:  make(map[string]bool),
		delivered: map[twinrail.Rail]prometheus.Counter{
			twinrail.RailSSE: m.delivered.WithLabelValues(string(twinrail.RailSSE)),
			twinrail.RailWS:  m.delivered.WithLabelValues(string(twinrail.RailWS)),
		},
	}
	observeHub(o.Registry, s.hub)
	if p := s.engine.shares.pacer; p != nil {
		observePause(o.Registry, p)
	}
	for _, origin := range o.AllowedOrigins {
		s.origins[origin] = true
	}
	s.public, s.admin = s.routes(), s.adminRoutes()
	o.Gate.OnRevoke(s.sweep)
	s.opts.Flags.OnChange(s.applyFlags)
	return s, nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	get := func(h handler) http.Handler { return s.handle(methods{http.MethodGet: h}) }
	post := func(h handler) http.Handler { return s.handle(methods{http.MethodPost: h}) }
	mux.Handle(twinrail.PathSSECanvases+"{canvas_id}", get(s.serveSSE))
	mux.Handle(twinrail.PathWS, get(s.serveWS))
	mux.Handle(twinrail.PathPublish, post(s.servePublish))
	mux.Handle(twinrail.PathHistory, get(s.serveHistory))
	mux.Handle(twinrail.PathPresence, get(s.servePresence))
	mux.Handle(twinrail.PathTickets, post(s.serveTicket))
	mux.Handle(twinrail.PathSession, s.handle(methods{http.MethodPost: s.openSession, http.MethodDelete: s.endSession}))
	mux.Handle(twinrail.PathConnections+"{connection_id}/auth", post(s.serveRenewal))
	mux.Handle(twinrail.PathRevocations, post(s.serveRevocation))
	mux.Handle(twinrail.PathFlags, get(s.serveFlags))
	mux.Handle(twinrail.PathFlags+"/{name}", s.handle(methods{http.MethodPut: s.setFlag, http.MethodDelete: s.unsetFlag}))
	mux.Handle("/", s.handle(nil))
	return mux
}

// Handler returns the public interface.
func (s *Server) Handler() http.Handler { return s.public }

// AdminHandler returns /healthz, /readyz, /metrics and pprof, for a listener of
// their own.
func (s *Server) AdminHandler() http.Handler { return s.admin }

// handler answers a request, or returns the error that is the answer.
type handler func(http.ResponseWriter, *http.Request) error

// methods has the handlers of one path.
type methods map[string]handler

// names returns the methods, as a header lists them.
func (m methods) names() string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }

// handle gives every request its ids, answers CORS, and turns errors into
// problem documents. With no methods at all there is nothing at the path.
func (s *Server) handle(m methods) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, trace := auth.RequestID(r), auth.Traceparent(r)
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("Traceparent", trace)
		w.Header().Set("X-Content-Type-Options", "nosniff") // what clients wrote is in it unescaped
		if s.cors(w, r, m) {
			return
		}
		h := m[r.Method]
		switch {
		case len(m) == 0:
			s.problem(w, r, id, &twinrail.Error{Code: twinrail.CodeNotFound})
			return
		case h == nil:
			w.Header().Set("Allow", m.names())
			s.problem(w, r, id, twinrail.Errorf(twinrail.CodeMethodNotAllowed, "", "only %s", m.names()))
			return
		}
		if err := h(w, r); err != nil && !errors.Is(err, errAnswered) {
			s.problem(w, r, id, err)
		}
	})
}

// errAnswered says that a handler failed after its answer had begun.
var errAnswered = errors.New("server: failed after the answer began")

func abandoned(err error) error { return fmt.Errorf("%w: %w", errAnswered, err) }

// admit makes the checks that come before an address is known: credential,
// context, where rail is not "" whether that is switched on, and whether a ticket
// is for it.
func (s *Server) admit(r *http.Request, rail twinrail.Rail) (*auth.Context, error) {
	ac, err := s.opts.Gate.Admit(r)
	if err != nil {
		return nil, err
	}
	if flags := s.flagsOf(ac); !flags.AllowsRail(rail) {
		return nil, &twinrail.Error{Code: twinrail.CodeRailDisabled}
	}
	if !ac.AllowsRail(rail) {
		return nil, &twinrail.Error{Code: twinrail.CodeNotFound}
	}
	return ac, nil
}

// closedCode returns why a connection ended: the code that the server gave, or
// "" where the peer left.
func closedCode(cause error, ending *twinrail.End) twinrail.Code {
	switch {
	case ending != nil:
		return ending.Code
	case cause == nil, isTransport(cause):
		return ""
	}
	return asError(cause).Code
}

// newID returns a random id of 130 bits behind prefix.
func newID(prefix string) string {
	return prefix + strings.ToLower(rand.Text())
}

func (o *Options) setDefaults() (err error) {
	setDefault(&o.Heartbeat, 15*time.Second)
	setDefault(&o.Gather, 5*time.Millisecond)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.DrainWindow, 10*time.Second)
	setDefault(&o.ReturnRate, 1000)
	setDefault(&o.MaxMembers, 4096)
	setDefault(&o.Window, 1<<20)
	setDefault(&o.WindowBudget, 256<<20)
	setDefault(&o.MaxEvent, 64<<10)
	setDefault(&o.MaxFrame, 1<<20)
	setDefault(&o.MaxBody, 8<<20)
	setDefault(&o.MaxBodies, 64<<20)
	setDefault(&o.MaxJoins, 128)
	setDefault(&o.MaxConnections, 50_000)
	setDefault(&o.JoinRate, 10_000)
	setDefault(&o.PublishRate, 50_000)
	setDefault(&o.PublishBytes, 64<<20)
	setDefault(&o.FrameRate, 1000)
	setDefault(&o.ChangeRate, 200)
	setDefault(&o.MaxLateness, 200*time.Microsecond)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Flags == nil {
		o.Flags, err = feature.Open(new(table.Memory), feature.Options{Logger: o.Logger})
	}
	return err
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

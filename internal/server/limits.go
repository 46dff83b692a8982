package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
	"github.com/twinrail/twinrail/internal/limit"
)

// The limits, as the field of an error and the label of the metric name them.
const (
	limitConnections = "connections"
	limitJoins       = "joins"
	limitPublishes   = "publishes"
	limitBytes       = "bytes"
	limitFrames      = "frames"
	limitGestures    = "gestures"
	limitChanges     = "changes"
	limitBodies      = "bodies"
)

// gestureActor is who has a rate of gestures.
type gestureActor struct {
	tenant
	actor string
}

// changer is who has a rate of changes: of a tenant the members, or those who
// administer it, whom no member is to keep from that.
type changer struct {
	tenant
	admin bool
}

// limits is what tenants and actors use of what they may. A connection's own rate
// is with the connection.
type limits struct {
	connections *limit.Counts[tenant]
	joins       *limit.Rates[tenant]
	publishes   *limit.Rates[tenant] // events, and bytes
	gestures    *limit.Rates[gestureActor]
	changes     *limit.Rates[changer]
	// Rates of their own, so that a tenant's gestures keep none of its commits back.
	tenantGestures *limit.Rates[tenant]
}

func newLimits() limits {
	return limits{
		connections: new(limit.Counts[tenant]),
		joins:       limit.NewRates[tenant](),
		publishes:   limit.NewRates[tenant](),
		gestures:    limit.NewRates[gestureActor](),
		changes:     limit.NewRates[changer](),

		tenantGestures: limit.NewRates[tenant](),
	}
}

// over counts a refusal, and returns it.
func (s *Server) over(code twinrail.Code, name string, after time.Duration, format string, args ...any) error {
	s.metrics.limited.WithLabelValues(name).Inc()
	return &twinrail.Error{Code: code, Field: name, Detail: fmt.Sprintf(format, args...), RetryAfter: max(after, time.Millisecond)}
}

// takePlace takes what a new connection takes of its tenant's. Enter, and then
// leave, have the place given back; before that leavePlace does.
func (s *Server) takePlace(ac *auth.Context) error {
	most := s.opts.MaxConnections
	if most >= 0 && !s.limits.connections.Acquire(tenantOf(ac), most) {
		return s.over(twinrail.CodeLimitExceeded, limitConnections, defaultRetryAfter, "a tenant has at most %d connections", most)
	}
	if err := s.takeJoins(ac, 1); err != nil {
		s.leavePlace(ac)
		return err
	}
	return nil
}

func (s *Server) leavePlace(ac *auth.Context) {
	if s.opts.MaxConnections >= 0 {
		s.limits.connections.Release(tenantOf(ac))
	}
}

// takeJoins takes n of the tenant's rate of connections, joins and tickets.
func (s *Server) takeJoins(ac *auth.Context, n int) error {
	perSecond := s.opts.JoinRate
	rate := limit.Rate{PerSecond: float64(perSecond), Burst: max(2*perSecond, s.opts.MaxJoins)}
	if missing, wait := s.limits.joins.Take(tenantOf(ac), s.engine.now(), limit.Cost{Rate: rate, N: n}); missing >= 0 {
		return s.over(twinrail.CodeRateLimited, limitJoins, wait, "a tenant opens %d connections, joins and tickets a second", perSecond)
	}
	return nil
}

// takeChange takes one of the tenant's changes of who may do what, each of which is
// made durable, and may have all its connections looked at.
func (s *Server) takeChange(ac *auth.Context, admin bool) error {
	perSecond := s.opts.ChangeRate
	cost := limit.Cost{Rate: limit.Rate{PerSecond: float64(perSecond), Burst: 2 * perSecond}, N: 1}
	if missing, wait := s.limits.changes.Take(changer{tenantOf(ac), admin}, s.engine.now(), cost); missing >= 0 {
		return s.over(twinrail.CodeRateLimited, limitChanges, wait, "a tenant makes %d such changes a second", perSecond)
	}
	return nil
}

// takePublish takes the events of one publish of the tenant's rates, all or none.
func (s *Server) takePublish(ac *auth.Context, request *publishBody) error {
	missing, wait := s.limits.publishes.Take(tenantOf(ac), s.engine.now(), s.costs(request)...)
	return s.overPublish(missing, wait, limitPublishes, "events")
}

// costs returns what a publish takes of a tenant's events, and of its bytes.
func (s *Server) costs(request *publishBody) []limit.Cost {
	perSecond, bytes := s.opts.PublishRate, s.opts.PublishBytes
	return []limit.Cost{
		{Rate: limit.Rate{PerSecond: float64(perSecond), Burst: max(perSecond, maxEvents)}, N: len(request.Events)},
		{Rate: limit.Rate{PerSecond: float64(bytes), Burst: max(bytes, s.opts.MaxBody, s.opts.MaxFrame)}, N: request.size()},
	}
}

// overPublish returns the refusal where one of the costs is missing; the first is
// called name, and counts what.
func (s *Server) overPublish(missing int, wait time.Duration, name, what string) error {
	switch missing {
	case 0:
		return s.over(twinrail.CodeRateLimited, name, wait, "a tenant publishes %d %s a second", s.opts.PublishRate, what)
	case 1:
		return s.over(twinrail.CodeRateLimited, limitBytes, wait, "a tenant publishes %d bytes of %s a second", s.opts.PublishBytes, what)
	}
	return nil
}

// untilRoom is when a tenant that retains all it may is to try again.
const untilRoom = 30 * time.Second

// overQuota returns err as a client may see it where it is of a quota.
func (s *Server) overQuota(err error) error {
	var over *journal.QuotaError
	if !errors.As(err, &over) {
		return err
	}
	s.metrics.limited.WithLabelValues("retained_" + over.What).Inc()
	return &twinrail.Error{Code: twinrail.CodeLimitExceeded, Field: over.What,
		Detail: fmt.Sprintf("a tenant keeps at most %d %s", over.Limit, over.What), RetryAfter: untilRoom}
}

// takeGestures takes the gestures of a request of those that the actor has left:
// perSecond in each second, and as many at once. Those of all the tenant's actors
// together are held to as many, and as many bytes, as it may publish of what is
// kept. What is refused takes nothing.
func (s *Server) takeGestures(ac *auth.Context, perSecond int, request *publishBody) error {
	n := len(request.Events)
	if n > perSecond {
		return twinrail.Errorf(twinrail.CodeBadRequest, "events", "an actor has %d gestures a second, and these are more at once", perSecond)
	}
	who := gestureActor{tenantOf(ac), ac.Principal().Identity().ActorID}
	own := limit.Cost{Rate: limit.Rate{PerSecond: float64(perSecond), Burst: perSecond}, N: n}
	if missing, wait := s.limits.gestures.Take(who, s.engine.now(), own); missing >= 0 {
		return s.over(twinrail.CodeRateLimited, limitGestures, wait, "an actor has %d gestures a second", perSecond)
	}
	missing, wait := s.limits.tenantGestures.Take(who.tenant, s.engine.now(), s.costs(request)...)
	if missing >= 0 {
		s.limits.gestures.Give(who, own)
	}
	return s.overPublish(missing, wait, limitGestures, "gestures")
}

// takeJoins takes n more joins, of what the connection may hold and what its
// tenant may open.
func (c *wsConn) takeJoins(ac *auth.Context, n int) error {
	c.mu.Lock()
	held := len(c.joins)
	c.mu.Unlock()
	if most := c.server.opts.MaxJoins; held+n > most {
		return c.server.over(twinrail.CodeLimitExceeded, limitJoins, defaultRetryAfter, "a connection holds at most %d", most)
	}
	return c.server.takeJoins(ac, n)
}

// frameBurst is how many seconds' worth of frames may come at once.
const frameBurst = 2

// takeFrame takes one of the connection's frames. Who is too fast is to stay away
// for as long as its burst takes to come back: it gains nothing by coming anew.
func (c *wsConn) takeFrame() error {
	perSecond := c.server.opts.FrameRate
	rate := limit.Rate{PerSecond: float64(perSecond), Burst: frameBurst * perSecond}
	if wait := c.frames.Take(c.server.engine.now(), limit.Cost{Rate: rate, N: 1}); wait > 0 {
		return c.server.over(twinrail.CodeRateLimited, limitFrames, frameBurst*time.Second, "a connection has %d frames a second", perSecond)
	}
	return nil
}

// A browser that was turned away comes back after soonestAgain to twice that.
const soonestAgain = 5 * time.Second

// overSSE answers who cannot be served now: who is over a limit, or where something
// has failed. Who sent its credential in a header can read a status. A native
// EventSource cannot do either: it would stop for good.
func (s *Server) overSSE(w http.ResponseWriter, r *http.Request, err error) error {
	e := asError(err)
	if r.Header.Get("Authorization") != "" || e.Code.Info().Retry != twinrail.RetryBackoff {
		return err
	}
	s.logFailure(r.Context(), w.Header().Get("X-Request-Id"), e, err)
	s.metrics.failed(e.Code)
	after := max(e.RetryAfter, soonestAgain)
	return s.turnAway(w, r, e.Code, after+rand.N(after))
}

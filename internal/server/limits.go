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
)

// gestureActor is who has a rate of gestures.
type gestureActor struct {
	tenant
	actor string
}

// limits is what tenants and actors use of what they may. A connection's own rate
// is with the connection.
type limits struct {
	connections *limit.Counts[tenant]
	joins       *limit.Rates[tenant]
	publishes   *limit.Rates[tenant] // events, and bytes
	gestures    *limit.Rates[gestureActor]
	// A rate of its own, so that a tenant's gestures keep none of its commits back.
	tenantGestures *limit.Rates[tenant]
}

func newLimits() limits {
	return limits{
		connections: new(limit.Counts[tenant]),
		joins:       limit.NewRates[tenant](),
		publishes:   limit.NewRates[tenant](),
		gestures:    limit.NewRates[gestureActor](),

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

// takeJoins takes n of the tenant's rate of connections and joins.
func (s *Server) takeJoins(ac *auth.Context, n int) error {
	perSecond := s.opts.JoinRate
	rate := limit.Rate{PerSecond: float64(perSecond), Burst: max(2*perSecond, s.opts.MaxJoins)}
	if missing, wait := s.limits.joins.Take(tenantOf(ac), time.Now(), limit.Cost{Rate: rate, N: n}); missing >= 0 {
		return s.over(twinrail.CodeRateLimited, limitJoins, wait, "a tenant opens %d connections and joins a second", perSecond)
	}
	return nil
}

// takePublish takes the events of one publish of the tenant's rates, all or none.
func (s *Server) takePublish(ac *auth.Context, request *publishBody, now time.Time) error {
	perSecond, bytes := s.opts.PublishRate, s.opts.PublishBytes
	missing, wait := s.limits.publishes.Take(tenantOf(ac), now,
		limit.Cost{Rate: limit.Rate{PerSecond: float64(perSecond), Burst: max(perSecond, maxEvents)}, N: len(request.Events)},
		limit.Cost{Rate: limit.Rate{PerSecond: float64(bytes), Burst: max(bytes, s.opts.MaxBody, s.opts.MaxFrame)}, N: request.size()},
	)
	switch missing {
	case 0:
		return s.over(twinrail.CodeRateLimited, limitPublishes, wait, "a tenant publishes %d events a second", perSecond)
	case 1:
		return s.over(twinrail.CodeRateLimited, limitBytes, wait, "a tenant publishes %d bytes a second", bytes)
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

// takeGestures takes n of the gestures that the actor has left: perSecond in each
// second, and as many at once. Those of all the tenant's actors together are held
// to as many as it may publish of what is kept.
func (s *Server) takeGestures(ac *auth.Context, perSecond, n int, now time.Time) error {
	if n > perSecond {
		return twinrail.Errorf(twinrail.CodeBadRequest, "events", "an actor has %d gestures a second, and these are more at once", perSecond)
	}
	who := gestureActor{tenantOf(ac), ac.Principal().Identity().ActorID}
	cost := limit.Cost{Rate: limit.Rate{PerSecond: float64(perSecond), Burst: perSecond}, N: n}
	if missing, wait := s.limits.gestures.Take(who, now, cost); missing >= 0 {
		return s.over(twinrail.CodeRateLimited, limitGestures, wait, "an actor has %d gestures a second", perSecond)
	}
	most := s.opts.PublishRate
	cost.Rate = limit.Rate{PerSecond: float64(most), Burst: max(most, maxEvents)}
	if missing, wait := s.limits.tenantGestures.Take(who.tenant, now, cost); missing >= 0 {
		return s.over(twinrail.CodeRateLimited, limitGestures, wait, "a tenant has %d gestures a second", most)
	}
	return nil
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
	if perSecond < 0 {
		return nil
	}
	if _, ok := c.frames.Take(perSecond, frameBurst*perSecond, c.server.engine.now()); !ok {
		return c.server.over(twinrail.CodeRateLimited, limitFrames, frameBurst*time.Second, "a connection has %d frames a second", perSecond)
	}
	return nil
}

// A browser that was turned away comes back after soonestAgain to twice that.
const soonestAgain = 5 * time.Second

// overSSE answers who is over a limit. Who sent its credential in a header can
// read a status. A native EventSource cannot do either: it would stop for good.
func (s *Server) overSSE(w http.ResponseWriter, r *http.Request, err error) error {
	e := asError(err)
	if r.Header.Get("Authorization") != "" {
		return e
	}
	s.metrics.failed(e.Code)
	after := max(e.RetryAfter, soonestAgain)
	return s.turnAway(w, e.Code, after+rand.N(after))
}

package server

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// gesture passes the gestures of a request on: all or none. They are not kept,
// and not acknowledged by anybody.
func (s *Server) gesture(ac *auth.Context, request *publishBody) ([]twinrail.PublishResult, error) {
	if request.ExpectedSeq != nil {
		return nil, twinrail.Errorf(twinrail.CodeBadRequest, "expected_seq", "gestures have no seq")
	}
	now := time.Now()
	writers := make([]auth.Writer, len(request.Events))
	for i := range request.Events {
		in := &request.Events[i]
		at := "events[" + strconv.Itoa(i) + "]"
		w, err := s.gestureWriter(ac, in)
		if err != nil {
			return nil, twinrail.InField(at, err)
		}
		if i > 0 && w.Key() != writers[0].Key() {
			return nil, twinrail.Errorf(twinrail.CodeBadRequest, at+".routing", "all events of a publish belong to one stream")
		}
		writers[i] = w
	}
	flags := s.flagsOf(ac)
	if !flags.GestureFanout {
		return nil, twinrail.Errorf(twinrail.CodeFeatureDisabled, "events[0].channel", "gestures are switched off for this tenant")
	}
	if err := s.gestures.take(ac, flags.GestureRate, len(writers), now); err != nil {
		return nil, err
	}
	results := make([]twinrail.PublishResult, len(writers))
	for i, w := range writers {
		in := &request.Events[i]
		if err := s.hub.Gesture(w, twinrail.Event{Type: in.Type, To: in.To, Time: now, Data: in.Data}); err != nil {
			return nil, err
		}
		results[i] = twinrail.PublishResult{Time: twinrail.Timestamp{Time: now}}
	}
	s.metrics.published.WithLabelValues(string(twinrail.Gesture)).Add(float64(len(writers)))
	return results, nil
}

// gestureWriter checks one gesture, and authorizes it. The fields of its errors
// are relative to the event.
func (s *Server) gestureWriter(ac *auth.Context, in *incoming) (auth.Writer, error) {
	switch {
	case in.Channel != twinrail.Gesture:
		return auth.Writer{}, twinrail.Errorf(twinrail.CodeBadRequest, "channel", "a publish is of what is kept, or of gestures alone")
	case in.ID != "":
		return auth.Writer{}, twinrail.Errorf(twinrail.CodeBadRequest, "id", "a gesture has none: the next of its type takes its place")
	}
	return s.writer(ac, in, "")
}

// encodeGesture returns a gesture as an SSE block. It has no id: there is nothing
// to come back to.
func encodeGesture(e *twinrail.Event) []byte {
	b := append([]byte("event: gesture\ndata: "), e.AppendHead(nil)...)
	return append(appendSSEData(b, e.AppendTail(nil)), "\n\n"...)
}

// gestureActor is who has a rate of its own.
type gestureActor struct{ tenant, env, actor string }

// gestureRates holds actors to the rate of their gestures.
type gestureRates struct {
	mu     sync.Mutex
	actors map[gestureActor]*rate.Limiter
	sweep  int // how many actors there are when those at rest are forgotten
}

// minSweep is how many actors are kept track of before those at rest are looked
// for.
const minSweep = 1024

// take takes n gestures of what the actor has left: perSecond in each second, and
// as many at once. It has code rate_limited where they are not there.
func (g *gestureRates) take(ac *auth.Context, perSecond, n int, now time.Time) error {
	id := ac.Principal().Identity()
	g.mu.Lock()
	defer g.mu.Unlock()
	who := gestureActor{id.TenantID, id.Env, id.ActorID}
	l := g.actors[who]
	if l == nil {
		g.forget(now)
		l = rate.NewLimiter(rate.Limit(perSecond), perSecond)
		g.actors[who] = l
	} else if l.Burst() != perSecond {
		l.SetLimitAt(now, rate.Limit(perSecond))
		l.SetBurstAt(now, perSecond)
	}
	if n > perSecond {
		return twinrail.Errorf(twinrail.CodeBadRequest, "events", "an actor has %d gestures a second, and these are more at once", perSecond)
	}
	r := l.ReserveN(now, n)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return &twinrail.Error{Code: twinrail.CodeRateLimited, Detail: "an actor has " + strconv.Itoa(perSecond) + " gestures a second", RetryAfter: wait}
	}
	return nil
}

// forget drops the actors who have their whole rate again, which is what a new
// one has. It looks through all of them only when they have doubled.
func (g *gestureRates) forget(now time.Time) {
	if len(g.actors) < max(g.sweep, minSweep) {
		return
	}
	for who, l := range g.actors {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(g.actors, who)
		}
	}
	g.sweep = 2 * len(g.actors)
}

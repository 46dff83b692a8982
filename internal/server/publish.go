package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
	"github.com/twinrail/twinrail/internal/journal"
)

// maxEvents bounds the events of one publish.
const maxEvents = 100

// servePublish answers POST /v1/publish.
func (s *Server) servePublish(w http.ResponseWriter, r *http.Request) error {
	ac, err := s.admit(r, "")
	if err != nil {
		return err
	}
	if s.draining.Load() {
		return &twinrail.Error{Code: twinrail.CodeDraining}
	}
	var request publishBody
	if err := s.readJSON(w, r, ac, &request); err != nil {
		return err
	}
	results, err := s.publishAny(r.Context(), ac, &request, "")
	if err != nil {
		return err
	}
	return writeJSON(w, twinrail.PublishResponse{Results: results})
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // which would make up to six bytes of one
	if err := e.Encode(v); err != nil {
		return abandoned(err)
	}
	return nil
}

// publishAny authorizes the events of a request, and stores them, or passes them
// on where they are gestures: all or none. With a rail, only what is published
// over that is taken.
func (s *Server) publishAny(ctx context.Context, ac *auth.Context, request *publishBody, rail twinrail.Rail) ([]twinrail.PublishResult, error) {
	if n := len(request.Events); n < 1 || n > maxEvents {
		return nil, twinrail.Errorf(twinrail.CodeBadRequest, "events", "must be 1 to %d events", maxEvents)
	}
	if request.Events[0].Channel == twinrail.Gesture {
		return s.gesture(ac, request)
	}
	return s.publish(ctx, ac, request, rail)
}

// size returns the bytes of what publishers make as long as they like. All of it
// was in the request, which is bounded.
func (b *publishBody) size() (bytes int) {
	for i := range b.Events {
		in := &b.Events[i]
		bytes += len(in.ID) + len(in.Type) + len(in.Data)
		for _, actor := range in.To {
			bytes += len(actor)
		}
	}
	return bytes
}

// publish is publishAny for what is kept.
func (s *Server) publish(ctx context.Context, ac *auth.Context, request *publishBody, rail twinrail.Rail) ([]twinrail.PublishResult, error) {
	now := time.Now()
	records := make([]journal.Record, len(request.Events))
	for i := range request.Events {
		record, err := s.record(ac, &request.Events[i], rail, now)
		if err != nil {
			return nil, twinrail.InField("events["+strconv.Itoa(i)+"]", err)
		}
		if i > 0 && record.Owner() != records[0].Owner() {
			return nil, twinrail.Errorf(twinrail.CodeBadRequest, "events["+strconv.Itoa(i)+"].routing", "all events of a publish belong to one stream")
		}
		records[i] = record
	}
	if err := s.takePublish(ac, request); err != nil {
		return nil, err
	}
	var expect journal.Expect
	if request.ExpectedSeq != nil {
		expect = journal.Expect{Set: true, Seq: *request.ExpectedSeq}
	}
	done, err := s.engine.shares.takePublish(ctx, tenantOf(ac), len(records), request.size())
	if err != nil {
		return nil, err
	}
	defer done()
	// Both its frame and its turn may have been long in coming.
	if err := s.opts.Gate.Still(ac); err != nil {
		return nil, err
	}
	// A publisher that does not wait for its answer has its place until there is
	// one, or it could have any number under way.
	stored, err := s.opts.Journal.Append(s.engine.ctx, records, expect)
	if err != nil {
		return nil, s.overQuota(err)
	}
	s.metrics.append.Observe(time.Since(now).Seconds())
	return s.results(records, stored), nil
}

func (s *Server) results(records []journal.Record, stored []journal.Result) []twinrail.PublishResult {
	results := make([]twinrail.PublishResult, len(stored))
	for i, at := range stored {
		results[i] = twinrail.PublishResult{
			ID: records[i].ID(), Seq: at.Seq, Prev: &stored[i].Prev, Cursor: at.Cursor.String(),
			Time: twinrail.Timestamp{Time: at.Time}, Duplicate: at.Duplicate,
		}
		if at.Duplicate {
			s.metrics.duplicates.Inc()
		} else {
			s.metrics.published.WithLabelValues(string(records[i].Channel())).Inc()
		}
	}
	return results
}

// record checks one event and authorizes its place. The fields of its errors are
// relative to the event.
func (s *Server) record(ac *auth.Context, in *incoming, rail twinrail.Rail, now time.Time) (journal.Record, error) {
	if !in.Channel.Journaled() && in.Channel.Valid() {
		return journal.Record{}, twinrail.Errorf(twinrail.CodeBadRequest, "channel", "a publish is of what is kept, or of gestures alone")
	}
	w, err := s.writer(ac, in, rail)
	if err != nil {
		return journal.Record{}, err
	}
	id := in.ID
	if id == "" {
		id = uuid.Must(uuid.NewV7()).String()
	}
	return journal.NewRecord(w, twinrail.Event{ID: id, Type: in.Type, To: in.To, Time: now, Data: in.Data}), nil
}

// writer checks one event, and authorizes publishing it.
func (s *Server) writer(ac *auth.Context, in *incoming, rail twinrail.Rail) (auth.Writer, error) {
	if err := s.checkEvent(in, rail); err != nil {
		return auth.Writer{}, err
	}
	var stated twinrail.Routing
	if in.Routing != nil {
		stated = *in.Routing
	}
	w, err := ac.Writer(stated, in.Channel)
	if err != nil {
		return auth.Writer{}, inRouting(err)
	}
	if len(in.Data) > s.opts.MaxEvent {
		return auth.Writer{}, twinrail.Errorf(twinrail.CodeTooLarge, "data", "more than %d bytes", s.opts.MaxEvent)
	}
	if in.ActorType != "" && in.ActorType != ac.Principal().Identity().ActorType {
		return auth.Writer{}, &twinrail.Error{Code: twinrail.CodeActorMismatch, Field: "actor_type"}
	}
	return w, nil
}

// inRouting says of an error about a routing key that it stands in routing.
func inRouting(err error) error {
	if err == nil {
		return nil
	}
	if e := asError(err); e.Field == "" || e.Field == "channel" {
		return err
	}
	return twinrail.InField("routing", err)
}

// checkEvent checks the form of an event.
func (s *Server) checkEvent(in *incoming, rail twinrail.Rail) error {
	bad := func(field, format string, args ...any) error {
		return twinrail.Errorf(twinrail.CodeBadRequest, field, format, args...)
	}
	switch ch := in.Channel; {
	case !ch.Valid() || ch == twinrail.Presence:
		return bad("channel", "must be commit, artifact, gesture, chat or tool")
	case rail != "" && ch.Rail() != rail && ch != twinrail.Gesture:
		return twinrail.Errorf(twinrail.CodeWrongRail, "channel", "%s is published over HTTP", ch)
	}
	switch {
	case in.V != nil && *in.V != twinrail.Version:
		return bad("v", "must be %d", twinrail.Version)
	case in.ID != "" && !twinrail.ValidEventID(in.ID):
		return bad("id", "must be 1 to 128 of A-Z a-z 0-9 . _ : -")
	case !twinrail.ValidEventType(in.Type):
		return bad("type", "must be 1 to 64 of a-z 0-9 _ . -")
	case len(in.Data) == 0:
		return bad("data", "is required; it may be any JSON value")
	case in.Channel == twinrail.Artifact && artifactKind(in.Data) == "":
		return bad("data.kind", "an artifact's kind must be preview, replay or audit")
	}
	return checkTo(in.To)
}

// maxTo bounds the actors that an event is meant for.
const maxTo = 256

func checkTo(to []string) error {
	if to != nil && len(to) == 0 || len(to) > maxTo {
		return twinrail.Errorf(twinrail.CodeBadRequest, "to", "must list 1 to %d actors", maxTo)
	}
	for i, actor := range to {
		if !twinrail.ValidKeyValue(twinrail.KeyActor, actor) {
			return twinrail.Errorf(twinrail.CodeBadRequest, "to["+strconv.Itoa(i)+"]", "is not an actor's id")
		}
	}
	return nil
}

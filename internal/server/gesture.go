package server

import (
	"strconv"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/auth"
)

// gesture passes the gestures of a request on: all or none. They are not kept,
// and not acknowledged by anybody.
func (s *Server) gesture(ac *auth.Context, request *publishBody) ([]twinrail.PublishResult, error) {
	if request.ExpectedSeq != nil {
		return nil, twinrail.Errorf(twinrail.CodeBadRequest, "expected_seq", "gestures have no seq")
	}
	if err := s.opts.Gate.Still(ac); err != nil {
		return nil, err
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
	if err := s.takeGestures(ac, flags.GestureRate, request); err != nil {
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

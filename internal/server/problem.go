package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/internal/hub"
	"github.com/twinrail/twinrail/internal/journal"
)

// defaultRetryAfter is what a client is told to wait where the error does not
// know better.
const defaultRetryAfter = time.Second

// asError returns err as a client may see it. What is none of the client's
// business becomes internal; the caller logs it.
func asError(err error) *twinrail.Error {
	var e *twinrail.Error
	if errors.As(err, &e) {
		return e
	}
	var seq *journal.SeqConflictError
	var id *journal.IDConflictError
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &seq):
		return twinrail.Errorf(twinrail.CodeSeqConflict, "expected_seq", "the stream's last seq is %d", seq.Last)
	case errors.As(err, &id):
		return twinrail.Errorf(twinrail.CodeIDConflict, "events["+strconv.Itoa(id.Index)+"].id", "the stream has another event of this id")
	case errors.As(err, &tooBig):
		return twinrail.Errorf(twinrail.CodeTooLarge, "body", "more than %d bytes", tooBig.Limit)
	case errors.Is(err, journal.ErrUnavailable), errors.Is(err, journal.ErrClosed):
		return &twinrail.Error{Code: twinrail.CodeUnavailable}
	case errors.Is(err, journal.ErrExpired):
		return &twinrail.Error{Code: twinrail.CodeCursorExpired}
	case errors.Is(err, journal.ErrUnknown):
		return &twinrail.Error{Code: twinrail.CodeCursorUnknown}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &twinrail.Error{Code: twinrail.CodeUnavailable, Detail: "the request ended before its answer; an event's id tells a retry apart"}
	}
	return &twinrail.Error{Code: twinrail.CodeInternal}
}

// problem answers with the RFC 9457 problem document of err.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, requestID string, err error) {
	e := asError(err)
	s.logFailure(r.Context(), requestID, e, err)
	s.metrics.failed(e.Code)
	info := e.Code.Info()
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	switch {
	case info.Retry == twinrail.RetryBackoff:
		after := max(e.RetryAfter, defaultRetryAfter)
		h.Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
	case info.Status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="twinrail"`)
	}
	w.WriteHeader(info.Status)
	// A client that is gone is not told.
	_ = json.NewEncoder(w).Encode(twinrail.Problem{
		Type: "urn:twinrail:error:" + string(e.Code), Title: info.Title, Status: info.Status,
		Detail: e.Detail, Code: e.Code, Field: e.Field, Retry: info.Retry, RequestID: requestID,
	})
}

// logFailure logs what an operator must look at: our own faults.
func (s *Server) logFailure(ctx context.Context, requestID string, e *twinrail.Error, err error) {
	switch {
	case errors.Is(err, hub.ErrForeign):
		s.metrics.foreign.Inc()
		s.log.ErrorContext(ctx, "isolation violated: an entry of another stream was stopped right before delivery", "request_id", requestID)
	case e.Code == twinrail.CodeInternal, e.Code == twinrail.CodeUnavailable && !errors.Is(err, context.Canceled):
		s.log.ErrorContext(ctx, "request failed", "request_id", requestID, "code", e.Code, "err", err)
	}
}

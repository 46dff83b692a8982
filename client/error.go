package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/twinrail/twinrail"
)

// ResponseError is an error that the server answered with, on either rail. It
// unwraps to the [twinrail.Error].
type ResponseError struct {
	// Status is the HTTP status, or the WebSocket close code; 0 where the server
	// said it within a connection: in an error frame or in the SSE event "end".
	Status int
	// Action says what the client does about it.
	Action twinrail.Action
	// RequestID is what the operator of the server finds it by, or "".
	RequestID string
	Err       *twinrail.Error
}

// Error returns the error, and the request's id where it is known.
func (e *ResponseError) Error() string {
	s := e.Err.Error()
	if e.Err.Detail == "" {
		s += ": " + e.Err.Code.Info().Title
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

// ErrGone says that the server wants no more of a follower on the SSE rail: it
// answered 204. What the iteration ends with is a *[ResponseError], for which
// errors.Is(err, ErrGone) is true; its code is that of the "end" of the follower's
// last connection, and not_found where there was none.
var ErrGone = errors.New("client: the server says not to come back")

// Is reports whether e is an [ErrGone].
func (e *ResponseError) Is(target error) bool {
	return target == ErrGone && e.Status == http.StatusNoContent
}

// Unwrap returns the [twinrail.Error].
func (e *ResponseError) Unwrap() error { return e.Err }

// ChainError says that the server broke its promise: an event that was given
// already, or that came before one that was, was given again. A follower ends
// with it, since what it goes on with would be wrong.
type ChainError struct {
	// Last is the seq of the last event that was given, 0 for none.
	Last uint64
	// ID, Seq and Prev are those of the event that does not fit behind it.
	ID        string
	Seq, Prev uint64
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("client: event %s with seq %d after %d does not follow on seq %d", e.ID, e.Seq, e.Prev, e.Last)
}

// maxProblem bounds how much of an error response is read, in bytes.
const maxProblem = 64 << 10

// responseError makes the error of a response that is not a success. The body
// need not be a problem document: a proxy may have answered.
func responseError(resp *http.Response) *ResponseError {
	var p twinrail.Problem
	if resp.Body != nil {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		if json.Unmarshal(body, &p) != nil {
			p = twinrail.Problem{}
		}
	}
	e := &ResponseError{
		Status:    resp.StatusCode,
		RequestID: p.RequestID,
		Err: &twinrail.Error{
			Code: p.Code, Field: p.Field, Detail: p.Detail,
			RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
		},
	}
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get("X-Request-Id")
	}
	if e.Err.Code == "" {
		e.Err.Code = codeOfStatus(resp.StatusCode)
		e.Err.Detail = "the server answered " + resp.Status
	}
	e.Action = actionOf(p.Retry, resp.StatusCode)
	return e
}

// actionOf prefers what the server says; where it says nothing, the status does.
func actionOf(retry twinrail.Retry, status int) twinrail.Action {
	switch retry {
	case twinrail.RetryNever:
		return twinrail.ActionStop
	case twinrail.RetryRefresh:
		return twinrail.ActionRefresh
	case twinrail.RetryBackoff:
		return twinrail.ActionBackoff
	}
	switch {
	case status == http.StatusUnauthorized:
		return twinrail.ActionRefresh
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		return twinrail.ActionBackoff
	}
	return twinrail.ActionStop
}

func codeOfStatus(status int) twinrail.Code {
	switch status {
	case http.StatusUnauthorized:
		return twinrail.CodeCredentialInvalid
	case http.StatusForbidden, http.StatusNotFound:
		return twinrail.CodeNotFound
	case http.StatusGone:
		return twinrail.CodeCursorExpired
	case http.StatusRequestEntityTooLarge:
		return twinrail.CodeTooLarge
	case http.StatusTooManyRequests:
		return twinrail.CodeRateLimited
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return twinrail.CodeOverloaded
	}
	if status >= 500 {
		return twinrail.CodeInternal
	}
	return twinrail.CodeBadRequest
}

// codeOfClose is for a close without an error frame before it.
func codeOfClose(closeCode int) twinrail.Code {
	switch closeCode {
	case 4003:
		return twinrail.CodeNotFound
	case 4009:
		return twinrail.CodeSessionTakenOver
	case 4010:
		return twinrail.CodeCredentialRevoked
	case 4013, 1009:
		return twinrail.CodeTooLarge
	case 4014:
		return twinrail.CodeRailDisabled
	case 4100:
		return twinrail.CodeRateLimited
	case 4101:
		return twinrail.CodeOverloaded
	case 4200:
		return twinrail.CodeHeartbeatLost
	case 4201:
		return twinrail.CodeTooSlow
	case 4202, 1001:
		return twinrail.CodeDraining
	case 4300:
		return twinrail.CodeCredentialExpired
	}
	if twinrail.CloseAction(closeCode) == twinrail.ActionStop {
		return twinrail.CodeBadFrame
	}
	return twinrail.CodeInternal
}

// retryAfter reads a Retry-After header: seconds or a date. What cannot be read
// is 0.
func retryAfter(s string) time.Duration {
	if s == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// verdict says what a follower does about the error that ended a connection,
// and how long it stays away at least. A connection that was lost for any reason
// that nobody gave is come back to.
func verdict(err error) (twinrail.Action, time.Duration) {
	var response *ResponseError
	if errors.As(err, &response) {
		return response.Action, response.Err.RetryAfter
	}
	var chain *ChainError
	if errors.As(err, &chain) || errors.Is(err, errStop) || errors.Is(err, errNoSource) {
		return twinrail.ActionStop, 0
	}
	return twinrail.ActionResume, 0
}

// errStop marks errors of the client's own that no new connection can mend.
var errStop = errors.New("client: this cannot be mended by coming back")

// final is err as one that ends a follower.
type final struct{ err error }

func (f final) Error() string   { return f.err.Error() }
func (f final) Unwrap() []error { return []error{f.err, errStop} }

package twinrail

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// A Code names what went wrong. The list is closed; codeTable is all of it.
type Code string

// The codes.
const (
	CodeCredentialMissing    Code = "credential_missing"
	CodeCredentialInvalid    Code = "credential_invalid"
	CodeCredentialExpired    Code = "credential_expired"
	CodeCredentialRevoked    Code = "credential_revoked"
	CodeContextMissing       Code = "context_missing"
	CodeContextInvalid       Code = "context_invalid"
	CodeContextConflict      Code = "context_conflict"
	CodeContextMismatch      Code = "context_mismatch"
	CodeActorMismatch        Code = "actor_mismatch"
	CodeOriginNotAllowed     Code = "origin_not_allowed"
	CodeRailDisabled         Code = "rail_disabled"
	CodeFeatureDisabled      Code = "feature_disabled"
	CodeNotFound             Code = "not_found"
	CodeMethodNotAllowed     Code = "method_not_allowed"
	CodeUnsupportedMediaType Code = "unsupported_media_type"
	CodeBadRequest           Code = "bad_request"
	CodeUpgradeRequired      Code = "upgrade_required"
	CodeBadFrame             Code = "bad_frame"
	CodeWrongRail            Code = "wrong_rail"
	CodeSeqConflict          Code = "seq_conflict"
	CodeIDConflict           Code = "id_conflict"
	CodeCursorExpired        Code = "cursor_expired"
	CodeCursorUnknown        Code = "cursor_unknown"
	CodeResumeInvalid        Code = "resume_invalid"
	CodeResumeUsed           Code = "resume_used"
	CodeResumeExpired        Code = "resume_expired"
	CodeSessionTakenOver     Code = "session_taken_over"
	CodeTooLarge             Code = "too_large"
	CodeRateLimited          Code = "rate_limited"
	CodeLimitExceeded        Code = "limit_exceeded"
	CodeHeartbeatLost        Code = "heartbeat_lost"
	CodeTooSlow              Code = "too_slow"
	CodeOverloaded           Code = "overloaded"
	CodeDraining             Code = "draining"
	CodeUnavailable          Code = "unavailable"
	CodeInternal             Code = "internal"
)

// Retry says what a client may do about an error.
type Retry string

// What a client may do: give up; get a new credential, once; wait and come back.
const (
	RetryNever   Retry = "never"
	RetryRefresh Retry = "refresh"
	RetryBackoff Retry = "backoff"
)

// CodeInfo is what a code means on each transport.
type CodeInfo struct {
	// Status is the HTTP status.
	Status int
	// Close is the WebSocket close code with which the server ends a
	// connection for this reason.
	Close int
	Retry Retry
	// Title says it in words, the same at each occurrence.
	Title string
}

var codeTable = map[Code]CodeInfo{
	CodeCredentialMissing:    {http.StatusUnauthorized, 4300, RetryRefresh, "no credential was given"},
	CodeCredentialInvalid:    {http.StatusUnauthorized, 4300, RetryRefresh, "the credential is not valid here"},
	CodeCredentialExpired:    {http.StatusUnauthorized, 4300, RetryRefresh, "the credential has expired"},
	CodeCredentialRevoked:    {http.StatusUnauthorized, 4010, RetryNever, "the credential was revoked"},
	CodeContextMissing:       {http.StatusBadRequest, 4000, RetryNever, "a routing key is missing"},
	CodeContextInvalid:       {http.StatusBadRequest, 4000, RetryNever, "a routing key is not well formed"},
	CodeContextConflict:      {http.StatusBadRequest, 4000, RetryNever, "a routing key was given twice with different values"},
	CodeContextMismatch:      {http.StatusForbidden, 4003, RetryNever, "tenant or env is not the credential's"},
	CodeActorMismatch:        {http.StatusForbidden, 4003, RetryNever, "the actor is not the credential's"},
	CodeOriginNotAllowed:     {http.StatusForbidden, 4003, RetryNever, "pages of this origin are not allowed here"},
	CodeRailDisabled:         {http.StatusForbidden, 4014, RetryNever, "this rail is switched off"},
	CodeFeatureDisabled:      {http.StatusForbidden, 4003, RetryNever, "this is switched off"},
	CodeNotFound:             {http.StatusNotFound, 4003, RetryNever, "there is nothing here for this credential"},
	CodeMethodNotAllowed:     {http.StatusMethodNotAllowed, 4000, RetryNever, "this method is not allowed here"},
	CodeUnsupportedMediaType: {http.StatusUnsupportedMediaType, 4000, RetryNever, "the body must be application/json"},
	CodeBadRequest:           {http.StatusBadRequest, 4000, RetryNever, "the request is not well formed"},
	CodeUpgradeRequired:      {http.StatusUpgradeRequired, 4000, RetryNever, "this is a WebSocket"},
	CodeBadFrame:             {http.StatusBadRequest, 4000, RetryNever, "the frame is not well formed"},
	CodeWrongRail:            {http.StatusBadRequest, 4000, RetryNever, "the channel belongs to the other rail"},
	CodeSeqConflict:          {http.StatusConflict, 4000, RetryNever, "the stream is not at the expected seq"},
	CodeIDConflict:           {http.StatusConflict, 4000, RetryNever, "the id was used for another event"},
	CodeCursorExpired:        {http.StatusGone, 4000, RetryNever, "the cursor is older than what is retained"},
	CodeCursorUnknown:        {http.StatusGone, 4000, RetryNever, "the cursor is not one of this stream"},
	CodeResumeInvalid:        {http.StatusForbidden, 4003, RetryNever, "the resume token is not one of this credential's"},
	CodeResumeUsed:           {http.StatusConflict, 4000, RetryNever, "the resume token was used before"},
	CodeResumeExpired:        {http.StatusGone, 4000, RetryNever, "the session is over"},
	CodeSessionTakenOver:     {http.StatusConflict, 4009, RetryNever, "the session goes on over another connection"},
	CodeTooLarge:             {http.StatusRequestEntityTooLarge, 4013, RetryNever, "larger than the limit"},
	CodeRateLimited:          {http.StatusTooManyRequests, 4100, RetryBackoff, "too fast"},
	CodeLimitExceeded:        {http.StatusTooManyRequests, 4100, RetryBackoff, "over a limit"},
	CodeHeartbeatLost:        {http.StatusRequestTimeout, 4200, RetryBackoff, "nothing was heard for two heartbeats"},
	CodeTooSlow:              {http.StatusRequestTimeout, 4201, RetryBackoff, "the connection takes no more data"},
	CodeOverloaded:           {http.StatusServiceUnavailable, 4101, RetryBackoff, "the server is overloaded"},
	CodeDraining:             {http.StatusServiceUnavailable, 4202, RetryBackoff, "the server is going away"},
	CodeUnavailable:          {http.StatusServiceUnavailable, 1011, RetryBackoff, "something that the server needs cannot be used"},
	CodeInternal:             {http.StatusInternalServerError, 1011, RetryBackoff, "our fault"},
}

// Codes returns the table of all codes. The caller may change the copy.
func Codes() map[Code]CodeInfo {
	table := make(map[Code]CodeInfo, len(codeTable))
	for c, info := range codeTable {
		table[c] = info
	}
	return table
}

// Info returns what c means; an unknown code means what "internal" does.
func (c Code) Info() CodeInfo {
	if info, ok := codeTable[c]; ok {
		return info
	}
	return codeTable[CodeInternal]
}

// Action says what a client does after the server closed a WebSocket.
type Action string

// What a client does: it stops; it backs off, at least for retry_after_ms; it
// comes back with resume after retry_after_ms; it gets a new credential, once,
// and comes back.
const (
	ActionStop    Action = "stop"
	ActionBackoff Action = "backoff"
	ActionResume  Action = "resume"
	ActionRefresh Action = "refresh"
)

// CloseAction returns what a client does after the close code; the range
// decides, so that an unknown code is safe too. Codes that are not Twinrail's
// (a cut without a close frame is 1006) are a lost connection: come back.
func CloseAction(closeCode int) Action {
	switch {
	case closeCode >= 4000 && closeCode < 4100:
		return ActionStop
	case closeCode >= 4100 && closeCode < 4200, closeCode == 1011:
		return ActionBackoff
	case closeCode >= 4300 && closeCode < 4400:
		return ActionRefresh
	case closeCode == 1002, closeCode == 1003, closeCode == 1007, closeCode == 1008, closeCode == 1009, closeCode == 1010:
		return ActionStop
	}
	return ActionResume
}

// Error is the one error that callers of either rail get to see.
type Error struct {
	Code Code
	// Field names what is wrong in the request, such as "panel_id" or
	// "events[3].type"; "" where no one field is.
	Field string
	// Detail says what is wrong this time. It holds no secret, and nothing of
	// another tenant.
	Detail string
	// RetryAfter is how long to wait at least, where Retry is backoff; 0 leaves
	// it to the client.
	RetryAfter time.Duration
}

// Errorf returns an Error with a formatted detail. The arguments must hold no
// secret: the detail goes out to the client.
func Errorf(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// Error returns code, field and detail in one line.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Field != "" {
		s += ": " + e.Field
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Is reports whether target is an *Error of the same code that says no more, so
// that errors.Is(err, &Error{Code: c}) asks for the code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Field == "" && t.Detail == ""
}

// CodeOf returns the code of the Error in err's chain, or internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// InField returns err with prefix put before its field where it is an [Error],
// so that one found inside of a larger thing says where: "routing" and
// "panel_id" become "routing.panel_id".
func InField(prefix string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	in := *e
	if in.Field == "" {
		in.Field = prefix
	} else {
		in.Field = prefix + "." + in.Field
	}
	return &in
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/twinrail/twinrail"
)

// followSSE is one connection of the SSE rail. It returns why it ended.
func (f *follower) followSSE(ctx context.Context) error {
	s := &sseConn{f: f, renewal: renewal{f: f, token: f.token}}
	defer s.renewal.end()
	dog, ctx, cancel := newWatchdog(ctx, f.c.silence)
	defer cancel()
	req, err := f.sseRequest(ctx, f.token)
	if err != nil {
		return final{err}
	}
	dog.start()
	resp, err := f.c.stream.Do(req)
	dog.stop()
	if err != nil {
		return orCause(ctx, err)
	}
	body := resp.Body
	defer body.Close()
	resp.Body = io.NopCloser(dog.reader(body)) // of a refusal too
	if err := f.sseRefusal(resp); err != nil {
		return err
	}
	f.ended = ""
	return orCause(ctx, s.read(ctx, newSSEReader(resp.Body, f.c.maxMessage)))
}

// sseConn is one connection of the SSE rail.
type sseConn struct {
	f            *follower
	connectionID string
	renewal      renewal
}

func (f *follower) sseRequest(ctx context.Context, token string) (*http.Request, error) {
	query := url.Values{}
	if len(f.options.Channels) > 0 {
		query.Set("channels", channelList(f.options.Channels))
	}
	if f.cursor != "" {
		query.Set("cursor", f.cursor)
	}
	if f.options.FailOnReset {
		query.Set("on_reset", "fail")
	}
	u := f.c.endpoint(twinrail.PathSSECanvases+f.routing.CanvasID, query)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header(token, f.routing)
	req.Header.Set("Accept", "text/event-stream")
	return req, nil
}

// sseRefusal returns the error of a response that is no event stream, or nil.
func (f *follower) sseRefusal(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		code := f.ended
		if code == "" {
			code = twinrail.CodeNotFound
		}
		return &ResponseError{
			Status: resp.StatusCode, Action: twinrail.ActionStop, RequestID: resp.Header.Get("X-Request-Id"),
			Err: twinrail.Errorf(code, "", "the server says not to come back"),
		}
	default:
		return responseError(resp)
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != "text/event-stream" {
		return final{fmt.Errorf("client: the answer is %q and no event stream: is the URL Twinrail's?", resp.Header.Get("Content-Type"))}
	}
	return nil
}

// orCause returns what a cancelled context gives as its cause in place of the
// error that came of it.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errBroken) {
		return cause
	}
	return err
}

// read reads a stream to its end.
func (s *sseConn) read(ctx context.Context, r *sseReader) error {
	for {
		block, err := r.next()
		if errors.Is(err, errTooLong) {
			return final{twinrail.Errorf(twinrail.CodeTooLarge, "", "%v", err)}
		}
		if err != nil {
			return fmt.Errorf("client: the connection was lost: %w", err)
		}
		if err := s.take(ctx, &block); err != nil {
			return err
		}
	}
}

func (s *sseConn) take(ctx context.Context, b *sseBlock) error {
	f := s.f
	if b.retry > 0 {
		f.retry = b.retry
	}
	if !b.hasData {
		f.skipTo(b.id)
		return nil
	}
	switch b.event {
	case twinrail.SSEOpen:
		return decodeAnd(b.data, func(open twinrail.Open) error {
			s.connectionID = open.ConnectionID
			return f.giveOpen(open)
		})
	case twinrail.SSELive:
		return decodeAnd(b.data, func(live twinrail.Live) error {
			return f.give(Item{Kind: KindLive, Cursor: live.Cursor})
		})
	case twinrail.SSEReset:
		return decodeAnd(b.data, f.giveReset)
	case twinrail.SSEAuthExpiring:
		if id := s.connectionID; id != "" {
			s.renewal.start(ctx, func(ctx context.Context, token string) error { return f.renewSSE(ctx, id, token) })
		}
		return nil
	case twinrail.SSEEnd:
		return decodeAnd(b.data, func(end twinrail.End) error {
			f.ended = end.Code
			return endError(end)
		})
	}
	if twinrail.Channel(b.event).Rail() == twinrail.RailSSE {
		return f.giveEvent(append([]byte(nil), b.data...))
	}
	return nil // of a later version of the protocol, or a hint
}

// renewSSE extends a connection with a new token.
func (f *follower) renewSSE(ctx context.Context, connectionID, token string) error {
	u := f.c.endpoint(twinrail.PathConnections+connectionID+"/auth", nil)
	routing := twinrail.Routing{TenantID: f.routing.TenantID, Env: f.routing.Env}
	return f.c.send(ctx, http.MethodPost, u, token, routing, nil, &twinrail.LifetimeResponse{})
}

// skipTo moves the cursor past events that were not for this subscriber.
func (f *follower) skipTo(cursor string) {
	if cursor != "" {
		f.cursor = cursor
	}
}

// endError is why the server ends a stream.
func endError(end twinrail.End) error {
	action := twinrail.ActionStop
	if end.Reconnect {
		action = twinrail.ActionResume
		if end.Code.Info().Retry == twinrail.RetryRefresh {
			action = twinrail.ActionRefresh
		}
	}
	return &ResponseError{Action: action, Err: &twinrail.Error{Code: end.Code}}
}

// decodeAnd passes on what data holds as a T.
func decodeAnd[T any](data []byte, then func(T) error) error {
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		return final{fmt.Errorf("client: the server sent what cannot be read: %w", err)}
	}
	return then(v)
}

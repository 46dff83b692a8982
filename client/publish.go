package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/twinrail/twinrail"
)

// Publish stores the events of req, all or none, and returns one result for each
// in its order. Routing is the context that the request acts in: tenant and env
// at least, and what else the events' own routing leaves out.
//
// It is sent once, and once more with a new credential where the first is
// refused. An error that is not a *[ResponseError] leaves open whether the
// events were stored: give them IDs, and publish them again to find out.
func (c *Client) Publish(ctx context.Context, routing twinrail.Routing, req twinrail.PublishRequest) ([]twinrail.PublishResult, error) {
	body, err := appendPublish(nil, req)
	if err != nil {
		return nil, err
	}
	var resp twinrail.PublishResponse
	if err := c.call(ctx, http.MethodPost, c.endpoint(twinrail.PathPublish, nil), routing, body, &resp); err != nil {
		return nil, err
	}
	if len(resp.Results) != len(req.Events) {
		return nil, fmt.Errorf("client: %d results came back for %d events", len(resp.Results), len(req.Events))
	}
	return resp.Results, nil
}

// appendPublish appends the JSON of req with each event's data byte for byte,
// which encoding/json would rewrite.
func appendPublish(dst []byte, req twinrail.PublishRequest) ([]byte, error) {
	dst = append(dst, `{"events":[`...)
	for i, event := range req.Events {
		data := event.Data
		if len(data) == 0 {
			data = []byte("null")
		}
		if !json.Valid(data) {
			return nil, twinrail.Errorf(twinrail.CodeBadRequest, fmt.Sprintf("events[%d].data", i), "not JSON")
		}
		event.Data = nil
		rest, err := json.Marshal(event)
		if err != nil {
			return nil, fmt.Errorf("client: events[%d]: %w", i, err)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		// Data is the last member, and null without a value.
		dst = append(dst, bytes.TrimSuffix(rest, []byte("null}"))...)
		dst = append(append(dst, data...), '}')
	}
	dst = append(dst, ']')
	if req.ExpectedSeq != nil {
		dst = strconv.AppendUint(append(dst, `,"expected_seq":`...), *req.ExpectedSeq, 10)
	}
	return append(dst, '}'), nil
}

// HistoryOptions says which page of a stream to read.
type HistoryOptions struct {
	// After is a cursor; "" and [twinrail.CursorEarliest] both mean the oldest
	// event that is retained.
	After string
	// Limit bounds the events of the page; 0 leaves it to the server.
	Limit int
	// Channels to read, commit and artifact or chat and tool; each must be granted.
	// Default what is granted of the stream's two. Where routing names a canvas and
	// a thread they say which of them is the stream: the other is an audience key.
	Channels []twinrail.Channel
	// Kinds, where there are any, are the kinds of artifact to read, such as
	// [twinrail.ArtifactPreview]; artifacts of others are left out.
	Kinds []string
}

// History reads one page of the stream that routing names, a canvas or a thread.
// A cursor that is void is an error of code cursor_expired, whose detail begins
// with which of the two reasons it was, cursor_expired or cursor_unknown.
func (c *Client) History(ctx context.Context, routing twinrail.Routing, o HistoryOptions) (twinrail.HistoryPage, error) {
	query := url.Values{}
	if o.After != "" && o.After != twinrail.CursorEarliest {
		query.Set("after", o.After)
	}
	if o.Limit > 0 {
		query.Set("limit", strconv.Itoa(o.Limit))
	}
	if len(o.Channels) > 0 {
		query.Set("channels", channelList(o.Channels))
	}
	if len(o.Kinds) > 0 {
		query.Set("kinds", strings.Join(o.Kinds, ","))
	}
	var page twinrail.HistoryPage
	err := c.call(ctx, http.MethodGet, c.endpoint(twinrail.PathHistory, query), routing, nil, &page)
	return page, err
}

// channelList is how a query names channels.
func channelList(channels []twinrail.Channel) string {
	names := make([]string, len(channels))
	for i, ch := range channels {
		names[i] = string(ch)
	}
	return strings.Join(names, ",")
}

// call sends a request that ends, with a new credential once more where the
// server refuses the first for that.
func (c *Client) call(ctx context.Context, method, u string, routing twinrail.Routing, body []byte, into any) error {
	token, err := c.credential.get(ctx)
	if err != nil {
		return err
	}
	err = c.send(ctx, method, u, token, routing, body, into)
	var refused *ResponseError
	if errors.As(err, &refused) && refused.Action == twinrail.ActionRefresh && c.credential.source != nil {
		if token, err = c.credential.replace(ctx, token); err != nil {
			return err
		}
		err = c.send(ctx, method, u, token, routing, body, into)
	}
	return err
}

func (c *Client) send(ctx context.Context, method, u, token string, routing twinrail.Routing, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = header(token, routing)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("client: no answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return responseError(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, int64(c.maxMessage)+1))
	if err != nil {
		return fmt.Errorf("client: the answer broke off: %w", err)
	}
	if len(data) > c.maxMessage {
		return fmt.Errorf("client: the answer is longer than Options.MaxMessage, %d bytes", c.maxMessage)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("client: the answer cannot be read: %w", err)
	}
	return nil
}

package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/twinrail/twinrail"
)

// stream is an SSE stream that a party reads. Its waits end with the context that
// it was opened with.
type stream struct {
	p      *party
	body   io.ReadCloser
	lines  *bufio.Reader
	open   twinrail.Open
	cursor string // the last id
}

// block is an event of an SSE stream, or an id alone.
type block struct{ id, event, data string }

// sse is the call that opens the SSE rail.
func sse(at twinrail.Routing, query url.Values) call {
	return call{method: http.MethodGet, path: twinrail.PathSSECanvases + at.CanvasID, stated: at, inQuery: true, query: query}
}

// follow opens an SSE stream. It returns the answer where there is none.
func (p *party) follow(ctx context.Context, c call) (*stream, *answer, error) {
	r, err := p.request(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := p.w.client.Do(r)
	if err != nil {
		return nil, nil, plainError(err)
	}
	if resp.StatusCode != http.StatusOK {
		a, err := p.read(resp, "GET "+twinrail.PathSSECanvases)
		return nil, a, err
	}
	rec := p.record("an SSE stream")
	_ = resp.Header.Write(rec) // a buffer takes everything
	s := &stream{p: p, body: resp.Body, lines: bufio.NewReader(io.TeeReader(resp.Body, rec))}
	p.open = append(p.open, resp.Body)
	b, err := s.until(twinrail.SSEOpen)
	if err == nil {
		err = json.Unmarshal([]byte(b.data), &s.open)
	}
	return s, nil, err
}

// mustFollow opens an SSE stream, and reads up to live.
func (p *party) mustFollow(ctx context.Context, c call) (*stream, error) {
	s, a, err := p.follow(ctx, c)
	if err != nil {
		return nil, err
	}
	if a != nil {
		return nil, fmt.Errorf("the stream was refused: %s", a)
	}
	_, err = s.until(twinrail.SSELive)
	return s, err
}

// next returns the next block that has an id or an event.
func (s *stream) next() (block, error) {
	var b block
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return b, fmt.Errorf("the stream ended: %w", err)
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "id":
			b.id, s.cursor = value, value
		case name == "event":
			b.event = value
		case name == "data":
			b.data += value + "\n"
		case line == "\n" && b != block{}:
			return b, nil
		}
	}
}

// until reads on to the next event of that name.
func (s *stream) until(event string) (block, error) {
	return s.find(event, func(b block) bool { return b.event == event })
}

func (s *stream) await(text string) (json.RawMessage, error) {
	b, err := s.find("the event", func(b block) bool { return strings.Contains(b.data, text) })
	return json.RawMessage(b.data), err
}

// find reads on to the next block that is wanted.
func (s *stream) find(what string, wanted func(block) bool) (block, error) {
	for {
		switch b, err := s.next(); {
		case err != nil:
			return b, fmt.Errorf("waiting for %s: %w", what, err)
		case wanted(b):
			return b, nil
		case b.event == twinrail.SSEEnd || b.event == twinrail.SSEReset:
			return b, fmt.Errorf("waiting for %s: %s %s", what, b.event, strings.TrimSpace(b.data))
		}
	}
}

// endsFor checks that b, which ends the stream of p, says that code, and not to
// come back.
func (b block) endsFor(p *party, code twinrail.Code) error {
	var end twinrail.End
	if err := json.Unmarshal([]byte(b.data), &end); err != nil || end.Code != code || end.Reconnect {
		return errors.Join(err, fmt.Errorf("the stream of %s ended with %s", p.name, strings.TrimSpace(b.data)))
	}
	return nil
}

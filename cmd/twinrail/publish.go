package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/twinrail/twinrail"
	"github.com/twinrail/twinrail/client"
)

// publishCmd publishes what it reads.
type publishCmd struct {
	remote      `embed:""`
	ExpectedSeq *uint64 `help:"Refuse unless the stream's last seq is that. Of several events each later one expects the one before it." placeholder:"N"`
}

// Help implements kong's HelpProvider.
func (publishCmd) Help() string {
	return `Reads one event, or one event a line, as JSON:

  {"channel":"commit","type":"canvas_commit",
   "routing":{"workspace_id":"w1","project_id":"p1","app_id":"studio","canvas_id":"c1"},
   "data":{"any":"JSON"}}

and prints each result as a line of JSON. Each event is published by itself, in order; the first that fails ends it, and those before it are stored. What only the server says (v, seq, prev, cursor, time, actor_type, request_id, traceparent) is passed over, so that the output of tail --json can be published again. With an "id" of its own an event can be published again without being stored twice.`
}

// Run implements the command.
func (c *publishCmd) Run(p *process) error {
	remote, routing, err := c.dial(client.Options{})
	if err != nil {
		return err
	}
	defer remote.Close()
	out := outlet{p.ctx, p.stdout}
	expected := c.ExpectedSeq
	inputs := readEvents(p.ctx, p.stdin)
	for n := 1; ; n++ {
		var in input
		select {
		case in = <-inputs:
		case <-p.ctx.Done():
			return fmt.Errorf("event %d: %w", n, context.Cause(p.ctx))
		}
		if errors.Is(in.err, io.EOF) {
			if n == 1 {
				return usageError(errors.New("there is no event on standard input"), "twinrail publish --help shows one")
			}
			return nil
		}
		if in.err != nil {
			return usageError(fmt.Errorf("event %d: %w", n, in.err), "twinrail publish --help shows an event")
		}
		results, err := remote.Publish(p.ctx, routing, twinrail.PublishRequest{Events: []twinrail.NewEvent{in.event}, ExpectedSeq: expected})
		if err != nil {
			return fmt.Errorf("event %d: %w", n, err)
		}
		line, err := json.Marshal(results[0])
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
			return fmt.Errorf("event %d was published, and nobody took its result: %w", n, err)
		}
		if expected != nil {
			expected = &results[0].Seq
		}
	}
}

// input is an event that was read, or why there is none.
type input struct {
	event twinrail.NewEvent
	err   error
}

// readEvents reads events up to the first error, one ahead. It does so in the
// background, since no signal ends a read of standard input: the one that waits
// when ctx ends is left behind.
func readEvents(ctx context.Context, from io.Reader) <-chan input {
	inputs := make(chan input)
	go func() {
		decoder := json.NewDecoder(from)
		for {
			event, err := readEvent(decoder)
			select {
			case inputs <- input{event, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return inputs
}

// inputEvent is an event as a publisher writes it, or as a follower received it.
// Anything else in it is a mistake, and in "to" or "routing" one that would widen
// who receives it.
type inputEvent struct {
	twinrail.NewEvent
	V           json.RawMessage `json:"v"`
	Seq         json.RawMessage `json:"seq"`
	Prev        json.RawMessage `json:"prev"`
	Cursor      json.RawMessage `json:"cursor"`
	Time        json.RawMessage `json:"time"`
	ActorType   json.RawMessage `json:"actor_type"`
	RequestID   json.RawMessage `json:"request_id"`
	Traceparent json.RawMessage `json:"traceparent"`
}

// readEvent reads the next event, however it is broken into lines. At the end of
// the input it returns io.EOF.
func readEvent(from *json.Decoder) (twinrail.NewEvent, error) {
	var raw json.RawMessage
	if err := from.Decode(&raw); err != nil {
		return twinrail.NewEvent{}, err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	var event inputEvent
	err := decoder.Decode(&event)
	return event.NewEvent, err
}
